"""画图：统一的样式和课程里反复出现的几种图。标注一律用英文，任何电脑都能显示。"""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

# Okabe–Ito 配色，色觉异常的读者也能分辨。
# 来源：Okabe & Ito (2008), Color Universal Design, https://jfly.uni-koeln.de/color/
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def use_style() -> None:
    """设置全课程统一的画图样式（导入 common 时自动调用）。"""
    styles = [("-", "--", "-.", ":")[i // 2] for i in range(len(PALETTE))]
    plt.rcParams.update({
        "figure.figsize": (6.0, 3.6), "figure.dpi": 100, "savefig.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.prop_cycle": plt.cycler(color=PALETTE) + plt.cycler(linestyle=styles),
        "axes.grid": True, "grid.alpha": 0.25,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 11, "axes.labelsize": 10,
        "legend.fontsize": 9, "legend.frameon": False, "lines.linewidth": 1.8,
    })


def _array(values) -> np.ndarray:
    """张量、列表或数组 → NumPy 数组。"""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def plot_curves(
    curves: Mapping[str, object], *, xlabel: str, ylabel: str, title: str = "", x=None,
    logx: bool = False, logy: bool = False, marker: str = "", ax: plt.Axes | None = None,
) -> plt.Axes:
    """把几条曲线画在一起；标注用英文，带单位。

    参数:
        curves: 名字 → 数据。数据可以是 y，也可以是 (x, y)，还可以是形状 (K, n) 的 y：
            K 次重复画成平均值，并用色带标出最小到最大的范围。
        x: 没有自带横坐标的曲线共用的横坐标；不写则用 1、2、3……
        logx, logy, marker, ax: 对数坐标、数据点的记号（如 "o"）、画在已有的坐标系里。
    返回:
        坐标系，可以继续添加内容。
    异常:
        ValueError: 横、纵坐标的长度不同。
    """
    ax = ax or plt.subplots()[1]
    for name, data in curves.items():
        own_x, y = data if isinstance(data, tuple) else (x, data)
        y = _array(y)
        xs = np.arange(1, y.shape[-1] + 1) if own_x is None else _array(own_x)
        if xs.shape != y.shape[-1:]:
            raise ValueError(f"曲线 {name}：横坐标 {xs.shape} 与纵坐标 {y.shape} 的长度不同。")
        (line,) = ax.plot(xs, y.mean(0) if y.ndim == 2 else y, marker=marker, label=name)
        if y.ndim == 2:
            ax.fill_between(xs, y.min(0), y.max(0), color=line.get_color(), alpha=0.18, lw=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if logx:
        ax.set_xscale("log")
    if logy:
        ax.set_yscale("log")
    if len(curves) > 1:
        ax.legend()
    return ax


def show_images(
    images, titles: Sequence[str] | None = None, *, ncols: int = 8, cmap: str = "gray",
    vmin: float | None = None, vmax: float | None = None, size: float = 1.1, title: str = "",
) -> np.ndarray:
    """把一批图像画成网格。

    参数:
        images: (n, H, W)、(n, 1, H, W) 或 (n, 3, H, W)。
        titles, title: 每张图上方的短标题，和总标题。
        ncols, size: 每行几张，每张的边长（英寸）。
        cmap, vmin, vmax: 单通道图像的颜色和数值范围。
    返回:
        坐标系数组，形状 (行数, 列数)。
    异常:
        ValueError: 形状不对，或标题与图像的数量不同。
    """
    images = _array(images)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    if images.ndim not in (3, 4) or len(images) == 0:
        raise ValueError(f"images 的形状应为 (n, H, W) 或 (n, C, H, W)，收到 {images.shape}。")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"有 {len(images)} 张图，却有 {len(titles)} 个标题。")
    ncols = min(ncols, len(images))
    nrows = -(-len(images) // ncols)
    height = size * nrows * (1.22 if titles is not None else 1.0) + (0.3 if title else 0.0)
    figure, axes = plt.subplots(nrows, ncols, figsize=(size * ncols, height), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            ax.imshow(images[i], cmap=cmap, vmin=vmin, vmax=vmax, interpolation="nearest")
            if titles is not None:
                ax.set_title(titles[i], fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return axes


def heatmap(
    matrix, *, row_labels: Sequence[str] | None = None, col_labels: Sequence[str] | None = None,
    xlabel: str = "", ylabel: str = "", title: str = "", fmt: str | None = None,
    cmap: str = "Blues", vmin: float | None = None, vmax: float | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """画矩阵的热图；给出 ``fmt``（如 ".2f"）时在每格写出数值。

    异常:
        ValueError: 不是矩阵，或行名、列名的数量不对。
    """
    matrix = _array(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"heatmap 需要二维矩阵，收到的形状是 {matrix.shape}。")
    nrows, ncols = matrix.shape
    for labels, n, what in ((row_labels, nrows, "行"), (col_labels, ncols, "列")):
        if labels is not None and len(labels) != n:
            raise ValueError(f"矩阵有 {n} {what}，却有 {len(labels)} 个{what}名。")
    if ax is None:
        width = 0.42 * matrix.shape[1] + 2.2
        ax = plt.subplots(figsize=(max(3.2, width), max(2.4, 0.36 * nrows + 1.2)))[1]
    image = ax.imshow(matrix, cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto")
    ax.figure.colorbar(image, ax=ax, shrink=0.85)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.grid(False)
    if col_labels is not None:
        ax.set_xticks(range(matrix.shape[1]), col_labels, rotation=45, ha="right")
    if row_labels is not None:
        ax.set_yticks(range(matrix.shape[0]), row_labels)
    if fmt is not None:
        for (i, j), value in np.ndenumerate(matrix):
            r, g, b, _ = image.cmap(image.norm(value))
            dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.55  # 底色深，就写白字
            color = "white" if dark else "black"
            ax.text(j, i, format(value, fmt), ha="center", va="center", fontsize=7, color=color)
    return ax


def plot_confusion_matrix(
    matrix, class_names: Sequence[str], *, normalize: bool = True, title: str = "",
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """画混淆矩阵（行是真实类别，列是预测类别）；normalize 让每行加起来等于 1。"""
    matrix = _array(matrix).astype(float)
    if normalize:
        matrix = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return heatmap(
        matrix, row_labels=class_names, col_labels=class_names, xlabel="predicted class",
        ylabel="true class", title=title, fmt=".2f" if normalize else ".0f", vmin=0, ax=ax,
    )


def plot_trajectory(
    f: Callable[[np.ndarray, np.ndarray], np.ndarray], paths: Mapping[str, object], *,
    xlim: tuple[float, float], ylim: tuple[float, float], xlabel: str, ylabel: str,
    title: str = "", levels: int | Sequence[float] = 20, log_levels: bool = False,
    minimum: tuple[float, float] | None = None, ax: plt.Axes | None = None,
) -> plt.Axes:
    """在二维函数的等高线上画出优化的轨迹。

    参数:
        f: 向量化的函数，(网格 X, 网格 Y) → 同形状的函数值。
        paths: 名字 → (步数, 2) 的坐标。
        levels: 等高线的条数或数值；log_levels 为真时按对数取条数。
        minimum: 最小值的位置，用星号标出。
    异常:
        ValueError: 轨迹的形状不是 (步数, 2)。
    """
    ax = ax or plt.subplots(figsize=(5.2, 4.0))[1]
    gx, gy = np.meshgrid(np.linspace(*xlim, 120), np.linspace(*ylim, 120))
    values = _array(f(gx, gy))
    if log_levels and isinstance(levels, int):
        low = max(values.min(), values.max() * 1e-5, 1e-12)
        levels = np.geomspace(low, values.max(), levels)
    ax.contour(gx, gy, values, levels=levels, colors="0.6", linewidths=0.7, linestyles="-")
    for name, path in paths.items():
        path = _array(path)
        if path.ndim != 2 or path.shape[1] != 2:
            raise ValueError(f"轨迹 {name} 的形状应为 (步数, 2)，收到 {path.shape}。")
        (line,) = ax.plot(path[:, 0], path[:, 1], marker=".", markersize=4, lw=1.2, label=name)
        ax.plot(*path[0], "o", color=line.get_color(), markersize=6)
    if minimum is not None:
        ax.plot(*minimum, "*", color="black", markersize=12, label="minimum")
    ax.set(xlim=xlim, ylim=ylim, xlabel=xlabel, ylabel=ylabel, title=title)
    if len(paths) > 1 or minimum is not None:
        ax.legend()
    return ax
