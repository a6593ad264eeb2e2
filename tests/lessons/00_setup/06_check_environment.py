"""0.6 节 环境自检：约定的名字、一致性、改坏的实现和错误答案。"""

import torch
from parity import randn, refuses
from torch.utils.flop_counter import FlopCounterMode

NAMES = ("matmul_flops", "matmul_loops")
FORBIDDEN = frozenset({"flop_counter", "matmul", "mm"})


def check_matmul_flops(ns):
    for m, k, n in ((1, 1, 1), (2, 3, 4), (5, 1, 7), (64, 784, 10)):
        with FlopCounterMode(display=False) as counter:
            torch.ones(m, k) @ torch.ones(k, n)
        assert ns["matmul_flops"](m, k, n) == counter.get_total_flops()
    assert ns["matmul_flops"](0, 3, 4) == 0
    for bad in ((-1, 2, 2), (2, 2.0, 2), (2, 2, True)):
        refuses(ns["matmul_flops"], *bad)


def check_matmul_loops(ns):
    for m, k, n in ((1, 1, 1), (2, 3, 4), (4, 5, 1)):
        A, B = randn(m, k, dtype=torch.float64), randn(k, n, dtype=torch.float64, seed=1)
        got = torch.tensor(ns["matmul_loops"](A.tolist(), B.tolist()), dtype=torch.float64)
        torch.testing.assert_close(got, A @ B)


CHECKS = {"matmul_flops": check_matmul_flops, "matmul_loops": check_matmul_loops}
BROKEN = [
    ("matmul_flops", "2 * m * k * n", "m * k * n"),
    ("matmul_flops", "or size < 0", ""),
    ("matmul_loops", "B[p][j]", "B[j][p]"),
    ("matmul_loops", "+= A[i][p]", "= A[i][p]"),
]
MUTATIONS = [
    [("2 * batch", "batch"), ("batch * out_features if bias", "out_features if bias"),
     ("if bias else 0", "")],
    [("sorted(seconds[1:])", "sorted(seconds)"), ("sorted(seconds[1:])", "seconds[1:]"),
     ("(values[half - 1] + values[half]) / 2", "values[half]"), ("> 2 * middle", ">= 2 * middle")],
]
