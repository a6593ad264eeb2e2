"""课程的启动器：准备环境，然后打开 JupyterLab、运行测试或笔记本。只用标准库。

本文件的语法要让旧的 Python 3 也能读完，这样才来得及说出「版本太旧」。
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path

HELP = """用法：python 00_setup/start.py [动作] [参数]

动作：
  lab                打开 JupyterLab（不写动作时就是它）；可加 --no-browser、--port 端口，
                     其余要传给 JupyterLab 的参数写在 -- 之后
  test               运行全部测试；其余参数传给 pytest
  run [路径 …]       按课程顺序运行笔记本；可加 --profile smoke|cpu|gpu 和 --save（保存输出）
  doctor             检查环境、设备和数据，并给出解决办法
  publish 网址       把课程发布后的仓库地址写进每个笔记本

选项：
  --index-url 网址   所有的包都从这个安装源下载，例如国内镜像
  -h, --help         显示这段说明

第一次启动会把需要的包装进课程文件夹里的 .venv；环境变量 COURSE_VENV 可以换一个位置。"""

MIN_PYTHON = (3, 10)
PLATFORM = sys.platform
ROOT = Path(__file__).resolve().parent.parent
STAMP = ".course-stamp"  # 装完之后才写入 requirements.txt 的 SHA-256
PROBE_SECONDS = 5
CPU_GB, CUDA_GB = 3, 8  # 安装大约占用的磁盘空间
TORCH_INDEX = "https://download.pytorch.org/whl/"
# （安装源，驱动至少支持的 CUDA 版本，显卡至少要有的计算能力），从新到旧。
# 同一个 CUDA 大版本内可以兼容：cu126 的包在显示 12.0 的驱动上也能运行。
CUDA_INDEXES = (
    ("cu132", (13, 2), (7, 5)),
    ("cu130", (13, 0), (7, 5)),
    ("cu128", (12, 8), (7, 5)),
    ("cu126", (12, 0), (5, 0)),
    ("cu118", (11, 8), (5, 0)),
)
VENV_PARTS = ("bin", "include", "lib", "lib64", "share", "Scripts", "Include", "Lib", "pyvenv.cfg")
INCOMPLETE = "课程文件不完整，请重新下载整个课程。"
# （错误输出里的字样，说给使用者的话，换一个安装源有没有用）
CAUSES = (
    (
        r"No space left|Errno 28\b|WinError 112\b|quota exceeded",
        "磁盘空间不足：请清理出空间，或用环境变量 COURSE_VENV 换一个位置，再启动一次。",
        False,
    ),
    (
        r"Permission denied|Access is denied|Read-only file|Errno 13\b|WinError (5|32)\b",
        "没有权限，或文件正被占用：请关闭正在运行的 Jupyter，检查文件夹的权限。",
        False,
    ),
    (
        r"Connection ?(Error|refused|reset|broken|aborted)|NameResolution|getaddrinfo|Max retries|"
        + r"Timeout|timed out|ProxyError|SSLError|IncompleteRead",
        "连不上安装源：请检查网络或代理，或用 --index-url 换一个镜像；再启动一次会接着装。",
        True,
    ),
    (
        r"No matching distribution|Could not find a version",
        "安装源里找不到合适的包：请检查网络；也可能 Python 太新；可用 --index-url 换源。",
        True,
    ),
    (r"Errno 2\b|WinError [23]\b", "找不到文件。", True),
)


class Failure(Exception):
    """说给使用者的一行话；status 是退出码。"""

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


def say(text: str, stream=None) -> None:
    """立刻输出一行，免得排到子进程的输出后面。"""
    print(text, file=stream or sys.stdout, flush=True)


def use_utf8() -> None:
    """让 Windows 的控制台也能输出中文；写不出的字符换成问号，而不是报错。"""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Python 3.6 没有
            stream.reconfigure(encoding="utf-8", errors="replace")


def check_python(version) -> None:
    """Python 太旧时说一行话并退出。"""
    if tuple(version[:2]) < MIN_PYTHON:
        say(f"✗ 需要 Python 3.10 或更新的版本，现在是 {version[0]}.{version[1]}。", sys.stderr)
        sys.exit(1)


def explain(text: str):
    """从错误输出里找出原因，返回 (一行中文, 换一个安装源有没有用)。"""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern, message, retry in CAUSES:
        found = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
        if found:
            return f"{message}（{found[-1][:160]}）", retry
    return f"没有成功，可以再启动一次。（{lines[-1][:160] if lines else '没有说明原因'}）", True


# ---- 子进程 ----


def call(command: list, cwd=None, stdout=None, stderr=None, patient: bool = False):
    """运行一个子进程，返回 (退出码, 捕获的文字)。

    patient 表示由子进程自己处理 Ctrl-C：JupyterLab 会先问一句再关闭。
    """
    # 最后一项：用户文件夹里可能有同名的 Jupyter 内核，要先用本环境里的
    extra = {"COURSE_ROOT": str(ROOT), "PYTHONUTF8": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **extra},
        stdout=stdout,
        stderr=stderr,
        encoding="utf-8",
        errors="replace",
    )
    interrupted = False
    while True:
        try:
            out, err = child.communicate(timeout=10 if interrupted and not patient else None)
            break
        except KeyboardInterrupt:  # 终端把 Ctrl-C 也发给了子进程，等它自己收尾
            interrupted = True
        except subprocess.TimeoutExpired:
            child.kill()
        except BaseException:  # 例如收到 SIGTERM：不留下没人管的子进程
            child.terminate()
            child.wait()
            raise
    if interrupted and not patient:
        raise KeyboardInterrupt
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return status, (out or "") + (err or "")


def quiet(*command):
    """不显示输出地运行，返回 (退出码, 输出的文字)；程序不存在也只算失败。"""
    try:
        return call(list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return 127, str(error)


# ---- 需要哪些包，现在有没有 ----


def read_requirements():
    """读 requirements.txt，返回 (文件的 SHA-256, [(包名, 最低版本), …])。"""
    path = ROOT / "requirements.txt"
    if not path.is_file():
        raise Failure("找不到 requirements.txt：" + INCOMPLETE)
    content = path.read_bytes()
    wanted = []
    for line in content.decode("utf-8-sig").splitlines():
        line = line.split("#")[0].strip()
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([\w.+!-]+))?$", line)
        if match:
            wanted.append((match.group(1).lower(), match.group(2) or "0"))
        elif line:
            raise Failure(f"requirements.txt 里只能写「包名>=版本」，看不懂这一行：{line}")
    return hashlib.sha256(content).hexdigest(), wanted


def version_key(text: str):
    """把版本号变成可以比较的元组；2.13.0+cpu 等于 2.13，2.6.0rc1 小于 2.6。"""
    pattern = r"\s*v?(\d+(?:\.\d+)*)[-_.]?(dev|alpha|a|beta|b|preview|pre|c|rc|post)?[-_.]?(\d*)"
    match = re.match(pattern, text.lower())
    if not match:
        return (), 0, 0
    release = re.sub(r"(\.0+)+$", "", match.group(1))
    stage = match.group(2) or ""
    rank = {"post": 1, "": 0}.get(stage, {"d": -4, "a": -3, "b": -2}.get(stage[:1], -1))
    number = int(match.group(3) or 0) if stage else 0
    return tuple(int(part) for part in release.split(".")), rank, number


def has_all(wanted: list) -> bool:
    """正在运行的 Python 是否已有全部需要的包。只看安装记录而不导入，所以很快。"""
    from importlib import metadata  # Python 3.8 起才有，所以不写在文件开头

    try:
        found = [(metadata.version(name), floor) for name, floor in wanted]
    except metadata.PackageNotFoundError:
        return False
    return all(version_key(have or "") >= version_key(floor) for have, floor in found)


# ---- 从哪里下载 PyTorch ----


def find_driver():
    """询问 NVIDIA 驱动，返回 (支持的 CUDA 版本, 显卡的计算能力)；没有可用的驱动时返回 None。"""
    tool, shown = shutil.which("nvidia-smi"), []
    if tool is None:
        return None
    for options in ([], ["--query-gpu=compute_cap", "--format=csv,noheader"]):
        try:
            # 驱动坏了时它的退出码不是 0，但这里只看输出，所以 check=False
            done = subprocess.run([tool, *options], capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        shown.append(done.stdout.decode("utf-8", "replace"))
    cuda = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", shown[0])
    if not cuda:
        return None
    cards = re.findall(r"^\s*(\d+)\.(\d+)\s*$", shown[1], re.MULTILINE)
    # 旧驱动答不出计算能力，就只看 CUDA 版本；有几张卡时 PyTorch 默认用最强的
    capability = max((int(a), int(b)) for a, b in cards) if cards else (7, 5)
    return (int(cuda.group(1)), int(cuda.group(2))), capability


def pick_index(platform: str, driver):
    """按系统和驱动选 PyTorch 的安装源；返回 None 表示默认源。"""
    if driver and platform in ("linux", "win32"):
        for name, cuda, capability in CUDA_INDEXES:
            if driver[0] >= cuda and driver[1] >= capability:
                return TORCH_INDEX + name
    # Linux 的默认包带着几个 GB 的 CUDA 库，没有显卡时用不上
    return TORCH_INDEX + "cpu" if platform == "linux" else None


def answers(url: str, seconds: float) -> bool:
    """安装源是否在规定的秒数内应答。放在线程里，连接时断时续也不会超时。"""
    result = []

    def probe():
        with contextlib.suppress(Exception):  # 不管哪里出错，都算没有应答
            result.append(urllib.request.urlopen(url, timeout=seconds).read(1))

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return any(result)


def choose_index():
    """选出 PyTorch 的安装源并试着连接；不应答就说一行话，改用默认源（None）。"""
    index = pick_index(PLATFORM, find_driver())
    if index and not answers(index + "/torch/", PROBE_SECONDS):
        say(f"PyTorch 的安装源 {index} 在 {PROBE_SECONDS} 秒内没有应答，改用默认源。")
        return None
    return index


# ---- 建立环境，安装 ----


def venv_folder() -> Path:
    """环境放在哪里。"""
    return Path(os.environ.get("COURSE_VENV") or ROOT / ".venv").expanduser().absolute()


def venv_python(venv: Path) -> Path:
    """环境里的解释器。"""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def runs(python) -> bool:
    """解释器是否真的能运行；例如系统升级 Python 之后，旧环境里的就不能了。"""
    return quiet(python, "-c", "")[0] == 0


def check_space(venv: Path, gigabytes: int) -> None:
    """磁盘放不下就停；上次已经装好的部分不再计算。"""
    free = shutil.disk_usage(venv).free
    here = sum(file.lstat().st_size for file in venv.rglob("*") if file.is_file())
    if free + here < gigabytes * 1e9:
        detail = f"（需要约 {gigabytes} GB，{venv} 所在的磁盘只剩 {free / 1e9:.1f} GB）"
        raise Failure(CAUSES[0][1] + detail)


def venv_cure(text: str) -> str:
    """建立环境失败时的一行话；Debian 和 Ubuntu 把 venv 放在另一个包里。"""
    if re.search(r"ensurepip|No module named", text):
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        cure = f"这个 Python 缺少 venv：在 Debian/Ubuntu 上请运行 sudo apt install {package}，"
        return cure + "其他系统请安装 python.org 的 Python。"
    return explain(text)[0]


def claim(venv: Path) -> None:
    """占用环境的文件夹：先写一个「没装完」的标记，中断后才知道这里可以修补或重建。"""
    ours = (venv / STAMP).is_file() or (venv / "pyvenv.cfg").is_file()
    if venv.exists() and not ours and (not venv.is_dir() or any(venv.iterdir())):
        raise Failure(f"{venv} 里已有别的文件，不能用来建立环境：请换一个位置。")
    venv.mkdir(parents=True, exist_ok=True)
    (venv / STAMP).write_text("installing\n", "utf-8")


def make_venv(venv: Path, python: Path) -> None:
    """建立环境；已有的只修补，解释器不能运行时才重建。"""
    if not runs(python):
        for part in (venv / name for name in VENV_PARTS):  # 只删环境自己的东西
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            elif part.is_symlink() or part.exists():
                part.unlink()
        status, text = quiet(sys.executable, "-m", "venv", "--without-pip", venv)
        if status:
            raise Failure(venv_cure(text))
    if quiet(python, "-m", "pip", "--version")[0]:
        status, text = quiet(python, "-m", "ensurepip", "--upgrade", "--default-pip")
        if status:
            raise Failure(venv_cure(text))


def drop_half_installed(venv: Path) -> None:
    """删去没装完的安装记录，否则 pip 以为已经装好；pip 在最后才写 INSTALLER。"""
    for pattern in ("lib/python*/site-packages/*.dist-info", "Lib/site-packages/*.dist-info"):
        for record in venv.glob(pattern):
            if record.is_dir() and not (record / "INSTALLER").exists():
                shutil.rmtree(record)


def pip_install(python: Path, *arguments) -> str:
    """运行 pip install；成功返回空字符串，失败返回一行原因，换源也没用的失败直接抛出。"""
    # 有人在 pip 的设置里写了 user = true，它在环境里会报错
    command = [python, "-m", "pip", "install", "--no-input", "--no-user", *arguments]
    status, text = call(command, stderr=subprocess.PIPE)
    if status == 0:
        return ""
    message, retry = explain(text)
    if not retry:
        raise Failure(message)
    return message


def install(python: Path, wanted: list, index, index_url) -> None:
    """先从 PyTorch 的安装源装 torch 和 torchvision，再从默认源装其余的包。"""
    if index:
        torch = [f"{name}>={floor}" for name, floor in wanted if name in ("torch", "torchvision")]
        if pip_install(python, *torch, "--index-url", index):
            say(f"从 {index} 安装 PyTorch 没有成功，改用默认源。")
    source = ["--index-url", index_url] if index_url else []
    problem = pip_install(python, "-r", ROOT / "requirements.txt", *source)
    if problem:
        raise Failure(problem)


def course_python(index_url=None):
    """返回课程用的解释器；需要时先建立环境并安装，上次中断的会接着装。"""
    digest, wanted = read_requirements()
    if has_all(wanted):
        return sys.executable
    venv = venv_folder()
    python, stamp = venv_python(venv), venv / STAMP
    if stamp.is_file() and stamp.read_text("utf-8").strip() == digest and runs(python):
        return python
    say(f"正在把课程需要的包装进 {venv}，只做一次；如果中断，再启动会接着装。")
    claim(venv)
    index = None if index_url else choose_index()
    check_space(venv, CUDA_GB if index and "/cu" in index else CPU_GB)
    make_venv(venv, python)
    drop_half_installed(venv)
    install(python, wanted, index, index_url)
    stamp.write_text(digest + "\n", "utf-8")
    return python


# ---- 各个动作：参数 → 退出码 ----


def lab(arguments: list, index_url) -> int:
    """打开 JupyterLab。"""
    known, extra = split_extra(arguments)
    if not re.match(r"(--no-browser |--port[= ]\d+ )*$", " ".join([*known, ""])):
        raise Failure(f"看不懂 {' '.join(known)}：要传给 JupyterLab 的参数写在 -- 之后。", 2)
    command = [course_python(index_url), "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # 容器里常用 root，不加这一项 Jupyter 就拒绝启动
    say("正在打开 JupyterLab；用完后在这里按 Ctrl-C 关闭。")
    return call(command + known + extra, cwd=ROOT, patient=True)[0]


def test(arguments: list, index_url) -> int:
    """运行全部测试，退出码就是 pytest 的。"""
    known, extra = split_extra(arguments)
    return call([course_python(index_url), "-m", "pytest", *known, *extra], cwd=ROOT)[0]


def run(arguments: list, index_url) -> int:
    """运行笔记本；先看路径对不对，免得装了半天才发现写错。"""
    script = setup_script("run_notebooks.py")
    for place, argument in enumerate(arguments):
        if argument.startswith("-") or arguments[place - 1 : place] == ["--profile"]:
            continue
        path = next((p for p in (Path(argument), ROOT / argument) if p.exists()), None)
        if path is None:
            raise Failure(f"找不到 {argument}：请检查路径。", 2)
        arguments[place] = path.absolute()
    return call([course_python(index_url), script, *arguments])[0]


def doctor(arguments: list, index_url) -> int:
    """检查环境。它要能说明安装为什么没成功，所以自己从不安装。"""
    script = setup_script("doctor.py")
    python = venv_python(venv_folder())
    if has_all(read_requirements()[1]) or not runs(python):
        python = sys.executable
    return call([python, script, *arguments])[0]


def publish(arguments: list, index_url) -> int:
    """把发布的地址写进每个笔记本；不需要环境。"""
    script = setup_script("notebook_files.py")
    address = arguments[0] if len(arguments) == 1 else ""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure("publish 后面要写一个 http 或 https 网址。", 2)
    sys.path.insert(0, str(script.parent))
    import notebook_files

    notebook_files.stamp(ROOT, address)
    say(f"✓ 已把 {address} 写进笔记本。")
    return 0


VERBS = {"lab": lab, "test": test, "run": run, "doctor": doctor, "publish": publish}


def setup_script(name: str) -> Path:
    """旁边的脚本；不在就说明课程不完整。"""
    path = ROOT / "00_setup" / name
    if not path.is_file():
        raise Failure(f"找不到 00_setup/{name}：{INCOMPLETE}")
    return path


def split_extra(arguments: list):
    """在第一个 -- 处分成前后两段。"""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def take_index_url(arguments: list):
    """取出 --index-url，返回 (网址或 None, 其余参数)。"""
    known = split_extra(arguments)[0]
    for place, argument in enumerate(known):
        name, equals, url = argument.partition("=")
        if name == "--index-url":
            end = place + (1 if equals else 2)
            url = url or "".join(known[place + 1 : end])
            if not url:
                raise Failure("--index-url 后面要写安装源的网址。", 2)
            return url, arguments[:place] + arguments[end:]
    return None, arguments


def dispatch(arguments: list) -> int:
    """按动作分派，返回退出码。"""
    verb = "lab"
    if arguments and not arguments[0].startswith("-"):
        verb, arguments = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise Failure(f"没有 {verb} 这个动作：可用 {'、'.join(VERBS)}；加 -h 看说明。", 2)
    if {"-h", "--help"} & set(split_extra(arguments)[0]):
        say(HELP)
        return 0
    index_url, arguments = take_index_url(arguments)
    return VERBS[verb](arguments, index_url)


def main(arguments: list) -> int:
    """入口：把可以预料的错误变成一行中文和非零的退出码。"""
    try:
        return dispatch(list(arguments))
    except Failure as error:
        text, status = str(error), error.status
    except OSError as error:
        text, status = explain(str(error))[0], 1
    except ValueError as error:  # 例如坏的笔记本，或文件不是 UTF-8
        text, status = f"内容有问题：{error}", 1
    except KeyboardInterrupt:
        text, status = "已中断；再启动一次会接着做。", 130
    say("✗ " + text.replace("\n", " "), sys.stderr)
    return status


if __name__ == "__main__":
    use_utf8()
    check_python(sys.version_info)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # 让 call 来得及结束子进程
    sys.exit(main(sys.argv[1:]))
