"""每个笔记本的约定：lessons 里与笔记本同名的一个文件。

每个文件写明：
    NAMES: 运行 setup 和 scratch 格之后必须有的名字。
    FORBIDDEN: scratch 格里不能用的属性、方法和导入：从零实现不能调用它的对照物，
        也不能调用替它做完工作的函数。
    CHECKS: 名字 → 检查，检查收到 scratch 格的名字空间，不对就抛出异常。
    BROKEN: (名字, 原来的文字, 换成的文字)，这样改坏 scratch 格，检查必须能发现。
    MUTATIONS: 每道编程练习一个列表，把参考答案里的一段换成另一段，练习的检查必须能发现。
"""

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).with_name("lessons")


def _load(path: Path) -> ModuleType:
    name = f"lesson_{path.parent.name[:2]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    lesson = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lesson)
    return lesson


LESSONS = {f"{p.parent.name}/{p.stem}.ipynb": _load(p) for p in sorted(FOLDER.glob("*/*.py"))}
