"""检查：结论是否成立、实现是否与 PyTorch 一致、练习做对了没有。"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from .device import profile_name


class ExerciseError(AssertionError):
    """练习的答案不对。在笔记本里只显示一句中文说明，不显示检查器内部的调用过程。"""

    def _render_traceback_(self) -> list[str]:  # IPython 约定的接口
        return [f"✗ {self}"]


def expect(condition: object, text: str) -> None:
    """断言一条实验结论，例如 ``expect(acc > 0.83, "测试准确率 > 0.83")``。

    smoke 配置只求快速跑通，数据少、轮数少，结论没有意义，所以只说明跳过。

    异常:
        AssertionError: 结论不成立。
    """
    if profile_name() == "smoke":
        print(f"– 跳过（smoke 配置）：{text}")
    elif not bool(condition):
        raise AssertionError(f"✗ 结论不成立：{text}")
    else:
        print(f"✓ {text}")


def _difference(mine: object, reference: torch.Tensor, tol: float) -> str:
    """比较两个张量，返回差别的中文说明；一致则返回空字符串。

    允许的误差是 ``tol * (1 + |参考值|)``：小数看绝对误差，大数看相对误差。
    """
    if not isinstance(mine, torch.Tensor):
        return f"应该是张量，得到的是 {type(mine).__name__}"
    if mine.shape != reference.shape:
        return f"形状应为 {tuple(reference.shape)}，得到 {tuple(mine.shape)}"
    if mine.dtype != reference.dtype:
        return f"数据类型应为 {reference.dtype}，得到 {mine.dtype}"
    a, b = mine.detach().cpu(), reference.detach().cpu()
    if not (a.is_floating_point() or a.is_complex()):
        a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    error = torch.where(same, torch.zeros((), dtype=b.dtype), a - b).abs()
    bad = ~same & ~(error <= tol * (1 + b.abs()))  # 写成 ~(<=)，让 NaN 也算错
    if not bad.any():
        return ""
    worst = torch.where(bad, error.nan_to_num(nan=float("inf")), -1.0).argmax()
    index = [int(i) for i in torch.unravel_index(worst, b.shape)]
    return (
        f"{int(bad.sum())}/{b.numel()} 个数不同，相差最大的在 {index or '（标量）'}："
        f"应为 {b.flatten()[worst].item():.6g}，得到 {a.flatten()[worst].item():.6g}"
    )


def _run(fn: Callable, inputs: Sequence, kwargs: dict, grad: bool) -> tuple[list, dict, list]:
    """调用 fn，返回输出、各个梯度，以及被它改动了的输入的序号。"""
    copies = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    names = {}
    for i, x in enumerate(copies):
        if grad and isinstance(x, torch.Tensor) and x.is_floating_point():
            names[f"第 {i + 1} 个输入的梯度"] = x.requires_grad_()
    if grad and isinstance(fn, nn.Module):
        names |= {f"参数 {n} 的梯度": p for n, p in fn.named_parameters() if p.requires_grad}
    outputs = fn(*copies, **kwargs)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    changed = [
        i for i, (x, y) in enumerate(zip(inputs, copies, strict=True))
        if isinstance(x, torch.Tensor) and not torch.equal(x.nan_to_num(), y.nan_to_num())
    ]
    gradients = {}
    roots = [o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad]
    if grad and names and roots and not changed:
        # 给每个输出元素不同的权重再求和，这样梯度里任何一处错误都会显出来
        total = 0
        for o in roots:
            weight = torch.linspace(0.5, 1.5, max(o.numel(), 1), dtype=torch.float64)[: o.numel()]
            total = total + (o * weight.to(o).reshape(o.shape)).sum()
        values = torch.autograd.grad(total, list(names.values()), allow_unused=True)
        for (name, leaf), g in zip(names.items(), values, strict=True):
            gradients[name] = torch.zeros_like(leaf) if g is None else g
    return outputs, gradients, changed


def _compare(mine, reference, inputs, kwargs, tol, grad) -> tuple[str, bool]:
    """返回（差别的说明，是否比较了梯度）。"""
    want, want_grads, _ = _run(reference, inputs, kwargs, grad)
    got, got_grads, changed = _run(mine, inputs, kwargs, grad)
    if len(got) != len(want):
        return f"应返回 {len(want)} 个结果，得到 {len(got)} 个", False
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        label = "输出" if len(want) == 1 else f"第 {i + 1} 个输出"
        if isinstance(b, torch.Tensor):
            problem = _difference(a, b, tol)
        else:
            numbers = {type(a), type(b)} <= {int, float}
            same = abs(a - b) <= tol * (1 + abs(b)) if numbers else type(a) is type(b) and a == b
            problem = "" if same else f"应为 {b!r}，得到 {a!r}"
        if problem:
            return f"{label}{problem}", False
    if changed:
        return f"第 {changed[0] + 1} 个输入被改动了；函数应返回新的结果，不改输入", False
    if want_grads and not got_grads:
        return "输出没有接在计算图上，求不出梯度（是否用了 .item()、.detach() 或 no_grad？）", True
    if want_grads.keys() != got_grads.keys():
        return "两边的参数名不同：" + "、".join(sorted(want_grads.keys() ^ got_grads.keys())), True
    for name, g in want_grads.items():
        problem = _difference(got_grads[name], g, tol)
        if problem:
            return f"{name}{problem}", True
    return "", bool(want_grads)


def check_equal(
    mine: object, reference: object, *inputs: object,
    name: str, tol: float = 1e-5, grad: bool = True, **kwargs: object,
) -> None:
    """检查我们的实现与参考实现是否一致；不一致时说明哪里不同、差多少。

    参数:
        mine, reference: 两个张量；或两个函数、模块，会用同样的 inputs 和 kwargs 调用。
        name: 参考实现的名字，例如 "F.conv2d"。
        tol: 允许的误差，|差| ≤ tol × (1 + |参考值|)。
        grad: 是否也比较对浮点输入和模块参数的梯度。
    异常:
        AssertionError: 不一致；信息里有形状、数据类型、位置和数值。
        TypeError: 一边是函数，另一边不是。
    """
    if callable(mine) != callable(reference):
        raise TypeError("check_equal 的前两个参数要么都是函数或模块，要么都是张量。")
    if callable(reference):
        problem, with_grad = _compare(mine, reference, inputs, kwargs, tol, grad)
    else:
        problem, with_grad = _difference(mine, torch.as_tensor(reference), tol), False
    if problem:
        raise AssertionError(f"✗ 与 {name} 不一致：{problem}。")
    what = "输出与梯度" if with_grad else "数值"
    print(f"✓ 与 {name} 一致：{what}误差 ≤ {tol:g}".replace("e-0", "e-"))


def check_exercise(
    mine: Callable, reference: Callable,
    cases: Callable[[torch.Generator], tuple] | Iterable[tuple],
    *, trials: int = 5, tol: float = 1e-4, grad: bool = False, hint: str = "",
) -> None:
    """检查一道编程练习：在随机输入上与参考结果比较。

    没写完（抛出 NotImplementedError）时打印「尚未完成」，不打断后面的运行。

    参数:
        cases: 函数 ``cases(generator) -> 输入元组``，会调用 ``trials`` 次；或输入元组的列表。
        tol, grad: 与 check_equal 相同。
        hint: 答错时附上的提示。
    异常:
        ExerciseError: 答案不对。
    """
    generator = torch.Generator()
    generator.seed()  # 每次都换随机输入，凑不出答案
    inputs = [cases(generator) for _ in range(trials)] if callable(cases) else list(cases)
    name = getattr(mine, "__name__", "你的实现")
    for i, args in enumerate(inputs):
        try:
            problem, _ = _compare(mine, reference, args, {}, tol, grad)
        except NotImplementedError:
            print(f"尚未完成：{name}。写好后再运行这一格，会自动检查。")
            return
        except Exception:
            print(f"✗ {name} 在第 {i + 1} 组输入 {_describe(args)} 上出错，错误信息如下。")
            raise
        if problem:
            text = f"{name} 在第 {i + 1} 组输入 {_describe(args)} 上不对：{problem}。"
            raise ExerciseError(text + (f"提示：{hint}" if hint else ""))
    print(f"✓ {name} 通过：{len(inputs)} 组输入的结果{'与梯度' if grad else ''}都正确")


def _describe(args: Sequence) -> str:
    """输入的简短描述：小张量写出数值，大张量只写形状。"""
    parts = []
    for x in args:
        if isinstance(x, torch.Tensor) and x.numel() > 6:
            parts.append(f"形状 {tuple(x.shape)}")
        elif isinstance(x, torch.Tensor):
            values = [f"{v:.4g}" for v in x.flatten().tolist()]
            parts.append(f"[{', '.join(values)}]" if x.dim() else values[0])
        else:
            parts.append(getattr(x, "__name__", None) or repr(x))
    return "（" + "，".join(parts) + "）"
