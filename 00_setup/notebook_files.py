"""把笔记本当作文件来读写：次序、标题、代码的哈希、仓库地址和 README 里的表格。只用标准库。"""

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
COVER = ("03_linear_regression/01_linear_regression_scratch.ipynb", "The whole way down")
ADDRESS = re.compile(r'^REPOSITORY = "([^"\n]*)"', re.MULTILINE)


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """按课程次序列出全部笔记本：章的编号，然后是文件名的编号。"""
    return sorted(root.glob("[0-9][0-9]_*/[0-9][0-9]_*.ipynb"))


def load(path: Path) -> dict:
    """读一个笔记本。

    异常:
        ValueError: 不是合法的笔记本文件。
    """
    try:
        nb = json.loads(path.read_text(encoding="utf-8"))
        _ = nb["metadata"], code_cells(nb)[0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path.name} 不是完整的笔记本文件：{error}") from error
    return nb


def write_atomically(path: Path, text: str) -> None:
    """先写到旁边的临时文件，再一次换上去：中途退出也不会留下半个文件。"""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: Path, nb: dict) -> None:
    """原子地写一个笔记本，格式固定，便于比较版本。"""
    write_atomically(path, json.dumps(nb, ensure_ascii=False, indent=1) + "\n")


def source(cell: dict) -> str:
    """单元格的文字。"""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def code_cells(nb: dict) -> list[dict]:
    """全部代码格。"""
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code"]


def code_hash(nb: dict) -> str:
    """代码的 SHA-256。第一格是各处相同的准备代码，里面有仓库地址，不计算在内。"""
    digest = hashlib.sha256()
    for cell in code_cells(nb)[1:]:
        digest.update(source(cell).encode("utf-8") + b"\0")
    return digest.hexdigest()


def title(nb: dict) -> str:
    """一级标题的文字。"""
    return source(nb["cells"][0]).splitlines()[0].lstrip("# ").strip()


def card_row(nb: dict, name: str) -> str:
    """开头的卡片（第二格的表格）里名为 name 的一行；没有则返回空字符串。"""
    for line in source(nb["cells"][1]).splitlines():
        parts = [part.strip() for part in re.split(r"(?<!\\)\|", line.strip())][1:-1]
        if len(parts) == 2 and parts[0] == name:
            return parts[1]
    return ""


# ---- 仓库地址 ----


def setup_cell(root: Path = ROOT) -> str:
    """每个笔记本第一格的文字。"""
    return (root / "00_setup" / "setup_cell.py").read_text(encoding="utf-8").strip("\n")


def repository(root: Path = ROOT) -> str:
    """课程发布后的地址；还没有发布时是空字符串。"""
    match = ADDRESS.search(setup_cell(root))
    return match.group(1) if match else ""


def stamp(root: Path, url: str) -> None:
    """把仓库地址写进 setup_cell.py，再写进每个笔记本的第一格和 README。可以反复执行。

    异常:
        ValueError: 不是 http 或 https 地址，或有的文件不完整；这时什么都不改。
    """
    url = url.strip().rstrip("/")
    parts = urlsplit(url)
    unsafe = re.search(r"[\s\"'\\`<>()]", url) or "@" in parts.netloc  # 地址里不能带密码
    if parts.scheme not in ("http", "https") or not parts.hostname or unsafe:
        raise ValueError(f"{url!r} 不是可以使用的 http(s) 地址。")
    text, count = ADDRESS.subn(lambda _: f'REPOSITORY = "{url}"', setup_cell(root))
    if count != 1:
        raise ValueError("setup_cell.py 里应当正好有一行 REPOSITORY。")
    notebooks = {path: load(path) for path in all_notebooks(root)}  # 先全部读懂，再开始写
    write_atomically(root / "00_setup" / "setup_cell.py", text + "\n")
    for path, nb in notebooks.items():
        code_cells(nb)[0]["source"] = text.splitlines(keepends=True)
        save(path, nb)
    update_readme(root)


# ---- README ----


def _colab(root: Path) -> str:
    """在 Colab 里打开本仓库的网址；地址不在 GitHub 上时是空字符串。"""
    parts = urlsplit(repository(root))
    if parts.hostname not in ("github.com", "www.github.com"):
        return ""
    name = parts.path.removesuffix(".git")
    return f"https://colab.research.google.com/github{name}/blob/main/"


def _chapter_title(chapter: Path) -> str:
    readme = chapter / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return f"[{heading.group(1).strip()}]({chapter.name}/README.md)" if heading else chapter.name


def readme_table(root: Path = ROOT) -> str:
    """README 里的笔记本表格，数字来自每个笔记本保存的来历。"""
    colab = _colab(root)
    lines, chapter = [], None
    for path in all_notebooks(root):
        if path.parent != chapter:
            chapter = path.parent
            lines += ["", f"### {_chapter_title(chapter)}", ""]
            lines.append("| 笔记本 | 动手构建 | CPU 用时 | 内存 |" + (" Colab |" if colab else ""))
            lines.append("|---|---|---|---|" + ("---|" if colab else ""))
        nb = load(path)
        run = nb["metadata"].get("course", {})
        seconds = f"{max(1, round(run['seconds']))} 秒" if "seconds" in run else "—"
        memory = f"{run['peak_memory_mb']:.0f} MB" if "peak_memory_mb" in run else "—"
        inside = quote(path.relative_to(root).as_posix())
        link = f"[{title(nb)}]({inside})"
        row = f"| {link} | {card_row(nb, '动手构建')} | {seconds} | {memory} |"
        lines.append(row + (f" [打开]({colab}{inside}) |" if colab else ""))
    return "\n".join(lines[1:])


def _between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def readme_text(root: Path = ROOT) -> str:
    """表格和下载地址都更新之后的 README。"""
    text = (root / "README.md").read_text(encoding="utf-8")
    text = _between(text, "notebooks", readme_table(root))
    if url := repository(root):
        content = f"```bash\ngit clone {url} course\ncd course\n```\n\n然后在课程文件夹里运行："
        text = _between(text, "repository", content)
    return text


def cover(root: Path = ROOT) -> bytes | None:
    """README 开头的图：3.1 节保存的轨迹图；笔记本还没有运行过时返回 None。"""
    path = root / COVER[0]
    for cell in code_cells(load(path)) if path.is_file() else []:
        for output in cell["outputs"] if COVER[1] in source(cell) else []:
            if image := output.get("data", {}).get("image/png"):
                return base64.b64decode(image if isinstance(image, str) else "".join(image))
    return None


def update_readme(root: Path = ROOT) -> None:
    """让 README 里的表格和开头的图与笔记本一致。"""
    if (root / "README.md").is_file():
        write_atomically(root / "README.md", readme_text(root))
        if image := cover(root):
            (root / "00_setup" / "cover.png").write_bytes(image)
