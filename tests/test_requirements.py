"""依赖清单、测试入口和持续集成的设置。"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from notebook_files import ROOT

ASKED = {
    "torch": "2.6", "torchvision": "0.21", "numpy": "", "matplotlib": "", "pandas": "",
    "tqdm": "", "jupyterlab": "", "tensorboard": "", "nbval": "0.11", "pytest": "",
    "pytest-xdist": "", "pytest-timeout": "",
}
FILES = ("requirements.txt", "environment.yml")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    """课程里一个文件的文字。"""
    return (ROOT / name).read_text(encoding="utf-8")


def lines_of(text: str) -> list[str]:
    """去掉注释和空行。"""
    return [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]


def pip_lines(environment: str) -> list[str]:
    """environment.yml 里 pip 一节的各行。"""
    section = environment.partition("- pip:\n")[2]
    return [line.strip().removeprefix("- ") for line in lines_of(section)]


def faults(requirements: str, environment: str) -> list[str]:
    """两个清单的问题：写法、上限、互相不同。"""
    found = []
    for line in lines_of(requirements):
        if not re.fullmatch(r"[a-z][a-z0-9-]*>=\d+\.\d+", line):
            found.append(f"只能写「包名>=主版本.次版本」：{line}")
    if sorted(lines_of(requirements)) != sorted(pip_lines(environment)):
        found.append("requirements.txt 与 environment.yml 的 pip 一节不同")
    if "python>=3.10" not in environment:
        found.append("environment.yml 没有要求 python>=3.10")
    return found


def test_both_lists_state_the_same_floors():
    assert faults(read("requirements.txt"), read("environment.yml")) == []
    floors = dict(line.split(">=") for line in lines_of(read("requirements.txt")))
    assert set(floors) == set(ASKED)
    assert {name: floors[name] for name, floor in ASKED.items() if floor} == {
        name: floor for name, floor in ASKED.items() if floor}


@pytest.mark.parametrize("new", ["torch==2.6", "torch>=2.6,<3", "torch", "torch~=2.6", "torch>=2"])
def test_pins_and_limits_are_noticed(new):
    files = [read(name).replace("torch>=2.6", new, 1) for name in FILES]
    assert faults(*files) and "只能写" in faults(*files)[0]


@pytest.mark.parametrize(("old", "new"), [
    ("torch>=2.6", "torch>=2.7"), ("- tqdm", "# - tqdm"), ("python>=3.10", "python"),
    ("- nbval", "- nbdime>=4.0\n      - nbval"),
])
def test_differences_are_noticed(old, new):
    requirements, environment = map(read, FILES)
    assert old in environment
    assert faults(requirements, environment.replace(old, new, 1))


def test_conda_does_not_install_torch():
    conda = read("environment.yml").partition("- pip:\n")[0]
    assert not re.search(r"^\s*- (py)?torch", conda, re.MULTILINE)


# ---- .ci/run ----


@pytest.mark.skipif(os.name == "nt", reason=".ci/run 是 bash 脚本")
def test_ci_run_is_the_test_command(tmp_path):
    assert "python 00_setup/start.py test" in read("README.md")
    root = tmp_path / "新 克隆"
    for name in (".ci/run", "requirements.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "00_setup").mkdir()
    stub = (
        "import os, sys\n"
        "print(sys.argv, os.getcwd() == os.path.realpath(sys.argv[0] + '/../..'),"
        " repr(sys.stdin.read()), os.environ['COURSE_VENV'])\nsys.exit(7)\n"
    )
    (root / "00_setup" / "start.py").write_text(stub, encoding="utf-8")

    def venv(**extra: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "COURSE_VENV"} | extra
        done = subprocess.run([root / ".ci" / "run"], capture_output=True, env=environment,
                              encoding="utf-8", input="键盘", cwd=tmp_path, check=False)
        start = "['00_setup/start.py', 'test'] True '' "
        assert done.returncode == 7 and done.stdout.startswith(start), done
        return done.stdout.removeprefix(start).strip()

    cache = {"XDG_CACHE_HOME": str(tmp_path / "缓存")}
    first = venv(**cache)
    assert Path(first).parent == tmp_path / "缓存" / "deep-learning-course"
    assert venv(**cache) == first
    with open(root / "requirements.txt", "a", encoding="utf-8") as file:
        file.write("# 变了\n")
    assert venv(**cache) != first
    assert venv(HOME=str(tmp_path), XDG_CACHE_HOME="").startswith(f"{tmp_path}/.cache/")
    assert venv(COURSE_VENV="/somewhere") == "/somewhere"
    # 有的系统没有能用的 python，只有 python3
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    (tmp_path / "bin" / "python").chmod(0o755)
    assert venv(PATH=f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}", **cache)


# ---- GitHub Actions ----


def workflow_faults(text: str) -> list[str]:
    """一个工作流的问题：动作没有钉在提交上、权限太大、没有时限。"""
    found = []
    for action in re.findall(r"uses:\s*(.+)", text):
        if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+)*", action.strip()):
            found.append(f"要写完整的提交号和版本注释：{action}")
    if re.findall(r"^\s*permissions:.*\n(?:\s+.*:.*\n)*", text, re.MULTILINE) != [
            "permissions:\n  contents: read\n"]:
        found.append("权限只能是 contents: read")
    if text.count("runs-on:") != len(re.findall(r"^    timeout-minutes: \d+$", text, re.MULTILINE)):
        found.append("每个任务都要有 timeout-minutes")
    if text.count("PYTHONUTF8") != text.count("runs-on:"):
        found.append("每个任务都要有 PYTHONUTF8")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows(path):
    text = path.read_text(encoding="utf-8")
    assert workflow_faults(text) == []
    for old, new in [
        (r"@[0-9a-f]{40} # ", "@"), (r"@[0-9a-f]{40}", "@v5"), (r" # v\d.*", ""),
        ("contents: read", "contents: write"), ("  contents: read\n", ""),
        ("permissions:\n  contents: read\n", ""), (r"    timeout-minutes: \d+\n", ""),
        ("PYTHONUTF8", "OTHER"), ("contents: read", "contents: read\n  packages: write"),
    ]:
        changed = re.sub(old, new, text, count=1)
        assert changed != text and workflow_faults(changed), (old, new)


def test_there_are_workflows():
    assert [path.name for path in WORKFLOWS] == ["test.yml", "weekly.yml"]
