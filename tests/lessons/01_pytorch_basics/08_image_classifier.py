"""1.8 节 综合实战：约定、一致性、改坏的实现和错误答案。"""

import math
import tempfile
from pathlib import Path

import torch
from parity import randn, refuses
from torch import nn
from torch.nn import functional as F

NAMES = ("FashionNet", "random_shift", "reliability", "save_run", "load_run", "train_run",
         "predict_logits", "accuracy")
FORBIDDEN = frozenset({"DataLoader", "RandomAffine", "affine"})


def check_net(ns):
    torch.manual_seed(0)
    for width, classes, dtype in ((4, 10, torch.float32), (3, 7, torch.float64)):
        net = ns["FashionNet"](width, classes).to(dtype).eval()
        X = randn(5, 1, 28, 28, dtype=dtype)
        c1, b1, _, c2, b2, _ = net.features
        assert (c1.out_channels, c2.out_channels) == (width, 2 * width)
        h = F.relu(b1(F.conv2d(X, c1.weight, c1.bias, stride=2, padding=2)))
        assert h.shape == (5, width, 14, 14)
        h = F.relu(b2(F.conv2d(h, c2.weight, c2.bias, stride=2, padding=1)))
        assert h.shape == (5, 2 * width, 7, 7)
        wanted = h.flatten(1) @ net.head.weight.T + net.head.bias
        got = net(X)
        assert got.shape == (5, classes)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        got.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    for shape in ((28, 28), (2, 28, 28), (2, 3, 28, 28), (2, 1, 32, 32)):
        refuses(net, torch.zeros(shape, dtype=torch.float64))


def check_shift(ns):
    shift = ns["random_shift"]
    for shape in ((40, 1, 28, 28), (9, 2, 5, 7)):
        for pixels in (0, 1, 3):
            X, g = randn(*shape), torch.Generator()
            got = shift(X, pixels, g.manual_seed(5))
            tops, lefts = torch.randint(2 * pixels + 1, (2, len(X)), generator=g.manual_seed(5))
            wide = F.pad(X, (pixels,) * 4)
            H, W = shape[2:]
            wanted = torch.stack([x[:, a:a + H, b:b + W] for x, a, b in
                                  zip(wide, tops.tolist(), lefts.tolist(), strict=True)])
            assert got.shape == X.shape and torch.equal(got, wanted)
    X = torch.zeros(3000, 1, 9, 9)
    X[:, :, 4, 4] = 1
    places = shift(X, 2, torch.Generator().manual_seed(0)).mean(0)[0]
    assert (places[2:7, 2:7] > 0.02).all() and math.isclose(places.sum().item(), 1, abs_tol=1e-4)
    refuses(shift, torch.zeros(3, 28, 28), 1, torch.Generator())
    refuses(shift, torch.zeros(3, 1, 28, 28), -1, torch.Generator())


def check_reliability(ns):
    reliability = ns["reliability"]
    for n, bins, seed in ((200, 10, 0), (7, 5, 1), (50, 1, 2), (1, 10, 3)):
        g = torch.Generator().manual_seed(seed)
        p, hit = torch.rand(n, generator=g), torch.rand(n, generator=g) < 0.6
        p[0] = 1.0
        groups = [[] for _ in range(bins)]
        for one, ok in zip(p.tolist(), hit.tolist(), strict=True):
            groups[min(int(one * bins), bins - 1)].append((one, ok))
        acc, conf, count = reliability(p, hit, bins)
        assert acc.shape == conf.shape == count.shape == (bins,)
        assert count.tolist() == [len(group) for group in groups] and count.sum() == n
        for a, c, group in zip(acc.tolist(), conf.tolist(), groups, strict=True):
            if not group:
                assert math.isnan(a) and math.isnan(c)
                continue
            assert math.isclose(a, sum(ok for _, ok in group) / len(group), abs_tol=1e-9)
            assert math.isclose(c, sum(one for one, _ in group) / len(group), abs_tol=1e-9)
    yes = torch.tensor([True, False])
    refuses(reliability, torch.tensor([0.5]), yes)
    refuses(reliability, torch.tensor([0.5, 1.5]), yes)
    refuses(reliability, torch.tensor([0.5, float("nan")]), yes)
    refuses(reliability, torch.tensor([0.5, 0.5]), yes, 0)


def tiny(seed=0, total=8, lr=0.05):
    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(),
                             nn.Linear(6, 3))
    return make, lr, total, seed


def numbers(seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(30, 1, 4, 4, generator=g), torch.randint(3, (30,), generator=g)


def noisy(X, generator):
    return X + 0.1 * torch.randn(X.shape, generator=generator)


def equal_runs(a, b):
    states = [list(run["model"].state_dict().values()) for run in (a, b)]
    moments = [[t for s in run["optimizer"].state_dict()["state"].values() for t in s.values()]
               for run in (a, b)]
    return (all(torch.equal(x, y) for pair in (states, moments)
                for x, y in zip(*pair, strict=True))
            and a["history"] == b["history"] and a["generator"].get_state().equal(
                b["generator"].get_state())
            and a["scheduler"].state_dict() == b["scheduler"].state_dict())


class Stop(Exception):
    pass


def check_resume(ns):
    """在每一轮的中间打断，换新的一次训练装回，结果与不中断的逐比特相等。"""
    fit, prepare = numbers(), lambda X: 2 * X
    train, start = ns["train_run"], ns["start_run"]
    options = dict(fit=fit, val=numbers(2), prepare=prepare, num_epochs=4, batch_size=16,
                   augment=noisy)
    truth = train(start(*tiny()), **options)
    assert len(truth["history"]) == 4
    assert abs(truth["optimizer"].param_groups[0]["lr"]) < 1e-9, "最后的学习率应降到 0"
    for stop_epoch in (1, 2, 3):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "检查点.pt"

            def on_step(epoch, step, stop_epoch=stop_epoch):
                if (epoch, step) == (stop_epoch, 1):
                    raise Stop

            try:
                train(start(*tiny()), path=path, on_step=on_step, **options)
                raise AssertionError("on_step 没有被调用")
            except Stop:
                pass
            assert [p.name for p in Path(place).iterdir()] == [path.name], "不应留下临时文件"
            resumed = start(*tiny(seed=7))
            ns["load_run"](path, resumed)
            assert len(resumed["history"]) == stop_epoch
            train(resumed, path=path, **options)
            assert equal_runs(truth, resumed), "续训与不中断的不同"


def check_load(ns):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.pt"
        refuses(ns["load_run"], path, ns["start_run"](*tiny()))
        torch.save({"model": {}}, path)
        refuses(ns["load_run"], path, ns["start_run"](*tiny()))
    check_resume(ns)


def check_train(ns):
    """与另写的一份循环相同：打乱、增强、标准化、更新、调度的次序都要对。"""
    fit, val = numbers(), numbers(2)
    run = ns["train_run"](ns["start_run"](*tiny()), fit, val, lambda X: 2 * X, 3, 8, noisy)
    make, lr, total, seed = tiny()
    torch.manual_seed(seed)
    model, g = make(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    step = 0
    for epoch in range(3):
        order, losses = torch.randperm(30, generator=g), []
        for start in range(0, 30, 8):
            rows = order[start:start + 8]
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / total)) / 2
            model.train()
            loss = F.cross_entropy(model(2 * noisy(fit[0][rows], g)), fit[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(rows))
            step += 1
        model.eval()
        with torch.no_grad():
            logits = model(2 * val[0])
        row = run["history"][epoch]
        wanted = {"loss/train": sum(losses) / 30,
                  "loss/val": F.cross_entropy(logits, val[1]).item(),
                  "accuracy/val": (logits.argmax(1) == val[1]).float().mean().item()}
        assert row.keys() == wanted.keys()
        assert all(math.isclose(row[k], wanted[k], abs_tol=1e-4) for k in row), (row, wanted)


def check_logits(ns):
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3))
    net.train()
    before = net[0].running_mean.clone()
    X = randn(2500, 1, 4, 4)
    got = ns["predict_logits"](net, X, lambda X: X - 1)
    assert torch.equal(net[0].running_mean, before), "推理不应改动批量归一化的记录"
    assert got.shape == (2500, 3) and not got.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(got, net.eval()(X - 1), rtol=1e-4, atol=1e-5)


def check_accuracy(ns):
    logits = torch.tensor([[1.0, 2, 0], [3, 1, 0], [0, 0, 9], [5, 6, 7]])
    assert ns["accuracy"](logits, torch.tensor([1, 0, 2, 0])) == 0.75
    assert isinstance(ns["accuracy"](logits, torch.tensor([1, 0, 2, 2])), float)


CHECKS = {
    "FashionNet": check_net, "random_shift": check_shift, "reliability": check_reliability,
    "save_run": check_resume, "load_run": check_load, "train_run": check_train,
    "predict_logits": check_logits, "accuracy": check_accuracy,
}
BROKEN = [
    ("FashionNet", "kernel_size=5, stride=2, padding=2", "kernel_size=5, stride=2, padding=1"),
    ("FashionNet", "nn.BatchNorm2d(2 * width), nn.ReLU(),", "nn.BatchNorm2d(2 * width),"),
    ("FashionNet", "X.dim() != 4 or X.shape[1:] != (1, 28, 28)", "False"),
    ("random_shift", "torch.randint(2 * pixels + 1, (2, N)", "torch.randint(2 * pixels, (2, N)"),
    ("random_shift", "rows[:, None, :, None]", "rows[:1, None, :, None]"),
    ("random_shift", "or pixels < 0", ""),
    ("reliability", ".clamp(max=num_bins - 1)", ".clamp(max=num_bins)"),
    ("reliability", "return total / count", "return total / count.sum()"),
    ("reliability", "(p * num_bins).long()", "(p * num_bins).round().long()"),
    ("save_run", 'run["generator"].get_state(), run["history"]',
     'torch.Generator().get_state(), run["history"]'),
    ("save_run", "os.replace(fresh, path)", "Path(path).write_bytes(fresh.read_bytes())"),
    ("load_run", '    run["generator"].set_state(state["generator"])\n', ""),
    ("load_run", '    run["history"] = state["history"]', ""),
    ("load_run", "if missing := sorted(set(run) - set(state)):",
     "if missing := sorted(set(state) - set(run)):"),
    ("train_run", "            optimizer.zero_grad()\n", ""),
    ("train_run", "        model.train()\n", ""),
    ("train_run", '            run["scheduler"].step()\n', ""),
    ("train_run", "prepare(augment(X, generator))", "augment(prepare(X), generator)"),
    ("train_run", "loss.detach() * len(y)", "loss.detach() * batch_size"),
    ("predict_logits", "    model.eval()\n", ""),
    ("predict_logits", "model(prepare(part))", "model(part)"),
    ("accuracy", "argmax(dim=1)", "argmin(dim=1)"),
]
MUTATIONS = [
    [("if not 1 <= k <= logits.shape[1]", "if not 0 <= k <= logits.shape[1]"),
     ("if not 1 <= k <= logits.shape[1]", "if k < 1"),
     ("logits.topk(k,", "logits.topk(min(k, logits.shape[1] - 1),"),
     ("if not 1 <= k <= logits.shape[1]:\n        raise ValueError(f\"k 应在 1 与 "
      "{logits.shape[1]} 之间，收到 {k}。\")\n    candidates = logits.topk(k, dim=1).indices",
      "if k < 1:\n        raise ValueError\n"
      "    candidates = logits.argsort(dim=1, descending=True)[:, :k]"),
     (".any(1)", ".all(1)"), ("logits.topk(k, dim=1)", "(-logits).topk(k, dim=1)"),
     (".float().mean()", ".float().sum()")],
    [("logits / T", "logits"), (".abs()", ""), (".nansum()", ".sum()"),
     ("count / count.sum()", "1 / len(count)"), ("logits / T", "logits * T")],
]
