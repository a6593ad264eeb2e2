"""体检：逐项检查环境，每个问题都给出解决办法。课程跑不了时退出码为 1。

由 start.py doctor 调用；即使什么都没有装，也要能说清楚缺什么。
用到 PyTorch 的检查放在另一个进程里：它即使崩溃，也只是一行说明。
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import locale
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OK, WARNING, PROBLEM = "✓", "!", "✗"
MARK = "DOCTOR:"  # 子进程的答案以它开头
TORCH_SECONDS = 300  # 第一次导入 PyTorch、第一次启动显卡都可能很慢
HELP_PAGE = "00_setup/07_troubleshooting.md"
Line = tuple[str, str, str]  # （记号, 说明, 解决办法）


def see(cure: str, section: str) -> str:
    """解决办法，加上常见问题页里对应的标题。"""
    return f"{cure}；详见 {HELP_PAGE} 的“{section}”"


REINSTALL = see("运行 python 00_setup/start.py，它会装好缺少的包", "导入时报 ImportError")
REBUILD = "删除 .venv 文件夹，再运行 python 00_setup/start.py 重新安装"
REPAIR = see(REBUILD, "torch 与 torchvision 不配对")


def check_python() -> list[Line]:
    """解释器的版本和位数。"""
    version = platform.python_version()
    if sys.version_info < (3, 10):  # noqa: UP036  这里正是来检查它的
        return [(PROBLEM, f"Python {version} 太旧",
                 see("安装 Python 3.10 或更新的版本", "安装时找不到合适的版本"))]
    if sys.maxsize < 2**32:
        return [(PROBLEM, f"Python {version} 是 32 位的",
                 see("安装 64 位的 Python", "安装时找不到合适的版本"))]
    where = "独立环境" if sys.prefix != sys.base_prefix else "系统环境"
    lines = [(OK, f"Python {version}（{platform.machine()}，{where}）", "")]
    if is_translated():
        lines.append((WARNING, "这是 Intel 版的 Python，在 Apple 芯片上靠转译运行，很慢",
                      see("安装 Apple 芯片版的 Python", "Apple 芯片上装成了 Intel 版的 Python")))
    return lines


def is_translated() -> bool:
    """macOS 是否正在用 Rosetta 转译运行这个 Python。来源：Apple 文档，sysctl.proc_translated。"""
    if sys.platform != "darwin":
        return False
    command = ["sysctl", "-n", "sysctl.proc_translated"]  # Intel 电脑上没有这一项
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == "1"


def version_numbers(text: str) -> tuple[int, ...]:
    """版本号开头的几个数字，2.13.0+cpu → (2, 13)；末尾的 0 不影响比较。"""
    numbers = [int(n) for n in re.match(r"[\d.]*", text).group().split(".") if n]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_packages() -> list[Line]:
    """requirements.txt 里的每个包是否装好、够新。"""
    lines, missing = [], []
    for requirement in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, _, floor = requirement.split("#")[0].strip().partition(">=")
        if not name:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if version_numbers(version) < version_numbers(floor):
            lines.append((PROBLEM, f"{name} {version} 太旧，至少要 {floor}", REINSTALL))
    if missing:
        lines.append((PROBLEM, f"没有安装 {'、'.join(missing)}", REINSTALL))
    return lines or [(OK, "需要的包都已装好", "")]


def check_torch_pair() -> list[Line]:
    """torch 与 torchvision 是否配对：真的调用一次 torchvision 的编译算子。"""
    import torch
    import torchvision

    pair = f"torch {torch.__version__} 与 torchvision {torchvision.__version__}"
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    if kept.tolist() != [0, 2]:
        raise RuntimeError(f"nms 的结果 {kept.tolist()} 不对")
    return [(OK, f"{pair} 配对正确", "")]


def nvidia_driver() -> str:
    """NVIDIA 显卡的名字；没有驱动时是空字符串。"""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return ""
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def check_device() -> list[Line]:
    """能用的最快设备，以及显卡为什么没有用上。"""
    import torch

    sys.path.insert(0, str(ROOT))
    import common

    reason = io.StringIO()  # 显卡不能用时，get_device 会打印原因
    with contextlib.redirect_stdout(reason):
        device = common.get_device()
    x = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    error = ((x.to(device) @ x.to(device)).cpu() - x @ x).abs().max().item()
    if not error <= 1e-2:  # 也包括 nan
        return [(PROBLEM, f"设备 {device} 的矩阵乘法误差 {error:.1e} 太大",
                 see("设置环境变量 COURSE_DEVICE=cpu", "苹果电脑（MPS）缺算子或数值不同"))]
    lines = [(OK, f"设备 {device}：矩阵乘法结果正确", "")]
    if device.type == "cuda":
        lines += check_gpu_memory(*torch.cuda.mem_get_info(device))
    if reason.getvalue():
        lines.append((WARNING, reason.getvalue().strip().rstrip("。"),
                      see(REBUILD, "CUDA 版本不匹配")))
    elif device.type == "cpu" and not os.environ.get("COURSE_DEVICE") and (card := nvidia_driver()):
        if torch.version.cuda is None:
            why, cure = "安装的是 CPU 版 PyTorch", see(REBUILD, "有显卡却没有用上")
        else:
            why = "驱动比 PyTorch 要求的旧"
            cure = see("更新显卡驱动", "CUDA 版本不匹配")
        lines.append((WARNING, f"有显卡 {card}，但没有用上：{why}", cure))
    return lines


def check_gpu_memory(free: int, total: int) -> list[Line]:
    """空闲的显存（字节）。"""
    shown = f"空闲显存 {free / 2**30:.1f} GB，共 {total / 2**30:.1f} GB"
    if free < 2**30:
        return [(WARNING, shown, see("关掉占用显卡的程序", "CUDA out of memory"))]
    return [(OK, shown, "")]


def check_threads() -> list[Line]:
    """PyTorch 用几个 CPU 核。"""
    import torch

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if threads == 1 and cores > 1:
        return [(WARNING, f"电脑有 {cores} 个核，PyTorch 只用 1 个",
                 see("去掉环境变量 OMP_NUM_THREADS 和 MKL_NUM_THREADS", "训练太慢"))]
    return [(OK, f"PyTorch 用 {threads} 个线程，电脑有 {cores} 个核", "")]


def check_tensorboard() -> list[Line]:
    """TensorBoard 能不能写日志。"""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        SummaryWriter(folder).close()
        if not list(Path(folder).iterdir()):
            raise RuntimeError("没有写出日志文件")
    return [(OK, "TensorBoard 可以写日志", "")]


def free_memory() -> float | None:
    """空闲内存（GB）；问不到时返回 None。"""
    try:
        import psutil

        return psutil.virtual_memory().available / 2**30
    except ImportError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows 没有 sysconf，macOS 没有这一项
        return None


def check_memory() -> list[Line]:
    """空闲的内存和磁盘。"""
    memory, disk = free_memory(), shutil.disk_usage(ROOT).free / 2**30
    shown = f"{memory:.1f} GB" if memory is not None else "未知"
    lines = [(OK, f"空闲内存 {shown}，空闲磁盘 {disk:.1f} GB", "")]
    if memory is not None and memory < 2:
        lines.append((WARNING, f"空闲内存只有 {shown}",
                      see("关掉不用的程序，课程需要约 2 GB", "内存不够，内核中途退出")))
    if disk < 1:
        lines.append((WARNING, f"磁盘只剩 {disk:.1f} GB",
                      see("清理磁盘，数据集需要几百 MB", "磁盘不够")))
    return lines


def check_path() -> list[Line]:
    """课程文件夹的位置：文件齐全、可以写入、Windows 上路径不太长。"""
    wanted = ("00_setup/setup_cell.py", "common/__init__.py", "requirements.txt")
    missing = [name for name in wanted if not (ROOT / name).is_file()]
    if missing:
        return [(PROBLEM, f"课程文件夹里缺少 {'、'.join(missing)}", "重新下载整个课程")]
    lines = [(OK, f"课程文件夹 {ROOT}", "")]
    try:
        tempfile.TemporaryFile(dir=ROOT).close()
    except OSError:
        lines.append((WARNING, f"{ROOT} 不能写入，保存不了笔记本和数据",
                      see("把课程移到自己的文件夹里，例如桌面", "文件夹不能写入，或路径太长")))
    if os.name == "nt" and len(str(ROOT)) > 100:
        lines.append((WARNING, "课程的路径太长，安装时可能超过 Windows 的限制",
                      see("把课程移到短一些的位置，例如 D:\\course", "文件夹不能写入，或路径太长")))
    return lines


def check_common() -> list[Line]:
    """import common 找到的是不是本课程的那一个。"""
    elsewhere = [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "00_setup")]
    foreign = importlib.machinery.PathFinder.find_spec("common", elsewhere)
    if foreign is None:
        return [(OK, "没有同名的 common 包", "")]
    where = foreign.origin or list(foreign.submodule_search_locations or ["?"])[0]
    return [(WARNING, f"另有一个叫 common 的包：{where}",
             see("用 pip uninstall common 卸载它，或从 PYTHONPATH 里去掉", "import common 失败"))]


def check_kernel() -> list[Line]:
    """有没有 Jupyter 内核；名叫 python3 的内核用的是不是这个 Python。"""
    if importlib.util.find_spec("ipykernel") is None:
        return [(PROBLEM, "没有 Jupyter 内核（ipykernel）", REINSTALL)]
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if is_other_python(command):
        return [(WARNING, f"名叫 python3 的内核用的是另一个 Python：{command}",
                 see("打开笔记本后选择 .venv 的内核", "内核不对：装了包却说没有"))]
    return [(OK, "Jupyter 内核已安装", "")]


def is_other_python(command: str) -> bool:
    """内核启动的是不是别的解释器。只写名字（python、python3.12）的，Jupyter 会换成当前的。"""
    if re.fullmatch(r"python[\d.]*(\.exe)?", command, re.IGNORECASE):
        return False
    # 只比较环境，不追到真正的解释器：所有的 venv 都链接到同一个
    return Path(command).absolute().parent != Path(sys.executable).absolute().parent


def check_openmp() -> list[Line]:
    """环境里有没有装进两份 OpenMP：conda 的 MKL 加上 pip 的 torch。"""
    lines = []
    conda = Path(sys.prefix, "conda-meta")
    parts = [p.name for p in conda.glob("*.json") if p.name.startswith(("mkl-", "intel-openmp-"))]
    by_conda = any(p.name.startswith("pytorch-") for p in conda.glob("*.json"))
    if parts and not by_conda and importlib.util.find_spec("torch"):
        lines.append((WARNING, "conda 的 MKL 和 pip 的 torch 装在一个环境里，可能报 OMP Error #15",
                      see("另建一个环境，运行 python 00_setup/start.py", "OMP Error #15")))
    if "KMP_DUPLICATE_LIB_OK" in os.environ:
        lines.append((WARNING, "环境变量 KMP_DUPLICATE_LIB_OK 会掩盖错误，可能算错而不报错",
                      see("去掉这个环境变量", "OMP Error #15")))
    return lines or [(OK, "没有重复的 OpenMP", "")]


def check_encoding() -> list[Line]:
    """打开文本文件时默认的编码。"""
    name = locale.getpreferredencoding(False)
    if name.lower().replace("-", "") != "utf8":
        return [(WARNING, f"打开文本文件时默认的编码是 {name}，不是 UTF-8",
                 see('自己写 open 时加上 encoding="utf-8"', "中文乱码与 gbk 解码错误"))]
    return [(OK, "文本文件默认用 UTF-8", "")]


def check_data() -> list[Line]:
    """数据集是否在本机。缺数据不影响运行。"""
    sys.path.insert(0, str(ROOT))
    from common.data import status

    return [(OK if complete else WARNING, f"数据 {name}：{where}",
             "" if complete else see("不联网也能学：会自动改用内置替身", "数据集缺失或下载不了"))
            for name, where, complete in status()]


Checks = tuple[tuple[Callable[[], list[Line]], str, str], ...]  # （检查, 名称, 出错时的办法）
BASIC_CHECKS: Checks = (
    (check_python, "Python", see("安装 Python 3.10 或更新的版本", "安装时找不到合适的版本")),
    (check_path, "课程文件夹", "重新下载整个课程"),
    (check_memory, "内存和磁盘", "关掉不用的程序再试"),
    (check_packages, "安装的包", REINSTALL),
    (check_kernel, "Jupyter 内核", REINSTALL),
    (check_openmp, "OpenMP", REBUILD),
    (check_encoding, "文本编码", "设置环境变量 PYTHONUTF8=1"),
    (check_common, "同名的 common 包", "重新下载整个课程"),
)
TORCH_CHECKS: Checks = (
    (check_torch_pair, "torch 与 torchvision 的配对", REPAIR),
    (check_device, "设备",
     see("设置环境变量 COURSE_DEVICE=cpu 再试；仍不行就" + REBUILD, "CUDA 版本不匹配")),
    (check_threads, "CPU 的核", see("去掉环境变量 OMP_NUM_THREADS", "训练太慢")),
    (check_tensorboard, "TensorBoard", see(REBUILD, "TensorBoard 看不到数据")),
    (check_data, "数据", "看 data/README.md"),
)


def run_check(check: Callable[[], list[Line]], subject: str, cure: str) -> list[Line]:
    """做一项检查；检查本身出错也只是一行说明。"""
    try:
        return check()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [(PROBLEM, f"{subject}：{reason}", cure)]


def run_torch_checks() -> list[Line]:
    """在另一个进程里依次做用到 PyTorch 的检查。"""
    command = [sys.executable, str(Path(__file__).resolve()), "--torch"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              encoding="utf-8", errors="replace", timeout=TORCH_SECONDS,
                              check=False)
        output, ending = done.stdout, f"进程中途崩溃，退出码 {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ending = error.stdout or b"", f"等了 {TORCH_SECONDS} 秒没有结果"
        output = output if isinstance(output, str) else output.decode("utf-8", "replace")
    # 每项检查一行；库自己打印的文字不是我们的
    answers = [line[len(MARK):] for line in output.splitlines() if line.startswith(MARK)]
    lines = [tuple(line) for answer in answers for line in json.loads(answer)]
    if len(answers) < len(TORCH_CHECKS):
        _, subject, cure = TORCH_CHECKS[len(answers)]
        lines.append((PROBLEM, f"{subject}：{ending}", cure))
    return lines


def print_torch_checks() -> None:
    """子进程做的事：每完成一项检查，就打印一行 JSON。"""
    for check, subject, cure in TORCH_CHECKS:
        print("\n" + MARK + json.dumps(run_check(check, subject, cure)), flush=True)


def examine() -> list[Line]:
    """全部检查的结果。没有 torch 时，后面的检查只会重复同一个原因，就不做了。"""
    lines = []
    for check, subject, cure in BASIC_CHECKS:
        lines += run_check(check, subject, cure)
    if all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        lines += run_torch_checks()
    return lines


def main() -> int:
    """打印全部结果，返回退出码。"""
    lines = examine()
    for mark, text, cure in lines:
        print(f"{mark} {text}" + (f"\n    解决：{cure}。" if cure else ""))
    broken = sum(mark == PROBLEM for mark, _, _ in lines)
    print(f"\n有 {broken} 个问题，课程还不能运行。" if broken else "\n可以开始学习了。")
    return 1 if broken else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")
    if sys.argv[1:] == ["--torch"]:
        print_torch_checks()
    else:
        sys.exit(main())
