"""约定：每个笔记本的 scratch 格必须定义哪些名字，又不能调用什么。

从零实现的函数不能调用它的对照物，也不能调用替它做完工作的函数。
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contract:
    """一个笔记本的约定。

    属性:
        names: 运行 setup 和 scratch 格之后必须有的名字。
        forbidden: scratch 格里不能用的属性、方法和导入。
    """

    names: tuple[str, ...]
    forbidden: frozenset[str] = frozenset()


CONTRACT = {
    "03_linear_regression/01_linear_regression_scratch.ipynb": Contract(
        ("linreg", "squared_loss", "sgd", "minibatches", "normal_equation"),
        frozenset({
            "lstsq", "pinv", "pinverse", "mse_loss", "MSELoss", "linear", "Linear", "optim",
            "SGD", "DataLoader", "BatchSampler",
        }),
    ),
    "03_linear_regression/02_losses.ipynb": Contract(
        ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"),
        frozenset({
            "mse_loss", "MSELoss", "l1_loss", "L1Loss", "huber_loss", "HuberLoss",
            "smooth_l1_loss", "SmoothL1Loss",
        }),
    ),
    "03_linear_regression/03_minibatch_sgd.ipynb": Contract(("lr_range_test",)),
    "03_linear_regression/04_linear_regression_concise.ipynb": Contract(("train_concise",)),
    "03_linear_regression/05_softmax_regression_scratch.ipynb": Contract(
        ("softmax", "log_softmax", "cross_entropy"),
        frozenset({
            "softmax", "log_softmax", "softmin", "gumbel_softmax", "_softmax", "_log_softmax",
            "logsumexp", "logaddexp", "Softmax", "LogSoftmax", "Softmin", "cross_entropy",
            "CrossEntropyLoss", "nll_loss", "NLLLoss", "Categorical", "kl_div", "KLDivLoss",
        }),
    ),
}
