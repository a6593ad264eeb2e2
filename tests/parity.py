"""比较两个实现的小函数：数值、梯度、多种形状和数据类型，以及该拒绝的输入。"""

from collections.abc import Iterator

import pytest
import torch

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
REDUCTIONS = ("none", "mean", "sum")


def randn(*shape, dtype=torch.float32, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(shape, generator=g, dtype=dtype)


def same(mine, reference, *inputs, tol=None, **kwargs):
    """两个函数的输出和梯度相等；输入不被改动。浮点张量都求梯度。"""
    results = []
    for function in (mine, reference):
        copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
        leaves = [x.requires_grad_() for x in copies
                  if isinstance(x, torch.Tensor) and x.is_floating_point()]
        output = function(*copies, **kwargs)
        weight = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype)
        grads = torch.autograd.grad((output * weight.reshape(output.shape)).sum(), leaves)
        for x, original in zip(copies, inputs, strict=True):
            if isinstance(x, torch.Tensor):
                assert torch.equal(x.detach(), original), "输入被改动了"
        results.append((output.detach(), *grads))
    tol = TOLERANCE[results[1][0].dtype] if tol is None else tol
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)


def refuses(function, *args, **kwargs):
    """坏的输入要得到中文的 ValueError；生成器要走一步才会检查。"""
    with pytest.raises(ValueError, match="[\u4e00-\u9fff]"):
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            list(result)
