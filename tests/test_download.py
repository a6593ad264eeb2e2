"""下载：在本机的服务器上演练各种故障。"""

import hashlib
import http.server
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from common import download
from common.download import DataUnavailable, RemoteFile, fetch

CONTENT = random.Random(0).randbytes(300_000)  # 各个测试进程里都一样
ROOT = Path(__file__).resolve().parents[1]


class Server:
    """按 behaviour 应答的服务器；requests 记下每次请求的 (路径, Range)。"""

    def __init__(self):
        self.requests, self.agents = [], []
        self.stop = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.requests.append((self.path, self.headers.get("Range")))
                outer.agents.append(self.headers.get("User-Agent", ""))
                getattr(outer, self.path.strip("/").split("/")[0])(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{behaviour}/file.bin"

    def _send(self, handler, body, status=200, length=None, start=0):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        if status == 206:
            end = len(CONTENT) - 1
            handler.send_header("Content-Range", f"bytes {start}-{end}/{len(CONTENT)}")
        handler.end_headers()
        handler.wfile.write(body)

    def _range(self, handler):
        value = handler.headers.get("Range")
        return int(value.removeprefix("bytes=").rstrip("-")) if value else None

    def good(self, handler):
        start = self._range(handler)
        if start is None:
            self._send(handler, CONTENT)
        else:
            self._send(handler, CONTENT[start:], 206, start=start)

    def no_range(self, handler):
        self._send(handler, CONTENT)

    def dies(self, handler):
        """每次只送 100,000 字节就断开，但支持续传。"""
        start = self._range(handler) or 0
        body = CONTENT[start : start + 100_000]
        status = 206 if start else 200
        self._send(handler, body, status, len(CONTENT) - start, start)
        handler.connection.close()

    def wrong_range(self, handler):
        self._send(handler, CONTENT[1:], 206, start=1)

    def truncated(self, handler):
        self._send(handler, CONTENT[:1000])

    def corrupt(self, handler):
        self._send(handler, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    def forbidden(self, handler):
        self._send(handler, b"no", 403)

    def polite(self, handler):
        """像有些服务器那样，拒绝 Python 默认的标识。"""
        agent = handler.headers.get("User-Agent", "")
        self.forbidden(handler) if "Python" in agent else self.good(handler)

    def stalls(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        handler.wfile.flush()
        self.stop.wait(20)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_DATA_DIR", raising=False)
    monkeypatch.setenv("COURSE_SILENT", "1")
    monkeypatch.setattr(download, "DATA", tmp_path / "data")
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    return tmp_path / "data"


def remote(server, *behaviours: str) -> RemoteFile:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return RemoteFile("file.bin", digest, len(CONTENT), tuple(map(server.url, behaviours)))


def leftovers(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


@pytest.mark.parametrize("behaviour", ["good", "no_range", "dies", "polite"])
def test_download_succeeds(server, folder, behaviour):
    path = fetch(remote(server, behaviour))
    assert path.read_bytes() == CONTENT and leftovers(folder) == ["file.bin"]


def test_interrupted_transfer_is_resumed_from_where_it_stopped(server):
    fetch(remote(server, "dies"))
    assert [r for _, r in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("behaviour", ["good", "no_range"])
def test_half_a_file_from_an_earlier_run_is_continued(server, folder, behaviour):
    folder.mkdir()
    (folder / "file.bin.part").write_bytes(CONTENT[:50_000])
    assert fetch(remote(server, behaviour)).read_bytes() == CONTENT
    assert server.requests[0][1] == "bytes=50000-" and leftovers(folder) == ["file.bin"]


def test_a_wrong_part_is_set_aside_and_the_next_mirror_starts_afresh(server, folder):
    folder.mkdir()
    (folder / "file.bin.part").write_bytes(b"x" * 50_000)
    assert fetch(remote(server, "good", "good")).read_bytes() == CONTENT
    assert leftovers(folder) == ["file.bin", "file.bin.part.corrupt-1"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("truncated", "服务器说是 1000"), ("corrupt", "SHA-256"), ("forbidden", "403"),
        ("stalls", "超时"), ("wrong_range", "续传的位置"),
    ],
)
def test_bad_mirror_is_explained_and_the_next_one_used(server, folder, behaviour, reason):
    started = time.monotonic()
    with pytest.raises(DataUnavailable, match=reason):
        fetch(remote(server, behaviour))
    assert "file.bin" not in leftovers(folder)
    assert fetch(remote(server, behaviour, "good")).read_bytes() == CONTENT
    assert time.monotonic() - started < 15


def test_no_server_at_all_is_quick(folder):
    file = RemoteFile("file.bin", "0" * 64, 1, ("http://127.0.0.1:9/file.bin",))
    started = time.monotonic()
    with pytest.raises(DataUnavailable, match="连不上"):
        fetch(file)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "damage", [CONTENT[:-5], CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), b""],
    ids=["cut short", "last byte changed", "empty"],
)
def test_damaged_file_is_renamed_never_used_never_deleted(server, folder, damage, capsys):
    folder.mkdir()
    (folder / "file.bin").write_bytes(damage)
    assert fetch(remote(server, "good")).read_bytes() == CONTENT
    assert (folder / "file.bin.corrupt-1").read_bytes() == damage
    assert "file.bin.corrupt-1" in capsys.readouterr().out
    (folder / "file.bin").write_bytes(b"again")
    fetch(remote(server, "good"))
    assert (folder / "file.bin.corrupt-2").read_bytes() == b"again"


def test_course_data_dir_is_searched_by_hash_and_left_alone(server, folder, monkeypatch, tmp_path):
    wrong, right = tmp_path / "mine" / "a", tmp_path / "mine" / "b"
    for place, content in ((wrong, b"bad"), (right, CONTENT)):
        place.mkdir(parents=True)
        (place / "file.bin").write_bytes(content)
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "mine"))
    assert fetch(remote(server, "good")) == right / "file.bin"
    assert (wrong / "file.bin").read_bytes() == b"bad"
    assert not server.requests and not folder.exists()


def test_changed_file_is_noticed_within_one_process(server, folder):
    path = fetch(remote(server, "good"))
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    os.utime(path, ns=(1, 1))
    assert download.find(remote(server, "good")) is None


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="只在类 Unix 系统上试")
def test_unwritable_folder_is_explained(server, folder, tmp_path):
    (tmp_path / "data").write_bytes(b"a file, not a folder")
    with pytest.raises(DataUnavailable, match="写不进去"):
        fetch(remote(server, "good"))


def test_two_processes_at_once_do_not_corrupt_each_other(server, tmp_path):
    file = remote(server, "dies")
    program = (
        "import sys; from pathlib import Path; from common import download\n"
        f"download.DATA = Path({str(tmp_path / 'data')!r})\n"
        f"f = download.RemoteFile({file.name!r}, {file.sha256!r}, {file.size}, {file.urls!r})\n"
        "print(download.is_intact(download.fetch(f), f))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(2)
    ]
    results = [process.communicate(timeout=60) for process in running]
    assert [out.strip() for out, _ in results] == ["True", "True"], results
    assert len(server.requests) == 3  # 只有一个进程真的下载了


def make_tar(path, name, content):
    with tarfile.open(path, "w:gz") as bundle:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        bundle.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, name, content):
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr(name, content)
    return path


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_one_file_is_read_out_of_an_archive(tmp_path, make):
    archive = make(tmp_path / "a.tar.gz", "inside/file.txt", b"hello")
    assert download.read_member(archive, "inside/file.txt") == b"hello"
    assert list(tmp_path.iterdir()) == [archive]  # 没有往硬盘上写任何东西
    with pytest.raises(ValueError, match="没有 other"):
        download.read_member(archive, "other")


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_folders_and_links_in_an_archive_are_not_files(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "../../etc/passwd"
        bundle.addfile(info)
    with pytest.raises(ValueError, match="没有 odd"):
        download.read_member(tmp_path / "a.tar", "odd")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_broken_archive_is_explained(tmp_path, make):
    archive = make(tmp_path / "a", "f", os.urandom(5000))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="损坏"):
        download.read_member(archive, "f")
