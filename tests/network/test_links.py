"""Transitions are distributions over later vertices, whatever the padding, the precision and the sharpness."""

import math

import pytest
import torch

from fairseq_diffusion.network.links import Links

SIZES = [2, 3, 6, 8]
MASK = torch.arange(8) < torch.tensor(SIZES)[:, None]


def links_of(hidden=8, heads=2, sharpness=1.0):
    torch.manual_seed(0)
    links = Links(hidden, heads, 20)
    for layer in (links.query, links.key, links.gate):
        torch.nn.init.normal_(layer.weight, std=0.5 * sharpness)
        torch.nn.init.normal_(layer.bias)
    return links


def states(hidden=8):
    return torch.randn(*MASK.shape, hidden, generator=torch.Generator().manual_seed(1))


def mixture(links, h, size):
    """E [size, size] of one graph h [size, h], number by number, in fp64."""
    f = torch.cat([h, links.positions.weight[:size]], -1).double()
    parts = (links.query, links.key, links.gate)
    return mixed(*(f @ part.weight.T.double() + part.bias.double() for part in parts), links.heads)


def mixed(q, k, g, heads):
    """E [size, size] of queries and keys [size, h] and gates [size, heads]."""
    size, width = len(q), q.shape[-1] // heads
    found = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size - 1):
        gate = g[i].softmax(-1)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            score = torch.stack([q[i, part] @ k[j, part] / math.sqrt(width) for j in range(i + 1, size)])
            found[i, i + 1 :] += gate[head] * score.softmax(-1)
    return found


@pytest.mark.parametrize("hidden, heads", [(8, 1), (8, 2), (12, 3)])
def test_each_graph_is_the_mixture_of_its_heads(hidden, heads):
    links, h = links_of(hidden, heads), states(hidden)
    found = links(h, MASK)
    for i, size in enumerate(SIZES):
        expected = mixture(links, h[i, :size], size)
        assert torch.allclose(found[i, :size, :size].double(), expected.log(), atol=1e-4)


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_rows_are_distributions_over_later_vertices(sharpness):
    found = links_of(sharpness=sharpness)(states(), MASK)
    vertex, size = torch.arange(8), torch.tensor(SIZES)[:, None, None]
    linked = (vertex > vertex[:, None]) & (vertex < size)
    assert (found[~linked] == -torch.inf).all()
    assert found[linked].isfinite().all()
    begins = vertex < size[..., 0] - 1  # all but the last vertex
    assert torch.allclose(found.exp().sum(-1), begins.float(), atol=1e-5)


def test_neither_padding_nor_the_batch_leaves_a_trace():
    links, h = links_of(), states()
    together = links(h, MASK)
    garbage = torch.cat([h.masked_fill(~MASK[..., None], 1e3), torch.full((4, 3, 8), 1e3)], 1)
    wider = links(garbage, torch.cat([MASK, torch.zeros(4, 3).bool()], 1))
    assert torch.allclose(wider[:, :8, :8], together, atol=1e-5)
    assert (wider[:, 8:] == -torch.inf).all() and (wider[:, :, 8:] == -torch.inf).all()
    for i, size in enumerate(SIZES):
        alone = links(h[i : i + 1, :size], MASK[i : i + 1, :size])
        assert torch.allclose(alone[0], together[i, :size, :size], atol=1e-5)


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_gradients_are_those_of_the_mixture(sharpness):
    """Of a sum over links, -inf elsewhere; a row without any, and padding, has none."""
    links, h = links_of(sharpness=sharpness), states().requires_grad_()
    weight = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(2))
    of = [h, *links.parameters()]
    found = links(h, MASK)
    ours = torch.autograd.grad((found.exp() * weight).sum(), of, retain_graph=True)
    expected = sum((mixture(links, h[i, :size], size) * weight[i, :size, :size]).sum() for i, size in enumerate(SIZES))
    for mine, theirs in zip(ours, torch.autograd.grad(expected, of)):
        assert torch.allclose(mine, theirs, atol=1e-3, rtol=1e-3)
    assert all((grad != 0).any() for grad in ours)
    assert (ours[0][~MASK] == 0).all()


def test_gradients_of_sharp_links_are_finite():
    """Where the likeliest link takes all, in fp32; the others' logarithms still show how unlikely they are."""
    links, h = links_of(sharpness=100.0), states().requires_grad_()
    found = links(h, MASK)
    assert found[found > -torch.inf].min() < -1000
    found[found > -torch.inf].sum().backward()
    assert all(grad.isfinite().all() for grad in (h.grad, *(p.grad for p in links.parameters())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    links = links_of()
    expected = links(states(), MASK)
    h = states().to(dtype).requires_grad_()
    found = links.to(dtype)(h, MASK)
    assert found.dtype == torch.float
    assert torch.equal(found == -torch.inf, expected == -torch.inf)
    assert torch.allclose(found.exp(), expected.exp(), atol=0.05)
    assert torch.allclose(found.exp().sum(-1)[:, 0], torch.ones(4), atol=1e-5)
    found[found > -torch.inf].sum().backward()
    grads = [h.grad, *(p.grad for p in links.parameters())]
    assert all(grad.isfinite().all() and (grad != 0).any() for grad in grads)


def test_large_scores_do_not_overflow_in_half_precision():
    """They come to q . k = 76,800, beyond fp16; divided by sqrt(64), to 9,600."""
    links, h = Links(64, 1, 20), states(64).half().requires_grad_()
    torch.nn.init.constant_(links.query.bias, 30.0)
    torch.nn.init.constant_(links.key.bias, 40.0)
    found = links.half()(h, MASK)
    assert torch.allclose(found.exp().sum(-1)[:, 0], torch.ones(4), atol=1e-5)
    found[found > -torch.inf].sum().backward()
    assert all(grad.isfinite().all() for grad in (h.grad, *(p.grad for p in links.parameters())))


def test_under_autocast_scores_are_summed_and_normalised_in_single_precision():
    """Only the projections are in half."""
    links, h = links_of(sharpness=10.0), states()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = links(h, MASK)
        f = torch.cat([h, links.positions.weight[:8].expand(4, -1, -1)], -1)
        projected = [part(f).double() for part in (links.query, links.key, links.gate)]
    assert found.dtype == torch.float
    for i, size in enumerate(SIZES):
        expected = mixed(*(part[i, :size] for part in projected), links.heads)
        assert torch.allclose(found[i, :size, :size].double(), expected.log(), atol=1e-4, rtol=1e-5)


def test_positions_alone_can_tell_vertices_apart():
    """Equal states, different links."""
    found = links_of()(torch.zeros(1, 5, 8), torch.ones(1, 5).bool())
    assert not torch.allclose(found[0, 0, 1:], found[0, 0, 1].expand(4), atol=1e-2)
