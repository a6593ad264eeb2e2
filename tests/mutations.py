"""每道编程练习的错误答案：把参考答案里的一段换成另一段，检查必须能发现。

笔记本 → 每道练习一个列表 → 若干 (原来的文字, 换成的文字)。
"""

MUTATIONS = {
    "03_linear_regression/01_linear_regression_scratch.ipynb": [
        [("range(1, degree + 1)", "range(degree)"), ("dim=1", "dim=0")],
        [("lam * identity", "identity"), ("+ lam", "- lam")],
    ],
    "03_linear_regression/04_linear_regression_concise.ipynb": [
        [('"bias": b', '"bias": 0 * b')],
        [("range(500)", "range(5)"), ("        optimizer.zero_grad()\n", "")],
    ],
}
