"""用 nbval 运行每一个笔记本：smoke 配置、内置数据、CPU。"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import notebook_files
import pytest
from notebooks import NOTEBOOKS, ROOT, name_of

NBVAL = [
    sys.executable, Path(__file__).with_name("run_nbval.py"), "--nbval-lax", "--nbval-current-env",
    "--nbval-cell-timeout=120", "--nbval-kernel-startup-timeout=180",
    "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-o", "addopts=",
]
# 在新的网络命名空间里：先打开回环（内核要用），再证明没有路出去，最后运行 nbval
ISOLATED = """
import fcntl, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS：UP、RUNNING
    try:
        s.connect(("192.0.2.1", 9))
    except OSError:
        print("no route out", flush=True)
sys.exit(subprocess.call(sys.argv[1:]))
"""


def run(command: list, cwd: Path = ROOT, timeout: int = 400, **extra: str) -> tuple[int, str]:
    """在干净的环境变量里运行；超时则结束整个进程组（包括内核）。"""
    environment = {
        k: v for k, v in os.environ.items()
        if not k.startswith(("COURSE_", "PYTEST_")) and k != "MPLBACKEND"
    }
    environment |= {
        "COURSE_PROFILE": "smoke", "COURSE_OFFLINE": "1", "COURSE_SILENT": "1",
        "COURSE_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", **extra,
    }
    process = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\n超过 {timeout} 秒没有结束。"
    return process.returncode, output[-6000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_runs_offline_on_a_cpu(path):
    status, output = run([*NBVAL, path])
    assert status == 0, output


def small_notebook(path: Path, code: str, text: str = "", tag: str = "") -> Path:
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
    cell = {
        "cell_type": "code", "id": "cell-000", "metadata": {"tags": [tag] if tag else []},
        "execution_count": 1, "outputs": outputs, "source": code,
    }
    notebook_files.save(path, {
        "cells": [cell], "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    })
    return path


@pytest.mark.parametrize(
    ("code", "text", "good"),
    [
        ("print(1 + 1)", "2\n", True),
        ("print(1 + 1)", "3\n", False),
        ("import warnings; warnings.warn('x')", "2\n", False),
        ("raise ValueError('x')", "", False),
    ],
)
def test_nbval_notices_wrong_output_and_errors(tmp_path, code, text, good):
    path = small_notebook(tmp_path / "small.ipynb", code, text, "nbval-check-output")
    status, output = run([*NBVAL, path], cwd=tmp_path)
    assert (status == 0) == good, output


@pytest.mark.parametrize(("code", "good"), [("raise ValueError('x')", True), ("x = 1", False)])
def test_errors_shown_on_purpose_must_still_raise(tmp_path, code, good):
    path = small_notebook(tmp_path / "small.ipynb", code, tag="raises-exception")
    status, output = run([*NBVAL, path], cwd=tmp_path)
    assert (status == 0) == good, output
    assert ("却没有出错" in output) != good


@pytest.mark.skipif(sys.platform != "linux", reason="网络命名空间只有 Linux 才有")
def test_runs_in_a_namespace_without_network():
    allowed, reason = run(["unshare", "-rn", "true"]) if shutil.which("unshare") else (1, "")
    if allowed != 0:
        pytest.skip(f"系统不允许建立网络命名空间：{reason}")
    path = NOTEBOOKS[-1]
    # 不设 COURSE_OFFLINE：让它自己发现没有网络
    status, output = run(
        ["unshare", "-rn", sys.executable, "-c", ISOLATED, *NBVAL, path], COURSE_OFFLINE="0"
    )
    assert status == 0 and "no route out" in output, output


def test_runs_from_a_folder_with_a_chinese_name_and_another_working_directory(tmp_path):
    home = tmp_path / "深度 学习"
    for name in {"common", "00_setup", NOTEBOOKS[0].parent.name}:
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = home / NOTEBOOKS[0].relative_to(ROOT)
    # 笔记本被拿到别处打开，只靠 COURSE_ROOT 找到课程
    shutil.copy(copy, elsewhere / "lesson.ipynb")
    for path, root in ((copy, ""), (elsewhere / "lesson.ipynb", str(home))):
        status, output = run([*NBVAL, path], cwd=elsewhere, COURSE_ROOT=root)
        assert status == 0, output


def test_setup_cell_refuses_a_foreign_common(tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("", encoding="utf-8")
    code = notebook_files.setup_cell(ROOT)
    program = f"import sys, common\n{code}"
    environment = {**os.environ, "COURSE_ROOT": str(ROOT), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], cwd=tmp_path, env=environment,
        capture_output=True, encoding="utf-8",
    )
    assert done.returncode != 0 and "不是本课程的 common" in done.stderr


def test_setup_cell_alone_says_what_to_do(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "COURSE_ROOT"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", notebook_files.setup_cell(ROOT)], cwd=tmp_path,
        env=environment, capture_output=True, encoding="utf-8",
    )
    assert done.returncode != 0 and "找不到课程文件夹" in done.stderr
