"""Rounding, sampling and the nearest row, without logits, against all logits in fp64."""

import pytest
import torch

from fairseq_diffusion.kernels import noise, portable
from fairseq_diffusion.kernels.distinct import distinct, without_waiting
from fairseq_diffusion.kernels.noise import gumbel, gumbel_of
from fairseq_diffusion.kernels.rounding import best_rows, round_to_rows

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=[1, 1000, 2**24])
def entries(request, monkeypatch, device):
    """Several chunk sizes: a row at a time, a few, all at once."""
    monkeypatch.setitem(portable.ENTRIES, device.type, request.param)


def inputs(N=23, V=203, D=6):
    """x [N, D], table [V, D], bias [V]; 203 is no multiple of a block."""
    torch.manual_seed(0)
    return (torch.randn(*shape) for shape in ((N, D), (V, D), (V,)))


@pytest.mark.parametrize("words", [None, [0, 7, 202]])
@pytest.mark.parametrize("biased", [False, True])
def test_rounding_equals_all_logits_in_fp64(entries, biased, words):
    x, table, bias = inputs()
    banned = None if words is None else torch.tensor(words)
    bias = 4 * bias if biased else None
    log_p = (x.double() @ table.double().T + (bias.double() if biased else 0)).log_softmax(-1)
    expected = (log_p if banned is None else log_p.index_fill(-1, banned, -torch.inf)).max(-1)
    words, found = round_to_rows(x, table, banned, bias)
    assert torch.equal(words, expected.indices) and torch.equal(best_rows(x, table, banned, bias), words)
    assert torch.allclose(found.double(), expected.values, atol=1e-5)


def test_with_half_the_squared_norm_taken_off_the_likeliest_row_is_the_nearest(entries):
    x, table, _ = inputs()
    bias = -table.square().sum(-1) / 2
    nearest = torch.cdist(x.double(), table.double()).argmin(-1)
    assert torch.equal(best_rows(x, table, bias=bias), nearest)
    assert not torch.equal(best_rows(x, table), nearest)


def test_of_equal_rows_the_first_is_taken(entries):
    x, table, _ = inputs()
    words = best_rows(x, table)
    double = torch.cat([table[100:], table, table[:50]])
    expected = torch.where(words >= 100, words - 100, words + 103)
    assert torch.equal(best_rows(x, double), expected) and torch.equal(round_to_rows(x, double)[0], expected)


def test_no_rows_and_one_row():
    x, table, _ = inputs()
    assert [part.shape for part in round_to_rows(x[:0], table)] == [(0,), (0,)]
    assert round_to_rows(x[:1], table)[0] == round_to_rows(x, table)[0][0]


def test_samples_follow_the_softmax_without_what_is_banned():
    N, V = 40_000, 5
    logits, banned = torch.tensor([0.0, 1.0, 2.0, -1.0, 1.5]), torch.tensor([2])
    keys = noise.fold(torch.tensor(3), torch.arange(N))
    x, table = torch.ones(N, 1), logits[:, None]
    words, log_p = round_to_rows(x, table, banned, keys=keys)
    p = logits.index_fill(0, banned, -torch.inf).softmax(0)
    share = words.bincount(minlength=V) / N
    assert ((share - p).abs() < 4 * (p * (1 - p) / N).sqrt() + 1e-9).all()
    assert torch.allclose(log_p, logits.log_softmax(0)[words], atol=1e-6)
    assert torch.equal(words, best_rows(x, table, banned, keys=keys))
    assert torch.equal(words[7:9], best_rows(x[7:9], table, banned, keys=keys[7:9]))
    mask = torch.arange(N) % 3 == 0
    assert torch.equal(words[mask], best_rows(x, table, banned, keys=keys, mask=mask)[mask])
    assert best_rows(x[:5], table, keys=keys[:5], mask=mask[:5] & False).shape == (5,)


def test_noise_keeps_its_digits_where_words_win():
    """The largest noise is that of the smallest uniform number, and fp32 tells neighbours there apart."""
    steps = torch.arange(1, 200) * 2**11
    exact = -(-torch.log1p(-(torch.arange(1, 200).double() + 0.5) / 2**53)).log()
    assert torch.allclose(gumbel_of(steps).double(), exact, rtol=1e-6)
    assert gumbel_of(steps).diff().max() < 0
    highest = gumbel_of(torch.tensor([-1, -(2**40)]))
    assert highest.isfinite().all() and (highest < -2.8).all()


def test_noise_is_gumbel_and_a_words_own():
    keys = noise.fold(torch.tensor(1), torch.arange(300))
    drawn = gumbel(keys, 200)
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.02) and drawn.std().item() == pytest.approx(
        1.2825, abs=0.02
    )
    assert torch.equal(gumbel(keys[5:6], 50)[0], drawn[5, :50])


@pytest.mark.parametrize("how", [distinct, without_waiting])
def test_distinct_words_are_those_of_the_mask_each_once(how):
    tokens, mask = torch.randint(9, (6, 7)), torch.rand(6, 7) < 0.5
    tokens[0, 0], mask[0, 0] = 50, False
    words, real, place = how(tokens, mask)
    real = torch.ones_like(words, dtype=torch.bool) if real is None else real
    assert words[real].tolist() == sorted(set(tokens[mask].tolist()))
    assert real.long().diff().max() <= 0  # real ones first
    assert torch.equal(words[place][mask], tokens[mask]) and not place[~mask].any()
