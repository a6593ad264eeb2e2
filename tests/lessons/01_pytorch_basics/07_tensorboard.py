"""1.7 节 TensorBoard：读取器读回写入的一切，平滑、分箱、PR 曲线和主成分分析。"""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from parity import randn, refuses
from tensorboard.backend.event_processing import event_file_loader, io_wrapper
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from torch.utils.tensorboard import SummaryWriter

NAMES = (
    "checksum", "read_records", "read_scalars", "smooth", "read_histograms", "rebin",
    "read_images", "pr_curve_points", "read_tensors", "read_embeddings", "pca_project",
    "read_hparams", "find_runs",
)
FORBIDDEN = frozenset({
    "masked_crc32c", "crc32c", "crc32", "RecordReader", "RecordWriter", "PyRecordReader_New",
    "EventFileLoader", "RawEventFileLoader", "LegacyEventFileLoader", "tf_record_iterator",
    "ewm", "histogram", "compute_curve", "pca_lowrank", "svd_lowrank", "GetLogdirSubdirectories",
})


@contextmanager
def folder():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def written():
    """给出 (日志目录, writer)；第一次取用日志目录之前要先关上 writer。"""
    with folder() as path, SummaryWriter(str(path / "run")) as writer:
        yield path / "run", writer


def event_file(run):
    (path,) = run.glob("*tfevents*")
    return path


def check_checksum(ns):
    g = torch.Generator().manual_seed(0)
    for size in (0, 1, 2, 7, 8, 64, 301):
        data = bytes(torch.randint(256, (size,), generator=g).tolist())
        assert ns["checksum"](data) == pywrap_tensorflow.masked_crc32c(data)
    # RFC 3720 附录 B.4：32 个 0 的 CRC-32C 是 0x8A9136AA
    crc = 0x8A9136AA
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert ns["checksum"](bytes(32)) == masked


def check_read_records(ns):
    with written() as (run, writer):
        for step in range(7):
            writer.add_scalar("a", step / 3, step)
        writer.add_text("t", "中文" * 100, 0)
        writer.close()
        path = event_file(run)
        official = list(event_file_loader.RawEventFileLoader(str(path)).Load())
        mine = ns["read_records"](path)
        assert mine == official == ns["read_records"](str(path)) and len(mine) == 9
        content = path.read_bytes()
        last = len(content) - len(official[-1]) - 16  # 最后一条从这里开始
        other = run / "other"
        for cut in (last, last + 5, last + 11, last + 12, last + 20, len(content) - 1):
            other.write_bytes(content[:cut])  # 写到一半的一条不算
            assert ns["read_records"](other) == official[:-1], cut
        for place in (last, last + 9, last + 12, len(content) - 5, len(content) - 1):
            damaged = bytearray(content)
            damaged[place] ^= 1
            other.write_bytes(damaged)
            refuses(ns["read_records"], other)
        other.write_bytes(b"")
        assert ns["read_records"](other) == []


def check_read_scalars(ns):
    values = [float(v) for v in randn(1500)]
    with written() as (run, writer):
        for step, value in enumerate(values):
            writer.add_scalar("a/b", value, 3 * step)
        writer.add_scalar("损失", torch.tensor([2.5]), 7)
        writer.add_scalar("bad", float("nan"), 1)
        writer.close()
        found = ns["read_scalars"](run)
        assert set(found) == {"a/b", "损失", "bad"}
        steps, got = found["a/b"]
        assert steps == [3 * k for k in range(1500)]  # 一条也不丢
        assert got == pytest.approx(values, rel=1e-6)
        assert found["损失"] == ([7], [2.5]) and np.isnan(found["bad"][1][0])
        assert ns["read_scalars"](str(run)).keys() == found.keys()
    with folder() as empty:
        refuses(ns["read_scalars"], empty)
        refuses(ns["read_scalars"], empty / "missing")


def check_smooth(ns):
    smooth = ns["smooth"]
    values = [float(v) for v in randn(60, dtype=torch.float64)]
    for weight in (0.0, 0.3, 0.9, 0.999):
        reference = pd.Series(values).ewm(alpha=1 - weight).mean().tolist()
        assert smooth(values, weight) == pytest.approx(reference, abs=1e-9)
    assert smooth([1.0, 2.0, 3.0], 0.5) == pytest.approx([1, 5 / 3, 17 / 7])
    assert smooth([4.0] * 9, 0.9) == pytest.approx([4.0] * 9)
    got = smooth([1.0, float("nan"), float("inf"), 3.0], 0.5)
    assert np.isnan(got[1]) and got[2] == float("inf")
    assert [got[0], got[3]] == pytest.approx([1, 7 / 3])
    assert smooth([], 0.5) == []
    for weight in (-0.1, 1.0, 1.5):
        refuses(smooth, [1.0], weight)


def check_read_histograms(ns):
    tensors = [randn(1000, seed=k, scale=10.0**k) for k in range(4)]
    tensors.append(torch.zeros(5))
    with written() as (run, writer):
        for step, tensor in enumerate(tensors):
            writer.add_histogram("h", tensor, 10 * step)
            writer.add_histogram("own", tensor.clamp(0, 1), step, bins=[0, 0.5, 1])
        writer.close()
        found = ns["read_histograms"](run)
        steps, rows = found["h"]
        assert steps == [0, 10, 20, 30, 40] and set(found) == {"h", "own"}
        for tensor, (edges, counts) in zip(tensors, rows, strict=True):
            assert len(edges) == len(counts) + 1 and (np.diff(edges) > 0).all()
            assert counts.sum() == tensor.numel()
            np.testing.assert_array_equal(np.histogram(tensor.numpy(), edges)[0], counts)
        edges, counts = found["own"][1][0]
        np.testing.assert_array_equal(edges, [0, 0.5, 1])
        np.testing.assert_array_equal(
            counts, np.histogram(tensors[0].clamp(0, 1).numpy(), [0, 0.5, 1])[0])


def check_rebin(ns):
    rebin = ns["rebin"]
    edges, counts = np.array([0.0, 1.0, 3.0]), np.array([4.0, 6.0])
    for new, want in (([0, 0.5, 1, 2, 3], [2, 2, 3, 3]), ([0, 3], [10]), ([0.5, 2], [5]),
                      ([-5, 0, 9], [0, 10]), ([-1, 0.25], [1])):
        np.testing.assert_allclose(rebin(edges, counts, np.array(new, float)), want)
    g = np.random.default_rng(0)
    edges, counts = np.sort(g.normal(size=31)), g.integers(0, 9, 30).astype(float)
    new = np.linspace(-4, 4, 17)
    want = [sum(c * max(0, min(b, hi) - max(a, lo)) / (b - a)
                for a, b, c in zip(edges, edges[1:], counts, strict=False))
            for lo, hi in zip(new, new[1:], strict=False)]
    np.testing.assert_allclose(rebin(edges, counts, new), want, atol=1e-9)
    refuses(rebin, edges, counts[:-1], new)


def check_read_images(ns):
    g = torch.Generator().manual_seed(0)
    grey = torch.randint(256, (1, 6, 9), generator=g, dtype=torch.uint8)
    colours = [torch.randint(256, (3, 5, 4), generator=g, dtype=torch.uint8) for _ in range(8)]
    with written() as (run, writer):
        writer.add_image("grey", grey, 2)
        for step, image in enumerate(colours):
            writer.add_image("colour", image, step)
        writer.add_images("batch", torch.stack(colours[:3]).float() / 255, 0)
        writer.close()
        found = ns["read_images"](run)
        assert set(found) == {"grey", "colour", "batch"}
        assert found["grey"][0] == [2]
        assert torch.equal(found["grey"][1][0], grey.expand(3, -1, -1))
        assert found["colour"][0] == list(range(8))  # 一张也不丢
        for mine, image in zip(found["colour"][1], colours, strict=True):
            assert mine.dtype == torch.uint8 and torch.equal(mine, image)
        assert found["batch"][1][0].shape[0] == 3


def check_pr_curve_points(ns):
    points, g = ns["pr_curve_points"], torch.Generator().manual_seed(0)
    hand = points(torch.tensor([1, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.4, 0.1]), 5)
    want = [[2, 2, 1, 1, 0], [2, 1, 1, 1, 0], [0, 1, 1, 1, 2], [0, 0, 1, 1, 2],
            [1 / 2, 2 / 3, 1 / 2, 1 / 2, 0], [1, 1, 1 / 2, 1 / 2, 0]]
    torch.testing.assert_close(hand, torch.tensor(want, dtype=torch.float64))
    with written() as (run, writer):
        cases = {}
        for k, (n, thresholds) in enumerate(((1, 127), (50, 127), (400, 11), (30, 2))):
            labels = torch.rand(n, generator=g) < 0.3
            scores = torch.rand(n, generator=g)
            scores[0] = float(k % 2)  # 0 和 1 也要对
            if k == 1:
                labels[:] = False  # 没有正类
            cases[f"c{k}"] = points(labels, scores, thresholds).float()
            writer.add_pr_curve(f"c{k}", labels, scores, 0, num_thresholds=thresholds)
        writer.close()
        stored = ns["read_tensors"](run, "pr_curves")
        for name, mine in cases.items():
            torch.testing.assert_close(mine, torch.tensor(stored[name][1][0]))
    refuses(points, torch.ones(3), torch.rand(4))
    refuses(points, torch.ones(3), torch.tensor([0.1, 0.2, 1.5]))
    refuses(points, torch.ones(2, 2), torch.rand(2, 2))


def check_read_tensors(ns):
    with written() as (run, writer):
        for step in range(15):
            writer.add_pr_curve("pr", torch.tensor([1, 0]), torch.tensor([0.9, 0.1]), step)
        writer.add_text("note", "# 标题\n正文", 3)
        writer.close()
        curves = ns["read_tensors"](run, "pr_curves")
        assert set(curves) == {"pr"} and curves["pr"][0] == list(range(15))  # 一条也不丢
        assert curves["pr"][1][0].shape == (6, 127)
        ((steps, texts),) = ns["read_tensors"](run, "text").values()
        assert steps == [3] and texts[0].item().decode("utf-8") == "# 标题\n正文"
        assert ns["read_tensors"](run, "mesh") == {}


def check_read_embeddings(ns):
    g = torch.Generator().manual_seed(0)
    with written() as (run, writer):
        wanted = {}
        for step, n in ((0, 7), (12, 9)):
            X = torch.randn(n, 4, generator=g)
            images = torch.randint(256, (n, 3, 5, 5), generator=g).float() / 255
            names = [f"T-shirt {i}" if i % 2 else f"鞋 {i}" for i in range(n)]
            writer.add_embedding(X, names, images, global_step=step, tag="points")
            wanted[f"points:{step:05d}"] = X, names, images
        writer.close()
        found = ns["read_embeddings"](run)
        assert found.keys() == wanted.keys()
        for name, (X, names, images) in wanted.items():
            mine = found[name]
            torch.testing.assert_close(mine[0], X)
            assert mine[1] == names and mine[2].shape == images.shape
            assert (mine[2] / 255 - images).abs().max() <= 1.01 / 255
    with folder() as empty:
        refuses(ns["read_embeddings"], empty)


def check_pca_project(ns):
    pca = ns["pca_project"]
    for dtype, tol in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        for N, D in ((20, 5), (6, 9), (40, 1)):
            X = randn(N, D, dtype=dtype) * torch.arange(1, D + 1, dtype=dtype) + 3
            for k in {1, min(N - 1, D)}:
                points, ratio = pca(X, k)
                assert points.shape == (N, k) and ratio.shape == (k,)
                covariance = torch.cov(X.T).reshape(D, D)
                values = torch.linalg.eigvalsh(covariance).flip(0)
                torch.testing.assert_close(ratio, (values / values.sum())[:k], rtol=tol, atol=tol)
                variance = points.var(0)
                torch.testing.assert_close(variance, values[:k], rtol=10 * tol, atol=10 * tol)
                torch.testing.assert_close(points.mean(0), torch.zeros(k, dtype=dtype),
                                           rtol=0, atol=1e3 * tol)
    X = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    points, ratio = pca(X, 1)  # 方向是 (1, 1) 而不是 (−1, −1)
    root = 2**0.5
    torch.testing.assert_close(points, torch.tensor([[-root], [0.0], [root]]))
    torch.testing.assert_close(pca(-X, 1)[0], -points)
    assert pca(randn(9, 4))[0].shape == (9, 2)
    refuses(pca, randn(5, 3), 0)
    refuses(pca, randn(5, 3), 4)


def check_read_hparams(ns):
    settings = {"lr": 0.1, "layers": 3, "optimizer": "SGD", "augment": True}
    with written() as (run, writer):
        writer.add_hparams(settings, {"hparam/accuracy": 0.5}, run_name=".")
        writer.close()
        assert ns["read_hparams"](run) == settings
        assert ns["read_scalars"](run)["hparam/accuracy"][1] == [0.5]
    with written() as (run, writer):
        writer.add_scalar("a", 1.0, 0)
        writer.close()
        refuses(ns["read_hparams"], run)


def check_find_runs(ns):
    with folder() as top:
        for name in ("b", "a", "a/nested", "group/lr=0.1"):
            SummaryWriter(str(top / name)).close()
        (top / "empty").mkdir()
        (top / "a" / "notes.txt").write_text("", encoding="utf-8")
        official = sorted(Path(p).relative_to(top).as_posix()
                          for p in io_wrapper.GetLogdirSubdirectories(str(top)))
        assert ns["find_runs"](top) == official == ["a", "a/nested", "b", "group/lr=0.1"]
        assert ns["find_runs"](str(top / "group" / "lr=0.1")) == ["."]
        assert ns["find_runs"](top / "empty") == []
        refuses(ns["find_runs"], top / "missing")


CHECKS = {name: globals()[f"check_{name}"] for name in NAMES}
BROKEN = [
    ("checksum", "0x82F63B78", "0xEDB88320"),  # 普通的 CRC-32
    ("checksum", "(crc >> 15) | (crc << 17)", "(crc >> 17) | (crc << 15)"),
    ("read_records", "if start > len(content):", "if start >= len(content):"),
    ("read_records", "if checksum(data) !=", "if False and checksum(data) !="),
    ("read_records", "start += 12 + size + 4", "start += 12 + size"),
    ("read_scalars", '"scalars": 0', '"scalars": 1000'),
    ("read_scalars", "[e.value for e in es]", "sorted(e.value for e in es)"),
    ("smooth", "mean / (1 - weight**count)", "mean"),
    ("smooth", "if not np.isfinite(x):", "if False:"),
    ("read_histograms", "counts = counts[1:]", "edges = edges[1:]"),
    ("read_histograms", '"histograms": 0', '"histograms": 1'),
    ("rebin", "np.concatenate([[0.0], np.cumsum(counts)])", "np.cumsum([*counts, 0.0])"),
    ("read_images", '"images": 0', '"images": 4'),
    ("pr_curve_points", "level >= ks", "level > ks"),
    ("pr_curve_points", "fn = (~positive).sum() - fp, positive.sum() - tp",
     "fn = positive.sum() - tp, (~positive).sum() - fp"),
    ("read_tensors", ".plugin_name == plugin", ".plugin_name"),
    ("read_embeddings", "tiles.flatten(1, 2).transpose(0, 1)",
     "tiles.transpose(1, 2).flatten(1, 2).transpose(0, 1)"),
    ("pca_project", "centred = X - X.mean(0)", "centred = X"),
    ("pca_project", "(S**2 / (S**2).sum())", "(S / S.sum())"),
    ("read_hparams", 'value.WhichOneof("kind")', '"number_value"'),
    ("find_runs", ".rglob(", ".glob("),
]
MUTATIONS = [
    [("checksum(size)", "checksum(data)"), ('"<Q"', '">Q"'), ("len(data)", "len(data) + 4"),
     ("size + size_check + data + data_check", "size + data + size_check + data_check")],
    [("(1 - weight**t) * smoothed", "smoothed"), (" / (1 - weight)", ""),
     ("torch.arange(1, len(smoothed) + 1,", "torch.arange(len(smoothed),")],
]
