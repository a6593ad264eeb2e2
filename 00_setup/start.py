"""课程的启动器：准备环境，然后打开 JupyterLab、运行测试或笔记本。只用标准库。

本文件的语法要让旧的 Python 3 也能读完，这样才来得及说出“版本太旧”。
"""
import errno
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

VERBS = ("lab", "test", "run", "doctor", "publish")
MIN_PYTHON = (3, 10)
ROOT = Path(__file__).resolve().parent.parent
STAMP = ".course-stamp"  # 装完之后才写入 requirements.txt 的 SHA-256
PROBE_SECONDS = 5
TORCH_INDEX = "https://download.pytorch.org/whl/"
# （安装源，驱动至少支持的 CUDA 版本，显卡至少要有的计算能力），从新到旧。
# 同一个 CUDA 大版本内向下兼容：cu126 的包在显示 12.0 的驱动上也能运行。
CUDA_INDEXES = (
    ("cu132", (13, 2), (7, 5)),
    ("cu130", (13, 0), (7, 5)),
    ("cu128", (12, 8), (7, 5)),
    ("cu126", (12, 0), (5, 0)),
    ("cu118", (11, 8), (5, 0)),
)
DISK = "磁盘空间不足：请清理出空间，或用环境变量 COURSE_VENV 换一个位置，再启动一次。"
PERMISSION = "没有写入权限，或文件正被占用：请关闭正在运行的 Jupyter，检查文件夹的权限。"
NETWORK = "连不上安装源：请检查网络或代理，也可以用 --index-url 换一个镜像，再启动一次（会接着装）。"


class Failure(Exception):
    """给使用者看的一行话；status 是退出码。"""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


def say(text, stream=None):
    """立刻输出一行，避免排在子进程的输出后面。"""
    print(text, file=stream or sys.stdout, flush=True)


def use_utf8():
    """让 Windows 的控制台也能输出中文；写不出的字符换成问号，而不是报错。"""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Python 3.6 没有
            stream.reconfigure(encoding="utf-8", errors="replace")


def check_python(version):
    """Python 太旧时说一行话并退出。"""
    if tuple(version[:2]) < MIN_PYTHON:
        say("✗ 需要 Python 3.10 或更新的版本，现在是 {}.{}。".format(*version[:2]), sys.stderr)
        sys.exit(1)


# ---- 子进程 ----


def child_environment():
    """子进程的环境变量：课程的位置、统一的编码、优先使用本环境里的 Jupyter 内核。"""
    extra = {"COURSE_ROOT": str(ROOT), "PYTHONUTF8": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    return {**os.environ, **extra}


def call(command, cwd=None, stdout=None, stderr=None, patient=False):
    """运行一个子进程，返回 (退出码, 捕获的文字)。

    patient 表示由子进程自己处理 Ctrl-C：JupyterLab 会先问一句再关闭。
    """
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=str(cwd) if cwd else None,
        env=child_environment(),
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
        except KeyboardInterrupt:  # 终端已经把 Ctrl-C 同时发给了子进程，等它自己收尾
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
    """不显示输出地运行，返回 (退出码, 输出的文字)；程序不存在也算失败。"""
    try:
        return call(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return 127, str(error)


# ---- 需要哪些包，现在有没有 ----


def read_requirements():
    """读 requirements.txt，返回 (文件的 SHA-256, [(包名, 最低版本), …])。"""
    path = ROOT / "requirements.txt"
    if not path.is_file():
        raise Failure("找不到 requirements.txt：课程文件不完整，请重新下载整个课程。")
    content = path.read_bytes()
    wanted = []
    for line in content.decode("utf-8-sig").splitlines():
        line = line.split("#")[0].strip()
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([\w.+!-]+))?$", line)
        if line and not match:
            raise Failure("requirements.txt 里这一行看不懂：{}（只用“包名>=版本”）。".format(line))
        if match:
            wanted.append((match.group(1), match.group(2) or "0"))
    return hashlib.sha256(content).hexdigest(), wanted


def version_key(text):
    """把版本号变成可以比较大小的元组；2.13.0+cpu 等于 2.13，2.6.0rc1 小于 2.6。"""
    pattern = r"\s*v?(\d+(?:\.\d+)*)[-_.]?(dev|alpha|a|beta|b|preview|pre|c|rc|post)?[-_.]?(\d*)"
    match = re.match(pattern, text.lower())
    if not match:
        return (), 0, 0
    release = [int(part) for part in match.group(1).split(".")]
    while release and release[-1] == 0:
        release.pop()
    stages = {"d": -4, "a": -3, "b": -2, "c": -1, "r": -1, "": 0}
    stage = match.group(2) or ""
    rank = 1 if stage == "post" else stages.get(stage[:1], -1)
    return tuple(release), rank, int(match.group(3) or 0) if stage else 0


def has_all(wanted):
    """正在运行的 Python 是否已经有全部需要的包。只看安装记录，不导入，所以很快。"""
    from importlib import metadata

    try:
        return all(
            version_key(metadata.version(name) or "") >= version_key(floor)
            for name, floor in wanted
        )
    except metadata.PackageNotFoundError:
        return False


# ---- 从哪里下载 PyTorch ----


def find_driver():
    """询问 NVIDIA 驱动，返回 (支持的 CUDA 版本, 显卡的计算能力)；没有可用的驱动时返回 None。"""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return None
    answers = []
    for options in ([], ["--query-gpu=compute_cap", "--format=csv,noheader"]):
        try:
            done = subprocess.run(
                [tool] + options, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        answers.append(done.stdout.decode("utf-8", "replace"))
    cuda = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", answers[0])
    if not cuda:
        return None
    cards = re.findall(r"^\s*(\d+)\.(\d+)\s*$", answers[1], re.MULTILINE)
    # 旧驱动答不出计算能力，就只看 CUDA 版本；多张卡时 PyTorch 默认用最强的一张
    capability = max((int(a), int(b)) for a, b in cards) if cards else (7, 5)
    return (int(cuda.group(1)), int(cuda.group(2))), capability


def pick_index(platform, driver):
    """按系统和驱动选 PyTorch 的安装源；返回 None 表示默认源。"""
    if driver and platform in ("linux", "win32"):
        for name, cuda, capability in CUDA_INDEXES:
            if driver[0] >= cuda and driver[1] >= capability:
                return TORCH_INDEX + name
    # Linux 的默认包带着几个 GB 的 CUDA 库，没有显卡时用不上
    return TORCH_INDEX + "cpu" if platform == "linux" else None


def answers(url, seconds):
    """安装源是否在规定的秒数内应答。放在线程里，连接时断时续也不会超时。"""
    result = []

    def probe():
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                result.append(bool(reply.read(1)))
        except (OSError, ValueError):  # 网络错误，或代理的回答不合规范
            pass
        except Exception:  # noqa: BLE001 - 不合规范的 HTTP 应答种类很多，都算没有应答
            pass

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(result and result[0])


def choose_index():
    """选出 PyTorch 的安装源并试着连接；不应答就说一行话，改用默认源（返回 None）。"""
    index = pick_index(sys.platform, find_driver())
    if index and not answers(index + "/torch/", PROBE_SECONDS):
        say("PyTorch 安装源 {} 在 {} 秒内没有应答，改用默认源。".format(index, PROBE_SECONDS))
        return None
    return index


# ---- 建立环境，安装 ----


def venv_folder():
    """环境放在哪里。"""
    return Path(os.environ.get("COURSE_VENV") or ROOT / ".venv").expanduser().absolute()


def venv_python(venv):
    """环境里的解释器。"""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def runs(python):
    """解释器是否真的能运行（例如系统升级 Python 之后，旧环境就不能了）。"""
    return quiet(python, "-c", "")[0] == 0


def is_ready(venv, digest):
    """环境是否已经装完，而且是照现在的 requirements.txt 装的。"""
    stamp = venv / STAMP
    return stamp.is_file() and stamp.read_text("utf-8").strip() == digest and runs(venv_python(venv))


def check_space(venv, gigabytes):
    """磁盘放不下就停；上次装了一半的部分不再计算。"""
    place = next(p for p in (venv, *venv.parents) if p.exists())
    here = sum(f.lstat().st_size for f in venv.rglob("*") if f.is_file()) if place == venv else 0
    free = shutil.disk_usage(str(place)).free
    if free + here < gigabytes * 1e9:
        text = "（{} 需要约 {} GB，只剩 {:.1f} GB）".format(place, gigabytes, free / 1e9)
        raise Failure(DISK + text)


def explain(text):
    """从 pip、venv 的错误输出里找出原因，返回 (一行中文, 换一个安装源有没有用)。"""
    causes = (
        (r"No space left|Errno 28\b|Errno 122\b|WinError 112\b", DISK, False),
        (r"Permission denied|Errno 13\b|Errno 30\b|WinError (5|32)\b", PERMISSION, False),
        (r"NewConnectionError|NameResolution|Max retries|Timeout|timed out|ProxyError|SSLError"
         r"|Connection (refused|reset|broken|aborted)|IncompleteRead|getaddrinfo", NETWORK, True),
        (r"No matching distribution|Could not find a version",
         "安装源里没有适合的包：可能是 Python 太新或太旧，也可以用 --index-url 换一个源。", True),
    )
    last = next((s.strip() for s in reversed(text.splitlines()) if s.strip()), "没有说明原因")
    for pattern, message, retry in causes:
        if re.search(pattern, text, re.IGNORECASE):
            return message, retry
    return "安装没有成功，再启动一次会接着装。pip 最后说：" + last, True


def make_venv(venv, python):
    """建立环境；已有的只修补，解释器不能运行时才重建。"""
    stamp = venv / STAMP
    ours = stamp.is_file() or (venv / "pyvenv.cfg").is_file()
    if venv.exists() and not ours and (not venv.is_dir() or any(venv.iterdir())):
        raise Failure("{} 里已有别的文件，不能用来建立环境：请换一个位置。".format(venv))
    venv.mkdir(parents=True, exist_ok=True)
    stamp.write_text("installing\n", "utf-8")  # 先认领这个文件夹，半途中断后才知道可以重建
    if not runs(python):
        for entry in venv.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(str(entry))
            elif entry != stamp:
                entry.unlink()
        status, text = quiet(sys.executable, "-m", "venv", "--without-pip", venv)
        if status:
            raise Failure(venv_cure(text))
    if quiet(python, "-m", "pip", "--version")[0]:
        status, text = quiet(python, "-m", "ensurepip", "--upgrade", "--default-pip")
        if status:
            raise Failure(venv_cure(text))


def venv_cure(text):
    """建立环境失败时的一行话；Debian 和 Ubuntu 把 venv 放在另一个包里。"""
    if re.search(r"ensurepip|No module named", text):
        version = "{}.{}".format(*sys.version_info[:2])
        cure = "这个 Python 缺少 venv：在 Debian/Ubuntu 上请运行 sudo apt install python{}-venv，"
        return cure.format(version) + "其他系统请从 python.org 安装完整的 Python。"
    return explain(text)[0]


def pip_install(python, *arguments):
    """运行 pip install；成功返回空字符串，否则返回一行原因；换源也没用的原因直接抛出。"""
    # 有人在 pip 的设置里写了 user = true，在环境里会报错，所以加 --no-user
    command = [python, "-m", "pip", "install", "--no-input", "--no-user"]
    status, text = call(command + list(arguments), stderr=subprocess.PIPE)
    if status == 0:
        return ""
    message, retry = explain(text)
    if not retry:
        raise Failure(message)
    return message


def drop_half_installed(venv):
    """删去没有装完的安装记录（pip 最后才写 INSTALLER），否则 pip 会以为已经装好。"""
    for pattern in ("lib/python*/site-packages/*.dist-info", "Lib/site-packages/*.dist-info"):
        for record in venv.glob(pattern):
            if record.is_dir() and not (record / "INSTALLER").exists():
                shutil.rmtree(str(record))


def install(venv, python, wanted, index, index_url):
    """先从 PyTorch 的安装源装 torch 和 torchvision，再从默认源装其余的包。"""
    drop_half_installed(venv)
    if index and not index_url:
        torch = ["{}>={}".format(*w) for w in wanted if w[0] in ("torch", "torchvision")]
        problem = torch and pip_install(python, *torch, "--index-url", index)
        if problem:
            say("从 {} 安装 PyTorch 没有成功，改用默认源。".format(index))
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
    python = venv_python(venv)
    if is_ready(venv, digest):
        return python
    say("正在把课程需要的包装进 {}，只做一次；中断后再启动会接着装。".format(venv))
    index = None if index_url else choose_index()
    check_space(venv, 8 if index and "/cu" in index else 3)
    make_venv(venv, python)
    install(venv, python, wanted, index, index_url)
    (venv / STAMP).write_text(digest + "\n", "utf-8")
    return python


# ---- 各个动作 ----


def lab(arguments, index_url):
    """打开 JupyterLab。"""
    allowed, extra = split_extra(arguments)
    text = " ".join(allowed)
    if not re.match(r"^(--no-browser\s*|--port[= ]\d+\s*)*$", text):
        raise Failure("看不懂的参数：{}（要传给 JupyterLab 的参数写在 -- 之后）。".format(text), 2)
    python = course_python(index_url)
    command = [python, "-m", "jupyterlab", "--ServerApp.root_dir={}".format(ROOT)]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # 容器里常以 root 运行，否则 Jupyter 拒绝启动
    say("正在打开 JupyterLab；用完后在这里按 Ctrl-C 关闭。")
    return call(command + allowed + extra, cwd=ROOT, patient=True)[0]


def test(arguments, index_url):
    """运行全部测试，退出码就是 pytest 的。"""
    before, after = split_extra(arguments)
    return call([course_python(index_url), "-m", "pytest"] + before + after, cwd=ROOT)[0]


def run(arguments, index_url):
    """运行笔记本；先看路径对不对，免得装了半天才发现写错。"""
    script = setup_script("run_notebooks.py")
    for place, argument in enumerate(arguments):
        value = place > 0 and arguments[place - 1] == "--profile"
        if argument.startswith("-") or value:
            continue
        path = next((p for p in (Path(argument), ROOT / argument) if p.exists()), None)
        if path is None:
            raise Failure("找不到 {}：请检查路径。".format(argument), 2)
        arguments[place] = str(path.absolute())
    return call([course_python(index_url), script] + arguments)[0]


def doctor(arguments, index_url):
    """检查环境。它要能说明安装为什么没有成功，所以自己从不安装。"""
    script = setup_script("doctor.py")
    python = venv_python(venv_folder())
    if has_all(read_requirements()[1]) or not runs(python):
        python = sys.executable
    return call([python, script] + arguments)[0]


def publish(arguments, index_url):
    """把发布的地址写进每个笔记本；不需要环境。"""
    if len(arguments) != 1:
        raise Failure("publish 需要恰好一个网址，例如 publish https://example.com/course。", 2)
    parts = urllib.parse.urlsplit(arguments[0])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure("这不是 http 或 https 网址：{}".format(arguments[0]), 2)
    sys.path.insert(0, str(setup_script("notebook_files.py").parent))
    import notebook_files

    notebook_files.stamp(ROOT, arguments[0])
    say("✓ 已把 {} 写进笔记本。".format(arguments[0]))
    return 0


def setup_script(name):
    """旁边的脚本；不在就说明课程不完整。"""
    path = ROOT / "00_setup" / name
    if not path.is_file():
        raise Failure("找不到 00_setup/{}：课程文件不完整，请重新下载整个课程。".format(name))
    return path


def split_extra(arguments):
    """在第一个 -- 处分成前后两段。"""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def take_index_url(arguments):
    """从参数里取出 --index-url，返回 (网址或 None, 其余参数)。"""
    rest, url = list(arguments), None
    before = split_extra(rest)[0]
    for place, argument in enumerate(before):
        if argument == "--index-url" and place + 1 < len(before):
            url, rest[place : place + 2] = before[place + 1], []
        elif argument.startswith("--index-url="):
            url, rest[place : place + 1] = argument.split("=", 1)[1], []
        elif argument != "--index-url":
            continue
        if not url:
            raise Failure("--index-url 后面要写安装源的网址。", 2)
        break
    return url, rest


def dispatch(arguments):
    """按动作分派，返回退出码。"""
    verb = "lab"
    if arguments and not arguments[0].startswith("-"):
        verb, arguments = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise Failure("不认识的动作 {}：可用 {}；加 -h 看说明。".format(verb, "、".join(VERBS)), 2)
    if {"-h", "--help"} & set(split_extra(arguments)[0]):
        say(HELP)
        return 0
    index_url, arguments = take_index_url(arguments)
    actions = dict(lab=lab, test=test, run=run, doctor=doctor, publish=publish)
    return actions[verb](arguments, index_url)


def os_error_text(error):
    """系统错误的一行话。"""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "winerror", None) == 112:
        return DISK
    where = "（{}）".format(error.filename) if error.filename else ""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return PERMISSION + where
    if isinstance(error, FileNotFoundError):
        return "找不到文件" + where + "：课程文件不完整，请重新下载整个课程。"
    return "系统错误：{}{}".format(error.strerror or error, where)


def main(arguments):
    """入口：把所有可预料的错误变成一行中文和非零的退出码。"""
    try:
        return dispatch(list(arguments))
    except Failure as error:
        text, status = str(error), error.status
    except OSError as error:
        text, status = os_error_text(error), 1
    except ValueError as error:  # 例如 notebook_files 读到坏的笔记本，或文件不是 UTF-8
        text, status = str(error), 1
    except KeyboardInterrupt:
        text, status = "已中断；再启动一次会接着做。", 130
    say("✗ " + text.replace("\n", " "), sys.stderr)
    return status


if __name__ == "__main__":
    use_utf8()
    check_python(sys.version_info)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # 让 call 有机会结束子进程
    sys.exit(main(sys.argv[1:]))
