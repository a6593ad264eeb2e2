"""4.12 节 综合实战：只看训练行的预处理、岭回归、k 折下标，改坏的实现和错误答案。"""

import numpy as np
import pandas as pd
import torch
from parity import TOLERANCE, randn, refuses
from torch import nn
from torch.nn import functional as F

NAMES = ("rmse", "check_columns", "engineer", "TablePreprocessor", "kfold_indices", "ridge_weights")
FORBIDDEN = frozenset({"mse_loss", "MSELoss", "get_dummies", "factorize"})


def sample(n=60, seed=0, kinds=("A", "B", "C")):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "longitude": rng.normal(-119, 2, n), "latitude": rng.normal(35, 2, n),
        "housing_median_age": rng.integers(1, 52, n).astype(float),
        "total_rooms": np.exp(rng.normal(7, 1, n)).round() + 1,
        "total_bedrooms": np.exp(rng.normal(6, 1, n)).round() + 1,
        "population": np.exp(rng.normal(7, 1, n)).round() + 1,
        "households": np.exp(rng.normal(6, 1, n)).round() + 1,
        "median_income": np.exp(rng.normal(1, 0.5, n)),
        "median_house_value": rng.uniform(1e5, 5e5, n),
        "ocean_proximity": rng.choice(list(kinds), n),
    })
    table.loc[rng.permutation(n)[: n // 6], "total_bedrooms"] = np.nan
    return table


def check_rmse(ns):
    for dtype in TOLERANCE:
        for shape in ((1,), (7,), (3, 4)):
            a, b = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=9)
            assert abs(ns["rmse"](a, b) - F.mse_loss(a, b).sqrt().item()) < 1e-6
    refuses(ns["rmse"], randn(4), randn(4, 1))
    refuses(ns["rmse"], randn(0), randn(0))


def check_columns(ns):
    table = sample()
    assert ns["check_columns"](table) is None
    for name in table.drop(columns="median_house_value"):
        refuses(ns["check_columns"], table.drop(columns=name))
    for name in ("total_rooms", "median_income"):
        refuses(ns["check_columns"], table.assign(**{name: -1.0}))


def check_engineer(ns):
    table = sample()
    copy = table.copy(deep=True)
    out = ns["engineer"](table)
    pd.testing.assert_frame_equal(table, copy)  # 输入不被改动
    assert len(out) == len(table) and out.shape[1] == 11 and (out.dtypes == "float64").all()
    assert np.allclose(out["log_population"], np.log(table["population"] + 1))
    ratio = (table["total_rooms"] + 1) / (table["households"] + 1)
    assert np.allclose(out["rooms_per_household"], np.log(ratio))
    ratio = (table["total_bedrooms"] + 1) / (table["total_rooms"] + 1)
    assert np.allclose(out["bedrooms_per_room"], np.log(ratio), equal_nan=True)
    ratio = (table["population"] + 1) / (table["households"] + 1)
    assert np.allclose(out["people_per_household"], np.log(ratio))
    # 逐行：单独算一行，与整张表里的那一行相同
    pd.testing.assert_frame_equal(ns["engineer"](table.iloc[[5]]), out.iloc[[5]])
    refuses(ns["engineer"], table.drop(columns="population"))
    refuses(ns["engineer"], table.assign(households=-1.0))


def check_preprocessor(ns):
    make = ns["TablePreprocessor"]
    train, other = sample(), sample(30, seed=1)
    prep = make().fit(train)
    X = prep.transform(train)
    assert X.dtype == torch.float32 and X.shape == (60, len(prep.names)) == (60, 15)
    assert torch.isfinite(X).all()
    numbers = X[:, :11].double()
    assert numbers.mean(0).abs().max() < 1e-5
    assert (numbers.std(0, correction=0) - 1).abs().max() < 1e-5
    assert torch.equal(X[:, 11].bool(), torch.tensor(train["total_bedrooms"].isna().to_numpy()))
    for j, kind in enumerate(("A", "B", "C")):
        assert torch.equal(X[:, 12 + j].bool(), torch.tensor((train["ocean_proximity"] == kind).to_numpy()))
    # 别的行不影响统计量：单独变换与一起变换相同，训练行的结果不变
    both = pd.concat([train, other.assign(population=1e6)], ignore_index=True)
    assert torch.equal(prep.transform(both)[:60], X)
    assert torch.equal(prep.transform(other.iloc[[3]]), prep.transform(other)[3:4])
    # 缺失的填训练行的中位数
    features = ns["engineer"](train)
    fill = (features["log_total_bedrooms"].median() - prep.mean["log_total_bedrooms"]) / prep.std[
        "log_total_bedrooms"]
    row = train["total_bedrooms"].isna().to_numpy().nonzero()[0][0]
    assert abs(X[row, list(features).index("log_total_bedrooms")].item() - fill) < 1e-5
    # 没见过的类别、缺失的类别、常数列、全缺失的列、行号打乱
    odd = other.assign(ocean_proximity="moon")
    assert (prep.transform(odd)[:, 12:] == 0).all()
    flat = make().fit(train.assign(latitude=35.0, total_bedrooms=np.nan))
    assert torch.isfinite(flat.transform(train.assign(latitude=35.0, total_bedrooms=np.nan))).all()
    mixed = train.iloc[::-1]
    assert torch.equal(prep.transform(mixed), X.flip(0))
    refuses(make().transform, train)
    refuses(make().fit, train.iloc[:0])
    refuses(prep.transform, train.drop(columns="ocean_proximity"))


def check_kfold(ns):
    for n, k in ((7, 3), (10, 5), (5, 5), (11, 2)):
        for generator in (None, torch.Generator().manual_seed(n)):
            folds = ns["kfold_indices"](n, k, generator)
            held = [v.tolist() for _, v in folds]
            assert sorted(sum(held, [])) == list(range(n)) and len(folds) == k
            assert [len(v) for v in held] == [n // k + (i < n % k) for i in range(k)]
            for train, val in folds:
                assert sorted([*train.tolist(), *val.tolist()]) == list(range(n))
                assert train.dtype == val.dtype == torch.int64
    for n, k in ((5, 1), (5, 6), (5, 2.0), (True, 2)):
        refuses(ns["kfold_indices"], n, k)


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


CHECKS = {
    "rmse": check_rmse, "check_columns": check_columns, "engineer": check_engineer, "TablePreprocessor": check_preprocessor,
    "kfold_indices": check_kfold, "ridge_weights": check_ridge,
}
BROKEN = [
    ("rmse", ".mean().sqrt()", ".mean()"),
    ("rmse", "y_hat.shape != y.shape or", ""),
    ("check_columns", "*LONG_TAILED, CATEGORY)", "*LONG_TAILED)"),
    ("check_columns", "< 0)", "< -2)"),
    ("engineer", "np.log1p", "np.log"),
    ("engineer", 'features["log_population"] - features["log_households"]',
     'features["log_population"] - features["log_total_rooms"]'),
    ("TablePreprocessor", "features.fillna(self.medians) - self.mean",
     "features.fillna(features.median()) - self.mean"),
    ("TablePreprocessor", "- self.mean) / self.std", "- features.mean()) / self.std"),
    ("TablePreprocessor", "spread.where(spread > 0, 1.0)", "spread"),
    ("TablePreprocessor", "for kind in self.categories]",
     "for kind in sorted(table[CATEGORY].unique())]"),
    ("kfold_indices", "(i < n % k)", "(i >= k - n % k)"),
    ("kfold_indices", "order[start:stop]))", "order[start : stop - 1]))"),
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
