from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.objective.terms import TERMS, Objective, Outcome, parse_terms
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.states.embedding import EmbeddingState


def outcome(passes=2, sigma_last=1.0, smoothing=0.0):
    torch.manual_seed(0)
    state = EmbeddingState(30, 4)
    tokens = torch.randint(30, (3, 5))
    x_0 = state.encode(tokens)
    estimates = [torch.randn(3, 5, 4, requires_grad=True) for _ in range(passes)]
    level, schedule = Level.variance_preserving(times([[0.5]])), Schedule()
    schedule.level = lambda t: Level.variance_preserving(sigma_last * t)
    t = times([[0.5]] * 3)
    seen = tokens, x_0, x_0, torch.randn(3, 5, 4), EVERYWHERE
    return Outcome(*seen, t, level, torch.ones(3), t[:, 0], estimates, state, schedule, smoothing)


EVERYWHERE = torch.ones(3, 5, dtype=torch.bool)


def test_mse_averages_both_passes_and_does_not_detach_x_0():
    o = outcome()
    expected = sum(((e - o.s_0) ** 2).mean(-1) for e in o.estimates) / 2
    assert torch.allclose(TERMS["mse"](o, EVERYWHERE), expected)
    assert torch.autograd.grad(TERMS["mse"](o, EVERYWHERE).sum(), o.state.weight)[0].abs().sum() > 0


def test_an_error_of_v_is_that_of_x_0_by_the_noise():
    """v = alpha eps - sigma x_0, where eps is what x_t leaves."""
    o = outcome()
    level = Level.variance_preserving(times([[0.3], [0.6], [0.9]]))
    alpha, sigma = (x[..., None].float() for x in (level.alpha, level.sigma))
    x_t = level.mix(o.s_0, torch.randn(3, 5, 4))
    v = lambda x: alpha * (x_t - alpha * x) / sigma - sigma * x  # noqa: E731
    expected = sum((v(e) - v(o.s_0)).square().mean(-1) for e in o.estimates) / 2
    found = TERMS["v_mse"](replace(o, level=level, s_t=x_t, weight=torch.tensor([1.0, 2.0, 1.0])), EVERYWHERE)
    assert torch.allclose(found, expected * torch.tensor([[1.0], [2.0], [1.0]]), rtol=1e-3)


def test_the_importance_of_a_sentences_time_multiplies_what_its_estimates_cost():
    """What does not depend on the time is left as it is."""
    plain, weight = outcome(sigma_last=0.6), torch.tensor([2.0, 1.0, 0.5])
    weighted = replace(plain, weight=weight)
    for name, factor in (("mse", weight), ("anchor", weight), ("rounding", torch.ones(3)), ("prior", torch.ones(3))):
        expected = factor[:, None] * TERMS[name](plain, EVERYWHERE)
        assert torch.allclose(TERMS[name](weighted, EVERYWHERE), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rounding_sees_x_0_and_anchor_the_estimates(smoothing):
    o = outcome(smoothing=smoothing)

    def ce(x):
        log_p = (x @ o.state.table().T).log_softmax(-1)
        nll = -log_p.gather(-1, o.tokens[..., None])[..., 0]
        return (1 - smoothing) * nll - smoothing * log_p.mean(-1)

    assert torch.allclose(TERMS["rounding"](o, EVERYWHERE), ce(o.s_0), atol=1e-5)
    assert torch.allclose(TERMS["anchor"](o, EVERYWHERE), (ce(o.estimates[0]) + ce(o.estimates[1])) / 2, atol=1e-5)
    reached = torch.autograd.grad(TERMS["rounding"](o, EVERYWHERE).sum(), o.estimates, allow_unused=True)
    assert reached == (None, None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_is_not_computed_and_leaves_no_trace(smoothing):
    """Outside the mask estimates are no numbers."""
    o, mask = outcome(smoothing=smoothing), torch.rand(3, 5) < 0.6
    broken = replace(o, estimates=[e.detach().where(mask[..., None], torch.nan).requires_grad_() for e in o.estimates])
    for name in ("rounding", "anchor"):
        clean, masked = TERMS[name](o, EVERYWHERE), TERMS[name](broken, mask)
        assert torch.allclose(masked, clean.where(mask, 0.0), atol=1e-6)
        weights = torch.rand(3, 5)
        sums = (clean * weights)[mask].sum(), (masked * weights).sum()
        for like, of in zip(*(torch.autograd.grad(total, o.state.weight) for total in sums)):
            assert torch.allclose(like, of, rtol=1e-4, atol=1e-5 * like.abs().max())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rounding_looks_at_each_word_once_and_counts_it_as_often_as_it_is_there(smoothing, monkeypatch):
    o, mask = outcome(smoothing=smoothing), torch.rand(3, 5) < 0.7
    tokens = o.tokens % 4
    o = replace(o, tokens=tokens, drawn=o.state.encode(tokens), s_0=o.state.encode(tokens))
    weights = torch.rand(3, 5)
    plain = o.state.nll(o.s_0, o.tokens, smoothing)
    nll = Mock(wraps=o.state.nll)
    monkeypatch.setattr(o.state, "nll", nll)
    once = TERMS["rounding"](o, mask)
    assert len(nll.call_args.args[0]) == len(o.tokens[mask].unique())
    assert torch.allclose(once, plain.where(mask, 0.0), atol=1e-6)
    like, of = (torch.autograd.grad((x * weights * mask).sum(), o.state.weight)[0] for x in (plain, once))
    assert torch.allclose(like, of, rtol=1e-4, atol=1e-5 * like.abs().max())


def test_a_teacher_changes_what_estimates_are_compared_with_and_not_what_words_are_read_from():
    o = outcome()
    taught = replace(o, s_0=torch.randn_like(o.s_0))
    assert torch.equal(TERMS["rounding"](taught, EVERYWHERE), TERMS["rounding"](o, EVERYWHERE))
    assert not torch.allclose(TERMS["mse"](taught, EVERYWHERE), TERMS["mse"](o, EVERYWHERE))


def test_noisy_words_are_read_where_they_are(monkeypatch):
    """Each place has noise of its own, so none stands for another."""
    o = outcome()
    o.state.noise_std = 0.5
    drawn = o.state.draw(o.tokens, torch.arange(3))
    log_p = (drawn @ o.state.readout().T).log_softmax(-1).gather(-1, o.tokens[..., None])[..., 0]
    assert torch.allclose(TERMS["rounding"](replace(o, drawn=drawn), EVERYWHERE), -log_p, atol=1e-5)


def test_prior_is_zero_when_the_schedule_ends_in_noise():
    assert TERMS["prior"](outcome(), EVERYWHERE).abs().max() == 0
    o = outcome(sigma_last=0.6)
    assert torch.allclose(TERMS["prior"](o, EVERYWHERE), 0.64 * (o.s_0**2).mean(-1))


def test_normalisers():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    values = torch.tensor([[1.0, 2, 3, 4], [10, 20, 1000, 1000]])
    sentences, tokens = Objective("mse", "sentences"), Objective("mse", "tokens")
    assert (sentences.share(values, mask).sum() / sentences.sample_size(mask)).item() == pytest.approx((2.5 + 15) / 2)
    assert (tokens.share(values, mask).sum() / tokens.sample_size(mask)).item() == pytest.approx(40 / 6)
    once_a_sentence = torch.tensor([1.0, 4.0])
    assert sentences.share(once_a_sentence, mask).tolist() == [1, 4]
    assert tokens.share(once_a_sentence, mask).tolist() == [4, 8]


def test_parse_terms():
    assert parse_terms("mse=1, anchor=0.5,rounding") == {"mse": 1.0, "anchor": 0.5, "rounding": 1.0}


@pytest.mark.parametrize(
    "text, sentence",
    [("mes=1", "--objective has the unknown term 'mes'.*mse"), ("mse=x", "without a number"), (" ", "names no term")],
)
def test_bad_objectives_are_explained(text, sentence):
    with pytest.raises(UserError, match=sentence):
        Objective(text)


def test_bad_normaliser_is_explained():
    with pytest.raises(UserError, match="sentences, tokens, words"):
        Objective("mse", "letters")
