"""The kernel of words against its matrices: chained, inverted by Bayes' rule, and drawn from."""

import pytest
import torch

from fairseq_diffusion.process.token_kernel import Shares, TokenKernel

V, MASK = 8, 7  # 0 and 1 are special, 2 to 6 words
DRAWN = [2, 3, 4], [2, 3, 6]  # side by side, and with words between them that are never drawn
K = 3
SHARES = [0.0, 0.3, 1.0]
TIMES = [(0.9, 0.4), (0.5, 0.1), (1.0, 0.3), (0.7, 0.0)]
N = 100_000


def number(a):
    return torch.tensor(a, dtype=torch.float64)


def matrix(shares: Shares, drawn: list[int]) -> torch.Tensor:
    """q(column | row), [V, V]."""
    q = torch.eye(V, dtype=torch.float64) * shares.kept
    q[:, drawn] += shares.replaced / K
    q[:, MASK] += shares.hidden
    q[MASK] = torch.eye(V)[MASK]
    return q


def kernel(share: float, drawn: list[int]) -> TokenKernel:
    return TokenKernel(share, torch.isin(torch.arange(V), torch.tensor(drawn)), MASK)


def frequencies(words: torch.Tensor) -> torch.Tensor:
    return torch.bincount(words, minlength=V) / len(words)


def chi_square_is_small(words: torch.Tensor, p: torch.Tensor) -> bool:
    """Below what a right sampler exceeds once in a million times, about; and nothing impossible is drawn."""
    count, expected = torch.bincount(words, minlength=V), len(words) * p
    possible = p > 0
    freedom = int(possible.sum()) - 1
    statistic = ((count - expected).square() / expected)[possible].sum()
    return not count[~possible].any() and bool(statistic < freedom + 5 * (2 * freedom) ** 0.5 + 15)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("times", TIMES)
def test_two_steps_in_a_row_are_one(share, times):
    k, a_s, a_t = kernel(share, DRAWN[1]), *map(number, times)
    first, both, second = (matrix(s, DRAWN[1]) for s in (k.until(a_s), k.until(a_t), k.between(a_s, a_t)))
    torch.testing.assert_close(first @ second, both)
    torch.testing.assert_close(both.sum(-1), torch.ones(V, dtype=torch.float64))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("y_0", [1, 2, 3, 5])
@pytest.mark.parametrize("y_t", [1, 2, 4, 5, 6, MASK])
@pytest.mark.parametrize("drawn", DRAWN)
def test_the_way_back_is_that_of_bayes_rule(share, times, y_0, y_t, drawn):
    k, a_s, a_t = kernel(share, drawn), *map(number, times)
    joint = matrix(k.until(a_s), drawn)[y_0] * matrix(k.between(a_s, a_t), drawn)[:, y_t]
    u, v = torch.rand(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = k.back(torch.full((N,), y_t), torch.full((N,), y_0), a_s, a_t, u, v)
    if y_t == MASK and not share:
        return  # nothing is hidden
    if joint.sum() > 0:
        assert chi_square_is_small(drawn, joint / joint.sum()), frequencies(drawn)
    else:  # a word that was never replaced by another
        assert (drawn == y_t).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("words", DRAWN)
def test_words_drawn_from_an_estimate_and_stepped_back_are_the_mixture_of_posteriors(share, words):
    """sum_y p(y) q(y_s | y_t, y), for a hidden word and for one that is seen."""
    k, a_s, a_t = kernel(share, words), number(0.6), number(0.2)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    for y_t in (MASK, 3) if share else (3,):
        mixture = torch.zeros(V, dtype=torch.float64)
        for y_0, weight in zip(words, p):
            joint = matrix(k.until(a_s), words)[y_0] * matrix(k.between(a_s, a_t), words)[:, y_t]
            impossible = joint.sum() == 0
            mixture += weight * (torch.eye(V)[y_t] if impossible else joint / joint.sum())
        y_0 = torch.tensor(words)[torch.multinomial(p, N, replacement=True, generator=generator)]
        u, v = torch.rand(2, N, dtype=torch.float64, generator=generator)
        assert chi_square_is_small(k.back(torch.full((N,), y_t), y_0, a_s, a_t, u, v), mixture)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("drawn", DRAWN)
def test_noise_is_the_mask_or_a_word(share, drawn):
    u = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = torch.zeros(V, dtype=torch.float64)
    expected[drawn], expected[MASK] = (1 - share) / K, share
    assert chi_square_is_small(kernel(share, drawn).noise(u), expected)


def test_the_largest_number_below_one_is_a_word():
    u = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert all(kernel(share, drawn).noise(u) == drawn[-1] for share in (0.0, 0.3) for drawn in DRAWN)


def test_where_words_are_only_hidden_one_that_is_seen_never_changes():
    """Whatever the estimate says, and however 1 - a' - m' is rounded."""
    only_hides, count = kernel(1.0, [3, 4, 5, 6]), 2000
    u, v = torch.rand(2, count, dtype=torch.float64)
    y_t, y_0 = torch.full((count,), 4), torch.full((count,), 5)
    for a_t, a_s in torch.rand(50, 2, dtype=torch.float64).sort(-1).values:
        assert torch.equal(only_hides.back(y_t, y_0, a_s, a_t, u, v), y_t)
        assert only_hides.between(a_s, a_t).replaced == 0
