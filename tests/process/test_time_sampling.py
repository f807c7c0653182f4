"""Training times: each sampler's weights give the mean over uniform times; what second_moment learns from losses."""

import pytest
import torch
from gaussians import BOS, PAD, build
from token_batches import TOKENS, batch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS, SecondMoment

N = 200_000
KEYS = noise.fold(torch.arange(N), 3)


def learnt() -> SecondMoment:
    """One that has seen losses which grow with time, all bins often enough."""
    sampler = SecondMoment()
    for _ in range(SecondMoment.enough):
        u = (torch.arange(SecondMoment.bins, dtype=torch.float64) + 0.5) / SecondMoment.bins
        sampler.observe(u, 1 + 9 * u)
    return sampler


@pytest.mark.parametrize("make", [*(TIME_SAMPLERS[name] for name in TIME_SAMPLERS if name != "logit_normal"), learnt])
def test_weighted_means_are_those_of_uniform_times(make):
    u, weight = make()(KEYS)
    assert u.dtype == torch.float64 and u.min() >= 0 and u.max() < 1
    for f, mean in ((torch.ones_like, 1.0), (torch.square, 1 / 3), (lambda u: (u > 0.905).double(), 0.095)):
        assert float((weight * f(u)).mean()) == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("mean, spread", [(0.0, 1.0), (1.5, 0.8)])
def test_log_odds_are_normal(mean: float, spread: float):
    u, weight = TIME_SAMPLERS["logit_normal"](mean, spread)(KEYS)
    assert u.dtype == torch.float64 and torch.equal(weight, torch.ones(N).double())
    odds = ((u / (1 - u)).log() - mean) / spread
    assert odds.mean().abs() < 0.01 and odds.std().item() == pytest.approx(1, abs=0.01)
    assert (odds < 1).double().mean().item() == pytest.approx(0.8413, abs=0.004)


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"time_mean": 1.5}, "--time-mean 1.5 is for --time-sampler logit_normal"),
        ({"time_spread": 0.5, "time_sampler": "stratified"}, "--time-spread 0.5 is for --time-sampler logit_normal"),
        ({"time_spread": 0.0, "time_sampler": "logit_normal"}, "a standard deviation above 0"),
        ({**TOKENS, "time_sampler": "logit_normal", "objective": "elbo"}, "--objective elbo is a bound"),
    ],
)
def test_log_odds_that_are_not_drawn_are_refused(flags, said):
    with pytest.raises(UserError, match=said):
        build(**flags)
    assert build(time_sampler="logit_normal", time_mean=1.5).time_sampler.mean == 1.5


def test_times_are_drawn_in_proportion_to_the_root_of_the_mean_square():
    u, weight = learnt()(KEYS)
    middle = (torch.arange(SecondMoment.bins) + 0.5) / SecondMoment.bins
    expected = (1 + 9 * middle) / (1 + 9 * middle).sum()
    expected = 0.999 * expected + 0.001 / SecondMoment.bins
    found = torch.bincount((u * SecondMoment.bins).long(), minlength=SecondMoment.bins) / N
    assert (found - expected).abs().max() < 5 * (0.02 / N) ** 0.5
    k = (u * SecondMoment.bins).long()
    torch.testing.assert_close(weight, 1 / (SecondMoment.bins * expected[k].double()), rtol=1e-5, atol=1e-5)


def test_times_are_even_until_all_bins_are_seen_often_enough_and_in_validation():
    sampler, plain = learnt(), TIME_SAMPLERS["uniform"]()(KEYS[:9])[0]
    assert not torch.allclose(sampler(KEYS[:9])[0], plain)
    torch.testing.assert_close(sampler.eval()(KEYS[:9]), (plain, torch.ones(9).double()))
    sampler.train().seen[7] = SecondMoment.enough - 1
    torch.testing.assert_close(sampler(KEYS[:9]), (plain, torch.ones(9).double()))


def test_the_running_mean_of_each_bin():
    """The first mean as it is, then a tenth of each new one; a bin without sentences keeps its own.  What overflows is
    left out."""
    sampler = SecondMoment()
    sampler.observe(torch.tensor([0.001, 0.002, 0.55]).double(), torch.tensor([1.0, 3.0, 2.0]))
    sampler.observe(torch.tensor([0.003, 1.0]).double(), torch.tensor([4.0, 5.0]))
    sampler.observe(torch.tensor([0.4, 0.401, 1.0]).double(), torch.tensor([torch.inf, torch.nan, torch.nan]))
    expected, seen = torch.zeros(100).double(), torch.zeros(100).double()
    expected[0], expected[55], expected[99] = 0.9 * 5 + 0.1 * 16, 4, 25
    seen[0], seen[55], seen[99] = 3, 1, 1
    torch.testing.assert_close(sampler.moment, expected)
    assert torch.equal(sampler.seen, seen)
    again = SecondMoment()
    again.load_state_dict(sampler.state_dict())
    assert torch.equal(again.moment, sampler.moment) and torch.equal(again.seen, sampler.seen)


@pytest.mark.parametrize("normaliser", ["sentences", "tokens", "words"])
def test_training_tells_it_the_mean_loss_of_each_sentence(normaliser, monkeypatch):
    """Without the importance weight, and without the length's loss; validation tells it nothing."""
    translator = build(
        **{**TOKENS, "loss_normaliser": normaliser}, objective="corrupted=2,anchor", time_sampler="second_moment"
    )
    told = []
    translator.time_sampler.load_state_dict(learnt().state_dict())
    monkeypatch.setattr(translator.time_sampler, "observe", lambda u, loss: told.append((u, loss)))
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    arguments = padded, padded.ne(PAD), target, target.ne(PAD), keys, 0
    translator.losses(*arguments)
    assert not told
    losses = translator.train().losses(*arguments)
    ((u, loss),) = told
    again, weight = translator.time_sampler(noise.fold(keys, noise.Stream.TIME))
    assert torch.equal(u, again) and (weight != 1).all()
    words = 1 if normaliser == "sentences" else translator.state.free(target.ne(PAD)).sum(-1)
    expected = (2 * losses.terms["corrupted"] + losses.terms["anchor"]) / words / weight
    torch.testing.assert_close(loss, expected.detach(), check_dtype=False)
