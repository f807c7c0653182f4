"""The length as a sum of durations, against an enumeration of all of them."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from fairseq_diffusion.network.durations import DurationHead

K, LONGEST = 3, 9
STATES = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(3))
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]]).bool()  # as <s> stands before left padding
LENGTHS = torch.tensor([5, 2, 9])


def head(grad: bool = True, length_map: str = "mlp", longest: int = LONGEST, durations: int = K) -> DurationHead:
    torch.manual_seed(0)
    made = DurationHead(8, durations, grad, longest, length_map)
    torch.nn.init.constant_(made.free, -0.7)
    return made


def enumerated(model: DurationHead, states: Tensor) -> Tensor:
    """P(length) [LONGEST + 1] for one source's states [S, h], by all its durations."""
    p, r = model.map(states).double().softmax(-1), model.free.double().sigmoid()
    found = [torch.zeros((), dtype=torch.float64)] * (LONGEST + 1)
    for durations in product(range(K), repeat=len(states)):
        joint = math.prod(p[j, f] for j, f in enumerate(durations))
        for e in range(LONGEST - 1 - sum(durations)):
            length = 2 + e + sum(durations)
            found[length] = found[length] + joint * (1 - r) * r**e
    return torch.stack(found)


@pytest.mark.parametrize("length_map", ["mlp", "linear"])
def test_the_lengths_have_the_probabilities_of_all_durations(length_map: str):
    model = head(length_map=length_map)
    expected = torch.stack([enumerated(model, states[real]) for states, real in zip(STATES, MASK)])
    assert torch.allclose(model(STATES, MASK).double().exp(), expected, atol=1e-6)
    assert (expected[:, :2] == 0).all() and (expected[:, 2:] > 0).all()


def test_gradients_of_the_loss_are_those_of_the_enumeration():
    """That of a length is among those that a translation may have."""
    gradients = []
    for ours in (True, False):
        model, states = head(), STATES.clone().requires_grad_()
        if ours:
            loss = model.loss(model(states, MASK), MASK.sum(-1), LENGTHS)
        else:
            p = torch.stack([enumerated(model, row[real]) for row, real in zip(states, MASK)])
            loss = -(p[range(3), LENGTHS] / p.sum(-1)).log()
        loss.sum().backward()
        gradients.append([states.grad, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*gradients):
        assert torch.allclose(one, other, atol=1e-5) and (one != 0).any()


@torch.no_grad()
def test_known_durations_of_a_length_together_have_its_probability():
    """Durations above the longest class count as it, and as words of no token."""
    model, lengths = head(), torch.zeros(LONGEST + 1, dtype=torch.float64)
    states, mask = STATES[:1, :2], MASK[:1, :2]
    p, r = model.map(states[0]).log_softmax(-1), model.free.sigmoid()
    found = model.aligned(states, mask, torch.tensor([[0, 5]]))
    assert float(found) == pytest.approx(-float(p[0, 0] + p[1, 2] + (1 - r).log() + 3 * r.log()), rel=1e-5)
    for durations in product(range(K), repeat=2):
        nll = model.aligned(states, mask, torch.tensor([durations])).item()
        lengths[2 + sum(durations)] += math.exp(-nll) / (1 - float(r))
    free = torch.tensor([(1 - float(r)) * float(r) ** e for e in range(LONGEST + 1)], dtype=torch.float64)
    sums = [sum(lengths[n - e] * free[e] for e in range(n + 1)) for n in range(LONGEST + 1)]
    assert torch.allclose(model(states, mask)[0].double().exp(), torch.stack(sums), atol=1e-6)


def padded(left: int, middle: int, right: int) -> tuple[Tensor, Tensor]:
    """The second source with its first token apart from the others."""
    states, real = torch.full((1, left + middle + right + 3, 8), 7.0), STATES[1, MASK[1]]
    places = [left, left + middle + 1, left + middle + 2]
    mask = torch.zeros(states.shape[:2]).bool()
    mask[0, places], states[0, places] = True, real
    return states, mask


def test_padding_changes_no_bit():
    model, durations = head(), torch.tensor([[2, 0, 1]])
    alone = padded(0, 0, 0)
    for place in ((3, 0, 0), (0, 2, 0), (0, 0, 4), (1, 2, 3)):
        states, mask = padded(*place)
        wide = torch.full(mask.shape, -1)
        wide[:, :3] = durations
        assert torch.equal(model(states, mask), model(*alone))
        assert torch.equal(model.aligned(states, mask, wide), model.aligned(*alone, durations))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_in_half_precision_sums_are_those_of_fp32(dtype: torch.dtype, autocast: bool):
    """Of the same logits: the map alone is in half, and no probability is lost for sources of any length."""
    model, states = head(longest=200, durations=8), STATES[:1].repeat(1, 40, 1)
    mask, whole = torch.ones(1, 160).bool(), head(longest=200, durations=8)
    if autocast:
        with torch.autocast("cpu", dtype=dtype):
            logits, found = model.map(states), model(states, mask)
    else:
        logits = model.to(dtype).map(states.to(dtype))
        found = model(states.to(dtype), mask)
        whole.free = torch.nn.Parameter(model.free.float())
    whole.map.forward = lambda _: logits.float()
    assert logits.dtype == dtype and found.dtype == torch.float32
    assert torch.equal(found, whole(states, mask)) and found[:, 2:].isfinite().all()
    model.loss(found, mask.sum(-1), torch.tensor([3])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_certain_durations_lead_to_their_sum():
    model = head(longest=60)
    model.map.forward = lambda states: 200 * torch.nn.functional.one_hot(states[..., 0].long(), K).float()
    durations = torch.tensor([[2.0, 0, 1, 2], [1, 7, 2, 2], [7, 7, 1, 7]])
    logits = model(durations[..., None].where(MASK[..., None], torch.zeros(())), MASK)
    assert model.candidates(logits, MASK.sum(-1), 1)[:, 0].tolist() == [7, 7, 3]


def test_every_length_may_be_tried():
    """Templates may need one that is far longer than any sum of durations."""
    model = head(longest=60)
    logits, shortest = model(STATES, MASK), torch.tensor([40, 2, 50])
    found = model.candidates(logits, MASK.sum(-1), 8, shortest=shortest)
    assert (found >= shortest[:, None]).all() and (found <= 60).all()
    assert all(len(set(row)) == 8 for row in found.tolist())
    assert model.log_p(logits, MASK.sum(-1), found).isfinite().all()


@pytest.mark.parametrize("grad", [False, True])
def test_gradient_reaches_the_encoder_when_asked(grad: bool):
    states = STATES.clone().requires_grad_()
    model = head(grad)
    (model(states, MASK)[:, 4].sum() + model.aligned(states, MASK, torch.ones(3, 4).long()).sum()).backward()
    assert (states.grad is not None) == grad
