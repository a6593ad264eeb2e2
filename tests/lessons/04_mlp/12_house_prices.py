"""4.12 节 综合实战：误差和岭回归，改坏的实现和错误答案。

预处理和 k 折与 2.2、4.5 节相同（test_definitions 保证），在那两节检查。
"""

import torch
from parity import TOLERANCE, randn, refuses
from torch import nn
from torch.nn import functional as F

NAMES = ("rmse", "ridge_weights")
FORBIDDEN = frozenset({"mse_loss", "MSELoss", "get_dummies", "factorize", "lstsq"})


def check_rmse(ns):
    for dtype in TOLERANCE:
        for shape in ((1,), (7,), (3, 4)):
            a, b = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=9)
            assert abs(ns["rmse"](a, b) - F.mse_loss(a, b).sqrt().item()) < 1e-6
    refuses(ns["rmse"], randn(4), randn(4, 1))
    refuses(ns["rmse"], randn(0), randn(0))


def check_ridge(ns):
    """与 nn.Linear 的目标函数在最优点的梯度为 0；截距不罚。"""
    for dtype, tol in ((torch.float32, 2e-3), (torch.float64, 1e-8)):
        for n, d, lam in ((40, 5, 3.0), (8, 12, 0.5), (40, 5, 1e-3)):
            X, y = randn(n, d, dtype=dtype), randn(n, dtype=dtype, seed=4) + 10
            w = ns["ridge_weights"](X, y, lam)
            assert w.shape == (d + 1,) and w.dtype == dtype
            layer = nn.Linear(d, 1, dtype=dtype)
            with torch.no_grad():
                layer.weight.copy_(w[None, :-1])
                layer.bias.copy_(w[-1:])
            loss = ((layer(X)[:, 0] - y) ** 2).sum() + lam * (layer.weight**2).sum()
            loss.backward()
            assert layer.weight.grad.abs().max() < tol and layer.bias.grad.abs().max() < tol
    refuses(ns["ridge_weights"], randn(4, 2), randn(4), 0.0)
    refuses(ns["ridge_weights"], randn(4, 2), randn(3), 1.0)
    refuses(ns["ridge_weights"], randn(4), randn(4), 1.0)


CHECKS = {"rmse": check_rmse, "ridge_weights": check_ridge}
BROKEN = [
    ("rmse", ".mean().sqrt()", ".mean()"),
    ("rmse", "y_hat.shape != y.shape or", ""),
    ("ridge_weights", "penalty[-1] = 0\n", "pass\n"),
    ("ridge_weights", "A.T @ A + penalty.diag()", "A.T @ A"),
]
MUTATIONS = [
    [("increase[j] = rmse(predict(Z), y) - base", "increase[j] = rmse(predict(Z), y)"),
     ("Z = X.clone()", "Z = X"), ("Z[:, j] = X[orders[j], j]", "Z = X[orders[j]]"),
     ("X[orders[j], j]", "X[orders[0], j]")],
    [("descending=True", "descending=False"), ("int(sizes.argmin())", "i % k"),
     ("sizes[fold] += counts[i]", "sizes[fold] += 1"),
     ("groups == names[i]", "groups == i")],
]
