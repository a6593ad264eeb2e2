"""4.5 节 过拟合与欠拟合：约定、一致性、改坏的实现和错误答案。"""

import math
import re

import numpy as np
import pytest
import torch
from parity import TOLERANCE, randn, refuses, same

NAMES = ("kfold_indices", "legendre_features", "least_squares")
FORBIDDEN = frozenset({
    "legendre_polynomial_p", "legvander", "legval", "lstsq", "pinv", "pinverse", "tensor_split",
    "array_split", "split", "chunk", "random_split", "vsplit",
})


def check_kfold(ns):
    kfold_indices = ns["kfold_indices"]
    cases = [(n, k) for n in range(2, 24) for k in range(2, n + 1)]
    for n, k in [*cases, (100, 7), (1000, 10), (10_001, 3)]:
        for seed in (None, 0, 1):
            g = None if seed is None else torch.Generator().manual_seed(seed)
            folds = kfold_indices(n, k, generator=g)
            assert isinstance(folds, list) and len(folds) == k
            assert [len(val) for _, val in folds] == [n // k + (i < n % k) for i in range(k)]
            for train, val in folds:
                for part in (train, val):
                    assert part.dtype == torch.int64 and part.dim() == 1
                assert len(train) + len(val) == n, "训练加验证应是全部样本"
                both = torch.cat([train, val]).sort().values
                assert torch.equal(both, torch.arange(n)), "训练与验证应不相交，合起来是全部"
            union = torch.cat([val for _, val in folds])
            assert torch.equal(union.sort().values, torch.arange(n)), "每个样本恰好验证一次"
            if seed is None:
                assert torch.equal(union, torch.arange(n)), "不打乱时，验证样本是连续的一段"
                assert all(torch.equal(t, t.sort().values) for t, _ in folds)
                for (_, val), piece in zip(folds, np.array_split(np.arange(n), k), strict=True):
                    assert val.tolist() == piece.tolist()
            else:
                again = kfold_indices(n, k, generator=torch.Generator().manual_seed(seed))
                for a, b in zip(folds, again, strict=True):
                    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), "应可复现"
    shuffled = [torch.cat([v for _, v in kfold_indices(50, 5, torch.Generator().manual_seed(s))])
                for s in (0, 1)]
    assert not torch.equal(*shuffled) and not torch.equal(shuffled[0], torch.arange(50))
    g = torch.Generator().manual_seed(0)  # 同一个发生器接着用，第二次的划分不同
    first, second = kfold_indices(50, 5, g), kfold_indices(50, 5, g)
    assert not torch.equal(first[0][1], second[0][1])
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    kfold_indices(20, 4)
    kfold_indices(20, 4, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state()), "不应动用全局的随机数"
    for n, k in [(10, 1), (10, 0), (10, -2), (3, 4), (1, 2), (0, 2), (10, 2.0), (10.0, 2),
                 (True, 2), (10, True), ("10", 2), (10, None), (10, math.nan)]:
        refuses(kfold_indices, n, k)


def exact_legendre(x, degree):
    """由有理系数的显式公式得到的 P_0 … P_degree，能求梯度；次数不高时足够准。"""
    columns = []
    for n in range(degree + 1):
        terms = [(-1) ** m * math.comb(n, m) * math.comb(2 * n - 2 * m, n) / 2**n
                 * x ** (n - 2 * m) for m in range(n // 2 + 1)]
        columns.append(sum(terms))
    return torch.stack(columns, 1)


def check_legendre(ns):
    mine = ns["legendre_features"]
    for dtype in TOLERANCE:
        for N in (1, 2, 7):
            assert torch.equal(mine(randn(N, dtype=dtype), 0), torch.ones(N, 1, dtype=dtype))
            for degree in (1, 2, 3, 6):
                x = randn(N, dtype=dtype).clamp(-1, 1)
                same(lambda x: mine(x, degree), lambda x: exact_legendre(x, degree), x)  # noqa: B023
        x = torch.linspace(-1, 1, 41, dtype=dtype)
        got = mine(x, 60)
        assert got.shape == (41, 61) and got.dtype == dtype
        want = np.polynomial.legendre.legvander(x.double().numpy(), 60)
        error = np.abs(got.double().numpy() - want).max()
        assert error < (1e-12 if dtype == torch.float64 else 5e-5), error
        assert torch.equal(got[-1], torch.ones(61, dtype=dtype)), "P_k(1) = 1"
    assert mine(torch.empty(0), 3).shape == (0, 4)
    for bad in (-1, 2.0, True, None, "3"):
        refuses(mine, torch.zeros(3), bad)
    refuses(mine, torch.zeros(3, 1), 2)
    refuses(mine, torch.tensor(0.5), 2)
    refuses(mine, torch.arange(3), 2)


def ridge_by_equation(A, y, ridge):
    """(AᵀA + λI)⁻¹ Aᵀy，能求梯度。"""
    eye = torch.eye(A.shape[1], dtype=A.dtype)
    return torch.linalg.solve(A.T @ A + ridge * eye, A.T @ y)


def check_least_squares(ns):
    mine = ns["least_squares"]
    for dtype, tol in ((torch.float32, 2e-3), (torch.float64, 1e-8)):
        for N, D in ((9, 4), (4, 9), (6, 6), (1, 5), (5, 1), (40, 15)):
            A = randn(N, D, dtype=dtype)
            if N == D:
                A = A + 4 * torch.eye(N, dtype=dtype)
            for y in (randn(N, dtype=dtype, seed=5), randn(N, 3, dtype=dtype, seed=6)):
                if N >= D:
                    same(mine, lambda A, y: torch.linalg.lstsq(A, y[:, None] if y.dim() == 1 else y)
                         .solution.reshape(A.shape[1], *y.shape[1:]), A, y, tol=tol)
                else:
                    same(mine, lambda A, y: torch.linalg.pinv(A) @ y, A, y, tol=tol)
                for ridge in (0.1, 3.0):
                    same(lambda A, y: mine(A, y, ridge),  # noqa: B023
                         lambda A, y: ridge_by_equation(A, y, ridge), A, y, tol=tol)  # noqa: B023
        # 秩不足：与 pinv 相同的最小范数解
        low = randn(8, 3, dtype=dtype) @ randn(3, 6, dtype=dtype, seed=2)
        y = randn(8, 2, dtype=dtype, seed=3)
        got = mine(low, y)
        torch.testing.assert_close(got, torch.linalg.pinv(low) @ y, rtol=tol, atol=tol)
        zero = mine(torch.zeros(3, 2, dtype=dtype), y[:3])
        assert torch.equal(zero, torch.zeros(2, 2, dtype=dtype))
    A, y = randn(5, 3), randn(5)
    refuses(mine, A, y, -0.1)
    refuses(mine, A, y, math.nan)
    refuses(mine, A, y[:4])
    refuses(mine, A[0], y)
    refuses(mine, A, y.reshape(5, 1, 1))
    refuses(mine, A, y.double())
    refuses(mine, A.long(), y.long())
    refuses(mine, A[:0], y[:0])
    with pytest.raises(ValueError, match=re.escape("(5, 3)")):
        mine(A, y[:4])


CHECKS = {
    "kfold_indices": check_kfold, "legendre_features": check_legendre,
    "least_squares": check_least_squares,
}
BROKEN = [
    ("kfold_indices", "n // k + (i < n % k)", "n // k"),
    ("kfold_indices", "(i < n % k)", "(i >= k - n % k)"),
    ("kfold_indices", "torch.cat([order[:start], order[stop:]])", "order"),
    ("kfold_indices", "torch.randperm(n, generator=generator)", "torch.randperm(n)"),
    ("kfold_indices", "torch.randperm(n, generator=generator)",
     "torch.randint(n, (n,), generator=generator)"),
    ("kfold_indices", "if not 2 <= k <= n", "if not 1 <= k <= n"),
    ("kfold_indices", "if not 2 <= k <= n", "if not 2 <= k"),
    ("legendre_features", "- k * columns[k - 1]) / (k + 1)", "- k * columns[k - 1]) / k"),
    ("legendre_features", "(2 * k + 1) * x", "(2 * k) * x"),
    ("legendre_features", "columns[: degree + 1]", "columns"),
    ("least_squares", "U.T @ y", "U.T @ -y"),
    ("least_squares", "safe / (safe**2 + ridge)", "1 / (safe + ridge)"),
    ("least_squares", "keep = s > cutoff * s.amax()", "keep = s >= 0"),
    ("least_squares", "if not ridge >= 0", "if ridge < -1"),
]
MUTATIONS = [
    [("torch.argsort(y, stable=True)", "torch.argsort(y, descending=True, stable=True)"),
     ("fold[queue] = torch.arange(len(y)) % k", "fold = torch.arange(len(y))[queue] % k"),
     ("fold[queue] = torch.arange(len(y)) % k", "fold = (torch.arange(len(y)) % k)[queue]"),
     ("torch.arange(len(y)) % k", "torch.arange(len(y)) * k // len(y)"),
     ("queue = torch.argsort(y, stable=True)", "queue = torch.arange(len(y))")],
    [("errors.std(1)", "errors.std(1, unbiased=False)"), (" / errors.shape[1] ** 0.5", ""),
     ("se[best]", "se"), ("mean[best] + se[best]", "mean[best]"),
     ("nonzero()[0]", "nonzero()[-1]"), ("mean <= mean[best]", "mean < mean[best]")],
]
