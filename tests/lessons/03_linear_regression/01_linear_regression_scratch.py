"""3.1 节 线性回归：从零实现：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools
import math

import torch
from parity import TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("linreg", "squared_loss", "sgd", "minibatches", "normal_equation")
FORBIDDEN = frozenset({
    "lstsq", "pinv", "pinverse", "mse_loss", "MSELoss", "linear", "Linear", "optim",
    "SGD", "DataLoader", "BatchSampler",
})


def check_linreg(ns):
    for (n, d), dtype in itertools.product(((1, 1), (7, 3), (20, 5)), TOLERANCE):
        same(ns["linreg"], lambda X, w, b: F.linear(X, w.T, b),
             randn(n, d, dtype=dtype), randn(d, 1, dtype=dtype, seed=1), randn(1, dtype=dtype))
    refuses(ns["linreg"], randn(4, 3), randn(2, 1), randn(1))


def check_squared_loss(ns):
    for shape, dtype in itertools.product(((5,), (4, 1), (2, 3, 4)), TOLERANCE):
        same(ns["squared_loss"], lambda a, b: F.mse_loss(a, b, reduction="none") / 2,
             randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=1))
    refuses(ns["squared_loss"], randn(4, 1), randn(4))


def check_sgd(ns):
    for lr, dtype in itertools.product((0.01, 1.5), TOLERANCE):
        mine = [randn(3, 2, dtype=dtype).requires_grad_(), randn(2, dtype=dtype).requires_grad_(),
                randn(2, dtype=dtype).requires_grad_()]
        theirs = [p.detach().clone().requires_grad_() for p in mine]
        optimizer = torch.optim.SGD(theirs, lr=lr)
        addresses = [p.data_ptr() for p in mine]
        for step in range(3):
            for params in (mine, theirs):
                for p in params[:2]:  # 第三个参数一直没有梯度
                    p.grad = None
                ((params[0] ** 2).sum() * (step + 1) + params[1].exp().sum()).backward()
            optimizer.step()
            assert ns["sgd"](iter(mine), lr) is None
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        assert [p.data_ptr() for p in mine] == addresses, "要原地更新"
        assert all(p.is_leaf and p.requires_grad for p in mine), "更新不能记进计算图"
    for lr in (0, -0.1, math.nan):
        refuses(ns["sgd"], mine, lr)


def check_minibatches(ns):
    for n, size, shape in ((10, 3, (2,)), (6, 6, ()), (5, 8, (1, 4, 4)), (7, 1, (3,))):
        X = torch.arange(n).reshape(n, *[1] * len(shape)).expand(n, *shape).float()
        y = 10 * torch.arange(n)
        batches = list(ns["minibatches"](X, y, size, torch.Generator().manual_seed(3)))
        order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
        assert [len(b) for _, b in batches] == [len(rows) for rows in order.split(size)]
        assert torch.equal(torch.cat([b for _, b in batches]), y[order])
        assert torch.equal(torch.cat([a for a, _ in batches]), X[order])
    g = torch.Generator().manual_seed(0)
    X, y = torch.arange(50.0), torch.arange(50)
    epochs = [torch.cat([b for _, b in ns["minibatches"](X, y, 7, g)]) for _ in range(2)]
    assert not torch.equal(*epochs), "每一轮都要重新打乱"
    assert len(list(ns["minibatches"](X, y, 20))) == 3
    refuses(ns["minibatches"], X, y[:-1], 7)
    for size in (0, -1):
        refuses(ns["minibatches"], X, y, size)


def check_normal_equation(ns):
    def reference(X, y):
        solution = torch.linalg.lstsq(X, y if y.dim() == 2 else y[:, None]).solution
        return solution if y.dim() == 2 else solution[:, 0]

    for (n, d, k), dtype in itertools.product(((6, 1, 1), (30, 4, 1), (30, 4, 3)), TOLERANCE):
        tol = 1e-4 if dtype == torch.float32 else 1e-9
        X = randn(n, d, dtype=dtype)
        same(ns["normal_equation"], reference, X, randn(n, k, dtype=dtype, seed=1), tol=tol)
        same(ns["normal_equation"], reference, X, randn(n, dtype=dtype, seed=2), tol=tol)
    X = randn(5, 2)
    refuses(ns["normal_equation"], torch.cat([X, X], 1), randn(5, 1))
    refuses(ns["normal_equation"], X, randn(4, 1))


CHECKS = {
    "linreg": check_linreg, "squared_loss": check_squared_loss, "sgd": check_sgd,
    "minibatches": check_minibatches, "normal_equation": check_normal_equation,
}
BROKEN = [
    ("linreg", "X @ w + b", "X @ w - b"),
    ("squared_loss", "(y_hat - y) ** 2 / 2", "(y_hat - y) ** 2"),
    ("squared_loss", "if y_hat.shape != y.shape", "if False"),
    ("sgd", "p -= lr * p.grad", "p += lr * p.grad"),
    ("sgd", "if not lr > 0", "if lr < 0"),
    ("minibatches", "y[rows]", "y[start : start + batch_size]"),
    ("minibatches", "range(0, len(X), batch_size)", "range(0, len(X) - 1, batch_size)"),
    ("normal_equation", "X.T @ y", "X.T @ (y + 1e-2)"),
]
MUTATIONS = [
    [("range(1, degree + 1)", "range(degree)"), ("dim=1", "dim=0")],
    [("lam * identity", "identity"), ("+ lam", "- lam")],
]
