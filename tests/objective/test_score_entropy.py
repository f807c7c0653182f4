"""Score entropy and the bound in continuous time, against rates and scores from matrices."""

import math

import pytest
import torch
from gaussians import BOS, PAD, build
from token_batches import DRAWN, TOKENS, V, batch, kernel_of, matrix

from fairseq_diffusion.objective import score_entropy as module
from fairseq_diffusion.objective.score_entropy import Moments, score_entropy
from fairseq_diffusion.objective.token_bound import Rows, divergence
from fairseq_diffusion.process.schedule import Schedule

SLOPE = 1.7  # -da/dt
SHARES = [0.0, 0.3, 1.0]


def rows_of(y_t, y_0, a):
    return Moments(torch.tensor([y_t]), torch.tensor([y_0]), torch.tensor([a]).double(), torch.tensor([SLOPE]).double())


def possible(kernel, a, y_0, y_t, drawn=DRAWN[0]):
    return matrix(kernel.until(torch.tensor(a).double()), drawn)[y_0, y_t] > 0


def by_matrices(kernel, a, y_t, y_0, w, drawn):
    """sum_k R_k (s_k - r_k log s_k + r_k (log r_k - 1)), with the rates of a short step."""
    dt, a = 1e-6, torch.tensor(a).double()
    rate = (matrix(kernel.between(a + SLOPE * dt / 2, a - SLOPE * dt / 2), drawn) - torch.eye(V + 1)) / dt
    until, total = matrix(kernel.until(a), drawn), 0.0
    for k in range(V):
        if k != y_t and rate[k, y_t] > 1e-6:
            s = sum(w[j] * until[j, k] / until[j, y_t] for j in range(V) if until[j, y_t] > 0)
            r = until[y_0, k] / until[y_0, y_t]
            total += rate[k, y_t] * (s - r * s.log() + (r * (r.log() - 1) if r > 0 else 0.0))
    return total


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("a", [0.9, 0.5, 0.01])
@pytest.mark.parametrize("y_0", [1, 4])
@pytest.mark.parametrize("y_t", [1, 4, 6, V])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("drawn", DRAWN)
def test_the_loss_is_that_of_matrices(share, a, y_0, y_t, normalised, drawn):
    """And its gradient; nothing is lost where y_t can only be y_0."""
    kernel = kernel_of(share, drawn)
    if not possible(kernel, a, y_0, y_t, drawn):
        return
    torch.manual_seed(y_0 + y_t)
    x, table = torch.randn(1, 5, requires_grad=True), torch.randn(V, 5)
    logits = (x @ table.T).double()[0]
    w = logits.softmax(-1) if normalised else logits.exp() / V
    found = score_entropy(x, table, rows_of(y_t, y_0, a), kernel, normalised).sum()
    expected = by_matrices(kernel, a, y_t, y_0, w, drawn)
    if not torch.is_tensor(expected):
        assert found == 0 and not torch.autograd.grad(found, x)[0].any()  # nothing becomes y_t on the way forward
        return
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    found, expected = (torch.autograd.grad(loss, x)[0] for loss in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("y_t", [4, 6, V])
def test_it_is_0_for_the_true_word_and_more_for_any_other_weights(share, y_t):
    kernel, a, y_0 = kernel_of(share), 0.6, 4
    if not possible(kernel, a, y_0, y_t):
        return
    certain = torch.full((1, V), -60.0)
    certain[0, y_0] = math.log(V)  # a weight of 1
    rows = rows_of(y_t, y_0, a)
    loss = lambda logits: float(score_entropy(logits, torch.eye(V), rows, kernel, False))  # noqa: E731
    assert loss(certain) == pytest.approx(0, abs=1e-5)
    nothing = share == 1 and y_t != V  # a word that is seen is certain
    for _ in range(20):
        assert (loss(certain + torch.randn(1, V).sign()) > 1e-4) != nothing


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("curve", ["log_linear", "cosine_root", "geometric_decay"])
def test_with_weights_that_add_up_to_1_it_is_the_bound_of_ever_shorter_steps(share, curve):
    kernel, schedule, T = kernel_of(share), Schedule(curve), 20000
    torch.manual_seed(0)
    x, table, t = torch.randn(6, 5), torch.randn(V, 5), torch.tensor([0.2, 0.5, 0.7, 0.2, 0.5, 0.7]).double()
    y_t = torch.tensor([V, V, V, 4, 4, 4] if share == 1 else [3, 4, 5, 4, 5, 6] if share == 0 else [V, V, 4, 6, V, 5])
    y_0 = torch.tensor([4] * 6)
    now, before = (schedule.level(time).alpha.square() for time in (t, t - 1 / T))
    steps = T * divergence(x, table, Rows(y_t, y_0, before, now), kernel)
    found = score_entropy(x, table, Moments(y_t, y_0, now, schedule.slope(t)), kernel, True)
    torch.testing.assert_close(found, steps, rtol=2e-2, atol=2e-3)


def terms_of(objective, **flags):
    translator = build(**{**TOKENS, "objective": objective, "time_min": 0.01, **flags})
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    return translator, translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0).terms


def test_where_words_are_only_hidden_the_bound_is_the_elbo():
    """And free weights cost Z - 1 - log Z more, Z what they add up to."""
    translator, terms = terms_of("elbo,vlb,score_entropy")
    torch.testing.assert_close(terms["vlb"], terms["elbo"], rtol=1e-4, atol=1e-4)
    assert (terms["score_entropy"] > terms["elbo"]).all()
    x, table = torch.randn(4, 5), torch.randn(V, 5)
    rows = Moments(*(torch.tensor(each) for each in ([V] * 4, [3, 4, 5, 6])), *torch.tensor([[0.4] * 4, [1.0] * 4]))
    kernel = kernel_of(1.0)
    free, fixed = (score_entropy(x, table, rows, kernel, normalised) for normalised in (False, True))
    log_z = (x @ table.T).logsumexp(-1) - math.log(V)
    torch.testing.assert_close(free - fixed, (log_z.exp() - 1 - log_z) / 0.6, rtol=1e-4, atol=1e-5)


def test_losses_are_due_at_free_positions_alone():
    """Those that are padded, or known with the length, cost nothing; all else is finite whatever the estimate."""
    _, terms = terms_of("score_entropy", mask_share=0.0, schedule="geometric_decay")
    assert terms["score_entropy"].isfinite().all() and (terms["score_entropy"] > 0).all()


def test_no_rows_cost_nothing():
    empty = torch.zeros(0, dtype=torch.long)
    x, a = torch.zeros(0, 5, requires_grad=True), torch.zeros(0).double()
    loss = score_entropy(x, torch.randn(V, 5), Moments(empty, empty, a, a), kernel_of(0.3), True)
    assert loss.shape == (0,) and loss.requires_grad


def test_rows_are_divided_into_chunks(monkeypatch):
    kernel, x, table = kernel_of(0.3), torch.randn(9, 5), torch.randn(V, 5)
    a = torch.linspace(0.9, 0.5, 9).double()
    rows = Moments(torch.tensor([3, 4, V, 5, 6, V, 3, 3, 4]), torch.full((9,), 4), a, a)
    whole = score_entropy(x, table, rows, kernel, False)
    monkeypatch.setattr(module, "chunk_rows", lambda *_: 2)
    torch.testing.assert_close(score_entropy(x, table, rows, kernel, False), whole)
