"""取得数据文件：先在本机找，再从镜像下载；只使用 SHA-256 正确的文件。"""

import hashlib
import os
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"  # 下载的文件放在这里
CHUNK = 1 << 16
TIMEOUT = 5.0  # 秒：连不上，或这么久没有收到一个字节，就放弃这次连接
TRIES = 3  # 每个镜像最多续传几次；一个字节也没收到就不再试
HEADERS = {"User-Agent": "Mozilla/5.0 (course data)"}  # 有些服务器见到 Python 默认的标识就拒绝


class DataUnavailable(Exception):
    """拿不到真实数据；信息是给读者看的一句中文。"""


@dataclass(frozen=True)
class RemoteFile:
    """一个可以下载的文件：文件名、SHA-256（十六进制）、字节数、按顺序尝试的地址。"""

    name: str
    sha256: str
    size: int
    urls: tuple[str, ...]


_verified: dict[tuple, bool] = {}


def is_intact(path: Path, file: RemoteFile) -> bool:
    """文件的大小和 SHA-256 是否都正确。没有变动的文件每个进程只计算一次。"""
    try:
        info = path.stat()
        if info.st_size != file.size:
            return False
        key = (path, info.st_mtime_ns, info.st_size, file.sha256)
        if key not in _verified:
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            _verified[key] = digest.hexdigest() == file.sha256
        return _verified[key]
    except OSError:
        return False


def find(file: RemoteFile) -> Path | None:
    """在 COURSE_DATA_DIR（包括子文件夹）和 data 里找完好的文件；没有则返回 None。只读，不联网。"""
    folder = os.environ.get("COURSE_DATA_DIR", "").strip()
    candidates = sorted(Path(folder).expanduser().rglob(file.name)) if folder else []
    for path in [*candidates, DATA / file.name]:
        if is_intact(path, file):
            return path
    return None


def set_aside(path: Path) -> Path:
    """把坏文件改名留在原处（加上 .corrupt-1 等），不删除；返回新的路径。"""
    number = 1
    while (target := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    os.replace(path, target)
    print(f"{path.name} 不完整或被改动过，已改名为 {target.name}，重新下载。")
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """文件锁：同一时刻只有一个进程下载。进程退出时系统自动放开，不会留下死锁。"""
    with path.open("a+b") as stream:
        if os.name == "nt":
            import msvcrt

            while True:
                try:
                    stream.seek(0)
                    msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(0.2)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # 关闭文件时，锁也就放开了


def _transfer(url: str, part: Path, file: RemoteFile) -> None:
    """把 url 的内容接着写进 part；part 里已有的字节用 Range 跳过。

    异常:
        OSError: 连不上、超时、中断（urllib 的错误都属于它）。
        ValueError: 服务器给的不是这个文件。
    """
    from .timing import progress

    have = part.stat().st_size if part.exists() else 0
    if have >= file.size:
        have = 0
    headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as r:
        if r.status == 206 and not r.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ValueError("服务器续传的位置不对")
        if r.status != 206:
            have = 0  # 服务器不支持续传，从头来
        length = r.headers.get("Content-Length")
        if length is not None and int(length) != file.size - have:
            raise ValueError(f"大小应为 {file.size - have} 字节，服务器说是 {length}")
        count = -(-(file.size - have) // CHUNK) + 1
        with part.open("ab" if have else "wb") as stream:
            for _ in progress(range(count), f"下载 {file.name}"):
                block = r.read(CHUNK)
                stream.write(block)
                have += len(block)
                if not block or have > file.size:
                    break
    if have < file.size:
        raise ConnectionError("连接中途断开")


def _download(file: RemoteFile, target: Path) -> None:
    """依次试每个镜像，成功后把校验过的文件原子地放到 target。"""

    def size() -> int:
        return part.stat().st_size if part.exists() else 0

    part = target.with_name(target.name + ".part")
    problems = []
    for url in file.urls:
        host = url.split("/")[2]
        for _ in range(TRIES):
            before = size()
            try:
                _transfer(url, part, file)
            except (OSError, ValueError) as error:
                problems.append(f"{host}：{_reason(error)}")
                if size() > before:
                    continue  # 有进展就接着传
                break
            if is_intact(part, file):
                os.replace(part, target)
                return
            problems.append(f"{host}：内容与 SHA-256 不符")
            set_aside(part)
            break
    raise DataUnavailable(f"{file.name} 下载不了（{'；'.join(problems)}）")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"服务器回答 {error.code}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", 0), TimeoutError):
        return "超时"
    if isinstance(error, urllib.error.URLError):
        return "连不上"
    return str(error) or type(error).__name__


def fetch(file: RemoteFile) -> Path:
    """取得一个文件，返回完好文件的路径。

    异常:
        DataUnavailable: 找不到也下载不了，或者 data 文件夹写不进去。
    """
    if found := find(file):
        return found
    target = DATA / file.name
    try:
        target.parent.mkdir(exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock")):
            if is_intact(target, file):  # 等锁的时候，另一个进程已经下载好了
                return target
            if target.exists():
                set_aside(target)
            _download(file, target)
    except OSError as error:
        raise DataUnavailable(f"data 文件夹写不进去（{error.strerror or error}）") from error
    return target


def read_member(archive: Path, name: str) -> bytes:
    """读出 .zip 或 .tar.* 里的一个文件。不往硬盘上解压，所以不怕跑出文件夹的路径和链接。

    异常:
        ValueError: 压缩包损坏，或里面没有这个文件。
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                return bundle.read(name)
        with tarfile.open(archive) as bundle:
            if not bundle.getmember(name).isfile():
                raise KeyError(name)  # 文件夹和链接没有内容
            return bundle.extractfile(name).read()
    except KeyError as error:
        raise ValueError(f"{archive.name} 里没有 {name}。") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{archive.name} 已损坏：{error}") from error
