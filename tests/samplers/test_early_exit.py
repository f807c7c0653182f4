"""Candidates that leave the batch, against the full batch, followed by hand."""

from dataclasses import dataclass, field

import pytest
import torch

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.early_exit import EarlyExit
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.loop import SAMPLERS, sample
from fairseq_diffusion.states.embedding import EmbeddingState

S, K, L, D, STEPS = 3, 5, 4, 2, 12
KEYS = noise.fold(torch.arange(S)[:, None], 9, torch.arange(K))
LENGTHS = torch.tensor([4, 4, 3, 3, 2])
MASK = (torch.arange(L) < LENGTHS[:, None]).expand(S, K, L)
WORDS = noise.normal(torch.tensor(3), 6, D)  # what tokens 0..5 look like


def read(x_t, x_0, index=None):
    """The word with the largest product, and its log-probability."""
    return tuple(reversed((x_0 @ WORDS.T).log_softmax(-1).max(-1)))


@dataclass
class Batch:
    """Each candidate has a key and a network of its own, so nothing depends on who stands beside it."""

    own: torch.Tensor = field(default_factory=lambda: KEYS)
    rows: list = field(default_factory=list)
    state: EmbeddingState = field(default_factory=lambda: EmbeddingState(6, D))

    @property
    def keys(self):
        return noise.fold(self.own, torch.arange(STEPS)[:, None, None])

    @property
    def mask(self):
        return torch.ones(*self.own.shape, L, dtype=torch.bool)

    def settle(self, estimate):
        return estimate

    def denoise(self, x_t, t, c):
        assert x_t.shape[:2] == self.own.shape
        self.rows.append(self.own.numel())
        aim = noise.normal(noise.fold(self.own, 77), L, D)
        return torch.tanh(2 * x_t) * t + aim * (1.2 - t) + 0.1 * c

    def select(self, sentences, members):
        return Batch(self.own[sentences[:, None], members], self.rows)


def run(name, prune=(), stable=0, leaving=True):
    """The sample, the rows of each network call, and without leaving the states and estimates of all steps."""
    grid = make_grid(Schedule(), STEPS, conditioning=SAMPLERS[name].conditioning)
    batch, trace = Batch(), []
    watch = None if leaving else lambda rows, x_t, x_0: trace.append((x_t, x_0))
    rows = EarlyExit(MASK, read, prune, stable) if leaving else None
    return sample(batch, grid, SAMPLERS[name].steps(grid), rows=rows, on_step=watch), batch.rows, trace


def by_hand(trace, prune, stable):
    """Who survives, when each is finished (a step, or None) and what each ends with."""
    alive, finished = torch.ones(S, K, dtype=torch.bool), {}
    for s in range(S):
        streak, before, score = [0] * K, [None] * K, [0.0] * K
        for step in range(1, STEPS):
            for k in range(K):
                if (s, k) in finished:
                    continue
                tokens, log_p = read(*(x[s, k, : LENGTHS[k]] for x in trace[step - 1]))
                score[k] = log_p.mean().item()
                streak[k] = streak[k] + 1 if before[k] == tokens.tolist() else 0
                before[k] = tokens.tolist()
                if stable and streak[k] >= stable:
                    finished[s, k] = step
            if step in prune:
                ranked = sorted((k for k in range(K) if alive[s, k]), key=lambda k: -score[k])
                alive[s, ranked[(len(ranked) + 1) // 2 :]] = False
    return alive, finished


@pytest.mark.parametrize("name", ["ddim", "ddpm", "cedi", "dpmpp_2m"])
@pytest.mark.parametrize("prune, stable", [((), 1), ((), 2), ((3,), 0), ((2, 5, 7), 0), ((4, 6), 2), ((1, 2, 3, 4), 1)])
def test_leaving_changes_who_is_computed_and_not_what(name, prune, stable):
    result, rows, _ = run(name, prune, stable)
    _, every, trace = run(name, leaving=False)
    alive, finished = by_hand(trace, prune, stable)
    assert torch.equal(result.alive, alive)
    for s in range(S):
        for k in range(K):
            if alive[s, k]:
                last = trace[finished.get((s, k), STEPS) - 1]
                for found, expected in zip((result.s, result.estimate), last):
                    torch.testing.assert_close(found[s, k], expected[s, k], rtol=0, atol=1e-6)
    assert result.calls.sum() == sum(rows) < sum(every) == S * K * STEPS
    assert all(result.calls[s, k] >= step for (s, k), step in finished.items() if alive[s, k])


def test_pruning_halves_the_batch_each_time():
    _, rows, _ = run("ddim", prune=(2, 5, 7))
    assert rows == [S * K] * 2 + [S * 3] * 3 + [S * 2] * 2 + [S] * 5


def test_the_loop_ends_when_all_have_finished(monkeypatch):
    """All tokens are the same from the first step on: two checks agree behind the third, the fourth is checked."""
    truth = noise.normal(KEYS, L, D)
    monkeypatch.setattr(Batch, "denoise", lambda self, x_t, t, c: self.rows.append(x_t.shape[0]) or truth)
    result, rows, _ = run("ddim", stable=2)
    assert rows == [S] * 4 and (result.calls == 4).all()
    assert result.alive.all() and torch.equal(result.estimate, truth)


def test_nobody_leaves_where_nothing_is_asked():
    result, rows, _ = run("ddpm", leaving=False)
    same, _, _ = run("ddpm", prune=(), stable=0)
    assert torch.equal(result.estimate, same.estimate) and torch.equal(result.calls, same.calls)
    assert rows == [S * K] * STEPS


def test_the_host_does_not_wait_between_checks(monkeypatch):
    """Reading a number off the device happens at every fourth step, and only with the stop."""
    waits = []
    for name in ("item", "__int__", "__bool__", "tolist", "nonzero", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda x, *a, original=original, name=name: waits.append(name) or original(x, *a)
        )
    grid = make_grid(Schedule(), STEPS)
    steps, start = SAMPLERS["ddpm"].steps(grid), len(waits)
    sample(Batch(), grid, steps, rows=EarlyExit(MASK, read, (3, 6), 0))
    assert waits[start:] == []
    start = len(waits)
    sample(Batch(), grid, steps, rows=EarlyExit(MASK, read, (), 50))
    assert waits[start:] == ["tolist"] * 2
