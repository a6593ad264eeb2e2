"""没有网络时用的内置数据：按固定的规则画出来，与真实数据同形状、同类别、同接口。

每 1000 张图有自己的随机数发生器，所以前 n 张永远相同；与全局随机种子互不影响。
"""

from collections.abc import Callable

import numpy as np

BLOCK = 1000
PIXEL = 2 / 28
V, U = ((np.mgrid[:28, :28] + 0.5) * PIXEL - 1).astype(np.float32)  # 向下、向右，-1 到 1


class _Draw:
    """一批同类图像的随机参数；所有参数的形状都是 (n, 1, 1)，与网格广播。"""

    def __init__(self, rng: np.random.Generator, n: int):
        self.rng, self.n = rng, n
        shift, turn = self.normal(0, 0.06), self.normal(0, 0.06)
        scale = self.normal(1, 0.09)
        x, y = U - shift, V - self.normal(0, 0.05)
        bend = self.normal(0, 0.04) * np.sin(2.5 * y + self.uniform(0, 6.3))  # 布料不是刚体
        self.u = (x - turn * y + bend) / scale  # (n, 28, 28)
        self.v = (y + turn * x) / (scale * self.normal(1, 0.04))
        self.front = np.exp(-(((self.u - 0.02) / 0.05) ** 2))  # 前襟：中间一条竖线

    def uniform(self, low: float, high: float) -> np.ndarray:
        return self.rng.uniform(low, high, (self.n, 1, 1)).astype(np.float32)

    def normal(self, mean: float, std: float) -> np.ndarray:
        return self.rng.normal(mean, std, (self.n, 1, 1)).astype(np.float32)

    def chance(self, p: float) -> np.ndarray:
        return (self.rng.random((self.n, 1, 1)) < p).astype(np.float32)


def _inside(distance: np.ndarray) -> np.ndarray:
    """到边界的距离（里面为正）→ 0 到 1 的覆盖率，边缘平滑一个像素。"""
    return np.clip(distance / PIXEL + 0.5, 0, 1)


def _capsule(x, y, x0, y0, dx, dy, length, radius) -> np.ndarray:
    """从 (x0, y0) 出发、方向 (dx, dy) 的圆头长条：袖子、带子。"""
    px, py = x - x0, y - y0
    along = np.clip(px * dx + py * dy, 0, length)
    return radius - np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2)


def _top(d: _Draw, width, bottom, flare, sleeve, spread, radius, neck) -> np.ndarray:
    """上衣和裙子的轮廓：梯形的身子、两只袖子、圆领。"""
    a = np.abs(d.u)
    top = -0.82
    half = width * (1 + flare * (d.v - top))
    body = np.minimum(np.minimum(half - a, d.v - top - 0.25 * a), bottom - d.v)
    arm = _capsule(a, d.v, width * 0.85, top + 0.22, np.sin(spread), np.cos(spread), sleeve, radius)
    shape = np.where(sleeve > 0, np.maximum(body, arm), body)
    hole = np.sqrt(d.u**2 + (d.v - top) ** 2) - neck
    return _inside(np.minimum(shape, hole))


def _paint(d: _Draw, mask: np.ndarray, tone: np.ndarray, lines: np.ndarray | float = 0.0):
    """给轮廓上色：整体明暗、一侧的阴影、条纹，再减去线条。"""
    shade = 1 + d.normal(0, 0.12) * d.u + d.normal(0, 0.10) * d.v
    stripe = d.chance(0.35) * d.uniform(0.05, 0.3)
    angle = d.uniform(0, np.pi)
    wave = np.sin(d.uniform(8, 26) * (np.cos(angle) * d.u + np.sin(angle) * d.v))
    return mask * tone * np.clip(shade * (1 - stripe * (wave > 0.2)) - lines, 0.08, 1.4)


def _t_shirt(d):
    mask = _top(d, d.normal(0.43, 0.05), d.normal(0.80, 0.06), d.normal(0.03, 0.05),
                d.uniform(0.16, 0.42), d.normal(0.85, 0.14), d.normal(0.17, 0.02),
                d.uniform(0.14, 0.30))
    return _paint(d, mask, d.uniform(0.35, 1.0))


def _trouser(d):
    gap, spread = d.uniform(0.0, 0.05), d.normal(0.09, 0.03)
    a = np.abs(d.u)
    outer = d.normal(0.27, 0.035) + spread * (d.v + 0.9) * 0.6
    inner = np.where(d.v > d.normal(-0.4, 0.06), gap + spread * (d.v + 0.4) * 0.45, -1)
    mask = np.minimum(np.minimum(outer - a, a - inner), np.minimum(d.v + 0.9, 0.92 - d.v))
    return _paint(d, _inside(mask), d.uniform(0.35, 1.0))


def _pullover(d):
    mask = _top(d, d.normal(0.44, 0.045), d.normal(0.78, 0.06), d.normal(0.02, 0.05),
                d.uniform(0.9, 1.25), d.normal(0.24, 0.06), d.normal(0.15, 0.02),
                d.uniform(0.08, 0.20))
    return _paint(d, mask, d.uniform(0.3, 0.95))


def _dress(d):
    sleeve = d.chance(0.45) * d.uniform(0.15, 1.0)
    mask = _top(d, d.normal(0.27, 0.045), d.normal(0.90, 0.04), d.uniform(0.02, 0.55),
                sleeve, d.normal(0.35, 0.12), d.normal(0.10, 0.02), d.uniform(0.12, 0.26))
    return _paint(d, mask, d.uniform(0.3, 1.0))


def _coat(d):
    mask = _top(d, d.normal(0.42, 0.045), d.normal(0.88, 0.04), d.normal(0.06, 0.05),
                d.uniform(0.95, 1.3), d.normal(0.20, 0.06), d.normal(0.155, 0.02),
                d.uniform(0.06, 0.16))
    return _paint(d, mask, d.uniform(0.25, 0.9), d.chance(0.8) * d.uniform(0.2, 0.7) * d.front)


def _shirt(d):
    long = d.chance(0.6)
    mask = _top(d, d.normal(0.42, 0.05), d.normal(0.83, 0.06), d.normal(0.03, 0.05),
                long * d.uniform(0.8, 1.2) + (1 - long) * d.uniform(0.2, 0.5),
                long * d.normal(0.24, 0.07) + (1 - long) * d.normal(0.75, 0.15),
                d.normal(0.15, 0.02), d.uniform(0.08, 0.24))
    buttons = d.chance(0.6) * d.uniform(0.15, 0.5) * (np.sin(d.uniform(22, 30) * d.v) > -0.2)
    return _paint(d, mask, d.uniform(0.3, 1.0), buttons * d.front)


def _shoe(d, height, heel, toe, sole) -> tuple[np.ndarray, np.ndarray]:
    """侧面的鞋：返回（鞋面, 鞋底）的轮廓。鞋尖在左，鞋跟在右。"""
    ground = d.normal(0.42, 0.05)
    x = (d.u + 1) / 2  # 0 是鞋尖，1 是鞋跟
    profile = toe + (height - toe) * np.clip((x - 0.25) / 0.6, 0, 1) ** heel
    ends = 0.94 - np.abs(d.u)
    upper = np.minimum(np.minimum(ends, d.v - (ground - profile)), ground - d.v)
    under = np.minimum(np.minimum(ends, d.v - ground + 0.02), ground + sole - d.v)
    return upper, under


def _sandal(d):
    shape = d.uniform(0.25, 0.85), d.uniform(0.8, 2.0), d.uniform(0.1, 0.25), d.uniform(0.06, 0.22)
    upper, under = _shoe(d, *shape)
    phase = np.sin(d.uniform(7, 14) * (d.u + d.uniform(-0.8, 0.8) * d.v) + d.uniform(0, 6.3))
    straps = _inside(upper) * (phase > d.uniform(-0.3, 0.6))
    return _paint(d, np.maximum(straps, _inside(under)), d.uniform(0.35, 1.0))


def _sneaker(d):
    upper, under = _shoe(d, d.normal(0.48, 0.07), d.uniform(0.7, 1.4), d.normal(0.18, 0.03),
                         d.uniform(0.06, 0.16))
    lines = d.chance(0.6) * d.uniform(0.1, 0.5) * _inside(0.05 - np.abs(d.u * 0.8 - d.v + 0.1))
    tone = d.uniform(0.35, 1.0)
    return np.maximum(_paint(d, _inside(upper), tone, lines), _inside(under) * d.uniform(0.3, 1))


def _bag(d):
    w, top, bottom = d.normal(0.72, 0.12), d.normal(-0.18, 0.14), d.normal(0.66, 0.1)
    slant = d.normal(0.05, 0.08)
    body = np.minimum(w * (1 + slant * d.v) - np.abs(d.u), np.minimum(d.v - top, bottom - d.v))
    ring = np.sqrt((d.u / d.uniform(0.7, 1.1)) ** 2 + ((d.v - top) / d.uniform(0.8, 1.6)) ** 2)
    arc = d.uniform(0.04, 0.08) - np.abs(ring - d.uniform(0.25, 0.45))
    handle = np.minimum(arc, top - d.v + 0.04)
    shape = np.maximum(body, np.where(d.chance(0.8) > 0, handle, -1))
    flap = d.chance(0.5) * 0.4 * (np.abs(d.v - top - d.uniform(0.15, 0.4)) < 0.04)
    return _paint(d, _inside(shape), d.uniform(0.3, 1.0), flap)


def _ankle_boot(d):
    upper, under = _shoe(d, d.normal(0.55, 0.07), d.uniform(0.5, 1.2), d.normal(0.24, 0.04),
                         d.uniform(0.06, 0.18))
    shaft = np.minimum(np.minimum(d.u + 1 - 2 * d.normal(0.47, 0.05), 0.9 - d.u),
                       np.minimum(d.v + d.uniform(0.2, 0.85), 0.3 - d.v))
    boot = _paint(d, _inside(np.maximum(upper, shaft)), d.uniform(0.35, 1.0))
    return np.maximum(boot, _inside(under) * d.uniform(0.3, 1))


_GARMENTS: tuple[Callable[[_Draw], np.ndarray], ...] = (
    _t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot,
)
# 像真实数据一样，有些衣服很难说是哪一类：真实标签 i 的图里，有一部分是照着另一类画的
_LOOKS_LIKE = {
    0: ((6, 0.03), (3, 0.01)), 2: ((4, 0.03), (6, 0.02)), 3: ((0, 0.01), (4, 0.01)),
    4: ((2, 0.03), (6, 0.02)), 5: ((7, 0.02),), 6: ((0, 0.05), (2, 0.03), (4, 0.02)),
    7: ((9, 0.03), (5, 0.01)), 9: ((7, 0.03),),
}


def _block(split: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """一块 1000 张图：每类 100 张，顺序打乱。"""
    rng = np.random.default_rng([1992, split, index])
    labels = np.arange(BLOCK) // (BLOCK // 10)  # 0…0, 1…1, …, 9…9
    drawn = labels.copy()
    for label, neighbours in _LOOKS_LIKE.items():
        rows = rng.permutation(np.flatnonzero(labels == label))
        for other, share in neighbours:
            count = rng.binomial(BLOCK // 10, share)
            drawn[rows[:count]], rows = other, rows[count:]
    images = np.empty((BLOCK, 28, 28), dtype=np.float32)
    for label, garment in enumerate(_GARMENTS):
        rows = np.flatnonzero(drawn == label)
        images[rows] = garment(_Draw(rng, len(rows)))
    noise = rng.normal(0, 1, images.shape[1:]).astype(np.float32)
    rolls = rng.integers(0, 28, (2, BLOCK))
    for i in range(BLOCK):  # 平移同一张噪声图，比逐张生成快得多
        images[i] += (images[i] > 0.02) * 0.05 * np.roll(noise, tuple(rolls[:, i]), (0, 1))
    order = rng.permutation(BLOCK)
    pixels = np.round(np.clip(images[order], 0, 1) * 255).astype(np.uint8)
    return pixels, labels[order].astype(np.int64)


def fashion_mnist_standin(n_train: int = 60_000, n_test: int = 10_000) -> tuple[np.ndarray, ...]:
    """Fashion-MNIST 的内置替身。

    返回 (训练图像 (n_train, 28, 28) uint8, 训练标签 (n_train,) int64, 测试图像, 测试标签)。
    """
    parts = []
    for split, n in ((0, n_train), (1, n_test)):
        blocks = [_block(split, i) for i in range(-(-n // BLOCK))]
        parts += [np.concatenate(part)[:n] for part in zip(*blocks, strict=True)]
    return tuple(parts)
