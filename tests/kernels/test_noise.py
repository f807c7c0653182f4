import math

import pytest
import torch

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS, chance

keys = noise.fold(torch.arange(2000), 7)


def test_normal_has_the_moments_of_a_normal():
    z = noise.normal(keys, 25, 16).double()
    n = z.numel()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs((z[1:] * z[:-1]).mean()) < 5 / math.sqrt(n)
    assert abs((z[..., 1:] * z[..., :-1]).mean()) < 5 / math.sqrt(n)


def test_uniform_is_uniform_and_inside_the_open_interval():
    u = noise.uniform(keys, 50)
    counts = torch.histc(u, 20, 0, 1)
    expected = u.numel() / 20
    assert ((counts - expected).square() / expected).sum() < 50  # chi^2 with 19 degrees of freedom
    assert u.min() > 0 and u.max() < 1


def test_a_row_depends_on_its_key_alone():
    together = noise.normal(keys[:4], 9, 3)
    assert torch.equal(noise.normal(keys[2:3], 9, 3)[0], together[2])
    assert torch.equal(noise.normal(keys[:4], 5, 3), together[:, :5])


def test_fold_tells_arguments_and_their_order_apart():
    made = [noise.fold(torch.tensor(1), *data).item() for data in [(), (0,), (1,), (1, 2), (2, 1), (0, 0)]]
    assert len(set(made)) == len(made)


def test_an_integer_folds_like_a_tensor_of_it():
    for value in (0, 1, -1, 7, 2**40):
        assert noise.fold(keys[0], value) == noise.fold(keys[0], torch.tensor(value))


def test_fold_broadcasts():
    grid = noise.fold(keys[:3, None], torch.arange(4))
    assert grid.shape == (3, 4)
    assert grid[1, 2] == noise.fold(keys[1], 2)


def test_sentence_keys_see_words_and_their_order_but_no_padding():
    tokens = torch.tensor([[5, 6, 7, 1, 1], [1, 1, 5, 6, 7], [5, 7, 6, 1, 1], [5, 6, 7, 7, 1]])
    key = noise.sentence_keys(3, tokens, tokens.ne(1))
    assert key[0] == key[1]
    assert len({k.item() for k in key}) == 3
    assert (noise.sentence_keys(4, tokens, tokens.ne(1)) != key).all()


def test_stratified_times_fill_every_stratum():
    u, weight = TIME_SAMPLERS["stratified"]()(keys[:64])
    assert torch.equal((u * 64).long().sort().values, torch.arange(64))
    assert not torch.equal(u.sort().values, u) and (weight == 1).all()


def test_uniform_times_do_not_look_at_the_batch():
    u, weight = TIME_SAMPLERS["uniform"]()(keys[:8])
    assert u.dtype == torch.float64 and (weight == 1).all()
    assert torch.equal(TIME_SAMPLERS["uniform"]()(keys[3:4])[0], u[3:4])


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_chance(p):
    true = sum(chance(key, p) for key in keys)
    assert true / len(keys) == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / len(keys)))
