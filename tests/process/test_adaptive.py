"""Schedules that are fitted to losses, against what they promise and the paper's algorithm step by step."""

from __future__ import annotations

import random
import socket
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from fairseq_diffusion.process.adaptive import BINS, bin_of, increasing
from fairseq_diffusion.process.schedule import Schedule

PLACES = torch.arange(64)
T = 2000


def observe(schedule: Schedule, t: torch.Tensor, loss: Any, error: Any = None) -> None:
    """Losses [B] at times t [B], and errors [B, 64] of targets that have as many words."""
    mask = torch.ones(len(t), 64, dtype=torch.bool)
    schedule.modifier.observe(t, loss, error, mask)


def update(schedule: Schedule, times: int = 1) -> None:
    for _ in range(times):
        schedule.update(torch.zeros(3, 2))


def every_time(per_bin: int = 20) -> torch.Tensor:
    """As many times in each bin, their ends included, as a table of T steps has."""
    return torch.arange(1, BINS * per_bin + 1).double() / (BINS * per_bin)


def test_bins_have_the_times_of_the_table():
    """Step i of T, which is time i / T, is in the paper's bin floor((i - 1) / 20)."""
    assert torch.equal(bin_of(torch.arange(1, T + 1).double() / T), torch.arange(T) // 20)
    assert bin_of(torch.tensor([0.0, 1e-9, 1.0])).tolist() == [0, 0, BINS - 1]


@pytest.mark.parametrize("seed", range(20))
def test_the_increasing_sequence_is_that_of_pooled_neighbours(seed):
    rng = random.Random(seed)
    values, weight = ([rng.random() for _ in range(12)] for _ in range(2))
    pools: list[list[float]] = []  # mean, weight, number
    for value, mass in zip(values, weight):
        pools.append([value, mass, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, own, number = pools.pop()
            before = pools.pop()
            pools.append(
                [(before[0] * before[1] + mean * own) / (before[1] + own), before[1] + own, before[2] + number]
            )
    wanted = [mean for mean, _, number in pools for _ in range(int(number))]
    found = increasing(torch.tensor(values).double(), torch.tensor(weight).double())
    torch.testing.assert_close(found, torch.tensor(wanted).double())


# -- least variance


COST = {"early": lambda t: (-4 * t).exp(), "late": lambda t: 0.2 + t**3, "hump": lambda t: (6 * t * (1 - t)) ** 2}


@pytest.mark.parametrize("name", COST)
def test_weighted_losses_vary_least_where_times_are_drawn_by_them(name):
    """Their mean stays what it is."""
    schedule, t, u = Schedule("log_snr", "least_variance"), every_time(), torch.linspace(0.0005, 0.9995, 1000).double()
    cost = COST[name]
    at_first = schedule.training_time(u), schedule.training_weight(u)
    torch.testing.assert_close(at_first, (u, torch.ones_like(u)), rtol=0, atol=1e-12)
    observe(schedule, t, cost(t))
    update(schedule)
    drawn, weight = schedule.training_time(u), schedule.training_weight(u)
    found, before = weight * cost(drawn), cost(u)
    assert found.mean() == pytest.approx(float(before.mean()), rel=5e-3)
    assert found.std() < 0.15 * before.std()
    slope = (schedule.training_time(u + 1e-6) - drawn) / 1e-6
    assert ((weight - slope).abs() < 1e-6).double().mean() > 0.98  # but where a knot is between


def test_times_that_were_not_drawn_count_like_the_others():
    schedule, t = Schedule("log_snr", "least_variance"), every_time()
    observe(schedule, t[t > 0.5], torch.full_like(t[t > 0.5], 2.0))
    update(schedule)
    assert torch.allclose(schedule.modifier.knots, torch.linspace(0, 1, BINS + 1).double())


def test_noisy_losses_count_by_their_squares():
    """As often as the root of the mean square: a mean of 0 costs, if there is variance."""
    schedule, t = Schedule("log_snr", "least_variance"), every_time()
    sign = torch.where(torch.arange(len(t)) % 2 == 0, 1.0, -1.0).double()
    observe(schedule, t, torch.where(t > 0.5, 3 * sign, sign))
    update(schedule)
    assert float(schedule.modifier.knots[BINS // 2]) == pytest.approx(0.99 * 0.25 + 0.01 * 0.5)


# -- warp


LOSS = {"early": lambda t: t.clamp(max=0.3), "late": lambda t: t**4, "step": lambda t: torch.sigmoid(40 * (t - 0.6))}


def warped(name: str, noise: float = 0.0) -> Schedule:
    schedule, t = Schedule("sigma_t", "warp"), every_time()
    torch.manual_seed(0)
    observe(schedule, t, LOSS[name](t) + noise * torch.randn(len(t)).double())
    update(schedule)
    return schedule


@pytest.mark.parametrize("name", LOSS)
def test_the_loss_at_the_times_drawn_rises_evenly(name):
    """But for the hundredth of the draws that all times have alike."""
    schedule, u = warped(name), torch.linspace(0, 1, 1001).double()
    loss = LOSS[name](schedule.training_time(u)) - LOSS[name](torch.zeros(1).double())
    assert (loss / LOSS[name](torch.ones(1).double()) - u).abs().max() < 0.025


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_time_is_reached_by_one_u(noise):
    schedule, u = warped("late", noise), torch.linspace(0, 1, 1001).double()
    t, knots = schedule.training_time(u), schedule.modifier.knots
    assert (t.diff() > 0).all() and t[0] == 0 and t[-1] == 1
    place = (t * BINS).long().clamp(max=BINS - 1)
    torch.testing.assert_close(torch.lerp(knots[place], knots[place + 1], t * BINS - place), u, atol=1e-12, rtol=0)
    assert (knots.diff() > 0.9e-4).all()  # each bin goes on being drawn


def test_before_anything_is_observed_times_are_even():
    schedule, u = Schedule("sigma_t", "warp"), torch.linspace(0, 1, 11).double()
    update(schedule, 3)
    torch.testing.assert_close(schedule.training_time(u), u)
    observe(schedule, torch.tensor([0.5, 0.7]).double(), torch.tensor([torch.inf, torch.nan]))
    update(schedule)
    torch.testing.assert_close(schedule.training_time(u), u)


def test_what_was_observed_long_ago_counts_less():
    schedule, t = warped("early"), every_time()
    for _ in range(60):
        observe(schedule, t, LOSS["late"](t))
        update(schedule)
    assert (schedule.modifier.knots - warped("late").modifier.knots).abs().max() < 5e-3


# -- position


def positions_of(loss: Any, schedule: Schedule) -> torch.Tensor:
    """The loss of each position at every time, [T, 64], as a function of abar and the position."""
    t = every_time()
    return loss(schedule.level(t[:, None], positions=PLACES).alpha.square(), PLACES)


def table(schedule: Schedule) -> torch.Tensor:
    return schedule.level(every_time()[:, None], positions=PLACES).alpha.square()


def test_a_loss_that_rises_evenly_leaves_the_curve():
    schedule, t = Schedule("sqrt_offset", "position", steps=T), every_time()
    before = table(schedule)
    observe(schedule, t, t, (0.1 + 0.5 * t[:, None]).expand(-1, 64).contiguous())
    for _ in range(200):  # so that what each fit begins with is a small part
        observe(schedule, t, t, (0.1 + 0.5 * t[:, None]).expand(-1, 64).contiguous())
    update(schedule, 4)
    moved = (table(schedule) - before).abs()
    assert moved.max() < 0.015 and moved[100:].max() < 1e-3


def test_the_loss_of_every_position_comes_to_rise_evenly():
    """Late positions lose their words sooner; the first keeps the curve; others take its ends."""
    loss = lambda abar, place: 1 - abar ** (1 / (1 + place / 8))  # noqa: E731
    schedule, t = Schedule("sqrt_offset", "position", steps=T), every_time()
    before = table(schedule)
    for fit in range(6):
        error = positions_of(loss, schedule)
        for _ in range(40):
            observe(schedule, t, t, error)
        update(schedule, 1 if fit else 4)
    after, error = table(schedule), positions_of(loss, schedule)
    even = torch.lerp(error[:1], error[-1:], t[:, None])
    assert (
        (error - even)[:, 1:].abs().max()
        < 0.03
        < (positions_of(loss, Schedule("sqrt_offset", steps=T)) - even).abs().max()
    )
    assert torch.equal(after[:, 0], before[:, 0]) and not torch.allclose(after[:, 1], after[:, 40], atol=0.05)
    assert (after.diff(dim=0) <= 1e-12).all()
    late = schedule.level(t[:, None], positions=torch.tensor([63, 64, 99])).alpha
    assert torch.equal(late, late[:, :1].expand(-1, 3))


def straight_line(sums: np.ndarray, counts: np.ndarray, A: np.ndarray) -> np.ndarray:
    """The paper's fit of each position, with numpy's interpolation: sums and counts [100, S], A [T, S] -> [T, S]."""
    new = A.copy()
    for i in range(1, A.shape[1]):
        L = [(sums[k, i] + 0.5 * k / 99) / (counts[k, i] + 1) for k in range(100)]
        for k in range(1, 100):
            L[k] = max(L[k], L[k - 1] + 1e-5)
        knots = [L[0] - (L[1] - L[0]) / 2, *L, L[-1] + (L[-1] - L[-2]) / 2]
        shares = [A.max(), *(A[20 * k : 20 * k + 20, i].mean() for k in range(100)), A.min()]
        new[:, i] = np.interp(np.linspace(knots[0], knots[-1], T + 1)[1:], knots, shares)
    return new


def test_a_fit_is_the_papers():
    schedule, t, rng = Schedule("sqrt_offset", "position", steps=T), every_time(), np.random.default_rng(0)
    before, error = table(schedule).numpy(), torch.tensor(rng.random((T, 64)) + 3 * every_time()[:, None].numpy())
    observe(schedule, t, t, error)
    update(schedule, 3)
    assert np.array_equal(table(schedule), before)  # the first fits are left out
    update(schedule)
    sums = error.numpy().reshape(100, 20, 64).sum(1)
    first = straight_line(sums, np.full((100, 64), 20.0), before)
    np.testing.assert_allclose(table(schedule), first, atol=1e-6)
    observe(schedule, t, t, error.flip(1))
    update(schedule)
    second = straight_line(sums[:, ::-1], np.full((100, 64), 20.0), first)
    np.testing.assert_allclose(table(schedule)[:, 1:], second[:, 1:], atol=1e-6)


def test_what_is_no_word_is_not_observed():
    schedule = Schedule("sqrt_offset", "position", steps=T)
    t, error = torch.tensor([0.5, 0.9]).double(), torch.full((2, 70), 2.0)
    error[0, 3] = torch.nan
    schedule.modifier.observe(t, t, error, torch.arange(70) < torch.tensor([[5], [70]]))
    count, total = schedule.modifier.count, schedule.modifier.total
    assert count[49].nonzero()[:, 0].tolist() == [0, 1, 2, 4] and count[89].sum() == 64 and count.sum() == 68
    assert torch.equal(total, 2 * count)


# -- both


@pytest.mark.parametrize("name", ["warp", "position"])
def test_it_is_in_the_checkpoint_in_full_precision(name):
    schedule, t = Schedule("cosine", name, steps=T), every_time()
    observe(schedule, t, t**3, (t[:, None] ** (1 + PLACES / 30)).contiguous())
    update(schedule, 4)
    again = Schedule("cosine", name, steps=T)
    again.load_state_dict(schedule.half().bfloat16().state_dict())
    u = torch.linspace(0, 1, 101).double()
    assert torch.equal(again.training_time(u), schedule.training_time(u))
    assert torch.equal(table(again), table(schedule))


def rank(number: int, address: str, results: Any) -> None:
    torch.distributed.init_process_group("gloo", address, rank=number, world_size=2)
    results.put({key: value.tolist() for key, value in of_part(slice(number, None, 2)).items()})
    torch.distributed.destroy_process_group()


def of_part(part: slice) -> dict[str, torch.Tensor]:
    """What schedules learn of a part of the sentences."""
    found, t = {}, every_time(4)
    error = (t[:, None] ** (1 + PLACES / 30)).contiguous()
    for name in ("warp", "position"):
        schedule = Schedule("cosine", name)
        observe(schedule, t[part], (t**3)[part], error[part])
        update(schedule, 4)
        found |= {f"{name}.{key}": buffer for key, buffer in schedule.modifier.named_buffers()}
    return found


def test_two_ranks_learn_what_one_would_of_all():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"tcp://localhost:{probe.getsockname()[1]}"
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    ranks = [context.Process(target=rank, args=(number, address, results)) for number in range(2)]
    for each in ranks:
        each.start()
    found = [results.get() for _ in ranks]
    for each in ranks:
        each.join()
    for key, whole in of_part(slice(None)).items():
        assert found[0][key] == found[1][key]
        torch.testing.assert_close(torch.tensor(found[0][key]).double(), whole)
