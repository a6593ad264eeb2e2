"""启动器的测试：假的 pip、假的驱动、本地的安装源；不联网，也不真的安装。"""

import ast
import builtins
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

START = Path(__file__).resolve().parent.parent / "00_setup" / "start.py"
POSIX = pytest.mark.skipif(os.name == "nt", reason="需要 POSIX 的信号")
REQUIREMENTS = "torch>=2.6\ntorchvision>=0.21\nno-such-course-package>=1\n"

# 假的包放在 PYTHONPATH 里，所以环境里的解释器会先找到它们
RECORDER = """
import json, os, sys, time
from pathlib import Path
folder = Path(os.environ["FAKE_FOLDER"])
seen = {"name": NAME, "args": sys.argv[1:], "prefix": sys.prefix, "cwd": os.getcwd(),
        "time": time.time(), "root": os.environ.get("COURSE_ROOT"),
        "utf8": os.environ.get("PYTHONUTF8"),
        "own_kernel": os.environ.get("JUPYTER_PREFER_ENV_PATH")}
def record():
    with open(folder / (NAME + ".jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(seen) + "\\n")
"""
FAKE_PIP = (
    """NAME = "pip"
"""
    + RECORDER
    + """
if sys.argv[1:] == ["--version"]:
    sys.exit((folder / "no_pip").exists())
record()
plan = folder / "plan.json"
steps = json.loads(plan.read_text("utf-8")) if plan.exists() else []
step = steps.pop(0) if steps else {}
plan.write_text(json.dumps(steps), "utf-8")
time.sleep(step.get("sleep", 0))
sys.stderr.write(step.get("stderr", ""))
sys.exit(step.get("status", 0))
"""
)
FAKE_PROGRAM = """
if "--wait-for-interrupt" in sys.argv:
    try:
        record()
        time.sleep(30)
    except KeyboardInterrupt:
        time.sleep(0.3)
        sys.exit(0)
else:
    record()
sys.exit(int(os.environ.get("FAKE_STATUS", "0")))
"""
FAKE_ENSUREPIP = """
import os, sys
from pathlib import Path
folder = Path(os.environ["FAKE_FOLDER"])
if (folder / "no_ensurepip").exists():
    sys.exit("ensurepip is disabled in Debian/Ubuntu for the system python.")
(folder / "no_pip").unlink()
"""


class Course:
    """一份临时的课程：有真的 start.py，其余都是假的。"""

    def __init__(self, folder):
        self.root = folder / "课程 root"
        self.fakes = folder / "fakes"
        self.venv = self.root / ".venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.stamp = self.venv / ".course-stamp"
        (self.root / "00_setup").mkdir(parents=True)
        self.write("requirements.txt", REQUIREMENTS)
        shutil.copy(START, self.root / "00_setup" / "start.py")
        for name, text in [
            ("pip/__main__.py", FAKE_PIP),
            ("jupyterlab/__main__.py", 'NAME = "jupyterlab"\n' + RECORDER + FAKE_PROGRAM),
            ("pytest/__main__.py", 'NAME = "pytest"\n' + RECORDER + FAKE_PROGRAM),
            ("ensurepip.py", FAKE_ENSUREPIP),
        ]:
            path = self.fakes / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            if path.name == "__main__.py":  # 没有它就比不过已经安装的同名包
                (path.parent / "__init__.py").touch()
        self.start = load(self.root / "00_setup" / "start.py")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def script(self, name):
        """旁边的脚本，记下收到的参数。"""
        self.write(f"00_setup/{name}.py", f'NAME = "{name}"\n' + RECORDER + FAKE_PROGRAM)

    def plan(self, *steps):
        """假 pip 依次怎样回答；不写就是成功。"""
        (self.fakes / "plan.json").write_text(json.dumps(steps), "utf-8")

    def calls(self, name="pip"):
        path = self.fakes / f"{name}.jsonl"
        text = path.read_text("utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def pip_args(self):
        return [" ".join(call["args"]) for call in self.calls()]

    def make_ready(self):
        """一个已经装完的环境。"""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        self.stamp.write_text(self.digest() + "\n", "utf-8")

    def digest(self):
        return hashlib.sha256((self.root / "requirements.txt").read_bytes()).hexdigest()

    def spawn(self, *arguments, **options):
        """真的另起一个进程。"""
        return subprocess.Popen(
            [sys.executable, self.root / "00_setup" / "start.py", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            **options,
        )

    def wait_for(self, name, count=1):
        """等假程序开始运行。"""
        deadline = time.monotonic() + 20
        while len(self.calls(name)) < count:
            assert time.monotonic() < deadline, f"{name} 没有被运行"
            time.sleep(0.02)


def load(path):
    spec = importlib.util.spec_from_file_location("course_start", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start():
    return load(START)


@pytest.fixture
def course(tmp_path, monkeypatch):
    made = Course(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(made.fakes))
    monkeypatch.setenv("FAKE_FOLDER", str(made.fakes))
    monkeypatch.delenv("COURSE_VENV", raising=False)
    monkeypatch.delenv("COURSE_ROOT", raising=False)
    monkeypatch.setattr(made.start, "find_driver", lambda: None)
    monkeypatch.setattr(made.start, "answers", lambda url, seconds: True)
    monkeypatch.setattr(made.start, "PLATFORM", "linux")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e12))
    return made


def one_line(capfd, *words):
    """标准错误恰好一行，以 ✗ 开头，没有 traceback，并含有这些字样。"""
    err = capfd.readouterr().err if hasattr(capfd, "readouterr") else capfd
    assert len(err.splitlines()) == 1 and err.startswith("✗ "), err
    for word in words:
        assert word in err, err


# ---- Python 的版本 ----


@pytest.mark.parametrize("version", [(3, 6), (3, 9, 20)])
def test_old_python_is_refused(start, capfd, version):
    with pytest.raises(SystemExit) as stop:
        start.check_python(version)
    assert stop.value.code == 1
    one_line(capfd, "3.10", ".".join(str(part) for part in version[:2]))


def test_new_python_is_accepted(start):
    start.check_python((3, 10))
    start.check_python((4, 0))


def test_old_python_can_read_the_file():
    """旧版本要能读到 check_python：语法旧，开头的导入旧，注解在运行时也不出错。"""
    tree = ast.parse(START.read_text("utf-8"), feature_version=(3, 7))
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "")]
            assert not {"importlib.metadata", "metadata", "annotations"} & set(names)
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.NamedExpr, ast.AnnAssign))
        if isinstance(node, ast.FunctionDef):
            given = [node.returns] + [argument.annotation for argument in node.args.args]
            simple = (ast.Name, ast.Constant)
            assert all(note is None or isinstance(note, simple) for note in given), node.name


# ---- 版本号和 requirements.txt ----


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2.6.0rc1", "2.6"),
        ("2.6.0.dev20250101+cu126", "2.6.0a1"),
        ("2.6.0a0+git12", "2.6.0b1"),
        ("2.6.0b2", "2.6.0rc1"),
        ("2.6.0rc1", "2.6.0rc2"),
        ("2.9.1", "2.10"),
        ("2.6", "2.6.0.post0"),
        ("2.6.0+cpu", "2.6.1"),
        ("unknown", "0.1"),
    ],
)
def test_version_order(start, older, newer):
    assert start.version_key(older) < start.version_key(newer)


@pytest.mark.parametrize("same", ["2.13", "2.13.0", "2.13.0+cpu", "v2.13.0.0", " 2.13.0+cu130"])
def test_version_equal(start, same):
    assert start.version_key(same) == start.version_key("2.13.0")


def test_zero_version(start):
    assert start.version_key("0") == start.version_key("0.0") < start.version_key("0.0.1")


def test_has_all_reads_installed_versions(start, tmp_path, monkeypatch):
    for name, version in [("alpha_lib", "2.13.0+cpu"), ("beta.lib", "1.0rc1")]:
        record = tmp_path / f"{name}-{version}.dist-info"
        record.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (record / "METADATA").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert start.has_all([("alpha-lib", "2.13"), ("beta-lib", "0")])
    assert not start.has_all([("alpha-lib", "2.14")])
    assert not start.has_all([("beta-lib", "1.0")])
    assert not start.has_all([("alpha-lib", "2.13"), ("gamma-lib", "0")])


def test_read_requirements(course):
    course.write("requirements.txt", "\ufeff# 说明\nTorch >= 2.6  # 说明\n\ntqdm\n")
    digest, wanted = course.start.read_requirements()
    assert wanted == [("torch", "2.6"), ("tqdm", "0")]
    assert digest == course.digest()


@pytest.mark.parametrize("line", ["torch==2.6", "torch<3", "-r other.txt", "torch>=2.6,<3"])
def test_unsupported_requirement(course, capfd, line):
    course.write("requirements.txt", line + "\n")
    assert course.start.main(["test"]) == 1
    one_line(capfd, "requirements.txt", line)


def test_requirements_missing(course, capfd):
    (course.root / "requirements.txt").unlink()
    assert course.start.main([]) == 1
    one_line(capfd, "requirements.txt")


def test_requirements_not_utf8(course, capfd):
    (course.root / "requirements.txt").write_bytes("# 说明".encode("gbk"))
    assert course.start.main([]) == 1
    one_line(capfd, "内容有问题")


# ---- 驱动和安装源 ----


def fake_nvidia_smi(folder, monkeypatch, header, cards, status=0):
    """PATH 里一个假的 nvidia-smi：不带参数时输出 header，查询时输出 cards。"""
    folder.mkdir(exist_ok=True)
    script = folder / "nvidia-smi.py"
    script.write_text(
        f"import sys\nprint({cards!r} if sys.argv[1:] else {header!r})\nsys.exit({status})\n",
        "utf-8",
    )
    if os.name == "nt":
        (folder / "nvidia-smi.cmd").write_text(f'@"{sys.executable}" "{script}" %*\n', "utf-8")
    else:
        tool = folder / "nvidia-smi"
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', "utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


OLD_HEADER = "| NVIDIA-SMI 550.40.07    Driver Version: 550.40.07      CUDA Version: 12.4     |"
NEW_HEADER = "| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02     CUDA UMD Version: 13.3     |"


@pytest.mark.parametrize(
    ("header", "cards", "driver"),
    [
        (OLD_HEADER, "8.6", ((12, 4), (8, 6))),
        (NEW_HEADER, "12.0\n6.1", ((13, 3), (12, 0))),
        ("CUDA Version: 11.4", 'Field "compute_cap" is not a valid field.', ((11, 4), (7, 5))),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver.", "", None),
        ("| NVIDIA-SMI 331.62     Driver Version: 331.62         |", "", None),
    ],
)
def test_find_driver(start, tmp_path, monkeypatch, header, cards, driver):
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, header, cards, status=9 * (driver is None))
    assert start.find_driver() == driver


def test_find_driver_without_tool(start, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert start.find_driver() is None


def test_find_driver_that_hangs(start, monkeypatch):
    def hang(command, timeout, **options):
        assert timeout <= 20
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", hang)
    assert start.find_driver() is None


TURING, PASCAL, BLACKWELL, KEPLER = (7, 5), (6, 1), (12, 0), (3, 5)


@pytest.mark.parametrize(
    ("platform", "driver", "index"),
    [
        ("linux", None, "cpu"),
        ("win32", None, None),
        ("darwin", None, None),
        ("darwin", ((13, 0), TURING), None),
        ("linux", ((13, 3), BLACKWELL), "cu132"),
        ("win32", ((13, 2), TURING), "cu132"),
        ("linux", ((13, 1), TURING), "cu130"),
        ("win32", ((12, 9), BLACKWELL), "cu128"),
        ("linux", ((12, 4), TURING), "cu126"),
        ("win32", ((12, 0), PASCAL), "cu126"),
        ("linux", ((13, 0), PASCAL), "cu126"),  # 新的 CUDA 不再支持旧的显卡
        ("linux", ((11, 8), TURING), "cu118"),
        ("linux", ((11, 4), TURING), "cpu"),
        ("win32", ((11, 4), TURING), None),
        ("linux", ((12, 4), KEPLER), "cpu"),
    ],
)
def test_pick_index(start, platform, driver, index):
    expected = index and "https://download.pytorch.org/whl/" + index
    assert start.pick_index(platform, driver) == expected


class Server:
    """本地的安装源：behave(socket) 决定怎样应答。"""

    def __init__(self, behave):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/whl/cpu/torch/"
        self.behave = behave
        self.stopped = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            connection = self.socket.accept()[0]
            with connection:
                connection.recv(4096)
                self.behave(connection, self.stopped)
        except OSError:
            pass


def reply_well(connection, stopped):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlist")


def reply_forbidden(connection, stopped):
    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope")


def reply_nothing(connection, stopped):
    stopped.wait(10)


def reply_slowly(connection, stopped):
    """一直有数据，每次的超时都不会到，总时间却很长。"""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not stopped.wait(0.05):
        connection.sendall(b"X-Slow: 1\r\n")


def reply_nonsense(connection, stopped):
    connection.sendall(b"\x00\x01nonsense\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "expected", "seconds"),
    [
        (reply_well, True, 5),
        (reply_forbidden, False, 5),
        (reply_nonsense, False, 5),
        (reply_nothing, False, 0.4),
        (reply_slowly, False, 0.4),
    ],
)
def test_answers(start, monkeypatch, behave, expected, seconds):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server(behave)
    began = time.monotonic()
    try:
        assert start.answers(server.url, seconds) is expected
        assert time.monotonic() - began < seconds + 1
    finally:
        server.stopped.set()
        server.socket.close()


def test_answers_closed_port(start, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert start.answers(f"http://127.0.0.1:{port}/", 5) is False


def test_probe_asks_the_chosen_index_for_five_seconds(course, monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(
        course.start, "answers", lambda url, seconds: asked.append((url, seconds)) or False
    )
    assert course.start.choose_index() is None
    assert asked == [("https://download.pytorch.org/whl/cpu/torch/", 5)]
    notice = capfd.readouterr().out
    assert len(notice.splitlines()) == 1 and "默认源" in notice and "5 秒" in notice


# ---- 安装 ----


def test_first_start_installs_then_stamps(course):
    assert course.start.main(["test"]) == 0
    first, second = course.pip_args()
    index = "https://download.pytorch.org/whl/cpu"
    assert first.startswith("install ")
    assert first.endswith(f"torch>=2.6 torchvision>=0.21 --index-url {index}")
    assert second.endswith(f"-r {course.root / 'requirements.txt'}") and "index-url" not in second
    assert Path(course.calls()[0]["prefix"]).resolve() == course.venv.resolve()
    assert course.stamp.read_text("utf-8").strip() == course.digest()


def test_second_start_does_not_install(course):
    assert course.start.main(["test"]) == course.start.main(["test"]) == 0
    assert len(course.calls()) == 2
    assert len(course.calls("pytest")) == 2


def test_changed_requirements_install_again(course):
    course.start.main(["test"])
    course.write("requirements.txt", REQUIREMENTS + "one-more-package\n")
    course.start.main(["test"])
    assert len(course.calls()) == 4
    assert course.stamp.read_text("utf-8").strip() == course.digest()


def test_running_interpreter_is_used_when_it_has_everything(course):
    course.write("requirements.txt", "# 什么都不需要\n")
    assert course.start.main(["test"]) == 0
    assert not course.calls() and not course.venv.exists()
    assert course.calls("pytest")[0]["prefix"] == sys.prefix


def test_course_venv_moves_the_environment(course, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / "环境"
    monkeypatch.setenv("COURSE_VENV", str(other))
    assert course.start.main(["test"]) == 0
    assert (other / ".course-stamp").is_file() and not course.venv.exists()


def test_silent_index_is_passed_over_with_one_line(course, monkeypatch, capfd):
    monkeypatch.setattr(course.start, "answers", lambda url, seconds: False)
    assert course.start.main(["test"]) == 0
    assert len(course.pip_args()) == 1 and "--index-url" not in course.pip_args()[0]
    notices = [line for line in capfd.readouterr().out.splitlines() if "默认源" in line]
    assert len(notices) == 1


def test_default_platform_uses_the_default_index(course, monkeypatch):
    monkeypatch.setattr(course.start, "PLATFORM", "darwin")
    monkeypatch.setattr(course.start, "answers", lambda *_: pytest.fail("不该连接安装源"))
    assert course.start.main(["test"]) == 0
    assert len(course.pip_args()) == 1 and "--index-url" not in course.pip_args()[0]


def test_driver_leads_to_cuda_index(course, tmp_path, monkeypatch):
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, OLD_HEADER, "8.6")
    monkeypatch.setattr(course.start, "find_driver", load(START).find_driver)
    assert course.start.main(["test"]) == 0
    assert course.pip_args()[0].endswith("--index-url https://download.pytorch.org/whl/cu126")


@pytest.mark.parametrize("form", [["--index-url", "{}"], ["--index-url={}"]])
def test_index_url_overrides(course, monkeypatch, form):
    url = "https://mirror.example/simple"
    monkeypatch.setattr(course.start, "answers", lambda *_: pytest.fail("不该连接安装源"))
    assert course.start.main(["test", "-k", "x", *(part.format(url) for part in form)]) == 0
    (only,) = course.pip_args()
    assert only.endswith(f"requirements.txt --index-url {url}")
    assert course.calls("pytest")[0]["args"] == ["-k", "x"]


@pytest.mark.parametrize("arguments", [["--index-url"], ["--index-url="]])
def test_index_url_needs_a_value(course, capfd, arguments):
    assert course.start.main(arguments) == 2
    one_line(capfd, "--index-url")


def test_user_pip_settings_are_respected(course):
    course.start.main(["test"])
    assert not any("--isolated" in call for call in course.pip_args())


def test_failing_pytorch_index_falls_back(course, capfd):
    course.plan({"status": 1, "stderr": "ERROR: No matching distribution found for torch>=2.6\n"})
    assert course.start.main(["test"]) == 0
    assert len(course.calls()) == 2
    out, err = capfd.readouterr()
    assert "改用默认源" in out and err == ""
    assert course.stamp.read_text("utf-8").strip() == course.digest()


NO_NETWORK = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\n"
    "ERROR: Could not find a version that satisfies the requirement tqdm\n"
    "ERROR: No matching distribution found for tqdm\n"
)


@pytest.mark.parametrize(
    ("stderr", "word"),
    [
        (NO_NETWORK, "网络"),
        ("ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out.\n", "网络"),
        ("ERROR: No matching distribution found for tqdm\n", "合适的包"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 1\n", "KeyError: 1"),
        ("", "再启动"),
    ],
)
def test_pip_failure_is_one_line(course, capfd, stderr, word):
    course.plan({}, {"status": 1, "stderr": stderr})
    assert course.start.main(["test"]) == 1
    one_line(capfd, word)
    assert course.stamp.read_text("utf-8").strip() != course.digest()
    assert course.calls("pytest") == []


@pytest.mark.parametrize(
    ("stderr", "word"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device\n", "磁盘空间不足"),
        ("ERROR: [Errno 13] Permission denied: '/x'\nCheck the permissions.\n", "权限"),
        ("ERROR: [WinError 5] Access is denied\n", "权限"),
        ("ERROR: [Errno 28] 设备上没有空间\n", "磁盘空间不足"),  # pip 会说系统的语言
        ("ERROR: [Errno 13] 权限不够: '/x'\n", "没有权限"),
        ("ERROR: [WinError 32] 另一个程序正在使用此文件\n", "没有权限"),
    ],
)
def test_full_or_forbidden_disk_does_not_try_another_index(course, capfd, stderr, word):
    course.plan({"status": 1, "stderr": stderr})
    assert course.start.main(["test"]) == 1
    one_line(capfd, word)
    assert len(course.calls()) == 1


def test_too_little_space(course, monkeypatch, capfd):
    usage = types.SimpleNamespace(free=4e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(course.start, "find_driver", lambda: ((13, 0), TURING))
    assert course.start.main(["test"]) == 1
    one_line(capfd, "磁盘空间不足", "8 GB", "4.0 GB")
    assert course.calls() == []
    monkeypatch.setattr(course.start, "find_driver", lambda: None)  # CPU 的包小得多
    assert course.start.main(["test"]) == 0


def test_space_already_used_is_not_needed_again(course, monkeypatch):
    monkeypatch.setattr(course.start, "CPU_GB", 1e-3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    course.make_ready()
    course.stamp.write_text("installing\n", "utf-8")
    assert course.start.main(["test"]) == 1
    (course.venv / "big").write_bytes(bytes(1_000_000))
    assert course.start.main(["test"]) == 0


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "磁盘空间不足"),
        (errno.EACCES, "权限"),
        (errno.EROFS, "权限"),
        (errno.EIO, "启动"),
    ],
)
def test_system_errors_are_one_line(course, monkeypatch, capfd, code, word):
    def refuse(self, *arguments, **options):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert course.start.main(["test"]) == 1
    one_line(capfd, word)


# ---- 中断之后 ----


def spawn_installing(course):
    """启动一次安装，等到 pip 正在运行。"""
    course.plan({"sleep": 30})
    # 不连安装源，也不看这台机器的磁盘
    code = (
        "import runpy, shutil, sys, types\n"
        "shutil.disk_usage = lambda path: types.SimpleNamespace(free=1e12)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = str(course.root / "00_setup" / "start.py")
    child = subprocess.Popen(
        [sys.executable, "-c", code, script, "test", "--index-url", "http://127.0.0.1:9/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    course.wait_for("pip")
    return child


@POSIX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_installation_is_resumed(course, how):
    child = spawn_installing(course)
    os.killpg(child.pid, how)
    err = child.communicate(timeout=20)[1]
    if how == signal.SIGINT:
        assert child.returncode == 130
        one_line(err, "中断")
    assert course.stamp.read_text("utf-8").strip() != course.digest()
    config = course.venv / "pyvenv.cfg"
    before = config.stat().st_mtime_ns
    site = next(course.venv.glob("lib/python*/site-packages"))
    for name in ("half-1.0.dist-info", "whole-1.0.dist-info"):
        (site / name).mkdir()
        (site / name / "METADATA").write_text("Name: x\n", "utf-8")
    (site / "whole-1.0.dist-info" / "INSTALLER").write_text("pip\n", "utf-8")

    assert course.start.main(["test"]) == 0
    assert config.stat().st_mtime_ns == before, "能用的环境不该重建"
    assert not (site / "half-1.0.dist-info").exists(), "没装完的包要重装"
    assert (site / "whole-1.0.dist-info").exists()
    assert course.stamp.read_text("utf-8").strip() == course.digest()


def test_interrupted_creation_is_repaired(course):
    """建立环境时就中断：有标记，没有解释器，也没有 pyvenv.cfg。"""
    (course.venv / "lib").mkdir(parents=True)
    course.stamp.write_text("installing\n", "utf-8")
    assert course.start.main(["test"]) == 0
    assert course.stamp.read_text("utf-8").strip() == course.digest()


def test_broken_interpreter_is_rebuilt(course):
    course.make_ready()
    note = course.venv / "my notes.txt"
    note.write_text("不要删", "utf-8")
    course.python.unlink()
    course.python.write_text("#!/no/such/python\n", "utf-8")
    course.python.chmod(0o755)
    assert course.start.main(["test"]) == 0
    assert len(course.calls()) == 2 and note.exists()


@POSIX
def test_dangling_link_is_rebuilt(course):
    course.make_ready()
    shutil.rmtree(course.venv / "bin")
    (course.venv / "bin").symlink_to("gone")
    assert course.start.main(["test"]) == 0
    assert course.python.exists()


def test_missing_pip_is_repaired(course):
    (course.fakes / "no_pip").touch()
    assert course.start.main(["test"]) == 0
    assert len(course.calls()) == 2


@pytest.mark.parametrize("name", ["notes.txt", "bin"])
def test_foreign_folder_is_left_alone(course, capfd, name):
    course.venv.mkdir()
    (course.venv / name).mkdir()
    assert course.start.main(["test"]) == 1
    one_line(capfd, str(course.venv))
    assert [entry.name for entry in course.venv.iterdir()] == [name]


def test_debian_without_venv_gets_a_cure(course, capfd):
    (course.fakes / "no_pip").touch()
    (course.fakes / "no_ensurepip").touch()
    assert course.start.main(["test"]) == 1
    one_line(capfd, "apt install python{}.{}-venv".format(*sys.version_info[:2]))
    (course.fakes / "no_ensurepip").unlink()  # 照着做了以后，再启动一次就好
    assert course.start.main(["test"]) == 0


def test_no_venv_module_at_all(course, capfd):
    course.fakes.joinpath("venv.py").write_text("import sys\nsys.exit('No module named venv')")
    assert course.start.main(["test"]) == 1
    one_line(capfd, "缺少 venv")


# ---- 各个动作 ----


def test_quick_path_takes_less_than_two_seconds(course):
    course.make_ready()
    waited = []
    for _ in range(3):
        began = time.time()
        child = course.spawn("lab", "--no-browser")
        err = child.communicate(timeout=60)[1]
        assert (child.returncode, err) == (0, "")
        waited.append(course.calls("jupyterlab")[-1]["time"] - began)
    assert course.calls() == [], "不该调用 pip"
    assert min(waited) < 2, waited


def test_quick_path_imports_nothing_heavy(course, monkeypatch):
    course.make_ready()
    original = builtins.__import__

    def guarded(name, *arguments, **options):
        assert name.split(".")[0] not in ("torch", "pip", "numpy"), name
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", guarded)
    assert Path(course.start.course_python()) == course.python


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], []),
        (["--no-browser", "--port", "8899"], ["--no-browser", "--port", "8899"]),
        (["lab", "--port=8899"], ["--port=8899"]),
        (["lab", "--no-browser", "--", "--debug", "-h"], ["--no-browser", "--debug", "-h"]),
    ],
)
def test_lab(course, monkeypatch, arguments, passed):
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    course.make_ready()
    assert course.start.main(arguments) == 0
    (call,) = course.calls("jupyterlab")
    assert call["args"] == [f"--ServerApp.root_dir={course.root}", *passed]
    assert Path(call["cwd"]) == Path(call["root"]) == course.root
    assert call["utf8"] == call["own_kernel"] == "1"
    assert Path(call["prefix"]).resolve() == course.venv.resolve()


def test_lab_as_root(course, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    course.make_ready()
    assert course.start.main([]) == 0
    assert "--allow-root" in course.calls("jupyterlab")[0]["args"]


@pytest.mark.parametrize(
    "arguments", [["lab", "x.ipynb"], ["--debug"], ["--port"], ["--port", "x"]]
)
def test_lab_refuses_unknown_arguments(course, capfd, arguments):
    assert course.start.main(arguments) == 2
    one_line(capfd, arguments[-1], "--")
    assert course.calls("jupyterlab") == course.calls() == []


@pytest.mark.parametrize("status", [0, 1, 5])
def test_test_passes_arguments_and_status(course, monkeypatch, status):
    monkeypatch.setenv("FAKE_STATUS", str(status))
    course.make_ready()
    assert course.start.main(["test", "-q", "--", "-k", "name"]) == status
    (call,) = course.calls("pytest")
    assert call["args"] == ["-q", "-k", "name"] and Path(call["cwd"]) == course.root


@pytest.mark.parametrize("status", [0, 1])
def test_run_passes_arguments_and_status(course, tmp_path, monkeypatch, status):
    monkeypatch.setenv("FAKE_STATUS", str(status))
    monkeypatch.chdir(tmp_path)
    course.script("run_notebooks")
    course.make_ready()
    inside = course.write("03_linear_regression/01_a.ipynb", "{}")
    here = tmp_path / "mine.ipynb"
    here.touch()
    paths = ["03_linear_regression/01_a.ipynb", "mine.ipynb"]
    assert course.start.main(["run", *paths, "--profile", "smoke", "--save"]) == status
    (call,) = course.calls("run_notebooks")
    assert call["args"] == [str(inside), str(here), "--profile", "smoke", "--save"]
    assert Path(call["prefix"]).resolve() == course.venv.resolve()
    assert Path(call["root"]) == course.root and call["utf8"] == "1"


def test_run_without_paths(course):
    course.script("run_notebooks")
    course.make_ready()
    assert course.start.main(["run", "--profile", "cpu"]) == 0
    assert course.calls("run_notebooks")[0]["args"] == ["--profile", "cpu"]


def test_run_refuses_a_missing_notebook_before_installing(course, capfd):
    course.script("run_notebooks")
    assert course.start.main(["run", "03_linear_regression/nothing.ipynb"]) == 2
    one_line(capfd, "nothing.ipynb")
    assert course.calls() == [] and not course.venv.exists()


@pytest.mark.parametrize("verb", ["run", "doctor", "publish"])
def test_missing_script(course, capfd, verb):
    assert course.start.main([verb]) == 1
    one_line(capfd, "00_setup/", "课程文件不完整")


@pytest.mark.parametrize("ready", [True, False])
def test_doctor_never_installs(course, monkeypatch, ready):
    monkeypatch.setenv("FAKE_STATUS", "1")
    course.script("doctor")
    if ready:
        course.make_ready()
        course.stamp.unlink()
    assert course.start.main(["doctor", "--short"]) == 1
    (call,) = course.calls("doctor")
    used = course.venv if ready else Path(sys.prefix)
    assert call["args"] == ["--short"] and Path(call["prefix"]).resolve() == used.resolve()
    assert course.calls() == []


def test_publish(course, monkeypatch, capfd):
    course.write(
        "00_setup/notebook_files.py",
        "def stamp(root, url):\n    (root / 'stamped').write_text(url, 'utf-8')\n",
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "notebook_files", raising=False)
    url = "https://github.com/someone/course"
    assert course.start.main(["publish", url]) == 0
    monkeypatch.delitem(sys.modules, "notebook_files")
    assert (course.root / "stamped").read_text("utf-8") == url
    assert course.calls() == [] and not course.venv.exists()
    assert url in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["ftp://host/x"], ["github.com/x"], ["https://"], ["http://a", "http://b"]]
)
def test_publish_refuses_bad_addresses(course, capfd, arguments):
    course.write("00_setup/notebook_files.py", "raise RuntimeError('不该导入')\n")
    assert course.start.main(["publish", *arguments]) == 2
    one_line(capfd, "http")


@pytest.mark.parametrize("verb", ["lba", "安装"])
def test_unknown_verb(course, verb):
    child = course.spawn(verb)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (2, "")
    one_line(err, verb, *("lab test run doctor publish".split()))


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["run", "-h"], ["lab", "--help"]])
def test_help(course, arguments):
    child = course.spawn(*arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")
    for word in ("用法", "lab", "test", "run", "doctor", "publish", "--index-url", "COURSE_VENV"):
        assert word in out


# ---- 信号 ----


@POSIX
def test_interrupt_while_testing(course):
    course.make_ready()
    child = course.spawn("test", "--wait-for-interrupt")
    course.wait_for("pytest")
    os.killpg(child.pid, signal.SIGINT)
    err = child.communicate(timeout=20)[1]
    assert child.returncode == 130
    one_line(err, "中断")


@POSIX
def test_interrupt_in_lab_is_left_to_jupyter(course):
    course.make_ready()
    child = course.spawn("lab", "--", "--wait-for-interrupt")
    course.wait_for("jupyterlab")
    os.killpg(child.pid, signal.SIGINT)
    err = child.communicate(timeout=20)[1]
    assert (child.returncode, err) == (0, "")


@POSIX
def test_terminate_takes_the_child_along(course):
    course.make_ready()
    child = course.spawn("lab", "--", "--wait-for-interrupt")
    course.wait_for("jupyterlab")
    child.terminate()
    child.communicate(timeout=20)  # 管道关上，说明子进程也结束了
    assert child.returncode == 143


@POSIX
def test_killed_child_gives_a_shell_status(start):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert start.call([sys.executable, "-c", code])[0] == 128 + signal.SIGKILL


def test_child_that_ignores_the_interrupt_is_killed(start, monkeypatch):
    events = []

    class Stubborn:
        def __init__(self, *arguments, **options):
            self.answers = [KeyboardInterrupt(), subprocess.TimeoutExpired("x", 10), ("", "")]

        def communicate(self, timeout=None):
            events.append(timeout)
            answer = self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        def kill(self):
            events.append("kill")

    monkeypatch.setattr(subprocess, "Popen", Stubborn)
    with pytest.raises(KeyboardInterrupt):
        start.call(["x"])
    assert events == [None, 10, "kill", 10]
