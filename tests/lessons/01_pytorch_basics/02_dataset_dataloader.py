"""1.2 节 Dataset 与 DataLoader：约定、一致性、改坏的实现和错误答案。"""

import copy
import itertools
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
import torch
import torch.utils.data as td
from parity import randn, refuses
from torch.nn.utils.rnn import pad_sequence

NAMES = (
    "index_batches", "stack_tensors", "default_collate", "collate_items", "draw_seed",
    "random_order", "check_arguments", "num_batches", "fetch", "MiniDataLoader", "pad_collate",
    "balanced_weights",
)
FORBIDDEN = frozenset({
    "DataLoader", "default_collate", "default_convert", "BatchSampler", "RandomSampler",
    "SequentialSampler", "batched", "pad_sequence",
})
Point = namedtuple("Point", "x y")
CHINESE = "[\u4e00-\u9fff]"


def equal(a, b):
    """类型、结构、dtype、形状和数值都相同。"""
    assert type(a) is type(b), f"{type(a)} ≠ {type(b)}"
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), f"{a} ≠ {b}"
    elif isinstance(a, dict | MappingProxyType):
        assert list(a) == list(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        assert a == b


class Whole(td.Dataset):
    """一次取一整批的数据集；逐个取会出错。"""

    def __len__(self):
        return 7

    def __getitems__(self, rows):
        return [(row, float(row)) for row in rows]


class Stream(td.IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        yield from ((i, torch.full((2,), i)) for i in range(self.n))


class SizedStream(Stream):
    def __len__(self):
        return self.n


class Noisy(td.Dataset):
    """取样本时要用全局随机数：取的时机不同，结果就不同。"""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return i, torch.rand(2)


def check_index_batches(ns):
    for n, size, drop in itertools.product((0, 1, 4, 7, 8), (1, 3, 4, 9), (False, True)):
        equal(list(ns["index_batches"](range(n), size, drop)),
              list(td.BatchSampler(range(n), size, drop)))
    items = iter(range(100))  # 懒：只读到眼前这一批
    batches = ns["index_batches"](items, 3, False)
    assert [next(batches), next(batches), next(items, None)] == [[0, 1, 2], [3, 4, 5], 6]


def check_stack_tensors(ns):
    for shape, dtype in itertools.product(((), (3,), (2, 3)), (torch.float32, torch.int64)):
        batch = [randn(*shape, seed=i).to(dtype) for i in range(3)]
        equal(ns["stack_tensors"](batch), torch.stack(batch))
    leaves = [randn(3, seed=i).requires_grad_() for i in range(2)]
    grads = torch.autograd.grad(ns["stack_tensors"](leaves).pow(2).sum(), leaves)
    for leaf, grad in zip(leaves, grads, strict=True):
        assert torch.equal(grad, 2 * leaf.detach())
    refuses(ns["stack_tensors"], [randn(3), randn(4)])


COLLATED = [
    [torch.ones(2, 3), torch.zeros(2, 3)], [torch.tensor(1), torch.tensor(2)],
    [1, 2, 3], [1.5, 2.5], [True, False], [1, 2.5], ["a", "bc"], [b"a", b"b"],
    [np.arange(3), np.ones(3, dtype=int)], [np.float32([1, 2]), np.float32([3, 4])],
    [np.array(3), np.array(4)], [np.float64(1), np.float64(2)], [np.float32(1), np.float32(2)],
    [np.int16(1), np.int16(2)], [np.bool_(True), np.bool_(False)], [np.str_("a"), np.str_("b")],
    [(1, "a", 2.0), (3, "b", 4.0)], [[1, 2], [3, 4]], [(), ()], [[(1, 2)], [(3, 4)]],
    [Point(1, randn(2)), Point(2, randn(2))], [Point((1, "x"), 0.5), Point((2, "y"), 1.5)],
    [{"a": 1, "b": randn(2)}, {"a": 2, "b": randn(2)}], [{"a": {"b": [1, (2.0,)]}}] * 2,
    [OrderedDict(b=1, a=2.0), OrderedDict(b=3, a=4.0)], [(torch.ones(1),)],
]


def collates_like_torch(function, batch):
    try:
        mine = function(copy.deepcopy(batch))
    except TypeError as error:
        raise AssertionError(f"不会叠合 {batch}：{error}") from error
    equal(mine, td.default_collate(copy.deepcopy(batch)))


def check_default_collate(ns):
    for batch in COLLATED:
        collates_like_torch(ns["default_collate"], batch)
    for bad in ([], [randn(2), randn(3)], [(1, 2), (1,)], [np.ones(2), np.ones(3)]):
        refuses(ns["default_collate"], bad)
    for bad in ([None], [object()], [{1, 2}], [np.array(["a"])], [(1, None)]):
        with pytest.raises(TypeError, match=CHINESE):
            ns["default_collate"](bad)


def check_collate_items(ns):
    for batch in COLLATED:
        if isinstance(batch[0], (list, tuple, dict)):
            collates_like_torch(ns["collate_items"], batch)
    got = ns["collate_items"]([MappingProxyType({"a": 1}), MappingProxyType({"a": 2})])
    equal(dict(got), {"a": torch.tensor([1, 2])})
    before = {"a": 1}
    ns["collate_items"]([before, {"a": 2}])
    assert before == {"a": 1}, "样本被改动了"
    refuses(ns["collate_items"], [[1], [1, 2]])
    with pytest.raises(TypeError, match=CHINESE):
        ns["collate_items"]([{1}, {2}])


def check_draw_seed(ns):
    g, h = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(3):
        assert ns["draw_seed"](g) == int(torch.empty((), dtype=torch.int64).random_(generator=h))
    torch.manual_seed(4)
    first = ns["draw_seed"](None)
    torch.manual_seed(4)
    assert isinstance(first, int) and first == int(torch.empty((), dtype=torch.int64).random_())


def check_random_order(ns):
    for n, seed in itertools.product((1, 2, 9), (0, 5)):
        g, h = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        sampler = td.RandomSampler(range(n), generator=h)
        for _ in range(3):
            assert list(ns["random_order"](n, g)) == list(sampler)
        torch.manual_seed(seed)
        mine = [list(ns["random_order"](n)) for _ in range(2)], torch.rand(1).item()
        torch.manual_seed(seed)
        sampler = td.RandomSampler(range(n))
        assert mine == ([list(sampler) for _ in range(2)], torch.rand(1).item())


def check_check_arguments(ns):
    check = ns["check_arguments"]
    for good in ((range(3), 1, True, False), (Stream(3), 4, False, True), ([], 2, False, False)):
        assert check(*good) is None
    for size in (0, -1, 2.0, True, None, "3"):
        refuses(check, range(3), size, False, False)
    for switches in ((1, False), (False, None)):
        refuses(check, range(3), 2, *switches)
    refuses(check, Stream(3), 2, True, False)
    refuses(check, [], 2, True, False)


def check_num_batches(ns):
    for n, size, drop in itertools.product((0, 1, 4, 7, 8), (1, 3, 4, 9), (False, True)):
        for data in (range(n), SizedStream(n)):
            assert ns["num_batches"](data, size, drop) == len(
                td.DataLoader(data, batch_size=size, drop_last=drop)
            )
    with pytest.raises(TypeError, match=CHINESE):
        ns["num_batches"](Stream(4), 2, False)


def check_fetch(ns):
    assert ns["fetch"]("abcdef", [4, 0, 0]) == ["e", "a", "a"]
    assert ns["fetch"](Whole(), [3, 1]) == [(3, 3.0), (1, 1.0)]


def epochs(loader_class, dataset, seed, own, num_epochs=3, **options):
    """几轮的批次，和最后全局随机数、发生器的下一个数。"""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed) if own else None
    loader = loader_class(dataset, generator=generator, **options)
    batches = [list(loader) for _ in range(num_epochs)]
    return batches, torch.rand(1), torch.rand(1, generator=generator)


def check_minidataloader(ns):
    mine = ns["MiniDataLoader"]
    for n, size, shuffle, drop, own in itertools.product(
        (1, 2, 7, 12), (1, 3, 4, 20), (False, True), (False, True), (False, True)
    ):
        data = td.TensorDataset(randn(n, 2), torch.arange(n))
        options = dict(batch_size=size, shuffle=shuffle, drop_last=drop)
        equal(epochs(mine, data, n, own, **options), epochs(td.DataLoader, data, n, own, **options))
        assert len(mine(data, **options)) == len(td.DataLoader(data, **options))
    for data, shuffle, own in itertools.product(
        (Noisy(), Whole(), [{"a": i, "b": str(i)} for i in range(5)]), (False, True), (False, True)
    ):
        options = dict(batch_size=2, shuffle=shuffle)
        equal(epochs(mine, data, 1, own, **options), epochs(td.DataLoader, data, 1, own, **options))
    for n, size, drop, own in itertools.product((0, 3, 6), (1, 4), (False, True), (False, True)):
        options = dict(batch_size=size, drop_last=drop)
        for data in (Stream(n), SizedStream(n)):
            equal(epochs(mine, data, 2, own, **options),
                  epochs(td.DataLoader, data, 2, own, **options))
        assert len(mine(SizedStream(n), **options)) == len(td.DataLoader(SizedStream(n), **options))
    assert list(mine([], batch_size=2)) == [] and len(mine([])) == 0
    equal(list(mine(range(3))), list(td.DataLoader(range(3))))
    equal(list(mine(range(5), 2, collate_fn=sum)), [1, 5, 4])
    # 只看一部分就停下，下一轮也与 DataLoader 相同
    orders = []
    for loader_class in (mine, td.DataLoader):
        loader = loader_class(range(9), 2, shuffle=True, generator=torch.Generator().manual_seed(1))
        first = next(iter(loader))
        orders.append([first, *loader])
    equal(*orders)
    for bad in (dict(batch_size=0), dict(batch_size=-2), dict(batch_size=1.5),
                dict(shuffle=1), dict(drop_last=0)):
        refuses(mine, range(4), **bad)
    refuses(mine, Stream(4), shuffle=True)
    refuses(mine, [], shuffle=True)
    with pytest.raises(TypeError, match=CHINESE):
        len(mine(Stream(4)))


def check_pad_collate(ns):
    for lengths, rest, value in itertools.product(
        ([3, 1, 5, 2], [4], [2, 2], [0, 3]), ((), (2,)), (0.0, -1.0)
    ):
        xs = [randn(t, *rest, seed=i) for i, t in enumerate(lengths)]
        X, mask, y = ns["pad_collate"](list(zip(xs, range(len(xs)), strict=True)), value)
        equal(X, pad_sequence(xs, batch_first=True, padding_value=value))
        equal(mask.sum(1).tolist(), lengths)
        for x, row, m in zip(xs, X, mask, strict=True):
            equal(row[m], x)
        equal(y, torch.arange(len(xs)))
    X, mask, _ = ns["pad_collate"]([(torch.tensor([1, 2]), 0), (torch.tensor([3]), 1)])
    equal(X, torch.tensor([[1, 2], [3, 0]]))
    assert mask.dtype == torch.bool
    refuses(ns["pad_collate"], [])
    refuses(ns["pad_collate"], [(randn(2, 3), 0), (randn(2, 4), 1)])
    refuses(ns["pad_collate"], [(torch.tensor(1.0), 0)])


def check_balanced_weights(ns):
    for y in ([0, 0, 0, 0, 1, 1, 2], [3], [5, 5, 0]):
        want = torch.tensor([1 / y.count(label) for label in y], dtype=torch.float64)
        equal(ns["balanced_weights"](torch.tensor(y)), want)
    for bad in (torch.tensor([]).long(), torch.tensor([[0]]), torch.tensor([0.0]),
                torch.tensor([-1, 0])):
        refuses(ns["balanced_weights"], bad)


CHECKS = {
    "index_batches": check_index_batches, "stack_tensors": check_stack_tensors,
    "default_collate": check_default_collate, "collate_items": check_collate_items,
    "draw_seed": check_draw_seed, "random_order": check_random_order,
    "check_arguments": check_check_arguments,
    "num_batches": check_num_batches, "fetch": check_fetch, "MiniDataLoader": check_minidataloader,
    "pad_collate": check_pad_collate, "balanced_weights": check_balanced_weights,
}
BROKEN = [
    ("index_batches", "if drop_last and len(batch) < batch_size", "if drop_last"),
    ("index_batches", "items = iter(items)", "items = iter(list(items))"),
    ("index_batches", "    if drop_last and len(batch) < batch_size:\n            return\n", ""),
    ("stack_tensors", "torch.stack(list(batch))", "torch.stack(list(batch)).detach()"),
    ("stack_tensors", "len(shapes) > 1", "len(shapes) > 99"),
    ("default_collate", "torch.float64 if", "torch.float32 if"),
    ("default_collate", "(np.number, np.bool_)", "()"),
    ("default_collate", 'not in "OSU"', 'not in ""'),
    ("default_collate", "(str, bytes)", "str"),
    ("collate_items", " if hasattr(first, \"_fields\") else columns", " if False else columns"),
    ("collate_items", "copy.copy(first)", "first"),
    ("collate_items", "copy.copy(first)", "{}"),
    ("draw_seed", "dtype=torch.int64", "dtype=torch.int32"),
    ("draw_seed", "random_(generator=generator)", "random_()"),
    ("random_order", "manual_seed(draw_seed(None))", "manual_seed(0)"),
    ("random_order", "    torch.randperm(n, generator=generator)  # RandomSampler", "    # "),
    ("check_arguments", "or batch_size < 1", ""),
    ("check_arguments", "isinstance(batch_size, bool) or", ""),
    ("check_arguments", "len(dataset) == 0", "False"),
    ("fetch", "many(indices) if many else ", ""),
    ("MiniDataLoader", "draw_seed(self.generator)", "None"),
    ("MiniDataLoader", "random_order(n, self.generator)", "random_order(n)"),
    ("num_batches", "full if drop_last or rest == 0 else full + 1", "full + 1"),
    ("num_batches", "or rest == 0", ""),
    ("MiniDataLoader", "num_batches(self.dataset, self.batch_size, self.drop_last)",
     "len(self.dataset)"),
    ("MiniDataLoader", "index_batches(order, self.batch_size, self.drop_last)",
     "index_batches(order, self.batch_size, False)"),
    ("MiniDataLoader", "(self.collate_fn(fetch(self.dataset, indices)) for indices in groups)",
     "iter([self.collate_fn(fetch(self.dataset, indices)) for indices in groups])"),
    ("MiniDataLoader", "default_collate if collate_fn is None else collate_fn", "default_collate"),
    ("pad_collate", "padding_value)\n    for", "0.0)\n    for"),
    ("pad_collate", "row[: len(x)] = x", "row[-len(x):] = x"),
    ("pad_collate", "< lengths.unsqueeze(1)", "<= lengths.unsqueeze(1)"),
    ("balanced_weights", "torch.bincount(y)[y]", "torch.bincount(y)"),
    ("balanced_weights", "1 / torch.bincount(y)[y].double()", "1 / torch.bincount(y)[y]"),
    ("balanced_weights", "or y.min() < 0", ""),
]
MUTATIONS = [
    [("len(buffer) < size", "len(buffer) <= size"), ("yield buffer[slot]", "yield item"),
     ("for item in items:", "for item in list(items):"),
     ("for i in torch.randperm(len(buffer), generator=generator).tolist():",
      "for i in range(len(buffer)):")],
    [("right=True", "right=False"), ("u * ends[-1]", "u"), ("weights.cumsum(0)", "weights"),
     ("u * ends[-1]", "u * len(weights)")],
]
