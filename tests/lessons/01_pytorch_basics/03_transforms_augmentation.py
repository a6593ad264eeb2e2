"""1.3 节 数据变换与增强：约定、一致性、改坏的实现和错误答案。"""

import itertools
import random

import pytest
import torch
from parity import TOLERANCE, randn, refuses, same
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

NAMES = (
    "normalize", "channel_stats", "hflip", "pad", "crop", "random_crop", "blend", "mixup",
    "crop_each",
)
FORBIDDEN = frozenset({
    "normalize", "normalize_image", "Normalize", "batch_norm", "instance_norm", "BatchNorm2d",
    "hflip", "horizontal_flip", "horizontal_flip_image", "RandomHorizontalFlip", "flip", "fliplr",
    "crop", "crop_image", "RandomCrop", "CenterCrop", "center_crop", "resized_crop", "pad",
    "pad_image", "Pad", "ZeroPad2d", "ConstantPad2d", "MixUp", "CutMix", "std", "var", "std_mean",
    "var_mean", "roll", "one_hot",
})
SHAPES = ((1, 5, 4), (3, 5, 4), (2, 3, 4, 6), (4, 1, 1, 7))


def bytes_(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=g).to(torch.uint8)


def equal(mine, reference):
    assert mine.dtype == reference.dtype and torch.equal(mine, reference)


def check_normalize(ns):
    mine = ns["normalize"]
    for shape, dtype in itertools.product(SHAPES, TOLERANCE):
        C, x = shape[-3], randn(*shape, dtype=dtype)
        mean, std = [0.1, -0.4, 2.0][:C], [0.5, 0.2, 3.0][:C]
        for m, s in ((mean, std), (tuple(mean), 0.7), (0.3, std), (0.3, 2),
                     (torch.tensor(mean), torch.tensor(std, dtype=torch.float64))):
            same(lambda x: mine(x, m, s), lambda x: TF.normalize(x, m, s), x)  # noqa: B023
        target = x.clone()
        assert mine(target, mean=mean, std=std, inplace=True) is target
        torch.testing.assert_close(target, TF.normalize(x, mean, std))
    flat = randn(4, 5)
    same(lambda x: mine(x, [0.2], [0.5]), lambda x: TF.normalize(x[None], [0.2], [0.5])[0], flat)
    with pytest.raises(TypeError, match="浮点"):
        mine(bytes_(3, 4, 4), [0.5], [0.5])
    refuses(mine, randn(3, 4, 4), [0.5, 0.5], [1.0, 1.0])
    refuses(mine, randn(1, 4, 4), [0.5, 0.5], [1.0, 1.0])
    refuses(mine, randn(4, 4), [0.5, 0.5], [1.0, 1.0])
    refuses(mine, randn(3, 4, 4), [0.5] * 3, [1.0, 0.0, 1.0])
    refuses(mine, randn(3, 4, 4), [0.5] * 3, [1.0, float("nan"), 1.0])
    refuses(mine, randn(4), 0.5, 1.0)


def check_channel_stats(ns):
    mine = ns["channel_stats"]
    for shape, size in (((23, 3, 4, 5), 5), ((7, 1, 6, 2), 7), ((10, 2, 3, 3), 1)):
        for X in (randn(*shape) + 100, randn(*shape, dtype=torch.float64), bytes_(*shape)):
            mean, std = mine(X.split(size))
            want = X.double()
            torch.testing.assert_close(mean, want.mean((0, 2, 3)))
            torch.testing.assert_close(std, want.std((0, 2, 3), correction=0))
    parts = [randn(2, 3, 4, 4), randn(1, 3, 6, 2)]  # 各批大小不同
    flat = torch.cat([p.transpose(0, 1).flatten(1) for p in parts], 1).double()
    torch.testing.assert_close(mine(iter(parts))[1], flat.std(1, correction=0))
    equal(mine([torch.full((2, 1, 3, 3), 0.1)])[1], torch.zeros(1, dtype=torch.float64))
    refuses(mine, [])
    refuses(mine, [randn(3, 4, 4)])


def check_hflip(ns):
    mine = ns["hflip"]
    for shape, dtype in itertools.product((*SHAPES, (4, 5), (1, 1)), TOLERANCE):
        same(mine, TF.hflip, randn(*shape, dtype=dtype))
    for x in (bytes_(3, 4, 5), bytes_(4, 5), bytes_(2, 3, 3) > 100):
        equal(mine(x), TF.hflip(x))
    refuses(mine, randn(5))


PADDINGS = (0, 2, (1,), (1, 3), [2, 0], (1, 2, 3, 4), (0, 0, 5, 0))


def check_pad(ns):
    mine = ns["pad"]
    for shape, padding, dtype in itertools.product(SHAPES, PADDINGS, TOLERANCE):
        for fill in (0, -1.5, [0.25] * shape[-3]):
            same(lambda x: mine(x, padding, fill),  # noqa: B023
                 lambda x: TF.pad(x, padding, fill), randn(*shape, dtype=dtype))  # noqa: B023
    equal(mine(bytes_(3, 4, 5), 2), TF.pad(bytes_(3, 4, 5), 2))
    for fill in (7, 3.7, [1, 20, 255]):
        equal(mine(bytes_(3, 4, 5), (1, 2), fill), TF.pad(bytes_(3, 4, 5), (1, 2), fill))
    color = TF.pad(randn(3, 4, 5), 1, fill=[1.0, 2.0, 3.0])
    equal(mine(randn(3, 4, 5), 1, fill=[1.0, 2.0, 3.0]), color)
    equal(mine(bytes_(4, 5), (1, 2), 9), TF.pad(bytes_(4, 5)[None], (1, 2), 9)[0])
    for padding in (-1, (1, 2, 3), (), (1, -2), 1.5, (1, 0.5)):
        refuses(mine, randn(3, 4, 4), padding)
    refuses(mine, randn(3, 4, 4), 1, [0.0, 1.0])
    refuses(mine, bytes_(3, 4, 4), 1, 256)
    refuses(mine, bytes_(3, 4, 4), 1, [0, 1, -1])
    refuses(mine, randn(4), 1)


def check_crop(ns):
    mine = ns["crop"]
    windows = [(0, 0, 2, 3), (1, 2, 3, 2), (-2, 1, 4, 4), (3, -3, 9, 8), (-12, -12, 3, 3),
               (9, 0, 2, 2), (0, 9, 2, 2), (-1, -1, 12, 12)]
    for shape, dtype, window in itertools.product(SHAPES, TOLERANCE, windows):
        same(lambda x: mine(x, *window), lambda x: TF.crop(x, *window),  # noqa: B023
             randn(*shape, dtype=dtype))
        equal(mine(bytes_(*shape), *window), TF.crop(bytes_(*shape), *window))
    for window in windows:  # 灰度图 (H, W)
        equal(mine(bytes_(4, 5), *window), TF.crop(bytes_(4, 5)[None], *window)[0])
    refuses(mine, randn(3, 4, 4), 0, 0, 0, 2)
    refuses(mine, randn(3, 4, 4), 0, 0, 2, -1)
    refuses(mine, randn(4), 0, 0, 1, 1)


def chi_square(counts):
    expected = counts.sum() / counts.numel()
    return ((counts - expected) ** 2 / expected).sum().item()


def check_random_crop(ns):
    mine = ns["random_crop"]
    for size, padding, (rows, cols) in ((4, None, (5, 4)), ((6, 3), None, (3, 5)),
                                        (8, (1, 2), (5, 2)), ((7, 7), (0, 0, 1, 0), (2, 2))):
        g = torch.Generator().manual_seed(3)
        image = torch.arange(1, 57).reshape(1, 8, 7)  # 每个像素都不同；填充处是 0
        h, w = (size, size) if isinstance(size, int) else size
        padded = image if padding is None else TF.pad(image, padding)
        places = itertools.product(range(rows), range(cols))
        views = {(i, j): TF.crop(padded, i, j, h, w) for i, j in places}
        keys = {tuple(v.flatten().tolist()): k for k, v in views.items()}
        counts = torch.zeros(rows, cols)
        for _ in range(200 * rows * cols):
            out = mine(image, size, padding, generator=g)
            assert out.shape == (1, h, w)
            key = tuple(out.flatten().tolist())
            assert key in keys, "裁出来的不是填充后图像里的一块"
            counts[keys[key]] += 1
        # 自由度最大 19；卡方分布超过 自由度 + 5√(2 自由度) 的机会小于万分之一左右
        df = rows * cols - 1
        assert chi_square(counts) < df + 5 * (2 * df) ** 0.5, counts
    x = randn(2, 3, 8, 8, dtype=torch.float64).requires_grad_()
    out = mine(x, 4, generator=torch.Generator().manual_seed(0))
    out.sum().backward()
    assert out.dtype == x.dtype and x.grad.sum() == out.numel()
    first, second = (mine(randn(3, 9, 9), 3, 1, 0.5, torch.Generator().manual_seed(5))
                     for _ in range(2))
    equal(first, second)
    equal(mine(randn(3, 4, 5), (4, 5)), randn(3, 4, 5))
    assert (mine(bytes_(3, 4, 4), 12, 4, 9) == 9).sum() >= 3 * 128
    refuses(mine, randn(3, 4, 4), 5)
    refuses(mine, randn(3, 4, 4), (4, 7), 1)
    refuses(mine, randn(3, 4, 4), 0)


def mixed_by_v2(X, y, num_classes, lam):
    mixer = v2.MixUp(alpha=1.0, num_classes=num_classes)
    mixer.make_params = lambda inputs: {"lam": lam}
    return mixer(X, y)


def check_blend(ns):
    mine = ns["blend"]
    y = torch.tensor([0, 2, 1, 3, 3])
    for shape, dtype, lam in itertools.product(
        ((5, 1, 4, 4), (5, 3, 2, 6)), TOLERANCE, (0.0, 0.25, 0.9, 1.0)
    ):
        x = randn(*shape, dtype=dtype)
        same(lambda x: mine(x, y, 4, lam)[0],  # noqa: B023
             lambda x: mixed_by_v2(x, y, 4, lam)[0], x)  # noqa: B023
        torch.testing.assert_close(mine(x, y, 4, lam)[1], mixed_by_v2(x, y, 4, lam)[1])
    soft = torch.softmax(randn(5, 4), 1)
    torch.testing.assert_close(mine(randn(5, 1, 2, 2), soft, 4, 0.3)[1],
                               mixed_by_v2(randn(5, 1, 2, 2), soft, 4, 0.3)[1])
    for bad in ((bytes_(5, 1, 2, 2), y, 4, 0.5), (randn(4, 1, 2, 2), y, 4, 0.5),
                (randn(5, 1, 2, 2), y, 3, 0.5), (randn(5, 1, 2, 2), y - 1, 4, 0.5),
                (randn(5, 1, 2, 2), y.float(), 4, 0.5), (randn(5, 1, 2, 2), soft, 5, 0.5),
                (randn(5, 1, 2, 2), y, 4, 1.5), (randn(5, 1, 2, 2), y, 4, float("nan"))):
        refuses(mine, *bad)


def check_mixup(ns):
    mine = ns["mixup"]
    X, y = randn(3, 1, 4, 4), torch.tensor([0, 1, 2])
    for alpha in (0.2, 1.0, 5.0):
        g, lams = torch.Generator().manual_seed(1), []
        for _ in range(2000):
            mixed, soft = mine(X, y, 3, alpha, g)
            lams.append(soft[0, 0].item())  # 三个样本三个类别：自己的概率就是 lambda
            want = mixed_by_v2(X, y, 3, lams[-1])
            torch.testing.assert_close(mixed, want[0])
            torch.testing.assert_close(soft, want[1])
        lam = torch.tensor(lams, dtype=torch.float64)
        variance = 1 / (4 * (2 * alpha + 1))  # Beta(a, a) 的方差
        assert abs(lam.mean() - 0.5) < 5 * (variance / 2000) ** 0.5
        assert abs(lam.var() / variance - 1) < 0.15
    x = X.clone().requires_grad_()
    mine(x, y, 3, 1.0, torch.Generator().manual_seed(2))[0].sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))  # 两份权重加起来是 1
    a, b = (mine(X, y, 3, 1.0, torch.Generator().manual_seed(4)) for _ in range(2))
    equal(a[0], b[0])
    torch.manual_seed(6)
    c = mine(X, y, 3, 1.0)
    torch.manual_seed(6)
    random.seed(99)  # 只由 PyTorch 的种子决定
    equal(mine(X, y, 3, 1.0)[0], c[0])
    for alpha in (0.0, -1.0, float("nan")):
        refuses(mine, X, y, 3, alpha)
    refuses(mine, X, y, 2, 1.0)


def check_crop_each(ns):
    mine = ns["crop_each"]
    g = torch.Generator().manual_seed(0)
    for (N, C, H, W), (h, w) in (((5, 1, 8, 8), (4, 4)), ((4, 3, 6, 9), (5, 2)),
                                 ((1, 2, 3, 3), (3, 3))):
        tops = torch.randint(H - h + 1, (N,), generator=g)
        lefts = torch.randint(W - w + 1, (N,), generator=g)

        def one_by_one(X):
            windows = zip(X, tops.tolist(), lefts.tolist(), strict=True)  # noqa: B023
            return torch.stack([TF.crop(x, i, j, h, w) for x, i, j in windows])  # noqa: B023

        for dtype in TOLERANCE:
            same(lambda X: mine(X, tops, lefts, h, w), one_by_one,  # noqa: B023
                 randn(N, C, H, W, dtype=dtype))
        equal(mine(bytes_(N, C, H, W), tops, lefts, h, w), one_by_one(bytes_(N, C, H, W)))
    zero = torch.zeros(2, dtype=torch.int64)
    refuses(mine, randn(2, 1, 4, 4), zero + 1, zero, 4, 4)
    refuses(mine, randn(2, 1, 4, 4), zero, zero - 1, 2, 2)
    refuses(mine, randn(3, 1, 4, 4), zero, zero, 2, 2)
    refuses(mine, randn(2, 4, 4), zero, zero, 2, 2)


CHECKS = {name: globals()[f"check_{name}"] for name in NAMES}
BROKEN = [
    ("normalize", "(img - mean) / std", "img / std - mean"),
    ("normalize", "if not (std > 0).all():", "if False:"),
    ("normalize", "value.reshape(-1, 1, 1)", "value.reshape(-1, 1)"),
    ("channel_stats", "(S2 / n - mean**2)", "(S2 / (n - 1) - mean**2)"),
    ("channel_stats", "X = X.cpu().double()", "X = X.cpu()"),
    ("hflip", "img.shape[-1] - 1, -1, -1", "img.shape[-1] - 1, 0, -1"),
    ("pad", "canvas[..., top : top + H, left : left + W]",
     "canvas[..., bottom : bottom + H, left : left + W]"),
    ("pad", "sides * (4 // len(sides))", "(sides * 4)[:4][::-1]"),
    ("crop", "min(max(top + height, 0), H)", "min(max(height, 0), H)"),
    ("crop", "canvas[..., r0 - top : r1 - top, c0 - left : c1 - left]",
     "canvas[..., : r1 - r0, : c1 - c0]"),
    ("random_crop", "img.shape[-2] - h + 1, img.shape[-1] - w + 1",
     "img.shape[-2] - h, img.shape[-1] - w"),
    ("random_crop", "left = int(torch.randint(cols, (), generator=generator))", "left = top"),
    ("blend", "- 1   # −1, 0", "- 2   # −1, 0"),
    ("blend", "lam * soft + (1 - lam) * soft[other]", "soft"),
    ("mixup", "betavariate(alpha, alpha)", "betavariate(alpha, 1)"),
    ("mixup", "(2**62, (), generator=generator)", "(2**62, ())"),
    ("crop_each", "lefts.to(X.device)[:, None", "tops.to(X.device)[:, None"),
    ("crop_each", "if not inside.all():", "if False:"),
]
MUTATIONS = [
    [("n_a * (std_a**2 + mean_a**2) + n_b * (std_b**2 + mean_b**2)",
      "n_a * std_a**2 + n_b * std_b**2 + n * mean**2"),
     ("(n_a * mean_a + n_b * mean_b) / n", "(mean_a + mean_b) / 2"), (".sqrt()", "")],
    [("torch.arange(len(X)) - 1", "torch.arange(len(X)) - 2"), ("min(max(top, 0), H)", "top"),
     ("lam = 1 - (r1 - r0) * (c1 - c0) / (H * W)", "lam = 1 - size * size / (H * W)"),
     ("mixed = X.clone()", "mixed = X"), ("lam * soft + (1 - lam)", "(1 - lam) * soft + lam")],
]
