"""比较课程的写法与常见写法的速度：在同一次运行里量出倍数。

用法：python tests/benchmark.py

量的是倍数，不是秒数，所以换一台电脑也能比较。它不属于自动测试：机器繁忙时倍数会波动。
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "00_setup")]

from notebooks import load_scratch  # noqa: E402  先把课程根目录放进 sys.path

import common  # noqa: E402

BATCH_SIZE = 256


def write_idx(folder: Path, data: common.ImageData) -> None:
    """把训练集写成 torchvision 认识的文件，让两边读到同样的图像。"""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, X, y in (("train", data.X_train, data.y_train), ("t10k", data.X_test, data.y_test)):
        pixels = (X[:, 0] * 255).round().to(torch.uint8).numpy()
        labels = y.to(torch.uint8).numpy()
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
            (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())


def train_one_epoch(batches, model: nn.Module) -> None:
    """两边共用的训练循环，只有数据来源不同。"""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for X, y in batches:
        loss = F.cross_entropy(model(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def softmax_regression() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def optimizer_ratios() -> list[bool]:
    """4.9 节的优化器走一步，与逐个张量计算的 torch.optim 比较（100 万个参数的多层感知机）。"""
    scratch = load_scratch(ROOT / "04_mlp" / "09_optimizers.ipynb")
    reached = []
    for name, options in (
        ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}), ("Adagrad", {}), ("RMSprop", {}),
        ("Adadelta", {}), ("Adam", {}), ("AdamW", {}),
    ):
        steps = []
        for make, extra in ((getattr(torch.optim, name), {"foreach": False}), (scratch[name], {})):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(784, 768), nn.ReLU(), nn.Linear(768, 512), nn.ReLU(),
                                  nn.Linear(512, 10))
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            steps.append(make(model.parameters(), **options, **extra).step)
        reference = common.benchmark(steps[0], warmup=5, repeat=30)
        mine = common.benchmark(steps[1], warmup=5, repeat=30, baseline=reference)
        print(f"{name} 走一步：PyTorch {reference}，我们 {mine}，"
              f"是它的 {1 / mine.ratio:.2f} 倍（目标 ≤ 3）")
        reached.append(1 / mine.ratio <= 3)
    return reached


def main() -> int:
    names = load_scratch(ROOT / "03_linear_regression" / "01_linear_regression_scratch.ipynb")
    minibatches = names["minibatches"]
    data = common.fashion_mnist()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder), data)
        images = datasets.FashionMNIST(folder, train=True, transform=transforms.ToTensor())
        loader = DataLoader(images, batch_size=BATCH_SIZE, shuffle=True)

        def in_memory():
            return minibatches(data.X_train, data.y_train, BATCH_SIZE)

        for name, goal, run in (
            ("数据读取一遍", 40, lambda batches, model: sum(len(y) for _, y in batches)),
            ("softmax 回归训练一轮", 15, train_one_epoch),
            ("MLP 训练一轮", 8, train_one_epoch),
        ):
            build = mlp if name.startswith("MLP") else softmax_regression
            slow = common.benchmark(lambda: run(loader, build()), warmup=0, repeat=2)  # noqa: B023
            fast = common.benchmark(
                lambda: run(in_memory(), build()),  # noqa: B023
                baseline=slow, repeat=5,
            )
            print(f"{name}：DataLoader {slow}，内存小批量 {fast}，"
                  f"快 {fast.ratio:.0f} 倍（目标 ≥ {goal}）")
            results.append(fast.ratio >= goal)
    return 0 if all(results + optimizer_ratios()) else 1


if __name__ == "__main__":
    sys.exit(main())
