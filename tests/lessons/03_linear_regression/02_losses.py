"""3.2 节 损失函数：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools

import torch
from parity import REDUCTIONS, TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")
FORBIDDEN = frozenset({
    "mse_loss", "MSELoss", "l1_loss", "L1Loss", "huber_loss", "HuberLoss",
    "smooth_l1_loss", "SmoothL1Loss",
})


def check_loss(name, **options):
    """options: 参数名 -> 要试的值。随机的点之外，还试转折处：误差为 0、±1 和 ±参数值。"""

    def check(ns):
        mine, reference = ns[name], getattr(F, name)
        settings = [{key: v} for key, values in options.items() for v in values] or [{}]
        for setting, reduction, dtype in itertools.product(settings, REDUCTIONS, TOLERANCE):
            for shape in ((), (5,), (4, 1), (2, 3, 4)):
                same(mine, reference, randn(*shape, dtype=dtype, scale=3),
                     randn(*shape, dtype=dtype, seed=1), reduction=reduction, **setting)
            corner = next(iter(setting.values()), 1.0)
            e = torch.tensor([0, 1, -1, corner, -corner, 1e4, -1e4], dtype=dtype)
            for target in (torch.zeros_like(e), torch.full_like(e, 0.5)):
                same(mine, reference, e, target, reduction=reduction, **setting)
            same(mine, reference, e, e.clone(), reduction=reduction, **setting)
        a, b = randn(6, scale=3), randn(6, seed=1)
        same(mine, reference, a, b)  # 默认值也相同
        refuses(mine, a, b, reduction="average")
        refuses(mine, a[:, None], b)
        for key in options:
            refuses(mine, a, b, **{key: -1.0})

    return check


CHECKS = {
    "mse_loss": check_loss("mse_loss"),
    "l1_loss": check_loss("l1_loss"),
    "huber_loss": check_loss("huber_loss", delta=(0.3, 1.0, 2.5)),
    "smooth_l1_loss": check_loss("smooth_l1_loss", beta=(0.0, 0.3, 1.0, 2.5)),
}
BROKEN = [
    ("mse_loss", "difference(input, target) ** 2", "difference(input, target) ** 2 / 2"),
    ("l1_loss", ".abs(), reduction)", ".abs(), 'mean')"),
    ("huber_loss", "delta / 2", "delta"),
    ("smooth_l1_loss", "if beta == 0", "if beta == -1"),
]
MUTATIONS = [
    [(".clamp(-delta, delta)", ""), ("clamp(-delta, delta)", "clamp(-1, 1)"),
     ("input - target", "target - input")],
    [("/ weight.sum()", "/ len(weight)"), ("weight * losses", "losses")],
]
