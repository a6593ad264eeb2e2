"""测试用的笔记本工具：取出单元格、定义和练习。"""

import contextlib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from notebook_files import ROOT, all_notebooks, code_cells, load, source

matplotlib.use("Agg")
NOTEBOOKS = all_notebooks(ROOT)


def name_of(path: Path) -> str:
    """相对于课程根目录的路径，用作测试的名字。"""
    return path.relative_to(ROOT).as_posix()


def tags(cell: dict) -> list[str]:
    """单元格的标签。"""
    return cell["metadata"].get("tags", [])


@functools.cache
def _scratch_code(path: Path) -> tuple:
    cells = [c for c in code_cells(load(path)) if {"setup", "scratch"} & set(tags(c))]
    return tuple(compile(source(c), f"{path.name}[{i}]", "exec") for i, c in enumerate(cells))


def run_cells(cells) -> dict:
    """依次运行几格代码（文字或编译好的），返回其中定义的名字。"""
    namespace = {"__name__": "__main__"}
    before = os.environ.get("COURSE_ROOT")
    os.environ["COURSE_ROOT"] = str(ROOT)
    try:
        with contextlib.redirect_stdout(None):
            for code in cells:
                exec(code, namespace)
    finally:
        if before is None:
            del os.environ["COURSE_ROOT"]
        else:
            os.environ["COURSE_ROOT"] = before
    return namespace


def load_scratch(path: Path) -> dict:
    """依次运行标签为 setup 和 scratch 的格，返回其中定义的名字。不训练，不读数据。"""
    return run_cells(_scratch_code(path))


@dataclass(frozen=True)
class Exercise:
    """一道编程练习：题目的标题、练习格的代码、答案的代码。"""

    heading: str
    stub: str
    answer: str


def exercises(path: Path) -> list[Exercise]:
    """一个笔记本的全部编程练习。

    异常:
        ValueError: 练习格的前后不是“题目、答案”两个 Markdown 格。
    """
    cells, found = load(path)["cells"], []
    for i, cell in enumerate(cells):
        if "exercise" not in tags(cell):
            continue
        before = source(cells[i - 1]) if cells[i - 1]["cell_type"] == "markdown" else ""
        after = source(cells[i + 1]) if i + 1 < len(cells) else ""
        fences = re.findall(r"```python\n(.*?)```", after, re.DOTALL)
        if "### " not in before or "<details>" not in after or len(fences) != 1:
            raise ValueError(f"{path.name}：第 {i} 格的练习要夹在题目和答案之间，答案是一段代码。")
        heading = re.findall(r"^### (.+)$", before, re.MULTILINE)[-1]
        found.append(Exercise(heading, source(cell), fences[0]))
    return found
