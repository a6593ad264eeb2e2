"""3.6 节 softmax 回归：简洁实现：约定的名字、一致性、改坏的实现和错误答案。"""

NAMES = ()
FORBIDDEN = frozenset()

CHECKS = {}
BROKEN = []
MUTATIONS = [
    [("present * counts", "counts"), (", 0.0)", ", 1.0)")],
    [("log_p.mean(dim=1)", "log_p.sum(dim=1)"), ("(1 - smoothing) * true_part", "true_part"),
     (").mean()", ").sum()")],
]
