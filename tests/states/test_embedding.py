"""Words as vectors under every norm, rounded back, against closed forms."""

import pytest
import torch

from fairseq_diffusion.kernels import noise, portable
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.states.embedding import NORMS, EmbeddingState


@pytest.fixture
def state():
    torch.manual_seed(0)
    return EmbeddingState(50, 8)


def test_rows_have_norm_sqrt_d(state):
    assert state.weight.std().item() == pytest.approx(1e-3, rel=0.2)
    assert torch.allclose(state.table().norm(dim=-1), torch.full((50,), 8**0.5))
    tokens = torch.tensor([[3, 4], [5, 49]])
    assert torch.equal(state.encode(tokens), state.table()[tokens])


def test_rows_as_they_are():
    state = EmbeddingState(20, 4, norm="none", init_std=0.5)
    assert torch.equal(state.table(), state.weight)
    assert torch.equal(state.readout(), state.weight)


def test_scaled_rows_are_rounded_against_unscaled_ones():
    state = EmbeddingState(20, 9, norm="scaled", init_std=0.02)
    assert torch.allclose(state.table(), 3 * state.weight)
    assert torch.equal(state.readout(), state.weight)
    x, y = torch.randn(2, 7, 9), torch.randint(20, (2, 7))
    expected = -(x @ state.weight.T).log_softmax(-1).gather(-1, y[..., None])[..., 0]
    assert torch.allclose(state.nll(x, y), expected, atol=1e-5)


def test_layer_norm_is_part_of_the_encoded_word_and_of_rounding():
    state = EmbeddingState(20, 9, norm="layer", init_std=0.02)
    rows = 3 * state.weight
    centred = rows - rows.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(state.table(), expected, atol=1e-5)
    with torch.no_grad():
        state.norm.layer_norm.weight.fill_(2)
        state.norm.layer_norm.bias.fill_(0.5)
    assert torch.allclose(state.table(), 2 * expected + 0.5, atol=1e-5)
    assert torch.equal(state.readout(), state.table())


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_encodes_to_its_table_in_fp32_and_is_learned(norm):
    state = EmbeddingState(20, 6, norm).half()
    tokens = torch.tensor([[3, 4], [5, 19]])
    assert state.encode(tokens).dtype == torch.float32
    assert torch.equal(state.encode(tokens), state.table()[tokens])
    x_0 = state.encode(tokens)
    (x_0.square().sum(-1).cos().sum() + x_0[..., 0].sum() + state.nll(x_0, tokens).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in state.parameters())
    assert next(iter(dict(state.named_parameters()))) == "weight"


@pytest.mark.parametrize("norm", NORMS)
def test_clamped_vectors_are_those_of_the_most_probable_words(norm, monkeypatch):
    monkeypatch.setitem(portable.ENTRIES, "cpu", 50)  # a row of logits at a time
    state = EmbeddingState(20, 6, norm, init_std=1.0)
    x = torch.randn(2, 3, 5, 6)
    expected = state.table()[(x @ state.readout().T).argmax(-1)]
    assert torch.equal(state.clamp(x), expected)
    own = torch.arange(20)[None]
    if norm == "l2":
        assert torch.equal(state.clamp(state.encode(own)), state.encode(own))


def test_rounding_is_the_nearest_row(state):
    x = torch.randn(2, 7, 8)
    tokens, log_p = state.round(x)
    nearest = torch.cdist(x, state.table()[None].expand(2, -1, -1)).argmin(-1)
    assert torch.equal(tokens, nearest)
    expected = (x @ state.table().T).log_softmax(-1).max(-1).values
    assert torch.allclose(log_p, expected, atol=1e-5)


def test_nll_is_the_log_probability_of_rounding(state):
    x, y = torch.randn(2, 7, 8), torch.randint(50, (2, 7))
    expected = -(x @ state.table().T).log_softmax(-1).gather(-1, y[..., None])[..., 0]
    assert torch.allclose(state.nll(x, y), expected, atol=1e-5)


def test_half_precision_weights_still_give_fp32_vectors(state):
    assert state.half().encode(torch.tensor([[1]])).dtype == torch.float32
    assert state.table().norm(dim=-1).sub(8**0.5).abs().max() < 1e-5


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_corruption_is_the_forward_process(state, sigma):
    x_0, keys = torch.randn(2, 3, 8), torch.tensor([4, 5])
    level = Level.variance_preserving(times([[sigma], [sigma]]))
    x_t = state.corrupt(x_0, level, keys, torch.ones(2, 3).bool())
    assert torch.allclose(x_t, (1 - sigma**2) ** 0.5 * x_0 + sigma * noise.normal(keys, 3, 8), atol=1e-6)


def test_sampling_starts_with_noise_of_the_first_level(state):
    """As much as a noise factor makes of it, by the keys of the candidates."""
    keys = torch.arange(6).view(2, 3)
    level = Schedule("sigma_t", "factor", 4.0).level(times([1.0, 0.5]))[0]
    x_T = state.prior(keys, torch.ones(2, 3, 7).bool(), level)
    assert torch.equal(x_T, 4 * noise.normal(keys, 7, 8))
    assert torch.equal(state.blank(x_T), torch.zeros(2, 3, 7, 8))


def test_words_are_drawn_by_their_probability(state):
    """At a temperature; by a key of their own, and so alike in any batch."""
    keys = noise.fold(torch.arange(4000), 1)
    row, temperature = 0.3 * torch.randn(8), 0.5
    drawn = state.sample(row.expand(4000, 2, 8), keys, torch.ones(4000, 2, dtype=torch.bool), temperature)
    p = (row @ state.table().T / temperature).softmax(-1)
    found = drawn.flatten().bincount(minlength=50) / 8000
    assert (found - p).abs().max() < 0.03
    alone = state.sample(row.expand(3, 1, 8), keys[5:8], torch.ones(3, 1, dtype=torch.bool), temperature)
    assert torch.equal(alone, drawn[5:8, :1])
    assert (drawn[:, 0] != drawn[:, 1]).any()


def test_words_are_drawn_around_their_vectors_in_training():
    state, tokens, keys = EmbeddingState(20, 8, noise_std=0.3), torch.randint(20, (500, 6)), torch.arange(500)
    off = state.draw(tokens, keys) - state.encode(tokens)
    assert abs(off.std() - 0.3) < 0.01 and abs(off.mean()) < 0.01
    assert torch.equal(state.draw(tokens[7:9], keys[7:9]), state.draw(tokens, keys)[7:9])
    eps = noise.normal(keys, 6, 8)  # of the corruption, by the same keys
    assert abs((off * eps).mean()) < 0.01
    plain = EmbeddingState(20, 8)
    assert torch.equal(plain.draw(tokens, keys), plain.encode(tokens))


@pytest.mark.parametrize("norm", ["l2", "scaled"])
def test_words_may_be_read_by_a_table_that_learns_by_itself(norm):
    """It starts as what they are read by otherwise, and takes no gradient from what estimates are compared with."""
    torch.manual_seed(1)
    plain = EmbeddingState(20, 6, norm, init_std=1.0)
    torch.manual_seed(1)
    state = EmbeddingState(20, 6, norm, init_std=1.0, own_readout=True)
    x, tokens = torch.randn(2, 3, 6), torch.randint(20, (2, 3))
    assert torch.equal(state.nll(x, tokens), plain.nll(x, tokens))
    table = state.table().detach()
    with torch.no_grad():
        state.reader.mul_(-1)
    assert torch.equal(state.table(), table)
    assert torch.allclose(state.nll(x, tokens), plain.nll(-x, tokens), atol=1e-5)
    assert torch.equal(state.round(x)[0], plain.round(-x)[0])
    state.nll(x, tokens).sum().backward()
    assert state.weight.grad is None and state.reader.grad.abs().sum() > 0
    state.reader.grad = None
    (state.encode(tokens) - x).square().sum().backward()
    assert state.reader.grad is None


def test_the_error_is_the_mean_square_of_a_vector(state):
    x, x_0 = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert torch.allclose(state.error(x, x_0), (x - x_0).square().sum(-1) / 8)


def test_predictions_recover_x_0():
    level = Schedule("cosine").level(times([[0.4], [1.0]]))
    x_0, eps = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    x_t = level.mix(x_0, eps)
    alpha, sigma = level.alpha[..., None].float(), level.sigma[..., None].float()
    assert torch.equal(PREDICTIONS["x_0"](x_0, x_t, level), x_0)
    assert torch.allclose(PREDICTIONS["v"](alpha * eps - sigma * x_0, x_t, level), x_0, atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "scaled"])
def test_where_words_are_expected_the_clean_estimate_is_their_mean(norm):
    state = EmbeddingState(20, 6, norm, 0.5, expects=True)
    estimate = torch.randn(2, 3, 6)
    p = (estimate.double() @ state.readout().double().T).softmax(-1)
    torch.testing.assert_close(state.clean(estimate).double(), p @ state.table().double(), atol=1e-6, rtol=1e-6)
    assert torch.equal(EmbeddingState(20, 6, norm, 0.5).clean(estimate), estimate)
    assert state.error(estimate, estimate) is None


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_what_x_t_says_of_a_word_by_itself_is_bayes_rule(t):
    """With no output, softmax(o E^T) is p(y | x_t) under q(x_t | y) and a uniform prior, as all norms are alike."""
    state, level = EmbeddingState(20, 6, "l2", 0.5), Schedule("cosine").level(times([[t]]))
    x_t = state.corrupt(state.encode(torch.tensor([[3, 4]])), level, torch.tensor([5]), torch.ones(1, 2).bool())
    o = PREDICTIONS["posterior"](torch.zeros_like(x_t), x_t, level)
    far = (x_t[:, :, None] - level.alpha.float() * state.table()).square().sum(-1) / (2 * level.sigma.float().square())
    torch.testing.assert_close((o @ state.readout().T).softmax(-1), (-far).softmax(-1), atol=1e-5, rtol=1e-4)
    assert torch.equal(PREDICTIONS["expected"](x_t, 2 * x_t, level), x_t)


def test_noise_around_a_vector_that_absorbs():
    """x_t - c is what x_0 - c is corrupted to without it, but for the words that are c."""
    plain, state = (EmbeddingState(20, 6, "l2", 0.5, soft_absorb=share) for share in (0.0, 0.5))
    state.weight.data.copy_(plain.weight)
    c, level, keys = state.center.detach(), Level.variance_preserving(times([[0.8]])), torch.arange(500)
    mask, x_0 = torch.ones(500, 9).bool(), state.encode(torch.full((500, 9), 7))
    x_t = state.corrupt(x_0, level, keys, mask).detach()
    absorbed = (x_t == c).all(-1)
    assert absorbed.float().mean().item() == pytest.approx(0.5 * 0.8, abs=0.03)
    torch.testing.assert_close((x_t - c)[~absorbed], plain.corrupt(x_0 - c, level, keys, mask).detach()[~absorbed])
    first = Level.variance_preserving(times(1.0))
    torch.testing.assert_close(state.prior(keys, mask, first), c + plain.prior(keys, mask, first))


def test_a_noise_factor_does_not_absorb_more_words():
    schedule, state = Schedule("sigma_t", "factor", 4.0), EmbeddingState(20, 6, "l2", 0.5, soft_absorb=0.5)
    level, mask = schedule.level(times([[0.2]])), torch.ones(500, 9).bool()
    x_t = state.corrupt(state.encode(torch.full((500, 9), 7)), level, torch.arange(500), mask)
    share = (x_t == state.center).all(-1).float().mean().item()
    assert share == pytest.approx(0.5 * 0.8 / (0.96 + 0.64) ** 0.5, abs=0.03)
