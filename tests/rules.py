"""笔记本的规则。每条规则是一个小函数：(路径, 笔记本) -> 中文的问题列表，没有问题就是空列表。"""

import ast
import functools
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import page_rules as md
from IPython.core.inputtransformer2 import TransformerManager
from lessons import LESSONS
from notebook_files import ROOT, card_row, code_cells, code_hash, load, setup_cell, source

ALLOWED = {
    "torch", "torchvision", "numpy", "matplotlib", "pandas", "tqdm", "tensorboard", "common",
    *sys.stdlib_module_names,
}
TAGS = {"setup", "scratch", "exercise", "nbval-check-output", "raises-exception"}
PROVENANCE = {"code_sha256", "torch", "device", "profile", "data", "seconds", "peak_memory_mb"}
LOADERS = {
    "common.fashion_mnist": "Fashion-MNIST", "common.california_housing": "California housing",
}
CARD = ("学习目标", "先修", "阅读与运行时间", "数据", "动手构建")
ENDING = ("对照 PyTorch", "常见错误", "小结", "练习", "延伸阅读")
KINDS = ("概念", "编程", "探索")
CJK = re.compile(r"[\u2e80-\u9fff\uff00-\uffef]")


# ---- 工具 ----


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def tagged(nb: dict, tag: str) -> list[dict]:
    return [cell for cell in code_cells(nb) if tag in tags(cell)]


def markdown_text(nb: dict) -> str:
    return "\n\n".join(source(c) for c in nb["cells"] if c["cell_type"] == "markdown")


def fences(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def answers(nb: dict) -> list[str]:
    """参考答案里的代码。"""
    cells = [source(c) for c in nb["cells"] if c["cell_type"] == "markdown"]
    return [code for text in cells if "<details>" in text for code in fences(text)]


@functools.lru_cache(4096)
def parse(code: str) -> ast.Module:
    """解析一格代码；% 和 ! 开头的行先换成对应的函数调用。"""
    try:
        return ast.parse(code)
    except SyntaxError:
        return ast.parse(TransformerManager().transform_cell(code))


def trees(nb: dict, with_answers: bool = True) -> list[tuple[str, ast.Module]]:
    """(位置, 语法树)：全部代码格，以及参考答案里的代码。"""
    found = [(f"代码格 {i}", source(c)) for i, c in enumerate(code_cells(nb))]
    if with_answers:
        found += [(f"答案 {i + 1}", code) for i, code in enumerate(answers(nb))]
    return [(where, parse(code)) for where, code in found]


def walk(nb: dict, kind: type | tuple, with_answers: bool = True) -> Iterator[tuple[str, ast.AST]]:
    """全部代码里某一类语法节点。"""
    for where, tree in trees(nb, with_answers):
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield where, node


def dotted(node: ast.AST) -> str:
    """a.b.c 这样的名字；不是名字时返回最后的属性名。"""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def is_constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def imported_modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names] if not node.level else ["."]


@functools.cache
def public_names() -> set[str]:
    """common 对外的名字。"""
    tree = ast.parse((ROOT / "common" / "__init__.py").read_text(encoding="utf-8"))
    return {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}


# ---- 6.2 准备格与导入格 ----


def setup_cells(path: Path, nb: dict) -> list[str]:
    """第一格代码各处相同、只用标准库；第二格只有导入；这两格标签是 setup。"""
    cells, problems = code_cells(nb), []
    if len(cells) < 2:
        return ["前两个代码格应是准备格和导入格"]
    first = source(cells[0])
    if first != setup_cell(ROOT):
        problems.append("第一格代码与 00_setup/setup_cell.py 不同")
    if re.search(r"^\s*[!%]", first, re.MULTILINE):
        problems.append("准备格里不能有 ! 或 %")
    for node in ast.walk(parse(first)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported_modules(node):
                if name.partition(".")[0] not in sys.stdlib_module_names:
                    problems.append(f"准备格只能用标准库，不能导入 {name}")
    if not all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in parse(source(cells[1])).body):
        problems.append("第二格代码只写导入")
    if [i for i, c in enumerate(cells) if "setup" in tags(c)] != [0, 1]:
        problems.append("应当正好是前两个代码格有标签 setup")
    return problems


def imports_are_used(path: Path, nb: dict) -> list[str]:
    """导入格里的名字都要用到。"""
    cells = code_cells(nb)
    bound = {}
    for node in parse(source(cells[1])).body if len(cells) > 1 else []:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for a in node.names:
                bound[a.asname or a.name.partition(".")[0]] = a.name
    used = set()
    for code in [source(c) for c in cells[2:]] + answers(nb):
        used |= {n.id for n in ast.walk(parse(code)) if isinstance(n, ast.Name)}
    return [f"导入了 {name}，却没有用到" for name in bound if name not in used]


# ---- 6.3 允许的导入 ----


def allowed_imports(path: Path, nb: dict) -> list[str]:
    """只导入标准库、课程列出的几个包和 common 对外的名字；笔记本之间互不导入。"""
    problems = []
    for where, node in walk(nb, (ast.Import, ast.ImportFrom)):
        for name in imported_modules(node):
            top = name.partition(".")[0]
            if top == "IPython" and name.startswith("IPython.display"):
                continue
            if top not in ALLOWED:
                problems.append(f"{where}：不能导入 {name}")
            elif top == "common" and name != "common":
                inside = name.removeprefix("common.")
                if isinstance(node, ast.Import) or inside not in public_names():
                    problems.append(f"{where}：{name} 不是 common 对外的名字")
    for where, node in walk(nb, ast.Attribute):
        if dotted(node.value) == "common" and node.attr not in public_names():
            problems.append(f"{where}：common 没有对外的名字 {node.attr}")
    for where, node in walk(nb, ast.Call):
        name = dotted(node.func)
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        if name.endswith("run_line_magic") and texts[0] in ("run", "pip", "conda", "load"):
            problems.append(f"{where}：不要用 %{texts[0]}")
        if name.endswith(("getoutput", ".system")):
            problems.append(f"{where}：不要用 ! 运行命令")
        if any(isinstance(text, str) and text.endswith(".ipynb") for text in texts):
            problems.append(f"{where}：笔记本之间不能互相运行或读取")
    return problems


# ---- 6.4 保存的输出 ----


def _text(output: dict) -> str:
    """输出里的文字部分；图片不算，免得 base64 里碰巧有像路径的字。"""
    parts = [output.get("text", ""), output.get("evalue", ""), output.get("traceback", [])]
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/") or "svg" in kind:
            parts.append(value)
    flat = ["".join(map(str, p)) if isinstance(p, list) else str(p) for p in parts]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(flat))


def _speaks(code: str) -> bool:
    """这一格的最外层会打印或画图吗？"""
    for node in parse(code).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = dotted(node.value.func)
            if name in ("print", "plt.show") or re.match(r"common\.(expect|check_)", name):
                return True
    return False


def execution_order(path: Path, nb: dict) -> list[str]:
    """每一格都运行过，次序是 1 到 n，该有输出的有输出。"""
    cells, problems = code_cells(nb), []
    if [c.get("execution_count") for c in cells] != list(range(1, len(cells) + 1)):
        problems.append("代码格没有从头到尾依次运行过，请重新运行并保存")
    for i, cell in enumerate(cells):
        if not cell["outputs"] and _speaks(source(cell)) and "raises-exception" not in tags(cell):
            problems.append(f"代码格 {i} 应当有输出，保存的笔记本里却没有")
    return problems


def saved_errors(path: Path, nb: dict) -> list[str]:
    """出错的只有标签 raises-exception 的格，而且它们一定出错。"""
    problems = []
    for i, cell in enumerate(code_cells(nb)):
        failed = any(o["output_type"] == "error" for o in cell["outputs"])
        meant = "raises-exception" in tags(cell)
        if failed and not meant:
            problems.append(f"代码格 {i} 的输出里有错误")
        if meant and not failed:
            problems.append(f"代码格 {i} 的标签是 raises-exception，输出里却没有错误")
    return problems


def clean_outputs(path: Path, nb: dict) -> list[str]:
    """没有 stderr、警告、控件和绝对路径。"""
    problems = []
    folder = re.compile(
        r"(?<![\w.:/~-])/(?:home|Users|root|tmp|var|opt|usr|mnt|srv|private|work|workspace|content)/"
        r"|\b[A-Za-z]:\\{1,2}\w|\bFile ~/"
    )
    for i, cell in enumerate(code_cells(nb)):
        for output in cell["outputs"]:
            text = _text(output)
            if output.get("name") == "stderr":
                problems.append(f"代码格 {i} 有 stderr：{text.strip()[:60]}")
            elif re.search(r"\w*Warning: ", text):
                problems.append(f"代码格 {i} 的输出里有警告")
            if any("widget" in kind for kind in output.get("data", {})):
                problems.append(f"代码格 {i} 的输出里有控件")
            if match := folder.search(text):
                problems.append(f"代码格 {i} 的输出里有绝对路径 {match.group()}")
    if "widgets" in nb["metadata"]:
        problems.append("元数据里有控件的状态")
    return problems


def provenance(path: Path, nb: dict) -> list[str]:
    """输出属于现在的代码，来自 cpu 配置和真实数据，来历齐全。"""
    course = nb["metadata"].get("course", {})
    if missing := PROVENANCE - set(course):
        return [f"元数据 course 缺少：{'、'.join(sorted(missing))}"]
    problems = []
    if course["code_sha256"] != code_hash(nb):
        problems.append("输出不是现在的代码产生的，请重新运行并保存")
    if course["profile"] != "cpu" or course["device"] != "cpu":
        problems.append("保存的输出要来自 cpu 配置和 CPU")
    for name in course["data"]:
        if "真实数据" not in name:
            problems.append(f"保存的输出要来自真实数据，不是 {name}")
    for call, name in LOADERS.items():
        loads = any(dotted(n.func) == call for _, n in walk(nb, ast.Call, False))
        if loads and not any(d.startswith(name) for d in course["data"]):
            problems.append(f"用了 {name}，来历里却没有记录")
    return problems


# ---- 6.5 大小 ----


def sizes(path: Path, nb: dict) -> list[str]:
    """笔记本 ≤ 1 MB，一个输出 ≤ 300 KB。"""
    problems = []
    total = len(json.dumps(nb, ensure_ascii=False, indent=1).encode())
    if total > 1_000_000:
        problems.append(f"笔记本有 {total / 1e6:.2f} MB，上限 1 MB")
    for i, cell in enumerate(code_cells(nb)):
        for output in cell["outputs"]:
            if (size := len(json.dumps(output, ensure_ascii=False).encode())) > 300_000:
                problems.append(f"代码格 {i} 的一个输出有 {size / 1e3:.0f} KB，上限 300 KB")
    return problems


def cell_lengths(path: Path, nb: dict) -> list[str]:
    """代码格 ≤ 25 行，九成 ≤ 20 行（各处相同的准备格不算）；一行 ≤ 100 个字符。"""
    problems, lengths = [], []
    for i, cell in enumerate(code_cells(nb)):
        lines = source(cell).splitlines()
        lengths.append(len(lines))
        if len(lines) > 25:
            problems.append(f"代码格 {i} 有 {len(lines)} 行，上限 25 行")
        for line in lines:
            if len(line) > 100:
                start = line.strip()[:40]
                problems.append(f"代码格 {i} 有一行长 {len(line)} 个字符，上限 100：{start}")
    own = sorted(lengths[1:])
    if own and (p90 := own[math.ceil(0.9 * len(own)) - 1]) > 20:
        problems.append(f"代码格行数的 90% 分位数是 {p90}，上限 20")
    return problems


# ---- 6.6 元数据 ----


def metadata(path: Path, nb: dict) -> list[str]:
    """内核是 python3；没有版本、时间之类每次都变的东西。"""
    meta, problems = nb["metadata"], []
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    if meta.get("kernelspec") != kernel:
        problems.append("kernelspec 应是 python3，显示名 Python 3")
    if meta.get("language_info") != {"name": "python"}:
        problems.append("language_info 里只写 name，不写版本")
    if extra := set(meta) - {"kernelspec", "language_info", "course", "widgets"}:
        problems.append(f"元数据里有多余的：{'、'.join(sorted(extra))}")
    for i, cell in enumerate(nb["cells"]):
        if extra := set(cell["metadata"]) - {"tags"}:
            problems.append(f"第 {i} 格的元数据里有多余的：{'、'.join(sorted(extra))}")
    if (nb.get("nbformat"), nb.get("nbformat_minor")) != (4, 5):
        problems.append("笔记本格式应是 4.5")
    ids = [c.get("id", "") for c in nb["cells"]]
    if len(set(ids)) != len(ids) or not all(re.fullmatch(r"[\w-]{1,64}", i) for i in ids):
        problems.append("每一格都要有自己的 id")
    return problems


# ---- 6.7 不许出现的写法 ----


def forbidden_imports(path: Path, nb: dict) -> list[str]:
    """进度条用文字版的 tqdm。"""
    problems = []
    for where, node in walk(nb, (ast.Import, ast.ImportFrom)):
        for name in imported_modules(node):
            if name.startswith(("tqdm.auto", "tqdm.notebook", "tqdm.autonotebook", "tqdm.gui")):
                problems.append(f"{where}：{name} 依赖浏览器控件，请用 common.progress")
    return problems


def _opens_text(call: ast.Call) -> bool:
    """这个调用以文本方式打开文件，却没有写 encoding。"""
    if keyword(call, "encoding") or any(k.arg is None for k in call.keywords):
        return False
    name = dotted(call.func)
    attribute = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if attribute == "read_text":
        return len(call.args) < 1
    if attribute == "write_text":
        return len(call.args) < 2
    by_name = name in ("open", "io.open", "builtins.open")
    if not by_name and attribute != "open":
        return False
    top = name.split(".")[0]
    binary = top in ("gzip", "bz2", "lzma", "zipfile", "tarfile", "Image", "PIL", "os")
    position = 0 if attribute == "open" and not by_name and not binary else 1
    if len(call.args) > position + 2:  # open(file, mode, buffering, encoding)
        return False
    mode = keyword(call, "mode") or (call.args[position] if len(call.args) > position else None)
    if mode is None:
        return not binary
    text = mode.value if isinstance(mode, ast.Constant) else ""
    return "t" in str(text) if binary else "b" not in str(text)


def forbidden_calls(path: Path, nb: dict) -> list[str]:
    """多进程读数据、清空输出、旧参数、不安全的加载、不写编码、不查证书。"""
    problems = []
    for where, call in walk(nb, ast.Call):
        name = dotted(call.func)
        workers = keyword(call, "num_workers")
        lesson = "dataloader" in path.name
        if workers is not None and not lesson and not (
            isinstance(workers, ast.Constant) and workers.value == 0
        ):
            problems.append(f"{where}：num_workers 要是 0，多进程在 Windows 和 macOS 上会卡住")
        if keyword(call, "pretrained") is not None:
            problems.append(f"{where}：pretrained= 已经废除，请用 weights=")
        if name == "torch.load" and not is_constant(keyword(call, "weights_only"), True):
            problems.append(f"{where}：torch.load 要写 weights_only=True")
        if _opens_text(call):
            problems.append(f"{where}：打开文本文件要写 encoding=\"utf-8\"")
        if is_constant(keyword(call, "verify"), False):
            problems.append(f"{where}：不要用 verify=False 关闭证书检查")
    return problems


def forbidden_names(path: Path, nb: dict) -> list[str]:
    """clear_output、关闭证书检查的名字，以及 KMP_DUPLICATE_LIB_OK。"""
    names = {
        "clear_output": "不要清空输出",
        "_create_unverified_context": "不要关闭证书检查",
        "CERT_NONE": "不要关闭证书检查",
        "set_matplotlib_formats": "这个接口已经废除",
    }
    problems = []
    for where, node in walk(nb, (ast.Name, ast.Attribute, ast.alias)):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", "")
        if name in names:
            problems.append(f"{where}：{names[name]}（{name}）")
    for where, node in walk(nb, (ast.Constant, ast.keyword)):
        value = node.value if isinstance(node, ast.Constant) else node.arg
        if isinstance(value, str) and "KMP_DUPLICATE_LIB_OK" in value:
            problems.append(f"{where}：KMP_DUPLICATE_LIB_OK 会掩盖错误")
    return problems


def data_attribute(path: Path, nb: dict) -> list[str]:
    """不通过 .data 改参数或做运算：自动微分看不见。"""

    def is_data(node: ast.AST) -> bool:
        while isinstance(node, ast.Subscript):
            node = node.value
        # torch.utils.data、torchvision.transforms 之类的模块不算
        return isinstance(node, ast.Attribute) and node.attr == "data" and not (
            dotted(node).startswith(("torch.", "common."))
        )

    problems = []
    for where, node in walk(nb, (ast.Assign, ast.AugAssign, ast.BinOp, ast.UnaryOp, ast.Call)):
        parts = {
            ast.Assign: lambda n: n.targets,
            ast.AugAssign: lambda n: [n.target, n.value],
            ast.BinOp: lambda n: [n.left, n.right],
            ast.UnaryOp: lambda n: [n.operand],
            ast.Call: lambda n: [n.func.value] if re.search(
                r"[^_]_$", getattr(n.func, "attr", "")) else [],
        }[type(node)](node)
        if any(is_data(part) for part in parts):
            problems.append(f"{where}：不要用 .data 改参数，请写 with torch.no_grad()")
    return problems


def pictures_and_sources(path: Path, nb: dict) -> list[str]:
    """图片在仓库里；网盘不是唯一的来源。"""
    text = markdown_text(nb)
    return md.remote_images(text) + md.net_disks(text)


# ---- 6.10 文字 ----


def each_markdown(nb: dict, check) -> list[str]:
    """逐格检查 Markdown，并说明是第几格。"""
    return [
        f"第 {i} 格：{problem}"
        for i, cell in enumerate(nb["cells"]) if cell["cell_type"] == "markdown"
        for problem in check(source(cell))
    ]


def glossary(path: Path, nb: dict) -> list[str]:
    """术语统一，正文、注释和文档字符串都算。"""
    problems = each_markdown(nb, md.glossary)
    for i, cell in enumerate(code_cells(nb)):
        problems += [f"代码格 {i}：{p}" for p in md.glossary(source(cell))]
    return problems


def formulas(path: Path, nb: dict) -> list[str]:
    """$ 要成对，align 等环境要放在 $$ 里。"""
    return each_markdown(nb, md.formulas)


def punctuation(path: Path, nb: dict) -> list[str]:
    """中文句子里用全角标点。"""
    return each_markdown(nb, md.punctuation)


def spacing(path: Path, nb: dict) -> list[str]:
    """中文与英文、数字、代码、公式之间有空格。"""
    return each_markdown(nb, md.spacing)


# ---- 6.11 链接与标题 ----


def links(path: Path, nb: dict) -> list[str]:
    """仓库内部的链接都指向存在的文件和标题。"""
    return md.links(path, markdown_text(nb))


def heading_levels(path: Path, nb: dict) -> list[str]:
    """正好一个一级标题，在最前面；级别逐级加深。"""
    return md.heading_levels(markdown_text(nb))


def title_number(path: Path, nb: dict) -> list[str]:
    """标题里的编号与文件名一致，例如 03_…/02_….ipynb 是 3.2。"""
    number = f"{int(path.parent.name[:2])}.{int(path.name[:2])}"
    if not source(nb["cells"][0]).startswith(f"# {number} "):
        return [f"标题应以“# {number} ”开头"]
    return []


# ---- 结构 ----


def card(path: Path, nb: dict) -> list[str]:
    """第二格是信息表，五行齐全。"""
    return [f"信息表里没有“{name}”" for name in CARD if not card_row(nb, name)]


def ending_sections(path: Path, nb: dict) -> list[str]:
    """结尾的几部分齐全，次序固定。"""
    number = re.compile(r"^\d+\.\s*")
    found = [number.sub("", w) for level, w in md.headings(markdown_text(nb)) if level == 2]
    wanted = ENDING if getattr(LESSONS.get(_name(path)), "NAMES", ()) else ENDING[1:]
    places = []
    for name in wanted:
        where = [i for i, words in enumerate(found) if words.startswith(name)]
        if not where:
            return [f"缺少“{name}”这一部分"]
        places.append(where[-1])
    return [] if places == sorted(places) else [f"结尾的次序应是：{'、'.join(wanted)}"]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def exercise_headings(path: Path, nb: dict) -> list[str]:
    """至少三道练习，三种都有；标题写明种类、难度和分钟；每道都有参考答案。"""
    text = markdown_text(nb)
    section = re.search(r"^## [\d. ]*练习\s*$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^### (.+)$", section.group(1), flags=re.MULTILINE)[1:] if section else []
    titles, bodies = parts[::2], parts[1::2]
    problems = []
    if len(titles) < 3:
        problems.append(f"至少要有三道练习，现在有 {len(titles)} 道")
    for title, body in zip(titles, bodies, strict=True):
        if not re.search(r"(概念|编程|探索)：.+（★{1,3}，\d+ 分钟）$", title):
            problems.append(f"练习的标题应写成“练习 1　编程：……（★★，10 分钟）”：{title}")
        if "<details><summary>参考答案</summary>" not in body or "</details>" not in body:
            problems.append(f"练习没有参考答案：{title}")
    for kind in KINDS:
        if not any(f"{kind}：" in title for title in titles):
            problems.append(f"没有“{kind}”类的练习")
    coding, stubs = sum("编程：" in title for title in titles), len(tagged(nb, "exercise"))
    if coding != stubs:
        problems.append(f"编程练习有 {coding} 道，标签为 exercise 的格有 {stubs} 个")
    return problems


def coding_exercises(path: Path, nb: dict) -> list[str]:
    """编程练习是连续三格：题目、写明类型的空函数和检查、折叠的答案（先提示，再一段代码）。"""
    problems, cells = [], nb["cells"]
    for i, cell in enumerate(cells):
        if cell["cell_type"] != "code" or "exercise" not in tags(cell):
            continue
        before = cells[i - 1]
        after = cells[i + 1] if i + 1 < len(cells) else {"cell_type": "", "source": ""}
        heads = md.headings(source(before)) if before["cell_type"] == "markdown" else []
        if not heads or "编程：" not in heads[-1][1]:
            problems.append(f"第 {i} 格：练习格的前一格应是题目")
        text = source(after) if after["cell_type"] == "markdown" else ""
        code = fences(text)
        if not text.startswith("<details><summary>参考答案</summary>") or len(code) != 1:
            problems.append(f"第 {i} 格：练习格的后一格应是折叠的参考答案，里面正好一段代码")
        elif "提示" not in text.split("```")[0]:
            problems.append(f"第 {i} 格：参考答案里先写提示，再写代码")
        body = parse(source(cell)).body
        last = body[-1].value if isinstance(body[-1], ast.Expr) else None
        if not isinstance(last, ast.Call) or dotted(last.func) != "common.check_exercise":
            problems.append(f"第 {i} 格：练习格的最后应是 common.check_exercise(…)")
        stubs = [n for n in ast.walk(parse(source(cell))) if isinstance(n, ast.FunctionDef)
                 and any(isinstance(x, ast.Raise) and "NotImplementedError" in ast.unparse(x)
                         for x in n.body)]
        if not stubs:
            problems.append(f"第 {i} 格：练习格里没有 raise NotImplementedError 的空函数")
        for stub in stubs:
            untyped = [a.arg for a in stub.args.args if a.annotation is None and a.arg != "self"]
            if untyped or stub.returns is None and stub.name != "__init__":
                problems.append(f"第 {i} 格：空函数 {stub.name} 要写明参数和返回值的类型")
    return problems


# ---- 5 标签 ----


def known_tags(path: Path, nb: dict) -> list[str]:
    """只用五种标签，而且只用在代码格上。"""
    problems = []
    for i, cell in enumerate(nb["cells"]):
        for tag in tags(cell):
            if tag not in TAGS:
                problems.append(f"第 {i} 格：不认识的标签 {tag}")
            elif cell["cell_type"] != "code":
                problems.append(f"第 {i} 格：Markdown 格不用标签")
    return problems


def scratch_cells(path: Path, nb: dict) -> list[str]:
    """scratch 格只有定义：不训练，不读数据，不打印。"""
    problems = []
    for i, cell in enumerate(code_cells(nb)):
        if "scratch" not in tags(cell):
            continue
        for node in parse(source(cell)).body:
            constant = isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(
                isinstance(n, ast.Call) for n in ast.walk(node)
            )
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not (isinstance(node, (ast.FunctionDef, ast.ClassDef)) or constant or text):
                code = ast.unparse(node)[:40]
                problems.append(f"代码格 {i} 的标签是 scratch，只能有定义：{code}")
    return problems


def checked_outputs(path: Path, nb: dict) -> list[str]:
    """输出要逐字核对的格里没有 expect（smoke 配置会跳过它），也没有计时。"""
    problems = []
    for i, cell in enumerate(code_cells(nb)):
        if "nbval-check-output" not in tags(cell):
            continue
        for node in ast.walk(parse(source(cell))):
            name = dotted(node.func) if isinstance(node, ast.Call) else ""
            if name in ("common.expect", "common.Timer", "common.benchmark"):
                problems.append(f"代码格 {i} 的输出要逐字核对，里面不能有 {name}")
    return problems


# ---- 图上的文字 ----

PLOT_KEYWORDS = {
    "title", "titles", "suptitle", "xlabel", "ylabel", "zlabel", "label", "labels", "row_labels",
    "col_labels", "xticklabels", "yticklabels", "names",
}
PLOT_METHODS = {
    "title", "suptitle", "xlabel", "ylabel", "text", "annotate", "legend", "figtext", "set_title",
    "set_xlabel", "set_ylabel", "set_zlabel", "set_xticklabels", "set_yticklabels", "plot_curves",
    "plot_trajectory", "heatmap", "show_images", "plot_confusion_matrix", "bar", "barh",
}


def plot_text(path: Path, nb: dict) -> list[str]:
    """图上的文字用英文：matplotlib 自带的字体里没有汉字，会画成方块。"""
    problems = []
    for where, call in walk(nb, ast.Call):
        parts = [k.value for k in call.keywords if k.arg in PLOT_KEYWORDS]
        name = call.func.attr if isinstance(call.func, ast.Attribute) else dotted(call.func)
        if name in PLOT_METHODS:
            parts += call.args
        for part in parts:
            for node in ast.walk(part):
                if isinstance(node, ast.Constant) and CJK.search(str(node.value)):
                    problems.append(f"{where}：图上的文字要用英文：{node.value}")
    return problems


RULES = [
    setup_cells, imports_are_used, allowed_imports, execution_order, saved_errors, clean_outputs,
    provenance, sizes, cell_lengths, metadata, forbidden_imports, forbidden_calls, forbidden_names,
    data_attribute, pictures_and_sources, glossary, formulas, punctuation, spacing, links,
    heading_levels, title_number, card, ending_sections, exercise_headings, coding_exercises,
    known_tags, scratch_cells, checked_outputs, plot_text,
]


def problems(path: Path, rule) -> list[str]:
    """一个笔记本在一条规则上的全部问题。"""
    return rule(path, load(path))
