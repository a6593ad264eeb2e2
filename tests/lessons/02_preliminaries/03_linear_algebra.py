"""2.3 节 线性代数：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import torch
from parity import TOLERANCE, randn, refuses, same

NAMES = ("matmul", "power_iteration", "pca")
FORBIDDEN = frozenset({
    "matmul", "mm", "bmm", "einsum", "tensordot", "dot", "eigh", "eigvalsh", "eig", "eigvals",
    "svd", "svdvals", "svd_lowrank", "pca_lowrank", "lobpcg", "symeig", "cov",
})
SHAPES = (
    ((3, 4), (4, 5)), ((1, 1), (1, 1)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
    ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((6, 1, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4,)), ((4,), (2, 4, 5)), ((3, 0), (0, 5)), ((0, 4), (4, 2)),
)


def check_matmul(ns):
    for (first, second), dtype in itertools.product(SHAPES, TOLERANCE):
        same(ns["matmul"], torch.matmul, randn(*first, dtype=dtype),
             randn(*second, dtype=dtype, seed=1))
    refuses(ns["matmul"], randn(3, 4), randn(3, 4))
    refuses(ns["matmul"], randn(3, 4), torch.tensor(2.0))


def check_power_iteration(ns):
    mine = ns["power_iteration"]
    for n, sign in itertools.product((1, 2, 5, 20), (1, -1)):
        spread = torch.cat([torch.linspace(0.1, 1, n - 1), torch.tensor([2.0])]).double()
        Q = torch.linalg.qr(randn(n, n, dtype=torch.float64))[0]
        A = Q @ torch.diag(sign * spread) @ Q.T  # sign = −1：绝对值最大的不是最大的
        A = (A + A.T) / 2
        values, vectors = torch.linalg.eigh(A)
        value, v = mine(A, generator=torch.Generator().manual_seed(1))
        assert value.dim() == 0 and v.shape == (n,) and value.dtype == v.dtype == torch.float64
        torch.testing.assert_close(value, values[-1], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close((v @ vectors[:, -1]).abs(), torch.ones_like(value))
    refuses(mine, randn(3, 4))
    refuses(mine, torch.tensor([[1.0, 2.0], [0.0, 1.0]]))


def check_pca(ns):
    for dtype, (n, d, k) in itertools.product(TOLERANCE, ((40, 6, 3), (30, 8, 8), (9, 20, 4))):
        X = randn(n, d, dtype=dtype) * torch.linspace(3, 0.5, d, dtype=dtype) ** 2 + 5
        exact = dict(num_steps=3000, tol=1e-7) if dtype == torch.float64 else {}
        mean, components, variances = ns["pca"](X, k, **exact)
        _, sigma, Vt = torch.linalg.svd(X - X.mean(0), full_matrices=False)
        tol = 5e-3 if dtype == torch.float32 else 1e-6
        torch.testing.assert_close(mean, X.mean(0))
        torch.testing.assert_close(variances, sigma[:k] ** 2 / n, rtol=tol, atol=tol)
        assert components.shape == (k, d) and components.dtype == dtype
        overlap = (components * Vt[:k]).sum(1).abs()
        torch.testing.assert_close(overlap, torch.ones(k, dtype=dtype), rtol=tol, atol=tol)
    X = randn(10, 4)
    for bad in ((X, 0), (X, 5), (X[:3], 3), (X[0], 1)):
        refuses(ns["pca"], *bad)


CHECKS = {"matmul": check_matmul, "power_iteration": check_power_iteration, "pca": check_pca}
BROKEN = [
    ("matmul", "range(left.shape[-1])", "range(1, left.shape[-1])"),
    ("matmul", "result.squeeze(-1) if B.dim() == 1", "result.squeeze(-1) if A.dim() == 1"),
    ("matmul", "if A.dim() == 0 or B.dim() == 0", "if False"),
    ("power_iteration", "v = Av + scale * v", "v = Av"),
    ("power_iteration", "or not torch.allclose(A, A.T)", ""),
    ("power_iteration", "value = v @ Av", "value = Av.sum()"),
    ("pca", "mean = X.mean(dim=0)", "mean = X.mean(dim=0) * 0.9"),
    ("pca", "/ len(X)   ", "/ (len(X) - 1)   "),
    ("pca", "torch.linalg.qr(C @ V)[0]", "(C @ V) / (C @ V).norm(dim=0)"),
]
MUTATIONS = [
    [("for q in columns:", "for q in columns[-1:]:"), ("a / a.norm()", "a"),
     ("a = a - (q @ a) * q", "a = a + (q @ a) * q")],
    [("power_iteration(A.T @ A)", "power_iteration(A.T @ A + torch.ones(3, 3).double() * 50)"),
     ("(A @ v)[:, None]", "(A @ v / (A @ v).norm())[:, None]")],
]
