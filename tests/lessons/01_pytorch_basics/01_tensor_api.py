"""1.1 节 张量 API：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import torch
from parity import TOLERANCE, randn, refuses, same

NAMES = ("strides_of", "storage_index", "measured_layout", "storage_of", "as_strided_view")
FORBIDDEN = frozenset({
    "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "stride", "strides",
    "storage_offset", "unfold", "unfold_copy", "Unfold", "Fold", "fold", "sliding_window_view",
    "view", "view_as", "reshape", "expand", "permute", "transpose", "T", "contiguous", "diagonal",
    "empty_strided", "new_empty_strided",
})
SHAPES = ((), (0,), (1,), (5,), (3, 4), (4, 1), (1, 4), (2, 3, 4), (3, 1, 2), (2, 0, 3), (0, 3),
          (2, 3, 0), (0, 0), (1, 1, 1), (2, 1, 3, 2), (2, 2, 2, 2, 2))


def variants(dtype=torch.float32):
    """连续的张量，以及几种视图：转置、切片、起点不为 0、有空隙、长度为 1 的维。"""
    x = randn(4, 5, dtype=dtype)
    y = randn(2, 3, 4, dtype=dtype, seed=1)
    return {
        "连续": x, "转置": x.T, "切片": x[1:, 1:4], "间隔": x[::2, ::2], "列": x[:, 2],
        "一个数": x[2, 3], "三维": y, "换次序": y.permute(2, 0, 1), "长度 1": y[:, 1:2, ::3],
        "加一维": y[:, None, 1],
    }


def check_strides_of(ns):
    mine = ns["strides_of"]
    for shape in SHAPES:
        got = mine(shape)
        assert got == torch.empty(shape).stride(), (shape, got)
        assert type(got) is tuple and all(type(s) is int for s in got)
        assert mine(list(shape)) == mine(torch.Size(shape)) == got
    for bad in ((2, -1), (2.0, 3), (True, 2), ("2",), 3, "34", None, {2, 3}, (None,), ((2, 3),)):
        refuses(mine, bad)


def check_storage_index(ns):
    mine = ns["storage_index"]
    for size, stride, offset in (
        ((3, 4), (4, 1), 0), ((4, 3), (1, 4), 0), ((2, 2), (8, 2), 3), ((), (), 5), ((3,), (0,), 2),
        ((2, 0, 3), (1, 1, 1), 0), ((2, 3, 2), (7, 2, 1), 1), ((1, 1), (99, 99), 0),
    ):
        got = mine(size, stride, offset)
        reference = torch.arange(200).as_strided(size, stride, offset)
        assert got.dtype == torch.int64 and torch.equal(got, reference), (size, stride, offset)
        if offset == 0:
            assert torch.equal(mine(size, stride), reference)
    refuses(mine, (2, 3), (3,))
    refuses(mine, (2,), (3, 1))
    refuses(mine, (2, -3), (3, 1))
    refuses(mine, (2, 3), (-3, 1))
    refuses(mine, (2, 3), (3, 1), -1)
    refuses(mine, (2, 3), (3, 1), 1.0)


def check_measured_layout(ns):
    for dtype in (torch.float64, torch.float32, torch.int16, torch.bool):
        for name, x in variants().items():
            x = (x > 0).to(dtype) if name == "连续" else x
            strides, offset = ns["measured_layout"](x)
            assert offset == x.storage_offset(), name
            for n, s, t in zip(x.shape, strides, x.stride(), strict=True):
                assert n <= 1 or s == t, name
    assert len(ns["measured_layout"](torch.empty(2, 0, 3))[0]) == 3
    assert ns["measured_layout"](torch.zeros(3).expand(2, 3))[0] == (0, 1)


def check_storage_of(ns):
    for dtype in (*TOLERANCE, torch.int64, torch.bool, torch.uint8):
        x = (torch.arange(12).reshape(3, 4) % 5).to(dtype)
        for t in (x, x.T, x[1:, ::2]):
            strip = ns["storage_of"](t)
            assert strip.dtype == dtype and torch.equal(strip, x.flatten())
            strip.zero_()                                      # 是副本，改它不影响 x
            assert x.any()
    x = torch.arange(12.0).reshape(3, 4).requires_grad_()
    t = x.T[1:]
    weight = torch.arange(1.0, 13.0)
    (grad,) = torch.autograd.grad((ns["storage_of"](t) * weight).sum(), x)
    assert torch.equal(grad, torch.tensor([[0.0, 2, 3, 4], [0, 6, 7, 8], [0, 10, 11, 12]]))
    refuses(ns["storage_of"], torch.zeros(3).expand(2, 3))
    refuses(ns["storage_of"], torch.zeros(12).as_strided((4, 3), (1, 1)))


def check_as_strided_view(ns):
    mine, reference = ns["as_strided_view"], torch.as_strided
    layouts = (
        ((3, 3), (1, 1), None), ((3,), (5,), None), ((2, 3), (0, 1), 0), ((), (), 3),
        ((2, 2), (4, 2), 1), ((2, 3, 2), (2, 1, 3), 0), ((2, 0), (1, 1), None),
        ((1, 4), (77, 1), None),
    )
    for dtype, (size, stride, offset) in itertools.product(TOLERANCE, layouts):
        for name in ("连续", "换次序", "切片", "列", "三维", "一个数"):
            base = randn(4, 6, 2, dtype=dtype)

            def view(x, name=name):                            # 在函数里面取视图，梯度回到整条带子
                views = {"连续": x, "换次序": x.permute(2, 0, 1), "切片": x[:2, 1:, :1],
                         "列": x[:, 2], "三维": x[::2, ::3], "一个数": x[1, 1, 1]}
                return views[name]

            same(lambda x: mine(view(x), size, stride, offset),  # noqa: B023
                 lambda x: reference(view(x), size, stride, offset), base)  # noqa: B023
        # x 本身是叶子：梯度的形状与 x 相同，看不到的格子没有梯度
        same(lambda x: mine(x, size, stride, offset),  # noqa: B023
             lambda x: reference(x, size, stride, offset), randn(4, 5, dtype=dtype))  # noqa: B023
    same(lambda x: mine(x, (3, 2), (2, 1)), lambda x: reference(x, (3, 2), (2, 1)), randn(8))
    for x in variants().values():                              # 自己描述自己
        assert torch.equal(mine(x, tuple(x.shape), x.stride(), x.storage_offset()), x)
        assert torch.equal(mine(x, tuple(x.shape), x.stride()), x)
    for dtype in (torch.int64, torch.uint8, torch.bool):
        x = (torch.arange(12) % 3).to(dtype)
        assert torch.equal(mine(x, (4, 3), (1, 2)), reference(x, (4, 3), (1, 2)))
        assert mine(x, (4, 3), (1, 2)).dtype == dtype
    assert mine(torch.empty(0), (0, 3), (3, 1)).shape == (0, 3)
    x = torch.arange(12.0)
    assert torch.equal(mine(x, (2, 6), (6, 1)), x.reshape(2, 6))       # 正好用到最后一格
    refuses(mine, x, (2, 7), (6, 1))                                   # 走出一格
    refuses(mine, x, (3,), (1,), 10)
    refuses(mine, x[4:], (9,), (1,))                                   # 起点算在内
    refuses(mine, x, (3, 2), (1,))
    refuses(mine, x, (3,), (-1,), 5)
    refuses(mine, x, (-3,), (1,))
    refuses(mine, x, (3,), (1,), -1)
    refuses(mine, x, (3.0,), (1,))
    refuses(mine, x, 3, (1,))


CHECKS = {
    "strides_of": check_strides_of, "storage_index": check_storage_index,
    "measured_layout": check_measured_layout, "storage_of": check_storage_of,
    "as_strided_view": check_as_strided_view,
}
BROKEN = [
    ("strides_of", "step *= max(n, 1)", "step *= n"),
    ("strides_of", "for n in reversed(check_counts(shape, \"形状\")):",
     "for n in check_counts(shape, \"形状\"):"),
    ("strides_of", "type(n) is not int or n < 0", "n < 0"),
    ("storage_index", "index[..., None] + s * torch.arange(n)",
     "index[..., None] + n * torch.arange(s)"),
    ("storage_index", "if len(size) != len(stride):", "if len(size) < len(stride):"),
    ("storage_index", "index = torch.tensor(check_counts((offset,), \"起点\")[0])",
     "index = torch.tensor(0)"),
    ("measured_layout", "(x.select(k, 1).data_ptr() - first) // itemsize",
     "(x.select(k, 1).data_ptr() - first)"),
    ("measured_layout", "(first - x.untyped_storage().data_ptr()) // itemsize", "0"),
    ("measured_layout", "if n > 1 else 1  #", "if n > 0 else 1  #"),
    ("storage_of", "return strip.clone().index_put((where,), x)", "return strip.clone()"),
    ("storage_of", "if where.unique().numel() < where.numel():", "if False:"),
    ("as_strided_view", "storage_offset = measured_layout(x)[1]", "storage_offset = 0"),
    ("as_strided_view", "index.max() >= len(strip)", "index.max() > len(strip)"),
    ("as_strided_view", "storage_of(x)\n", "x.flatten()\n"),
]
MUTATIONS = [
    [("if n != 1]", "]"), ("next_s * next_n", "next_s + next_n"), ("return all(", "return any("),
     ("return all(", "return stride[-1:] in ((), (1,)) and all("),
     ("zip(dims, dims[1:])", "zip(dims[1:], dims)")],
    [("(p * W, p, W, 1)", "(p * W, p, p, 1)"), ("(p * W, p, W, 1)", "(p * W, p, 1, W)"),
     ("(p * W, p, W, 1)", "(p * W, p * p, p, 1)"), ("image, (H", "image.detach(), (H"),
     ("(p * W, p, W, 1))", "(p * W, p, W, 1)).contiguous()"),  # 数值都对，却搬了数据
     ("torch.as_strided(image, (H // p, W // p, p, p), (p * W, p, W, 1))",
      "image.reshape(H // p, p, W // p, p).permute(0, 2, 1, 3).contiguous()")],
    [("xx[:, None] + yy", "xx[:, None] + yy[:1]"), ("- 2 * xy", "- xy"), ("- 2 * xy", "+ 2 * xy"),
     ("\"md,md->m\", Y, Y", "\"md,md->m\", Y, Y.detach()")],
]
