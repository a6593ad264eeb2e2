"""1.4 节 nn.Module：约定的名字、一致性、改坏的实现和错误答案。"""

import copy
import itertools
from collections import OrderedDict

import pytest
import torch
from parity import TOLERANCE, randn
from torch import nn

NAMES = ("MiniModule", "MiniLinear", "MiniSequential")
FORBIDDEN = frozenset({
    "Module", "Linear", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict",
    "LazyLinear", "Bilinear", "Container", "ReLU", "linear", "relu", "kaiming_uniform_", "addmm",
    "baddbmm", "RemovableHandle", "functional_call", "stateless", "Buffer",
})


def relink(ns):
    """让每个类重新继承名字空间里现在的父类：被改坏的父类也要影响到 MiniModule。"""
    for cls in ("MiniSequential", "MiniLinear"):
        for c in ns[cls].__mro__:
            current = ns.get(c.__name__, c)
            if current is not object and current.__bases__ != (object,):
                current.__bases__ = tuple(ns.get(b.__name__, b) for b in current.__bases__)


def chinese(error, function, *args, **kwargs):
    with pytest.raises(error, match="[\u4e00-\u9fff]"):
        function(*args, **kwargs)


def make(ns, mine):
    """同一段代码，用我们的零件或 nn 的零件，建同一个带缓冲区、共享参数和 None 的模型。"""
    Module = ns["MiniModule"] if mine else nn.Module
    Linear = ns["MiniLinear"] if mine else nn.Linear
    Sequential = ns["MiniSequential"] if mine else nn.Sequential
    ReLU = ns["MiniReLU"] if mine else nn.ReLU

    class Block(Module):
        def __init__(self, D):
            self.size = D  # 普通属性，可以在 super().__init__() 之前
            super().__init__()
            self.body = Sequential(OrderedDict(fc=Linear(D, D), act=ReLU()))
            self.register_parameter("nothing", None)
            self.gain = nn.Parameter(torch.ones(D))
            self.register_buffer("mean", torch.arange(float(D)))
            self.register_buffer("steps", torch.tensor(2**40 + 1), persistent=False)
            self.register_buffer("empty", None)

        def forward(self, x, scale=1.0):
            return self.body(x - self.mean) * self.gain * scale + self.steps * 0

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.first = Linear(3, 4)
            self.again = self.first                              # 同一层里的两个名字
            self.blocks = Sequential(Block(4), Block(4), Linear(4, 4, bias=False))
            self.twin = self.blocks[0]                           # 同一个模块，两个名字
            self.out = Linear(4, 4)
            self.out.weight = self.blocks[2].weight              # 同一个参数，两个名字
            self.missing = None
            self.note = [Linear(1, 1)]                           # 列表不登记

        def forward(self, x):
            return self.out(self.twin(self.blocks(self.first(x)), scale=0.5))

    torch.manual_seed(3)
    return Net()


def names(pairs):
    return [name for name, _ in pairs]


def equal_trees(a, b, tol=0.0):
    """两个模型的全部清单：名字、次序、数值。"""
    for method, flag, unique in itertools.product(
        ("named_parameters", "named_buffers"), (True, False), (True, False)
    ):
        options = dict(prefix="p", recurse=flag, remove_duplicate=unique)
        x, y = (list(getattr(m, method)(**options)) for m in (a, b))
        assert names(x) == names(y), (method, options)
        for (_, s), (_, t) in zip(x, y, strict=True):
            torch.testing.assert_close(s.detach(), t.detach(), rtol=tol, atol=tol)
            assert (s.requires_grad, type(s)) == (t.requires_grad, type(t))
    assert names(a.named_parameters()) == names(b.named_parameters())
    for unique in (True, False):
        assert names(a.named_modules(remove_duplicate=unique)) == names(
            b.named_modules(remove_duplicate=unique))
    assert names(a.named_modules(prefix="q")) == names(b.named_modules(prefix="q"))
    assert names(a.named_children()) == names(b.named_children())
    for method in ("parameters", "buffers", "modules", "children"):
        assert len(list(getattr(a, method)())) == len(list(getattr(b, method)()))
    assert len(list(a.parameters(recurse=False))) == len(list(b.parameters(recurse=False)))
    x, y = a.state_dict(), b.state_dict()
    assert list(x) == list(y)
    for name in x:
        torch.testing.assert_close(x[name], y[name], rtol=tol, atol=tol)
        assert not x[name].requires_grad


def equal_runs(a, b, x, tol=None):
    """输出、输入的梯度、每个参数的梯度。"""
    results = []
    for model in (a, b):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        out = model(leaf)
        weight = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape)
        (out * weight).sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        results.append(({"out": out.detach(), "x": leaf.grad}, grads))
    tol = TOLERANCE[x.dtype] if tol is None else tol
    for mine, reference in zip(*results, strict=True):
        assert mine.keys() == reference.keys()
        for name, value in reference.items():
            if value is None:
                assert mine[name] is None, name
            else:
                torch.testing.assert_close(mine[name], value, rtol=tol, atol=tol)


def check_registration(ns):
    """登记、改名、删除、拒绝，逐步与 nn.Module 相同。"""
    Mini = ns["MiniModule"]

    def books(m):
        public = [k for k in vars(m) if not k.startswith("_") and k != "training"
                  and k not in vars(nn.Module())]
        return list(m._parameters), list(m._buffers), list(m._modules), public

    pair = Mini(), nn.Module()
    steps = [
        lambda m: setattr(m, "a", nn.Parameter(torch.ones(2))),
        lambda m: setattr(m, "b", torch.ones(2)),
        lambda m: setattr(m, "b", nn.Parameter(torch.ones(2))),
        lambda m: setattr(m, "c", type(m)()),
        lambda m: m.register_buffer("d", torch.ones(2)),
        lambda m: setattr(m, "d", torch.zeros(3)),
        lambda m: setattr(m, "d", None),
        lambda m: setattr(m, "d", nn.Parameter(torch.ones(1))),
        lambda m: setattr(m, "c", None),
        lambda m: setattr(m, "a", None),
        lambda m: setattr(m, "a", nn.Parameter(torch.ones(3))),
        lambda m: m.register_buffer("e", torch.ones(1), persistent=False),
        lambda m: delattr(m, "e"),
        lambda m: m.register_buffer("e", torch.ones(1)),
        lambda m: m.register_buffer("e", torch.ones(1), persistent=False),
        lambda m: m.register_buffer("e", torch.ones(1), True),
        lambda m: m.register_parameter("f", None),
        lambda m: m.add_module("7", type(m)()),
        lambda m: setattr(m, "g", 5),
        lambda m: setattr(m, "g", type(m)()),
        lambda m: delattr(m, "g"),
        lambda m: delattr(m, "a"),
        lambda m: delattr(m, "c"),
        lambda m: setattr(m, "h", 1),
        lambda m: delattr(m, "h"),
    ]
    for i, step in enumerate(steps):
        for m in pair:
            step(m)
        assert books(pair[0]) == books(pair[1]), f"第 {i} 步"
        assert list(pair[0].state_dict()) == list(pair[1].state_dict()), f"第 {i} 步"
    m = pair[0]
    assert m.f is None and not hasattr(m, "g") and isinstance(getattr(m, "7"), Mini)
    chinese(AttributeError, lambda: m.nowhere)
    chinese(TypeError, setattr, m, "d", 3.0)
    chinese(TypeError, setattr, m, "d", torch.ones(1))
    m.register_buffer("buf", torch.ones(1))
    chinese(TypeError, setattr, m, "buf", 3.0)
    chinese(TypeError, setattr, m, "7", nn.Parameter)
    chinese(TypeError, m.register_parameter, "p", torch.ones(1))
    chinese(TypeError, m.register_buffer, "p", [1.0])
    chinese(TypeError, m.add_module, "p", 3)
    chinese(TypeError, m.register_buffer, 3, torch.ones(1))
    for bad in ("", "a.b", "forward", "buf"):
        chinese(ValueError, m.register_parameter, bad, nn.Parameter(torch.ones(1)))

    class Early(Mini):
        def __init__(self, value):
            self.x = value

    for value in (nn.Parameter(torch.ones(1)), Mini()):
        chinese(AttributeError, Early, value)


def check_state(ns):
    mine, theirs = make(ns, True), make(ns, False)
    equal_trees(mine, theirs)
    equal_runs(mine, theirs, randn(5, 3))
    total = sum(p.numel() for p in mine.parameters())
    assert total == sum(p.numel() for p in theirs.parameters())  # 共享的只数一次
    # 导出的张量与模型共用内存；keep_vars 给出参数本身
    assert mine.state_dict()["first.weight"].data_ptr() == mine.first.weight.data_ptr()
    assert mine.state_dict(keep_vars=True)["first.weight"] is mine.first.weight
    assert list(mine.state_dict(prefix="m.")) == list(theirs.state_dict(prefix="m."))
    # 互相装入
    torch.manual_seed(99)
    other = make(ns, False)
    for p in other.parameters():
        nn.init.normal_(p)
    before = mine.first.weight
    result = mine.load_state_dict(other.state_dict())
    assert result.missing_keys == [] == result.unexpected_keys
    assert mine.first.weight is before
    equal_trees(mine, other)
    equal_runs(mine, other, randn(2, 3, 3))
    theirs.load_state_dict(mine.state_dict())
    equal_trees(mine, theirs)
    # 缺少、多出、形状不对：说明名字，而且一个也不动
    state = {k: torch.zeros_like(v) for k, v in mine.state_dict().items()}
    saved = copy.deepcopy(mine.state_dict())
    for change, word in (({"first.bias": None}, "first.bias"), ({"new": torch.ones(1)}, "new"),
                         ({"first.bias": torch.ones(5)}, r"first.bias.*\(4,\).*\(5,\)"),
                         ({"first.weight": torch.ones(3, 4)}, r"first.weight.*\(4, 3\)"),
                         ({"first.bias": [1.0]}, "first.bias")):
        bad = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=word) as caught:
            mine.load_state_dict(bad)
        assert any("\u4e00" <= c <= "\u9fff" for c in str(caught.value))
        assert all(torch.equal(v, saved[k]) for k, v in mine.state_dict().items())
    chinese(ValueError, mine.load_state_dict, {"first.bias": torch.ones(5)}, strict=False)
    chinese(TypeError, mine.load_state_dict, [1])
    for extra in ({}, {"first.bias": torch.full((4,), 7.0), "new": torch.ones(1)}):
        a, b = (m.load_state_dict(extra, strict=False) for m in (mine, theirs))
        assert a.missing_keys == b.missing_keys and a.unexpected_keys == b.unexpected_keys
    assert mine.first.bias.tolist() == [7.0] * 4
    # 深复制之后独立可用，共享关系还在
    twin = copy.deepcopy(mine)
    equal_trees(twin, mine)
    assert twin.out.weight is twin.blocks[2].weight and twin.first.weight is not mine.first.weight


def check_modes(ns):
    mine, theirs = make(ns, True), make(ns, False)
    x = randn(5, 3)
    for mode in (False, True):
        assert mine.train(mode) is mine
        assert all(m.training is mode for m in mine.modules())
    assert mine.eval() is mine and not any(m.training for m in mine.modules())
    assert mine.train().training and mine.blocks[0].body.fc.training
    chinese(ValueError, mine.train, "yes")
    # 冻结
    for model in (mine, theirs):
        assert model.blocks.requires_grad_(False) is model.blocks
    equal_trees(mine, theirs)
    equal_runs(mine, theirs, x)
    mine.requires_grad_()
    assert all(p.requires_grad for p in mine.parameters())
    # 清空梯度
    mine(x).sum().backward()
    grads = [p.grad for p in mine.parameters()]
    mine.zero_grad(set_to_none=False)
    assert all(p.grad is g and not g.any() for p, g in zip(mine.parameters(), grads, strict=True))
    mine.zero_grad()
    assert all(p.grad is None for p in mine.parameters())
    # apply 的次序：先子模块，后自己
    orders = []
    for model in (make(ns, True), make(ns, False)):
        order = []
        assert model.apply(lambda m, order=order: order.append(type(m).__name__)) is model
        orders.append([name.replace("Mini", "") for name in order])
    assert orders[0] == orders[1]


def check_moves(ns):
    mine, theirs = make(ns, True), make(ns, False)
    x = randn(5, 3)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (mine, theirs)]
    held = [list(m.parameters()) for m in (mine, theirs)]
    for model, optimizer in zip((mine, theirs), optimizers, strict=True):
        model(x).square().sum().backward()   # 梯度也要一起换
        assert model.double() is model
        assert all(p.grad is not None and p.grad.dtype == p.dtype == torch.float64
                   for p in model.parameters())
        optimizer.step()                     # 优化器仍然拿着同样的参数
    assert all(a is b for a, b in zip(held[0], mine.parameters(), strict=True))
    equal_trees(mine, theirs, tol=1e-6)
    theirs.load_state_dict(mine.state_dict())
    equal_runs(mine, theirs, x.double())
    assert mine.blocks[0].steps.dtype == torch.int64 and mine.blocks[0].steps == 2**40 + 1
    assert mine.out.weight is mine.blocks[2].weight and mine.blocks[0].empty is None
    assert mine.float().first.weight.dtype == torch.float32
    assert mine.blocks[0].mean.dtype == torch.float32
    mine.first.requires_grad_(False)
    for args, kwargs in (((torch.float64,), {}), (("cpu",), {}), (("cpu", torch.float32), {}),
                         ((), dict(dtype=torch.float64)), ((torch.ones(1),), {})):
        expected = theirs.to(*args, **kwargs).first.weight.dtype
        if args != ("cpu",):
            assert mine.to(*args, **kwargs).first.weight.dtype == expected
        assert not mine.first.weight.requires_grad and mine.out.weight.requires_grad
    chinese(TypeError, mine.to, torch.int64)
    mine.to("meta")
    assert {t.device.type for t in [*mine.parameters(), *mine.buffers()]} == {"meta"}
    assert mine.blocks[0].steps.dtype == torch.int64


def call(m, *args, **kwargs):
    """调用；类型错误记成文字，免得改坏的实现中断比较。"""
    try:
        return m(*args, **kwargs)
    except TypeError as error:
        return repr(error)


def check_hooks(ns):
    Mini = ns["MiniModule"]
    logs = []
    for Module in (Mini, nn.Module):
        class Add(Module):
            def forward(self, x, y=1):
                return x + y

        m, log = Add(), []
        handles = [
            m.register_forward_pre_hook(lambda m, a: log.append(("pre", a))),  # noqa: B023
            m.register_forward_pre_hook(lambda m, a: a[0] * 2),
            m.register_forward_pre_hook(lambda m, a: (a[0] + 1,)),
            m.register_forward_hook(lambda m, a, o: log.append(("post", a, o))),  # noqa: B023
            m.register_forward_hook(lambda m, a, o: o * 10),
            m.register_forward_hook(lambda m, a, o: o + 1),
        ]
        log.append(call(m, 3, y=5))
        log.append(m.forward(3))
        handles[1].remove()
        handles[1].remove()
        handles[4].remove()
        log.append(m(3))
        with m.register_forward_hook(lambda m, a, o: -o) as handle:
            log.append(m(3))
        log.append(m(3))
        again = m.register_forward_hook(lambda m, a, o: o + 100)
        handle.remove()                     # 已经取下的，再取一次不影响别的钩子
        log.append(m(3))
        handles[5].remove()
        log.append(m(3))
        again.remove()
        once = []

        def remove_itself(m, a, o, once=once):
            once[0].remove()

        once.append(m.register_forward_hook(remove_itself))
        log += [m(3), m(3), len(m._forward_hooks), len(m._forward_pre_hooks)]
        logs.append(log)
    assert logs[0] == logs[1], logs
    with pytest.raises(NotImplementedError, match="forward"):
        Mini()(1)


def check_repr(ns):
    for build in (lambda: make(ns, True), lambda: ns["MiniModule"](),
                  lambda: ns["MiniSequential"](ns["MiniLinear"](2, 3, False))):
        assert "Mini" in repr(build()) or "Net" in repr(build())
    a, b = make(ns, True), make(ns, False)
    assert repr(a).replace("Mini", "") == repr(b)
    assert repr(ns["MiniModule"]()) == "MiniModule()"
    results = []
    for Module in (ns["MiniModule"], nn.Module):
        class Said(Module):
            def extra_repr(self):
                return "one=1,\ntwo=2"

        outer = Said()
        results.append(repr(outer))
        outer.add_module("inner", Said())
        results.append(repr(outer))
    assert results[:2] == results[2:]


def check_minimodule(ns):
    relink(ns)
    for part in (check_registration, check_state, check_modes, check_moves, check_hooks,
                 check_repr):
        part(ns)


def check_minilinear(ns):
    relink(ns)
    Mini = ns["MiniLinear"]
    for (i, o), bias, seed in itertools.product(((1, 1), (3, 5), (7, 2), (784, 10)),
                                                (True, False), (0, 1)):
        torch.manual_seed(seed)
        mine = Mini(i, o, bias)
        after = torch.rand(1)
        torch.manual_seed(seed)
        theirs = nn.Linear(i, o, bias=bias)
        assert torch.equal(after, torch.rand(1)), "用掉的随机数应一样多"
        equal_trees(mine, theirs)
        bound = 1 / i**0.5
        assert all(p.abs().max() <= bound + 1e-7 for p in mine.parameters())
        for shape in ((i,), (4, i), (2, 3, i), (0, i)):
            equal_runs(mine, theirs, randn(*shape))
        mine.double()
        theirs.double()
        equal_runs(mine, theirs, randn(4, i, dtype=torch.float64))
        assert repr(mine) == "Mini" + repr(theirs)
        assert (mine.bias is None) == (not bias)
        mine.load_state_dict(nn.Linear(i, o, bias=bias).state_dict())
    assert Mini(2, 3).bias is not None
    for bad in ((True, 1), (0, 1), (1, -1), (2.0, 1), ("3", 1)):
        chinese(ValueError, Mini, *bad)
    chinese(ValueError, Mini(3, 2), torch.ones(4, 2))
    chinese(ValueError, Mini(3, 2), torch.tensor(1.0))


def check_minisequential(ns):
    relink(ns)
    results = []
    for Seq, Linear, ReLU in ((ns["MiniSequential"], ns["MiniLinear"], ns["MiniReLU"]),
                              (nn.Sequential, nn.Linear, nn.ReLU)):
        torch.manual_seed(0)
        net = Seq(Linear(3, 4), ReLU(), Seq(Linear(4, 4), ReLU()), Linear(4, 2))
        named = Seq(OrderedDict(enter=Linear(3, 3), act=ReLU(), leave=Linear(3, 1)))
        shared = Linear(3, 3)
        twice = Seq(shared, ReLU(), shared)
        results.append((net, named, twice, Seq(), net[1:], named[:-1], net[::2], twice[-1:]))
    mine, theirs = results
    for a, b in zip(mine, theirs, strict=True):
        equal_trees(a, b)
        assert len(a) == len(b) == len(list(a))
        assert repr(a).replace("Mini", "") == repr(b)
        assert type(a) is ns["MiniSequential"]
    for k, shape in ((0, (5, 3)), (1, (3,)), (2, (2, 5, 3))):
        equal_runs(mine[k], theirs[k], randn(*shape))
    equal_runs(mine[4], theirs[4], randn(5, 4))
    odd = torch.tensor([float("nan"), -0.0, 0.0, float("inf"), -float("inf")])
    equal = torch.testing.assert_close
    equal(ns["MiniReLU"]()(odd), nn.ReLU()(odd), rtol=0, atol=0, equal_nan=True)
    x = randn(2, 3)
    assert mine[3](x) is x                                     # 空容器原样返回
    net = mine[0]
    assert list(net) == [net[0], net[1], net[2], net[3]] and net[-1] is net[3]
    assert net[1:][0] is net[1] and [m for m in net] == list(net.children())
    assert sum(p.numel() for p in mine[2].parameters()) == 12  # 共享的只数一次
    for index in (4, -5):
        with pytest.raises(IndexError, match="[\u4e00-\u9fff]"):
            net[index]
    for seq, Linear in ((net, ns["MiniLinear"]), (theirs[0], nn.Linear)):
        torch.manual_seed(5)
        assert seq.append(Linear(2, 2)) is seq
    equal_trees(net, theirs[0])
    equal_runs(net, theirs[0], randn(5, 3))
    chinese(TypeError, ns["MiniSequential"], 3)
    chinese(TypeError, net.append, torch.ones(1))
    for dtype in TOLERANCE:
        a, b = net.to(dtype), theirs[0].to(dtype)
        b.load_state_dict(a.state_dict())
        equal_runs(a, b, randn(5, 3, dtype=dtype))


CHECKS = {
    "MiniModule": check_minimodule, "MiniLinear": check_minilinear,
    "MiniSequential": check_minisequential,
}
BROKEN = [
    # 登记
    ("MiniModule", "if other != book:", "if other not in (book, '__dict__'):"),
    ("MiniModule", "or name in books.get(\"_parameters\", ())", ""),
    ("MiniModule", "or name in books.get(\"_modules\", ())", ""),
    ("MiniModule", "elif name in books.get(\"_buffers\", ()):", "elif False:"),
    ("MiniModule", "if value is not None and not isinstance(value, kind):", "if False:"),
    ("MiniModule", "del self.__dict__[book][name]", "self.__dict__[book][name] = None"),
    ("MiniModule", "if not name or \".\" in name:", "if not name:"),
    ("MiniModule", "discard if persistent else self._temporary.add)", "discard)"),
    # 走树
    ("MiniModule", "if self in memo:", "if False:"),
    ("MiniModule", "            memo.add(self)", "            pass"),
    ("MiniModule", "or id(value) in seen", ""),
    ("MiniModule", "walk if recurse else [(prefix, self)]", "walk"),
    ("MiniModule", "first.setdefault(id(module), (name, module))", "first[name] = (name, module)"),
    # 状态字典
    ("MiniModule", "if k not in self._temporary}", "}"),
    ("MiniModule", "{**self._parameters, **kept}", "{**kept, **self._parameters}"),
    ("MiniModule", "v if keep_vars else v.detach()", "v.detach().clone()"),
    ("MiniModule", "elif tuple(value.shape) != shape:", "elif value.numel() != tensor.numel():"),
    ("MiniModule", "        if strict:\n", "        if False:\n"),
    ("MiniModule", "        if problems:\n", "        if False:\n"),
    # 开关
    ("MiniModule", "            module.train(mode)", "            module.training = mode"),
    ("MiniModule", "        fn(self)\n        return self", "        return self"),
    ("MiniModule", "p.grad.detach_().zero_()", "p.grad = torch.zeros_like(p.grad)"),
    # 搬家
    ("MiniModule", ", requires_grad=p.requires_grad)", ")"),
    ("MiniModule", "new.grad = None if p.grad is None else fn(p.grad)", "pass"),
    ("MiniModule", "return t.to(moved.device)", "return moved.to(t.dtype) if t.dim() else moved"),
    ("MiniModule", "module._buffers[name] = None if b is None else fn(b)", "pass"),
    # 钩子
    ("MiniModule", "changed if isinstance(changed, tuple) else (changed,)", "changed"),
    ("MiniModule", "output = changed", "pass"),
    ("MiniModule", "list(self._forward_hooks.values())", "self._forward_hooks.values()"),
    ("MiniModule", "max(hooks, default=-1) + 1", "len(hooks)"),
    ("MiniModule", "        self.hooks = {}\n", ""),
    # 打印
    ("MiniModule", ".replace(\"\\n\", \"\\n  \")", ""),
    # 层
    ("MiniLinear", "r = 1 / math.sqrt(in_features)", "r = 1 / math.sqrt(out_features)"),
    ("MiniLinear", "(out_features, in_features)", "(in_features, out_features)"),
    ("MiniLinear", "x @ self.weight.T", "x @ self.weight"),
    ("MiniLinear", "torch.empty(out_features).uniform_(-r, r)", "torch.zeros(out_features)"),
    ("MiniLinear", "type(n) is int and n > 0", "n > 0"),
    ("MiniSequential", "return type(self)(OrderedDict(items[index]))",
     "return type(self)(*[m for _, m in items[index]])"),
    ("MiniSequential", "self.add_module(str(len(self)), module)",
     "self.add_module(\"last\", module)"),
    ("MiniSequential", "x.where(~(x <= 0), 0.0)", "x.abs()"),
    ("MiniSequential", "~(x <= 0)", "x > 0"),
    ("MiniSequential", "        for module in self:\n", "        for module in list(self)[:-1]:\n"),
]
MUTATIONS = [
    [("model.named_modules()", "[(\"\", model)]"), ("(torch.Tensor, nn.Module)", "torch.Tensor"),
     ("f\"{path}.{name}\" if path else name", "name"), ("(list, tuple)", "list"),
     ("return sorted(found)", "return found"), ("any(", "all(")],
    [("args, output, name=name", "args, output"), ("handle.remove()", "pass"),
     ("if not list(module.children()):", "if True:"), ("output.shape", "args[0].shape"),
     ("return rows", "return sorted(rows, key=lambda row: [n for n, _ in "
                     "model.named_modules()].index(row[0]))")],  # 登记的次序，不是执行的
]
