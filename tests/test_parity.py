"""从零实现的函数与 PyTorch 的对照物相等：数值、梯度、多种形状和数据类型。

定义取自笔记本自己的 scratch 格。每个检查还要能发现被改坏的实现（BROKEN）。
"""

import ast
import itertools
import math

import pytest
import torch
from contract import CONTRACT
from notebook_files import ROOT, code_cells, load, source
from notebooks import NOTEBOOKS, load_scratch, name_of, tags
from rules import parse
from torch import nn
from torch.nn import functional as F

CHAPTER = "03_linear_regression/"
ONE, TWO, THREE, FOUR, FIVE = (
    CHAPTER + name + ".ipynb" for name in (
        "01_linear_regression_scratch", "02_losses", "03_minibatch_sgd",
        "04_linear_regression_concise", "05_softmax_regression_scratch",
    )
)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
REDUCTIONS = ("none", "mean", "sum")


def randn(*shape, dtype=torch.float32, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(shape, generator=g, dtype=dtype)


def same(mine, reference, *inputs, tol=None, **kwargs):
    """两个函数的输出和梯度相等；输入不被改动。浮点张量都求梯度。"""
    results = []
    for function in (mine, reference):
        copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
        leaves = [x.requires_grad_() for x in copies
                  if isinstance(x, torch.Tensor) and x.is_floating_point()]
        output = function(*copies, **kwargs)
        weight = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype)
        grads = torch.autograd.grad((output * weight.reshape(output.shape)).sum(), leaves)
        for x, original in zip(copies, inputs, strict=True):
            if isinstance(x, torch.Tensor):
                assert torch.equal(x.detach(), original), "输入被改动了"
        results.append((output.detach(), *grads))
    tol = TOLERANCE[results[1][0].dtype] if tol is None else tol
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)


def refuses(function, *args, **kwargs):
    with pytest.raises(ValueError, match="[\u4e00-\u9fff]"):
        list(function(*args, **kwargs) or ())


# ---- 3.1 线性回归 ----


def check_linreg(ns):
    for (n, d), dtype in itertools.product(((1, 1), (7, 3), (20, 5)), TOLERANCE):
        same(ns["linreg"], lambda X, w, b: F.linear(X, w.T, b),
             randn(n, d, dtype=dtype), randn(d, 1, dtype=dtype, seed=1), randn(1, dtype=dtype))
    refuses(ns["linreg"], randn(4, 3), randn(2, 1), randn(1))


def check_squared_loss(ns):
    for shape, dtype in itertools.product(((5,), (4, 1), (2, 3, 4)), TOLERANCE):
        same(ns["squared_loss"], lambda a, b: F.mse_loss(a, b, reduction="none") / 2,
             randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=1))
    refuses(ns["squared_loss"], randn(4, 1), randn(4))


def check_sgd(ns):
    for lr, dtype in itertools.product((0.01, 1.5), TOLERANCE):
        mine = [randn(3, 2, dtype=dtype).requires_grad_(), randn(2, dtype=dtype).requires_grad_(),
                randn(2, dtype=dtype).requires_grad_()]
        theirs = [p.detach().clone().requires_grad_() for p in mine]
        optimizer = torch.optim.SGD(theirs, lr=lr)
        addresses = [p.data_ptr() for p in mine]
        for step in range(3):
            for params in (mine, theirs):
                for p in params[:2]:  # 第三个参数一直没有梯度
                    p.grad = None
                ((params[0] ** 2).sum() * (step + 1) + params[1].exp().sum()).backward()
            optimizer.step()
            assert ns["sgd"](iter(mine), lr) is None
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        assert [p.data_ptr() for p in mine] == addresses, "要原地更新"
        assert all(p.is_leaf and p.requires_grad for p in mine), "更新不能记进计算图"
    for lr in (0, -0.1, math.nan):
        refuses(ns["sgd"], mine, lr)


def check_minibatches(ns):
    for n, size, shape in ((10, 3, (2,)), (6, 6, ()), (5, 8, (1, 4, 4)), (7, 1, (3,))):
        X = torch.arange(n).reshape(n, *[1] * len(shape)).expand(n, *shape).float()
        y = 10 * torch.arange(n)
        batches = list(ns["minibatches"](X, y, size, torch.Generator().manual_seed(3)))
        order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
        assert [len(b) for _, b in batches] == [len(rows) for rows in order.split(size)]
        assert torch.equal(torch.cat([b for _, b in batches]), y[order])
        assert torch.equal(torch.cat([a for a, _ in batches]), X[order])
    g = torch.Generator().manual_seed(0)
    X, y = torch.arange(50.0), torch.arange(50)
    epochs = [torch.cat([b for _, b in ns["minibatches"](X, y, 7, g)]) for _ in range(2)]
    assert not torch.equal(*epochs), "每一轮都要重新打乱"
    assert len(list(ns["minibatches"](X, y, 20))) == 3
    refuses(ns["minibatches"], X, y[:-1], 7)
    for size in (0, -1):
        refuses(ns["minibatches"], X, y, size)


def check_normal_equation(ns):
    def reference(X, y):
        solution = torch.linalg.lstsq(X, y if y.dim() == 2 else y[:, None]).solution
        return solution if y.dim() == 2 else solution[:, 0]

    for (n, d, k), dtype in itertools.product(((6, 1, 1), (30, 4, 1), (30, 4, 3)), TOLERANCE):
        tol = 1e-4 if dtype == torch.float32 else 1e-9
        X = randn(n, d, dtype=dtype)
        same(ns["normal_equation"], reference, X, randn(n, k, dtype=dtype, seed=1), tol=tol)
        same(ns["normal_equation"], reference, X, randn(n, dtype=dtype, seed=2), tol=tol)
    X = randn(5, 2)
    refuses(ns["normal_equation"], torch.cat([X, X], 1), randn(5, 1))
    refuses(ns["normal_equation"], X, randn(4, 1))


# ---- 3.2 损失函数 ----


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


# ---- 3.3 学习率范围测试 ----


def small_problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    batches = [(randn(8, 3, seed=i), randn(8, 1, seed=50 + i)) for i in range(5)]
    return model, batches


def check_lr_range_test(ns):
    test = ns["lr_range_test"]
    model, batches = small_problem()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lrs, losses = test(model, F.mse_loss, batches, lr_min=1e-4, lr_max=1e-2, num_steps=12)
    assert lrs.shape == losses.shape == (12,)
    torch.testing.assert_close(lrs, torch.logspace(-4, -2, 12), rtol=1e-5, atol=0)
    after = model.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in after.items()), "要恢复参数和缓冲区"
    assert model.training and all(p.requires_grad for p in model.parameters())

    copy, _ = small_problem()  # 不用 lr_range_test，自己走一遍
    optimizer = torch.optim.SGD(copy.parameters(), lr=1)
    copy.train()
    for i in range(12):
        X, y = batches[i % 5]
        loss = F.mse_loss(copy(X), y)
        torch.testing.assert_close(losses[i].item(), loss.item(), rtol=1e-4, atol=1e-5)
        optimizer.param_groups[0]["lr"] = lrs[i].item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    linear = nn.Linear(3, 1)
    linear.eval()
    start = [p.detach().clone() for p in linear.parameters()]
    lrs, losses = test(linear, F.mse_loss, iter(batches * 40), lr_max=100.0, num_steps=150)
    assert 20 < len(lrs) == len(losses) < 150, "发散后要停下"
    assert losses[-1] > losses[0] and losses[:-1].isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(start, linear.parameters(), strict=True))
    assert not linear.training

    def fails(output, target):
        if torch.equal(target, batches[3][1]):
            raise RuntimeError("中断")
        return F.mse_loss(output, target)

    with pytest.raises(RuntimeError, match="中断"):
        test(linear, fails, batches, lr_min=0.01, lr_max=0.1)
    assert all(torch.equal(a, b) for a, b in zip(start, linear.parameters(), strict=True))
    for bad in (dict(lr_min=0.0), dict(lr_min=1.0, lr_max=0.1), dict(num_steps=0)):
        refuses(test, linear, F.mse_loss, batches, **bad)
    refuses(test, linear, F.mse_loss, [])


# ---- 3.4 简洁实现走过的轨迹 ----


def check_train_concise(ns):
    scratch = load_scratch(ROOT / ONE)
    for n, d, size in ((40, 1, 8), (50, 5, 16)):
        X, y = randn(n, d), 5 + randn(n, 1, seed=1, scale=3)
        w, b = torch.zeros(d, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        path = []
        for epoch in range(4):
            g = torch.Generator().manual_seed(7 + epoch)
            for X_batch, y_batch in scratch["minibatches"](X, y, size, g):
                w.grad = b.grad = None
                scratch["squared_loss"](scratch["linreg"](X_batch, w, b), y_batch).mean().backward()
                scratch["sgd"]([w, b], 0.1)
                path.append(torch.cat([w.flatten(), b]).detach())
        theirs = ns["train_concise"](X, y, lr=0.1, num_epochs=4, batch_size=size, seed=7)
        torch.testing.assert_close(theirs, torch.stack(path), rtol=1e-6, atol=1e-6)


# ---- 3.5 softmax 回归 ----


def check_softmax(name):
    def check(ns):
        mine, reference = ns[name], getattr(F, name)
        for dtype in TOLERANCE:
            for shape, dims in (((4,), (0, -1)), ((3, 5), (0, 1, -1)), ((2, 3, 4), (0, 1, 2, -2))):
                for dim, scale in itertools.product(dims, (1.0, 30.0, 1e4)):
                    same(lambda x: mine(x, dim), lambda x: reference(x, dim=dim),  # noqa: B023
                         randn(*shape, dtype=dtype, scale=scale))
            extreme = torch.tensor([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype=dtype)
            same(lambda x: mine(x, 1), lambda x: reference(x, dim=1), extreme)

    return check


def check_cross_entropy(ns):
    mine, reference = ns["cross_entropy"], F.cross_entropy
    g = torch.Generator().manual_seed(0)
    shapes = (
        ((5,), ()), ((6, 4), (6,)), ((1, 3), (1,)), ((2, 5, 3), (2, 3)), ((2, 5, 3, 4), (2, 3, 4)),
    )
    for (shape, target_shape), dtype, reduction in itertools.product(shapes, TOLERANCE, REDUCTIONS):
        C = shape[0] if len(shape) == 1 else shape[1]
        target = torch.randint(C, target_shape, generator=g)
        for scale in (1.0, 1e4):
            same(mine, reference, randn(*shape, dtype=dtype, scale=scale), target,
                 reduction=reduction)
        if target.dim():
            some = target.clone()
            some.view(-1)[0] = -100
            same(mine, reference, randn(*shape, dtype=dtype), some, reduction=reduction)
            same(mine, reference, randn(*shape, dtype=dtype), target, reduction=reduction,
                 ignore_index=1)
            # 全部忽略：平均值是 nan，其余是 0
            all_ignored = torch.full_like(target, -100)
            args = randn(*shape, dtype=dtype), all_ignored
            torch.testing.assert_close(mine(*args, reduction=reduction),
                                       reference(*args, reduction=reduction), equal_nan=True)
    same(mine, reference, randn(6, 4), torch.tensor([0, 1, 2, 3, 0, -100]))  # 默认值也相同
    refuses(mine, randn(6, 4), torch.zeros(6, dtype=torch.int64), reduction="average")
    refuses(mine, randn(6, 4), torch.zeros(5, dtype=torch.int64))
    refuses(mine, randn(6, 4), torch.full((6,), 4))


CHECKS = {
    ONE: {
        "linreg": check_linreg, "squared_loss": check_squared_loss, "sgd": check_sgd,
        "minibatches": check_minibatches, "normal_equation": check_normal_equation,
    },
    TWO: {
        "mse_loss": check_loss("mse_loss"),
        "l1_loss": check_loss("l1_loss"),
        "huber_loss": check_loss("huber_loss", delta=(0.3, 1.0, 2.5)),
        "smooth_l1_loss": check_loss("smooth_l1_loss", beta=(0.0, 0.3, 1.0, 2.5)),
    },
    THREE: {"lr_range_test": check_lr_range_test},
    FOUR: {"train_concise": check_train_concise},
    FIVE: {
        "softmax": check_softmax("softmax"), "log_softmax": check_softmax("log_softmax"),
        "cross_entropy": check_cross_entropy,
    },
}
CASES = [(notebook, name) for notebook, checks in CHECKS.items() for name in checks]


def test_every_promised_name_has_a_check():
    assert {(notebook, n) for notebook, c in CONTRACT.items() for n in c.names} == set(CASES)


@pytest.mark.parametrize("notebook", CONTRACT)
def test_promised_names_exist(notebook):
    names = load_scratch(ROOT / notebook)
    missing = [name for name in CONTRACT[notebook].names if name not in names]
    assert not missing, f"{notebook} 的 scratch 格里没有 {missing}"


@pytest.mark.parametrize(("notebook", "name"), CASES)
def test_parity(notebook, name):
    CHECKS[notebook][name](load_scratch(ROOT / notebook))


# ---- 改坏的实现一定被发现：(笔记本, 名字, 原来的文字, 换成的文字) ----

BROKEN = [
    (ONE, "linreg", "X @ w + b", "X @ w - b"),
    (ONE, "squared_loss", "(y_hat - y) ** 2 / 2", "(y_hat - y) ** 2"),
    (ONE, "squared_loss", "if y_hat.shape != y.shape", "if False"),
    (ONE, "sgd", "p -= lr * p.grad", "p += lr * p.grad"),
    (ONE, "sgd", "if not lr > 0", "if lr < 0"),
    (ONE, "minibatches", "y[rows]", "y[start : start + batch_size]"),
    (ONE, "minibatches", "range(0, len(X), batch_size)", "range(0, len(X) - 1, batch_size)"),
    (ONE, "normal_equation", "X.T @ y", "X.T @ (y + 1e-2)"),
    (TWO, "mse_loss", "difference(input, target) ** 2", "difference(input, target) ** 2 / 2"),
    (TWO, "l1_loss", ".abs(), reduction)", ".abs(), 'mean')"),
    (TWO, "huber_loss", "delta / 2", "delta"),
    (TWO, "smooth_l1_loss", "if beta == 0", "if beta == -1"),
    (THREE, "lr_range_test", "copy.deepcopy(model).train()", "model.train()"),
    (THREE, "lr_range_test", "lr * p.grad", "lrs[0] * p.grad"),
    (FOUR, "train_concise", "lr=lr / 2", "lr=lr"),
    (FIVE, "softmax", "torch.exp(x - m)", "torch.exp(x)"),
    (FIVE, "log_softmax", "shifted = x - m", "shifted = x"),
    (FIVE, "cross_entropy", "losses.sum() / valid.sum()", "losses.mean()"),
    (FIVE, "cross_entropy", "dim = 1 if input.dim() > 1 else 0", "dim = -1"),
]


@pytest.mark.parametrize(("notebook", "name", "old", "new"), BROKEN)
def test_a_broken_definition_is_noticed(notebook, name, old, new):
    namespace = load_scratch(ROOT / notebook)
    cells = [source(c) for c in code_cells(load(ROOT / notebook)) if "scratch" in tags(c)]
    cells = [code for code in cells if old in code]
    assert cells, f"{notebook} 的 scratch 格里没有 {old!r}，请更新 BROKEN"
    for code in cells:
        exec(code.replace(old, new), namespace)
    noticed = (AssertionError, RuntimeError, ValueError, IndexError, pytest.fail.Exception)
    with pytest.raises(noticed):
        CHECKS[notebook][name](namespace)


# ---- 从零实现不调用它的对照物 ----


def forbidden_uses(code: str, forbidden: frozenset[str]) -> list[str]:
    """代码里用到的不许用的属性、导入和 getattr 的名字。"""
    found = []
    for node in ast.walk(parse(code)):
        if isinstance(node, ast.Attribute) and node.attr in forbidden:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found += [a.name for a in node.names if a.name in forbidden]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            found += [a.value for a in node.args[1:2]
                      if isinstance(a, ast.Constant) and a.value in forbidden]
    return found


@pytest.mark.parametrize("notebook", CONTRACT)
def test_scratch_never_calls_its_counterpart(notebook):
    cells = code_cells(load(ROOT / notebook))
    code = "\n\n".join(source(c) for c in cells[1:] if {"setup", "scratch"} & set(tags(c)))
    found = forbidden_uses(code, CONTRACT[notebook].forbidden)
    assert not found, f"{notebook} 的 scratch 格用到了 {found}"


@pytest.mark.parametrize(("code", "clean"), [
    ("def softmax(x, dim):\n    return x.exp()\n\n\ndef f(x):\n    return softmax(x, 1)", True),
    ("y = torch.softmax(x, 1)", False),
    ("y = x.softmax(1)", False),
    ("y = F.softmax(x, 1)", False),
    ("y = torch.special.softmax(x, 1)", False),
    ("from torch.nn.functional import softmax as s", False),
    ("y = getattr(F, 'softmax')(x, 1)", False),
])
def test_forbidden_calls_are_noticed(code, clean):
    assert (forbidden_uses(code, frozenset({"softmax"})) == []) == clean


def test_contract_names_real_notebooks():
    assert set(CONTRACT) <= {name_of(path) for path in NOTEBOOKS}
