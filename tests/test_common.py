"""common 的设备、计时、画图与检查。"""

import random
import time

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import common
from common import device as device_module

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """每个测试都从没有环境变量、没有设备记录的状态开始。"""
    for name in ("COURSE_DEVICE", "COURSE_SEED", "COURSE_PROFILE", "COURSE_SILENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device_module, "_proved", {})
    yield
    plt.close("all")


# ---- 设备、种子、配置 ----


def pretend(monkeypatch, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_fastest_working_device_is_chosen(monkeypatch, cuda, mps, expected):
    pretend(monkeypatch, cuda, mps)
    monkeypatch.setattr(device_module, "_failure", lambda name: "")
    assert common.get_device().type == expected


def test_device_that_fails_its_kernel_falls_back_with_a_message(monkeypatch, capsys):
    pretend(monkeypatch, cuda=True)
    monkeypatch.setattr(
        device_module, "_failure", lambda name: "no kernel image is available"
    )
    assert common.get_device().type == "cpu"
    assert "no kernel image" in capsys.readouterr().out


def test_kernel_is_really_launched():
    assert device_module._failure("cpu") == ""
    assert device_module._failure("meta") != ""  # meta 设备没有数值，计算结果读不回来


def test_course_device_overrides(monkeypatch):
    pretend(monkeypatch, cuda=True)
    monkeypatch.setattr(device_module, "_failure", lambda name: "")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert common.get_device().type == "cpu"
    monkeypatch.setenv("COURSE_DEVICE", "cuda:1")
    assert common.get_device() == torch.device("cuda:1")


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:x", "tpu"])
def test_unknown_course_device_is_refused(monkeypatch, value):
    monkeypatch.setenv("COURSE_DEVICE", value)
    with pytest.raises(ValueError, match="COURSE_DEVICE"):
        common.get_device()


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_seed_repeats_all_three_generators_and_shift_changes_them(monkeypatch):
    first = common.seed_everything(3)
    a = draws()
    common.seed_everything(3)
    assert draws() == a
    monkeypatch.setenv("COURSE_SEED", "1")
    assert common.seed_everything(3) != first
    assert all(x != y for x, y in zip(draws(), a, strict=True))


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="随机种子"):
        common.seed_everything(seed)


def test_bad_course_seed_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_SEED", "abc")
    with pytest.raises(ValueError, match="COURSE_SEED"):
        common.seed_everything(0)


def test_profile_follows_environment_and_device(monkeypatch):
    pretend(monkeypatch)
    settings = dict(cpu=dict(n=5, m=1), gpu=dict(n=50), smoke=dict(n=1))
    assert common.profile(**settings).n == 5
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    assert (common.profile(**settings).n, common.profile(**settings).m) == (1, 1)
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert common.profile(**settings).n == 50
    assert common.profile(cpu=dict(n=5)).n == 5
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="COURSE_PROFILE"):
        common.profile(**settings)


def test_profile_refuses_misspelt_settings():
    with pytest.raises(ValueError, match="num_epoch"):
        common.profile(cpu=dict(num_epochs=5), smoke=dict(num_epoch=1))


def test_provenance_names_what_was_used(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    record = common.provenance()
    assert record["profile"] == "smoke" and record["torch"] == torch.__version__
    assert isinstance(record["data"], list)


# ---- 计时 ----


def test_timer_measures_seconds():
    with common.Timer() as timer:
        time.sleep(0.05)
    assert 0.05 <= timer.seconds < 5


def test_benchmark_counts_median_and_ratio():
    calls = []
    result = common.benchmark(lambda: calls.append(1), warmup=2, repeat=3)
    assert len(calls) == 5 and len(result.runs) == 3
    assert result.seconds == sorted(result.runs)[1]
    slow = common.benchmark(lambda: time.sleep(0.02), repeat=1)
    assert common.benchmark(lambda: None, baseline=slow, repeat=1).ratio > 10
    with pytest.raises(ValueError, match="repeat"):
        common.benchmark(lambda: None, repeat=0)


def test_progress_shows_a_bar_for_people_and_nothing_when_silent(monkeypatch, capsys):
    assert list(common.progress(range(3), "train")) == [0, 1, 2]
    assert "train" in capsys.readouterr().out
    monkeypatch.setenv("COURSE_SILENT", "1")
    assert list(common.progress(range(3), "train")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


# ---- 画图 ----


def test_curves_from_arrays_pairs_and_repeats():
    ax = common.plot_curves(
        {"a": [3.0, 2.0], "b": (torch.tensor([1.0, 10.0]), torch.ones(2)), "c": torch.rand(4, 2)},
        xlabel="step", ylabel="loss", title="t", logx=True, logy=True,
    )
    assert [line.get_label() for line in ax.lines] == ["a", "b", "c"]
    assert len(ax.collections) == 1  # 只有重复实验才画色带
    assert ax.get_xscale() == ax.get_yscale() == "log" and ax.get_legend() is not None
    with pytest.raises(ValueError, match="长度"):
        common.plot_curves({"a": ([1, 2, 3], [1, 2])}, xlabel="x", ylabel="y")


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 1, 4, 6), (5, 3, 4, 6)])
def test_image_grid_accepts_the_usual_shapes(shape):
    axes = common.show_images(torch.rand(shape), titles=list("abcde"), ncols=3)
    assert axes.shape == (2, 3)
    assert [len(ax.images) for ax in axes.flat] == [1, 1, 1, 1, 1, 0]


def test_image_grid_refuses_bad_input():
    with pytest.raises(ValueError, match="形状"):
        common.show_images(torch.rand(4, 4))
    with pytest.raises(ValueError, match="标题"):
        common.show_images(torch.rand(2, 4, 4), titles=["a"])


def test_heatmap_labels_numbers_and_errors():
    ax = common.heatmap(
        torch.eye(2), row_labels=["r1", "r2"], col_labels=["c1", "c2"], fmt=".1f"
    )
    assert [t.get_text() for t in ax.get_yticklabels()] == ["r1", "r2"]
    assert [t.get_text() for t in ax.texts] == ["1.0", "0.0", "0.0", "1.0"]
    with pytest.raises(ValueError, match="行"):
        common.heatmap(torch.eye(2), row_labels=["only one"])
    with pytest.raises(ValueError, match="二维"):
        common.heatmap(torch.ones(3))


def test_confusion_matrix_rows_are_normalised():
    ax = common.plot_confusion_matrix([[3, 1], [0, 0]], ["a", "b"])
    assert [t.get_text() for t in ax.texts] == ["0.75", "0.25", "0.00", "0.00"]
    assert ax.get_ylabel() == "true class"


def test_trajectory_on_contours():
    ax = common.plot_trajectory(
        lambda x, y: x**2 + y**2, {"gd": [(1.0, 1.0), (0.5, 0.5)]}, xlim=(-2, 2), ylim=(-2, 2),
        xlabel="w", ylabel="b", minimum=(0, 0), log_levels=True,
    )
    assert ax.get_legend() is not None and ax.get_xlim() == (-2, 2)
    with pytest.raises(ValueError, match="轨迹"):
        common.plot_trajectory(
            lambda x, y: x, {"p": [1, 2]}, xlim=(0, 1), ylim=(0, 1), xlabel="", ylabel=""
        )


# ---- 检查 ----


def test_expect_passes_fails_and_skips(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    common.expect(torch.tensor(1.0) > 0, "正数")
    assert capsys.readouterr().out == "✓ 正数\n"
    with pytest.raises(AssertionError, match="不成立：负数"):
        common.expect(False, "负数")
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    common.expect(False, "负数")
    assert "跳过" in capsys.readouterr().out


def my_linear(x, weight, bias):
    return x @ weight.T + bias


def inputs(dtype=torch.float32):
    return tuple(torch.randn(shape, dtype=dtype) for shape in ((4, 3), (2, 3), (2,)))


def test_equal_functions_pass_with_their_gradients(capsys):
    common.check_equal(my_linear, F.linear, *inputs(), name="F.linear")
    assert capsys.readouterr().out == "✓ 与 F.linear 一致：输出与梯度误差 ≤ 1e-5\n"


def test_equal_tensors_and_modules_pass():
    layer = nn.Linear(3, 2)
    common.check_equal(layer, layer, torch.randn(4, 3), name="nn.Linear")
    common.check_equal(torch.tensor([float("nan"), float("inf")]),
                       torch.tensor([float("nan"), float("inf")]), name="特殊值")


def no_graph(x, weight, bias):
    return my_linear(x, weight, bias).detach()


def wrong_gradient(x, weight, bias):
    out = my_linear(x, weight, bias)
    return out.detach() + (2 * out - 2 * out.detach())


def changes_input(x, weight, bias):
    out = my_linear(x, weight, bias)
    with torch.no_grad():
        x.add_(1)
    return out


@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        (lambda x, w, b: my_linear(x, w, b).T, "形状应为"),
        (lambda x, w, b: my_linear(x, w, b).double(), "数据类型应为"),
        (lambda x, w, b: my_linear(x, w, b) + 1e-3, "8/8 个数不同"),
        (lambda x, w, b: my_linear(x, w, b) * float("nan"), "个数不同"),
        (lambda x, w, b: (my_linear(x, w, b), 0), "应返回 1 个结果"),
        (lambda x, w, b: 3.0, "应该是张量"),
        (no_graph, "计算图"),
        (wrong_gradient, "第 1 个输入的梯度"),
        (changes_input, "被改动"),
    ],
)
def test_differences_are_explained(mine, reason):
    with pytest.raises(AssertionError, match=reason):
        common.check_equal(mine, F.linear, *inputs(), name="F.linear")


def test_the_worst_place_is_named():
    a = torch.zeros(2, 3)
    a[1, 2] = 0.5
    where = r"1/6 个数不同，相差最大的在 \[1, 2\]：应为 0，得到 0.5"
    with pytest.raises(AssertionError, match=where):
        common.check_equal(a, torch.zeros(2, 3), name="zeros")


def test_large_integers_are_compared_exactly():
    with pytest.raises(AssertionError):
        common.check_equal(torch.tensor([3]), torch.tensor([4]), name="ints")


def test_function_against_tensor_is_a_type_error():
    with pytest.raises(TypeError):
        common.check_equal(my_linear, torch.zeros(1), name="x")


def test_parameter_gradients_of_modules_are_compared():
    a = nn.Linear(3, 2)
    b = nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    b.register_full_backward_hook(lambda m, gi, go: None)
    common.check_equal(a, b, torch.randn(4, 3), name="nn.Linear")
    b.bias.requires_grad_(False)
    with pytest.raises(AssertionError, match="参数名不同"):
        common.check_equal(b, a, torch.randn(4, 3), name="nn.Linear")


def square(x):
    return x**2


def unfinished(x):
    raise NotImplementedError


def broken(x):
    return x.no_such_attribute


def test_exercise_right_unfinished_wrong_and_broken(capsys):
    def cases(g):
        return (torch.randn(3, generator=g),)

    common.check_exercise(square, torch.square, cases, grad=True)
    assert capsys.readouterr().out == "✓ square 通过：5 组输入的结果与梯度都正确\n"
    common.check_exercise(unfinished, torch.square, cases)
    assert "尚未完成" in capsys.readouterr().out
    with pytest.raises(common.ExerciseError, match="提示：平方") as caught:
        common.check_exercise(torch.abs, torch.square, cases, hint="平方")
    assert caught.value._render_traceback_()[0].startswith("✗ ")
    with pytest.raises(AttributeError):
        common.check_exercise(broken, torch.square, cases)
    assert "出错" in capsys.readouterr().out


def test_exercise_draws_new_inputs_every_time():
    seen = []
    for _ in range(2):
        common.check_exercise(
            lambda x: seen.append(x) or x, lambda x: x, lambda g: (torch.randn(3, generator=g),),
            trials=1,
        )
    assert not torch.equal(seen[0], seen[1])


def test_exercise_accepts_fixed_cases_and_numbers():
    common.check_exercise(lambda a: 2 * a, lambda a: a + a, [(1,), (2.5,)])
    with pytest.raises(common.ExerciseError):
        common.check_exercise(lambda a: a, lambda a: a + a, [(1,)])
