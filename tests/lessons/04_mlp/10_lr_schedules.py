"""4.10 节 学习率调度：与 PyTorch 逐步相等，状态可以互换，坏的输入、改坏的实现和错误答案。"""

import copy
import math
import pickle
import warnings

import pytest
import torch
from parity import refuses
from torch.optim import lr_scheduler as reference

NAMES = (
    "StepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR", "WarmupCosine", "CyclicLR",
    "OneCycleLR", "ReduceLROnPlateau", "LRSchedule", "expected_loss", "minibatches", "accuracy",
)
FORBIDDEN = frozenset({
    "lr_scheduler", "LRScheduler", "StepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR",
    "CyclicLR", "OneCycleLR", "ReduceLROnPlateau", "SequentialLR", "LambdaLR", "MultiplicativeLR",
    "MultiStepLR", "ConstantLR", "ChainedScheduler", "PolynomialLR", "CosineAnnealingWarmRestarts",
})


def optimizer_of(kind="SGD", groups=3):
    """几个参数组、学习率各不相同的优化器；张量学习率也算一种。"""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(groups)]
    lrs = [0.5 / 4**i for i in range(groups)]
    if kind == "tensor lr":
        table = [dict(params=[p], lr=torch.tensor(lr, dtype=torch.float64))
                 for p, lr in zip(params, lrs, strict=True)]
        return torch.optim.Adam(table, lr=torch.tensor(0.1), foreach=False)
    table = [dict(params=[p], lr=lr) for p, lr in zip(params, lrs, strict=True)]
    if kind == "Adam":
        return torch.optim.AdamW(table, lr=0.1)
    if kind == "RMSprop":
        return torch.optim.RMSprop(table, lr=0.1, momentum=0.7)
    if kind == "Adagrad":
        return torch.optim.Adagrad(table, lr=0.1)
    return torch.optim.SGD(table, lr=0.1, momentum=0.7)


def values(optimizer):
    """每组的（学习率，动量）。"""
    return [(float(g["lr"]), g["betas"][0] if "betas" in g else g.get("momentum", 0.0))
            for g in optimizer.param_groups]


def walk(make, steps, kind="SGD", groups=3):
    """逐步走，记下每一步；还要求 get_last_lr 与优化器里的相同。"""
    optimizer = optimizer_of(kind, groups)
    kinds = [type(g["lr"]) for g in optimizer.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule, rows = make(optimizer), []
        for _ in range(steps):
            rows.append(values(optimizer))
            assert [float(lr) for lr in schedule.get_last_lr()] == pytest.approx(
                [lr for lr, _ in rows[-1]], rel=1e-6), "get_last_lr 与优化器不同"
            optimizer.step()
            schedule.step()
    assert [type(g["lr"]) for g in optimizer.param_groups] == kinds, "学习率的类型变了"
    return torch.tensor(rows, dtype=torch.float64)


def equal(mine, theirs, steps, kinds=("SGD", "Adam", "RMSprop", "tensor lr"), groups=(1, 3)):
    """参照不用张量学习率：PyTorch 2.6 的 SequentialLR 会连初始学习率一起改掉。"""
    for kind in kinds:
        for n in groups:
            expected = walk(theirs, steps, "Adam" if kind == "tensor lr" else kind, n)
            torch.testing.assert_close(walk(mine, steps, kind, n), expected, rtol=1e-8, atol=1e-10)


def same_class(ns, name, cases, steps, **options):
    for kwargs in cases:
        equal(lambda o, k=kwargs: ns[name](o, **k),
              lambda o, k=kwargs: getattr(reference, name)(o, **k), steps, **options)


def resumes(ns, name, kwargs, theirs=None):
    """中断后恢复与不中断相同：自己的状态、与 PyTorch 互换的状态，都经过 pickle。"""
    mine = lambda o: ns[name](o, **kwargs)  # noqa: E731
    theirs = theirs or (lambda o: getattr(reference, name)(o, **kwargs))
    whole = walk(theirs, 17)
    pairs = [(mine, mine), (mine, theirs), (theirs, mine)]
    for first, second in pairs[: 1 if name == "WarmupCosine" else 3]:
        old, new = optimizer_of(), optimizer_of()
        a, b = first(old), second(new)
        for _ in range(6):
            old.step()
            a.step()
        before = copy.deepcopy(a.state_dict())
        b.load_state_dict(pickle.loads(pickle.dumps(a.state_dict())))
        new.load_state_dict(copy.deepcopy(old.state_dict()))
        assert a.state_dict().keys() == before.keys()
        rows = []
        for _ in range(11):
            rows.append(values(new))
            new.step()
            b.step()
        torch.testing.assert_close(torch.tensor(rows, dtype=torch.float64), whole[6:],
                                   rtol=1e-8, atol=1e-10)
    refuses(mine(optimizer_of()).load_state_dict, {})


def continues(ns, name, kwargs):
    """last_epoch=k：第 0 到 k 步已经走完，从第 k + 1 步接着走。"""
    whole = walk(lambda o: ns[name](o, **kwargs), 12)
    old = optimizer_of()
    a = ns[name](old, **kwargs)
    for _ in range(4):
        a.step()
    new = optimizer_of()
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    b, rows = ns[name](new, **kwargs, last_epoch=4), []
    assert b.last_epoch == 5
    for _ in range(7):
        rows.append(values(new))
        b.step()
    torch.testing.assert_close(torch.tensor(rows, dtype=torch.float64), whole[5:])
    refuses(ns[name], optimizer_of(), **kwargs, last_epoch=4)      # 没有 initial_lr
    for bad in (-2, 1.5, True):
        refuses(ns[name], optimizer_of(), **kwargs, last_epoch=bad)
    with pytest.raises(TypeError, match="[\u4e00-\u9fff]"):
        ns[name]([torch.zeros(1)], **kwargs)


def refused(ns, name, good, bads, kind="SGD"):
    for bad in bads:
        refuses(ns[name], optimizer_of(kind), **{**good, **bad})


def check_step(ns):
    same_class(ns, "StepLR", [dict(step_size=s, gamma=g) for s, g in
                              ((3, 0.5), (1, 0.1), (7, 0.9), (100, 0.1), (4, 1.2))]
               + [dict(step_size=5)], 30)
    resumes(ns, "StepLR", dict(step_size=4, gamma=0.5))
    continues(ns, "StepLR", dict(step_size=3))
    refused(ns, "StepLR", dict(step_size=3),
            [dict(step_size=0), dict(step_size=2.5), dict(gamma=0.0), dict(gamma=math.nan)])


def check_exponential(ns):
    same_class(ns, "ExponentialLR", [dict(gamma=g) for g in (0.9, 0.5, 1.0, 1.1)], 40)
    resumes(ns, "ExponentialLR", dict(gamma=0.9))
    continues(ns, "ExponentialLR", dict(gamma=0.9))
    refused(ns, "ExponentialLR", {}, [dict(gamma=0.0), dict(gamma=-1.0), dict(gamma=math.nan)])


def check_linear(ns):
    same_class(ns, "LinearLR", [
        dict(), dict(start_factor=0.1, end_factor=0.9, total_iters=10),
        dict(start_factor=1.0, end_factor=0.0, total_iters=8), dict(total_iters=1),
        dict(start_factor=0.5, end_factor=0.5, total_iters=4)], 25)
    resumes(ns, "LinearLR", dict(start_factor=0.1, total_iters=12))
    continues(ns, "LinearLR", dict(start_factor=0.1, total_iters=8))
    refused(ns, "LinearLR", {}, [
        dict(start_factor=0.0), dict(start_factor=1.5), dict(end_factor=-0.1),
        dict(end_factor=1.1), dict(total_iters=0)])


def check_cosine(ns):
    same_class(ns, "CosineAnnealingLR", [
        dict(T_max=10), dict(T_max=7, eta_min=0.01), dict(T_max=1), dict(T_max=2, eta_min=0.3),
        dict(T_max=50)], 60)
    resumes(ns, "CosineAnnealingLR", dict(T_max=9, eta_min=0.01))
    continues(ns, "CosineAnnealingLR", dict(T_max=9))
    refused(ns, "CosineAnnealingLR", dict(T_max=5),
            [dict(T_max=0), dict(T_max=2.5), dict(eta_min=-0.1), dict(eta_min=math.nan)])


def sequential(W, T):
    def make(optimizer):
        return reference.SequentialLR(optimizer, [
            reference.LinearLR(optimizer, start_factor=1 / W, total_iters=W),
            reference.CosineAnnealingLR(optimizer, T_max=T - W)], milestones=[W])
    return make


def check_warmup_cosine(ns):
    for W, T in ((4, 10), (1, 8), (7, 8), (5, 30), (20, 100)):
        equal(lambda o, W=W, T=T: ns["WarmupCosine"](o, W, T), sequential(W, T), T + 15)
    equal(lambda o: ns["WarmupCosine"](o, warmup_steps=0, total_steps=12),
          lambda o: reference.CosineAnnealingLR(o, 12), 20)
    resumes(ns, "WarmupCosine", dict(warmup_steps=4, total_steps=15), sequential(4, 15))
    continues(ns, "WarmupCosine", dict(warmup_steps=7, total_steps=11))
    refused(ns, "WarmupCosine", dict(warmup_steps=3, total_steps=9), [
        dict(warmup_steps=-1), dict(total_steps=3), dict(warmup_steps=1.5), dict(total_steps=9.5)])


CYCLES = (
    dict(), dict(step_size_down=2), dict(step_size_down=7), dict(mode="triangular2"),
    dict(mode="exp_range", gamma=0.9), dict(cycle_momentum=False),
    dict(base_momentum=0.6, max_momentum=0.99, mode="triangular2"),
    dict(scale_fn=lambda c: 1 / c), dict(scale_fn=lambda t: 0.95**t, scale_mode="iterations"),
    dict(scale_fn=lambda c: 1 / c**2, mode="ignored", scale_mode="cycle"),
)


def check_cyclic(ns):
    for options in CYCLES:
        same_class(ns, "CyclicLR", [dict(base_lr=0.01, max_lr=0.1, step_size_up=4, **options)], 40)
    lists = dict(base_lr=[0.01, 0.02, 0.0], max_lr=[0.1, 0.3, 0.5], step_size_up=3,
                 base_momentum=[0.7, 0.8, 0.85], max_momentum=[0.9, 0.95, 0.9])
    same_class(ns, "CyclicLR", [lists], 30, groups=(3,))
    same_class(ns, "CyclicLR", [dict(base_lr=0.01, max_lr=0.1)], 12)       # 默认 2000 步
    same_class(ns, "CyclicLR", [dict(base_lr=0.01, max_lr=0.1, step_size_up=2,
                                     cycle_momentum=False)], 12, kinds=("Adagrad",))
    good = dict(base_lr=0.01, max_lr=0.1, step_size_up=4)
    resumes(ns, "CyclicLR", dict(**good, mode="triangular2"))
    continues(ns, "CyclicLR", good)
    refused(ns, "CyclicLR", good, [
        dict(mode="square"), dict(step_size_up=0), dict(step_size_up=1.5), dict(max_lr=[1.0]),
        dict(base_lr=[0.1, 0.2]), dict(max_momentum=[0.9] * 4),
        dict(scale_fn=abs, scale_mode="rounds"), dict(step_size_down=-1), dict(step_size_down=0)])
    refused(ns, "CyclicLR", good, [dict()], kind="Adagrad")


ONE_CYCLES = (
    dict(total_steps=30), dict(epochs=5, steps_per_epoch=7), dict(total_steps=40, pct_start=0.5),
    dict(total_steps=33, anneal_strategy="linear"), dict(total_steps=40, three_phase=True),
    dict(total_steps=37, three_phase=True, pct_start=0.45, anneal_strategy="linear"),
    dict(total_steps=30, div_factor=10.0, final_div_factor=50.0),
    dict(total_steps=30, pct_start=0.0), dict(total_steps=30, cycle_momentum=False),
    dict(total_steps=30, base_momentum=0.6, max_momentum=0.99),
    dict(total_steps=29, epochs=3, steps_per_epoch=4),
)


def check_one_cycle(ns):
    for options in ONE_CYCLES:
        total = options.get("total_steps", 35)
        same_class(ns, "OneCycleLR", [dict(max_lr=0.4, **options)], total)   # 含多走的最后一步
    lists = dict(max_lr=[0.1, 0.3, 0.5], total_steps=20, base_momentum=[0.7, 0.8, 0.85],
                 max_momentum=[0.9, 0.95, 0.9])
    same_class(ns, "OneCycleLR", [lists], 20, groups=(3,))
    good = dict(max_lr=0.4, total_steps=30)
    optimizer = optimizer_of()
    schedule = ns["OneCycleLR"](optimizer, **good)
    for _ in range(30):
        schedule.step()
    refuses(schedule.step)
    resumes(ns, "OneCycleLR", good)
    continues(ns, "OneCycleLR", good)
    refused(ns, "OneCycleLR", good, [
        dict(total_steps=None), dict(total_steps=0), dict(total_steps=2.5), dict(max_lr=[1.0]),
        dict(total_steps=None, epochs=3), dict(total_steps=None, epochs=0, steps_per_epoch=3),
        dict(pct_start=1.5), dict(pct_start=-0.1), dict(anneal_strategy="exp"),
        dict(div_factor=0.0), dict(final_div_factor=-1.0), dict(base_momentum=[0.8])])
    refused(ns, "OneCycleLR", good, [dict()], kind="Adagrad")


METRICS = (
    [5.0, 4.0, 4.0, 4.2, 3.0, 3.0, math.nan, 2.9, 3.1, 3.1, 3.1, 3.1, 2.0, 2.0, 2.0, 2.0, 2.0],
    [1.0, 0.75, 0.5625, 0.5625, 0.421875, 0.4, 0.3, 0.3, 0.3],            # 正好在门槛上
    [math.nan, math.nan, 1.0, math.inf, 0.5, -1.0, -1.0, -2.0, -1.5, -3.0, 4.0, 5.0, 6.0],
    [1.0] * 20, [float(i) for i in range(12)], [float(-i) for i in range(12)],
)
PLATEAUS = (
    dict(), dict(patience=0), dict(patience=1), dict(patience=2, cooldown=3),
    dict(patience=0, cooldown=2), dict(mode="max", patience=1),
    dict(mode="max", patience=0, threshold=0.3),
    dict(patience=0, threshold=0.25), dict(patience=0, threshold=0.25, threshold_mode="abs"),
    dict(mode="max", patience=0, threshold=1.0, threshold_mode="abs"),
    dict(patience=0, min_lr=0.02, factor=0.5),
    dict(patience=0, min_lr=[0.3, 0.05, 0.0], factor=0.3),
    dict(patience=0, eps=0.05, factor=0.5),
)


def check_plateau(ns):
    for options in PLATEAUS:
        for metrics in METRICS:
            tables = []
            for cls in (ns["ReduceLROnPlateau"], reference.ReduceLROnPlateau):
                optimizer = optimizer_of()
                schedule, rows = cls(optimizer, **options), []
                assert schedule.get_last_lr() == [lr for lr, _ in values(optimizer)]
                for i, value in enumerate(metrics):
                    schedule.step(torch.tensor(value) if i % 2 else value)
                    rows.append(values(optimizer))
                    assert schedule.get_last_lr() == [lr for lr, _ in rows[-1]]
                tables.append(torch.tensor(rows, dtype=torch.float64))
            torch.testing.assert_close(*tables, rtol=1e-10, atol=0)
    mine, theirs = ns["ReduceLROnPlateau"], reference.ReduceLROnPlateau
    metrics = METRICS[0]
    for first, second in ((mine, mine), (mine, theirs), (theirs, mine)):   # 状态互换
        whole, old, new = optimizer_of(), optimizer_of(), optimizer_of()
        one = theirs(whole, patience=1, cooldown=1, factor=0.5)
        a = first(old, patience=1, cooldown=1, factor=0.5)
        b = second(new, patience=1, cooldown=1, factor=0.5)
        for value in metrics[:6]:
            a.step(value)
            one.step(value)
        b.load_state_dict(pickle.loads(pickle.dumps(a.state_dict())))
        new.load_state_dict(copy.deepcopy(old.state_dict()))
        for value in metrics[6:]:
            b.step(value)
            one.step(value)
            assert new.param_groups[0]["lr"] == pytest.approx(whole.param_groups[0]["lr"])
    tensor = optimizer_of("tensor lr")
    schedule = mine(tensor, patience=0)
    for value in (1.0, 2.0):
        schedule.step(value)
    assert all(isinstance(g["lr"], torch.Tensor) for g in tensor.param_groups)
    assert values(tensor)[0][0] == pytest.approx(0.05)
    refused(ns, "ReduceLROnPlateau", {}, [
        dict(mode="down"), dict(threshold_mode="log"), dict(factor=1.0), dict(factor=0.0),
        dict(factor=math.nan), dict(patience=-1), dict(patience=1.5), dict(cooldown=-1),
        dict(min_lr=[0.1])])
    refuses(mine(optimizer_of()).load_state_dict, {})
    with pytest.raises(TypeError, match="[\u4e00-\u9fff]"):
        mine(object())


def check_base(ns):
    """自己写的子类能用，也能用在只有 param_groups 的优化器上。"""

    class InverseRoot(ns["LRSchedule"]):
        def lr_at(self, t, base_lr):
            return base_lr / math.sqrt(max(t, 0) + 1)

    class Tiny:
        param_groups = [dict(params=[], lr=2.0)]

    optimizer = Tiny()
    schedule = InverseRoot(optimizer)
    for t in range(6):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 / math.sqrt(t + 1))
        assert schedule.last_epoch == t
        schedule.step()
    schedule.get_last_lr()[0] = -1.0
    assert schedule.get_last_lr()[0] > 0, "get_last_lr 要返回副本"
    assert "optimizer" not in schedule.state_dict()


def check_expected_loss(ns):
    loss = ns["expected_loss"]
    etas = torch.tensor([0.5, 0.25], dtype=torch.float64)
    h = torch.ones(1, dtype=torch.float64)
    # 手算：m = 100 → 25 + 0.25 = 25.25 → 0.5625·25.25 + 0.0625
    by_hand = torch.tensor([50, 12.625, 0.5 * (0.5625 * 25.25 + 0.0625)], dtype=torch.float64)
    torch.testing.assert_close(loss(etas, h), by_hand)
    constant = torch.full((2000, 3), 1.0, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1.0])
    end = loss(constant, h, start=3.0, sigma=2.0)
    assert end.shape == (2001, 3)
    eta = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(end[-1], eta * 4 / (2 * (2 - eta)), rtol=1e-6, atol=0)
    two = loss(etas, torch.tensor([1.0, 0.3], dtype=torch.float64))
    one = loss(etas, torch.tensor([0.3], dtype=torch.float64))
    torch.testing.assert_close(two, loss(etas, h) + one)
    refuses(loss, torch.tensor(0.5), h)
    refuses(loss, etas, torch.ones(1, 1))


def check_minibatches(ns):
    X, y = torch.arange(20.0).reshape(10, 2), torch.arange(10)
    parts = list(ns["minibatches"](X, y, 4, torch.Generator().manual_seed(3)))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    assert [len(b) for _, b in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([b for _, b in parts]), order)
    assert torch.equal(torch.cat([a for a, _ in parts]), X[order])
    refuses(ns["minibatches"], X, y[:5], 4)
    refuses(ns["minibatches"], X, y, 0)


def check_accuracy(ns):
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 1.0]])
    assert ns["accuracy"](logits, torch.tensor([1, 0, 0, 0])) == 0.75


CHECKS = {
    "StepLR": check_step, "ExponentialLR": check_exponential, "LinearLR": check_linear,
    "CosineAnnealingLR": check_cosine, "WarmupCosine": check_warmup_cosine,
    "CyclicLR": check_cyclic, "OneCycleLR": check_one_cycle, "ReduceLROnPlateau": check_plateau,
    "LRSchedule": check_base, "expected_loss": check_expected_loss,
    "minibatches": check_minibatches, "accuracy": check_accuracy,
}
BROKEN = [
    ("StepLR", "t // self.step_size", "(t + 1) // self.step_size"),
    ("StepLR", "t // self.step_size", "t / self.step_size"),
    ("StepLR", 'checked_range("gamma", gamma, 1e-300, math.inf)', "gamma"),
    ("ExponentialLR", "self.gamma**t", "self.gamma ** (t + 1)"),
    ("ExponentialLR", 'group["lr"].fill_(lr)', 'group["lr"] = lr'),
    ("LinearLR", "min(t, self.total_iters) / self.total_iters", "t / self.total_iters"),
    ("LinearLR", "(self.end_factor - self.start_factor) * progress", "self.end_factor * progress"),
    ("CosineAnnealingLR", "math.pi * t / self.T_max", "math.pi * min(t, self.T_max) / self.T_max"),
    ("CosineAnnealingLR", "(base_lr - self.eta_min) * height", "base_lr * height"),
    ("WarmupCosine", "(1 / W + (1 - 1 / W) * t / W)", "(t + 1) / W"),
    ("WarmupCosine", "(t - W) / (T - W)", "t / T"),
    ("WarmupCosine", "if t < W:", "if t <= W - 1 and W > 1:"),
    ("CyclicLR", "0.5 ** (c - 1)", "0.5**c"),
    ("CyclicLR", "(up + down - position) / down", "(up + down - position) / up"),
    ("CyclicLR", '(lambda t: gamma**t, "iterations")', '(lambda t: gamma**t, "cycle")'),
    ("CyclicLR", "self.blend(t, high, low)\n", "self.blend(t, low, high)\n"),
    ("OneCycleLR", "pct_start * total_steps - 1, (", "pct_start * total_steps, ("),
    ("OneCycleLR", "2 * pct_start * total_steps - 2", "2 * pct_start * total_steps - 1"),
    ("OneCycleLR", "last = low /", "last = peak /"),
    ("OneCycleLR", 'group["betas"] = (value, *group["betas"][1:])', "pass"),
    ("ReduceLROnPlateau", "return value > limit if mode == \"max\" else value < limit",
     "return value >= limit if mode == \"max\" else value <= limit"),
    ("ReduceLROnPlateau", "self.num_bad_epochs > self.patience",
     "self.num_bad_epochs >= self.patience"),
    ("ReduceLROnPlateau", "if old - new > self.eps:", "if True:"),
    ("ReduceLROnPlateau", "self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0",
     "self.num_bad_epochs = 0"),
    ("LRSchedule", "return list(self._last_lr)", "return self._last_lr"),
    ("LRSchedule", "self.lrs_at(self.last_epoch + 1)", "self.lrs_at(self.last_epoch)"),
    ("expected_loss", "(1 - eta * h) ** 2 * m", "(1 - eta * h) * m"),
    ("expected_loss", "(eta * sigma) ** 2", "eta * sigma**2"),
    ("minibatches", "torch.randperm(len(X), generator=generator)", "torch.arange(len(X))"),
    ("minibatches", "if batch_size < 1:", "if False:"),
    ("accuracy", "argmax(dim=1)", "argmin(dim=1)"),
    ("accuracy", ".mean().item()", ".sum().item()"),
]
MUTATIONS = [
    [("min(t, total_iters)", "t"), ("** power", ""), ("(1 - progress)", "(1 - progress) * power"),
     ("min(t, total_iters) /", "min(t + 1, total_iters) /")],
    [("length *= T_mult", "pass"), ("t >= length", "t > length"),
     ("math.pi * t / length", "math.pi * t / T_0"),
     ("(eta_max - eta_min)", "eta_max"), ("length *= T_mult", "length = T_0 * T_mult")],
]
