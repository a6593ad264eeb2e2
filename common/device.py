"""选择设备、固定随机种子、选择运行配置。"""

import os
import random
from types import SimpleNamespace

import numpy as np
import torch

PROFILES = ("smoke", "cpu", "gpu")
DEVICES = ("cuda", "mps", "cpu")
_proved: dict[str, str] = {}  # 设备名 -> 失败原因；空字符串表示能用。每个进程只试一次


def _failure(name: str) -> str:
    """在设备上真正算一次小矩阵乘法，返回失败原因；能用则返回空字符串。

    显卡与安装包的版本不合时，``is_available()`` 照样返回 True，第一次计算才报错。
    """
    if name not in _proved:
        try:
            x = torch.arange(6.0).reshape(2, 3)
            y = x.to(name)
            if not torch.equal((y @ y.T).cpu(), x @ x.T):
                raise RuntimeError("小矩阵乘法的结果不对")
            _proved[name] = ""
        except Exception as error:  # 驱动和安装包的问题五花八门，都按“不能用”处理
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            _proved[name] = text
    return _proved[name]


def get_device() -> torch.device:
    """返回本机可用的最快设备：CUDA 优先，其次 MPS，最后 CPU。

    加速设备要先通过一次真实的计算，否则打印原因并退回 CPU。
    环境变量 ``COURSE_DEVICE``（cuda、cuda:1、mps 或 cpu）可以指定设备。

    返回:
        torch.device。
    异常:
        ValueError: ``COURSE_DEVICE`` 的值不认识。
    """
    wanted = os.environ.get("COURSE_DEVICE", "").strip().lower()
    kind, _, index = wanted.partition(":")
    if wanted and (kind not in DEVICES or (":" in wanted and not index.isdigit())):
        raise ValueError(f"COURSE_DEVICE={wanted!r} 不认识，可以写 cuda、cuda:0、mps 或 cpu。")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in [wanted] if wanted else [n for n in ("cuda", "mps") if available[n]]:
        if name == "cpu":
            break
        reason = _failure(name)
        if not reason:
            return torch.device(name)
        print(f"设备 {name} 不能用（{reason}），改用 CPU。")
    return torch.device("cpu")


def seed_everything(seed: int) -> int:
    """固定 Python、NumPy 和 PyTorch 的随机种子。

    环境变量 ``COURSE_SEED`` 是一个整数偏移量：改变它，整个笔记本就换一组随机数，
    用来检查结论是否只在一个种子下成立。

    返回:
        实际使用的种子，可以交给 ``torch.Generator().manual_seed``。
    异常:
        ValueError: 种子或 ``COURSE_SEED`` 不是非负整数。
    """
    shift = os.environ.get("COURSE_SEED", "0").strip() or "0"
    if not shift.isdigit():
        raise ValueError(f"COURSE_SEED={shift!r} 应该是非负整数。")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"随机种子应该是非负整数，收到的是 {seed!r}。")
    shifted = (seed + 1000 * int(shift)) % 2**32
    random.seed(shifted)
    np.random.seed(shifted)
    torch.manual_seed(shifted)
    return shifted


def profile_name() -> str:
    """返回当前配置的名字：smoke（快速检查）、cpu 或 gpu。

    环境变量 ``COURSE_PROFILE`` 可以指定；否则有加速设备时用 gpu，没有时用 cpu。

    异常:
        ValueError: ``COURSE_PROFILE`` 的值不认识。
    """
    name = os.environ.get("COURSE_PROFILE", "").strip().lower()
    if name and name not in PROFILES:
        raise ValueError(f"COURSE_PROFILE={name!r} 不认识，可以写 smoke、cpu 或 gpu。")
    return name or ("cpu" if get_device().type == "cpu" else "gpu")


def profile(*, cpu: dict, gpu: dict | None = None, smoke: dict | None = None) -> SimpleNamespace:
    """按当前配置选出一组超参数，例如 ``cfg = profile(cpu=dict(num_epochs=5), ...)``。

    参数:
        cpu: 普通 CPU 上的设置，也是其他配置的默认值。
        gpu, smoke: 有加速设备时、自动测试时（几秒跑完，不追求结果）改动的项。
    异常:
        ValueError: gpu 或 smoke 里有 cpu 没有的项。
    """
    chosen = {"cpu": {}, "gpu": gpu or {}, "smoke": smoke or {}}
    for name, changes in chosen.items():
        unknown = sorted(set(changes) - set(cpu))
        if unknown:
            raise ValueError(f"{name} 里的 {'、'.join(unknown)} 在 cpu 里没有，可能写错了名字。")
    return SimpleNamespace(**{**cpu, **chosen[profile_name()]})


def provenance() -> dict:
    """返回这次运行的来历：PyTorch 版本、设备、配置和用到的数据集。"""
    from .data import used  # 放在这里，避免两个模块互相导入

    return {"torch": torch.__version__, "device": get_device().type,
            "profile": profile_name(), "data": used()}
