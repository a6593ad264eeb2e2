"""4.1 节 激活函数：九种激活函数与 PyTorch 一致，改坏的实现和错误答案。"""

import itertools

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same
from torch.nn import functional as F

NAMES = ("sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "softplus")
FORBIDDEN = frozenset({
    *NAMES, *(f"{name}_" for name in NAMES), "logsigmoid", "logaddexp", "logit", "expit", "mish",
    "celu", "selu", "threshold", "hardtanh", "ReLU", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU",
    "Sigmoid", "Tanh", "Softplus", "rrelu", "relu6", "glu",
})
SHAPES = ((), (7,), (3, 5), (2, 3, 4), (0, 3))
EDGES = (-1e4, -100.0, -20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0, 21.0, 100.0, 1e4)
OPTIONS = {
    "leaky_relu": [{"negative_slope": s} for s in (0.0, 0.3, -0.5, 2.0)],
    "elu": [{"alpha": a} for a in (0.5, 2.0)],
    "gelu": [{"approximate": a} for a in ("none", "tanh")],
    "softplus": [{"beta": b, "threshold": t} for b in (0.5, 3.0) for t in (5.0, 20.0)],
}


def check_activation(name):
    def check(ns):
        mine, reference = ns[name], getattr(F, name)
        for dtype, options in itertools.product(TOLERANCE, [{}, *OPTIONS.get(name, [])]):
            for shape, scale in itertools.product(SHAPES, (1.0, 10.0)):
                same(mine, reference, randn(*shape, dtype=dtype, scale=scale), **options)
            same(mine, reference, torch.tensor(EDGES, dtype=dtype), **options)
        if name not in ("softplus", "silu", "gelu"):  # 这几个在无穷处有 0·∞ 的约定，不比较
            infinite = torch.tensor([float("inf"), float("-inf")])
            assert torch.equal(mine(infinite), reference(infinite))
        assert mine(torch.tensor([float("nan")])).isnan().all(), "nan 应原样传出"
        for bad in (torch.tensor([1, 2]), [1.0, 2.0], torch.tensor([True])):
            with pytest.raises(TypeError, match="浮点"):
                mine(bad)

    return check


def check_small(name):
    """0 附近的相对精度：绝对误差看不出来的错误。"""
    def check(ns):
        check_activation(name)(ns)
        x = torch.tensor([1e-6, -1e-6, 3e-8])
        torch.testing.assert_close(ns[name](x), getattr(F, name)(x), rtol=1e-5, atol=0)

    return check


def check_prelu(ns):
    mine, reference = ns["prelu"], F.prelu
    for dtype in TOLERANCE:
        for shape, count in itertools.product(((4,), (3, 5), (2, 5, 4), (2, 5, 3, 4)), (1, 5)):
            if count == 1 or len(shape) > 1:
                same(mine, reference, randn(*shape, dtype=dtype), randn(count, dtype=dtype))
        same(mine, reference, torch.tensor(EDGES, dtype=dtype), randn(1, dtype=dtype))
    same(mine, reference, randn(3, 2), torch.tensor(0.25))  # 没有维度的 weight
    for shape, count in (((3, 5), (3,)), ((5,), (5,)), ((3, 5), (5, 1))):
        refuses(mine, randn(*shape), randn(*count))
    with pytest.raises(TypeError, match="浮点"):
        mine(torch.tensor([1]), torch.tensor([0.1]))


def check_gelu(ns):
    check_activation("gelu")(ns)
    refuses(ns["gelu"], randn(3), approximate="fast")


def check_softplus(ns):
    check_activation("softplus")(ns)
    refuses(ns["softplus"], randn(3), beta=0)


CHECKS = {name: check_activation(name) for name in NAMES} | {
    "tanh": check_small("tanh"), "prelu": check_prelu, "gelu": check_gelu,
    "softplus": check_softplus,
}
BROKEN = [
    ("sigmoid", "torch.exp(torch.where(input < 0, input, 0.0))", "torch.exp(input)"),
    ("sigmoid", "torch.exp(-torch.where(input < 0, 0.0, input))", "torch.exp(-input.abs())"),
    ("tanh", "t = torch.expm1(-2 * torch.where(input < 0, 0.0, input))",
     "t = torch.exp(-2 * torch.where(input < 0, 0.0, input)) - 1"),
    ("tanh", "s / (s + 2)", "s / (s - 2)"),
    ("relu", "input <= 0", "input < 0"),
    ("relu", "torch.where(input <= 0, torch.zeros_like(input), input)", "input * (input > 0)"),
    ("leaky_relu", "torch.where(input > 0, input, negative", "torch.maximum(input, negative"),
    ("leaky_relu", "negative_slope: float = 0.01", "negative_slope: float = 0.1"),
    ("prelu", "reshape(-1, *[1] * (input.dim() - 2))", "reshape(*[1] * (input.dim() - 1), -1)"),
    ("prelu", "weight * input)", "weight.detach() * input)"),
    ("elu", "torch.expm1(torch.where(input > 0, 0.0, input))", "torch.expm1(input)"),
    ("elu", "left = alpha * torch", "left = torch"),
    ("gelu", "0.044715 * input", "0.44715 * input"),
    ("gelu", "input / 2**0.5", "input"),
    ("silu", "input * sigmoid(input)", "input * sigmoid(2 * input)"),
    ("silu", "return input * sigmoid(input)", "return sigmoid(input)"),
    ("softplus", "torch.where(scaled > threshold, 0.0, scaled)", "scaled"),
    ("softplus", "0.0, scaled))) / beta", "0.0, scaled)))"),
]
MUTATIONS = [
    [("input * tanh(softplus(input))", "tanh(softplus(input))"),
     ("input * tanh(softplus(input))", "input * tanh(sigmoid(input))"),
     ("tanh(softplus(input))", "tanh(torch.log(1 + torch.exp(input)))")],
    [("return a * sigmoid(b)", "return b * sigmoid(a)"), ("dim=dim", "dim=-1"),
     ("return a * sigmoid(b)", "return sigmoid(a) * sigmoid(b)"),
     ("if input.shape[dim] % 2:", "if False:"), ("raise ValueError(", "raise IndexError("),
     ("input.chunk(2, dim=dim)",
      "input.unflatten(dim, (-1, 2)).unbind(dim if dim < 0 else dim + 1)")],
]
