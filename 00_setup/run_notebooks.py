"""按课程次序运行笔记本；加 --save 时把输出和来历写回文件。

由 start.py run 在课程的环境里调用。
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
import uuid
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
    r"(?:file://|(?<![\w/.:~]))/(?:home|root|Users|private|tmp|var|usr|opt|work|mnt|content)/\S*"
    r"|\b[A-Z]:\\[^\s\\]+\\\S*"
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


def new_kernel(folder: str) -> OwnKernelManager:
    """一个还没有启动的内核，folder 是放连接文件的临时文件夹。

    能用 Unix 套接字就用它：几个内核同时启动时，TCP 端口会被别人抢先占用。
    """
    place = os.path.join(folder, uuid.uuid4().hex[:8])
    if os.name == "nt" or len(os.fsencode(place)) > 90:  # 套接字的路径最长约 100 字节
        return OwnKernelManager(connection_file=place + ".json")
    return OwnKernelManager(connection_file=place + ".json", transport="ipc", ip=place)


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
    """向内核询问内存峰值和来历；这一格不留在笔记本里。"""
    cells = client.nb.cells
    cells.append(nbformat.v4.new_code_cell(QUESTION))
    try:
        cell = client.execute_cell(cells[-1], len(cells) - 1, store_history=False)
        answer = "".join(o["text"] for o in cell.outputs if o.get("name") == "stdout")
        return json.loads(answer.split("PROVENANCE", 1)[1])
    except CellExecutionError as error:
        raise RuntimeError(f"问不到运行的来历：{error.evalue}") from error
    finally:
        cells.pop()


def kernel_environment(root: Path, folder: str) -> dict[str, str]:
    """内核的环境变量：不读用户自己的 IPython 设置，也不换掉笔记本里的绘图后端。"""
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**kept, "COURSE_ROOT": str(root), "COURSE_SILENT": "1", "PYTHONUTF8": "1",
            "IPYTHONDIR": folder}


def run_one(path: Path, environment: dict[str, str], bar: tqdm) -> tuple[Result, dict]:
    """运行一个笔记本，返回结果和带输出的内容（文件本身不动）。"""
    result = Result(path)
    nb = nbformat.read(path, as_version=4)
    codes = [cell for cell in nb.cells if cell.cell_type == "code"]
    for cell in codes:
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(nb, km=new_kernel(environment["IPYTHONDIR"]), timeout=CELL_TIMEOUT)
    number, cell = 0, None
    try:
        # 内核要在这里停下，否则前面的笔记本会一直占着内存
        with client.setup_kernel(env=environment, cwd=str(path.parent), cleanup_kc=True):
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
            number, cell = number + 1, None
            result.record = ask(client)
    except CellExecutionError as error:
        shown = errors(cell)
        trace = "\n".join(shown[-1]["traceback"]) if shown else str(error)
        result.problem = ANSI.sub("", trace)
    except DeadKernelError:
        result.problem = "内核中途退出，最常见的原因是内存不够。"
    except CellTimeoutError:
        result.problem = f"超过 {CELL_TIMEOUT} 秒没有结束。"
    except Exception as error:  # 任何意外都记在这个笔记本名下，后面的照常运行
        result.problem = ANSI.sub("", str(error) or repr(error))
    if result.problem:
        place = describe(cell, number) if cell else "运行完之后：" if number else "启动内核："
        result.problem = f"{place}\n{result.problem}"
        bar.update(len(codes) - min(max(number - 1, 0), len(codes)))
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
                output["text"] = ANSI.sub("", output["text"])
                if output["name"] == "stderr":
                    problems.append(f"第 {number} 个代码格向 stderr 输出：{output['text'][:300]}")
                if outputs and outputs[-1].get("name") == output["name"]:
                    outputs[-1]["text"] += output["text"]
                    continue
            elif output["output_type"] == "error":
                frames = [ANSI.sub("", frame) for frame in output["traceback"]]
                # 库内部的各层带着本机的路径，与读者无关；留下本笔记本的几行
                output["traceback"] = [f for f in frames if not f.lstrip().startswith("File ")]
            else:
                output["metadata"] = {}
                if "execution_count" in output:
                    output["execution_count"] = number
            outputs.append(output)
        found = [path for output in outputs for path in absolute_paths(output)]
        if found:
            problems.append(f"第 {number} 个代码格的输出里有绝对路径：{found[0]}")
        cell["outputs"] = outputs
    for cell in nb["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
    return problems


def absolute_paths(output: dict) -> list[str]:
    """一个输出的文字里的绝对路径；图像是二进制，不必看。"""
    texts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/"):
            texts.append(value if isinstance(value, str) else json.dumps(value))
    own = [str(folder) for folder in (notebook_files.ROOT, Path.home(), sys.prefix)]
    own = [folder for folder in own if len(folder) > 3]  # 不是 / 或 C:\
    found = [match.group() for text in texts for match in ABSOLUTE_PATH.finditer(text)]
    return found + [folder for folder in own for text in texts if folder in text]


def save(path: Path, nb: dict, result: Result) -> str:
    """把输出和来历写回文件；返回不能保存的理由，成功时是空字符串。"""
    problems = clean(nb)
    now = notebook_files.load(path)["cells"]
    if [notebook_files.source(cell) for cell in now] != [cell["source"] for cell in nb["cells"]]:
        problems.append("运行期间笔记本被修改了，请再运行一次。")
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
    plain = json.loads(nbformat.writes(nb, version=4))  # 多行的文字写成列表
    notebook_files.save(path, plain)
    return ""


def expand(paths: list[str], root: Path) -> list[Path]:
    """路径可以是笔记本或一章的文件夹；不写就是全部。按课程次序，不重复。"""
    known = notebook_files.all_notebooks(root)
    if not paths and known:
        return known
    if not paths:
        raise FileNotFoundError(f"{root} 里没有笔记本。")
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


def name_of(path: Path, root: Path) -> str:
    """显示用的路径：课程里的写相对路径。"""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def table(results: list[Result], root: Path) -> str:
    """最后的表格。"""
    lines = [f"{'秒':>6}  {'内存 MB':>7}  结果  笔记本（数据）"]
    for r in results:
        data = "、".join(r.record.get("data", [])) or "无"
        outcome = "✗" if r.problem else "✓"
        lines.append(f"{r.seconds:7.1f}  {r.record.get('peak_memory_mb', 0):9d}  {outcome}   "
                     f"{name_of(r.path, root)}（{data}）")
    return "\n".join(lines)


def run_all(paths: list[Path], root: Path, saving: bool, results: list[Result]) -> None:
    """依次运行，每完成一个就把结果加进 results：中断时已完成的仍然算数。"""
    total = sum(len(notebook_files.code_cells(notebook_files.load(path))) for path in paths)
    # disable=None：输出不是终端时（例如写进日志）不画进度条
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tqdm(total=total, unit="格", file=sys.stdout, ascii=" =", disable=None) as bar,
    ):
        environment = kernel_environment(root, folder)
        for path in paths:
            bar.set_description(path.stem[:30])
            result, nb = run_one(path, environment, bar)
            if saving and not result.problem:
                try:
                    result.problem = save(path, nb, result)
                except (OSError, ValueError) as error:
                    result.problem = f"不能保存：{error}"
            results.append(result)


def main(arguments: list[str], root: Path = notebook_files.ROOT) -> int:
    """命令行入口，返回退出码。"""
    parser = argparse.ArgumentParser(prog="start.py run", description="按课程次序运行笔记本")
    parser.add_argument("paths", nargs="*", metavar="路径", help="笔记本或一章的文件夹；默认全部")
    parser.add_argument("--profile", choices=("smoke", "cpu", "gpu"), help="默认按设备选择")
    parser.add_argument("--save", action="store_true", help="把输出和来历写回文件")
    options = parser.parse_args(arguments)
    root, results, interrupted = root.resolve(), [], False
    if options.profile:
        os.environ["COURSE_PROFILE"] = options.profile
    try:
        run_all(expand(options.paths, root), root, options.save, results)
    except (OSError, ValueError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        interrupted = True
    print(table(results, root))
    failed = [r for r in results if r.problem]
    for r in failed:
        print(f"\n✗ {name_of(r.path, root)}，{r.problem}")
    if options.save and len(failed) < len(results):
        notebook_files.update_readme(root)
    if interrupted:
        print("\n✗ 已中断，上面是已经完成的笔记本。")
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # Windows 的控制台默认写不出 ✓ 和中文
        stream.reconfigure(encoding="utf-8", errors="replace")
    sys.exit(main(sys.argv[1:]))
