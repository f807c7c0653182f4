"""The joint model of prefix and word, against its table over all prefixes and words."""

from __future__ import annotations

import itertools
from typing import Callable

import pytest
import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective.energy import divergence, draw, last, log_sum, not_ended

A, B, EOS, V, LONGEST = 0, 1, 2, 3, 3
DATA = {(A, EOS): 0.2, (B, A, EOS): 0.3, (A, A, B): 0.1, (A, B, EOS): 0.4}  # of targets of up to three words
Prefix = tuple[int, ...]


class Tiny(torch.nn.Module):
    """Logits behind every prefix, from weights that all prefixes share."""

    def __init__(self, seed: int = 1):
        super().__init__()
        torch.manual_seed(seed)
        self.read = torch.nn.Parameter(torch.randn(LONGEST * V, 5).double())
        self.say = torch.nn.Parameter(torch.randn(5, V).double())

    def forward(self, prefix: Prefix) -> Tensor:
        places = [V * k + word for k, word in enumerate(prefix)]
        return (0.3 + self.read[places].sum(0)).tanh() @ self.say


def prefixes(k: int) -> list[Prefix]:
    """All that have not ended behind k words."""
    return list(itertools.product((A, B), repeat=k))


def probability(model: Callable[[Prefix], Tensor], prefix: Prefix) -> Tensor:
    """q, without gradient."""
    steps = [model(prefix[:i]).softmax(-1)[word] for i, word in enumerate(prefix)]
    return torch.stack(steps).prod().detach() if steps else torch.ones(()).double()


def exact_divergence(model: Callable[[Prefix], Tensor], k: int) -> Tensor:
    """KL(data || p) at position k (from 0), of targets that have a word there, from the whole table of p."""
    q = torch.stack([probability(model, prefix) for prefix in prefixes(k)])
    p = (q / q.sum())[:, None] * torch.stack([model(prefix) for prefix in prefixes(k)]).exp()
    p = p / p.sum()
    data = torch.zeros_like(p)
    for words, share in DATA.items():
        if len(words) > k:
            data[prefixes(k).index(words[:k]), words[k]] += share
    data = data / data.sum()
    return (torch.special.xlogy(data, data) - torch.where(data > 0, data * p.log(), 0)).sum()


def found_divergence(model: Callable[[Prefix], Tensor], samples: list[Prefix], k: int) -> Tensor:
    """The same but for what has no gradient, from sampled words of any length: each target is a row of a batch."""
    targets = {words: share for words, share in DATA.items() if len(words) > k}
    logit = torch.stack([model(words[:k])[words[k]] for words in targets])[:, None]
    rows = [samples] * len(targets)
    previous = torch.tensor([[[EOS, *words[:k]] for words in row] for row in rows])
    sampled = not_ended(previous, EOS)[..., k:]
    log_s = {words[:k]: log_sum(model(words[:k])) for words in samples if EOS not in words[:k]}
    table = torch.stack([log_s.get(words[:k], torch.zeros(()).double()) for words in samples])
    found = divergence(
        logit, torch.zeros_like(logit), table.expand(len(targets), 1, -1).mT, sampled, torch.ones_like(logit).bool()
    )
    shares = torch.tensor(list(targets.values())).double()
    return (found.kl[:, 0] * shares).sum() / shares.sum()


def gradients(model: Tiny, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


# -- the divergence ----------------------------------------------------------------------------------------------------


class Halves(torch.nn.Module):
    """A model whose words have the probabilities 1/2, 1/4, 1/4 behind each prefix; its energy is free."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.offsets = torch.nn.Parameter(torch.randn(LONGEST, 2, 2).double())

    def forward(self, prefix: Prefix) -> Tensor:
        first, second = (*prefix, A, A)[:2]
        return self.offsets[len(prefix), first, second] + torch.tensor([0.5, 0.25, 0.25]).double().log()


@pytest.mark.parametrize("k", range(LONGEST))
def test_with_every_prefix_as_often_as_it_is_probable_it_is_exact(k: int):
    """Sixteen samples of two words, of which some have ended; the entropies that are left out have no gradient."""
    model, share = Halves(), {A: 2, B: 1, EOS: 1}
    samples = [
        words for words in itertools.product((A, B, EOS), repeat=2) for _ in range(share[words[0]] * share[words[1]])
    ]
    found, exact = found_divergence(model, samples, k), exact_divergence(model, k)
    wanted = gradients(model, exact)
    torch.testing.assert_close(gradients(model, found), wanted)
    assert k == 0 or wanted.abs().max() > 0.05
    targets = {words: p for words, p in DATA.items() if len(words) > k}
    q = torch.stack([probability(model, prefix) for prefix in prefixes(k)])
    joint = {}
    for words, p in targets.items():
        joint[words[: k + 1]] = joint.get(words[: k + 1], 0) + p / sum(targets.values())
    fixed = sum(p * (torch.tensor(p).log() - (probability(model, w[:k]) / q.sum()).log()) for w, p in joint.items())
    torch.testing.assert_close(found + fixed, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", range(LONGEST))
def test_the_gradient_of_many_samples_is_that_of_the_divergence(k: int):
    model, count = Tiny(), 4000
    u = noise.uniform(torch.arange(count), LONGEST - 1)
    samples: list[Prefix] = [()] * count
    for step in u.unbind(-1):
        logits = torch.stack([model(words).detach() if EOS not in words else torch.zeros(V) for words in samples])
        samples = [(*words, word) for words, word in zip(samples, draw(logits, step).tolist())]
    found, exact = (gradients(model, f) for f in (found_divergence(model, samples, k), exact_divergence(model, k)))
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)
    assert exact.abs().max() > 0.1


def test_the_gradient_is_that_of_the_equation():
    """E_data[grad phi] - mean of w E[grad phi], with self-normalised w, for given samples."""
    model, samples, word, k = Tiny(3), [(A, B), (B, B), (A, B), (B, A), (EOS, A)], (B, A, EOS), 2
    rows = torch.tensor([[EOS, *words] for words in samples])[None]
    sampled = not_ended(rows, EOS)[..., k:]
    log_s = torch.stack([log_sum(model(words)) for words in samples])[None, :, None]
    logit = model(word[:k])[word[k]].view(1, 1)
    found = divergence(logit, logit, log_s, sampled, torch.ones(1, 1).bool())
    assert sampled[0, :, 0].tolist() == [True] * 4 + [False] and found.there.all()
    S = torch.stack([model(words).exp().sum() for words in samples[:4]]).detach()
    w = S / S.mean()
    wanted = gradients(model, -model(word[:k])[word[k]])
    for weight, words in zip(w, samples):
        p = model(words).softmax(-1).detach()
        wanted = wanted - weight / 4 * sum(p[x] * gradients(model, -model(words)[x]) for x in range(V))
    torch.testing.assert_close(gradients(model, found.kl.sum()), wanted, rtol=1e-9, atol=1e-12)


def test_a_number_added_to_all_logits_of_a_position_changes_nothing():
    torch.manual_seed(1)
    logit, log_s, sampled_log_s = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 3, 4)
    sampled, mask, shift = torch.ones(2, 3, 4).bool(), torch.ones(2, 4).bool(), 100 * torch.randn(2, 4)
    one = divergence(logit, log_s, sampled_log_s, sampled, mask)
    other = divergence(logit + shift, log_s + shift, sampled_log_s + shift[:, None], sampled, mask)
    for name in ("kl", "gap"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-4)


def test_large_logits_do_not_overflow():
    log_s = torch.tensor([[[3e4], [2e4]]]).requires_grad_()
    found = divergence(
        torch.full((1, 1), 3e4), torch.zeros(1, 1), log_s, torch.ones(1, 2, 1).bool(), torch.ones(1, 1).bool()
    )
    found.kl.sum().backward()
    assert found.kl.item() == pytest.approx(-torch.tensor(2.0).log().item(), abs=1e-2)
    assert log_s.grad.flatten().tolist() == [1, 0]


def test_where_no_prefix_is_long_enough_nothing_is_due():
    logit, sampled_log_s = torch.zeros(1, 3).requires_grad_(), torch.zeros(1, 2, 3).requires_grad_()
    sampled = torch.tensor([[[True, True, False], [True, False, False]]])
    found = divergence(logit, torch.full((1, 3), 5.0), sampled_log_s, sampled, torch.tensor([[True, True, True]]))
    found.kl.sum().backward()
    assert found.there.tolist() == [[True, True, False]] and found.gap.tolist() == [[5, 5, 0]]
    assert logit.grad.tolist() == [[-1, -1, 0]]
    assert sampled_log_s.grad.tolist() == [[[0.5, 1, 0], [0.5, 0, 0]]]
    assert divergence(logit, logit, sampled_log_s, sampled, torch.tensor([[True, False, True]])).there.sum() == 1


def test_the_gap_is_that_of_the_data_over_the_samples():
    there = torch.ones(1, 2, 1).bool()
    found = divergence(torch.zeros(1, 1), torch.tensor([[4.0]]), torch.tensor([[[1.0], [2.0]]]), there, there[:, 0])
    assert found.gap.tolist() == [[2.5]]


# -- positions and words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, expected",
    [(0, [[1, 1, 1, 0], [1, 1, 1, 1]]), (1, [[0, 0, 1, 0], [0, 0, 0, 1]]), (2, [[0, 1, 1, 0], [0, 0, 1, 1]])],
)
def test_the_last_positions(count: int, expected: list[list[int]]):
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    assert last(mask, count).long().tolist() == expected
    assert torch.equal(last(mask, 9), mask)


def test_a_prefix_has_ended_behind_its_first_end():
    """fairseq's data begin with </s>, which ends nothing."""
    previous = torch.tensor([[EOS, A, EOS, A, EOS], [EOS, A, B, A, B], [EOS, EOS, A, A, A]])
    expected = [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert not_ended(previous, EOS).long().tolist() == expected


def test_words_are_drawn_as_often_as_they_are_probable():
    logits = torch.tensor([1.0, -torch.inf, 0.0, 2.0, -torch.inf])
    words = draw(logits.expand(20000, -1), noise.uniform(torch.arange(20000), 1)[:, 0])
    shares = torch.bincount(words, minlength=5) / len(words)
    torch.testing.assert_close(shares, logits.softmax(-1), rtol=0, atol=0.01)
    ends = torch.tensor([2.0**-53, 1 - 2.0**-53]).double()
    assert draw(logits.expand(2, -1), ends).tolist() == [0, 3]
