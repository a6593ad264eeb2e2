"""体检：逐项检查环境，每个问题都给出解决办法。课程跑不了时退出码为 1。

由 start.py doctor 调用；即使什么都没有装，也要能说清楚缺什么。
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OK, WARNING, PROBLEM = "✓", "!", "✗"
REINSTALL = "运行 python 00_setup/start.py，它会装好缺少的包"
Line = tuple[str, str, str]  # （记号, 说明, 解决办法）


def check_python() -> list[Line]:
    """解释器的版本和位数。"""
    version = platform.python_version()
    if sys.version_info < (3, 10):  # noqa: UP036  这里正是来检查它的
        return [(PROBLEM, f"Python {version} 太旧", "安装 Python 3.10 或更新的版本")]
    if sys.maxsize < 2**32:
        return [(PROBLEM, f"Python {version} 是 32 位的", "安装 64 位的 Python")]
    where = "独立环境" if sys.prefix != sys.base_prefix else "系统环境"
    return [(OK, f"Python {version}（{platform.machine()}，{where}）", "")]


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

    import common

    device = common.get_device()
    x = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    error = ((x.to(device) @ x.to(device)).cpu() - x @ x).abs().max().item()
    if error > 1e-2:
        return [(PROBLEM, f"设备 {device} 的矩阵乘法误差 {error:.1e} 太大",
                 "设置环境变量 COURSE_DEVICE=cpu，改用 CPU")]
    lines = [(OK, f"设备 {device}：矩阵乘法结果正确", "")]
    card = nvidia_driver()
    if card and device.type == "cpu" and os.environ.get("COURSE_DEVICE") != "cpu":
        cpu_wheel = torch.version.cuda is None
        why = "安装的是 CPU 版 PyTorch" if cpu_wheel else "显卡与 PyTorch 的版本不合"
        lines.append((WARNING, f"有显卡 {card}，但没有用上：{why}",
                      "删除 .venv 文件夹，再运行 python 00_setup/start.py 重新安装"))
    return lines


def check_memory() -> list[Line]:
    """空闲的内存和磁盘。"""
    import psutil

    memory = psutil.virtual_memory().available / 2**30
    disk = shutil.disk_usage(ROOT).free / 2**30
    lines = [(OK, f"空闲内存 {memory:.1f} GB，空闲磁盘 {disk:.1f} GB", "")]
    if memory < 2:
        lines = [(WARNING, f"空闲内存只有 {memory:.1f} GB", "关掉不用的程序，课程需要约 2 GB")]
    if disk < 1:
        lines.append((WARNING, f"磁盘只剩 {disk:.1f} GB", "清理磁盘，数据集需要几百 MB"))
    return lines


def check_common() -> list[Line]:
    """import common 找到的是不是本课程的那一个。"""
    sys.path.insert(0, str(ROOT))
    spec = importlib.util.find_spec("common")
    if spec is None or Path(spec.origin or "").resolve().parent != ROOT / "common":
        return [(PROBLEM, "import common 找到的不是本课程的 common",
                 f"运行 {Path(sys.executable).name} -m pip uninstall common，再重启内核")]
    try:
        metadata.version("common")
    except metadata.PackageNotFoundError:
        return [(OK, "课程的 common 可以导入", "")]
    return [(WARNING, "环境里另有一个叫 common 的包", "最好卸载它：pip uninstall common")]


def check_kernel() -> list[Line]:
    """Jupyter 内核能否启动所需的模块。"""
    if importlib.util.find_spec("ipykernel") is None:
        return [(PROBLEM, "没有 Jupyter 内核（ipykernel）", REINSTALL)]
    return [(OK, "Jupyter 内核已安装", "")]


def check_data() -> list[Line]:
    """数据集是否在本机。缺数据不影响运行。"""
    from common.data import status

    return [(OK if complete else WARNING, f"数据 {name}：{where}",
             "" if complete else "不联网也能学：会自动改用内置替身；手动放置见 data/README.md")
            for name, where, complete in status()]


CHECKS: tuple[tuple[Callable[[], list[Line]], str, str], ...] = (
    (check_python, "Python", "安装 Python 3.10 或更新的版本"),
    (check_packages, "安装的包", REINSTALL),
    (check_kernel, "Jupyter 内核", REINSTALL),
    (check_common, "课程的 common", "重新下载整个课程"),
    (check_torch_pair, "torch 与 torchvision 的配对", "删除 .venv 文件夹，再" + REINSTALL),
    (check_device, "设备", "设置环境变量 COURSE_DEVICE=cpu 再试；仍不行就删除 .venv 重新安装"),
    (check_memory, "内存和磁盘", REINSTALL),
    (check_data, "数据", "看 data/README.md"),
)


def examine() -> list[Line]:
    """运行每一项检查；检查本身出错也只是一行说明。"""
    lines = []
    for check, subject, cure in CHECKS:
        try:
            lines += check()
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            lines.append((PROBLEM, f"{subject}：{reason}", cure))
        if check is check_kernel and any(mark == PROBLEM for mark, _, _ in lines):
            break  # 缺包时，后面的检查只会重复同一个原因
    return lines


def main() -> int:
    """打印全部结果，返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")
    lines = examine()
    for mark, text, cure in lines:
        print(f"{mark} {text}" + (f"\n    解决：{cure}。" if cure else ""), flush=True)
    broken = sum(mark == PROBLEM for mark, _, _ in lines)
    print(f"\n有 {broken} 个问题，课程还不能运行。" if broken else "\n可以开始学习了。")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
