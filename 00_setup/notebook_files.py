"""把笔记本当作文件来读写：次序、标题、代码的哈希、仓库地址和 README 里的表格。只用标准库。"""

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r'^REPOSITORY = "[^"\n]*"', re.MULTILINE)


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
        _ = nb["cells"], nb["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} 不是完整的笔记本文件：{error}") from error
    return nb


def write_atomically(path: Path, text: str) -> None:
    """先写到旁边的临时文件，再一次换上去：中途断电也不会留下半个文件。"""
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
        parts = [part.strip() for part in line.strip().strip("|").split("|")]
        if len(parts) == 2 and parts[0] == name:
            return parts[1]
    return ""


# ---- 仓库地址 ----


def setup_cell(root: Path = ROOT) -> str:
    """每个笔记本第一格的文字。"""
    return (root / "00_setup" / "setup_cell.py").read_text(encoding="utf-8").strip("\n")


def repository(root: Path = ROOT) -> str:
    """课程发布后的地址；还没有发布时是空字符串。"""
    match = re.search(r'^REPOSITORY = "([^"\n]*)"', setup_cell(root), re.MULTILINE)
    return match.group(1) if match else ""


def stamp(root: Path, url: str) -> None:
    """把仓库地址写进 setup_cell.py，再写进每个笔记本的第一格和 README。可以反复执行。

    异常:
        ValueError: 不是 http 或 https 地址。
    """
    url = url.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or re.search(r"[\s\"'\\]", url):
        raise ValueError(f"{url!r} 不是可以使用的 http(s) 地址。")
    text = ADDRESS.sub(lambda _: f'REPOSITORY = "{url}"', setup_cell(root))
    write_atomically(root / "00_setup" / "setup_cell.py", text + "\n")
    for path in all_notebooks(root):
        nb = load(path)
        code_cells(nb)[0]["source"] = text.splitlines(keepends=True)
        save(path, nb)
    update_readme(root)


# ---- README ----


def _colab_link(root: Path, path: Path) -> str:
    parts = urlsplit(repository(root))
    if parts.netloc.lower() != "github.com":
        return ""
    name = parts.path.removesuffix(".git")
    inside = quote(path.relative_to(root).as_posix())
    return f"[打开](https://colab.research.google.com/github{name}/blob/main/{inside})"


def readme_table(root: Path = ROOT) -> str:
    """README 里的笔记本表格，数字来自每个笔记本保存的来历。"""
    colab = "github.com" in repository(root).lower()
    lines, chapter = [], None
    for path in all_notebooks(root):
        if path.parent != chapter:
            chapter = path.parent
            readme = (chapter / "README.md").read_text(encoding="utf-8")
            heading = readme.splitlines()[0].lstrip("# ").strip()
            lines += ["", f"### [{heading}]({chapter.name}/README.md)", ""]
            lines.append("| 笔记本 | 动手构建 | CPU 用时 | 内存 |" + (" Colab |" if colab else ""))
            lines.append("|---|---|---|---|" + ("---|" if colab else ""))
        nb = load(path)
        run = nb["metadata"].get("course", {})
        seconds = f"{run['seconds']:.0f} 秒" if "seconds" in run else "—"
        memory = f"{run['peak_memory_mb']:.0f} MB" if "peak_memory_mb" in run else "—"
        link = f"[{title(nb)}]({path.relative_to(root).as_posix()})"
        row = f"| {link} | {card_row(nb, '动手构建')} | {seconds} | {memory} |"
        lines.append(row + (f" {_colab_link(root, path)} |" if colab else ""))
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


def update_readme(root: Path = ROOT) -> None:
    """让 README 里的表格与笔记本一致。"""
    write_atomically(root / "README.md", readme_text(root))
