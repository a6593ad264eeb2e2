"""2.1 节 张量基础：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same

NAMES = ("broadcast_shapes", "einsum2")
FORBIDDEN = frozenset({
    "einsum", "matmul", "mm", "bmm", "tensordot", "dot", "inner", "outer", "kron",
    "broadcast_tensors", "broadcast_to", "expand", "broadcast_shapes",
})
EQUATIONS = (
    ("i,i->", (3,), (3,)), ("i,j->ij", (3,), (4,)), ("i,j->ji", (3,), (4,)),
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij,ij", (2, 3), (2, 3)), ("ij,j->i", (2, 3), (3,)), ("nij,njk->nik", (2, 3, 4), (2, 4, 5)),
    ("nhtd,nhsd->nhts", (2, 3, 4, 5), (2, 3, 6, 5)), ("ij,kl->", (2, 3), (4, 5)),
    ("ii,i->i", (3, 3), (3,)), ("iij,j->i", (3, 3, 2), (2,)), ("ii,->", (3, 3), ()),
    ("iii,i->", (2, 2, 2), (2,)), ("ba,a", (2, 3), (3,)), ("Ba,aC", (2, 3), (3, 4)),
    (" i j , j k -> i k ", (2, 3), (3, 4)), ("...i,...i->...", (2, 3, 4), (3, 4)),
    ("...ij,jk->...ik", (5, 2, 3), (3, 4)), ("b...i,...ij->b...j", (2, 7, 3), (7, 3, 4)),
    ("...i,j...", (2, 3), (4, 2)), ("i...,i", (3, 2), (3,)), ("ij,jk->ik", (2, 1), (3, 4)),
    ("ij,jk->ik", (0, 3), (3, 4)), ("...,...->...", (2, 1, 3), (4, 1)),
    ("...i,i->i", (2, 3), (3,)), ("...i,...j->", (2, 3), (2, 4)),
)


def check_broadcast_shapes(ns):
    mine = ns["broadcast_shapes"]
    sizes = [(), (1,), (3,), (0,), (1, 3), (2, 1), (2, 3), (4, 1, 1), (0, 3), (4, 2, 3)]
    for shapes in itertools.product(sizes, repeat=2):
        try:
            want = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            refuses(mine, *shapes)
            continue
        got = mine(*shapes)
        assert got == want and isinstance(got, torch.Size), shapes
    assert mine((5,), (1,), (4, 1)) == (4, 5) and mine() == () and mine(3, (2, 1)) == (2, 3)
    refuses(mine, (2, -1), (2, 1))


def check_einsum2(ns):
    mine = ns["einsum2"]
    for dtype, (eq, first, second) in itertools.product(TOLERANCE, EQUATIONS):
        same(lambda a, b: mine(eq, a, b), lambda a, b: torch.einsum(eq, a, b),  # noqa: B023
             randn(*first, dtype=dtype), randn(*second, dtype=dtype, seed=1))
    A, v = randn(2, 3), randn(3)
    for eq, a, b in (("ij,jk", A, v), ("ij", A, v), ("i,j,k", v, v), ("ij,j->x", A, v),
                     ("ij,j->ii", A, v), ("ij,i->j", A, v), ("i1,i", A, v), ("ii,i", A, v),
                     ("i,j->k", v, v), ("中,i", v, v)):
        with pytest.raises(ValueError, match="[\u4e00-\u9fff]"):
            mine(eq, a, b)


CHECKS = {"broadcast_shapes": check_broadcast_shapes, "einsum2": check_einsum2}
BROKEN = [
    ("broadcast_shapes", "size != 1 and result[-i]", "result[-i]"),
    ("broadcast_shapes", "size if result[-i] == 1 else result[-i]", "max(size, result[-i])"),
    ("broadcast_shapes", "if size < 0", "if False"),
    ("einsum2", "counts[n] == 1", "counts[n] >= 1"),
    ("einsum2", "[*before, *(dots if has_dots else []), *after]", "[*before, *after]"),
    ("einsum2", "return dots + sorted(", "return sorted("),
    ("einsum2", "while names.count(name) > 1:", "if names.count(name) > 2:"),
]
MUTATIONS = [
    [("sum(dim=2)", "sum(dim=1)"), (".sqrt()", ""), ("X[:, None, :] - Y[None, :, :]",
                                                    "X[None, :, :] - Y[:, None, :]")],
    [(".clamp(min=1)", ""), (".clamp(min=1)", ".clamp(min=2)"), ("/ counts", "/ len(y) * counts")],
]
