"""4.6 节 L1/L2 正则化：惩罚、软阈值、近端梯度下降和解耦的衰减，改坏的实现和错误答案。"""

import itertools

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("l2_penalty", "l1_penalty", "soft_threshold", "lasso", "decay_weights")
FORBIDDEN = frozenset({
    "norm", "vector_norm", "softshrink", "hardshrink", "l1_loss", "mse_loss", "AdamW", "L1Loss",
    "MSELoss", "Softshrink",
})
SHAPES = ((), (5,), (3, 4), (2, 3, 4), (0,))


def check_penalty(name, reference):
    def check(ns):
        mine = ns[name]
        for dtype, shape in itertools.product(TOLERANCE, SHAPES):
            same(mine, reference, randn(*shape, dtype=dtype))
        same(mine, reference, torch.tensor([0.0, -3.0, 2.0, 0.0]))
        assert mine(torch.ones(3)).dim() == 0
        with pytest.raises(TypeError, match="浮点"):
            mine(torch.arange(3))
        # 加在损失里的 λ 与 SGD 的 weight_decay 相等：100 步，带动量
        if name == "l2_penalty":
            paths = []
            for in_loss, momentum in itertools.product((True, False), (0.0, 0.9)):
                w = torch.linspace(-1, 2, 6).requires_grad_()
                optimizer = torch.optim.SGD([w], lr=0.1, momentum=momentum,
                                            weight_decay=0 if in_loss else 0.2)
                for _ in range(100):
                    loss = ((w - torch.arange(6)) ** 2).sum() / 10
                    optimizer.zero_grad()
                    (loss + 0.2 * mine(w) if in_loss else loss).backward()
                    optimizer.step()
                paths.append(w.detach())
            torch.testing.assert_close(paths[0], paths[2])
            torch.testing.assert_close(paths[1], paths[3])

    return check


def check_soft_threshold(ns):
    mine = ns["soft_threshold"]
    for dtype, shape, t in itertools.product(TOLERANCE, SHAPES, (0.0, 0.3, 2.0)):
        same(mine, F.softshrink, randn(*shape, dtype=dtype, scale=2.0), t)
    same(mine, F.softshrink, torch.tensor([-0.5, 0.5, 0.0, -1e4, 1e4]), 0.5)
    for t in (-0.1, float("nan")):
        refuses(mine, randn(3), t)
    with pytest.raises(TypeError, match="浮点"):
        mine(torch.arange(3), 1.0)


def check_lasso(ns):
    """最优性条件：w ≠ 0 处相关等于 λ·sign(w)，w = 0 处不超过 λ。"""
    for dtype, (n, d), lam in itertools.product(
            (torch.float32, torch.float64), ((30, 8), (12, 20)), (0.5, 4.0)):
        X, y = randn(n, d, dtype=dtype), randn(n, dtype=dtype, seed=3)
        w = ns["lasso"](X, y, lam, 20_000)
        assert w.shape == (d,) and w.dtype == dtype
        correlation = X.T @ (y - X @ w)
        tol = 2e-3 if dtype == torch.float32 else 1e-6
        active = w != 0
        torch.testing.assert_close(correlation[active], lam * w[active].sign(), rtol=0, atol=tol)
        assert (correlation[~active].abs() <= lam + tol).all() and ((~active).any() or lam < 1)
    X, y = randn(30, 5, dtype=torch.float64), randn(30, dtype=torch.float64)
    torch.testing.assert_close(ns["lasso"](X, y, 0.0), torch.linalg.lstsq(X, y[:, None])[0][:, 0])
    refuses(ns["lasso"], X, y[:4], 1.0)
    refuses(ns["lasso"], X[0], y, 1.0)
    refuses(ns["lasso"], X, y, -1.0)


def check_decay(ns):
    for dtype, wd in itertools.product(TOLERANCE, (0.0, 0.1, 2.0)):
        paths = []
        for make in (torch.optim.AdamW, torch.optim.Adam):
            params = [randn(3, 2, dtype=dtype).requires_grad_(),
                      randn(4, dtype=dtype).requires_grad_(), torch.ones(2, dtype=dtype)]
            mine = make is torch.optim.Adam
            optimizer = make(params, lr=0.02, weight_decay=0 if mine else wd)
            for step in range(100):
                for k, p in enumerate(params[:2]):
                    p.grad = randn(*p.shape, dtype=dtype, seed=step * 2 + k)
                if mine:
                    ns["decay_weights"](params, 0.02, wd)
                optimizer.step()
            paths.append([p.detach() for p in params])
        torch.testing.assert_close(paths[0], paths[1])
    for lr, wd in ((0, 0.1), (-1, 0.1), (0.1, -0.1), (float("nan"), 0)):
        refuses(ns["decay_weights"], [], lr, wd)


CHECKS = {
    "l2_penalty": check_penalty("l2_penalty", lambda w: 0.5 * w.square().sum()),
    "l1_penalty": check_penalty("l1_penalty", lambda w: w.abs().sum()),
    "soft_threshold": check_soft_threshold, "lasso": check_lasso, "decay_weights": check_decay,
}
BROKEN = [
    ("l2_penalty", "(w * w).sum() / 2", "(w * w).sum()"),
    ("l2_penalty", "(w * w).sum() / 2", "(w * w).mean() / 2"),
    ("l1_penalty", "w.abs().sum()", "w.sum().abs()"),
    ("l1_penalty", "w.abs().sum()", "w.abs().mean()"),
    ("soft_threshold", "input + threshold)", "input - threshold)"),
    ("soft_threshold", "torch.where(input.abs() > threshold, shifted, torch.zeros_like(input))",
     "shifted"),
    ("lasso", "float(lr * lam)", "float(lam)"),
    ("lasso", "(X @ w - y)", "(X @ w)"),
    ("decay_weights", "1 - lr * weight_decay", "1 - weight_decay"),
    ("decay_weights", "if p.grad is not None:", "if True:"),
]
MUTATIONS = [
    [(" / (1 + lam2)", ""), (" / (1 + lam2)", " / (1 + 2 * lam2)"),
     ("soft_threshold(a, lam1) / (1 + lam2)", "soft_threshold(a / (1 + lam2), lam1)"),
     ("soft_threshold(a, lam1)", "a")],
    [("if p.requires_grad:", "if True:"), ("p.dim() >= 2", 'name.endswith("weight")'),
     ("p.dim() >= 2", "p.dim() > 2"), ("return decay, no_decay", "return no_decay, decay")],
]
