"""Triton's kernels in its interpreter against the portable ones and fp64; test_triton.py runs this in a process whose
environment says TRITON_INTERPRET=1."""

import pytest
import torch
import torch.nn.functional as F
import triton
from triton.runtime import interpreter

from fairseq_diffusion.kernels import choice, launch, log_probs, noise
from fairseq_diffusion.kernels.distinct import without_waiting
from fairseq_diffusion.kernels.log_probs import linear_cross_entropy, linear_log_probs
from fairseq_diffusion.kernels.noise import gumbel
from fairseq_diffusion.kernels.rounding import best_rows, round_to_rows
from fairseq_diffusion.states import base
from fairseq_diffusion.states.embedding import EmbeddingState

SHAPES = [(1, 1003, 16), (130, 90, 5), (37, 90, 100), (3, 203, 128), (2, 70, 200)]
CASES = [(shape, dtype) for shape in SHAPES for dtype in (torch.float32, torch.float16)] + [(SHAPES[1], torch.bfloat16)]
INFINITY = float("inf")


if triton.__version__ < "3.9":  # older ones read a loop's bound from an array as numpy 2.4 no longer allows
    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        patch_tensor(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patched


@pytest.fixture(autouse=True)
def _triton():
    yield choice.use("triton")
    choice.use("auto")


def inputs(N, V, D, dtype=torch.float32):
    """x [N, D], table [V, D], targets [N], keys [N]."""
    g = torch.Generator().manual_seed(N + V + D)
    x, table = (torch.randn(size, D, generator=g).to(dtype) for size in (N, V))
    return x, table, torch.randint(V, (N,), generator=g), noise.fold(torch.tensor(5), torch.arange(N))


def portable(function, *arguments, **options):
    choice.use("portable")
    found = function(*arguments, **options)
    choice.use("triton")
    return found


def close(ours, plain, exact, logits):
    """No larger an error against fp64 than twice the plain path's own and the rounding of the largest logit."""
    error, own = ((found.double() - exact).abs().max() for found in (ours, plain))
    return error <= 2 * own + torch.finfo(torch.float32).eps * logits.abs().max() * exact.abs().max().clamp(min=1)


@pytest.mark.parametrize("shape, dtype", CASES)
def test_rounding_with_all_options(shape, dtype):
    x, table, _, keys = inputs(*shape, dtype)
    bias, banned = torch.linspace(-3, 3, shape[1]), torch.tensor([0, 7, shape[1] - 1])
    logits = x.double() @ table.double().T + bias.double()
    log_p = logits.log_softmax(-1)
    for sampled in (None, keys):
        options = {"banned": banned, "bias": bias, "keys": sampled}
        scores = log_p if sampled is None else log_p + gumbel(keys, shape[1]).double()
        expected = scores.index_fill(-1, banned, -INFINITY).argmax(-1)
        words, found = round_to_rows(x, table, **options)
        assert torch.equal(words, expected) and torch.equal(words, best_rows(x, table, **options))
        assert torch.equal(words, portable(round_to_rows, x, table, **options)[0])  # the same draws
        exact = log_p.gather(-1, words[:, None])[:, 0]
        assert close(found, portable(round_to_rows, x, table, **options)[1], exact, logits)


def test_of_equal_rows_the_first_is_taken_in_a_tile_and_among_splits():
    """Of whole numbers, so that products are exact: a CPU adds up in another order at the edge of a tile."""
    x, table = (part.round() for part in inputs(5, 150, 16)[:2])
    words = best_rows(x, table)
    assert launch.split(750, 64, 1, x.device)[0] > 1
    assert torch.equal(best_rows(x, table.repeat(5, 1)), words)
    assert torch.equal(best_rows(x, table.repeat_interleave(5, 0)), 5 * words)


def test_numbers_that_are_none_and_words_that_are_all_banned_point_at_no_word_outside():
    x, table, *_ = inputs(3, 70, 16)
    words, log_p = round_to_rows(x.fill_(torch.nan), table)
    assert not words.any()
    words, log_p = round_to_rows(torch.ones_like(x), table, torch.arange(70))
    assert ((words >= 0) & (words < 70)).all() and (log_p == -INFINITY).all()
    assert [part.shape for part in round_to_rows(x[:0], table)] == [(0,), (0,)]


@pytest.mark.parametrize("scale, shift", [(100, 0), (1, -50)])
def test_words_far_away_stay_finite(scale, shift):
    x, table, target, _ = inputs(9, 70, 16)
    x, table = (scale * x + (shift != 0)).requires_grad_(), (10 * table + shift).requires_grad_()
    loss = linear_cross_entropy(x, table, target)
    logits = x.double() @ table.double().T
    expected = F.cross_entropy(logits, target, reduction="none")
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    grads = torch.autograd.grad(loss.sum(), (x, table))
    for mine, exact in zip(grads, torch.autograd.grad(expected.sum(), (x, table))):
        assert close(mine, exact, exact, logits)


def losses(x, table, target, smoothing, mask, weights):
    """Loss and its gradients."""
    x, table = (part.clone().requires_grad_() for part in (x, table))
    loss = linear_cross_entropy(x, table, target, smoothing, mask)
    return loss.detach(), *torch.autograd.grad((loss * weights).sum(), (x, table))


def exact_losses(x, table, target, smoothing, mask, weights):
    """By all logits in fp64, with fairseq's smoothing."""
    x, table = (part.double().requires_grad_() for part in (x, table))
    log_p = (x @ table.T).log_softmax(-1)
    loss = -(1 - smoothing) * log_p.gather(-1, target[:, None])[:, 0] - smoothing * log_p.mean(-1)
    loss = loss if mask is None else loss.where(mask, 0.0)
    return loss.detach(), *torch.autograd.grad((loss * weights).sum(), (x, table))


@pytest.mark.parametrize("shape, dtype", CASES)
def test_cross_entropy_and_its_gradients(shape, dtype):
    x, table, target, _ = inputs(*shape, dtype)
    smoothing, mask = (0.0, None) if shape == SHAPES[2] else (0.1, torch.arange(len(x)) % 3 != 1)
    arguments = x, table, target, smoothing, mask, torch.linspace(0.5, 2, len(x))
    exact, plain, ours = exact_losses(*arguments), portable(losses, *arguments), losses(*arguments)
    assert [part.dtype for part in ours] == [torch.float32, dtype, dtype]
    for mine, other, wanted in zip(ours, plain, exact):
        assert close(mine, other, wanted, x.double() @ table.double().T)
    again = losses(*arguments)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, again))


@pytest.mark.parametrize("dim", [16, 130])
def test_rows_outside_the_mask_are_not_looked_at(dim):
    x, table, target, _ = inputs(150, 203, dim)
    mask = torch.arange(150) % 7 == 3
    broken = x.where(mask[:, None], torch.nan)
    weights = torch.rand(150)
    clean, masked = (losses(rows, table, target, 0.1, mask, weights) for rows in (x, broken))
    assert torch.equal(clean[0], masked[0]) and not clean[0][~mask].any()
    assert not clean[1][~mask].any() and torch.equal(clean[1], masked[1]) and torch.equal(clean[2], masked[2])
    nobody = losses(x, table, target, 0.1, torch.zeros_like(mask), weights)
    assert not any(part.any() for part in nobody)


def test_the_words_of_a_batch_are_scored_once_each_without_waiting_for_their_number(monkeypatch):
    state = EmbeddingState(90, 16)
    g = torch.Generator().manual_seed(1)
    tokens, mask, weights = (
        torch.randint(20, (8, 9), generator=g),
        torch.rand(8, 9, generator=g) < 0.7,
        torch.rand(8, 9),
    )
    plain = portable(state.nll, state.encode(tokens), tokens, 0.1).where(mask, 0.0)
    monkeypatch.setattr(base, "distinct", without_waiting)
    once = state.clean_nll(tokens, state.encode(tokens), mask, 0.1)
    assert torch.allclose(once, plain, atol=1e-5)
    wanted, found = (torch.autograd.grad((loss * weights).sum(), state.weight)[0] for loss in (plain, once))
    assert torch.allclose(found, wanted, atol=1e-5 * wanted.abs().max())
    x = torch.randn(8, 9, 16, generator=g)
    assert torch.equal(state.clamp(x), portable(state.clamp, x))


def test_log_probabilities_of_one_word_are_triton_and_of_more_portable():
    x, table, target, _ = inputs(37, 203, 16)
    for count in (1, 2):
        index = (target[:, None] + torch.arange(count)) % 203
        found, plain = linear_log_probs(x, table, index), portable(linear_log_probs, x, table, index)
        assert torch.equal(found.best, plain.best)
        for mine, other in zip(found, plain):
            assert torch.allclose(mine.double(), other.double(), atol=1e-5)
    x, table = x.requires_grad_(), table.requires_grad_()
    for wanted in ((x,), (table,)):
        grads = [torch.autograd.grad(how(linear_log_probs, x, table, target[:, None]).mean.sum(), wanted)[0]
                 for how in (portable, lambda function, *rest: function(*rest))]  # fmt: skip
        assert torch.allclose(*grads, atol=1e-4)


def test_each_path_is_taken_where_the_rule_says(monkeypatch):
    """Gradients of wide rows are made by portable products, everything else by kernels."""

    def refuse(*arguments, **options):
        raise AssertionError("the other path was taken")

    monkeypatch.setattr(log_probs, "_chunked", refuse)
    weights = torch.ones(3)
    for width, path in ((128, "_chunked_gradients"), (130, "gradients")):
        x, table, target, _ = inputs(3, 70, width)
        with monkeypatch.context() as patched:
            patched.setattr(log_probs if path[0] == "_" else launch, path, refuse)
            losses(x, table, target, 0.1, None, weights)
