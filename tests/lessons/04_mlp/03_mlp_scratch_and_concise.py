"""4.3 节 多层感知机：约定、一致性、改坏的实现和错误答案。"""

import copy
import itertools
import math

import torch
from parity import TOLERANCE, randn, refuses, same
from torch import nn
from torch.nn import functional as F

NAMES = ("rectify", "flatten_rows", "layer_sizes", "AffineLayer", "MLP", "hidden_values")
FORBIDDEN = frozenset({
    "Linear", "Bilinear", "LazyLinear", "ReLU", "ReLU6", "LeakyReLU", "Flatten", "linear",
    "bilinear", "relu", "relu_", "relu6", "leaky_relu", "threshold", "flatten", "ravel", "addmm",
    "baddbmm", "kaiming_uniform_", "Sequential",
})
# concise_mlp 是有意用现成零件写的对照物，放在普通的代码格里，不算从零实现


def builtin(sizes, **options):
    """nn.Sequential 写的同样的模型，sizes 例如 [784, 256, 10]。"""
    layers = [nn.Flatten()]
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out, **options), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def scratch(ns, sizes, **options):
    hidden = sizes[1:-1]
    hidden = hidden[0] if len(hidden) == 1 else hidden
    return ns["MLP"](sizes[0], hidden, sizes[-1], **options)


def equal_runs(a, b, X):
    """输出、对输入的梯度、每个参数的梯度都相等，输入不被改动。"""
    results = []
    for model in (a, b):
        model.zero_grad()
        leaf = X.clone().requires_grad_()
        out = model(leaf)
        assert torch.equal(leaf.detach(), X), "输入被改动了"
        weight = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape)
        (out * weight).sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append({"out": out.detach(), "X": leaf.grad, **grads})
    mine, reference = results
    assert list(mine) == list(reference)
    tol = TOLERANCE[X.dtype]
    for name, value in reference.items():
        torch.testing.assert_close(mine[name], value, rtol=tol, atol=tol, msg=f"{name} 不同")


def check_rectify(ns):
    special = torch.tensor([0.0, -0.0, 1.5, -1.5, float("inf"), -float("inf"), 1e-30, -1e-30])
    for x in (special, randn(4), randn(3, 5), randn(2, 3, 4, dtype=torch.float64), randn(0, 3)):
        same(ns["rectify"], F.relu, x)
    assert ns["rectify"](torch.tensor([float("nan")])).isnan().all()
    assert ns["rectify"](special) is not special


def check_flatten_rows(ns):
    flatten_rows = ns["flatten_rows"]
    for shape in ((1, 1, 28, 28), (4, 3, 5, 7), (3, 6), (1, 1), (0, 2, 3), (2, 2, 1, 3, 2)):
        for dtype in (torch.float32, torch.float64):
            same(lambda X: flatten_rows(X, math.prod(X.shape[1:])), nn.Flatten(),
                 randn(*shape, dtype=dtype))
    sideways = randn(3, 4, 5).transpose(1, 2)                  # 内存不连续
    same(lambda X: flatten_rows(X, 20), nn.Flatten(), sideways)
    for bad, size in ((randn(3, 4), 5), (randn(3, 6), 5), (randn(3, 2, 4), 4),
                      (randn(2, 1, 28, 27), 784), (randn(784), 784),
                      (torch.tensor(1.0), 1), (torch.zeros(2, 4, dtype=torch.uint8), 4),
                      (torch.zeros(2, 4, dtype=torch.int64), 4)):
        refuses(flatten_rows, bad, size)


def check_layer_sizes(ns):
    layer_sizes = ns["layer_sizes"]
    assert layer_sizes(784, 256, 10) == [784, 256, 10]
    assert layer_sizes(3, (5, 4), 2) == [3, 5, 4, 2] == layer_sizes(3, [5, 4], 2)
    assert layer_sizes(3, (), 2) == [3, 2]
    for bad in ((0, 5, 2), (3, 0, 2), (3, 5, 0), (-1, 5, 2), (3, -5, 2), (3, 5, -2), (3, 5.0, 2),
                (3, True, 2), (3, (5, 0), 2), (3, (5, 1.5), 2), ("3", 5, 2), (3, 5, 2.0)):
        refuses(layer_sizes, *bad)
        refuses(ns["MLP"], *bad)


def check_affinelayer(ns):
    for sizes, dtype in itertools.product(((1, 1), (5, 3), (3, 5), (784, 10)),
                                          (torch.float32, torch.float64)):
        torch.manual_seed(5)
        mine = ns["AffineLayer"](*sizes, dtype=dtype)
        torch.manual_seed(5)
        theirs = nn.Linear(*sizes, dtype=dtype)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-12, atol=1e-12)
        for N in (1, 2, 7):
            equal_runs(mine, theirs, randn(N, sizes[0], dtype=dtype))


SIZES = ([784, 256, 10], [784, 10], [1, 1, 1], [6, 5, 1], [1, 7, 2], [12, 8, 4, 3],
         [105, 9, 8, 7, 2])
SHAPES = {784: (1, 28, 28), 1: (1,), 6: (2, 3), 12: (3, 2, 2), 105: (3, 5, 7)}


def check_mlp(ns):
    default = ns["MLP"]()
    assert [tuple(p.shape) for p in default.parameters()] == [
        (256, 784), (256,), (10, 256), (10,)]
    for sizes, dtype in itertools.product(SIZES, (torch.float32, torch.float64)):
        torch.manual_seed(3)
        mine = scratch(ns, sizes, dtype=dtype)
        after = torch.rand(1)
        torch.manual_seed(3)
        theirs = builtin(sizes, dtype=dtype)
        assert torch.equal(after, torch.rand(1)), "用掉的随机数个数不同"
        mine_state, state = mine.state_dict(), theirs.state_dict()
        assert list(mine_state) == list(state)
        assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        for name, value in state.items():                      # 同一个种子，同样的权重
            assert mine_state[name].dtype == dtype and mine_state[name].shape == value.shape
            torch.testing.assert_close(mine_state[name], value, rtol=1e-12, atol=1e-12)
        bound = sizes[0] ** -0.5
        assert mine_state["1.weight"].abs().max() <= bound * (1 + 1e-6)
        for N in (1, 5):
            equal_runs(mine, theirs, randn(N, *SHAPES[sizes[0]], dtype=dtype))
        other = builtin(sizes, dtype=dtype)
        mine.load_state_dict(other.state_dict())               # 两个方向都能装
        equal_runs(mine, other, randn(3, *SHAPES[sizes[0]], dtype=dtype, scale=3.0))
        back = builtin(sizes, dtype=dtype)
        back.load_state_dict(mine.state_dict())
        equal_runs(mine, back, randn(3, *SHAPES[sizes[0]], dtype=dtype))
    check_mlp_life(ns)


def check_mlp_life(ns):
    """搬家、复制、0 个样本、坏的输入、训练几步。"""
    model = ns["MLP"](6, 5, 2)
    assert model(torch.zeros(0, 2, 3)).shape == (0, 2)
    assert next(ns["MLP"](6, 5, 2, device="meta").parameters()).device.type == "meta"
    assert {p.dtype for p in copy.deepcopy(model).double().parameters()} == {torch.float64}
    for bad in (randn(4, 5), randn(4, 7), randn(4, 2, 4), randn(6),
                torch.zeros(4, 6, dtype=torch.int64)):
        refuses(model, bad)
    torch.manual_seed(0)
    mine = ns["MLP"](6, 16, 3, dtype=torch.float64)
    torch.manual_seed(0)
    theirs = builtin([6, 16, 3], dtype=torch.float64)
    X, y = randn(40, 6, dtype=torch.float64), torch.arange(40) % 3
    for _ in range(50):
        for net in (mine, theirs):
            net.zero_grad()
            F.cross_entropy(net(X), y).backward()
            ns["sgd"](net.parameters(), 0.3)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-9, atol=1e-9)


def check_hidden_values(ns):
    for sizes in ([784, 20, 10], [6, 5, 1], [12, 8, 4, 3]):
        mine, theirs = scratch(ns, sizes), builtin(sizes)
        theirs.load_state_dict(mine.state_dict())
        X = randn(4, *SHAPES[sizes[0]])
        H = ns["hidden_values"](mine, X)
        assert not H.requires_grad
        torch.testing.assert_close(H, theirs[:3](X).detach(), rtol=2e-5, atol=2e-5)


CHECKS = {
    "rectify": check_rectify, "flatten_rows": check_flatten_rows,
    "layer_sizes": check_layer_sizes, "AffineLayer": check_affinelayer, "MLP": check_mlp,
    "hidden_values": check_hidden_values,
}
BROKEN = [
    ("rectify", "Z.masked_fill(Z <= 0, 0.0)", "Z.masked_fill(Z < 0, 0.0)"),  # 0 处的导数是 1
    ("rectify", "Z.masked_fill(Z <= 0, 0.0)", "Z * (Z > 0)"),             # −inf 变成 nan
    ("rectify", "Z.masked_fill(Z <= 0, 0.0)", "Z.abs()"),
    ("flatten_rows", "X.reshape(len(X), size)", "X.squeeze().reshape(-1, size)[:1]"),
    ("flatten_rows", "X.reshape(len(X), size)", "X.transpose(1, -1).reshape(len(X), size)"),
    ("flatten_rows", "if size != num_features", "if size < num_features"),
    ("flatten_rows", "if not X.is_floating_point()", "if False"),
    ("layer_sizes", "size < 1", "size < 0"),
    ("layer_sizes", "isinstance(size, bool) or ", ""),
    ("layer_sizes", "[num_inputs, *hidden, num_outputs]", "[num_inputs, *hidden[:1], num_outputs]"),
    ("AffineLayer", "1 / math.sqrt(in_features)", "1 / math.sqrt(out_features)"),
    ("AffineLayer", "X @ self.weight.T + self.bias", "X @ self.weight.T"),
    ("AffineLayer", "self.bias.uniform_(-bound, bound)", "self.bias.zero_()"),
    ("MLP", "str(2 * i + 1)", "str(i)"),
    ("MLP", "return output_layer(H)", "return rectify(output_layer(H))"),
    ("MLP", "H = rectify(layer(H))", "H = layer(H)"),
    ("MLP", "AffineLayer(fan_in, fan_out, device, dtype)", "AffineLayer(fan_in, fan_out)"),
    ("hidden_values", "rectify(next(model.children())", "(next(model.children())"),
    ("hidden_values", "with torch.no_grad()", "with torch.enable_grad()"),
]
MUTATIONS = [
    [
        ("[0.0, 1.0], [0.0, -1.0]]", "[0.0, 1.0], [0.0, 1.0]]"),
        ("[[1.0, 1.0, -1.0]]", "[[1.0, 1.0, 0.0]]"),                     # 忘了 b 可能是负数
        ("[[1.0, -1.0],", "[[-1.0, 1.0],"),                              # 2b − a
        ("[[1.0, 1.0, -1.0]]", "[[-1.0, 1.0, -1.0]]"),                   # 最小值
        ("return W1, torch.zeros(3), W2, torch.zeros(1)",                # b = ReLU(b + 1000) − 1000
         "return W1[:2], torch.tensor([0.0, 1000.0]), W2[:, :2], torch.tensor([-1000.0])"),
    ],
    [
        ('moved["1.bias"] = state["1.bias"][order]', 'moved["1.bias"] = state["1.bias"]'),
        ('state["3.weight"][:, order]', 'state["3.weight"]'),
        ('state["3.weight"][:, order]', 'state["3.weight"][:, order.argsort()]'),
        ('state["1.weight"][order]', 'state["1.weight"][order.argsort()]'),
        ("moved = dict(state)", "moved = state"),                        # 改动了传进来的字典
    ],
]
