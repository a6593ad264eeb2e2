"""3.5 节 softmax 回归：从零实现：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import torch
from parity import REDUCTIONS, TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("softmax", "log_softmax", "cross_entropy")
FORBIDDEN = frozenset({
    "softmax", "log_softmax", "softmin", "gumbel_softmax", "_softmax", "_log_softmax",
    "logsumexp", "logaddexp", "Softmax", "LogSoftmax", "Softmin", "cross_entropy",
    "CrossEntropyLoss", "nll_loss", "NLLLoss", "Categorical", "kl_div", "KLDivLoss",
})


def check_softmax(name):
    def check(ns):
        mine, reference = ns[name], getattr(F, name)
        for dtype in TOLERANCE:
            for shape, dims in (((4,), (0, -1)), ((3, 5), (0, 1, -1)), ((2, 3, 4), (0, 1, 2, -2))):
                for dim, scale in itertools.product(dims, (1.0, 30.0, 1e4)):
                    same(lambda x: mine(x, dim), lambda x: reference(x, dim=dim),  # noqa: B023
                         randn(*shape, dtype=dtype, scale=scale))
            extreme = torch.tensor([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype=dtype)
            same(lambda x: mine(x, 1), lambda x: reference(x, dim=1), extreme)

    return check


def check_cross_entropy(ns):
    mine, reference = ns["cross_entropy"], F.cross_entropy
    g = torch.Generator().manual_seed(0)
    shapes = (
        ((5,), ()), ((6, 4), (6,)), ((1, 3), (1,)), ((2, 5, 3), (2, 3)), ((2, 5, 3, 4), (2, 3, 4)),
    )
    for (shape, target_shape), dtype, reduction in itertools.product(shapes, TOLERANCE, REDUCTIONS):
        C = shape[0] if len(shape) == 1 else shape[1]
        target = torch.randint(C, target_shape, generator=g)
        for scale in (1.0, 1e4):
            same(mine, reference, randn(*shape, dtype=dtype, scale=scale), target,
                 reduction=reduction)
        if target.dim():
            some = target.clone()
            some.view(-1)[0] = -100
            same(mine, reference, randn(*shape, dtype=dtype), some, reduction=reduction)
            same(mine, reference, randn(*shape, dtype=dtype), target, reduction=reduction,
                 ignore_index=1)
            # 全部忽略：平均值是 nan，其余是 0
            all_ignored = torch.full_like(target, -100)
            args = randn(*shape, dtype=dtype), all_ignored
            torch.testing.assert_close(mine(*args, reduction=reduction),
                                       reference(*args, reduction=reduction), equal_nan=True)
    same(mine, reference, randn(6, 4), torch.tensor([0, 1, 2, 3, 0, -100]))  # 默认值也相同
    refuses(mine, randn(6, 4), torch.zeros(6, dtype=torch.int64), reduction="average")
    refuses(mine, randn(6, 4), torch.zeros(5, dtype=torch.int64))
    refuses(mine, randn(6, 4), torch.full((6,), 4))


CHECKS = {
    "softmax": check_softmax("softmax"), "log_softmax": check_softmax("log_softmax"),
    "cross_entropy": check_cross_entropy,
}
BROKEN = [
    ("softmax", "torch.exp(x - m)", "torch.exp(x)"),
    ("log_softmax", "shifted = x - m", "shifted = x"),
    ("cross_entropy", "losses.sum() / valid.sum()", "losses.mean()"),
    ("cross_entropy", "dim = 1 if input.dim() > 1 else 0", "dim = -1"),
]
MUTATIONS = [
    [("logits / T", "logits * T"), ("scaled - scaled.amax(1, keepdim=True)", "scaled"),
     ("return winners / winners.sum(1, keepdim=True)", "return winners"),
     ("exp.sum(1,", "exp.sum(0,")],
    [("delta = delta / len(y)", "pass"), ("delta.sum(0)", "delta.mean(0)"),
     ("    delta[torch.arange(len(y)), y] -= 1\n", "")],
]
