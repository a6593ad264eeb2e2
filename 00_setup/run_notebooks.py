"""按课程次序运行笔记本；加 --save 时把输出和来历写回文件。

由 start.py run 在课程的环境里调用。
"""

import argparse
import json
import os
import re
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import notebook_files
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

CELL_TIMEOUT = 1800  # 秒；最长的训练也远远用不到
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ABSOLUTE_PATH = re.compile(
    r"(?<![\w/.:])(/(?:home|root|Users|tmp|var|usr|opt|work)/|[A-Za-z]:\\)\S*"
)
# 在内核里运行、但不写进笔记本的一小段：问清楚内存峰值和运行的来历
QUESTION = """
import json as _json, sys as _sys
try:
    import resource as _resource
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
    _peak = _peak / 2**20 if _sys.platform == "darwin" else _peak / 2**10
except ImportError:
    import psutil as _psutil
    _peak = _psutil.Process().memory_info().peak_wset / 2**20
import common as _common
print("PROVENANCE" + _json.dumps({**_common.provenance(), "peak_memory_mb": round(_peak)}))
"""


class OwnKernelManager(AsyncKernelManager):
    """总是用正在运行的这个 Python 作内核，不受电脑上登记的同名内核影响。"""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        command.append("--log-level=ERROR")  # 内核关于本机连接的警告与读者无关
        return KernelSpec(argv=command, display_name="Python 3", language="python")


@dataclass
class Result:
    """一个笔记本的运行结果；problem 为空表示成功。"""

    path: Path
    seconds: float = 0.0
    record: dict = field(default_factory=dict)
    problem: str = ""


def has_tag(cell: dict, tag: str) -> bool:
    """单元格是否有某个标签。"""
    return tag in cell["metadata"].get("tags", [])


def describe(cell: dict, number: int) -> str:
    """失败的单元格：第几格（从 1 数起，只数代码格）和开头几行。"""
    lines = notebook_files.source(cell).splitlines()
    shown = "\n".join("    " + line for line in lines[:6]) + ("\n    …" if len(lines) > 6 else "")
    return f"第 {number} 个代码格：\n{shown}"


def ask(client: NotebookClient) -> dict:
    """向内核询问内存峰值和来历。"""
    answer = ""
    message_id = client.kc.execute(QUESTION, store_history=False)
    while True:
        message = client_run(client, client.kc.get_iopub_msg(timeout=60))
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if message["msg_type"] == "stream":
            answer += message["content"]["text"]
        if message["msg_type"] == "error":
            raise RuntimeError("问不到运行的来历：" + message["content"]["evalue"])
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return json.loads(answer.split("PROVENANCE", 1)[1])


def client_run(client: NotebookClient, awaitable):
    """在 nbclient 自己的事件循环里等一个结果。"""
    from jupyter_core.utils import run_sync

    async def wait():
        return await awaitable

    return run_sync(wait)()


def run_one(path: Path, root: Path, bar: tqdm) -> tuple[Result, dict]:
    """运行一个笔记本，返回结果和带输出的内容（文件本身不动）。"""
    result = Result(path)
    nb = nbformat.read(path, as_version=4)
    codes = [cell for cell in nb.cells if cell.cell_type == "code"]
    for cell in codes:
        cell.outputs, cell.execution_count = [], None
    manager = OwnKernelManager()
    client = NotebookClient(
        nb, km=manager, timeout=CELL_TIMEOUT, resources={"metadata": {"path": str(path.parent)}},
    )
    number, cell = 0, codes[0]
    try:
        environment = {**os.environ, "COURSE_ROOT": str(root)}
        with client.setup_kernel(env=environment, cwd=str(path.parent)):
            start = time.perf_counter()
            for index, cell in enumerate(nb.cells):
                if cell.cell_type != "code":
                    continue
                number += 1
                client.execute_cell(cell, index, execution_count=number)
                if has_tag(cell, "raises-exception") and not errors(cell):
                    raise ValueError("这一格应当演示一个错误，却没有出错。")
                bar.update()
            result.seconds = time.perf_counter() - start
            result.record = ask(client)
    except CellExecutionError:
        error = errors(cell)[-1]
        trace = ANSI.sub("", "\n".join(error["traceback"]))
        result.problem = f"{describe(cell, number)}\n{trace}"
    except DeadKernelError:
        result.problem = f"{describe(cell, number)}\n内核中途退出，最常见的原因是内存不够。"
    except CellTimeoutError:
        result.problem = f"{describe(cell, number)}\n超过 {CELL_TIMEOUT} 秒没有结束。"
    except Exception as error:  # 任何意外都记在这个笔记本名下，后面的照常运行
        detail = str(error) or traceback.format_exc()
        result.problem = f"{describe(cell, number)}\n{ANSI.sub('', detail)}"
    return result, nb


def errors(cell: dict) -> list[dict]:
    """单元格输出里的错误。"""
    return [output for output in cell["outputs"] if output["output_type"] == "error"]


def clean(nb: dict) -> list[str]:
    """整理输出，去掉每次运行都不同的内容；返回不能保存的理由。"""
    problems = []
    for number, cell in enumerate(notebook_files.code_cells(nb), start=1):
        outputs = []
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                output["text"] = ANSI.sub("", "".join(output["text"]))
                if output["name"] == "stderr":
                    problems.append(f"第 {number} 个代码格向 stderr 输出：{output['text'][:300]}")
                if outputs and outputs[-1].get("name") == output["name"]:
                    outputs[-1]["text"] += output["text"]
                    continue
            elif output["output_type"] == "error":
                output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
            else:
                output["metadata"] = {}
            outputs.append(output)
            found = ABSOLUTE_PATH.search(json.dumps(_without_images(output), ensure_ascii=False))
            if found:
                problems.append(f"第 {number} 个代码格的输出里有绝对路径：{found.group()}")
        cell["outputs"] = outputs
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
    return problems


def _without_images(output: dict) -> dict:
    data = output.get("data", {})
    return {**output, "data": {k: v for k, v in data.items() if not k.startswith("image/")}}


def save(path: Path, nb: dict, result: Result) -> str:
    """把输出和来历写回文件；返回不能保存的理由，成功时是空字符串。"""
    problems = clean(nb)
    if problems:
        return "\n".join(problems)
    nb["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "course": {
            "code_sha256": notebook_files.code_hash(nb),
            **result.record,
            "seconds": round(result.seconds, 1),
        },
    }
    plain = json.loads(nbformat.writes(nbformat.from_dict(nb), version=4))
    notebook_files.save(path, plain)
    return ""


def expand(paths: list[str], root: Path) -> list[Path]:
    """路径可以是笔记本或一章的文件夹；不写就是全部。按课程次序，不重复。"""
    known = notebook_files.all_notebooks(root)
    if not paths:
        return known
    chosen = set()
    for text in paths:
        path = next((p.resolve() for p in (Path(text), root / text) if p.exists()), None)
        found = [n for n in known if path and (n.resolve() == path or path in n.resolve().parents)]
        if path and path.suffix == ".ipynb":
            found = [path]
        if not found:
            raise FileNotFoundError(f"找不到笔记本：{text}")
        chosen.update(found)
    return sorted(chosen)


def table(results: list[Result], root: Path) -> str:
    """最后的表格。"""
    lines = [f"{'秒':>6}  {'内存 MB':>7}  结果  笔记本（数据）"]
    for r in results:
        data = "、".join(r.record.get("data", [])) or "无"
        name = os.path.relpath(r.path, root)
        outcome = "✗" if r.problem else "✓"
        lines.append(f"{r.seconds:7.1f}  {r.record.get('peak_memory_mb', 0):9d}  {outcome}   "
                     f"{name}（{data}）")
    return "\n".join(lines)


def main(arguments: list[str], root: Path = notebook_files.ROOT) -> int:
    """命令行入口，返回退出码。"""
    parser = argparse.ArgumentParser(prog="start.py run", description="按课程次序运行笔记本")
    parser.add_argument("paths", nargs="*", metavar="路径", help="笔记本或一章的文件夹；默认全部")
    parser.add_argument("--profile", choices=("smoke", "cpu", "gpu"), help="默认按设备选择")
    parser.add_argument("--save", action="store_true", help="把输出和来历写回文件")
    options = parser.parse_args(arguments)
    os.environ["COURSE_SILENT"] = "1"
    if options.profile:
        os.environ["COURSE_PROFILE"] = options.profile
    try:
        paths = expand(options.paths, root)
        total = sum(len(notebook_files.code_cells(notebook_files.load(p))) for p in paths)
    except (OSError, ValueError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 2
    results = []
    with tqdm(total=total, unit="格", file=sys.stdout, ascii=" =") as bar:
        for path in paths:
            bar.set_description(path.stem[:30])
            result, nb = run_one(path, root, bar)
            if options.save and not result.problem:
                result.problem = save(path, nb, result)
            results.append(result)
    print(table(results, root))
    failed = [r for r in results if r.problem]
    for r in failed:
        print(f"\n✗ {os.path.relpath(r.path, root)}，{r.problem}")
    if options.save and len(failed) < len(results):
        notebook_files.update_readme(root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
