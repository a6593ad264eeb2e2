"""2.4 节 微积分与梯度：约定的名字、一致性、改坏的实现和错误答案。"""

import math

import torch
from parity import randn, refuses

NAMES = ("numerical_gradient", "gradient_descent")
FORBIDDEN = frozenset({"autograd", "backward", "requires_grad_", "grad", "jacrev", "func", "optim"})
FUNCTIONS = {
    (): lambda x: x.sin() * x,
    (1,): lambda x: (x ** 3).sum(),
    (5,): lambda x: (x ** 4).sum() + x[0] * x[-1],
    (2, 3): lambda x: x.exp().sum().log(),
    (2, 1, 3): lambda x: (x ** 2).mean() * x.sum(),
}


def check_numerical_gradient(ns):
    mine = ns["numerical_gradient"]
    for dtype, tol in ((torch.float64, 1e-8), (torch.float32, 5e-3)):
        for shape, f in FUNCTIONS.items():
            for scale in (1.0, 30.0) if dtype == torch.float64 else (1.0,):
                x = randn(*shape, dtype=dtype, scale=scale)
                leaf = x.double().requires_grad_()
                (want,) = torch.autograd.grad(f(leaf), leaf)
                copy = x.clone()
                got = mine(f, x)
                assert got.shape == x.shape and got.dtype == dtype and torch.equal(x, copy)
                size = 1 + want.abs().max().item()
                torch.testing.assert_close(got.double() / size, want / size, rtol=tol, atol=tol)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    rough = mine(lambda t: (t ** 3).sum(), x, h=0.1)  # 中心差分的截断误差正好是 h²
    torch.testing.assert_close(rough, 3 * x ** 2 + 0.01, rtol=0, atol=1e-9)
    assert mine(lambda t: t.sum(), torch.zeros(0)).shape == (0,)
    refuses(mine, lambda t: t.sum(), torch.arange(3))
    refuses(mine, lambda t: t, x)
    for h in (0.0, -1.0, math.nan):
        refuses(mine, lambda t: t.sum(), x, h)


def check_gradient_descent(ns):
    mine = ns["gradient_descent"]
    for shape in ((), (3,), (2, 2)):
        x0 = randn(*shape, dtype=torch.float64)
        path = mine(lambda x: 2 * x, x0, 0.1, 7)
        assert path.shape == (8, *shape)
        torch.testing.assert_close(path, torch.stack([x0 * 0.8 ** k for k in range(8)]))
    assert mine(lambda x: x, torch.ones(2), 0.1, 0).shape == (1, 2)
    for lr, steps in ((0.0, 3), (-1.0, 3), (math.nan, 3), (0.1, -1)):
        refuses(mine, lambda x: x, torch.ones(2), lr, steps)


CHECKS = {"numerical_gradient": check_numerical_gradient,
          "gradient_descent": check_gradient_descent}
BROKEN = [
    ("numerical_gradient", "(points[0] - points[1])", "step"),
    ("numerical_gradient", "    flat[i] = value\n    return", "    return"),
    ("numerical_gradient", "** (1 / 3)", ""),
    ("numerical_gradient", "base * max(1.0, abs(value))", "1e-5"),
    ("numerical_gradient", "if h is not None and not h > 0", "if False"),
    ("gradient_descent", "path[-1] - lr", "path[-1] + lr"),
    ("gradient_descent", "if not lr > 0", "if lr < 0"),
]
MUTATIONS = [
    [("dim=1)", "dim=0)"), ("/ 2e-5", "/ 1e-5"), ("f(x - step)", "f(x)"),
     ("(f(x + step) - f(x - step)) / 2e-5", "(f(x + step / 1000) - f(x)) / 1e-8")],  # 前向差分
    [("x.detach() - torch.linalg.solve", "x.detach() + torch.linalg.solve"),
     ("torch.linalg.solve(H, grad)", "grad / H.diagonal()"),
     ("torch.linalg.solve(H, grad)", "H @ grad")],
]
