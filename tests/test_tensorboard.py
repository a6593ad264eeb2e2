"""真正的 TensorBoard 服务器能打开 1.7 节写出的日志：按笔记本的写法记录，再用 HTTP 逐项询问。"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
import torch
from notebook_files import ROOT
from notebooks import load_scratch

NOTEBOOK = ROOT / "01_pytorch_basics" / "07_tensorboard.ipynb"
RUNS = {"lr=0.01": 0.01, "lr=0.1": 0.1}
DEADLINE = 45  # 秒：从启动服务器到全部数据可读
CLASSES = [f"class {c}" for c in range(10)]
LAYERS = ("hidden1", "hidden2", "output")
# 不经过系统设置的代理：服务器就在本机
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """用笔记本自己的 train_and_log 在随机数据上训练两次，各写一个日志目录。"""
    top = tmp_path_factory.mktemp("日志 runs")
    names, g = load_scratch(NOTEBOOK), torch.Generator().manual_seed(0)
    train = torch.rand(1280, 1, 28, 28, generator=g), torch.randint(10, (1280,), generator=g)
    test = torch.rand(60, 1, 28, 28, generator=g), torch.randint(10, (60,), generator=g)
    for name, lr in RUNS.items():
        names["train_and_log"](top / name, train, test, CLASSES, lr, 2, 0, 20)
    assert names["find_runs"](top) == sorted(RUNS)
    return top, names


@contextmanager
def server(logdir, folder, *options):
    """启动服务器，给出它的网址；离开时一定结束它。"""
    log = folder / "server.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir),
               "--host", "127.0.0.1", "--port", "0", *options]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    environment |= {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, cwd=folder,
        )
        try:
            def address():
                text = log.read_text(encoding="utf-8", errors="replace")
                assert process.poll() is None, f"TensorBoard 没有启动：\n{text[-3000:]}"
                found = re.search(r"http://[^\s:/]+:(\d+)/", text)
                return found and f"http://127.0.0.1:{found[1]}"

            yield wait_for(address, f"服务器在 {DEADLINE} 秒内没有给出网址")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def wait_for(ask, problem):
    """反复询问，直到有答案；超时则失败。"""
    deadline = time.monotonic() + DEADLINE
    while not (answer := ask()):
        assert time.monotonic() < deadline, problem
        time.sleep(0.2)
    return answer


def get(base, path, body=None, **query):
    """一次 HTTP 请求，返回 JSON；还没有准备好时返回 None。"""
    url = f"{base}{path}" + (f"?{urlencode(query)}" if query else "")
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        with OPENER.open(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def ask(base, path, **query):
    """等到这个地址有内容为止。"""
    return wait_for(lambda: get(base, path, **query), f"{path} 没有内容")


def expected_tags(plugin):
    parameters = {f"{layer}/{kind}" for layer in LAYERS for kind in ("weight", "bias")}
    return {
        "scalars": {"train/loss", "test/loss", "test/accuracy", "test/dead_units",
                    "hparam/accuracy", "hparam/loss"},
        "histograms": {"preactivation/hidden2", *parameters},
        "distributions": {"preactivation/hidden2", *parameters},
        "images": {"inputs", "templates/hidden1"},
        "pr_curves": {"pr/shirt", "pr/trouser"},
        "text": {"config/text_summary"},
    }[plugin]


# 默认用快速读取器（没有它的平台自动改用 Python 的），再测一次纯 Python 的
@pytest.mark.timeout(180)
@pytest.mark.parametrize("options", [(), ("--load_fast=false",)], ids=["default", "python"])
def test_a_real_server_shows_everything_that_was_logged(logs, tmp_path, options):
    top, names = logs
    with server(top, tmp_path, *options) as base:
        for plugin in ("scalars", "histograms", "distributions", "images", "pr_curves", "text"):
            def complete():
                answer = get(base, f"/data/plugin/{plugin}/tags") or {}  # noqa: B023
                found = {run: set(tags) for run, tags in answer.items()}
                return found == {run: expected_tags(plugin) for run in RUNS}  # noqa: B023

            path = f"/data/plugin/{plugin}/tags"
            wait_for(complete, f"{path} 的答案不全：{get(base, path)}")
        assert sorted(ask(base, "/data/runs")) == sorted(RUNS)

        run, tag = "lr=0.1", "train/loss"
        steps, values = names["read_scalars"](top / run)[tag]
        rows = ask(base, "/data/plugin/scalars/scalars", run=run, tag=tag)
        assert [row[1] for row in rows] == steps  # 每行是 [时刻, 步, 值]
        assert [row[2] for row in rows] == pytest.approx(values)

        graphs = ask(base, "/data/plugin/graphs/info")
        assert sorted(graphs) == sorted(RUNS) and graphs[run]["run_graph"]

        assert sorted(ask(base, "/data/plugin/projector/runs")) == sorted(RUNS)
        info = ask(base, "/data/plugin/projector/info", run=run)
        shown = {row["tensorName"]: row["tensorShape"] for row in info["embeddings"]}
        stored = names["read_embeddings"](top / run)
        assert shown == {name: list(X.shape) for name, (X, _, _) in stored.items()}

        experiment = ask(base, "/data/plugin/hparams/experiment", body={})
        assert {row["name"] for row in experiment["hparamInfos"]} >= {"lr"}
        request = {"startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_SUCCESS"],
                   "colParams": []}
        groups = ask(base, "/data/plugin/hparams/session_groups", body=request)
        rates = {group["hparams"]["lr"] for group in groups["sessionGroups"]}
        assert groups["totalSize"] == len(RUNS) and rates == set(RUNS.values())


def test_a_server_without_logs_still_answers(tmp_path):
    """日志目录的层级不对时，网页是空的，不是报错。"""
    (tmp_path / "empty").mkdir()
    with server(tmp_path / "empty", tmp_path, "--load_fast=false") as base:
        assert "scalars" in ask(base, "/data/plugins_listing")
        assert get(base, "/data/plugin/scalars/tags") == {}
        assert get(base, "/data/runs") == []
