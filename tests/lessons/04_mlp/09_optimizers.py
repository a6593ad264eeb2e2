"""4.9 节 优化算法：约定的名字、一致性、改坏的实现和错误答案。"""

import copy

import pytest
import torch
from parity import refuses

NAMES = ("Optimizer", "SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW",
         "optimizer_state_dict", "load_optimizer_state", "check_options", "check_params",
         "follow_gradients")
FORBIDDEN = frozenset({"optim", "SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW",
                       "_functional", "foreach"})
SHAPES = ((3, 4), (5,), (), (2, 1, 3))
COMMON = ({}, dict(weight_decay=0.1), dict(maximize=True), dict(weight_decay=0.1, maximize=True))
OPTIONS = {
    "SGD": (dict(momentum=0.9), dict(momentum=0.9, dampening=0.3, weight_decay=0.1),
            dict(momentum=0.9, nesterov=True), dict(dampening=0.5),
            dict(momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True)),
    "Adagrad": (dict(lr_decay=0.1), dict(initial_accumulator_value=0.5), dict(eps=0.1),
                dict(lr=0.2, lr_decay=0.02, initial_accumulator_value=0.1, maximize=True)),
    "RMSprop": (dict(alpha=0.9), dict(eps=0.1), dict(momentum=0.9), dict(centered=True, eps=1e-3),
                dict(centered=True, momentum=0.8, alpha=0.9, eps=1e-3, weight_decay=0.1)),
    "Adadelta": (dict(rho=0.5), dict(eps=1e-2), dict(lr=0.3), dict(rho=0.8, lr=0.5, eps=0.1)),
    "Adam": (dict(betas=(0.8, 0.95)), dict(betas=(0.0, 0.5)), dict(eps=0.1), dict(amsgrad=True),
             dict(amsgrad=True, betas=(0.5, 0.6), weight_decay=0.1, maximize=True, lr=0.05)),
}
OPTIONS["AdamW"] = (*OPTIONS["Adam"], dict(weight_decay=0.0))
BAD = {
    "SGD": (dict(lr=-0.1), dict(lr="0.1"), dict(lr=float("nan")), dict(momentum=-0.5),
            dict(weight_decay=-1), dict(nesterov=True),
            dict(nesterov=True, momentum=0.9, dampening=0.1)),
    "Adagrad": (dict(lr=-1), dict(lr_decay=-1), dict(initial_accumulator_value=-1), dict(eps=-1)),
    "RMSprop": (dict(lr=-1), dict(alpha=-0.1), dict(alpha=1.1), dict(eps=-1), dict(momentum=-1)),
    "Adadelta": (dict(lr=-1), dict(rho=-0.1), dict(rho=1.5), dict(eps=-1)),
    "Adam": (dict(lr=-1), dict(betas=(1.0, 0.9)), dict(betas=(0.9, -0.1)), dict(betas=0.9),
             dict(betas=(0.9,)), dict(eps=-1), dict(weight_decay=-1)),
}
BAD["AdamW"] = BAD["Adam"]


def make_params(dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in SHAPES]


def give_gradients(params, g, t):
    """第二个参数时有时无，最后一个从来没有梯度；大小差几个数量级。"""
    for i, p in enumerate(params):
        missing = i == 3 or (i == 1 and t % 3 == 0)
        scale = 10.0 ** (i - 1)
        p.grad = None if missing else scale * torch.randn(p.shape, generator=g, dtype=p.dtype)


def groups_of(params):
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.03, "weight_decay": 0.02}]


def walk(optimizer, params, seed, num_steps):
    g = torch.Generator().manual_seed(seed)
    for t in range(num_steps):
        give_gradients(params, g, t)
        optimizer.param_groups[0]["lr"] *= 0.97
        if t == num_steps // 2:
            optimizer.param_groups[1]["lr"] = 0.005
        optimizer.step()


def close(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        tol = 2e-5 if a.dtype == torch.float32 else 1e-11
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tol, atol=tol)


def signature(cls):
    import inspect

    skip = {"self", "params", "foreach", "fused", "capturable", "differentiable",
            "decoupled_weight_decay"}
    return {n: p.default for n, p in inspect.signature(cls.__init__).parameters.items()
            if n not in skip}


def check_optimizer_class(name):
    def check(ns):
        mine, theirs = ns[name], getattr(torch.optim, name)
        assert signature(mine) == signature(theirs)
        for dtype in (torch.float32, torch.float64):
            for options in (*COMMON, *OPTIONS[name]):
                a, b = make_params(dtype), make_params(dtype)
                frozen = a[3].detach().clone()
                ours, ref = mine(groups_of(a), **options), theirs(
                    groups_of(b), foreach=False, **options)
                walk(ours, a, 1, 100)
                walk(ref, b, 1, 100)
                close(a, b)
                assert torch.equal(a[3], frozen), "没有梯度的参数被改动了"
                ours = mine([a[0]], **options)
                kept = a[0].grad = torch.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4)
                before = kept.clone()
                for _ in range(3):  # 同一个梯度用三次
                    ours.step()
                assert torch.equal(kept, before), "梯度被改动了"
        p, q = (torch.ones(3, requires_grad=True) for _ in range(2))  # 默认选项、单个参数
        for x, cls in ((p, mine), (q, theirs)):
            optimizer = cls([x])
            for t in range(5):
                x.grad = torch.tensor([1.0, -2.0, 0.0]) * (t + 1)
                optimizer.step()
        close([p], [q])
        for options in BAD[name]:
            refuses(mine, [torch.ones(1)], **options)
            if "nesterov" not in options:
                refuses(mine, [{"params": [torch.ones(1)], **options}])
        check_resume(mine, theirs)
    return check


def check_resume(mine, theirs):
    """两个方向：从对方的状态继续，之后每一步都相同。"""
    for first, second in ((theirs, mine), (mine, theirs)):
        for options in ({}, dict(weight_decay=0.1)):
            a = make_params(torch.float64)
            one = first(groups_of(a), **options)
            walk(one, a, 2, 30)
            b = [p.detach().clone().requires_grad_() for p in a]
            two = second(groups_of(b), lr=0.7)
            two.load_state_dict(copy.deepcopy(one.state_dict()))
            walk(one, a, 3, 30)
            walk(two, b, 3, 30)
            close(a, b)


def check_base(ns):
    SGD = ns["SGD"]
    assert issubclass(SGD, ns["Optimizer"])
    a, b = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = SGD([{"params": a, "lr": 0.5}, {"params": iter([b])}], lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]
    assert optimizer.param_groups[0]["params"][0] is a and len(optimizer.state) == 0
    c = torch.ones(1, requires_grad=True)
    optimizer.add_param_group({"params": [c], "momentum": 0.9})
    assert optimizer.param_groups[2]["momentum"] == 0.9 and optimizer.defaults["momentum"] == 0

    def closure():
        optimizer.zero_grad()
        loss = (a ** 2).sum() + c.sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 3.0 and torch.equal(a, torch.zeros(2)) and torch.equal(b, torch.ones(3))
    assert optimizer.step() is None and a.requires_grad
    optimizer.zero_grad(set_to_none=False)
    assert a.grad is not None and torch.equal(a.grad, torch.zeros(2)) and b.grad is None
    assert not a.grad.requires_grad
    optimizer.zero_grad()
    assert a.grad is None and c.grad is None
    for wrong in ([], iter(()), [a, a], [{"params": [a]}, {"params": [a]}], [a * 2]):
        refuses(SGD, wrong)
    refuses(optimizer.add_param_group, {"params": [b]})
    for wrong in (a, {a, b}, ["a"], [{"params": [1.0]}]):
        with pytest.raises(TypeError, match="[\u4e00-\u9fff]"):
            SGD(wrong)


def check_state_dict(ns):
    for name in ("SGD", "Adam"):
        options = dict(momentum=0.9) if name == "SGD" else {}
        mine, theirs = (cls(groups_of(make_params(torch.float32)), **options)
                        for cls in (ns[name], getattr(torch.optim, name)))
        for optimizer in (mine, theirs):
            walk(optimizer, [p for g in optimizer.param_groups for p in g["params"]], 0, 5)
        a, b = mine.state_dict(), theirs.state_dict()
        assert set(a) == set(b) and set(a["state"]) == set(b["state"])
        for i, values in b["state"].items():
            assert set(a["state"][i]) == set(values)
            for key, value in values.items():
                torch.testing.assert_close(torch.as_tensor(a["state"][i][key]).float(), value)
        assert [g["params"] for g in a["param_groups"]] == [[0, 1], [2, 3]]


def check_load(ns):
    for name in OPTIONS:
        check_resume(ns[name], getattr(torch.optim, name))
    p = torch.ones(2, requires_grad=True)
    optimizer = ns["Adam"]([p])
    p.grad = torch.ones(2)
    optimizer.step()
    saved = optimizer.state_dict()
    q = torch.ones(2, dtype=torch.float64, requires_grad=True)
    other = ns["Adam"]([q], lr=0.9)
    other.load_state_dict(saved)
    assert other.state[q]["exp_avg"].dtype == torch.float64
    assert other.param_groups[0]["lr"] == 1e-3 and other.param_groups[0]["params"][0] is q
    before = saved["state"][0]["exp_avg"].clone()
    third = ns["Adam"]([r := torch.ones(2, requires_grad=True)])
    third.load_state_dict(saved)
    r.grad = torch.ones(2)
    third.step()
    assert torch.equal(saved["state"][0]["exp_avg"], before), "改动了别人的状态"
    refuses(ns["Adam"]([torch.ones(1), torch.ones(1)]).load_state_dict, saved)
    refuses(ns["Adam"]([{"params": [torch.ones(1)]}, {"params": [torch.ones(2)]}]).load_state_dict,
            saved)


def check_the_options(ns):
    check = ns["check_options"]
    check(dict(lr=0.1, betas=(0.9, 0.999), unknown=-1, alpha=1, rho=0, eps=0))
    for bad in (dict(lr=-1), dict(eps=-1e-9), dict(alpha=2), dict(rho=1.01), dict(betas=(0.9, 1)),
                dict(betas=(0.9, 0.9, 0.9)), dict(lr=None),
                dict(nesterov=True, momentum=0, dampening=0),
                dict(nesterov=True, momentum=0.9, dampening=0.1)):
        refuses(check, bad)


def check_the_params(ns):
    check, p = ns["check_params"], torch.ones(2, requires_grad=True)
    check([p, torch.ones(1)], [torch.ones(1)])
    for params, known in (([p], [p]), ([p, p], []), ([p + 1], [])):
        refuses(check, params, known)
    with pytest.raises(TypeError, match="[\u4e00-\u9fff]"):
        check([3.0], [])


def check_follow(ns):
    grads = torch.arange(12.0).reshape(4, 3)
    x0 = torch.ones(3)
    path = ns["follow_gradients"](lambda p: torch.optim.SGD(p, lr=0.1), x0, grads)
    torch.testing.assert_close(path, 1 - 0.1 * grads.cumsum(0))
    assert torch.equal(x0, torch.ones(3)) and not path.requires_grad


CHECKS = {name: check_optimizer_class(name) for name in OPTIONS} | {
    "Optimizer": check_base, "optimizer_state_dict": check_state_dict,
    "load_optimizer_state": check_load, "check_options": check_the_options,
    "check_params": check_the_params, "follow_gradients": check_follow,
}
BROKEN = [
    ("Optimizer", "p.grad.detach_().zero_()", "p.grad = None"),
    ("Optimizer", "with torch.enable_grad():", "with torch.no_grad():"),
    ("Optimizer", "{**self.defaults, **group,", "{**group, **self.defaults,"),
    ("SGD", "v = state[\"momentum_buffer\"] = grad.clone()",
     "v = state[\"momentum_buffer\"] = grad * (1 - group[\"dampening\"])"),
    ("SGD", "grad.add(v, alpha=group[\"momentum\"]) if", "v.add(grad) if"),
    ("SGD", "v = state[\"momentum_buffer\"] = grad.clone()",
     "v = state[\"momentum_buffer\"] = grad"),
    ("SGD", "-p.grad if group[\"maximize\"] else p.grad\n        return grad.add",
     "p.grad\n        return grad.add"),
    ("Adagrad", "(t - 1) * group[\"lr_decay\"]", "t * group[\"lr_decay\"]"),
    ("Adagrad", "torch.full_like(p, value)", "torch.zeros_like(p)"),
    ("Adagrad", ".sqrt().add_(group[\"eps\"])\n        p.addcdiv_(grad, scale, value=-lr)",
     ".add(group[\"eps\"]).sqrt()\n        p.addcdiv_(grad, scale, value=-lr)"),
    ("RMSprop", "v = v.addcmul(m, m, value=-1)", "v = v.addcmul(m, m, value=1)"),
    ("RMSprop", "v = v.addcmul(m, m, value=-1)", "v.addcmul_(m, m, value=-1)"),
    ("RMSprop", "addcdiv_(grad, scale), alpha=", "add_(grad), alpha="),
    ("Adadelta", "d = u.add(eps).sqrt_()", "d = u.sqrt().add_(eps)"),
    ("Adadelta", "u.mul_(rho).addcmul_(d, d, value=1 - rho)\n        p.add_(d",
     "p.add_(d.clone()); u.mul_(rho).addcmul_(d, d)\n        p.add_(0 * d"),
    ("Adam", ".div_(math.sqrt(1 - beta2 ** t))", ""),
    ("Adam", ".div_(math.sqrt(1 - beta2 ** t)).add_(group[\"eps\"])",
     ".add_(group[\"eps\"]).div_(math.sqrt(1 - beta2 ** t))"),
    ("Adam", "/ (1 - beta1 ** t)", ""),
    ("Adam", "v = torch.maximum(largest, v, out=largest)", "torch.maximum(largest, v, out=v)"),
    ("AdamW", "p.mul_(1 - group[\"lr\"] * group[\"weight_decay\"])",
     "p.mul_(1 - group[\"weight_decay\"])"),
    ("AdamW", "weight_decay: float = 1e-2", "weight_decay: float = 0"),
    ("AdamW", "return -p.grad if group[\"maximize\"] else p.grad",
     "return super().gradient(p, group)"),
    ("optimizer_state_dict", "enumerate(params)}", "enumerate(params, 1)}"),
    ("optimizer_state_dict", "for p, values in self.state.items() if values}",
     "for p, values in self.state.items() if not values}"),
    ("load_optimizer_state", "value.to(p, copy=True)", "value"),
    ("load_optimizer_state", "{**a, **b, \"params\"", "{**b, **a, \"params\""),
    ("load_optimizer_state", "    if [len(g[\"params\"]) for g in saved] !=",
     "    if False and [len(g[\"params\"]) for g in saved] !="),
    ("check_options", "not 0 <= value <= upper", "value < 0"),
    ("check_options", "[0 <= b < 1 for b in betas]", "[0 <= b <= 1 for b in betas]"),
    ("check_options", "or options[\"dampening\"] != 0", ""),
    ("check_params", "        seen.add(id(p))", "        pass"),
    ("check_params", "if not (p.is_leaf or p.retains_grad)", "if False"),
    ("follow_gradients", "path.append(x.detach().clone())\n    return torch.stack(path)",
     "path.append(x.detach())\n    return torch.stack(path)"),
    ("follow_gradients", "x0.detach().clone().requires_grad_()", "x0.requires_grad_()"),
]
MUTATIONS = [
    [("torch.maximum(u.mul_(beta2)", "torch.minimum(u.mul_(beta2)"),
     ("torch.maximum(u.mul_(beta2)", "torch.maximum(u"),
     ("/ (1 - beta1 ** t)", ""), ("state.get(\"step\", 0) + 1", "state.get(\"step\", 0) + 2"),
     ("grad.abs().add_(group[\"eps\"])", "grad.abs()")],
    [("c = m.lerp(grad, 1 - beta1)\n        m.lerp_(grad, 1 - beta2)",
      "m.lerp_(grad, 1 - beta2)\n        c = m.lerp(grad, 1 - beta1)"),
     ("m.lerp(grad, 1 - beta1)", "m.lerp(grad, 1 - beta2)"),
     ("c = m.lerp(grad, 1 - beta1)", "c = grad.clone()"), ("c.sign_()", "c"),
     ("m.lerp_(grad, 1 - beta2)", "m.copy_(c)")],
]
