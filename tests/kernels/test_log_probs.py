"""Chosen words' log-probabilities against log_softmax of all logits in fp64."""

import pytest
import torch

from fairseq_diffusion.kernels import portable
from fairseq_diffusion.kernels.log_probs import linear_log_probs
from fairseq_diffusion.kernels.rounding import round_to_rows, top_rows

pytestmark = pytest.mark.usefixtures("device")
N, D, V, M = 13, 6, 31, 4


@pytest.fixture(params=[1, 100, 4 * V, 2**24])
def entries(request, monkeypatch, device):
    """Several chunk sizes: a row at a time, a few (13 is no multiple), all at once."""
    monkeypatch.setitem(portable.ENTRIES, device.type, request.param)


def inputs(dtype=torch.float32):
    """x [N, D], W [V, D] with gradients, and words [N, M], the first twice."""
    torch.manual_seed(0)
    x, W, index = torch.randn(N, D).to(dtype), 2 * torch.randn(V, D).to(dtype), torch.randint(V, (N, M))
    index[:, 2] = index[:, 0]
    return x.requires_grad_(), W.requires_grad_(), index


def naive(x, W, index):
    """log_p, mean, best and its log_p from all logits in fp64."""
    log_p = (x.double() @ W.double().T).log_softmax(-1)
    best = log_p.max(-1)
    return log_p.gather(-1, index), log_p.mean(-1), best.indices, best.values


def same_gradients(of, like, inputs, **close):
    grads = torch.autograd.grad(of, inputs, allow_unused=True)
    for mine, other in zip(grads, torch.autograd.grad(like, inputs, allow_unused=True)):
        assert mine.dtype == other.dtype
        assert torch.allclose(mine.double(), other.double(), **close)


@pytest.mark.parametrize("uses", [(1, 1), (1, 0), (0, 1)], ids=["both", "log_p", "mean"])
def test_values_and_gradients(entries, uses):
    x, W, index = inputs()
    found, theirs = linear_log_probs(x, W, index), naive(x, W, index)
    assert torch.allclose(found.log_p.double(), theirs[0], atol=1e-5)
    assert torch.allclose(found.mean.double(), theirs[1], atol=1e-5)
    assert torch.equal(found.best, theirs[2])
    assert found.log_p.dtype == found.mean.dtype == torch.float32
    assert found.log_p.requires_grad and found.mean.requires_grad
    weights = torch.randn(N, M), torch.randn(N)
    sums = [sum((part * w).sum() for part, w, use in zip(out, weights, uses) if use) for out in (found, theirs)]
    same_gradients(*sums, (x, W), atol=1e-4)


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_gradient_that_is_wanted(entries, wanted):
    both = inputs()
    index = both[2]
    x, W = (t if i == wanted else t.detach() for i, t in enumerate(both[:2]))
    of, like = linear_log_probs(x, W, index).log_p.sum(), naive(x, W, index)[0].sum()
    same_gradients(of, like, (both[wanted],), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_fp32(entries, dtype):
    x, W, index = inputs(dtype)
    found, theirs = linear_log_probs(x, W, index), naive(x, W, index)
    assert found.log_p.dtype == torch.float32
    assert torch.allclose(found.log_p.double(), theirs[0], atol=1e-4)
    same_gradients(found.log_p.sum(), theirs[0].sum(), (x, W), rtol=1e-2, atol=2e-2)


def test_fp32_under_autocast(entries, device):
    x, W, index = inputs()
    with torch.autocast(device.type, torch.bfloat16):
        found = linear_log_probs(x, W, index)
        tokens, log_p = top_rows(x, W, 3)
    theirs = naive(x, W, index)
    assert torch.allclose(found.log_p.double(), theirs[0], atol=1e-5)
    assert torch.allclose(log_p[:, 0].double(), theirs[3], atol=1e-5)
    same_gradients(found.log_p.sum(), theirs[0].sum(), (x, W), atol=1e-4)


def test_large_logits_stay_finite():
    x, W, index = inputs()
    found = linear_log_probs(300 * x, 10 * W, index)
    assert torch.allclose(found.log_p.double(), naive(300 * x, 10 * W, index)[0], rtol=1e-5, atol=1e-2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(found.log_p.sum(), (x, W)))


def test_no_words_asked_for():
    x, W, index = inputs()
    found = linear_log_probs(x, W, index[:, :0])
    assert found.log_p.shape == (N, 0) and torch.equal(found.best, naive(x, W, index)[2])


@pytest.mark.parametrize("count", [1, 5, V])
def test_top_rows_are_the_likeliest_words_best_first(entries, count):
    x, W, _ = inputs()
    tokens, log_p = top_rows(x, W, count)
    expected = (x.double() @ W.double().T).log_softmax(-1).topk(count)
    assert torch.equal(tokens, expected.indices)
    assert torch.allclose(log_p.double(), expected.values, atol=1e-5)
    assert not log_p.requires_grad
    assert all(torch.equal(a[:, 0], b) for a, b in zip((tokens, log_p), round_to_rows(x, W)))


@pytest.mark.parametrize("count", [1, 5, V - 3])
def test_what_is_banned_is_in_the_softmax_but_never_the_answer(entries, count):
    x, W, _ = inputs()
    banned = torch.tensor([0, 7, V - 1])
    log_p = (x.double() @ W.double().T).log_softmax(-1)
    assert torch.isin(log_p.argmax(-1), banned).any()
    expected = log_p.index_fill(-1, banned, -torch.inf).topk(count)
    before = W.clone()
    tokens, found = top_rows(x, W, count, banned)
    assert torch.equal(tokens, expected.indices)
    assert torch.allclose(found.double(), expected.values, atol=1e-5)
    assert all(torch.equal(a[:, 0], b) for a, b in zip((tokens, found), round_to_rows(x, W, banned)))
    assert torch.equal(W, before)


def test_banned_words_come_last_and_are_impossible(entries):
    x, W, _ = inputs()
    banned = torch.tensor([5, 2])
    tokens, log_p = top_rows(x, W, V, banned)
    assert torch.equal(tokens[:, -2:].sort(-1).values, banned.sort().values.expand(N, 2))
    assert torch.equal(log_p == -torch.inf, torch.arange(V).expand(N, V) >= V - 2)
    everything = torch.arange(V)
    assert (round_to_rows(x, W, everything)[1] == -torch.inf).all()
