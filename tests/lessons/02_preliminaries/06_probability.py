"""2.6 节 概率与统计：约定的名字、一致性、改坏的实现和错误答案。"""

import math

import torch
from parity import TOLERANCE, randn, refuses, same
from torch.distributions import Categorical
from torch.distributions import kl_divergence as torch_kl

NAMES = ("entropy", "kl_divergence", "inverse_cdf", "sample_categorical")
FORBIDDEN = frozenset({
    "Categorical", "OneHotCategorical", "distributions", "entropy", "entr", "xlogy",
    "kl_divergence", "kl_div", "cross_entropy", "multinomial", "choice", "choices",
})
SHAPES = ((1,), (5,), (3, 4), (2, 3, 7), (0, 4))
BAD = (
    torch.tensor([1.2, -0.2]), torch.tensor([0.5, 0.4]), torch.tensor([[0.5, 0.5], [0.6, 0.5]]),
    torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 0.0]), torch.tensor([1, 0]),
    torch.tensor(1.0), torch.zeros(3, 0), torch.tensor([[2.0, -1.0]]),
)


def check_entropy(ns):
    mine = ns["entropy"]
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            for scale in (0.1, 1.0, 5.0):
                z = randn(*shape, dtype=dtype, scale=scale)
                same(lambda z: mine(z.softmax(-1)),
                     lambda z: Categorical(probs=z.softmax(-1), validate_args=False).entropy(),
                     z, tol=max(TOLERANCE[dtype], 1e-9))
        p = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=dtype)
        want = Categorical(probs=p).entropy()
        got = mine(p)
        assert got.dtype == dtype and got.shape == (3,)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        leaf = p.clone().requires_grad_()
        (grad,) = torch.autograd.grad(mine(leaf).sum(), leaf)
        torch.testing.assert_close(grad, torch.where(p > 0, -p.log() - 1, 0.0))
        # 被挡住的类（分数为负无穷）：梯度与去掉它们相同，没有 NaN
        z = randn(4, 6, dtype=dtype)
        z[:, ::2] = -math.inf
        leaf, small = z.clone().requires_grad_(), z[:, 1::2].clone().requires_grad_()
        (a,) = torch.autograd.grad(mine(leaf.softmax(-1)).sum(), leaf)
        (b,) = torch.autograd.grad(mine(small.softmax(-1)).sum(), small)
        torch.testing.assert_close(a[:, 1::2], b)
        assert (a[:, ::2] == 0).all()
    for bad in BAD:
        refuses(mine, bad)


def check_kl_divergence(ns):
    mine = ns["kl_divergence"]

    def reference(z, v):
        return torch_kl(*(Categorical(probs=t.softmax(-1), validate_args=False) for t in (z, v)))

    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            for scale in (0.1, 1.0, 3.0):
                z, v = randn(*shape, dtype=dtype, scale=scale), randn(*shape, dtype=dtype, seed=9)
                same(lambda z, v: mine(z.softmax(-1), v.softmax(-1)), reference, z, v,
                     tol=max(TOLERANCE[dtype], 1e-9))
        z, v = randn(4, 3, 5, dtype=dtype), randn(5, dtype=dtype, seed=3)          # 广播
        same(lambda z, v: mine(z.softmax(-1), v.softmax(-1)), reference, z, v)
        assert mine(v.softmax(-1), z.softmax(-1)).shape == (4, 3)
        p = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
        q = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.0, 0.5, 0.5], [0.5, 0.3, 0.2]])
        p, q = p.to(dtype), q.to(dtype)
        got = mine(p, q)
        assert got.dtype == dtype and got[0] == math.inf and got[2] == math.inf
        want = torch_kl(Categorical(probs=p), Categorical(probs=q))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        assert (mine(p, p).abs() < 1e-6).all()
        p_leaf, q_leaf = p[1::2].clone().requires_grad_(), q[1::2].clone().requires_grad_()
        grads = torch.autograd.grad(mine(p_leaf, q_leaf).sum(), (p_leaf, q_leaf))
        assert all(g.isfinite().all() for g in grads)
    good = torch.tensor([0.5, 0.5])
    for bad in BAD:
        refuses(mine, bad, good)
        refuses(mine, good, bad)
    refuses(mine, good, torch.tensor([0.5, 0.25, 0.25]))
    refuses(mine, good, torch.tensor([1.0]))


def check_inverse_cdf(ns):
    mine = ns["inverse_cdf"]
    last = 1 - 2 ** -53
    u = torch.tensor([0.0, 0.2, 0.25, 0.9, last], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        p = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0], dtype=dtype)
        got = mine(p, u)
        assert got.dtype == torch.int64 and got.tolist() == [1, 1, 3, 3, 3]
        rows = torch.stack([p, p.flip(0)])
        assert mine(rows, u.expand(2, 5)).tolist() == [[1, 1, 3, 3, 3], [1, 1, 1, 3, 3]]
        for C in (1, 3, 7, 49, 1000):                       # 舍入使累积和不到 1
            p = torch.cat([torch.full((C,), 1 / C, dtype=dtype), torch.zeros(2, dtype=dtype)])
            assert mine(p, u[-1:]).tolist() == [C - 1]
            middle = (torch.arange(C, dtype=torch.float64) + 0.5) / C
            assert mine(p, middle).tolist() == list(range(C))
    short = torch.tensor([0.2, 0.799995])                   # 和比 1 小一点，仍在允许的范围里
    assert mine(short, u[-1:]).tolist() == [1]


def check_sample_categorical(ns):
    mine = ns["sample_categorical"]
    n = 40_000
    for seed in range(3):
        for p in ([0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.0, 0.45, 0.05, 0.0], [1.0], [0.0, 1.0]):
            for dtype in (torch.float32, torch.float64):
                p = torch.as_tensor(p, dtype=dtype)
                got = mine(p, n, torch.Generator().manual_seed(seed))
                assert got.shape == (n,) and got.dtype == torch.int64
                counts, live = torch.bincount(got, minlength=len(p)), p > 0
                assert counts.shape == p.shape and (counts[~live] == 0).all()
                expected = n * p[live].double()
                assert ((counts[live] - expected) ** 2 / expected).sum() < 45
                again = mine(p, n, generator=torch.Generator().manual_seed(seed))
                assert torch.equal(got, again)
    p = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]])
    got = mine(p[:, None].expand(2, 4, 3), 5000, torch.Generator().manual_seed(0))
    assert got.shape == (2, 4, 5000)
    assert not (got[0] == 2).any() and not (got[1] == 0).any()
    assert not torch.equal(got[0, 0], got[0, 1])            # 每一行各抽各的
    means = (got == 1).double().mean((1, 2))
    assert (means - torch.tensor([0.1, 0.2], dtype=torch.float64)).abs().max() < 0.02
    assert mine(p, 3).shape == (2, 3)
    for bad in BAD:
        refuses(mine, bad, 5)
    for count in (0, -1, 2.5):
        refuses(mine, p, count)


CHECKS = {"entropy": check_entropy, "kl_divergence": check_kl_divergence,
          "inverse_cdf": check_inverse_cdf, "sample_categorical": check_sample_categorical}
BROKEN = [
    ("entropy", "safe = torch.where(p > 0, p, 1.0)", "safe = p"),
    ("entropy", "safe = torch.where(p > 0, p, 1.0)", "safe = p + 1e-3"),
    ("entropy", "-(p * safe.log()).sum(-1)", "-(p * safe.log()).sum(0)"),
    ("entropy", "-(p * safe.log()).sum(-1)", "-(p * safe.log2()).sum(-1)"),
    ("entropy", "-(p * safe.log()).sum(-1)", "-(p.detach() * safe.log()).sum(-1)"),
    ("entropy", "-(p * safe.log()).sum(-1)", "-torch.where(p > 0, p * p.log(), 0.0).sum(-1)"),
    ("entropy", "if not ((p >= 0) & (p < float(\"inf\"))).all():", "if False:"),
    ("entropy", "if (off > 1e-5).any():", "if False:"),
    ("entropy", "(off > 1e-5).any()", "(off > 1e-5).all()"),
    ("kl_divergence", "p_safe.log() - q_safe.log()", "q_safe.log() - p_safe.log()"),
    ("kl_divergence", "(p * (p_safe.log() - q_safe.log()))", "(q * (q_safe.log() - p_safe.log()))"),
    ("kl_divergence", "torch.where(used, q, 1.0)", "torch.where(q > 0, q, 1.0)"),
    ("kl_divergence", "torch.where(used, q, 1.0)", "q"),
    ("kl_divergence", "if p.shape[-1] != q.shape[-1]:", "if False:"),
    ("inverse_cdf", "right=True", "right=False"),
    ("inverse_cdf", "cdf / cdf[..., -1:]", "cdf"),
    ("inverse_cdf", ".cumsum(-1)", ".cumsum(0)"),
    ("sample_categorical", "generator=generator, dtype", "dtype"),
    ("sample_categorical", "p.detach().cpu().double().cumsum(-1)",
     "torch.ones_like(p).double().cumsum(-1)"),
    ("sample_categorical", "torch.rand(*p.shape[:-1], num_samples,", "torch.rand(num_samples,"),
    ("sample_categorical", "num_samples < 1", "num_samples < -9"),
]
MUTATIONS = [
    [("if positive else 1 - sensitivity", ""),
     ("sick * belief / (sick * belief + healthy * (1 - belief))",
      "sick * prior / (sick * prior + healthy * (1 - prior))"),
     ("healthy * (1 - belief)", "healthy * belief"),
     ("(sick * belief + healthy", "(belief + healthy"),
     ("if positive else 1 - false_positive", "")],
    [("/ len(z) ** 0.5", "/ len(z)"), ("(a ** 2 / 2 - a * x).exp()", "1.0"),
     ("a ** 2 / 2 - a * x", "a * x - a ** 2 / 2"), ("x = z + a", "x = z"), ("x > a", "x > 0")],
]
