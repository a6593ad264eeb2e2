"""每道编程练习的错误答案：把参考答案里的一段换成另一段，检查必须能发现。

笔记本 → 每道练习一个列表 → 若干 (原来的文字, 换成的文字)。
"""

MUTATIONS = {
    "03_linear_regression/01_linear_regression_scratch.ipynb": [
        [("range(1, degree + 1)", "range(degree)"), ("dim=1", "dim=0")],
        [("lam * identity", "identity"), ("+ lam", "- lam")],
    ],
    "03_linear_regression/02_losses.ipynb": [
        [(".clamp(-delta, delta)", ""), ("clamp(-delta, delta)", "clamp(-1, 1)"),
         ("input - target", "target - input")],
        [("/ weight.sum()", "/ len(weight)"), ("weight * losses", "losses")],
    ],
    "03_linear_regression/03_minibatch_sgd.ipynb": [
        [(" / len(X)", ""), ("range(200)", "range(1)"), ("2 / Hv.norm()", "1 / Hv.norm()")],
        [(" * (N - B) / (N - 1)", ""), (".sum(1).mean()", ".mean()"), (".sqrt()", "")],
    ],
    "03_linear_regression/04_linear_regression_concise.ipynb": [
        [('"bias": b', '"bias": 0 * b')],
        [("range(500)", "range(5)"), ("        optimizer.zero_grad()\n", "")],
    ],
    "03_linear_regression/05_softmax_regression_scratch.ipynb": [
        [("logits / T", "logits * T"), ("scaled - scaled.amax(1, keepdim=True)", "scaled"),
         ("return winners / winners.sum(1, keepdim=True)", "return winners"),
         ("exp.sum(1,", "exp.sum(0,")],
        [("delta = delta / len(y)", "pass"), ("delta.sum(0)", "delta.mean(0)"),
         ("    delta[torch.arange(len(y)), y] -= 1\n", "")],
    ],
    "03_linear_regression/06_softmax_regression_concise.ipynb": [
        [("present * counts", "counts"), (", 0.0)", ", 1.0)")],
        [("log_p.mean(dim=1)", "log_p.sum(dim=1)"), ("(1 - smoothing) * true_part", "true_part"),
         (").mean()", ").sum()")],
    ],
}
