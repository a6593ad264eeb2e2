"""2.2 节 数据读取与预处理：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import numpy as np
import pandas as pd
import torch
from parity import TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("train_val_test_split", "one_hot", "standardize", "fit_preprocessing",
         "apply_preprocessing")
FORBIDDEN = frozenset({
    "one_hot", "get_dummies", "scatter", "scatter_", "std_mean", "var_mean", "var", "nanvar",
    "layer_norm", "batch_norm", "LayerNorm", "BatchNorm1d", "random_split", "zscore",
})


def to_array(frame):
    return torch.tensor(frame.to_numpy(dtype="float64").copy())


def check_train_val_test_split(ns):
    split = ns["train_val_test_split"]
    thirds = (1 / 3, 1 / 3, 1 / 3)
    for n, fractions in itertools.product(
        (10, 11, 101, 1000), ((0.7, 0.15, 0.15), (0.5, 0.5), (1.0,), thirds, (0.3, 0.3, 0.2, 0.2))
    ):
        parts = split(n, fractions, torch.Generator().manual_seed(n))
        assert isinstance(parts, tuple) and len(parts) == len(fractions)
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(n)), "每行正好在一份里"
        for part, fraction in zip(parts, fractions, strict=True):
            assert abs(len(part) - n * fraction) <= 1, "各份的大小"
    first, second = (split(50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert [len(p) for p in first] in ([35, 7, 8], [35, 8, 7])  # 默认的比例
    pairs = zip(first, second, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "同样的种子，同样的切分"
    other = split(50, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0].sort().values, torch.arange(35)), "要打乱"
    for n, fractions in ((10, (0.5, 0.4)), (10, (0.5, 0.5, 0.0)), (10, (1.5, -0.5)), (10, ()),
                         (2, (0.4, 0.3, 0.3)), (0, (0.5, 0.5)), (10, (float("nan"), 0.5))):
        refuses(split, n, fractions)


def check_one_hot(ns):
    mine = ns["one_hot"]
    g = torch.Generator().manual_seed(0)
    for shape, num_classes in itertools.product(((5,), (2, 3), (2, 1, 4), ()), (-1, 4, 7)):
        labels = torch.randint(0, 4, shape, generator=g)
        got, want = mine(labels, num_classes), F.one_hot(labels, num_classes)
        assert got.dtype == torch.int64 and torch.equal(got, want), (shape, num_classes)
    empty = torch.zeros(0, 2, dtype=torch.int64)
    assert mine(empty, 3).shape == (0, 2, 3)
    assert torch.equal(mine(torch.tensor([0, 0])), torch.tensor([[1], [1]]))
    for labels, num_classes in (
        (torch.tensor([0.0, 1.0]), 3), (torch.tensor([0, 1], dtype=torch.int32), 3),
        (torch.tensor([True, False]), 2), (torch.tensor([0, -1]), 3), (torch.tensor([-1]), -1),
        (torch.tensor([0, -2]), -1), (torch.tensor([3]), 3), (empty, -1), (torch.tensor([0]), 0),
        (torch.tensor([0]), -2),
    ):
        refuses(mine, labels, num_classes)


def check_standardize(ns):
    mine = ns["standardize"]
    for dtype, (n, m), correction in itertools.product(TOLERANCE, ((5, 3), (40, 2)), (0, 1)):
        train, val, test = (3 + 5 * randn(k, m, dtype=dtype, seed=k) for k in (n, 4, 1))
        frames = [pd.DataFrame(x.numpy()) for x in (train, val, test)]
        mean, std = frames[0].mean(), frames[0].std(ddof=correction)
        got = mine(train, val, test, correction=correction)
        assert isinstance(got, tuple) and len(got) == 3
        for a, frame in zip(got, frames, strict=True):
            want = to_array((frame - mean) / std).to(dtype)
            assert a.dtype == dtype
            torch.testing.assert_close(a, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        same(lambda a: mine(a)[0], lambda a: (a - a.mean(0)) / a.std(0), train)
        same(lambda a, b: mine(a, b)[1], lambda a, b: (b - a.mean(0)) / a.std(0), train, val)
    shift = randn(30, 2, dtype=torch.float64) + 1e4  # 均值远大于标准差
    torch.testing.assert_close(mine(shift)[0].std(0), torch.ones(2, dtype=torch.float64))
    # 一维与三维
    line = randn(9)
    torch.testing.assert_close(mine(line)[0], (line - line.mean()) / line.std())
    cube = randn(6, 2, 3)
    torch.testing.assert_close(mine(cube)[0], (cube - cube.mean(0)) / cube.std(0))
    # 整列相同：0，不是 nan；0.1 在 float32 里求平均会有舍入误差
    for value, n in itertools.product((0.1, 0.7, 7.0, 0.0, 1e-8), (3, 11, 49, 1000)):
        table = torch.stack([torch.full((n,), value), randn(n)], dim=1).requires_grad_()
        a, b = mine(table, torch.tensor([[5.0, 1.0]]))
        assert (a[:, 0] == 0).all() and (b[:, 0] == 0).all() and a.isfinite().all()
        a.sum().backward()
        assert table.grad.isfinite().all(), "常数列的梯度"
    small = torch.tensor([[1e-9], [3e-9]], dtype=torch.float64)  # 很小但不是常数
    torch.testing.assert_close(mine(small)[0].abs(), torch.full((2, 1), 0.5**0.5).double())
    good = randn(5, 3)
    for tables in (
        (good, randn(5, 2)), (good, randn(3)), (good, good.double()), (good.long(),),
        (good, good.long()), (torch.tensor(1.0),), (good[:1],), (good[:0],),
        (good.masked_fill(good > 1, float("nan")).index_fill(0, torch.tensor([0]), float("nan")),),
        (good, good.index_fill(0, torch.tensor([0]), float("nan"))),
        (good.index_fill(0, torch.tensor([0]), float("inf")),),
    ):
        refuses(mine, *tables)


def sample_tables():
    train = pd.DataFrame({
        "rooms": [1.0, 2.0, 4.0, 9.0, 30.0, 6.0], "income": [3.0, np.nan, 5.0, 8.0, np.nan, 1.0],
        "same": [0.1] * 6, "kind": ["b", "a", "b", "c", "a", "b"],
    })
    other = pd.DataFrame({
        "kind": ["mars", "a", None], "income": [np.nan, 2.0, 100.0], "same": [0.1, 5.0, 0.1],
        "rooms": [3.0, np.nan, 1000.0], "extra": [1, 2, 3],
    })
    return train, other


def check_preprocessing(ns):
    fit, apply = ns["fit_preprocessing"], ns["apply_preprocessing"]
    train, other = sample_tables()
    before = train.copy(), other.copy()
    for logs in ((), ("rooms",)):
        fitted = fit(train, logs)
        got = apply(train, fitted), apply(other, fitted)
        filled = [t[["rooms", "income"]].fillna(train[["rooms", "income"]].median())
                  for t in (train, other)]
        for name in logs:
            filled = [t.assign(**{name: np.log(t[name])}) for t in filled]
        for x, frame, table in zip(got, filled, (train, other), strict=True):
            scaled = to_array((frame - filled[0].mean()) / filled[0].std())
            constant = torch.zeros(len(table), 1)
            absent = torch.tensor(table["income"].isna().to_numpy().copy())[:, None]
            kinds = torch.tensor([[k == v for k in "abc"] for v in table["kind"]])
            want = torch.cat([scaled, constant, absent, kinds], dim=1).float()
            assert x.dtype == torch.float32 and x.shape == want.shape, (x.shape, want.shape)
            torch.testing.assert_close(x, want, rtol=1e-5, atol=1e-5)
        for i in range(len(other)):  # 一行的结果不取决于旁边有谁
            assert torch.equal(apply(other.iloc[[i]], fitted)[0], got[1][i])
        again = apply(train, fitted)
        assert torch.equal(again, got[0]), "使用记录时不应改动它"
    pd.testing.assert_frame_equal(train, before[0])
    pd.testing.assert_frame_equal(other, before[1])
    numbers = train[["rooms", "income"]]
    assert apply(numbers, fit(numbers)).shape == (6, 3)  # 没有类别列
    shuffled = train.iloc[[4, 2, 0, 1, 3, 5]]  # 行名乱了也没有关系
    assert torch.equal(apply(shuffled, fit(train)), apply(train, fit(train))[[4, 2, 0, 1, 3, 5]])
    refuses(apply, other.drop(columns="income"), fit(train))
    refuses(apply, other.drop(columns="kind"), fit(train))
    refuses(fit, train.assign(rooms=0.0), ["rooms"])
    refuses(apply, other.assign(rooms=-1.0), fit(train, ["rooms"]))


CHECKS = {
    "train_val_test_split": check_train_val_test_split, "one_hot": check_one_hot,
    "standardize": check_standardize, "fit_preprocessing": check_preprocessing,
    "apply_preprocessing": check_preprocessing,
}
BROKEN = [
    ("train_val_test_split", "torch.randperm(n, generator=generator)", "torch.arange(n)"),
    ("train_val_test_split", "abs(sum(fractions) - 1) > 1e-6", "False"),
    ("train_val_test_split", "for k in range(len(fractions))] + [n]",
     "for k in range(len(fractions))] + [n - 1]"),
    ("one_hot", "int(labels.max()) + 1", "len(labels.unique())"),
    ("one_hot", "not 0 <= int(labels.min()) <=", "not int(labels.min()) <="),
    ("one_hot", "== columns).long()", "== columns).float()"),
    ("standardize", "(len(train) - correction)", "len(train)"),
    ("standardize", "((x - mean) / std)", "((x - x.mean(0)) / std)"),
    ("standardize", "constant = (train == train[0]).all(0)", "constant = variance == 0"),
    ("standardize", "variance.masked_fill(constant, 1.0).sqrt()", "variance.sqrt()"),
    ("standardize", "if not x.isfinite().all():", "if False:"),
    ("fit_preprocessing", "filled.std().where(filled.nunique() > 1, np.inf)", "filled.std()"),
    ("fit_preprocessing", '"medians": numeric.median()', '"medians": numeric.mean()'),
    ("apply_preprocessing", 'fillna(fitted["medians"])', "fillna(table[names].median())"),
    ("apply_preprocessing", "codes + 1, len(categories) + 1)[:, 1:]",
     "codes.clamp(min=0), len(categories))"),
    ("apply_preprocessing", 'parts.append(to_tensor(table[fitted["indicators"]].isna()))',
     'parts.append(to_tensor(table[[n for n in names if table[n].isna().any()]].isna()))'),
]
MUTATIONS = [
    [("train.nanquantile(0.5, dim=0)", "train.nanmedian(dim=0).values"),
     ("medians, x)", "x.nanquantile(0.5, dim=0).nan_to_num(0.0), x)"),
     (".nan_to_num(0.0)", ""), ("missing.to(x.dtype)", "(~missing).to(x.dtype)"),
     ("train.nanquantile(0.5, dim=0)", "train.nanmean(dim=0)"),
     ("[filled, missing.to(x.dtype)]", "[filled]")],
    [("(~inside).nonzero()", "inside.nonzero()"),
     ("visible = (~inside).nonzero().flatten()", "visible = torch.arange(len(y))"),
     ("encoded[inside] = encode_by_mean(codes, y, visible)[inside]",
      "encoded = encode_by_mean(codes, y, visible)"),
     ("encode_by_mean(codes, y, visible)[inside]",
      "encode_by_mean(codes, y, visible)[inside].mean()")],
]
