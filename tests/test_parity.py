"""从零实现的函数与 PyTorch 的对照物相等：数值、梯度、多种形状和数据类型。

每个笔记本的约定写在 lessons 里；定义取自笔记本自己的 scratch 格。
每个检查还要能发现被改坏的实现（BROKEN）。
"""

import ast

import pytest
from lessons import LESSONS
from notebook_files import ROOT, code_cells, load, source
from notebooks import NOTEBOOKS, load_scratch, name_of, run_cells, tags
from rules import parse

CASES = [(notebook, name) for notebook, lesson in LESSONS.items() for name in lesson.CHECKS]
BROKEN = [(notebook, *row) for notebook, lesson in LESSONS.items() for row in lesson.BROKEN]


def test_every_notebook_has_its_lesson_file():
    assert set(LESSONS) == {name_of(path) for path in NOTEBOOKS}


@pytest.mark.parametrize("notebook", LESSONS)
def test_every_promised_name_has_a_check(notebook):
    assert set(LESSONS[notebook].NAMES) == set(LESSONS[notebook].CHECKS)


@pytest.mark.parametrize("notebook", LESSONS)
def test_promised_names_exist(notebook):
    names = load_scratch(ROOT / notebook)
    missing = [name for name in LESSONS[notebook].NAMES if name not in names]
    assert not missing, f"{notebook} 的 scratch 格里没有 {missing}"


@pytest.mark.parametrize(("notebook", "name"), CASES)
def test_parity(notebook, name):
    LESSONS[notebook].CHECKS[name](load_scratch(ROOT / notebook))


# ---- 改坏的实现一定被发现 ----


@pytest.mark.parametrize("notebook", LESSONS)
def test_every_check_has_a_broken_definition(notebook):
    lesson = LESSONS[notebook]
    assert set(lesson.NAMES) <= {row[0] for row in lesson.BROKEN}


@pytest.mark.parametrize(("notebook", "name", "old", "new"), BROKEN)
def test_a_broken_definition_is_noticed(notebook, name, old, new):
    cells = [c for c in code_cells(load(ROOT / notebook)) if {"setup", "scratch"} & set(tags(c))]
    changed = [source(c).replace(old, new) if "scratch" in tags(c) else source(c) for c in cells]
    assert changed != [source(c) for c in cells], f"{notebook} 的 scratch 格里没有 {old!r}"
    namespace = run_cells(changed)
    noticed = (AssertionError, RuntimeError, ValueError, IndexError, pytest.fail.Exception)
    with pytest.raises(noticed):
        LESSONS[notebook].CHECKS[name](namespace)


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


@pytest.mark.parametrize("notebook", LESSONS)
def test_scratch_never_calls_its_counterpart(notebook):
    cells = code_cells(load(ROOT / notebook))
    code = "\n\n".join(source(c) for c in cells[1:] if {"setup", "scratch"} & set(tags(c)))
    found = forbidden_uses(code, LESSONS[notebook].FORBIDDEN)
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
