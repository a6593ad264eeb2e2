"""4.4 节 前向传播与反向传播：约定、一致性、改坏的实现和错误答案。"""

import itertools

import pytest
import torch
from parity import TOLERANCE, randn, refuses
from torch import nn
from torch.nn import functional as F

NAMES = (
    "forward", "backward", "mean_cross_entropy", "params_to_model", "model_to_params",
    "checkpointed_gradients", "ActivationMeter", "random_mlp_params",
)
FORBIDDEN = frozenset({
    "autograd", "backward", "grad", "requires_grad_", "retain_grad", "func", "vjp", "jvp",
    "functional_call", "softmax", "log_softmax", "logsumexp", "cross_entropy", "CrossEntropyLoss",
    "nll_loss", "NLLLoss", "linear", "relu", "checkpoint",
})
SIZES = ((4, 3), (1, 2), (5, 4, 2), (6, 5, 7, 3), (3, 1, 4, 2), (8, *[6] * 10, 4))


def make_params(sizes, dtype=torch.float32, scale=1.0, seed=0):
    params = {}
    for layer, (d_in, d_out) in enumerate(itertools.pairwise(sizes), 1):
        W = randn(d_in, d_out, dtype=dtype, seed=seed + layer, scale=scale)
        params[f"W{layer}"] = W / d_in ** 0.5
        params[f"b{layer}"] = randn(d_out, dtype=dtype, seed=seed + 50 + layer, scale=scale)
    return params


def make_model(params):
    """权重相同的 nn.Sequential，不用笔记本里的转换。"""
    layers = [nn.Flatten()]
    for layer in range(1, len(params) // 2 + 1):
        W, b = params[f"W{layer}"], params[f"b{layer}"]
        linear = nn.Linear(W.shape[0], W.shape[1], dtype=W.dtype)
        linear.load_state_dict({"weight": W.T, "bias": b})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def reference(params, X, y):
    model = make_model(params)
    logits = model(X)
    F.cross_entropy(logits, y).backward()
    linears = [m for m in model if isinstance(m, nn.Linear)]
    grads = {}
    for layer, m in enumerate(linears, 1):
        grads[f"W{layer}"], grads[f"b{layer}"] = m.weight.grad.T, m.bias.grad
    return logits.detach(), grads


def cases():
    """(参数, X, y)：深度、数据类型、批量大小、尺度和输入形状各不相同。"""
    for sizes, dtype, N, scale in itertools.product(SIZES, TOLERANCE, (1, 2, 9), (1.0, 3.0)):
        X = randn(N, sizes[0], dtype=dtype, seed=N)
        y = torch.randint(sizes[-1], (N,), generator=torch.Generator().manual_seed(N))
        yield make_params(sizes, dtype, scale), X, y
    params = make_params((12, 5, 3), torch.float64)
    for shape in ((4, 3, 4), (4, 1, 3, 4), (4, 12)):
        yield params, randn(*shape, dtype=torch.float64), torch.tensor([2, 0, 1, 1])
    column = randn(3, 4, dtype=torch.float64).T                # 不连续的输入
    yield make_params((3, 6, 2), torch.float64), column, torch.tensor([0, 1, 1, 0])
    dead = {**make_params((4, 5, 3), torch.float64), "b1": torch.full((5,), -99.0).double()}
    yield dead, randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    zero = {k: torch.zeros_like(p) for k, p in make_params((4, 5, 3)).items()}  # 激活正好在 0
    yield zero, randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    for scale, dtype in itertools.product((1e4, -1e4), TOLERANCE):  # 分数约 ±1e4
        W = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.5, 0.25]], dtype=dtype) * scale
        yield ({"W1": W, "b1": torch.zeros(3, dtype=dtype)},
               torch.eye(2, dtype=dtype), torch.tensor([2, 0]))


def close(mine, want):
    tol = TOLERANCE[want.dtype]
    assert mine.dtype == want.dtype and not mine.requires_grad and mine.isfinite().all()
    torch.testing.assert_close(mine, want, rtol=5 * tol, atol=5 * tol)


def check_forward(ns):
    for params, X, y in cases():
        before = {k: p.clone() for k, p in params.items()}
        logits, _ = ns["forward"](params, X)
        close(logits, reference(params, X, y)[0])
        assert all(torch.equal(p, before[k]) for k, p in params.items()), "参数被改动了"
    good, X = make_params((4, 5, 3)), randn(2, 4)
    for bad in (
        {}, {"W1": good["W1"]}, {k: v for k, v in good.items() if k != "b2"},
        {k: v for k, v in good.items() if k not in ("W1", "b1")}, {**good, "W9": good["W2"]},
        {**good, "b1": torch.zeros(4)}, {**good, "b1": torch.zeros(5, 1)},
        {**good, "W2": randn(6, 3)}, {**good, "W1": randn(4)}, {**good, "W1": randn(4, 5).double()},
        {k: v.long() for k, v in good.items()}, {**good, "x": torch.zeros(1)},
    ):
        refuses(ns["forward"], bad, X)
    for bad in (randn(4), randn(2, 5), randn(2, 4).double(), torch.ones(2, 4).long(), randn(0, 4),
                torch.tensor(1.0), randn(2, 2, 3)):
        refuses(ns["forward"], good, bad)


def check_backward(ns):
    forward, backward = ns["forward"], ns["backward"]
    for params, X, y in cases():
        _, want = reference(params, X, y)
        _, cache = forward(params, X)
        saved = [t.clone() for t in cache]
        got = backward(params, cache, y)
        assert list(got) == list(params)
        for name, grad in got.items():
            close(grad, want[name])
        assert all(torch.equal(a, b) for a, b in zip(cache, saved, strict=True)), "缓存被改动了"
        again = backward(params, cache, y)
        assert all(torch.equal(got[k], again[k]) for k in got), "第二次反向的结果不同"
    params, X, y = make_params((4, 5, 3)), randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = backward(params, forward(params, X)[1], y)
    leaves = {k: p.clone().requires_grad_() for k, p in params.items()}
    with torch.no_grad():
        inside = backward(leaves, forward(leaves, X)[1], y)
    tracked = backward(leaves, forward(leaves, X)[1], y)     # 参数要求梯度，也不建计算图
    for grads in (inside, tracked):
        assert all(torch.equal(grads[k], plain[k]) and not grads[k].requires_grad for k in plain)
    assert all(p.grad is None for p in leaves.values())
    _, cache = forward(params, X)
    for bad in (y[:5], y.float(), y.int(), y[:, None], torch.full((6,), 3), torch.full((6,), -1),
                torch.full((6,), -100)):
        refuses(backward, params, cache, bad)
    refuses(backward, params, cache[:-1], y)
    for other in ((4, 3), (4, 6, 3), (4, 5, 4), (4, 5, 5, 3)):
        refuses(backward, params, forward(make_params(other), X)[1], y)
    refuses(backward, {k: v for k, v in params.items() if k != "b1"}, cache, y)


def check_mean_cross_entropy(ns):
    for scale, dtype in itertools.product((1.0, 1e4), TOLERANCE):
        logits, y = randn(7, 4, dtype=dtype, scale=scale), torch.tensor([0, 1, 2, 3, 3, 0, 1])
        close(ns["mean_cross_entropy"](logits, y), F.cross_entropy(logits, y))
    refuses(ns["mean_cross_entropy"], randn(7, 4), torch.full((7,), 4))


def check_params_to_model(ns):
    for params, X, _ in cases():
        model = ns["params_to_model"](params)
        with torch.no_grad():
            assert torch.equal(model(X), make_model(params)(X))
        assert all(p.requires_grad for p in model.parameters())
        assert [type(m) for m in model] == [type(m) for m in make_model(params)]
    refuses(ns["params_to_model"], {"W1": torch.ones(2, 2)})


def check_model_to_params(ns):
    for sizes, dtype in itertools.product(SIZES, TOLERANCE):
        want = make_params(sizes, dtype)
        model = make_model(want)
        for version in (model, nn.Sequential(*list(model)[1:])):   # 有没有 Flatten 都行
            got = ns["model_to_params"](version)
            assert list(got) == list(want)
            assert all(torch.equal(got[k], want[k]) and got[k].is_contiguous() for k in want)
        for p in got.values():
            p.add_(1)                                              # 不共用内存
        assert torch.equal(model[1].weight, want["W1"].T)
        assert torch.equal(model[1].bias, want["b1"])
    for bad in (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), nn.Sequential(),
                nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
                nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)),
                nn.Sequential(nn.Linear(2, 2, bias=False))):
        refuses(ns["model_to_params"], bad)


def check_checkpointed_gradients(ns):
    run, Meter = ns["checkpointed_gradients"], ns["ActivationMeter"]
    for params, X, y in cases():
        _, want = reference(params, X, y)
        for k in (1, 2, 3, 5, 99):
            got = run(params, X, y, k, Meter())
            assert list(got) == list(params)
            for name, grad in got.items():
                close(grad, want[name])
    params, X = make_params((6, *[6] * 15, 6), scale=1.5), randn(10, 6)
    y = torch.arange(10) % 6
    for k in range(1, 18):
        meter = Meter()
        run(params, X, y, k, meter)
        segments, unit = -(-16 // k), 4 * 10 * 6
        assert meter.layers == 16 + (segments - 1) * (k - 1), k
        assert meter.peak <= (segments + k) * unit, k
        assert meter.live == 0, k
    refuses(run, params, X, y, 0, Meter())
    refuses(run, params, X, y[:3], 2, Meter())
    refuses(run, params, X[:, :5], y, 2, Meter())


def check_meter(ns):
    meter = ns["ActivationMeter"]()
    acts = [torch.zeros(4), torch.zeros(3), torch.zeros(2, dtype=torch.float64)]
    assert meter.watch(acts) is acts
    assert (meter.live, meter.peak, meter.layers) == (28, 28, 2)
    acts.pop()
    assert (meter.live, meter.peak) == (12, 28)
    more = meter.watch([acts[1], torch.zeros(1)])
    assert (meter.live, meter.peak, meter.layers) == (16, 28, 3)
    del more, acts
    assert (meter.live, meter.peak) == (0, 28)


def check_random_params(ns):
    make = ns["random_mlp_params"]
    params = make((400, 300, 10), torch.Generator().manual_seed(0))
    assert {k: tuple(p.shape) for k, p in params.items()} == {
        "W1": (400, 300), "b1": (300,), "W2": (300, 10), "b2": (10,)}
    assert params["W1"].dtype == torch.float32 and not params["b1"].any()
    assert params["W1"].std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert params["W2"].std().item() == pytest.approx((2 / 300) ** 0.5, rel=0.1)
    double = make((400, 300), torch.Generator().manual_seed(0), 0.5, torch.float64)
    assert double["W1"].dtype == double["b1"].dtype == torch.float64
    assert double["W1"].std().item() == pytest.approx(0.5 * (2 / 400) ** 0.5, rel=0.02)


CHECKS = {
    "forward": check_forward, "backward": check_backward,
    "mean_cross_entropy": check_mean_cross_entropy, "params_to_model": check_params_to_model,
    "model_to_params": check_model_to_params,
    "checkpointed_gradients": check_checkpointed_gradients, "ActivationMeter": check_meter,
    "random_mlp_params": check_random_params,
}
BROKEN = [
    ("forward", 'Z if f"W{l + 1}" not in params else Z.clamp(min=0)', "Z.clamp(min=0)"),
    ("forward", "return X.flatten(1)", "return X"),
    ("forward", "if X.dtype != W1.dtype:", "if False:"),
    ("forward", "if depth < 1 or set(params) != names:", "if depth < 1:"),
    ("backward", "return dZ / len(y)", "return dZ"),
    ("backward", "dZ.sum(0)  ", "dZ.mean(0)  "),
    ("backward", "* (H > 0)", "* (H >= 0)"),
    ("backward", "(dZ @ W.T) * (H > 0)", "(dZ @ W.T) * (dZ @ W.T > 0)"),
    ("backward", "            dZ = (dZ @ W.T) * (H > 0)", "            dZ = dZ @ W.T"),
    ("backward", "shifted = x - m", "shifted = x"),
    ("backward", "if bool(((y < 0) | (y >= C)).any()):", "if bool((y >= C).any()):"),
    ("backward", "if [H.shape[1] for H in cache] != widths:", "if len(cache) != len(widths):"),
    ("backward", "@torch.no_grad()\ndef", "def"),
    ("mean_cross_entropy", ".mean()\n", ".sum()\n"),
    ("mean_cross_entropy", "shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))",
     "torch.log(torch.exp(shifted) / torch.exp(shifted).sum(dim, keepdim=True))"),
    ("params_to_model", "nn.Sequential(*layers[:-1])", "nn.Sequential(*layers)"),
    ("params_to_model", "        linear.bias.copy_(b)\n", ""),
    ("model_to_params", "linear.weight.detach().clone().T.contiguous()",
     "linear.weight.detach().clone()"),
    ("model_to_params", "linear.bias.detach().clone()", "linear.bias.detach()"),
    ("checkpointed_gradients", "a, b - 2)", "a, b - 1)"),
    ("checkpointed_gradients", "    del inputs, logits  ", "    pass  "),
    ("checkpointed_gradients", "grads | part, None", "grads | part, acts"),
    ("ActivationMeter", "acts[1:]", "acts"),
    ("ActivationMeter", "max(self.peak, self.live)", "self.live"),
    ("random_mlp_params", "(2 / d_in) ** 0.5", "(1 / d_in) ** 0.5"),
    ("random_mlp_params", "gain * (2", "(2"),
]
MUTATIONS = [
    [("dH = dO + dZ @ W.T", "dH = dZ @ W.T"), ("dO * (H @ W + b > 0)", "dO"),
     ("dO + dZ @ W.T", "dO + dZ @ W"), ("dZ.sum(0)", "dO.sum(0)"),
     ("(H @ W + b > 0)", "(H @ W > 0)"), ("dZ.sum(0)", "dZ.mean(0)")],
    [("direct - x_hat * (G * x_hat).mean(1, keepdim=True)", "direct"),
     ("direct = G - G.mean(1, keepdim=True)", "direct = G"), ("G = dO * w", "G = dO"),
     ("(dO * x_hat).sum(0)", "(G * x_hat).sum(0)"), (" + eps)", ")"),
     (".mean(1, keepdim=True)) / s", ".mean(1, keepdim=True)) / s ** 2")],
]
