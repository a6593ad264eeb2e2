"""4.11 节 训练技巧：约定、一致性、改坏的实现和错误答案。"""

import copy
import itertools
import math

import pytest
import torch
from parity import REDUCTIONS, TOLERANCE, randn, refuses, same
from torch import nn
from torch.nn import functional as F

NAMES = ("clip_grad_norm_", "EarlyStopping", "cross_entropy", "EMA", "backward_in_pieces",
         "log_softmax")
FORBIDDEN = frozenset({
    "softmax", "log_softmax", "softmin", "gumbel_softmax", "_softmax", "_log_softmax",
    "logsumexp", "logaddexp", "Softmax", "LogSoftmax", "Softmin", "cross_entropy",
    "CrossEntropyLoss", "nll_loss", "NLLLoss", "Categorical", "kl_div", "KLDivLoss",
    "clip_grad_norm_", "get_total_norm", "clip_grads_with_norm_", "vector_norm",
    "AveragedModel", "get_ema_multi_avg_fn", "get_ema_avg_fn", "swa_utils",
})
SHAPES = ((), (3,), (4, 2), (2, 3, 2))


def parameters_with_grads(dtype, scale=1.0, missing=()):
    """几个参数，形状各异；missing 里的没有梯度。"""
    params = []
    for i, shape in enumerate(SHAPES):
        p = torch.zeros(shape, dtype=dtype, requires_grad=True)
        if i not in missing:
            p.grad = randn(*shape, dtype=dtype, seed=i, scale=scale)
        params.append(p)
    return params


def compare_clip(mine, make, *args, **kwargs):
    """同样的梯度，两种裁剪：返回值和裁剪后的梯度都相同（nan 也算）。"""
    results = []
    for clip in (mine, nn.utils.clip_grad_norm_):
        params = make()
        total = clip(params, *args, **kwargs)
        grads = [p.grad for p in ([params] if isinstance(params, torch.Tensor) else params)]
        results.append((total, grads))
    (a, grads_a), (b, grads_b) = results
    assert isinstance(a, torch.Tensor) and not a.requires_grad
    tol = TOLERANCE[b.dtype]
    torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)
    for x, y in zip(grads_a, grads_b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=tol, atol=tol, equal_nan=True)


def check_clip(ns):
    mine = ns["clip_grad_norm_"]
    for dtype, p, c in itertools.product(
        TOLERANCE, (2.0, 1.0, 0.5, 3, 0.0, math.inf, "inf", -math.inf), (0.0, 0.1, 1.0, 1e4)
    ):
        compare_clip(mine, lambda: parameters_with_grads(dtype), c, p)  # noqa: B023
        compare_clip(mine, lambda: parameters_with_grads(dtype, missing=(1,)), c, p)  # noqa: B023
    for dtype in TOLERANCE:
        compare_clip(mine, lambda: parameters_with_grads(dtype)[2], 0.3)  # noqa: B023
        compare_clip(mine, lambda: parameters_with_grads(dtype, scale=0.0), 0.3)  # noqa: B023
        compare_clip(mine, lambda: parameters_with_grads(dtype, scale=1e-6), 1e-6)  # noqa: B023
        for bad in (math.nan, math.inf, -math.inf):
            def poisoned(dtype=dtype, bad=bad):
                params = parameters_with_grads(dtype)
                params[2].grad[1, 0] = bad
                return params

            compare_clip(mine, poisoned, 1.0)
            compare_clip(mine, poisoned, math.inf)
            compare_clip(mine, poisoned, 1.0, math.inf)
            with pytest.raises(RuntimeError, match="[\u4e00-\u9fff]"):
                mine(poisoned(), 1.0, error_if_nonfinite=True)
    # 生成器、没有任何梯度、nn.Module.parameters()；有限时 error_if_nonfinite 不报错
    params = parameters_with_grads(torch.float32)
    want = nn.utils.clip_grad_norm_(parameters_with_grads(torch.float32), 0.5)
    assert torch.allclose(mine((p for p in params), 0.5, error_if_nonfinite=True), want)
    assert torch.allclose(torch.cat([p.grad.flatten() for p in params]).norm(), torch.tensor(0.5))
    assert mine([torch.zeros(2, requires_grad=True)], 1.0) == 0
    assert mine([], 1.0) == 0
    for bad in (dict(max_norm=-1.0), dict(max_norm=math.nan),
                dict(max_norm=1.0, norm_type=math.nan)):
        refuses(mine, parameters_with_grads(torch.float32), **bad)


def brute_force(values, patience, min_delta, mode):
    """照定义：从上一次创新低（高）算起，已经连续 patience 次没有变好。"""
    best, since, stops = None, 0, []
    for v in values:
        start = math.inf if mode == "min" else -math.inf
        reference = start if best is None else best
        better = v < reference - min_delta if mode == "min" else v > reference + min_delta
        best, since = (v, 0) if better else (best, since + 1)
        stops.append(since >= patience)
    return stops, best


def check_early_stopping(ns):
    cls = ns["EarlyStopping"]
    for seed, patience, delta, mode in itertools.product(
        range(8), (1, 2, 3, 5), (0.0, 0.05, 0.3), ("min", "max")
    ):
        values = (randn(30, seed=seed) * 0.3).round(decimals=1).tolist()  # 有相等的值
        stopper = cls(patience, delta, mode)
        stops = [stopper.step(v) for v in values]
        want, best = brute_force(values, patience, delta, mode)
        assert stops == want and stopper.best == best
        assert values[stopper.best_step] == best
        # 与 ReduceLROnPlateau 的计数一致：第一次说停 = patience − 1 时第一次降学习率
        # （初值无穷大减去 min_delta 仍是无穷大）
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode, patience=patience - 1, threshold=delta, threshold_mode="abs")
        first = None
        for i, v in enumerate(values):
            plateau.step(v)
            if first is None and optimizer.param_groups[0]["lr"] < 1:
                first = i
        assert first == (stops.index(True) if True in stops else None)
    stopper = cls(2)
    assert [stopper.step(v) for v in (math.nan, 1.0, math.nan, math.nan)] == [False] * 3 + [True]
    assert stopper.best == 1.0
    assert cls(1).step(torch.tensor(0.3)) is False
    assert type(cls(2).step(0.5)) is bool
    for bad in (dict(patience=0), dict(patience=-1), dict(patience=2.0), dict(patience=True),
                dict(patience=2, min_delta=-0.1), dict(patience=2, min_delta=math.nan),
                dict(patience=2, mode="low")):
        refuses(cls, **bad)


def check_log_softmax(ns):
    for dtype, (shape, dim), scale in itertools.product(
        TOLERANCE, (((4,), 0), ((3, 5), 1), ((2, 3, 4), -2)), (1.0, 1e4)
    ):
        same(lambda x: ns["log_softmax"](x, dim), lambda x: F.log_softmax(x, dim),  # noqa: B023
             randn(*shape, dtype=dtype, scale=scale))


def check_cross_entropy(ns):
    mine, reference = ns["cross_entropy"], F.cross_entropy
    g = torch.Generator().manual_seed(0)
    shapes = (
        ((5,), ()), ((6, 4), (6,)), ((1, 3), (1,)), ((2, 5, 3), (2, 3)), ((2, 5, 3, 4), (2, 3, 4)),
        ((3, 3), (3,)),
    )
    for (shape, target_shape), dtype, reduction, eps, weighted in itertools.product(
        shapes, TOLERANCE, REDUCTIONS, (0.0, 0.1, 1.0), (False, True)
    ):
        C = shape[0] if len(shape) == 1 else shape[1]
        weight = torch.rand(C, generator=g).to(dtype) + 0.2 if weighted else None
        options = dict(weight=weight, reduction=reduction, label_smoothing=eps)
        target = torch.randint(C, target_shape, generator=g)
        for scale in (1.0, 1e4):
            x = randn(*shape, dtype=dtype, scale=scale)
            same(lambda x: mine(x, target, **options),  # noqa: B023
                 lambda x: reference(x, target, **options), x)  # noqa: B023
        x = randn(*shape, dtype=dtype, seed=3)
        if target.dim():
            some = target.clone()
            some.view(-1)[0] = -100
            for t, ignore in ((some, -100), (target, 1), (some.where(some >= 0, 7), 7),
                              (torch.full_like(target, -100), -100)):
                if ignore != -100 and ((t != ignore) & (t < 0)).any():
                    continue
                a = mine(x, t, ignore_index=ignore, **options)
                b = reference(x, t, ignore_index=ignore, **options)
                tol = TOLERANCE[dtype]
                torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)
                if (t != ignore).any():
                    same(lambda x: mine(x, t, ignore_index=ignore, **options),  # noqa: B023
                         lambda x: reference(x, t, ignore_index=ignore, **options), x)  # noqa: B023
        # 标签是概率
        probs = torch.softmax(randn(*shape, dtype=dtype, seed=5), 1 if len(shape) > 1 else 0)
        same(lambda x, t: mine(x, t, **options), lambda x, t: reference(x, t, **options),  # noqa: B023
             x, probs)
    same(mine, reference, randn(6, 4), torch.tensor([0, 1, 2, 3, 0, -100]))  # 默认值也相同
    masked = randn(4, 3)
    masked[:, 2] = -math.inf                              # 被挡住的类
    same(mine, reference, masked, torch.tensor([0, 1, 0, 1]))
    x, y = randn(6, 4), torch.zeros(6, dtype=torch.int64)
    for bad in (dict(reduction="average"), dict(label_smoothing=-0.1), dict(label_smoothing=1.5),
                dict(label_smoothing=math.nan), dict(weight=torch.ones(3)),
                dict(weight=torch.ones(4, 1))):
        refuses(mine, x, y, **bad)
    refuses(mine, x, y[:5])
    refuses(mine, x, torch.full((6,), 4))
    refuses(mine, x, torch.full((6,), -1))
    refuses(mine, x, y.float())
    refuses(mine, x, y.int())
    refuses(mine, x, torch.full((6, 4), 0.25), ignore_index=1)
    refuses(mine, torch.tensor(1.0), torch.tensor(0))


def check_ema(ns):
    for dtype, decay, use_buffers in itertools.product(
        TOLERANCE, (0.0, 0.3, 0.9, 0.999, 1.0), (False, True)
    ):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)
        start = copy.deepcopy(model.state_dict())
        swa = torch.optim.swa_utils
        mine = ns["EMA"](model, decay, use_buffers=use_buffers)
        theirs = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(decay),
                                   use_buffers=use_buffers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(60):
            optimizer.zero_grad()
            model(randn(8, 3, dtype=dtype, seed=i)).square().mean().backward()
            optimizer.step()
            before = copy.deepcopy(model.state_dict())
            mine.update(model)
            theirs.update_parameters(model)
            for key, value in model.state_dict().items():
                assert torch.equal(value, before[key]), "模型被改动了"
        tol = TOLERANCE[dtype]
        for key, want in theirs.module.state_dict().items():
            got = mine.module.state_dict()[key]
            assert got.dtype == want.dtype
            if want.is_floating_point():
                torch.testing.assert_close(got, want, rtol=tol, atol=tol)
            else:
                assert torch.equal(got, model.state_dict()[key])
        assert not any(p.requires_grad for p in mine.module.parameters())
        assert all(p.requires_grad for p in model.parameters())
        assert not torch.equal(start["0.weight"], model.state_dict()["0.weight"])
    # 预热：照定义算一遍
    p = nn.Linear(1, 1, bias=False).double()
    ema, want = ns["EMA"](p, 0.9, warmup=True), None
    for t in range(100):
        with torch.no_grad():
            p.weight.fill_(math.sin(t))
        ema.update(p)
        d = min(0.9, (1 + t) / (10 + t)) if t else 0.0
        want = math.sin(t) if want is None else d * want + (1 - d) * math.sin(t)
        assert abs(ema.module.weight.item() - want) < 1e-12
    for bad in (-0.1, 1.1, math.nan):
        refuses(ns["EMA"], p, bad)
    refuses(ns["EMA"](p).update, nn.Linear(2, 1))
    refuses(ns["EMA"](p).update, nn.Linear(1, 1))


def check_backward_in_pieces(ns):
    g = torch.Generator().manual_seed(0)
    for dtype, micro, eps, weighted in itertools.product(
        TOLERANCE, (1, 3, 4, 5, 10, 99), (0.0, 0.2), (False, True)
    ):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
        X = randn(10, 5, dtype=dtype)
        weight = torch.rand(3, generator=g).to(dtype) + 0.1 if weighted else None
        for y, ignore in ((torch.randint(3, (10,), generator=g), -100),
                          (torch.tensor([0, -100, -100, -100, 1, 2, 2, 0, -100, 1]), -100),
                          (torch.tensor([1, 1, 1, 1, 0, 2, 2, 0, 1, 2]), 1)):
            options = dict(weight=weight, ignore_index=ignore, label_smoothing=eps)
            want = F.cross_entropy(model(X), y, **options)
            grads = torch.autograd.grad(want, list(model.parameters()))
            model.zero_grad()
            got = ns["backward_in_pieces"](model, X, y, micro, **options)
            tol = TOLERANCE[dtype]
            torch.testing.assert_close(got, want.detach(), rtol=tol, atol=tol)
            assert not got.requires_grad
            for p, grad in zip(model.parameters(), grads, strict=True):
                torch.testing.assert_close(p.grad, grad, rtol=tol, atol=tol)
    # 每个位置一个标签：(N, C, T)，有效的个数各块不同
    model = nn.Conv1d(2, 4, 1)
    X, y = randn(6, 2, 5), torch.randint(4, (6, 5), generator=g)
    y[0, 1:] = y[4, 2:] = -100
    grads = torch.autograd.grad(F.cross_entropy(model(X), y), list(model.parameters()))
    ns["backward_in_pieces"](model, X, y, 4)
    for p, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=2e-5, atol=2e-5)
    refuses(ns["backward_in_pieces"], model, X, y, 0)
    refuses(ns["backward_in_pieces"], model, X, torch.full_like(y, -100), 2)


CHECKS = {
    "clip_grad_norm_": check_clip, "EarlyStopping": check_early_stopping,
    "cross_entropy": check_cross_entropy, "EMA": check_ema,
    "backward_in_pieces": check_backward_in_pieces, "log_softmax": check_log_softmax,
}
BROKEN = [
    ("clip_grad_norm_", ".clamp(max=1.0)  # 只缩小", "  # 只缩小"),
    ("clip_grad_norm_", "(total + 1e-6)", "total"),
    ("clip_grad_norm_", "torch.stack([p_norm(g, p).to(grads[0].device) for g in grads]), p)",
     "torch.stack([p_norm(g, p).to(grads[0].device) for g in grads]), 1.0)"),
    ("clip_grad_norm_", "if q.grad is not None]", "if q.grad is not None][:2]"),
    ("clip_grad_norm_", "size.max() if p > 0 else size.min()", "size.max()"),
    ("EarlyStopping", "return stopper.waited >= stopper.patience",
     "return stopper.waited > stopper.patience"),
    ("EarlyStopping", "value < stopper.best - stopper.min_delta", "value < stopper.best"),
    ("EarlyStopping", "stopper.best_step, stopper.waited = value, stopper.count, 0",
     "stopper.best_step, stopper.waited = value, stopper.count, stopper.waited"),
    ("EarlyStopping", "value > stopper.best + stopper.min_delta",
     "value < stopper.best - stopper.min_delta"),
    ("log_softmax", "shifted = x - m", "shifted = x"),
    ("cross_entropy", "loss.sum() / share.sum()", "loss.mean()"),
    ("cross_entropy", "eps / len(weight) * spread", "eps * spread"),
    ("cross_entropy", "eps / len(weight) * spread", "eps / (len(weight) - 1) * spread"),
    ("cross_entropy", "spread = -(log_p * along_classes(weight, input)).sum(dim)",
     "spread = -log_p.sum(dim) * weight[index]"),
    ("cross_entropy", "share = weight[index].where(valid, 0.0)", "share = weight[index]"),
    ("cross_entropy", "return loss.where(valid, 0.0), share", "return loss, share"),
    ("cross_entropy", "return loss, torch.ones_like(loss)",
     "return loss, (target * along_classes(weight, input)).sum(dim)"),
    ("EMA", "d = d if self.count else 0.0", "d = d"),
    ("EMA", "a.lerp_(b.to(a.device), 1 - decay)", "a.lerp_(b.to(a.device), decay)"),
    ("EMA", "d if self.use_buffers else 0.0)", "d)"),
    ("EMA", "copy.deepcopy(model).requires_grad_(False)", "model.requires_grad_(False)"),
    ("EMA", "(10 + self.count)) if", "(20 + self.count)) if"),
    ("backward_in_pieces", "(loss / count).backward()",
     "(loss / (y_part != ignore_index).sum() / math.ceil(len(y) / micro_size)).backward()"),
    ("backward_in_pieces", 'ignore_index, "sum", label_smoothing)',
     'ignore_index, "mean", label_smoothing)'),
    ("backward_in_pieces", "count = valid.sum() if weight is None else",
     "count = valid.sum() if True else"),
]
MUTATIONS = [
    [(".clamp(max=1.0)", ""), ("weight.norm(dim=1, keepdim=True)", "weight.norm()"),
     ("grad.norm(dim=1, keepdim=True)", "grad.norm(dim=0, keepdim=True)"),
     (".clamp(min=eps)", ""), ("limit / size", "size / limit")],
    [("scale, streak = scale * 0.5, 0", "scale = scale * 0.5"),
     ("scale, streak = scale * 2, 0", "scale = scale * 2"),
     ("if streak == interval", "if streak > interval"), ("scale * 0.5", "scale / 4"),
     ("scales.append(scale)", "scales.insert(0, scale)")],
]
