"""数据：读取、替身、张数和来历。"""

import gzip
import hashlib
import io
import tarfile

import housing_standin
import numpy as np
import pytest
import torch
from torch import nn

import common
from common import data, download
from common.standin import BLOCK, fashion_mnist_standin


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """每个测试有自己的 data 文件夹，默认不联网。"""
    monkeypatch.delenv("COURSE_DATA_DIR", raising=False)
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("COURSE_SILENT", "1")
    monkeypatch.setattr(download, "DATA", tmp_path / "data")
    monkeypatch.setattr(data, "_used", [])


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(7,), (3, 28, 28), (2, 3, 4, 5)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read(tmp_path, shape, suffix):
    array = np.random.randint(0, 256, shape)
    content = idx_bytes(array)
    path = tmp_path / f"x-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert np.array_equal(data.read_idx(path), array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "不是 IDX"),
        (b"\0\0\x0d\x01" + b"\0\0\0\x01" + b"\0\0\0\0", "不是 IDX"),  # 浮点数，不是 uint8
        (idx_bytes(np.zeros((2, 3)))[:-1], "不符"),
        (idx_bytes(np.zeros((2, 3))) + b"x", "不符"),
    ],
)
def test_broken_idx_files_are_explained(tmp_path, content, reason):
    path = tmp_path / "x-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        data.read_idx(path)


def test_broken_gzip_is_explained(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(1000)))[:-9])
    with pytest.raises(ValueError, match="gzip"):
        data.read_idx(path)


def test_shapes_types_and_range(capsys):
    d = common.fashion_mnist(n_train=50, n_test=20)
    assert d.X_train.shape == (50, 1, 28, 28) and d.X_test.shape == (20, 1, 28, 28)
    assert d.X_train.dtype == torch.float32 and d.y_train.dtype == torch.int64
    assert 0 <= d.X_train.min() and d.X_train.max() <= 1 and d.X_train.max() > 0.5
    assert d.y_train.shape == (50,) and len(d.classes) == 10
    assert capsys.readouterr().out == "数据：Fashion-MNIST（内置替身），原因：COURSE_OFFLINE=1\n"
    assert d.source == "built-in" and data.used() == ["Fashion-MNIST（内置替身）"]


@pytest.mark.parametrize("count", [0, -1, 60_001, 1.5, True])
def test_bad_counts_are_refused(count):
    with pytest.raises(ValueError, match="n_train"):
        common.fashion_mnist(n_train=count)


def real_files(folder, monkeypatch):
    """造一套很小的“真实”数据，并把登记的哈希换成它的。"""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "X_train": np.random.randint(0, 256, (6, 28, 28)), "y_train": np.arange(6),
        "X_test": np.random.randint(0, 256, (4, 28, 28)), "y_test": np.arange(4),
    }
    files = {}
    for use, array in arrays.items():
        content = gzip.compress(idx_bytes(array))
        name = data.FASHION_MNIST.files[use].name
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files[use] = download.RemoteFile(name, digest, len(content), ())
    dataset = data.DataSet("Fashion-MNIST", files)
    monkeypatch.setattr(data, "FASHION_MNIST", dataset)
    monkeypatch.setattr(data, "ALL", (dataset,))
    return arrays


@pytest.mark.parametrize("place", ["data", "elsewhere/deep"])
def test_real_files_are_preferred(tmp_path, monkeypatch, capsys, place):
    arrays = real_files(tmp_path / place, monkeypatch)
    monkeypatch.setenv("COURSE_OFFLINE", "0")
    if place != "data":
        monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert data.status() == [("Fashion-MNIST", "本机已有", True)]
    d = common.fashion_mnist(n_train=5)
    assert d.source == "real" and "真实数据" in capsys.readouterr().out
    assert np.array_equal((d.X_train[:, 0] * 255).round().numpy(), arrays["X_train"][:5])
    assert d.y_test.tolist() == [0, 1, 2, 3]


def test_offline_means_the_stand_in_even_with_files(tmp_path, monkeypatch):
    real_files(tmp_path / "data", monkeypatch)
    assert common.fashion_mnist(n_train=5, n_test=5).source == "built-in"


def test_missing_files_are_counted(tmp_path, monkeypatch):
    real_files(tmp_path / "data", monkeypatch)
    (tmp_path / "data" / data.FASHION_MNIST.files["y_test"].name).unlink()
    ((_, where, complete),) = data.status()
    assert not complete and "缺 1 个文件" in where


# ---- 替身 ----


def test_stand_in_is_the_same_every_time_and_for_every_size():
    X, y, X_test, y_test = fashion_mnist_standin(BLOCK + 10, 10)
    again = fashion_mnist_standin(30, 20)
    assert np.array_equal(X[:30], again[0]) and np.array_equal(y[:30], again[1])
    assert np.array_equal(X_test, again[2][:10]) and not np.array_equal(X[:10], X_test)
    assert X.dtype == np.uint8 and len(X) == BLOCK + 10


def test_stand_in_leaves_global_randomness_alone(monkeypatch):
    np.random.seed(0)
    expected = np.random.rand(3)
    np.random.seed(0)
    first = fashion_mnist_standin(20, 10)
    assert np.array_equal(np.random.rand(3), expected)
    monkeypatch.setenv("COURSE_SEED", "5")
    assert np.array_equal(fashion_mnist_standin(20, 10)[0], first[0])


def test_stand_in_is_balanced_and_about_as_bright_as_the_real_set():
    X, y, _, _ = fashion_mnist_standin(2000, 1)
    assert np.bincount(y).tolist() == [200] * 10
    assert 0.15 < X.mean() / 255 < 0.35 and 0.25 < X.std() / 255 < 0.40


def accuracy_after_training(model, d, epochs, lr, momentum=0.0):
    """训练到后期把学习率降到十分之一，让结果稳定；返回测试准确率。"""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for epoch in range(epochs):
        if epoch >= 0.6 * epochs:
            optimizer.param_groups[0]["lr"] = lr / 10
        for rows in torch.randperm(len(d.X_train)).split(64):
            loss = nn.functional.cross_entropy(model(d.X_train[rows]), d.y_train[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (model(d.X_test).argmax(1) == d.y_test).float().mean().item()


def test_linear_mlp_cnn_keep_their_order_on_the_stand_in():
    torch.manual_seed(0)
    d = common.fashion_mnist(n_train=10_000, n_test=3000)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    cnn = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10),
    )
    scores = [
        accuracy_after_training(linear, d, 6, 0.1),
        accuracy_after_training(mlp, d, 6, 0.1),
        accuracy_after_training(cnn, d, 4, 0.03, 0.9),
    ]
    assert 0.77 < scores[0] < scores[1] - 0.005 < scores[2] - 0.02 < 0.92, scores


# ---- 表格 ----


def real_table(folder, monkeypatch):
    """一份很小的“真实”表格。"""
    content = b"longitude,ocean_proximity\n-122.0,INLAND\n"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "housing.tgz", "w:gz") as bundle:
        info = tarfile.TarInfo("housing.csv")
        info.size = len(content)
        bundle.addfile(info, io.BytesIO(content))
    packed = (folder / "housing.tgz").read_bytes()
    file = download.RemoteFile("housing.tgz", hashlib.sha256(packed).hexdigest(), len(packed), ())
    monkeypatch.setattr(
        data, "CALIFORNIA_HOUSING", data.DataSet("California housing", {"table": file}))


def test_real_table_is_preferred(tmp_path, monkeypatch, capsys):
    real_table(tmp_path / "data", monkeypatch)
    monkeypatch.setenv("COURSE_OFFLINE", "0")
    d = common.california_housing()
    assert d.source == "real" and d.table.shape == (1, 2)
    assert capsys.readouterr().out == "数据：California housing（真实数据）\n"


def test_housing_stand_in_has_the_same_columns_and_the_same_flaws():
    d = common.california_housing()
    table = d.table
    assert d.source == "built-in" and data.used() == ["California housing（内置替身）"]
    assert list(table) == [
        "longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms",
        "population", "households", "median_income", "median_house_value", "ocean_proximity",
    ]
    numbers = table.drop(columns="ocean_proximity")
    assert (numbers.dtypes == np.float64).all()
    assert table.isna().sum().to_dict() == dict.fromkeys(table, 0) | {"total_bedrooms": 41}
    assert table["median_house_value"].max() == 500_001
    assert 0.02 < (table["median_house_value"] == 500_001).mean() < 0.06
    assert table["housing_median_age"].between(1, 52).all()
    counts = table["ocean_proximity"].value_counts()
    assert len(counts) == 5 and counts["ISLAND"] == 5
    assert 0.6 < table["median_income"].corr(table["median_house_value"]) < 0.75


def test_housing_stand_in_is_the_one_its_script_makes():
    made, saved = housing_standin.make(), common.california_housing().table
    assert list(made["ocean_proximity"]) == list(saved["ocean_proximity"])
    for name in saved.drop(columns="ocean_proximity"):  # 取整前的末位可能因电脑而差一点
        step = 100 if name == "median_house_value" else 0.011 if name.endswith("tude") else 1
        assert np.allclose(made[name], saved[name], rtol=0, atol=step, equal_nan=True), name
