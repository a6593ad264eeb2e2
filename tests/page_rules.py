"""检查 Markdown 文字的小函数：标点、空格、公式、标题、链接、术语。笔记本和 .md 页面共用。"""

import functools
import json
import re
from pathlib import Path
from urllib.parse import unquote

from notebook_files import ROOT

GLOSSARY = ROOT / "00_setup" / "08_glossary.md"
HAN = r"[\u3400-\u4dbf\u4e00-\u9fff]"
CODE, MATH = "\ue000", "\ue001"  # 代码和公式的占位符：内容不查，两边的空格要查
LATIN = rf"[A-Za-z0-9%\u0391-\u03c9{CODE}{MATH}]"
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
DISPLAY = re.compile(r"(?<!\\)\$\$.*?(?<!\\)\$\$", re.DOTALL)
INLINE_MATH = re.compile(r"(?<!\\)\$(?!\s)(?:\\.|[^$\\])+?(?<!\s)\$")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HTML_LINK = re.compile(r"<(a|img)\b[^>]*?(?:href|src)=[\"']([^\"']+)", re.IGNORECASE)
# 词表里的“不用的说法”出现在这些词里时没有问题
EXCEPTIONS = {"矢量": ("矢量图",), "纪元": ("世纪元",)}


def without_code(text: str) -> str:
    """去掉代码块；行内代码换成占位符。"""
    return INLINE_CODE.sub(CODE, FENCE.sub("", text))


def prose(text: str) -> str:
    """只留给人读的文字：代码、公式换成占位符，链接只留文字，去掉强调符号和 HTML 标签。"""
    text = DISPLAY.sub("", without_code(text))
    text = INLINE_MATH.sub(MATH, text)
    text = LINK.sub(r"\2", text)
    text = re.sub(r"<!--.*?-->|<[^>\n]+>", "", text, flags=re.DOTALL)
    return text.replace("*", "")


def _around(text: str, match: re.Match) -> str:
    found = text[max(0, match.start() - 8) : match.end() + 8]
    return "「" + found.replace("\n", " ").replace(CODE, "`…`").replace(MATH, "$…$") + "」"


def punctuation(text: str) -> list[str]:
    """中文句子里要用全角标点。"""
    text = prose(text)
    half = re.compile(
        rf"{HAN} ?[,;:]|[,;:] ?{HAN}|{HAN}[?!()\"]|[?!()\"]{HAN}|{HAN}\.(?!\w)|\.{HAN}"
    )
    return [f"中文里要用全角标点：{_around(text, m)}" for m in half.finditer(text)]


def spacing(text: str) -> list[str]:
    """中文与英文、数字、行内代码、行内公式之间要有空格。"""
    text = prose(text)
    tight = re.compile(rf"{HAN}{LATIN}|{LATIN}{HAN}")
    found = tight.finditer(text)
    return [f"中文与英文、数字、代码、公式之间要有空格：{_around(text, m)}" for m in found]


def formulas(text: str) -> list[str]:
    """$ 要成对，行内公式的 $ 要紧贴内容；align 等环境要放在 $$ 里。"""
    text = without_code(text).replace("\\$", "")
    rest = re.sub(r"\$\$.*?\$\$", "\n\n", text, flags=re.DOTALL)
    problems = []
    if "$$" in rest:
        problems.append("$$ 没有成对")
    for paragraph in re.split(r"\n\s*\n|\n\|", rest.replace("$$", "")):
        if INLINE_MATH.sub("", paragraph).count("$"):
            problems.append(f"$ 没有成对，或者与内容之间有空格：「{paragraph.strip()[:40]}」")
        if r"\begin{" in paragraph:
            problems.append(f"\\begin{{…}} 要放在 $$ 里：「{paragraph.strip()[:40]}」")
    return problems


def headings(text: str) -> list[tuple[int, str]]:
    """全部标题：(级别, 文字)。"""
    found = re.findall(r"^(#{1,6}) +(.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return [(len(marks), words) for marks, words in found]


def heading_levels(text: str) -> list[str]:
    """正好一个一级标题，在最前面；级别逐级加深。"""
    found = headings(text)
    problems = []
    if not text.startswith("# "):
        problems.append("第一行应是一级标题")
    if (count := sum(level == 1 for level, _ in found)) != 1:
        problems.append(f"应当正好有一个一级标题，现在有 {count} 个")
    for (before, _), (level, words) in zip(found, found[1:], strict=False):
        if level > before + 1:
            problems.append(f"标题「{words}」从 {before} 级跳到了 {level} 级")
    return problems


def _anchors(text: str) -> set[str]:
    """标题的锚点，GitHub 和 Jupyter 两种写法。"""
    found = set()
    for _, words in headings(text):
        plain = LINK.sub(r"\2", words).replace("`", "").replace("*", "")
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
        found.add(plain.replace(" ", "-"))
    return found


def page_text(path: Path) -> str:
    """页面或笔记本里的全部 Markdown。"""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
    return "\n\n".join("".join(c["source"]) for c in cells)


def links(path: Path, text: str, root: Path = ROOT) -> list[str]:
    """仓库内部的链接都要指向真正存在的文件和标题。"""
    text = INLINE_CODE.sub("", FENCE.sub("", text))
    targets = [m.group(3) for m in LINK.finditer(text)]
    targets += [m.group(2) for m in HTML_LINK.finditer(text)]
    problems = []
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):  # https:、data: 等
            continue
        name, _, anchor = unquote(target).partition("#")
        goal = (path.parent / name).resolve() if name else path
        if name.startswith("/") or not goal.is_relative_to(root.resolve()):
            problems.append(f"链接 {target} 指到了仓库外面")
        elif name and not goal.exists():
            problems.append(f"链接 {target} 指向的文件不存在")
        elif anchor and goal.suffix in (".md", ".ipynb"):
            if anchor not in _anchors(page_text(goal) if name else text):
                problems.append(f"链接 {target} 指向的标题不存在")
    return problems


def remote_images(text: str) -> list[str]:
    """图片都要在仓库里。"""
    text = INLINE_CODE.sub("", FENCE.sub("", text))
    found = [m.group(3) for m in LINK.finditer(text) if m.group(1)]
    found += [m.group(2) for m in HTML_LINK.finditer(text) if m.group(1).lower() == "img"]
    return [f"不要用网上的图片：{u}" for u in found if re.match(r"(https?:)?//", u)]


NET_DISK = re.compile(
    r"https?://[\w.]*(?:pan\.baidu|yun\.baidu|drive\.google|aliyundrive|alipan|quark\.cn|"
    r"123pan|lanzou|weiyun|dropbox|1drv\.ms|onedrive)\S*"
)


def net_disks(text: str) -> list[str]:
    """网盘链接不能是唯一的来源：同一段里还要有别的地址。"""
    problems = []
    for paragraph in re.split(r"\n\s*\n", text):
        found = NET_DISK.findall(paragraph)
        others = len(re.findall(r"https?://", paragraph)) - len(found)
        if found and not others:
            problems.append(f"网盘不能是唯一的来源：{found[0]}")
    return problems


# ---- 术语表 ----


def table_rows(text: str) -> list[list[str]]:
    """文字里全部表格的行，不含表头和分隔线；每行是各格的文字。"""
    rows = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        lines = block.strip().splitlines()[2:]
        rows += [[c.strip() for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    return rows


def glossary_rows(text: str) -> list[list[str]]:
    """术语表的行：[中文, English, 含义, 首次出现, 不用的说法]。字母和记号的表不算。"""
    return table_rows(text.split("\n## 字母")[0])


def variants(cell: str) -> list[str]:
    """“不用的说法”里可以直接搜索的那些。“偏差（指 bias 参数时）”要看意思，不能搜索。"""
    return [v for v in cell.split("、") if v and "（" not in v]


@functools.cache
def refused_words() -> dict[str, str]:
    """不用的说法 → 应当用的说法。"""
    rows = glossary_rows(GLOSSARY.read_text(encoding="utf-8"))
    return {variant: row[0] for row in rows for variant in variants(row[4])}


def glossary(text: str) -> list[str]:
    """不用术语表里“不用的说法”。"""
    problems = []
    for variant, term in refused_words().items():
        rest = text
        for word in EXCEPTIONS.get(variant, ()):
            rest = rest.replace(word, "")
        if variant in rest:
            problems.append(f"“{variant}”应写作“{term}”")
    return problems
