"""体检：每一种问题都要被发现，都有解决办法；无论怎样都没有 traceback。"""

import ast
import importlib.util
import os
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import doctor
import page_rules
import pytest
import torch
import torchvision

import common


def marks(lines):
    """每一行的记号。"""
    return [mark for mark, _, _ in lines]


def run_with(monkeypatch, capsys, basic, inside=()):
    """只用给出的几项检查，运行一次体检。"""
    monkeypatch.setattr(doctor, "BASIC_CHECKS", tuple((c, "某项", "办法") for c in basic))
    monkeypatch.setattr(doctor, "run_torch_checks", lambda: list(inside))
    status = doctor.main()
    return status, capsys.readouterr().out


def test_this_environment():
    environment = {**os.environ, "COURSE_DEVICE": "cpu", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, doctor.__file__], capture_output=True, env=environment,
                          stdin=subprocess.DEVNULL, timeout=300, cwd=os.path.expanduser("~"),
                          check=False)
    text = done.stdout.decode("utf-8")
    assert done.returncode == 0, text
    assert "✗" not in text and "配对正确" in text and "设备 cpu" in text and "数据 Fashion" in text
    assert not done.stderr


# ---- 退出码与格式 ----


def test_cures_lead_to_sections_of_the_page():
    page = (doctor.ROOT / doctor.HELP_PAGE).read_text(encoding="utf-8")
    headings = {words for _, words in page_rules.headings(page)}
    code = ast.parse(Path(doctor.__file__).read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(code) if isinstance(n, ast.Call) and ast.unparse(n.func) == "see"]
    named = {ast.literal_eval(call.args[1]) for call in calls}
    assert len(named) > 12 and named <= headings


def test_exit_status_and_cures(monkeypatch, capsys):
    def good():
        return [(doctor.OK, "好", "")]

    def warning():
        return [(doctor.WARNING, "小事", "小办法")]

    def problem():
        raise RuntimeError("坏了\n还有很多行")

    status, text = run_with(monkeypatch, capsys, [good, warning])
    assert status == 0 and "✓ 好\n! 小事\n    解决：小办法。\n" in text and "可以开始" in text
    status, text = run_with(monkeypatch, capsys, [good, problem, good])
    assert status == 1 and "✗ 某项：坏了\n    解决：办法。\n✓ 好\n" in text and "1 个问题" in text
    status, _ = run_with(monkeypatch, capsys, [good], [(doctor.PROBLEM, "显卡", "换一张")])
    assert status == 1


def test_without_torch_there_are_no_torch_checks(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *a: None if name == "torch" else find(name, *a))
    problem = (doctor.PROBLEM, "重复的原因", "办法")
    assert "重复" not in run_with(monkeypatch, capsys, [lambda: []], [problem])[1]


# ---- 解释器、包、内核 ----


@pytest.mark.parametrize(("version", "bits", "word"), [
    ((3, 9, 18), 64, "太旧"), ((3, 12, 1), 32, "32 位"), ((3, 10, 0), 64, ""),
])
def test_python(monkeypatch, version, bits, word):
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(
        version_info=version, maxsize=2 ** (bits - 1) - 1, prefix="a", base_prefix="b",
        platform="linux"))
    (line,) = doctor.check_python()
    assert word in line[1] and line[0] == (doctor.PROBLEM if word else doctor.OK)


@pytest.fixture
def versions(monkeypatch):
    """假装安装了这些版本：{包名: 版本}，没写的包照实回答。"""
    fake, real = {}, metadata.version

    def version(name):
        if name in fake and fake[name] is None:
            raise metadata.PackageNotFoundError(name)
        return fake.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    return fake


def test_packages(versions):
    assert marks(doctor.check_packages()) == [doctor.OK]
    versions.update(torch="2.5.1+cu121", nbval=None, tqdm=None)
    old, missing = doctor.check_packages()
    assert old[0] == doctor.PROBLEM and "torch 2.5.1+cu121 太旧，至少要 2.6" in old[1] and old[2]
    assert missing[0] == doctor.PROBLEM and "tqdm、nbval" in missing[1] and missing[2]


@pytest.mark.parametrize(("low", "high"), [
    ("2.5.1", "2.6"), ("2.6", "2.13.0+cpu"), ("1.9", "1.10"), ("0.9.9", "1"),
])
def test_versions_are_compared_as_numbers(low, high):
    assert doctor.version_numbers(low) < doctor.version_numbers(high)
    assert doctor.version_numbers("2.6.0") == doctor.version_numbers("2.6")


@pytest.mark.parametrize(("platform", "answer", "found"), [
    ("darwin", "1\n", True), ("darwin", "0\n", False), ("darwin", "", False),
    ("linux", "1\n", False),
])
def test_translated_python(monkeypatch, platform, answer, found):
    monkeypatch.setattr(doctor.sys, "platform", platform)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=answer))
    assert (doctor.WARNING in marks(doctor.check_python())) == found


@pytest.mark.parametrize(("command", "other"), [
    (sys.executable, False), ("python", False), ("python3.12", False), ("python.exe", False),
    (os.path.join(os.sep, "elsewhere", "bin", "python"), True),
])
def test_kernel_of_another_python(monkeypatch, command, other):
    from jupyter_client.kernelspec import KernelSpecManager

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec",
                        lambda self, name: SimpleNamespace(argv=[command, "-m"]))
    (line,) = doctor.check_kernel()
    assert (line[0] == doctor.WARNING and command in line[1]) == other


def test_openmp_twice(monkeypatch, tmp_path):
    monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
    assert marks(doctor.check_openmp()) == [doctor.OK]
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta" / "mkl-2024.2.json").touch()
    (line,) = doctor.check_openmp()
    assert line[0] == doctor.WARNING and "OMP Error #15" in line[1] + line[2]
    (tmp_path / "conda-meta" / "pytorch-2.6.json").touch()  # 整套都来自 conda，只有一份
    assert marks(doctor.check_openmp()) == [doctor.OK]
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "TRUE")
    (line,) = doctor.check_openmp()
    assert line[0] == doctor.WARNING and "KMP_DUPLICATE_LIB_OK" in line[1]


@pytest.mark.parametrize(("name", "mark"), [
    ("utf-8", doctor.OK), ("UTF-8", doctor.OK), ("cp936", doctor.WARNING), ("gbk", doctor.WARNING),
])
def test_text_encoding(monkeypatch, name, mark):
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda *_: name)
    assert marks(doctor.check_encoding()) == [mark]


def test_missing_kernel(monkeypatch):
    assert marks(doctor.check_kernel()) == [doctor.OK]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert marks(doctor.check_kernel()) == [doctor.PROBLEM]


# ---- 文件夹、内存、同名的包 ----


def test_course_folder(monkeypatch, tmp_path):
    assert marks(doctor.check_path()) == [doctor.OK]

    def read_only(dir):
        raise PermissionError(dir)

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", read_only)
    assert marks(doctor.check_path()) == [doctor.OK, doctor.WARNING]
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (line,) = doctor.check_path()
    assert line[0] == doctor.PROBLEM and "common/__init__.py" in line[1]


def test_memory_and_disk(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 3.0)
    assert doctor.WARNING not in marks(doctor.check_memory())
    monkeypatch.setattr(doctor, "free_memory", lambda: None)
    assert "未知" in doctor.check_memory()[0][1]
    monkeypatch.setattr(doctor, "free_memory", lambda: 1.9)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(2**29))
    assert marks(doctor.check_memory()) == [doctor.OK, doctor.WARNING, doctor.WARNING]


def test_memory_without_psutil(monkeypatch):
    known = doctor.free_memory()
    monkeypatch.setitem(sys.modules, "psutil", None)
    guess = doctor.free_memory()
    assert known > 0 and (guess is None or guess > 0)


def test_foreign_common(monkeypatch, tmp_path):
    assert marks(doctor.check_common()) == [doctor.OK]
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (line,) = doctor.check_common()
    assert line[0] == doctor.WARNING and str(tmp_path) in line[1] and line[2]


# ---- torch、设备、数据 ----


def test_torch_pair(monkeypatch):
    assert marks(doctor.check_torch_pair()) == [doctor.OK]

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    (line,) = doctor.run_check(*doctor.TORCH_CHECKS[0])
    assert line[0] == doctor.PROBLEM and "nms does not exist" in line[1] and ".venv" in line[2]
    monkeypatch.setattr(torchvision.ops, "nms", lambda *_: torch.tensor([0, 1, 2]))
    (line,) = doctor.run_check(*doctor.TORCH_CHECKS[0])
    assert line[0] == doctor.PROBLEM and "[0, 1, 2]" in line[1]


@pytest.fixture
def no_choice(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(common, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "")


def test_device(monkeypatch, no_choice):
    assert marks(doctor.check_device()) == [doctor.OK]
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "RTX 9090")
    monkeypatch.setattr(torch.version, "cuda", None)
    _, line = doctor.check_device()
    assert line[0] == doctor.WARNING and "CPU 版 PyTorch" in line[1] and "重新安装" in line[2]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "驱动" in doctor.check_device()[1][1]
    monkeypatch.setenv("COURSE_DEVICE", "cpu")  # 自己选的，不必提醒
    assert marks(doctor.check_device()) == [doctor.OK]


def test_free_memory_of_a_gpu():
    assert marks(doctor.check_gpu_memory(6 * 2**30, 8 * 2**30)) == [doctor.OK]
    (line,) = doctor.check_gpu_memory(2**29, 8 * 2**30)
    assert line[0] == doctor.WARNING and "0.5 GB" in line[1]


@pytest.mark.parametrize(("threads", "cores", "mark"), [
    (1, 8, doctor.WARNING), (1, 1, doctor.OK), (4, 8, doctor.OK), (2, None, doctor.OK),
])
def test_threads(monkeypatch, threads, cores, mark):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: cores)
    assert marks(doctor.check_threads()) == [mark]


def test_tensorboard(monkeypatch):
    import torch.utils.tensorboard as board

    assert marks(doctor.check_tensorboard()) == [doctor.OK]
    monkeypatch.setattr(board, "SummaryWriter", lambda folder: SimpleNamespace(close=lambda: None))
    with pytest.raises(RuntimeError, match="日志"):
        doctor.check_tensorboard()


def test_device_that_was_given_up(monkeypatch, no_choice, capsys):
    def get_device():
        print("设备 cuda 不能用（no kernel image），改用 CPU。")
        return torch.device("cpu")

    monkeypatch.setattr(common, "get_device", get_device)
    _, line = doctor.check_device()
    assert line[0] == doctor.WARNING and "no kernel image" in line[1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_device_that_computes_wrongly(monkeypatch, no_choice, value):
    real = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a: real(x, *a) + value)
    assert marks(doctor.check_device()) == [doctor.PROBLEM]


def test_data(monkeypatch):
    status = SimpleNamespace(status=lambda: [("甲", "本机已有", True), ("乙", "缺 1 个", False)])
    monkeypatch.setitem(sys.modules, "common.data", status)
    assert marks(doctor.check_data()) == [doctor.OK, doctor.WARNING]
    monkeypatch.setitem(sys.modules, "common.data", None)
    assert marks(doctor.run_check(*doctor.TORCH_CHECKS[-1])) == [doctor.PROBLEM]


@pytest.mark.parametrize(("rest", "word"), [
    ("os._exit(11)", "中途崩溃，退出码 11"), ("time.sleep(60)", "等了 2 秒"),
])
def test_a_crash_or_hang_is_one_line(monkeypatch, tmp_path, rest, word):
    script = tmp_path / "doctor.py"
    answer = doctor.MARK + '[["✓", "配对正确", ""]]'
    script.write_text(
        "import os, sys, time\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        f"print('OMP: Error #15')\nprint({answer!r}, flush=True)\n{rest}\n", encoding="utf-8")
    monkeypatch.setattr(doctor, "__file__", str(script))
    monkeypatch.setattr(doctor, "TORCH_SECONDS", 2 if "sleep" in rest else 60)
    first, second = doctor.run_torch_checks()
    assert first == ("✓", "配对正确", "")
    assert second[0] == doctor.PROBLEM and second[1].startswith("设备：") and word in second[1]


def test_torch_checks_in_their_own_process():
    assert marks(doctor.run_torch_checks())[:2] == [doctor.OK, doctor.OK]


@pytest.mark.parametrize("answer", ["", "Tesla T4\nTesla T4\n"])
def test_nvidia_driver(monkeypatch, answer):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "nvidia-smi")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=answer))
    assert doctor.nvidia_driver() == answer[:8]


def test_no_nvidia_driver(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.nvidia_driver() == ""

    def broken(*_, **__):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(doctor.shutil, "which", lambda name: "nvidia-smi")
    monkeypatch.setattr(doctor.subprocess, "run", broken)
    assert doctor.nvidia_driver() == ""
