"""数据集：先在本机找，再下载，都不行就用内置替身。接口永远相同。"""

import gzip
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .download import DataUnavailable, RemoteFile, fetch, find, read_member
from .standin import fashion_mnist_standin

_used: list[str] = []


@dataclass(frozen=True)
class DataSet:
    """一个数据集：显示用的名字，以及“用途 → 文件”（用途由读取它的函数决定）。"""

    name: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class ImageData:
    """分好训练集和测试集的图像：X (N, C, H, W) float32，在 0 到 1 之间；y (N,) int64 类别号。

    classes 是各类的英文名；source 是 "real"（真实数据）或 "built-in"（内置替身）。
    """

    X_train: torch.Tensor
    y_train: torch.Tensor
    X_test: torch.Tensor
    y_test: torch.Tensor
    classes: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class TableData:
    """一张表：table 是 pandas 的 DataFrame；source 是 "real" 或 "built-in"。"""

    table: object
    source: str


def _files(mirrors: tuple[str, ...], *rows: tuple[str, str, int, str]) -> dict[str, RemoteFile]:
    """每行是（用途, 文件名, 字节数, SHA-256）；地址是镜像加文件名。"""
    return {
        use: RemoteFile(name, sha256, size, tuple(mirror + name for mirror in mirrors))
        for use, name, size, sha256 in rows
    }


FASHION_MNIST = DataSet("Fashion-MNIST", _files(
    (
        "https://dataset.bj.bcebos.com/fashion_mnist/",  # 北京，国内访问快
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # 官方，只有 http
    ),
    ("X_train", "train-images-idx3-ubyte.gz", 26421880,
     "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("y_train", "train-labels-idx1-ubyte.gz", 29515,
     "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("X_test", "t10k-images-idx3-ubyte.gz", 4422102,
     "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("y_test", "t10k-labels-idx1-ubyte.gz", 5148,
     "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
))
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)
CALIFORNIA_HOUSING = DataSet("California housing", _files(
    (
        "https://cdn.jsdelivr.net/gh/ageron/handson-ml2@master/datasets/housing/",  # CDN
        "https://raw.githubusercontent.com/ageron/handson-ml2/master/datasets/housing/",
    ),
    ("table", "housing.tgz", 409488,
     "d4cd501af90475f09b814c7447c7701f59bf28e8cf1180205ae5ace9737a0109"),
))
HOUSING_STANDIN = Path(__file__).resolve().parents[1] / "data" / "california_housing_standin.csv"
ALL = (FASHION_MNIST, CALIFORNIA_HOUSING)


def used() -> list[str]:
    """这个进程用过的数据集，按先后次序，不重复。"""
    return list(_used)


def status() -> list[tuple[str, str, bool]]:
    """每个数据集在本机的情况：（名字, 在哪里, 文件是否齐全）。不联网。"""
    rows = []
    for dataset in ALL:
        found = [find(file) for file in dataset.files.values()]
        missing = sum(path is None for path in found)
        where = "本机已有" if not missing else f"缺 {missing} 个文件，用到时自动下载"
        rows.append((dataset.name, where, not missing))
    return rows


def load(dataset: DataSet, read: Callable, make: Callable) -> tuple[object, str]:
    """取得一个数据集：真实数据优先，拿不到就用替身，并用一行字说明用了哪一种。

    read 把 {用途: 文件路径} 变成数据，make 造出替身；返回 (数据, "real" 或 "built-in")。
    """
    if os.environ.get("COURSE_OFFLINE") == "1":
        reason = "COURSE_OFFLINE=1"
    else:
        try:
            data = read({use: fetch(file) for use, file in dataset.files.items()})
            _record(f"{dataset.name}（真实数据）", "")
            return data, "real"
        except DataUnavailable as error:
            reason = str(error)
    _record(f"{dataset.name}（内置替身）", f"，原因：{reason}")
    return make(), "built-in"


def _record(text: str, reason: str) -> None:
    if text not in _used:
        _used.append(text)
    print(f"数据：{text}{reason}")


def read_idx(path: Path) -> np.ndarray:
    """读 MNIST 系列的 IDX 格式（可以是 .gz）。

    格式：4 字节魔数（0、0、数据类型 8、维数），每维 4 字节的大小（大端），然后是 uint8 数据。
    来源：http://yann.lecun.com/exdb/mnist/

    异常:
        ValueError: 文件不是这种格式，或长度与头部不符。
    """
    content = path.read_bytes()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path.name} 不是完整的 gzip 文件。") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} 不是 IDX 格式的 uint8 数据。")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(f"{path.name} 的长度与头部写的形状 {shape} 不符。")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _check_count(name: str, n: int | None, limit: int) -> int:
    if n is None:
        return limit
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= limit:
        raise ValueError(f"{name} 应为 1 到 {limit} 的整数，收到 {n!r}。")
    return n


def fashion_mnist(
    n_train: int | None = None,
    n_test: int | None = None,
    device: torch.device | str | None = None,
) -> ImageData:
    """Fashion-MNIST：10 类衣物的 28×28 灰度图，训练 60,000 张，测试 10,000 张。

    全部图像一次放进内存（或显存），训练时按下标取小批量，不必逐张解码。
    来源：Xiao, Rasul & Vollgraf (2017), https://arxiv.org/abs/1708.07747

    参数:
        n_train, n_test: 只取前几张；不写则全部。
        device: 放在哪个设备上；不写则在 CPU 上。
    异常:
        ValueError: 张数不合法。
    """
    n_train = _check_count("n_train", n_train, 60_000)
    n_test = _check_count("n_test", n_test, 10_000)

    def read(paths: dict[str, Path]) -> tuple[np.ndarray, ...]:
        arrays = {use: read_idx(path) for use, path in paths.items()}
        train, test = slice(n_train), slice(n_test)
        return (arrays["X_train"][train], arrays["y_train"][train],
                arrays["X_test"][test], arrays["y_test"][test])

    arrays, source = load(FASHION_MNIST, read, lambda: fashion_mnist_standin(n_train, n_test))
    tensors = []
    for array in arrays:
        tensor = torch.tensor(array).to(device or "cpu")
        is_image = tensor.dim() == 3
        tensors.append(tensor.unsqueeze(1).float().div_(255) if is_image else tensor.long())
    return ImageData(*tensors, FASHION_CLASSES, source)


def california_housing() -> TableData:
    """California housing：1990 年人口普查，加州 20,640 个街区的房价（替身是 4,128 行）。

    列：经度、纬度（度），房龄中位数（年，52 封顶），房间总数、卧室总数（有缺失）、人口、户数，
    收入中位数（万美元），房价中位数（美元，500,001 封顶），离海远近（5 类）。
    来源：Pace & Barry (1997), https://doi.org/10.1016/S0167-7152(96)00140-X
    """
    import pandas as pd  # 只有读表格的笔记本需要它

    def read(paths: dict[str, Path]) -> object:
        return pd.read_csv(io.BytesIO(read_member(paths["table"], "housing.csv")))

    return TableData(*load(CALIFORNIA_HOUSING, read, lambda: pd.read_csv(HOUSING_STANDIN)))
