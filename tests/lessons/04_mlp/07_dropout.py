"""4.7 节 Dropout：均值、比例、评估模式，改坏的实现和错误答案。"""

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same
from torch import nn
from torch.nn import functional as F

NAMES = ("dropout", "Dropout")
FORBIDDEN = frozenset({
    "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
    "feature_alpha_dropout", "native_dropout", "Dropout1d", "Dropout2d", "AlphaDropout",
})


def check_random(function, p, shape, dtype):
    """零的比例、剩余的值、逐个独立、梯度与输出成比例。"""
    x = randn(*shape, dtype=dtype).abs() + 1
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    assert y.shape == x.shape and y.dtype == dtype and torch.equal(leaf.detach(), x)
    zero = y == 0
    n = x.numel()
    error = 6 * (p * (1 - p) / n) ** 0.5
    assert abs(zero.double().mean().item() - p) < error, "零的比例不对"
    kept = y.detach()[~zero]
    torch.testing.assert_close(kept, x[~zero] / (1 - p))
    (grad,) = torch.autograd.grad(y.sum(), leaf)
    torch.testing.assert_close(grad * x, y.detach())
    for dim in range(x.dim() if x.dim() > 1 else 0):  # 不能整行、整列一起关掉
        share = zero.double().movedim(dim, 0).flatten(1).mean(1)
        spread = (share - p).abs().max().item()
        assert spread < 7 * (p * (1 - p) / (n / x.shape[dim])) ** 0.5, "有整排单元一起关掉"
    assert not torch.equal(function(x) == 0, function(x) == 0), "每次应重新抽"


def check_dropout(ns):
    torch.manual_seed(0)
    mine = ns["dropout"]
    for dtype in TOLERANCE:
        for p in (0.1, 0.5, 0.9):
            for shape in ((40_000,), (200, 300), (20, 30, 100)):
                check_random(lambda t: mine(t, p), p, shape, dtype)  # noqa: B023
        for p, training in ((0.5, False), (0.0, True), (1.0, True), (1.0, False), (0.0, False)):
            for shape in ((), (3,), (2, 3, 4), (0, 3)):
                same(lambda t: mine(t, p, training),  # noqa: B023
                     lambda t: F.dropout(t, p, training), randn(*shape, dtype=dtype))  # noqa: B023
    check_random(mine, 0.5, (200, 300), torch.float32)  # 默认值
    assert mine(torch.arange(3), training=False).dtype == torch.int64
    for p in (-0.1, 1.1, float("nan")):
        refuses(mine, randn(3), p)
        refuses(mine, randn(3), p, training=False)
    with pytest.raises(TypeError, match="浮点"):
        mine(torch.arange(3))


def check_module(ns):
    torch.manual_seed(0)
    layer = ns["Dropout"](0.3)
    assert isinstance(layer, nn.Module) and layer.p == 0.3 and ns["Dropout"]().p == 0.5
    assert not list(layer.state_dict())
    check_random(layer, 0.3, (200, 300), torch.float32)
    x = randn(5, 4)
    assert torch.equal(layer.eval()(x), x)
    check_random(layer.train(), 0.3, (200, 300), torch.float32)
    assert repr(layer) == "Dropout(p=0.3)"
    theirs = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.3), nn.Linear(3, 2)).eval()
    mine = nn.Sequential(nn.Linear(4, 3), layer, nn.Linear(3, 2)).eval()
    mine.load_state_dict(theirs.state_dict())
    same(mine, theirs, x)
    refuses(ns["Dropout"], 1.5)
    refuses(ns["Dropout"], -0.5)


CHECKS = {"dropout": check_dropout, "Dropout": check_module}
BROKEN = [
    ("dropout", "(keep / (1 - p))", "keep"),
    ("dropout", "(keep / (1 - p))", "(keep / p)"),
    ("dropout", ">= p", "< p"),
    ("dropout", "if not training or p == 0", "if p == 0"),
    ("dropout", "torch.rand(input.shape,", "torch.rand(input.shape[-1:],"),
    ("dropout", "    if p == 1:\n        return input * 0.0  # 除以 1 − p 会变成 nan\n", ""),
    ("Dropout", "self.p, self.training)", "self.p)"),
    ("Dropout", "self.p = p", "self.p = 0.5"),
]
MUTATIONS = [
    [("entropy(probs.mean(0))", "entropy(probs[0])"),
     ("return total - average", "return total"), ("return total - average", "return average"),
     ("entropy(probs).mean(0)", "entropy(probs).sum(0)")],
    [(" / (1 - p) + bias", " + bias"), (" / (1 - p) + bias", " / p + bias"),
     ("keep, weight, x) / (1 - p) + bias", "keep, weight, x) / (1 - p)"),
     ('"noi,oi,ni->no", keep, weight, x)', '"oi,oi,ni->no", keep[0], weight, x)')],
]
