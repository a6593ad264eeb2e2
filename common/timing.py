"""计时、测速和进度条。"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


def synchronize() -> None:
    """等加速设备算完。GPU 上的计算是异步的，不等就计时，量到的只是“下单”的时间。"""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


class Timer:
    """计时器：``with Timer() as t: ...`` 之后，``t.seconds`` 是用掉的秒数。"""

    seconds: float = 0.0

    def __enter__(self) -> "Timer":
        synchronize()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc_info) -> None:
        synchronize()
        self.seconds = time.perf_counter() - self._start


@dataclass(frozen=True)
class Benchmark:
    """一次测速：秒数的中位数、每次的秒数、比基准快多少倍（没有基准时为 1）。"""

    seconds: float
    runs: tuple[float, ...]
    ratio: float = 1.0

    def __str__(self) -> str:
        unit, scale = ("s", 1) if self.seconds >= 1 else ("ms", 1e3)
        if self.seconds < 1e-3:
            unit, scale = "µs", 1e6
        return f"{self.seconds * scale:.3g} {unit}"


def benchmark(
    fn: Callable[[], object], *, baseline: Benchmark | None = None, warmup: int = 1, repeat: int = 5
) -> Benchmark:
    """反复运行 ``fn()`` 并取中位数。先热身，避开第一次运行的额外开销。

    参数:
        baseline: 另一次测速的结果，用来计算倍数（基准秒数 ÷ 本次秒数）。
        warmup, repeat: 不计时的热身次数，和计时的次数（至少 1）。
    异常:
        ValueError: 次数不合法。
    """
    if repeat < 1 or warmup < 0:
        raise ValueError(f"repeat 至少为 1，warmup 不能为负，收到 {repeat} 和 {warmup}。")
    for _ in range(warmup):
        fn()
    runs = []
    for _ in range(repeat):
        with Timer() as timer:
            fn()
        runs.append(timer.seconds)
    seconds = statistics.median(runs)
    return Benchmark(seconds, tuple(runs), baseline.seconds / seconds if baseline else 1.0)


def progress(iterable: Iterable, desc: str = "", total: int | None = None) -> Iterable:
    """给循环加一个纯文字的进度条；保存输出或自动测试时（``COURSE_SILENT=1``）不显示。"""
    if os.environ.get("COURSE_SILENT") == "1":
        return iterable
    from tqdm import tqdm

    return tqdm(iterable, desc=desc, total=total, file=sys.stdout, leave=False, ascii=" =")
