"""3.4 节 简洁实现走过的轨迹：约定的名字、一致性、改坏的实现和错误答案。"""

import torch
from notebook_files import ROOT
from notebooks import load_scratch
from parity import randn

NAMES = ("train_concise",)
FORBIDDEN = frozenset()


def check_train_concise(ns):
    scratch = load_scratch(ROOT / "03_linear_regression" / "01_linear_regression_scratch.ipynb")
    for n, d, size in ((40, 1, 8), (50, 5, 16)):
        X, y = randn(n, d), 5 + randn(n, 1, seed=1, scale=3)
        w, b = torch.zeros(d, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        path = []
        for epoch in range(4):
            g = torch.Generator().manual_seed(7 + epoch)
            for X_batch, y_batch in scratch["minibatches"](X, y, size, g):
                w.grad = b.grad = None
                scratch["squared_loss"](scratch["linreg"](X_batch, w, b), y_batch).mean().backward()
                scratch["sgd"]([w, b], 0.1)
                path.append(torch.cat([w.flatten(), b]).detach())
        theirs = ns["train_concise"](X, y, lr=0.1, num_epochs=4, batch_size=size, seed=7)
        torch.testing.assert_close(theirs, torch.stack(path), rtol=1e-6, atol=1e-6)


CHECKS = {"train_concise": check_train_concise}
BROKEN = [
    ("train_concise", "lr=lr / 2", "lr=lr"),
]
MUTATIONS = [
    [('"bias": b', '"bias": 0 * b')],
    [("range(500)", "range(5)"), ("        optimizer.zero_grad()\n", "")],
]
