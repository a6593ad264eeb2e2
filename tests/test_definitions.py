"""同一个名字在几个笔记本里都有定义时，要么完全相同，要么在这里说明为什么不同。"""

import ast

import pytest
from notebook_files import code_cells, load, source
from notebooks import NOTEBOOKS, name_of, tags
from rules import parse

# 名字 → 为什么各个笔记本里的定义故意不同
DELIBERATELY_DIFFERENT: dict[str, str] = {
    "matmul": "2.3 节是张量的矩阵乘法；2.5 节是自动微分引擎里的一种运算",
    "relu": "2.5 节是自动微分引擎里的一种运算；4.1 节是张量的激活函数",
    "tanh": "2.5 节是自动微分引擎里的一种运算；4.1 节是张量的激活函数，0 附近不损失精度",
    "cross_entropy": "4.11 节在 3.5 节的基础上加了类别权重、标签平滑和概率标签",
    "one_epoch": "测速用的小函数：3.4 节替换数据管道，3.6 节替换每一步的做法",
}


def definitions(path) -> dict[str, str]:
    """一个笔记本最外层的函数和类：名字 → 代码（注释和空白不算）。练习的空函数不算。"""
    found = {}
    for cell in code_cells(load(path)):
        if "exercise" not in tags(cell):
            for node in parse(source(cell)).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found[node.name] = ast.unparse(node)
    return found


def different(places: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """places 是 笔记本 → 定义。返回定义不止一种的名字 → 各种定义所在的笔记本。"""
    versions: dict[str, dict[str, list[str]]] = {}
    for place, names in places.items():
        for name, code in names.items():
            versions.setdefault(name, {}).setdefault(code, []).append(place)
    return {
        name: ["、".join(where) for where in by_code.values()]
        for name, by_code in versions.items() if len(by_code) > 1
    }


def test_repeated_definitions_are_identical():
    found = different({name_of(path): definitions(path) for path in NOTEBOOKS})
    unexplained = {k: v for k, v in found.items() if k not in DELIBERATELY_DIFFERENT}
    text = "\n".join(f"{name}：{' ≠ '.join(where)}" for name, where in unexplained.items())
    assert not unexplained, f"\n同名的定义不同：请改成一样，或写进 DELIBERATELY_DIFFERENT\n{text}"
    stale = set(DELIBERATELY_DIFFERENT) - set(found)
    assert not stale, f"这些名字的定义已经没有不同：{stale}"


@pytest.mark.parametrize(("code", "same"), [
    ("def f(x):  # 注释不算\n\n    return x + 1", True),
    ("def f(x):\n    return x + 2", False),
    ("def f(x):\n    '''说明也要相同。'''\n    return x + 1", False),
    ("def f(x: int):\n    return x + 1", False),
])
def test_differences_are_noticed(code, same):
    first = {"f": ast.unparse(ast.parse("def f(x):\n    return x + 1").body[0])}
    second = {"f": ast.unparse(ast.parse(code).body[0])}
    assert (different({"a": first, "b": second}) == {}) == same
