"""4.8 节 权重初始化：约定的名字、一致性、改坏的实现和错误答案。"""

import itertools
import math
import warnings

import pytest
import torch
from parity import TOLERANCE, refuses
from torch import nn

NAMES = (
    "fan_in_and_fan_out", "calculate_gain", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "uniform_q",
)
FORBIDDEN = frozenset({
    "init", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_",
    "orthogonal_", "calculate_gain", "_calculate_fan_in_and_fan_out", "_calculate_correct_fan",
    "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal",
    "reset_parameters", "parametrizations",
})
SHAPES = ((5, 3), (3, 5), (4, 4), (1, 7), (7, 1), (6, 2, 3), (8, 4, 3, 3), (2, 3, 2, 2, 2))
NONLINEARITIES = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                  "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu")


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def agree(mine, theirs, shape, dtype, tol=0.0, **options):
    """同样的种子得到同样的数；原地填写，返回同一个张量；叶子张量仍是叶子。"""
    weight = torch.full(shape, 9.0, dtype=dtype, requires_grad=True)
    wanted = theirs(torch.empty(shape, dtype=dtype), **options, generator=seeded())
    assert mine(weight, **options, generator=seeded()) is weight, "应返回同一个张量"
    assert weight.is_leaf and weight.requires_grad
    torch.testing.assert_close(weight.detach(), wanted, rtol=tol, atol=tol)
    # 不给发生器时用全局的随机数
    torch.manual_seed(5)
    mine(weight, **options)
    torch.manual_seed(5)
    torch.testing.assert_close(weight.detach(), theirs(torch.empty_like(wanted), **options),
                               rtol=tol, atol=tol)


def check_fans(ns):
    mine = ns["fan_in_and_fan_out"]
    for shape in (*SHAPES, (0, 4), (3, 0, 2)):
        tensor = torch.empty(shape)
        assert tuple(mine(tensor)) == nn.init._calculate_fan_in_and_fan_out(tensor)
    refuses(mine, torch.empty(3))
    refuses(mine, torch.empty(()))


def check_gain(ns):
    mine, reference = ns["calculate_gain"], nn.init.calculate_gain
    for name in NONLINEARITIES:
        assert mine(name) == pytest.approx(reference(name), rel=1e-12), name
    for slope in (0, 0.0, 0.2, 1, -0.5, math.sqrt(5)):
        assert mine("leaky_relu", slope) == pytest.approx(reference("leaky_relu", slope), rel=1e-12)
        assert mine("relu", slope) == pytest.approx(math.sqrt(2), rel=1e-12)
    refuses(mine, "swish")
    refuses(mine, "ReLU")
    refuses(mine, "leaky_relu", True)
    refuses(mine, "leaky_relu", "0.1")


def check_xavier(name):
    def check(ns):
        mine, reference = ns[name], getattr(nn.init, name)
        for shape, dtype, gain in itertools.product(SHAPES, TOLERANCE, (1.0, 0.3, math.sqrt(2))):
            agree(mine, reference, shape, dtype, gain=gain)
        agree(mine, reference, (4, 6), torch.float32)  # 默认值
        big = mine(torch.empty(400, 100, dtype=torch.float64), generator=seeded())
        assert abs(big.var().item() * 250 - 1) < 0.05 and abs(big.mean()) < 0.01
        if "uniform" in name:
            assert big.abs().max() <= math.sqrt(6 / 500)
        check_common(mine)
        refuses(mine, torch.empty(0))

    return check


def check_kaiming(name):
    def check(ns):
        mine, reference = ns[name], getattr(nn.init, name)
        for shape, dtype in itertools.product(SHAPES, TOLERANCE):
            agree(mine, reference, shape, dtype)
            for mode, nonlinearity in itertools.product(("fan_in", "fan_out", "FAN_IN"),
                                                        NONLINEARITIES):
                agree(mine, reference, shape, dtype, a=0.3, mode=mode, nonlinearity=nonlinearity)
        agree(mine, reference, (6, 9), torch.float32, a=math.sqrt(5))
        big = mine(torch.empty(100, 400, dtype=torch.float64), generator=seeded())
        assert abs(big.var().item() * 200 - 1) < 0.05 and abs(big.mean()) < 0.01
        if "uniform" in name:
            assert big.abs().max() <= math.sqrt(6 / 400)
        check_common(mine)
        refuses(mine, torch.empty(3, 3), mode="fan")
        refuses(mine, torch.empty(3, 3), mode=1)
        refuses(mine, torch.empty(3, 3), nonlinearity="swish")
        refuses(mine, torch.empty(3, 3), a="0.1")

    return check


def check_common(mine):
    """转置的视图、没有元素的张量、维数不够的张量。"""
    W = torch.zeros(5, 3)
    mine(W.T, generator=seeded())
    assert torch.equal(W.T, mine(torch.empty(5, 3).T, generator=seeded())) and (W != 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for shape in ((0, 5), (5, 0), (0, 0), (2, 3, 0)):
            empty = torch.empty(shape)
            assert mine(empty) is empty and empty.shape == shape
    refuses(mine, torch.empty(3))
    refuses(mine, torch.tensor(1.0))


def check_orthogonal(ns):
    mine = ns["orthogonal_"]
    for shape, dtype, gain in itertools.product(SHAPES, TOLERANCE, (1, 1.0, 2.5)):
        tol = TOLERANCE[dtype] * 10
        agree(mine, nn.init.orthogonal_, shape, dtype, tol, gain=gain)
        W = mine(torch.empty(shape, dtype=dtype), gain, seeded()).flatten(1)
        G = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
        torch.testing.assert_close(G, gain**2 * torch.eye(len(G), dtype=dtype), rtol=0, atol=tol)
    check_common(mine)
    g = seeded()
    Q = torch.stack([mine(torch.empty(3, 3), generator=g) for _ in range(2000)])
    assert Q.mean(0).abs().max() < 0.06, "分布有偏"
    assert abs(torch.linalg.det(Q).mean()) < 0.1, "旋转和翻转应各占一半"
    assert (Q.square().mean(0) - 1 / 3).abs().max() < 0.04


def check_uniform_q(ns):
    mine = ns["uniform_q"]
    for shape, dtype in itertools.product(((4, 4), (6, 2), (3, 1), (1, 1)), TOLERANCE):
        A = torch.randn(shape, generator=seeded(), dtype=dtype)
        Q = mine(A)
        R = Q.T @ A
        tol = TOLERANCE[dtype] * 10
        torch.testing.assert_close(Q @ R, A, rtol=tol, atol=tol)
        torch.testing.assert_close(R, R.triu(), rtol=tol, atol=tol)
        assert (R.diagonal() > 0).all(), "R 的对角线应为正"
        assert Q.dtype == dtype
    diagonal = mine(torch.tensor([[-2.0, 0.0], [0.0, 3.0]]))
    torch.testing.assert_close(diagonal, torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))


CHECKS = {
    "fan_in_and_fan_out": check_fans, "calculate_gain": check_gain,
    **{name: check_xavier(name) for name in ("xavier_uniform_", "xavier_normal_")},
    **{name: check_kaiming(name) for name in ("kaiming_uniform_", "kaiming_normal_")},
    "orthogonal_": check_orthogonal, "uniform_q": check_uniform_q,
}
BROKEN = [
    ("fan_in_and_fan_out", "tensor.shape[1] * receptive, tensor.shape[0] * receptive",
     "tensor.shape[0] * receptive, tensor.shape[1] * receptive"),
    ("fan_in_and_fan_out", "math.prod(tensor.shape[2:])", "sum(tensor.shape[2:]) or 1"),
    ("fan_in_and_fan_out", "if tensor.dim() < 2:\n        raise ValueError(f\"权重",
     "if tensor.dim() < 1:\n        raise ValueError(f\"权重"),
    ("calculate_gain", "math.sqrt(2.0 / (1 + slope**2))", "math.sqrt(2.0 / (1 + slope))"),
    ("calculate_gain", "0.01 if param is None", "0.0 if param is None"),
    ("calculate_gain", "isinstance(slope, bool) or ", ""),
    ("xavier_uniform_", "math.sqrt(3.0) * std", "std"),
    ("xavier_uniform_", "sum(fan_in_and_fan_out(tensor))", "2 * fan_in_and_fan_out(tensor)[0]"),
    ("xavier_uniform_", "    with torch.no_grad():\n        return tensor.uniform_",
     "    if True:\n        return tensor.uniform_"),
    ("xavier_normal_", "gain * math.sqrt(2.0 / total)", "gain * math.sqrt(1.0 / total)"),
    ("xavier_normal_", "math.sqrt(2.0 / total)", "(2.0 / total)"),
    ("xavier_normal_", "gain * math.sqrt(2.0", "gain**2 * math.sqrt(2.0"),
    ("kaiming_uniform_", "math.sqrt(3.0) * std", "math.sqrt(6.0) * std"),
    ("kaiming_uniform_", "fan_in if mode.lower()", "fan_out if mode.lower()"),
    ("kaiming_uniform_", "uniform_(-bound, bound, generator=generator)",
     "uniform_(-bound, bound)"),
    ("kaiming_normal_", "/ math.sqrt(fan)", "/ fan"),
    ("kaiming_normal_", "calculate_gain(nonlinearity, a) /", "calculate_gain(nonlinearity) /"),
    ("kaiming_normal_", "tensor.normal_(0.0, std, generator=generator)",
     "(std * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)"),
    ("orthogonal_", "Q * torch.where(R.diagonal() < 0, -1.0, 1.0).to(Q.dtype)", "Q"),
    ("orthogonal_", ".mul_(gain)", ".mul_(gain**2)"),
    ("orthogonal_", "else A.T)", "else A.reshape(A.T.shape))"),
    ("orthogonal_", "normal_(0, 1, generator=generator)", "normal_(0, 1)"),
    ("uniform_q", "R.diagonal() < 0", "R.diagonal() > 0"),
    ("uniform_q", ".to(Q.dtype)", ".to(Q.dtype)[:, None]"),
]
MUTATIONS = [
    [("1 / math.sqrt(second_moment.item())", "1 / second_moment.item()"),
     ("1 / math.sqrt(second_moment.item())", "math.sqrt(second_moment.item())"),
     ("f(z).square() * density", "f(z.abs()).square() * density"),
     (" / math.sqrt(2 * math.pi)", ""),
     ("f(z).square()", "f(z).abs()"),
     ("return 1 /", "m = (f(z) * density).sum() * (z[1] - z[0])\n"
      "    second_moment = second_moment - m**2\n    return 1 /")],
    [("(h @ W.T).std()", "(h @ W.T).var()"), ("(h @ W.T).std()", "W.std()"),
     ("(h @ W.T).std()", "(X @ W.T).std()"), ("h = f(h @ W.T)", "h = h @ W.T"),
     ("        W = W / (h @ W.T).std()\n        h = f(h @ W.T)\n",
      "        z = h @ W.T\n        W = W / z.std()\n        h = f(z)\n")],
]
