"""笔记本作为文件：读写、哈希、仓库地址、README 的表格。"""

import os
import shutil
from pathlib import Path

import notebook_files
import pytest

README = """# 课程

<!-- repository:begin -->
先下载课程。
<!-- repository:end -->

正文

<!-- notebooks:begin -->
<!-- notebooks:end -->

结尾
"""
CARD = "| 项目 | 内容 |\n|---|---|\n| 先修 | 无 |\n| 动手构建 | 一个 `a` |\n"
STUB_COMMON = """import os
def provenance():
    profile = os.environ.get("COURSE_PROFILE", "cpu")
    return {"torch": "2.6.0", "device": "cpu", "profile": profile, "data": ["玩具数据"]}
"""


def make_notebook(path: Path, setup: str, codes: list, title: str) -> Path:
    """写一个小笔记本；codes 的每一项是代码，或 (代码, 标签)。"""
    cells = [("markdown", f"# {title}\n\n一句话。", None), ("markdown", CARD, None)]
    cells += [("code", setup, "setup")]
    cells += [("code", *(c if isinstance(c, tuple) else (c, None))) for c in codes]
    nb = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    for number, (kind, text, tag) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number:03d}", "source": text,
                "metadata": {"tags": [tag]} if tag else {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        nb["cells"].append(cell)
    path.parent.mkdir(exist_ok=True)
    notebook_files.save(path, nb)
    return path


def make_course(tmp_path: Path, notebooks: dict[str, list]) -> Path:
    """一个小课程：真的准备代码，假的 common；notebooks 是 文件名 → 代码格。"""
    root = tmp_path / "深度 学习"
    for folder in ("00_setup", "common", "01_first"):
        (root / folder).mkdir(parents=True)
    shutil.copy(notebook_files.ROOT / "00_setup" / "setup_cell.py", root / "00_setup")
    (root / "common" / "__init__.py").write_text(STUB_COMMON, encoding="utf-8")
    (root / "README.md").write_text(README, encoding="utf-8")
    (root / "01_first" / "README.md").write_text("# 第 1 章 开头\n", encoding="utf-8")
    setup = notebook_files.setup_cell(root)
    for number, (name, codes) in enumerate(notebooks.items(), start=1):
        make_notebook(root / name, setup, codes, f"1.{number} 小例子")
    return root.resolve()


def everything(root: Path) -> dict[str, bytes]:
    """全部文件的内容。"""
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def course(tmp_path):
    root = make_course(tmp_path, {"01_first/01_a.ipynb": ["x = 1"], "01_first/02_b.ipynb": []})
    if notebook_files.repository(root):  # 真的课程已经发布时，从没有地址的样子开始
        path = root / "00_setup" / "setup_cell.py"
        text = path.read_text(encoding="utf-8")
        text = notebook_files.ADDRESS.sub('REPOSITORY = ""', text)
        path.write_text(text, encoding="utf-8")
    return root


# ---- 读写 ----


def test_course_order(tmp_path):
    for name in ("10_z/01_a", "02_b/10_x", "02_b/02_y", "02_b/notes", "00_setup/01_i",
                 "02_b/.ipynb_checkpoints/02_y-checkpoint", "extra/01_a"):
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [p.relative_to(tmp_path).as_posix() for p in notebook_files.all_notebooks(tmp_path)]
    assert found == ["00_setup/01_i.ipynb", "02_b/02_y.ipynb", "02_b/10_x.ipynb",
                     "10_z/01_a.ipynb"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": [], "metadata": {}}', "12"])
def test_load_refuses_what_is_not_a_notebook(tmp_path, text):
    path = tmp_path / "坏.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="坏.ipynb 不是完整的笔记本文件"):
        notebook_files.load(path)


def test_save_is_atomic_and_readable(course, monkeypatch):
    path = course / "01_first" / "01_a.ipynb"
    before = path.read_bytes()
    nb = notebook_files.load(path)
    notebook_files.save(path, nb)
    assert path.read_bytes() == before
    assert "小例子" in before.decode("utf-8") and before.endswith(b"}\n") and b"\r" not in before

    def no_space(*_):
        raise OSError("磁盘已满")

    nb["cells"][0]["source"] = "改动"
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError):
        notebook_files.save(path, nb)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["01_a.ipynb", "02_b.ipynb",
                                                            "README.md"]


def test_code_hash_sees_code_only(course):
    nb = notebook_files.load(course / "01_first" / "01_a.ipynb")
    before = notebook_files.code_hash(nb)
    nb["cells"][0]["source"] = "# 另一个标题"
    nb["cells"][2]["source"] = "# 准备代码不算"
    nb["cells"][3] |= {"outputs": [{"output_type": "stream"}], "source": ["x ", "= 1"]}
    assert notebook_files.code_hash(nb) == before
    nb["cells"][3]["source"] = "x = 2"
    assert notebook_files.code_hash(nb) != before


def test_title_and_card(course):
    nb = notebook_files.load(course / "01_first" / "01_a.ipynb")
    assert notebook_files.title(nb) == "1.1 小例子"
    assert notebook_files.card_row(nb, "动手构建") == "一个 `a`"
    assert notebook_files.card_row(nb, "没有这一行") == ""
    nb["cells"][1]["source"] = "|动手构建| $\\|x\\|$ 与 `b` |\n"
    assert notebook_files.card_row(nb, "动手构建") == "$\\|x\\|$ 与 `b`"


# ---- 仓库地址 ----


def test_stamp_everywhere_without_touching_hashes(course):
    paths = notebook_files.all_notebooks(course)
    hashes = [notebook_files.code_hash(notebook_files.load(p)) for p in paths]
    url = "https://github.com/someone/course"
    notebook_files.stamp(course, url + "/")
    assert notebook_files.repository(course) == url
    for path in paths:
        first = notebook_files.code_cells(notebook_files.load(path))[0]
        assert notebook_files.source(first) == notebook_files.setup_cell(course)
        compile(notebook_files.source(first), path.name, "exec")
    assert [notebook_files.code_hash(notebook_files.load(p)) for p in paths] == hashes
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert f"git clone {url} course" in readme and "先下载课程" not in readme
    link = "https://colab.research.google.com/github/someone/course/blob/main/01_first/01_a.ipynb"
    assert f"[打开]({link})" in readme

    once = everything(course)
    notebook_files.stamp(course, url)
    assert everything(course) == once

    other = "https://git.example.cn/课程/github.com"
    notebook_files.stamp(course, other)
    text = b"".join(everything(course).values()).decode("utf-8")
    assert url not in text and other in text and "Colab |" not in text  # Colab 只认识 GitHub
    assert [notebook_files.code_hash(notebook_files.load(p)) for p in paths] == hashes


@pytest.mark.parametrize("url", [
    "", "github.com/a/b", "ftp://host/a", "https://", "https:///a", 'https://host/"; import os',
    "https://host/a b", "https://user:secret@host/a", "https://host/a\\", "https://host/a\nb",
    "javascript:alert(1)", "https://host/a) [x](y",
])
def test_stamp_refuses_other_addresses(course, url):
    before = everything(course)
    with pytest.raises(ValueError, match="http"):
        notebook_files.stamp(course, url)
    assert everything(course) == before


@pytest.mark.parametrize("broken", ["01_first/02_b.ipynb", "00_setup/setup_cell.py"])
def test_stamp_changes_all_or_nothing(course, broken):
    (course / broken).write_text("{", encoding="utf-8")
    before = everything(course)
    with pytest.raises(ValueError):
        notebook_files.stamp(course, "https://github.com/a/b")
    assert everything(course) == before


# ---- README ----


def test_readme_table(course):
    path = course / "01_first" / "01_a.ipynb"
    nb = notebook_files.load(path)
    nb["metadata"]["course"] = {"seconds": 12.6, "peak_memory_mb": 345}
    notebook_files.save(path, nb)
    (course / "02_second").mkdir()  # 还没有 README 的一章
    shutil.copy(path, course / "02_second" / "01_c.ipynb")
    notebook_files.update_readme(course)
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# 课程\n") and readme.endswith("\n结尾\n") and "先下载" in readme
    heading = "### [第 1 章 开头](01_first/README.md)"
    assert f"{heading}\n\n| 笔记本 | 动手构建 | CPU 用时 | 内存 |\n" in readme
    assert "| [1.1 小例子](01_first/01_a.ipynb) | 一个 `a` | 13 秒 | 345 MB |\n" in readme
    assert "| [1.2 小例子](01_first/02_b.ipynb) | 一个 `a` | — | — |\n" in readme
    assert "### 02_second\n" in readme
    assert notebook_files.readme_text(course) == readme
    nb["metadata"]["course"]["seconds"] = 0.2
    notebook_files.save(path, nb)
    assert notebook_files.readme_text(course) != readme  # 数字一变，下面的检查就会失败
    assert "| 1 秒 |" in notebook_files.readme_table(course)


def test_course_without_a_readme(course):
    (course / "README.md").unlink()
    notebook_files.update_readme(course)
    assert not (course / "README.md").exists()


def test_readme_of_this_course_is_up_to_date():
    saved = (notebook_files.ROOT / "README.md").read_text(encoding="utf-8")
    assert saved == notebook_files.readme_text(), "请运行 start.py run 路径 --save 更新 README"


def test_cover_is_a_figure_of_the_saved_notebook():
    saved = (notebook_files.ROOT / "00_setup" / "cover.png").read_bytes()
    assert saved == notebook_files.cover(), "请运行 start.py run 3.1 节 --save 更新封面"
