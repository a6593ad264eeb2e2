"""1.5 节 保存、加载与断点续训：约定的名字、续训与不中断逐比特相等、坏文件和改坏的实现。"""

import contextlib
import copy
import io
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import randn, refuses
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

NAMES = (
    "Stateful", "TrainLog", "RandomState", "ResumableBatches", "train_parts", "differences",
    "save_checkpoint", "read_checkpoint", "load_checkpoint", "list_checkpoints", "keep_last",
    "latest_checkpoint", "load_matching",
)
FORBIDDEN = frozenset({"DataLoader", "StatefulDataLoader"})

OPTIMIZERS = (
    lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=1e-3),
    lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True, weight_decay=0.1),
    lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
)
SCHEDULERS = (
    lambda o, total: lr_scheduler.StepLR(o, 2, gamma=0.5),
    lr_scheduler.CosineAnnealingLR,
    lambda o, total: lr_scheduler.OneCycleLR(o, 0.01, total_steps=total + 1),
    lambda o, total: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    lambda o, total: lr_scheduler.SequentialLR(o, [
        lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, total)],
        milestones=[2]),
)


def images(n=20, dtype=torch.float32):
    return randn(n, 1, 28, 28, dtype=dtype), torch.arange(n) % 10


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def disturb():
    """换一组随机状态，模拟新的进程。"""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


def check_stateful(ns):
    class Part(ns["Stateful"]):
        STATE, FIXED = ("values", "tensor"), ("size",)

        def __init__(self, size):
            self.values, self.tensor, self.size = [1], torch.zeros(2), size

    part, state = Part(3), None
    state = part.state_dict()
    part.values.append(2)
    part.tensor += 1
    assert state["values"] == [1] and not state["tensor"].any(), "存档要是副本"
    fresh = Part(3)
    fresh.load_state_dict(state)
    fresh.values.append(5)
    assert state["values"] == [1], "读档之后也不共用内存"
    refuses(Part(4).load_state_dict, state)
    refuses(Part(3).load_state_dict, {"values": [1]})


def check_train_log(ns):
    log = ns["TrainLog"]()
    log.loss.append(0.5)
    log.lr.append(0.1)
    log.best = 0.7
    fresh = ns["TrainLog"]()
    fresh.load_state_dict(log.state_dict())
    assert (fresh.loss, fresh.lr, fresh.best) == ([0.5], [0.1], 0.7)


def check_random_state(ns):
    def draw():
        return (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(3).tolist(),
                torch.rand(3).tolist(), torch.randn(17).tolist(),
                nn.Dropout()(torch.ones(50)).tolist())

    for prepare in (lambda: None, lambda: (random.gauss(0, 1), np.random.randn())):
        disturb()
        prepare()  # 正态分布一次算两个数，另一个留着下次用：这也是状态
        buffer = io.BytesIO()
        torch.save(ns["RandomState"]().state_dict(), buffer)
        first = draw()
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        ns["RandomState"]().load_state_dict(state)
        assert draw() == first


def check_batches(ns):
    Batches = ns["ResumableBatches"]
    for n, size in ((10, 3), (12, 4), (5, 8), (7, 1)):
        X, y = torch.arange(n), torch.arange(n) + 100

        def order(batches, epochs):
            return [(batches.epoch, a.tolist(), b.tolist()) for _ in range(epochs)  # noqa: B023
                    for a, b in batches]

        truth = order(Batches(X, y, size, 5), 3)
        per_epoch = -(-n // size)
        assert len(truth) == 3 * per_epoch == 3 * len(Batches(X, y, size, 5))
        epochs = [sum((row[1] for row in truth if row[0] == e), []) for e in range(3)]
        assert all(sorted(e) == list(range(n)) for e in epochs)
        assert n < 7 or epochs[0] != epochs[1], "每轮的顺序应该不同"
        assert all(b == [i + 100 for i in a] for _, a, b in truth), "特征与标签要对应"
        before = torch.get_rng_state()
        for cut in range(len(truth)):
            first, seen = Batches(X, y, size, 5), []
            while len(seen) < cut:
                for a, b in first:
                    seen.append((first.epoch, a.tolist(), b.tolist()))
                    if len(seen) == cut:
                        break
            second = Batches(X, y, size, 6)
            second.load_state_dict(first.state_dict())
            while len(seen) < len(truth):
                seen += order(second, 1)
            assert seen == truth, f"在第 {cut} 批中断之后顺序不同"
        assert torch.equal(before, torch.get_rng_state()), "不应动用全局的随机数"
    refuses(Batches, torch.zeros(3), torch.zeros(4), 2, 0)
    refuses(Batches, torch.zeros(3), torch.zeros(3), 0, 0)
    state = Batches(torch.zeros(6), torch.zeros(6), 2, 0).state_dict()
    refuses(Batches(torch.zeros(6), torch.zeros(6), 3, 0).load_state_dict, state)
    refuses(Batches(torch.zeros(7), torch.zeros(7), 2, 0).load_state_dict, state)


def check_differences(ns):
    differences, t = ns["differences"], torch.tensor
    nan = float("nan")
    for a in (t([1.0, nan]), t(3), t([]), t([True]), torch.zeros(2, 3).T, [1, ("a", None)],
              {"x": t([1.0]), "y": {"z": 2}}, "text", 1.5):
        assert differences(a, copy.deepcopy(a)) == []
    for a, b in ((t([1.0]), t([1.0 + 1e-7])), (t([0.0]), t([-0.0])), (t([0]), t([0.0])),
                 (torch.zeros(1, dtype=torch.int32), torch.zeros(1)), (t([1.0]), t([[1.0]])),
                 (1, 1.0), (1, True), ([1, 2], [1]), ({"a": 1}, {"b": 1}),
                 ({}, {"a": 1}), (t(1), 1)):
        assert differences(a, b), f"{a} 与 {b} 应该不同"
        assert differences({"k": [a]}, {"k": [b]}) and differences([b, 0], [a, 0])
    assert len(differences({"a": t([1.0]), "b": [1, 2]}, {"a": t([2.0]), "b": [1, 3]})) == 2


def resumes(ns, make_optimizer, make_scheduler, cut, dtype=torch.float32):
    """在第 cut 步存盘，换新零件读档，训练到底：与不中断的逐比特相等。"""
    X, y = images(dtype=dtype)

    def build(seed):
        if dtype == torch.float64:
            torch.set_default_dtype(dtype)
        try:
            return ns["new_parts"](X, y, seed, 2, 8, make_optimizer, make_scheduler)
        finally:
            torch.set_default_dtype(torch.float32)

    truth = build(3)
    ns["train_parts"](**truth, num_epochs=2)
    parts = build(3)
    ns["train_parts"](**parts, num_epochs=2, after_step=lambda step: step == cut)
    assert len(parts["log"].loss) == cut
    with folder() as place:
        ns["save_checkpoint"](place / "a.pt", **parts)
        disturb()
        parts = build(4)
        ns["load_checkpoint"](place / "a.pt", **parts)
    ns["train_parts"](**parts, num_epochs=2)
    assert len(truth["log"].loss) == len(parts["log"].loss) == 6
    for name in truth:
        theirs, mine = truth[name].state_dict(), parts[name].state_dict()
        assert not ns["differences"](theirs, mine), f"续训之后 {name} 不同"


@contextlib.contextmanager
def one_thread():
    """网络很小，多个线程互相等待反而慢。"""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_resume(ns):
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        for i, make_optimizer in enumerate(OPTIMIZERS):
            for j, make_scheduler in enumerate(SCHEDULERS):
                resumes(ns, make_optimizer, make_scheduler, cut=1 + (i + j) % 6)
        for cut in range(1, 7):  # 3 是一轮的最后一批，6 是整个训练的最后一步
            resumes(ns, OPTIMIZERS[2], SCHEDULERS[1], cut)
        resumes(ns, OPTIMIZERS[1], SCHEDULERS[0], 4, torch.float64)
        resumes_by_epoch(ns)


def resumes_by_epoch(ns):
    """调度每轮调一次（看损失调整学习率），在一轮的任何一批之后中断。"""
    X, y = images()

    def build(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Dropout(),
                              nn.Linear(8, 10))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return dict(model=model, optimizer=optimizer, scheduler=plateau, rng=ns["RandomState"](),
                    batches=ns["ResumableBatches"](X, y, 8, seed), log=ns["TrainLog"]())

    def train(parts, stop):
        for _ in range(parts["batches"].epoch, 3):
            for a, b in parts["batches"]:
                loss = F.cross_entropy(parts["model"](a), b)
                parts["optimizer"].zero_grad()
                loss.backward()
                parts["optimizer"].step()
                parts["log"].loss.append(loss.item())
                if len(parts["log"].loss) == stop:
                    return
            parts["scheduler"].step(parts["log"].loss[-1])

    truth = build(0)
    train(truth, None)
    for cut in (2, 3, 4, 6, 8):
        parts = build(0)
        train(parts, cut)
        with folder() as place:
            ns["save_checkpoint"](place / "a.pt", **parts)
            disturb()
            parts = build(1)
            ns["load_checkpoint"](place / "a.pt", **parts)
        train(parts, None)
        for name in truth:
            assert not ns["differences"](truth[name].state_dict(), parts[name].state_dict()), name


def check_save(ns):
    save, Log = ns["save_checkpoint"], ns["TrainLog"]

    class Unsavable(ns["Stateful"]):
        STATE = ("rule",)

        def __init__(self, rule):
            self.rule = rule

    with folder() as place:
        path = place / "检查点.pt"
        log = Log()
        log.best = 0.5
        save(str(path), log=log)
        assert path.exists()
        old = path.read_bytes()
        # 存不下的（函数），存得下却不能安全读回的（NumPy 数组、任意对象）：旧文件都要原样保留
        for rule in (lambda x: x, np.zeros(2), Path("x")):
            refuses(save, path, log=Unsavable(rule))
            assert path.exists() and path.read_bytes() == old, "保存失败时，旧文件应原样保留"
        log.best = 0.75
        save(path, log=log)
        assert ns["read_checkpoint"](path)["log"]["best"] == 0.75
        assert [p.name for p in place.iterdir()] == [path.name], "不应留下临时文件"
        refuses(save, path)
        refuses(save, path, log=3)
        with pytest.raises(FileNotFoundError, match="[\u4e00-\u9fff]"):
            save(place / "no" / "a.pt", log=log)


def check_read(ns):
    read = ns["read_checkpoint"]
    with folder() as place:
        model = nn.Linear(50, 20)
        ns["save_checkpoint"](place / "a.pt", model=model)
        state = read(place / "a.pt")["model"]
        assert not ns["differences"](dict(state), dict(model.state_dict()))
        with pytest.raises(FileNotFoundError, match="[\u4e00-\u9fff]"):
            read(place / "b.pt")
        blob = (place / "a.pt").read_bytes()
        inside = blob.index(model.weight.detach().numpy().tobytes())
        for size in (0, 1, 100, len(blob) // 2, len(blob) - 1):
            (place / "cut.pt").write_bytes(blob[:size])
            refuses(read, place / "cut.pt")
        for where in (0, 3, 999):
            spoiled = bytearray(blob)
            spoiled[inside + where] ^= 0x40
            (place / "flipped.pt").write_bytes(spoiled)
            refuses(read, place / "flipped.pt")
        for content in ({"version": 99, "parts": {}}, model.state_dict(), [1], model):
            torch.save(content, place / "other.pt")
            refuses(read, place / "other.pt")


def check_load(ns):
    load, Log = ns["load_checkpoint"], ns["TrainLog"]
    with folder() as place:
        path = place / "a.pt"
        model = nn.Linear(3, 2)
        ns["save_checkpoint"](path, model=model, log=Log())
        refuses(load, path, model=nn.Linear(3, 2))
        refuses(load, path, model=nn.Linear(3, 2), log=Log(), more=Log())
        refuses(load, path, model=nn.Linear(3, 4), log=Log())
        refuses(load, path, model=Log(), log=Log())
        refuses(load, path)
        other = nn.Linear(3, 2)
        load(path, model=other, log=Log())
        assert torch.equal(model.weight, other.weight)
        double = nn.Linear(3, 2).double()  # 类型以模型为准
        load(path, model=double, log=Log())
        assert torch.equal(double.weight, model.weight.double())


def check_list(ns):
    with folder() as place:
        for name in ("step_9.pt", "step_10.pt", "step_000100.pt", "best.pt", "step_11.pt.tmp",
                     "step_x.pt", "my_step_1.pt"):
            (place / name).touch()
        names = [p.name for p in ns["list_checkpoints"](str(place))]
        assert names == ["step_9.pt", "step_10.pt", "step_000100.pt"]


def check_keep(ns):
    with folder() as place:
        for step in (1, 2, 9, 10, 11):
            (place / f"step_{step}.pt").touch()
        (place / "best.pt").touch()
        ns["keep_last"](place, 7)
        assert len(list(place.iterdir())) == 6
        ns["keep_last"](place, 2)
        assert {p.name for p in place.iterdir()} == {"step_10.pt", "step_11.pt", "best.pt"}
        refuses(ns["keep_last"], place, 0)


def check_latest(ns):
    latest = ns["latest_checkpoint"]
    with folder() as place:
        assert latest(place) is None
        for step in (8, 9, 10):
            ns["save_checkpoint"](place / f"step_{step}.pt", log=ns["TrainLog"]())
        assert latest(place).name == "step_10.pt"
        (place / "step_10.pt").write_bytes(b"")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert latest(place).name == "step_9.pt"
        assert "step_10.pt" in out.getvalue()
        for step in (8, 9):
            (place / f"step_{step}.pt").write_bytes(b"x")
        with contextlib.redirect_stdout(out):
            assert latest(place) is None


def check_matching(ns):
    load_matching = ns["load_matching"]
    old = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    new = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 5), nn.Linear(5, 1))
    before = copy.deepcopy(new.state_dict())
    report = load_matching(new, {**old.state_dict(), "extra": torch.zeros(1)})
    assert report["mismatched"] == ["2.weight", "2.bias"]
    assert report["missing"] == ["3.weight", "3.bias"] and report["unexpected"] == ["extra"]
    for name, tensor in new.state_dict().items():
        source = old.state_dict() if name in report["loaded"] else before
        assert torch.equal(tensor, source[name]), name
    assert len(report["loaded"]) == 7
    refuses(load_matching, new, {"module." + k: v for k, v in old.state_dict().items()})
    refuses(load_matching, new, {})


CHECKS = {
    "Stateful": check_stateful, "TrainLog": check_train_log, "RandomState": check_random_state,
    "ResumableBatches": check_batches, "train_parts": check_resume,
    "differences": check_differences, "save_checkpoint": check_save,
    "read_checkpoint": check_read, "load_checkpoint": check_load,
    "list_checkpoints": check_list, "keep_last": check_keep,
    "latest_checkpoint": check_latest, "load_matching": check_matching,
}
BROKEN = [
    ("Stateful", "copy.deepcopy(getattr(self, name))", "getattr(self, name)"),
    ("Stateful", "if state[name] != getattr(self, name)", "if False"),
    ("TrainLog", '("loss", "lr", "best")', '("loss", "lr")'),
    ("RandomState", "random.setstate((version, tuple(words), gauss))", "random.seed(0)"),
    ("RandomState", "tuple(words), gauss))", "tuple(words), None))"),
    ("RandomState", "int(has_gauss), gauss))", "0, 0.0))"),
    ("RandomState", '"torch": torch.get_rng_state()', '"torch": torch.Generator().get_state()'),
    ("ResumableBatches", "self.epoch + 1, 0, after", "self.epoch + 1, 0, self.shuffle_state"),
    ("ResumableBatches", '("epoch", "step", "shuffle_state")', '("epoch", "step")'),
    ("ResumableBatches", '("epoch", "step", "shuffle_state")', '("epoch", "shuffle_state")'),
    ("train_parts", "range(batches.epoch, num_epochs)", "range(num_epochs)"),
    ("train_parts", "np.random.set_state(", "print("),
    ("differences", " or a.dtype != b.dtype", ""),
    ("differences", ".flatten().view(torch.uint8)", ".flatten()"),
    ("save_checkpoint", 'path.with_name(path.name + ".tmp")', "path"),
    ("save_checkpoint", "        read_checkpoint(fresh)\n", ""),
    ("read_checkpoint", "    check_file(path)\n", ""),
    ("read_checkpoint", 'content.get("version") != CHECKPOINT_VERSION', "False"),
    ("load_checkpoint", "if set(states) != set(parts)", "if False"),
    ("list_checkpoints", "(int(match[1]), p)", "(match[1], p)"),
    ("keep_last", "[:-k]", "[:k]"),
    ("latest_checkpoint", "reversed(list_checkpoints(folder))", "list_checkpoints(folder)"),
    ("load_matching", "if own[name].shape == state[name].shape", "if True"),
    ("load_matching", "if not loaded", "if False"),
]
MUTATIONS = [
    [(".mean(0)", ".sum(0)"), (".to(tensor.dtype)", ""), ("values[-1]", "values[0]"),
     ("if tensor.is_floating_point()", "if True"),
     ("torch.stack(values).double().mean(0)", "(sum(values) / len(values))"),
     ("any(state.keys() != states[0].keys() for state in states)",
      "any(name not in state for state in states for name in states[0])")],  # 多出的名字没管
    [('self.average, self.count = state["average"].clone(), state["count"]',
      'self.average = state["average"].clone()'),
     (" / (1 - self.decay**self.count)", ""), ("self.decay * self.average", "self.average"),
     ('"average": self.average.clone()', '"average": 0 * self.average')],
]
