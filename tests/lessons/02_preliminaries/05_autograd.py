"""2.5 节 自动微分：约定的名字、一致性、改坏的实现和错误答案。"""

import gc

import pytest
import torch
from parity import randn, refuses
from torch.nn import functional as F

NAMES = ("Var", "Dual", "topological_order", "unbroadcast", "jacobian_forward",
         "jacobian_reverse", "two_moons")
FORBIDDEN = frozenset({
    "autograd", "backward_hooks", "grad_fn", "requires_grad_", "func", "jvp", "vjp", "jacrev",
    "jacfwd", "dual_level", "make_dual", "sum_to_size", "retain_grad",
})
# 每个函数在张量、Var 和 Dual 上都能用；输入的形状随后列出
FUNCTIONS = {
    "加减": (lambda a, b: a + b - (b - a) * 2 - (-a) + 1 - (3 - b), ((4, 3), (3,))),
    "乘除": (lambda a, b: a * b / (b * b + 1) + 2 / (a * a + 1) + a / 3, ((4, 1), (1, 3))),
    "标量": (lambda a, b: a * b + b, ((), (2, 3))),
    "幂": (lambda a: a ** 2 + a ** 3.0 + 2 ** a + a ** 1, ((5,),)),
    "零次幂": (lambda a: a ** 0 + a, ((5,),)),
    "两个变量的幂": (lambda a, b: (a * a + 0.1) ** b, ((4, 3), (3,))),
    "重复使用": (lambda a: a * a + a * a * a, ((3, 2),)),
    "矩阵乘矩阵": (lambda a, b: a @ b, ((3, 4), (4, 2))),
    "矩阵乘向量": (lambda a, b: a @ b, ((3, 4), (4,))),
    "向量乘矩阵": (lambda a, b: a @ b, ((3,), (3, 2))),
    "向量乘向量": (lambda a, b: a @ b, ((3,), (3,))),
    "成批": (lambda a, b: a @ b, ((5, 2, 3), (5, 3, 4))),
    "成批与单个": (lambda a, b: a @ b, ((5, 1, 2, 3), (7, 3, 4))),
    "成批与向量": (lambda a, b: a @ b, ((5, 2, 3), (3,))),
    "函数": (lambda a: (a.exp() + 1).log() * a.relu() + a.tanh(), ((4, 3),)),
    "求和": (lambda a: a.sum() * a + a.sum(1, keepdim=True) * a, ((4, 3),)),
    "各维求和": (lambda a: a.sum(-1) + a.sum(dim=(0, 2)).sum() + a.sum(1).sum(), ((2, 3, 4),)),
    "平均": (lambda a: a.mean() + a.mean(0) * a.mean(dim=1, keepdim=True), ((4, 3),)),
    "标量求和": (lambda a: a.sum() + a.mean(), ((),)),
    "改变形状": (lambda a: a.reshape(2, 6) @ a.reshape((6, 2)) + a.reshape(-1).sum(), ((3, 4),)),
}


def check_var(ns):
    Var = ns["Var"]
    for dtype in (torch.float32, torch.float64):
        tol = 1e-4 if dtype == torch.float32 else 1e-10
        for name, (f, shapes) in FUNCTIONS.items():
            inputs = [randn(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)]
            leaves = [x.clone().requires_grad_() for x in inputs]
            want = f(*leaves)
            g = randn(*want.shape, dtype=dtype, seed=9)
            grads = torch.autograd.grad(want, leaves, g)
            variables = [Var(x) for x in inputs]
            got = f(*variables)
            got.backward(g)
            for a, b in ((got.value, want), *((v.grad, g) for v, g in zip(variables, grads,
                                                                        strict=True))):
                torch.testing.assert_close(a, b.detach(), rtol=tol, atol=tol, msg=name)
    x = Var(randn(3))
    for times in (1, 2):  # 累加
        (x * x).sum().backward()
        torch.testing.assert_close(x.grad, times * 2 * x.value)
    zero = Var(torch.tensor([0.0, 2.0]))
    (zero ** 0 + zero ** 2.0 + zero.relu()).sum().backward()
    torch.testing.assert_close(zero.grad, torch.tensor([0.0, 5.0]))
    constant = Var(2.0, requires_grad=False)
    y = x.detach() * constant
    assert not y.requires_grad and y.parents == ()
    (x.detach() * x).sum().backward()
    assert constant.grad is None
    mixed = torch.ones(3) + Var(torch.zeros(3)) * torch.ones(3)
    mixed.sum().backward()
    assert isinstance(mixed, Var) and Var(1).value.dtype == torch.get_default_dtype()
    for bad in (lambda: y.backward(), lambda: (x * 1).backward(),
                lambda: (x * 1).backward(torch.ones(2))):
        refuses(bad)


def check_topological_order(ns):
    Var = ns["Var"]
    x = Var(1.0)
    node, wide = x, x
    for _ in range(30_000):
        node = node * 1.0 + 0.0
    for _ in range(60):
        wide = wide + wide
    assert len(ns["topological_order"](wide)) == 61
    order = ns["topological_order"](node)
    place = {id(n): i for i, n in enumerate(order)}
    assert len(place) == len(order) == 60_001 and order[-1] is node and order[0] is x
    for n in order:
        assert all(place[id(p)] < place[id(n)] for p, _ in n.parents)
    (node + wide).backward()
    assert x.grad.item() == 1 + 2.0 ** 60
    del node, order, n, place
    gc.collect()  # 释放很深的图也不能崩溃


def check_unbroadcast(ns):
    full = randn(2, 4, 3)
    for shape in ((2, 4, 3), (4, 3), (3,), (1, 3), (4, 1), (2, 1, 3), (1, 1, 1), (1,), ()):
        want = full.sum_to_size(shape) if shape else full.sum()
        got = ns["unbroadcast"](full, shape)
        assert got.shape == want.shape
        torch.testing.assert_close(got, want)


def check_dual(ns):
    Dual = ns["Dual"]
    for name, (f, shapes) in FUNCTIONS.items():
        inputs = [randn(*s, dtype=torch.float64, seed=i) for i, s in enumerate(shapes)]
        tangents = [randn(*s, dtype=torch.float64, seed=5 + i) for i, s in enumerate(shapes)]
        value, tangent = torch.func.jvp(f, tuple(inputs), tuple(tangents))
        got = f(*(Dual(x, v) for x, v in zip(inputs, tangents, strict=True)))
        torch.testing.assert_close(got.value, value, rtol=1e-10, atol=1e-10, msg=name)
        torch.testing.assert_close(got.tangent, tangent, rtol=1e-10, atol=1e-10, msg=name)
    assert torch.equal(Dual(torch.ones(2)).tangent, torch.zeros(2))


def check_jacobian(name):
    def check(ns):
        for n, m in ((3, 2), (1, 4), (5, 1)):
            A, B = randn(n, 6, dtype=torch.float64), randn(6, m, dtype=torch.float64)

            def f(x):
                return (x @ A).tanh() @ B + x.sum()  # noqa: B023

            x = randn(n, dtype=torch.float64)
            want = torch.autograd.functional.jacobian(f, x)
            torch.testing.assert_close(ns[name](f, x), want)

    return check


def check_two_moons(ns):
    X, y = ns["two_moons"](200, 0.0, torch.Generator().manual_seed(0))
    assert X.shape == (200, 2) and y.shape == (200, 1) and X.dtype == torch.float64
    assert y.sum() == 100
    upper, lower = X[y[:, 0] == 0], X[y[:, 0] == 1]
    torch.testing.assert_close(upper.pow(2).sum(1), torch.ones(100, dtype=torch.float64))
    center = torch.tensor([1.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close((lower - center).pow(2).sum(1), torch.ones(100).double())
    assert (upper[:, 1] >= 0).all() and (lower[:, 1] <= 0.5).all()
    noisy, _ = ns["two_moons"](200, 0.1, torch.Generator().manual_seed(0))
    assert 0.05 < F.mse_loss(noisy, X).sqrt() < 0.2
    with pytest.raises(AssertionError):
        torch.testing.assert_close(noisy, X)


CHECKS = {
    "Var": check_var, "Dual": check_dual, "topological_order": check_topological_order,
    "unbroadcast": check_unbroadcast, "jacobian_forward": check_jacobian("jacobian_forward"),
    "jacobian_reverse": check_jacobian("jacobian_reverse"), "two_moons": check_two_moons,
}
BROKEN = [
    ("Var", "(b, lambda g: -g)", "(b, lambda g: g)"),
    ("Var", "piece if old is None else old + piece", "piece"),
    ("Var", "grad if node.grad is None else node.grad + grad", "grad"),
    ("Var", "piece = unbroadcast(pull(grad), parent.value.shape)", "piece = pull(grad)"),
    ("Var", "-g * out / b.value", "-g / b.value"),
    ("Var", "full(g) @ B.mT", "full(g) @ B"),
    ("Var", "g * (1 - out ** 2)", "g * (1 - out)"),
    ("Var", ".where(b.value != 0, 0.0)", ""),
    ("Var", "g.expand(a.value.shape)", "g"),
    ("Var", "def __rsub__(self, other): return sub(as_var(other, self), self)",
     "def __rsub__(self, other): return sub(self, as_var(other, self))"),
    ("Dual", "self.tangent * o.value + self.value * o.tangent", "self.tangent * o.tangent"),
    ("Dual", "tail = tail + slope_b * b.tangent", "pass"),
    ("Dual", "(1 - self.value.tanh() ** 2) * self.tangent", "self.tangent"),
    ("topological_order", "order.append(node)", "order.insert(0, node)"),
    ("unbroadcast", "keepdim=True) if repeated", "keepdim=False) if repeated"),
    ("jacobian_forward", "torch.stack(columns, dim=1)", "torch.stack(columns, dim=0)"),
    ("jacobian_reverse", "        leaf.grad = None\n", ""),
    ("two_moons", "0.5 - angle.sin()", "0.5 + angle.sin()"),
]
MUTATIONS = [
    [("g * out * (1 - out)", "g * (1 - out)"), ("(a.value / 2).tanh()", "a.value.tanh()"),
     ("0.5 * (1 + (a.value / 2).tanh())", "a.value.exp() / (1 + a.value.exp())")],
    [("(grad * v).sum()", "grad.sum()"), ("(grad * v).sum()", "(grad * v * v).sum()"),
     ("return product", "return grad * v")],
]
