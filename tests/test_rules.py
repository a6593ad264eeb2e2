"""全部笔记本和页面都要遵守规则；每条规则都有一个过不了它的坏笔记本，证明它真的在检查。"""

import copy
from types import SimpleNamespace

import page_rules
import pytest
import rules
from lessons import LESSONS
from notebook_files import ROOT, code_hash, load, setup_cell, source
from notebooks import NOTEBOOKS, name_of

import common

PAGES = sorted(ROOT.glob("*.md")) + sorted(
    page for page in ROOT.glob("*/**/*.md")
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
    and "site-packages" not in page.parts
)
PATH = ROOT / "03_linear_regression" / "99_example.ipynb"

# ---- 真正的笔记本和页面 ----


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_notebook(path, rule):
    found = rules.problems(path, rule)
    assert not found, f"\n{name_of(path)}\n规则：{rule.__doc__}\n" + "\n".join(found)


PAGE_RULES = [
    page_rules.punctuation, page_rules.spacing, page_rules.formulas, page_rules.heading_levels,
    page_rules.remote_images, page_rules.net_disks, page_rules.glossary,
]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page(path):
    text = path.read_text(encoding="utf-8")
    found = page_rules.links(path, text)
    for rule in PAGE_RULES:
        if not (path == page_rules.GLOSSARY and rule is page_rules.glossary):
            found += rule(text)
    assert not found, f"\n{path.relative_to(ROOT)}\n" + "\n".join(found)


# ---- 一个小小的好笔记本 ----

TITLE = "# 3.99 例子：一条直线\n\n这一节画一条直线 $y = 2x$，再用 `print` 打印它。"
CARD = """| 项目 | 内容 |
|---|---|
| 学习目标 | 画图 |
| 先修 | [本章说明](README.md) |
| 阅读与运行时间 | 约 1 分钟 |
| 数据 | Fashion-MNIST |
| 动手构建 | 一个函数 |"""
IMPORTS = "import matplotlib.pyplot as plt\nimport torch\n\nimport common"
SCRATCH = 'def double(x: torch.Tensor) -> torch.Tensor:\n    """两倍。"""\n    return 2 * x'
BODY = """## 1. 一条直线

直线是 $y = 2x$，也就是

$$
\\begin{aligned}
y = 2x
\\end{aligned}
$$

价格是 3 元，见 [说明](../00_setup/08_glossary.md#记号) 和 `double`。

### 小标题

第 3 轮结束。"""
STUB = '''def triple(x: torch.Tensor) -> torch.Tensor:
    """三倍。"""
    raise NotImplementedError


common.check_exercise(triple, lambda x: x * 3, lambda g: (torch.randn(2, generator=g),))'''
ANSWER = '''<details><summary>参考答案</summary>

提示：乘以 3。

```python
def triple(x: torch.Tensor) -> torch.Tensor:
    """三倍。"""
    return 3 * x
```

</details>'''
FOLDED = "\n\n<details><summary>参考答案</summary>\n\n不会。\n\n</details>"


def markdown(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, *tags, out=None, error=False):
    outputs = [{"output_type": "stream", "name": "stdout", "text": out}] if out else []
    if error:
        outputs = [{"output_type": "error", "ename": "ValueError", "evalue": "x",
                    "traceback": ["ValueError: x"]}]
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "metadata": metadata, "outputs": outputs, "source": text}


# 单元格的次序，下面的坏笔记本用这些名字指明改哪一格
NAMES = (
    "title card setup imports body scratch plot check pytorch wrong raises summary task stub "
    "answer end"
).split()


def good() -> dict:
    """遵守全部规则的最小笔记本。"""
    cells = [
        markdown(TITLE),
        markdown(CARD),
        code(setup_cell(ROOT), "setup"),
        code(IMPORTS, "setup"),
        markdown(BODY),
        code(SCRATCH, "scratch"),
        code('plt.plot([0, 1], label="a line")\nplt.title("A line")\nplt.show()', out="图\n"),
        code("data = common.fashion_mnist()\nprint(double(torch.ones(2)))",
             "nbval-check-output", out="tensor([2., 2.])\n"),
        markdown("## 2. 对照 PyTorch\n\n一样。"),
        markdown("## 3. 常见错误\n\n看下面。"),
        code('raise ValueError("x")', "raises-exception", error=True),
        markdown("## 4. 小结\n\n完了。\n\n## 5. 练习\n\n"
                 f"### 练习 1　概念：想一想（★，5 分钟）\n\n会变吗？{FOLDED}"),
        markdown("### 练习 2　编程：三倍（★★，10 分钟）\n\n写出来。"),
        code(STUB, "exercise", out="尚未完成\n"),
        markdown(ANSWER),
        markdown(f"### 练习 3　探索：改一改（★★★，15 分钟）\n\n改大。{FOLDED}\n\n"
                 "## 6. 延伸阅读\n\n- A. B. Author（2020），*A Title*。<https://example.org/>"),
    ]
    nb = {
        "cells": cells, "nbformat": 4, "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "course": {
                "code_sha256": "", "torch": "2.6.0", "device": "cpu", "profile": "cpu",
                "data": ["Fashion-MNIST（真实数据）"], "seconds": 1.0, "peak_memory_mb": 300,
            },
        },
    }
    return finish(nb)


def finish(nb: dict) -> dict:
    """补上 id、运行次序和代码的哈希。"""
    count = 0
    for i, cell in enumerate(nb["cells"]):
        cell["id"] = f"cell-{i:03d}"
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
    nb["metadata"]["course"]["code_sha256"] = code_hash(nb)
    return nb


def failing(nb: dict, path=PATH) -> dict:
    """没有通过的规则 → 问题。"""
    found = {rule.__name__: rule(path, nb) for rule in rules.RULES}
    return {name: problems for name, problems in found.items() if problems}


def cell(nb: dict, name: str) -> dict:
    return nb["cells"][NAMES.index(name)]


@pytest.fixture(autouse=True)
def _same_contract(monkeypatch):
    """例子也算有约定的笔记本，并且允许链接到一个现成的标题。"""
    name = name_of(PATH)
    monkeypatch.setitem(LESSONS, name, SimpleNamespace(NAMES=("double",)))


def test_the_good_notebook_breaks_no_rule():
    assert failing(good()) == {}


# ---- 坏笔记本：(规则, 单元格, 原来的文字, 换成的文字) ----

REPLACED = [
    # 6.2
    ("setup_cells", "setup", "import os\n", "import os\nimport numpy\n"),
    ("setup_cells", "imports", "import common", "import common\nx = 1"),
    ("imports_are_used", "imports", "import torch\n", "import math\n\nimport torch\n"),
    # 6.3
    ("allowed_imports", "plot", "plt.plot", "import sklearn\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", "from common.data import _record\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", "import common.data\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", "common.train()\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", "%run 01_a.ipynb\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", "!pip install x\nplt.plot"),
    ("allowed_imports", "plot", "plt.plot", 'runpy.run_path("01_a.ipynb")\nplt.plot'),
    # 6.5
    ("cell_lengths", "plot", "plt.plot", "\n" * 25 + "plt.plot"),
    ("cell_lengths", "plot", "plt.plot", f"a = '{'x' * 100}'\nplt.plot"),
    # 6.7
    ("forbidden_imports", "plot", "plt.plot", "from tqdm.auto import tqdm\nplt.plot"),
    ("forbidden_imports", "plot", "plt.plot", "import tqdm.notebook\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "DataLoader(x, num_workers=2)\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "resnet18(pretrained=True)\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "torch.load(f)\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "torch.load(f, weights_only=False)\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "open('a.txt')\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "open('a.txt', 'w')\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "p.read_text()\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "p.write_text('a')\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "p.open()\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "gzip.open(p, 'rt')\nplt.plot"),
    ("forbidden_calls", "plot", "plt.plot", "get(u, verify=False)\nplt.plot"),
    ("forbidden_calls", "answer", "return 3", "open('a.txt')\n    return 3"),
    ("forbidden_names", "plot", "plt.plot", "clear_output()\nplt.plot"),
    ("forbidden_names", "plot", "plt.plot",
     "ssl._create_default_https_context = ssl._create_unverified_context\nplt.plot"),
    ("forbidden_names", "plot", "plt.plot", "d['KMP_DUPLICATE_LIB_OK'] = 'TRUE'\nplt.plot"),
    ("data_attribute", "plot", "plt.plot", "w.data -= 1\nplt.plot"),
    ("data_attribute", "plot", "plt.plot", "w.data[0] = 1\nplt.plot"),
    ("data_attribute", "plot", "plt.plot", "x = w.data * 2\nplt.plot"),
    ("data_attribute", "plot", "plt.plot", "w.data.copy_(x)\nplt.plot"),
    ("pictures_and_sources", "body", "价格", "![图](https://example.org/a.png) 价格"),
    ("pictures_and_sources", "body", "价格", "<img src='https://example.org/a.png'> 价格"),
    ("pictures_and_sources", "body", "价格", "<https://pan.baidu.com/s/1abc> 价格"),
    # 6.10
    ("glossary", "body", "价格", "样例的价格"),
    ("glossary", "scratch", "两倍。", "矢量的两倍。"),
    ("formulas", "body", "价格", "价格 $ 也"),
    ("formulas", "body", "价格", "$ x $ 是价格"),
    ("formulas", "body", "价格", "$$ 价格"),
    ("formulas", "body", "价格", "\\begin{align} x \\end{align} 价格"),
    ("punctuation", "body", "价格是", "价格,是"),
    ("punctuation", "body", "价格是", "价格, 是"),
    ("punctuation", "body", "第 3 轮结束。", "第 3 轮结束."),
    ("punctuation", "body", "价格是", "价格(元)是"),
    ("punctuation", "body", "价格是", '"价格"是'),
    ("punctuation", "body", "价格是", "价格**大**:是"),
    ("spacing", "body", "第 3 轮", "第3轮"),
    ("spacing", "body", "价格", "loss的价格"),
    ("spacing", "body", "直线是 $", "直线是$"),
    ("spacing", "body", "和 `double`", "和`double`"),
    ("spacing", "body", "价格", "**loss**的价格"),
    # 6.11
    ("links", "body", "../00_setup/08_glossary.md#记号", "missing.md"),
    ("links", "body", "../00_setup/08_glossary.md#记号", "../00_setup/08_glossary.md#没有这个标题"),
    ("links", "body", "../00_setup/08_glossary.md#记号", "../../outside.md"),
    ("links", "body", "价格", "<a href='missing.md'>那里</a>"),
    ("heading_levels", "body", "### 小标题", "#### 小标题"),
    ("heading_levels", "body", "### 小标题", "# 小标题"),
    ("title_number", "title", "3.99", "3.98"),
    # 结构
    ("card", "card", "| 先修 |", "| 需要 |"),
    ("ending_sections", "wrong", "常见错误", "别的"),
    ("ending_sections", "pytorch", "对照 PyTorch", "别的"),
    ("ending_sections", "pytorch", "对照 PyTorch", "延伸阅读\n\n## 2. 小结"),
    ("exercise_headings", "end", "★★★，15 分钟", "难"),
    ("exercise_headings", "end", "探索：", "概念："),
    ("exercise_headings", "end", "<details><summary>参考答案</summary>", "答案"),
    ("coding_exercises", "stub", "x: torch.Tensor", "x"),
    ("coding_exercises", "stub", " -> torch.Tensor", ""),
    ("coding_exercises", "stub", "common.check_exercise(", "print("),
    ("coding_exercises", "stub", "raise NotImplementedError", "return x"),
    ("coding_exercises", "answer", "提示：", ""),
    ("coding_exercises", "answer", "```python", "```text"),
    # 5
    ("scratch_cells", "scratch", "def double", "x = torch.ones(3)\n\n\ndef double"),
    ("checked_outputs", "check", "print", "common.expect(True, '对')\nprint"),
    ("plot_text", "plot", "A line", "一条直线"),
    ("plot_text", "plot", "a line", "一条直线"),
    ("plot_text", "plot", "plt.plot(", "common.plot_curves({'损失': x})\nplt.plot("),
    ("plot_text", "plot", "plt.plot(", "ax.set(xlabel=f'第 {i} 轮')\nplt.plot("),
]


@pytest.mark.parametrize(("rule", "name", "old", "new"), REPLACED)
def test_bad_text_breaks_exactly_its_rule(rule, name, old, new):
    nb = good()
    assert old in source(cell(nb, name))
    cell(nb, name)["source"] = source(cell(nb, name)).replace(old, new, 1)
    assert set(failing(finish(nb))) == {rule}


def _set(where, **values):
    def change(nb):
        target = nb["metadata"] if where == "nb" else (
            nb["metadata"]["course"] if where == "course" else cell(nb, where))
        target.update(values)

    return change


def _stream(text, name="stdout"):
    return [{"output_type": "stream", "name": name, "text": text}]


def _shown(kind, value):
    return [{"output_type": "display_data", "metadata": {}, "data": {kind: value}}]


CHANGED = [
    ("setup_cells", _set("plot", metadata={"tags": ["setup"]})),
    ("setup_cells", _set("imports", metadata={})),
    ("execution_order", _set("plot", execution_count=None)),
    ("execution_order", _set("plot", execution_count=99)),
    ("execution_order", _set("plot", outputs=[])),
    ("saved_errors", _set("plot", outputs=code("", error=True)["outputs"])),
    ("saved_errors", _set("raises", outputs=[])),
    ("clean_outputs", _set("plot", outputs=_stream("x", "stderr"))),
    ("clean_outputs", _set("plot", outputs=_stream("a.py:1: UserWarning: x"))),
    ("clean_outputs", _set("plot", outputs=_stream("在 /home/me/a.py 里"))),
    ("clean_outputs", _set("plot", outputs=_stream("在 C:\\Users\\me 里"))),
    ("clean_outputs", _set("plot", outputs=_stream("/Users/me/x"))),
    ("clean_outputs", _set("plot", outputs=_shown(
        "application/vnd.jupyter.widget-view+json", {"model_id": "1"}))),
    ("clean_outputs", _set("nb", widgets={})),
    ("provenance", _set("course", code_sha256="0" * 64)),
    ("provenance", _set("course", profile="smoke")),
    ("provenance", _set("course", device="cuda")),
    ("provenance", _set("course", data=["Fashion-MNIST（内置替身）"])),
    ("provenance", _set("course", data=[])),
    ("provenance", lambda nb: nb["metadata"]["course"].pop("seconds")),
    ("provenance", lambda nb: nb["metadata"].pop("course")),
    ("sizes", _set("plot", outputs=_shown("image/png", "A" * 300_001))),
    ("sizes", lambda nb: [_set(n, outputs=_shown("image/png", "A" * 290_000))(nb)
                          for n in ("plot", "check", "stub", "scratch")]),
    ("metadata", _set("nb", kernelspec={"name": "my-env", "display_name": "my-env",
                                        "language": "python"})),
    ("metadata", _set("nb", language_info={"name": "python", "version": "3.12"})),
    ("metadata", _set("nb", toc={})),
    ("metadata", _set("plot", metadata={"execution": {"iopub.status.busy": "2020"}})),
    ("metadata", _set("plot", id="cell-000")),
    ("metadata", lambda nb: nb.update(nbformat_minor=4)),
    ("exercise_headings", _set("stub", metadata={})),
    ("known_tags", _set("plot", metadata={"tags": ["skip"]})),
    ("known_tags", _set("body", metadata={"tags": ["scratch"]})),
]


@pytest.mark.parametrize(("rule", "change"), CHANGED)
def test_bad_file_breaks_exactly_its_rule(rule, change):
    nb = good()
    change(nb)
    assert set(failing(nb)) == {rule}


@pytest.mark.parametrize("bad", ["import numpy\n", "from torch import nn\n", "!pip install x\n"])
def test_the_setup_cell_itself_is_checked(monkeypatch, bad):
    nb = good()
    cell(nb, "setup")["source"] = bad + setup_cell(ROOT)
    monkeypatch.setattr(rules, "setup_cell", lambda root: bad + setup_cell(root))
    assert len(rules.setup_cells(PATH, finish(nb))) == 1


def test_long_cells_are_allowed_only_now_and_then():
    nb = good()
    for name in ("plot", "check", "scratch"):
        cell(nb, name)["source"] = source(cell(nb, name)) + "\n#" * 21
    assert set(failing(finish(nb))) == {"cell_lengths"}


def test_too_few_exercises():
    nb = good()
    end = cell(nb, "end")
    end["source"] = source(end)[source(end).index("## 6.") :]
    assert set(failing(finish(nb))) == {"exercise_headings"}


def test_exercise_cells_stay_together():
    nb = good()
    nb["cells"].insert(NAMES.index("stub"), markdown("插了一句。"))
    assert set(failing(finish(nb))) == {"coding_exercises"}


def test_every_rule_has_a_bad_notebook():
    assert {r for r, *_ in REPLACED} | {r for r, _ in CHANGED} == {r.__name__ for r in rules.RULES}


# ---- 容易误伤的写法 ----

FINE = [
    "用 `a,b` 和 $a,b$，再看 [说明](README.md)。",
    "形状 (N,) 与 (N, 1) 相减，得到 (N, N)。",
    "1. 第一\n2. 第二，占 50%（约一半）。",
    "```python\n中文,不管(标点)3轮\n```",
    "从零实现叫“scratch”，约 10 °C，见 §2。",
    "花了 \\$5，也就是 $x$ 元。",
    "行内公式 $\\text{与 } w, b \\text{ 无关}$ 里的文字不查。",
    "| 列 |\n|---|\n| $a$ 与 $b$ |",
]


@pytest.mark.parametrize("text", FINE)
def test_good_text_passes(text):
    found = [page_rules.punctuation, page_rules.spacing, page_rules.formulas, page_rules.glossary]
    assert [problem for rule in found for problem in rule(text)] == []


@pytest.mark.parametrize("line", [
    "DataLoader(x, num_workers=0)", "open('a', 'rb')", "open('a', encoding='utf-8')",
    "gzip.open(p)", "p.open('rb')", "torch.load(f, weights_only=True)", "torch.utils.data.x_()",
    "y = data.X_train * 2", "from IPython.display import HTML", "%timeit sum([1])",
    "x = test.data", "p.read_text(encoding='utf-8')", "Image.open(p)",
])
def test_good_code_passes(line):
    nb = good()
    cell(nb, "plot")["source"] = f"{line}\n{source(cell(nb, 'plot'))}"
    assert failing(finish(nb)) == {}


def test_base64_pictures_are_not_searched_for_paths():
    nb = good()
    cell(nb, "plot")["outputs"] = _shown("image/png", "iVBO/tmp/A/home/Qx")
    assert failing(nb) == {}


def test_workers_are_allowed_in_the_dataloader_lesson():
    nb = good()
    cell(nb, "plot")["source"] = "DataLoader(x, num_workers=2)\n" + source(cell(nb, "plot"))
    path = PATH.with_name("99_dataset_dataloader.ipynb")
    assert failing(finish(nb), path).keys() <= {"ending_sections"}


def test_words_that_only_contain_a_refused_one():
    assert page_rules.glossary("矢量图") == []
    assert page_rules.glossary("矢量图里的矢量") != []


def test_conditional_variants_are_not_searched():
    words = page_rules.refused_words()
    assert "样例" in words and not any("偏差" in w or "（" in w for w in words)


@pytest.mark.parametrize(("call", "name"), rules.LOADERS.items())
def test_every_loader_must_be_on_record(call, name):
    assert hasattr(common, call.removeprefix("common."))
    nb = good()
    check = cell(nb, "check")
    check["source"] = source(check).replace("common.fashion_mnist", call)
    finish(nb)
    nb["metadata"]["course"]["data"] = [f"{name}（真实数据）"]
    assert rules.provenance(PATH, nb) == []
    nb["metadata"]["course"]["data"] = ["另一份数据（真实数据）"]
    assert rules.provenance(PATH, nb) == [f"用了 {name}，来历里却没有记录"]


def test_rules_do_not_change_the_notebook():
    nb = good()
    before = copy.deepcopy(nb)
    failing(nb)
    assert nb == before


def test_load_reads_what_save_wrote(tmp_path):
    from notebook_files import save

    save(tmp_path / "a.ipynb", good())
    assert load(tmp_path / "a.ipynb") == good()
