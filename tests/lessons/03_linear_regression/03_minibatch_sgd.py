"""3.3 节 小批量随机梯度下降：约定的名字、一致性、改坏的实现和错误答案。"""

import pytest
import torch
from parity import randn, refuses
from torch import nn
from torch.nn import functional as F

NAMES = ("lr_range_test",)
FORBIDDEN = frozenset()


def small_problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    batches = [(randn(8, 3, seed=i), randn(8, 1, seed=50 + i)) for i in range(5)]
    return model, batches


def check_lr_range_test(ns):
    test = ns["lr_range_test"]
    model, batches = small_problem()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lrs, losses = test(model, F.mse_loss, batches, lr_min=1e-4, lr_max=1e-2, num_steps=12)
    assert lrs.shape == losses.shape == (12,)
    torch.testing.assert_close(lrs, torch.logspace(-4, -2, 12), rtol=1e-5, atol=0)
    after = model.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in after.items()), "要恢复参数和缓冲区"
    assert model.training and all(p.requires_grad for p in model.parameters())

    copy, _ = small_problem()  # 不用 lr_range_test，自己走一遍
    optimizer = torch.optim.SGD(copy.parameters(), lr=1)
    copy.train()
    for i in range(12):
        X, y = batches[i % 5]
        loss = F.mse_loss(copy(X), y)
        torch.testing.assert_close(losses[i].item(), loss.item(), rtol=1e-4, atol=1e-5)
        optimizer.param_groups[0]["lr"] = lrs[i].item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    linear = nn.Linear(3, 1)
    linear.eval()
    start = [p.detach().clone() for p in linear.parameters()]
    lrs, losses = test(linear, F.mse_loss, iter(batches * 40), lr_max=100.0, num_steps=150)
    assert 20 < len(lrs) == len(losses) < 150, "发散后要停下"
    assert losses[-1] > losses[0] and losses[:-1].isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(start, linear.parameters(), strict=True))
    assert not linear.training

    def fails(output, target):
        if torch.equal(target, batches[3][1]):
            raise RuntimeError("中断")
        return F.mse_loss(output, target)

    with pytest.raises(RuntimeError, match="中断"):
        test(linear, fails, batches, lr_min=0.01, lr_max=0.1)
    assert all(torch.equal(a, b) for a, b in zip(start, linear.parameters(), strict=True))
    for bad in (dict(lr_min=0.0), dict(lr_min=1.0, lr_max=0.1), dict(num_steps=0)):
        refuses(test, linear, F.mse_loss, batches, **bad)
    refuses(test, linear, F.mse_loss, [])


CHECKS = {"lr_range_test": check_lr_range_test}
BROKEN = [
    ("lr_range_test", "copy.deepcopy(model).train()", "model.train()"),
    ("lr_range_test", "lr * p.grad", "lrs[0] * p.grad"),
]
MUTATIONS = [
    [(" / len(X)", ""), ("range(200)", "range(1)"), ("2 / Hv.norm()", "1 / Hv.norm()")],
    [(" * (N - B) / (N - 1)", ""), (".sum(1).mean()", ".mean()"), (".sqrt()", "")],
]
