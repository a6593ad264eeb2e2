"""0.5 节 Python 实用技巧：约定的名字、一致性、改坏的实现和错误答案。"""

import time

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same

NAMES = ("chunks", "Stopwatch", "timed", "distances_loop", "distances")
FORBIDDEN = frozenset({"split", "chunk", "vector_norm", "norm", "hypot", "Timer"})


def check_chunks(ns):
    for n, size in ((0, 3), (1, 1), (7, 3), (6, 3), (4, 9)):
        assert [*ns["chunks"](list(range(n)), size)] == [
            list(range(n))[i : i + size] for i in range(0, n, size)
        ]
    X = randn(7, 2)
    for mine, theirs in zip(ns["chunks"](X, 3), X.split(3), strict=True):
        assert torch.equal(mine, theirs)
    assert "".join(ns["chunks"]("深度学习", 3)) == "深度学习"
    for bad in (0, -1, 2.0, True):
        refuses(ns["chunks"], [1, 2], bad)


def check_stopwatch(ns):
    with ns["Stopwatch"]() as watch:
        time.sleep(0.02)
    assert 0.015 < watch.seconds < 5
    watch = ns["Stopwatch"]()
    with pytest.raises(KeyError), watch:
        time.sleep(0.02)
        raise KeyError("x")
    assert watch.seconds > 0.015


def check_timed(ns):
    @ns["timed"]
    def add(a, *, b=1):
        """加法。"""
        time.sleep(0.01)
        return a + b

    assert (add.calls, add.seconds) == (0, 0.0)
    assert add(2) == 3 and add(2, b=5) == 7
    assert add.calls == 2 and 0.015 < add.seconds < 5
    assert add.__name__ == "add" and add.__doc__ == "加法。"


def check_distances_loop(ns):
    points = randn(9, 2, dtype=torch.float64)
    got = torch.tensor(ns["distances_loop"](points.tolist()), dtype=torch.float64)
    torch.testing.assert_close(got, torch.linalg.vector_norm(points, dim=1))


def check_distances(ns):
    for dtype in TOLERANCE:
        for n in (1, 6):
            same(ns["distances"], lambda p: torch.linalg.vector_norm(p, dim=1),
                 randn(n, 2, dtype=dtype))


CHECKS = {
    "chunks": check_chunks, "Stopwatch": check_stopwatch, "timed": check_timed,
    "distances_loop": check_distances_loop, "distances": check_distances,
}
BROKEN = [
    ("chunks", "range(0, len(items), size)", "range(0, len(items) - size + 1, size)"),
    ("chunks", "or size < 1", ""),
    ("Stopwatch", "return False", "return True"),
    ("timed", "    @functools.wraps(function)  # 保留原来的名字和说明\n", ""),
    ("timed", "wrapper.calls += 1", "wrapper.calls = 1"),
    ("distances_loop", "** 0.5", ""),
    ("distances", "dim=1", "dim=0"),
]
MUTATIONS = [
    [("if i >= k:", "if i > k:"), ("min(i + 1, k)", "k"), ("values[i - k]", "values[i - k + 1]")],
    [("flatten(value, name)", "flatten(value, key)"), ('f"{prefix}.{key}"', 'f"{prefix}{key}"'),
     ("result |= flatten(value, name)", "result = flatten(value, name)")],
]
