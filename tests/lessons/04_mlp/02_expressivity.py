"""4.2 节 表达能力与局限性：折点、折线网络和帐篷网络的检查，改坏的实现和错误答案。"""

import numpy as np
import torch
from parity import TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("relu_network", "breakpoints", "count_linear_pieces", "piecewise_linear_net",
         "tent_layers")
FORBIDDEN = frozenset({"relu", "relu_", "ReLU", "Linear", "Sequential", "linear", "interp",
                       "searchsorted"})


def reference_network(layers, X):
    for W, b in layers[:-1]:
        X = F.relu(F.linear(X, W, b))
    return F.linear(X, *layers[-1])


def random_net(sizes, dtype=torch.float64, seed=0):
    return [(randn(b, a, dtype=dtype, seed=seed + i), randn(b, dtype=dtype, seed=seed + 50 + i))
            for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))]


def on_flat(function, sizes):
    """把权重摊开成参数，好比较对每个权重的梯度。"""
    def run(X, *flat):
        return function(list(zip(flat[::2], flat[1::2], strict=True)), X)

    return run


def check_relu_network(ns):
    mine = ns["relu_network"]
    for dtype in TOLERANCE:
        for sizes in ((1, 4, 1), (3, 5, 4, 2), (2, 3), (1, 2, 2, 2, 1)):
            flat = [x for pair in random_net(sizes, dtype) for x in pair]
            for n in (0, 1, 7):
                same(on_flat(mine, sizes), on_flat(reference_network, sizes),
                     randn(n, sizes[0], dtype=dtype), *flat)
    zero = [(torch.ones(1, 1), torch.zeros(1)), (torch.ones(1, 1), torch.zeros(1))]
    same(lambda X: mine(zero, X), lambda X: reference_network(zero, X), torch.zeros(1, 1))
    net = random_net((3, 5, 2))
    for bad in (randn(3), randn(4, 2), randn(2, 4, 3)):
        refuses(mine, net, bad.double())
    refuses(mine, [], randn(2, 3))


def brute_force(layers, low, high, n=200_001):
    """在很细的网格上找斜率改变的地方：相邻的几格合成一个折点。"""
    x = torch.linspace(low, high, n, dtype=torch.float64)
    y = reference_network(layers, x[:, None])[:, 0]
    slope = y.diff() / x.diff()
    where = (slope.diff().abs() > 1e-6 * (1 + slope.abs().max())).nonzero()[:, 0]
    gaps = (where.diff() > 1).nonzero()[:, 0] + 1
    groups = [] if len(where) == 0 else np.split(where.numpy(), gaps)
    return torch.tensor([x[int(g.mean()) + 1] for g in groups], dtype=torch.float64)


def check_breakpoints(ns):
    mine = ns["breakpoints"]
    for sizes in ((1, 1, 1), (1, 6, 1), (1, 5, 5, 1), (1, 4, 4, 4, 1)):
        for seed in range(3):
            net = random_net(sizes, seed=10 * seed)
            got, wanted = mine(net, -3, 3), brute_force(net, -3, 3)
            assert got.dtype == torch.float64 and got.shape == wanted.shape
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    w = torch.tensor([[1.0], [2.0], [-1.0], [1.0]])
    b = torch.tensor([0.0, -1.0, 1.0, -9.0])  # 折点 0、1/2、1、9
    v = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    got = mine([(w, b), (v, torch.zeros(1))], -2, 5)
    assert torch.allclose(got, torch.tensor([0.0, 0.5, 1.0]).double(), atol=1e-12)
    v[0, 1] = 0  # 系数是 0 的单元不算
    assert len(mine([(w, b), (v, torch.zeros(1))], -2, 5)) == 2
    straight = [(torch.ones(1, 1), torch.zeros(1))]
    assert mine(straight, 0, 1).shape == (0,)
    for low, high in ((1, 1), (2, 1)):
        refuses(mine, straight, low, high)
    for sizes in ((2, 3, 1), (1, 3, 2)):
        refuses(mine, random_net(sizes), 0, 1)
    refuses(mine, [], 0, 1)


def check_count(ns):
    mine = ns["count_linear_pieces"]
    for depth in range(1, 9):
        kink, fold = torch.tensor([0.0, -0.5]), torch.tensor([[2.0, -4.0]])
        net = [(torch.ones(2, 1), kink), *[(fold.repeat(2, 1), kink)] * (depth - 1),
               (fold, torch.zeros(1))]
        assert mine(net, 0, 1) == 2**depth
        assert mine(net, 0, 0.5) == 2 ** (depth - 1)
    for seed in range(5):
        net = random_net((1, 6, 6, 1), seed=10 * seed)
        assert mine(net, -3, 3) == len(brute_force(net, -3, 3)) + 1
    first = (torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    assert mine([first, (torch.tensor([[1.0, -1.0]]), torch.zeros(1))], -1, 1) == 1
    refuses(mine, random_net((1, 2, 1)), 1, 0)


def check_piecewise(ns):
    mine = ns["piecewise_linear_net"]
    for dtype in TOLERANCE:
        for count in (2, 3, 9):
            knots = (0.3 + randn(count, dtype=dtype).abs()).cumsum(0) - 2
            values = randn(count, dtype=dtype, seed=3)
            net = mine(knots, values)
            assert [tuple(W.shape) for W, _ in net] == [(count - 1, 1), (1, count - 1)]
            x = torch.linspace(knots[0] - 1, knots[-1], 200, dtype=dtype)
            wanted = np.interp(x.numpy(), knots.numpy(), values.numpy())
            tol = TOLERANCE[dtype] * 5
            torch.testing.assert_close(reference_network(net, x[:, None])[:, 0],
                                       torch.from_numpy(wanted).to(dtype), rtol=tol, atol=tol)
            right = reference_network(net, (knots[-1:] + 1)[:, None])[0, 0]
            slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
            torch.testing.assert_close(right, values[-1] + slope, rtol=tol * 5, atol=tol * 5)
    values = randn(4).requires_grad_()
    reference_network(mine(torch.arange(4.0), values), torch.tensor([[1.25]])).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.0, 0.75, 0.25, 0.0]))
    for knots, values in ((torch.zeros(1), torch.zeros(1)), (torch.arange(3.0), torch.zeros(2)),
                          (torch.tensor([0.0, 0.0]), torch.zeros(2)),
                          (torch.tensor([1.0, 0.0]), torch.zeros(2)),
                          (torch.zeros(2, 1), torch.zeros(2, 1))):
        refuses(mine, knots, values)


def check_tent(ns):
    x = torch.linspace(0, 1, 513)[:, None]
    y = x
    for depth in range(1, 9):
        y = 1 - (2 * y - 1).abs()
        layers = ns["tent_layers"](depth)
        assert len(layers) == depth + 1 and all(len(b) == 2 for _, b in layers[:-1])
        torch.testing.assert_close(reference_network(layers, x), y)
    refuses(ns["tent_layers"], 0)


CHECKS = {"relu_network": check_relu_network, "breakpoints": check_breakpoints,
          "count_linear_pieces": check_count, "piecewise_linear_net": check_piecewise,
          "tent_layers": check_tent}
BROKEN = [
    ("relu_network", "torch.where(z > 0, z, torch.zeros_like(z))",
     "torch.where(z > 0, z, 0.1 * z)"),
    ("relu_network", "for W, b in layers[:-1]:", "for W, b in layers[:-2]:"),
    ("relu_network", "or X.dim() != 2 ", ""),
    ("breakpoints", "share = left / (left - right)", "share = 0.5 + 0 * left"),
    ("breakpoints", "left * right < 0", "left < 0"),
    ("breakpoints", "range(1, len(exact))", "range(1, 2)"),
    ("count_linear_pieces", "len(breakpoints(layers, low, high)) + 1",
     "len(breakpoints(layers, low, high))"),
    ("count_linear_pieces", "slope[:, 0].diff().abs() > 1e-9",
     "slope[:, 0].diff().abs() >= 0 * 1e-9"),
    ("piecewise_linear_net", "torch.cat([slopes[:1], slopes.diff()])", "slopes"),
    ("piecewise_linear_net", "-knots[:-1])", "-knots[1:])"),
    ("piecewise_linear_net", "(knots.diff() > 0).all()", "(knots.diff() >= 0).all()"),
    ("tent_layers", "[[2.0, -4.0]]", "[[2.0, -2.0]]"),
    ("tent_layers", "range(depth - 1)", "range(depth)"),
]
MUTATIONS = [
    [("best + torch.relu(x[:, i] - best)", "torch.relu(x[:, i] - best)"),
     ("best = x[:, 0]", "best = torch.zeros_like(x[:, 0])"),
     ("torch.relu(x[:, i] - best)", "torch.relu(best - x[:, i])")],
    [("w.abs()", "w"), ("-b[used] / w[used]", "b[used]"), (".sum() + 1", ".sum()"),
     ("(change.abs() > 1e-6).sum()", "torch.tensor(len(places))")],
]
