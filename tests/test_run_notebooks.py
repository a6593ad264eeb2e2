"""运行笔记本：结果、失败的报告、保存。用几秒就能跑完的小课程来试。"""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import notebook_files
import psutil
import pytest
import run_notebooks
from test_notebook_files import make_course

A, B = "01_first/01_a.ipynb", "01_first/02_b.ipynb"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """建一个小课程并运行它，返回 (退出码, 屏幕上的文字, 课程的根目录)。"""
    for name in ("COURSE_PROFILE", "COURSE_ROOT", "COURSE_SILENT"):
        monkeypatch.setenv(name, "")  # 测试之后恢复原样

    def go(notebooks: dict[str, list] | list, *arguments: str):
        if isinstance(notebooks, list):
            notebooks = {A: notebooks}
        root = make_course(tmp_path, notebooks)
        status = run_notebooks.main(list(arguments), root)
        out, err = capsys.readouterr()
        return status, out + err, root

    return go


def refuse_to_save(result, root, name=A):
    """保存失败，而且文件仍是没有输出的样子。"""
    status, text, _ = result
    assert status == 1 and "✗" in text
    nb = notebook_files.load(root / name)
    assert "course" not in nb["metadata"]
    assert not any(cell["outputs"] for cell in notebook_files.code_cells(nb))
    return text


# ---- 在什么环境里运行 ----


def test_where_and_how_a_notebook_runs(run, monkeypatch, tmp_path):
    foreign = tmp_path / "share" / "kernels" / "python3"  # 用户登记的同名内核，不能用
    foreign.mkdir(parents=True)
    spec = {"argv": ["no-such-python"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("intruder = True\n", encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    status, text, root = run([
        "import os, sys, common\n"
        f"assert sys.executable == {sys.executable!r}, sys.executable\n"
        "assert os.path.basename(os.getcwd()) == '01_first', os.getcwd()\n"
        "assert os.path.samefile(os.environ['COURSE_ROOT'], '..')\n"
        "assert os.environ['COURSE_SILENT'] == '1'\n"
        "assert os.environ['COURSE_PROFILE'] == 'smoke'\n"
        "assert os.environ['MPLBACKEND'] != 'Agg'\n"
        "assert 'intruder' not in globals()\n"
        "with open('pid.txt', 'w') as file:\n"
        "    _ = file.write(str(os.getpid()))\n"
    ], "--profile", "smoke")
    assert status == 0, text
    assert "✓   01_first/01_a.ipynb（玩具数据）" in text
    assert not psutil.pid_exists(int((root / "01_first" / "pid.txt").read_text()))  # 内核已停下


def test_without_save_the_files_stay(run):
    status, _, root = run(["print(1)"])
    nb = notebook_files.load(root / A)
    assert status == 0 and notebook_files.code_cells(nb)[1]["outputs"] == []


def test_choosing_notebooks(tmp_path, monkeypatch):
    root = make_course(tmp_path, {"01_first/02_b.ipynb": [], "01_first/01_a.ipynb": [],
                                  "01_first/03_c.ipynb": []})

    def chosen(*paths):
        return [path.name[:2] for path in run_notebooks.expand(list(paths), root)]

    assert chosen() == chosen("01_first") == chosen(str(root)) == ["01", "02", "03"]
    assert chosen("01_first/03_c.ipynb", "01_first/01_a.ipynb") == ["01", "03"]
    assert chosen("01_first/02_b.ipynb", "01_first") == ["01", "02", "03"]
    monkeypatch.chdir(root / "01_first")
    assert chosen("02_b.ipynb") == ["02"]
    with pytest.raises(FileNotFoundError, match="common"):
        chosen("common")


@pytest.mark.parametrize("argument", ["没有.ipynb", "common", "README.md"])
def test_wrong_path_is_one_line(run, argument):
    status, text, _ = run([], argument)
    assert status == 2 and text.count("\n") == 1 and argument in text


def test_broken_notebook_is_one_line(tmp_path, capsys):
    root = make_course(tmp_path, {A: []})
    (root / A).write_text("{", encoding="utf-8")
    assert run_notebooks.main([], root) == 2
    assert "✗ 01_a.ipynb 不是完整的笔记本文件" in capsys.readouterr().err


def test_unix_sockets_where_they_fit():
    assert run_notebooks.new_kernel("/tmp/x").transport == ("tcp" if os.name == "nt" else "ipc")
    assert run_notebooks.new_kernel("/tmp/" + "很长" * 20).transport == "tcp"


# ---- 失败 ----


def test_a_failure_is_explained_and_the_others_go_on(run):
    bad = ["x = 1", "y = x\nz = y / 0\n" + "# …\n" * 9, "print('到不了这里')"]
    status, text, root = run({A: bad, B: ["print('好')"]}, "--save")
    assert status == 1
    assert "✗   01_first/01_a.ipynb" in text and "✓   01_first/02_b.ipynb" in text
    report = text.split("✗ 01_first/01_a.ipynb，")[1]
    assert report.startswith("第 3 个代码格：\n    y = x\n    z = y / 0\n")
    assert "ZeroDivisionError: division by zero" in report and "\x1b" not in report
    refuse_to_save((status, text, root), root)
    assert "course" in notebook_files.load(root / B)["metadata"]
    assert "1.2 小例子" in (root / "README.md").read_text(encoding="utf-8")


def test_a_promised_error_must_happen(run):
    result = run([("x = 1", "raises-exception"), "x"], "--save")
    text = refuse_to_save(result, result[2])
    assert "第 2 个代码格" in text and "没有出错" in text


def test_a_dead_kernel_is_noticed_at_once(run):
    start = time.perf_counter()
    result = run(["import os, time\nos._exit(1)\ntime.sleep(60)", "1"], "--save")
    assert time.perf_counter() - start < 30
    text = refuse_to_save(result, result[2])
    assert "第 2 个代码格" in text and "内核中途退出" in text


def test_a_cell_that_never_ends(run, monkeypatch):
    monkeypatch.setattr(run_notebooks, "CELL_TIMEOUT", 1)
    result = run(["while True:\n    pass"])
    assert result[0] == 1 and "超过 1 秒没有结束" in result[1]


def test_a_kernel_that_cannot_start(run, monkeypatch):
    def nothing(*_, **__):
        raise OSError("没有内存")

    monkeypatch.setattr(run_notebooks.OwnKernelManager, "start_kernel", nothing)
    status, text, _ = run(["x = 1"])
    assert status == 1 and "启动内核：\n没有内存" in text


def test_provenance_that_cannot_be_asked(run):
    status, text, _ = run(["import common\ndel common.provenance"])
    assert status == 1 and "运行完之后：\n问不到运行的来历" in text


@pytest.mark.skipif(os.name == "nt", reason="Windows 没有可以发给一个进程的 SIGINT")
def test_interrupted_run_leaves_the_file(tmp_path):
    wait = "open('started', 'w').close()\nimport time\ntime.sleep(60)"
    root = make_course(tmp_path, {A: [wait], B: []})
    before = (root / A).read_bytes()
    code = "import pathlib, run_notebooks as r\nexit(r.main(['--save'], pathlib.Path('.')))"
    scripts = str(notebook_files.ROOT / "00_setup")
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": scripts, "PYTHONUTF8": "1"},
    )
    try:
        deadline = time.time() + 60
        while not (root / "01_first" / "started").exists() and time.time() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "已中断" in output
    assert (root / A).read_bytes() == before


# ---- 保存 ----


@pytest.mark.parametrize(("code", "reason"), [
    ("import sys\nprint('x', file=sys.stderr)", "stderr"),
    ("import warnings\nwarnings.warn('旧')", "stderr"),
    ("import os\nprint(os.getcwd())", "绝对路径"),
    ("import sys\nsys.prefix", "绝对路径"),
    ("print('见 file:///home/me/x')", "/home/me/x"),
    ("print('C:\\\\Users\\\\me\\\\x')", "绝对路径"),
    ("from IPython.display import HTML\nHTML('<a href=\"/Users/me/x\">x</a>')", "绝对路径"),
])
def test_outputs_that_are_not_saved(run, code, reason):
    result = run([code], "--save")
    text = refuse_to_save(result, result[2])
    assert "第 2 个代码格" in text and reason in text


@pytest.mark.parametrize("text", [
    "x:\n y/home/1", "https://example.org/home/me", "1/2 a/b/c", "</var>", "形状 (2, 3) / (3,)",
])
def test_what_is_not_an_absolute_path(text):
    assert run_notebooks.absolute_paths({"output_type": "stream", "text": text}) == []


def test_saved_notebook(run):
    status, text, root = run([
        "import sys\nprint('一', flush=True)\nprint('二')\n1 + 1",
        "def f(x):\n    return int(x)",
        ("f('a' * 2)", "raises-exception"),
        ("import json\njson.loads('{')", "raises-exception"),
        "",
        "print('\\x1b[31m红\\x1b[0m')\n"
        "display({'text/plain': 'x'}, raw=True, metadata={'noise': 1})",
    ], "--save", "--profile", "cpu")
    assert status == 0, text
    raw = (root / A).read_text(encoding="utf-8")
    nb = notebook_files.load(root / A)
    nbformat.validate(nbformat.from_dict(nb))
    record = nb["metadata"].pop("course")
    assert nb["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert record.pop("code_sha256") == notebook_files.code_hash(nb)
    assert 0 < record.pop("seconds") < 60 and 20 < record.pop("peak_memory_mb") < 2000
    assert record == {"torch": "2.6.0", "device": "cpu", "profile": "cpu", "data": ["玩具数据"]}

    cells = notebook_files.code_cells(nb)
    assert [c["execution_count"] for c in cells] == [1, 2, 3, 4, 5, None, 7]
    assert [c["metadata"] for c in cells] == [
        {"tags": ["setup"]}, {}, {}, *[{"tags": ["raises-exception"]}] * 2, {}, {}]
    stream, value = cells[1]["outputs"]
    assert stream["text"] == ["一\n", "二\n"] and value["data"] == {"text/plain": ["2"]}
    assert value["execution_count"] == 2
    assert cells[6]["outputs"][0]["text"] == ["红\n"]
    assert cells[6]["outputs"][1]["metadata"] == {}
    own, library = ("\n".join(cells[i]["outputs"][0]["traceback"]) for i in (3, 4))
    for trace in (own, library):
        assert "File " not in trace and "\x1b" not in trace and "/" not in trace
    assert "return int(x)" in own and own.endswith("base 10: 'aa'")
    assert "json.loads('{')" in library and "raw_decode" not in library
    assert library.splitlines()[-1].startswith("JSONDecodeError: ")
    assert "PROVENANCE" not in raw and "iopub" not in raw and len(nb["cells"]) == 9
    assert " 秒 | " in (root / "README.md").read_text(encoding="utf-8")

    assert run_notebooks.main(["--save"], root) == 0  # 再运行一次：只有用时和内存会变
    again = notebook_files.load(root / A)
    assert again["cells"] == nb["cells"]


def test_edits_made_during_the_run_are_kept(run):
    edit = (
        "from pathlib import Path\n"
        "path = Path('01_a.ipynb')\n"
        "text = path.read_text(encoding='utf-8').replace('小例子', '改过')\n"
        "_ = path.write_text(text, encoding='utf-8')"
    )
    result = run([edit], "--save")
    text = refuse_to_save(result, result[2])
    assert "运行期间笔记本被修改了" in text
    assert "改过" in (result[2] / A).read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    root = make_course(tmp_path, {A: ["1"]})

    def full(*_):
        raise OSError("磁盘已满")

    monkeypatch.setattr(os, "replace", full)
    status, text = run_notebooks.main(["--save"], root), capsys.readouterr().out
    assert "不能保存：磁盘已满" in refuse_to_save((status, text, root), root)
