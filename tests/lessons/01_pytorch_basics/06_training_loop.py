"""1.6 节 损失、优化器与训练循环：约定、一致性、改坏的实现和错误答案。"""

import inspect

import pytest
import torch
from parity import randn, refuses

NAMES = (
    "accuracy", "minibatches", "check_labels", "confusion_matrix", "precision_recall_f1",
    "confusion_matrix_slow", "make_mlp", "make_switching_mlp",
)
FORBIDDEN = frozenset({
    "confusion_matrix", "precision_score", "recall_score", "f1_score", "accuracy_score",
    "precision_recall_fscore_support", "multiclass_confusion_matrix", "histogramdd",
})
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SHAPES = ((0,), (1,), (7,), (200,), (3, 4), (2, 3, 5), ())


def labels(shape, num_classes, seed=0, dtype=torch.int64):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(num_classes, shape, generator=g).to(dtype)


def counted(y_true, y_pred, num_classes):
    """参考结果：每一格单独数一遍。"""
    pairs = list(zip(y_true.flatten().tolist(), y_pred.flatten().tolist(), strict=True))
    return [[pairs.count((i, j)) for j in range(num_classes)] for i in range(num_classes)]


def scores(y_true, y_pred, num_classes):
    """参考结果：照定义一类一类地算，不经过混淆矩阵。"""
    pairs = list(zip(y_true.flatten().tolist(), y_pred.flatten().tolist(), strict=True))
    rows = []
    for c in range(num_classes):
        hits = sum(t == c and p == c for t, p in pairs)
        guessed, actual = sum(p == c for _, p in pairs), sum(t == c for t, _ in pairs)
        precision = hits / guessed if guessed else 0.0
        recall = hits / actual if actual else 0.0
        both = precision + recall
        rows.append((precision, recall, 2 * precision * recall / both if both else 0.0))
    return [torch.tensor(column) for column in zip(*rows, strict=True)]


def refuses_bad_labels(function):
    good = torch.tensor([0, 1, 2, 1])
    refuses(function, good, good[:3], 3)
    refuses(function, good, good.reshape(2, 2), 3)
    refuses(function, good, good.unsqueeze(1), 3)      # 会悄悄广播的那一种
    refuses(function, good, torch.tensor([0, 1, 2, 3]), 3)
    refuses(function, torch.tensor([0, -1, 2, 1]), good, 3)
    refuses(function, good, torch.tensor([-9, 1, 2, 1]), 3)
    refuses(function, torch.tensor([0, 1, 9, 1]), good, 3)
    for wrong in (good.float(), good.double(), good > 0, good.tolist(), None):
        refuses(function, good, wrong, 3)
        refuses(function, wrong, good, 3)
    zeros = torch.zeros(4, dtype=torch.int64)
    for num_classes in (0, -1, 3.0, True, "3", None):
        refuses(function, zeros, zeros, num_classes)


def check_labels_are_checked(ns):
    refuses_bad_labels(ns["check_labels"])
    for dtype in INTEGERS:
        assert ns["check_labels"](labels((5,), 3, dtype=dtype), labels((5,), 3), 3) is None
    one = torch.zeros(4, dtype=torch.int64)
    assert ns["check_labels"](one, one, 1) is None


def check_matrix(name):
    def check(ns):
        mine = ns[name]
        assert list(inspect.signature(mine).parameters) == ["y_true", "y_pred", "num_classes"]
        for shape in SHAPES:
            for num_classes in (1, 2, 5, 10):
                t, p = labels(shape, num_classes), labels(shape, num_classes, seed=1)
                copies = t.clone(), p.clone()
                matrix = mine(t, p, num_classes)
                assert matrix.dtype == torch.int64
                assert matrix.tolist() == counted(t, p, num_classes)
                assert torch.equal(t, copies[0]) and torch.equal(p, copies[1]), "输入被改动了"
        # 行是真实类别
        assert mine(torch.tensor([0, 0]), torch.tensor([1, 1]), 2).tolist() == [[0, 2], [0, 0]]
        # 小整数类型不能溢出：17 * 20 超过 uint8 和 int8 的范围
        for dtype in INTEGERS:
            t, p = torch.tensor([17, 19], dtype=dtype), torch.tensor([3, 19], dtype=dtype)
            matrix = mine(t, p, 20)
            assert matrix[17, 3] == 1 and matrix[19, 19] == 1 and matrix.sum() == 2
        # 不连续的张量
        t = labels((6, 4), 3).T
        assert mine(t, t, 3).tolist() == counted(t, t, 3)

    return check


def check_confusion_matrix(ns):
    check_matrix("confusion_matrix")(ns)
    refuses_bad_labels(ns["confusion_matrix"])
    t, p = labels((5000,), 10), labels((5000,), 10, seed=2)
    assert torch.equal(ns["confusion_matrix"](t, p, 10), ns["confusion_matrix_slow"](t, p, 10))


def check_precision_recall_f1(ns):
    mine = ns["precision_recall_f1"]
    assert list(inspect.signature(mine).parameters) == ["y_true", "y_pred", "num_classes"]
    refuses_bad_labels(mine)
    # 手算：类别 2 从来没有猜过，类别 3 从来没有出现过
    t, p = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 1, 0, 0])
    hand = ([3 / 5, 2 / 3, 0, 0], [3 / 4, 2 / 3, 0, 0], [2 / 3, 2 / 3, 0, 0])
    for got, want in zip(mine(t, p, 4), hand, strict=True):
        torch.testing.assert_close(got, torch.tensor(want))
    # 猜过却没有出现（召回率没有定义）；出现却没有猜过（精确率没有定义）
    for got, want in zip(mine(torch.tensor([0, 0]), torch.tensor([1, 0]), 2),
                         ([1.0, 0.0], [0.5, 0.0], [2 / 3, 0.0]), strict=True):
        torch.testing.assert_close(got, torch.tensor(want))
    for shape in SHAPES:
        for num_classes in (1, 2, 5, 10):
            for seed in range(3):
                t = labels(shape, num_classes, seed)
                p = labels(shape, max(1, num_classes - seed), seed + 7)
                results = mine(t, p, num_classes)
                assert isinstance(results, tuple) and len(results) == 3
                for got, want in zip(results, scores(t, p, num_classes), strict=True):
                    assert got.shape == (num_classes,) and got.is_floating_point()
                    torch.testing.assert_close(got, want)
    # 全对：都是 1
    t = torch.arange(6)
    assert all(torch.equal(s, torch.ones(6)) for s in mine(t, t, 6))
    # 每个样本一个标签：按样本数加权的召回率就是准确率
    t, p = labels((300,), 4), labels((300,), 4, seed=5)
    share = torch.bincount(t, minlength=4) / 300
    torch.testing.assert_close((share * mine(t, p, 4)[1]).sum(), (t == p).float().mean())


def check_accuracy(ns):
    mine = ns["accuracy"]
    for n, num_classes in ((1, 2), (5, 3), (64, 10)):
        for dtype in (torch.float32, torch.float64):
            logits, y = randn(n, num_classes, dtype=dtype), labels((n,), num_classes)
            hits = sum(max(range(num_classes), key=row.__getitem__) == int(label)
                       for row, label in zip(logits.tolist(), y, strict=True))
            assert isinstance(mine(logits, y), float)
            assert mine(logits, y) == pytest.approx(hits / n, abs=1e-6)
    assert mine(torch.eye(3), torch.tensor([0, 1, 2])) == 1.0
    assert mine(torch.eye(3), torch.tensor([1, 2, 0])) == 0.0


def check_minibatches(ns):
    mine = ns["minibatches"]
    X, y = torch.arange(10.0).reshape(10, 1), torch.arange(10)
    batches = list(mine(X, y, 4, torch.Generator().manual_seed(0)))
    assert [len(b) for _, b in batches] == [4, 4, 2]
    assert all(torch.equal(a.flatten().long(), b) for a, b in batches)
    order = torch.cat([b for _, b in batches])
    assert order.sort().values.tolist() == list(range(10)) and order.tolist() != list(range(10))
    again = torch.cat([b for _, b in mine(X, y, 4, torch.Generator().manual_seed(0))])
    assert torch.equal(order, again)
    refuses(mine, X, y[:9], 4)
    refuses(mine, X, y, 0)


def check_make_mlp(ns):
    for num_outputs in (1, 10):
        model = ns["make_mlp"](num_outputs)
        assert model(torch.rand(3, 1, 28, 28)).shape == (3, num_outputs)
    count = sum(p.numel() for p in ns["make_mlp"]().parameters())
    assert count == 784 * 128 + 128 + 128 * 10 + 10


def check_make_switching_mlp(ns):
    torch.manual_seed(0)
    model, X = ns["make_switching_mlp"](), torch.rand(8, 1, 28, 28)
    assert model.train()(X).shape == (8, 10)
    assert not torch.equal(model(X), model(X)), "训练时应当是随机的"
    model.eval()
    assert torch.equal(model(X), model(X)), "评估时应当不变"
    torch.testing.assert_close(model(X)[:1], model(X[:1]))      # 与同一批的其他样本无关


CHECKS = {
    "accuracy": check_accuracy, "minibatches": check_minibatches,
    "check_labels": check_labels_are_checked, "confusion_matrix": check_confusion_matrix,
    "precision_recall_f1": check_precision_recall_f1,
    "confusion_matrix_slow": check_matrix("confusion_matrix_slow"),
    "make_mlp": check_make_mlp, "make_switching_mlp": check_make_switching_mlp,
}
BROKEN = [
    ("accuracy", "logits.argmax(dim=1)", "logits.argmin(dim=1)"),
    ("minibatches", "torch.randperm(len(X), generator=generator)", "torch.arange(len(X))"),
    ("minibatches", "yield X[rows], y[rows]", "yield X[rows], y[start : start + batch_size]"),
    ("check_labels", "(labels < 0) | (labels >= num_classes)", "labels >= num_classes"),
    ("check_labels", "labels >= num_classes)]", "labels > num_classes)]"),
    ("check_labels", "if y_true.shape != y_pred.shape:", "if len(y_true) != len(y_pred):"),
    ("check_labels", "isinstance(num_classes, bool) or ", ""),
    ("confusion_matrix", "y_true.long() * num_classes + y_pred.long()",
     "y_pred.long() * num_classes + y_true.long()"),
    ("confusion_matrix", "y_true.long() * num_classes", "(y_true * num_classes).long()"),
    ("confusion_matrix", ", minlength=num_classes**2", ""),
    ("confusion_matrix", "cells.flatten()", "cells"),
    ("confusion_matrix", "    check_labels(y_true, y_pred, num_classes)\n", ""),
    ("precision_recall_f1", "matrix.sum(0), matrix.sum(1)", "matrix.sum(1), matrix.sum(0)"),
    ("precision_recall_f1", "hits / guessed.clamp(min=1)", "hits / guessed"),
    ("precision_recall_f1", "hits / actual.clamp(min=1)", "hits / actual"),
    ("precision_recall_f1", "(guessed + actual).clamp(min=1)", "(guessed + actual)"),
    ("precision_recall_f1", "f1 = 2 * hits / (guessed + actual).clamp(min=1)",
     "f1 = (precision + recall) / 2"),
    ("confusion_matrix_slow", "matrix[i, j] += 1", "matrix[j, i] += 1"),
    ("make_mlp", "nn.Linear(128, num_outputs)", "nn.Linear(128, 10)"),
    ("make_switching_mlp", "nn.Dropout(0.5)", "nn.Identity()"),
    ("make_switching_mlp", "nn.BatchNorm1d(128)", "nn.BatchNorm1d(128, track_running_stats=False)"),
]
MUTATIONS = [
    [("    model.eval()\n", ""), ("with torch.no_grad():", "with torch.enable_grad():"),
     (" * len(y_batch)", ""), ("    model.train(was_training)\n", ""),
     ("model.train(was_training)", "model.train()"),
     ("total_loss / len(y), total_hits / len(y)", "total_loss, total_hits / len(y)")],
    [("    model.zero_grad()\n", ""), (" / len(X)", " / num_chunks"),
     ('reduction="sum") / len(X)', 'reduction="mean") / num_chunks'),
     ("        loss = F", "        model.zero_grad()\n        loss = F"),
     ("return [p.grad.clone()", "return [p.grad.clone() / num_chunks")],
]
