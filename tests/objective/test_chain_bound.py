"""The bound of a chain against sums over everything that its levels may hold."""

from __future__ import annotations

from math import log

import pytest
import torch
from chains import BOS, EOS, PAD, UNK, Numbers, Words

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective import chain_bound
from fairseq_diffusion.objective.chain_bound import bound_for, chain_times, estimated
from fairseq_diffusion.objective.likelihood import mean_and_error, stratified_choice
from fairseq_diffusion.process.schedule import Schedule

SHARES = [0.0, 0.4, 1.0]
PAIRS = [(4, 6), (5, 5), (UNK, 6)]


def targets(pairs=PAIRS):
    return torch.tensor([[BOS, *pair, EOS] for pair in pairs])


def of_words(words, schedule, target, keys, samples=8, steps=None):
    bound = bound_for(words.state, schedule, steps)
    with torch.no_grad():
        return estimated(bound, words.denoise, target, target.ne(PAD), keys, samples)


def kept(schedule, steps):
    """a_0 = 1 to a_T = 0."""
    between = [schedule.level(torch.tensor(i / steps).double()).alpha.square() for i in range(1, steps)]
    return [torch.tensor(1.0).double(), *between, torch.tensor(0.0).double()]


def many(values, number=4000):
    """`number` keys for each of the rows of `values`, and those rows."""
    return values.repeat_interleave(number, 0), noise.fold(torch.arange(len(values) * number), 5)


def agree(found, expected, number):
    """Means of `number` estimates each [n number] are the expected values [n], as far as their own spread says."""
    found = found.view(-1, number)
    spread = found.std(1) / number**0.5
    assert ((found.mean(1) - expected).abs() < 4.5 * spread + 1e-6).all(), (found.mean(1), expected, spread)


# -- words


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("schedule", [Schedule("log_linear", steps=4), Schedule("cosine_root", steps=3)])
@pytest.mark.parametrize("tags", [(), (5,)])
@torch.no_grad()
def test_the_bound_of_words_is_the_sum_over_all_corruptions(share, schedule, tags):
    """Tags are never drawn, like <unk>; a target may have both."""
    words = Words(share, tags=tags)
    levels = kept(schedule, schedule.steps)
    exact = torch.tensor([words.bound(pair, levels) for pair in PAIRS])
    truth = torch.tensor([words.nll(pair, levels) for pair in PAIRS])
    assert (truth < exact - 1e-3).all()
    target, keys = many(targets())
    nats, error = of_words(words, schedule, target, keys)
    agree(nats, exact, 4000)
    each = nats.view(3, -1)
    assert (error.view(3, -1).square().mean(1).sqrt() > 0.97 * each.std(1)).all()  # at least what they spread


@pytest.mark.parametrize("tags", [(), (5,)])
@torch.no_grad()
def test_words_are_a_distribution(tags):
    """The sum that the bound is compared with, over all y, is 1: nothing is lost in it."""
    words, levels = Words(0.4, tags=tags), kept(Schedule("log_linear"), 3)
    everything = torch.tensor([words.nll((i, j), levels) for i in range(7) for j in range(7)])
    assert float((-everything).exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("share", SHARES)
@torch.no_grad()
def test_in_continuous_time_steps_are_those_asked_for(share):
    words, schedule = Words(share), Schedule("log_linear")
    target, keys = many(targets(PAIRS[:1]))
    for steps in (1, 6):
        exact = torch.tensor([words.bound(PAIRS[0], kept(schedule, steps))])
        agree(of_words(words, schedule, target, keys, steps=steps)[0], exact, 4000)


@torch.no_grad()
def test_without_a_table_there_are_a_thousand_steps():
    """They cost what 64 do, up to 0.05, and more than few do here."""
    words = Words(1.0)
    words.maps[0][-1] = 0  # the network does not see the time
    few, many_steps = (words.bound(PAIRS[0], kept(Schedule("log_linear"), steps)) for steps in (2, 64))
    target, keys = many(targets(PAIRS[:1]), 20_000)
    found = of_words(words, Schedule("log_linear"), target, keys, samples=4)[0]
    assert float(found.mean()) == pytest.approx(many_steps + 0.05, abs=0.2)
    assert float(found.mean()) > few + 0.7


@torch.no_grad()
def test_a_step_of_a_thousand_is_not_lost_in_rounding():
    """Words that were never likely to change: the divergence of each step is near 1e-6, of logarithms near 10."""
    words, schedule = Words(0.0), Schedule("log_linear", steps=1000)
    words.state.weight.data[:] = 0  # all words are as probable at any time
    levels = kept(schedule, 1000)
    bound = bound_for(words.state, schedule, None)
    target = targets(PAIRS[:1])
    step = torch.tensor([400])
    drawn = chain_bound.Drawn(step, target, target.ne(PAD), target, words.denoise(target, step / 1000))
    (part,) = bound.parts
    p = words.back(0.401, levels[400], levels[401])[8 * 4 + 6]
    q = torch.stack([words.posteriors(levels[400], levels[401])[word, word] for word in PAIRS[0]])
    exact = torch.where(q > 0, q * (q / p.where(q > 0, 1.0)).log(), 0.0).sum()
    assert float(part.cost(drawn)) == pytest.approx(float(exact), rel=1e-6)


# -- vectors

LINES = {
    "continuous": (Schedule("sigma_t"), 5),
    "from the smallest time trained on": (Schedule("sigma_t", time_min=0.3), 4),
    "with a factor": (Schedule("sqrt_offset", "factor", 2.0, steps=6), None),
    "one level": (Schedule("edm"), 1),
}


def of_numbers(numbers, steps, target, keys, samples=8):
    bound = bound_for(numbers.state, numbers.schedule, steps)
    with torch.no_grad():
        return estimated(bound, numbers.denoise, target, torch.ones_like(target).bool(), keys, samples)


@pytest.mark.parametrize("squeeze", [1.0, 0.6])
@pytest.mark.parametrize("schedule, steps", LINES.values(), ids=LINES)
@torch.no_grad()
def test_the_bound_of_vectors_is_an_integral(schedule, steps, squeeze):
    numbers = Numbers(schedule, squeeze)
    times = chain_times(schedule, steps)
    exact, truth = numbers.bound(times), numbers.nll(times)
    assert float((-truth).exp().sum()) == pytest.approx(1, abs=1e-4)
    assert (truth < exact + 1e-6).all() and (len(times) == 1 or (truth < exact - 1e-3).any())
    target, keys = many(torch.arange(3)[:, None])
    nats, error = of_numbers(numbers, steps, target, keys)
    agree(nats, exact, 4000)
    each = nats.view(3, -1)
    assert (error.view(3, -1).square().mean(1).sqrt() > 0.95 * each.std(1)).all()


@torch.no_grad()
def test_a_perfect_denoiser_in_many_steps_costs_what_the_words_do():
    """log 2 for two words that are as probable: where the last estimate has become certain nothing is lost."""
    numbers = Numbers(Schedule("sigma_t"), points=(-5.0, 5.0))
    times = chain_times(numbers.schedule, 2000)
    torch.testing.assert_close(numbers.bound(times), torch.tensor([log(2)] * 2), rtol=0, atol=0.01)
    target, keys = many(torch.arange(2)[:, None], 400)
    agree(of_numbers(numbers, 2000, target, keys, samples=64)[0], numbers.bound(times), 400)


def test_positions_add_up_and_padding_does_not_count():
    numbers = Numbers(Schedule("sigma_t"))
    bound, keys = bound_for(numbers.state, numbers.schedule, 5), torch.tensor([7, 7])
    target, mask = torch.tensor([[1, 2, 0], [1, 2, 2]]), torch.tensor([[True, True, False]] * 2)
    with torch.no_grad():
        nats, error = estimated(bound, numbers.denoise, target, mask, keys, 6)
        short, _ = estimated(bound, numbers.denoise, target[:, :2], mask[:, :2], keys, 6)
        alone, _ = estimated(bound, numbers.denoise, target[:, :1], mask[:, :1], keys, 6)
    torch.testing.assert_close(nats, short)
    assert nats[0] == nats[1] > alone[0]


# -- times, strata, errors


def test_times_of_a_chain():
    assert chain_times(Schedule("log_linear", steps=4), None).tolist() == [0.25, 0.5, 0.75, 1]
    assert chain_times(Schedule("log_linear", steps=4), 4).tolist() == [0.25, 0.5, 0.75, 1]
    assert chain_times(Schedule("log_linear"), 2).tolist() == [0.5, 1]
    assert chain_times(Schedule("log_linear"), 1).tolist() == [1]
    assert len(chain_times(Schedule("log_linear", time_min=1e-3), None)) == 1000
    torch.testing.assert_close(chain_times(Schedule(time_min=0.2), 3), torch.tensor([0.2, 0.6, 1.0]).double())
    assert chain_times(Schedule(steps=10, time_min=0.25), None)[0] == 0.3
    clipped = Schedule("sigma_t", "clip")
    clipped.update(torch.eye(4) * 2)
    assert chain_times(clipped, 7)[0] == clipped.modifier.sigma_min > 0.5


@pytest.mark.parametrize("steps, said", [(0, "a chain of 0 steps"), (-3, "a chain of -3 steps")])
def test_chains_that_are_none(steps, said):
    with pytest.raises(UserError, match=said):
        chain_times(Schedule(), steps)


def test_a_table_has_its_own_steps():
    with pytest.raises(UserError, match=r"8 steps were asked for, but .* has 4 of its own .*drop --steps"):
        chain_times(Schedule(steps=4), 8)


def test_a_state_without_a_bound_is_named():
    state = Words(1.0).state
    state.family = "hidden words"
    with pytest.raises(UserError, match="family hidden words, only for those of: categorical, gaussian"):
        bound_for(state, Schedule(), None)


def test_each_stratum_has_one_draw():
    share = torch.tensor([0.0, 0.5, 0.125, 0.375]).double()
    number, weight = stratified_choice(share, torch.arange(500), 8)
    assert torch.equal(weight, 1 / share[number])
    assert (number[:, :4] == 1).all() and (number[:, 4] == 2).all() and (number[:, 5:] == 3).all()
    fine, _ = stratified_choice(torch.ones(1000).double() / 1000, torch.arange(500), 4)
    assert (fine // 250 == torch.arange(4)).all() and len(fine.unique()) > 700


@pytest.mark.parametrize("samples", [2, 3, 8, 9])
def test_errors_are_those_of_neighbours(samples):
    torch.manual_seed(0)
    values = torch.randn(20_000, samples).double() * 3
    mean, error = mean_and_error(values)
    torch.testing.assert_close(mean, values.mean(1))
    expected = 3 / samples**0.5 * (1 if samples % 2 == 0 else ((samples + 1) / samples) ** 0.5)
    assert float(error.square().mean().sqrt()) == pytest.approx(expected, rel=0.02)


@torch.no_grad()
def test_a_batch_is_cut_into_draws_that_fit(monkeypatch):
    words, seen = Words(0.4), []
    schedule, target, keys = Schedule("log_linear"), targets(), torch.arange(3)
    whole = of_words(words, schedule, target, keys, 7)
    denoise = words.denoise
    words.denoise = lambda s_t, t: (seen.append(len(s_t)), denoise(s_t, t))[1]
    monkeypatch.setitem(chain_bound.POSITIONS, "cpu", 30)
    cut = of_words(words, schedule, target, keys, 7)
    assert seen == [6, 6, 6, 3]
    torch.testing.assert_close(cut, whole)


@torch.no_grad()
def test_nothing_to_predict_costs_nothing():
    words, target = Words(1.0), torch.tensor([[BOS, EOS, PAD, PAD]])
    nats, error = of_words(words, Schedule("log_linear"), target, torch.arange(1))
    assert nats.tolist() == error.tolist() == [0]
