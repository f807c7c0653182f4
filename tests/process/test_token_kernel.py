"""The kernel of words against its matrices: chained, inverted by Bayes' rule, and drawn from."""

import pytest
import torch

from fairseq_diffusion.process.token_kernel import Shares, TokenKernel

V, FIRST, K, MASK = 6, 2, 3, 5  # 0 and 1 are special, 2 to 4 words
SHARES = [0.0, 0.3, 1.0]
TIMES = [(0.9, 0.4), (0.5, 0.1), (1.0, 0.3), (0.7, 0.0)]
N = 100_000


def number(a):
    return torch.tensor(a, dtype=torch.float64)


def matrix(shares: Shares) -> torch.Tensor:
    """q(column | row), [V, V]."""
    q = torch.eye(V, dtype=torch.float64) * shares.kept
    q[:, FIRST : FIRST + K] += shares.replaced / K
    q[:, MASK] += shares.hidden
    q[MASK] = torch.eye(V)[MASK]
    return q


def kernel(share: float) -> TokenKernel:
    return TokenKernel(share, FIRST, K, MASK)


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
    k, a_s, a_t = kernel(share), *map(number, times)
    first, both, second = (matrix(s) for s in (k.until(a_s), k.until(a_t), k.between(a_s, a_t)))
    torch.testing.assert_close(first @ second, both)
    torch.testing.assert_close(both.sum(-1), torch.ones(V, dtype=torch.float64))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("y_0", [1, 2, 3])
@pytest.mark.parametrize("y_t", [1, 2, 4, MASK])
def test_the_way_back_is_that_of_bayes_rule(share, times, y_0, y_t):
    k, a_s, a_t = kernel(share), *map(number, times)
    joint = matrix(k.until(a_s))[y_0] * matrix(k.between(a_s, a_t))[:, y_t]
    u, v = torch.rand(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = k.back(torch.full((N,), y_t), torch.full((N,), y_0), a_s, a_t, u, v)
    if y_t == MASK and not share:
        return  # nothing is hidden
    if joint.sum() > 0:
        assert chi_square_is_small(drawn, joint / joint.sum()), frequencies(drawn)
    else:  # a word that was never replaced by another
        assert (drawn == y_t).all()


@pytest.mark.parametrize("share", SHARES)
def test_words_drawn_from_an_estimate_and_stepped_back_are_the_mixture_of_posteriors(share):
    """sum_y p(y) q(y_s | y_t, y), for a hidden word and for one that is seen."""
    k, a_s, a_t = kernel(share), number(0.6), number(0.2)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    for y_t in (MASK, 3) if share else (3,):
        mixture = torch.zeros(V, dtype=torch.float64)
        for y_0, weight in enumerate(p, FIRST):
            joint = matrix(k.until(a_s))[y_0] * matrix(k.between(a_s, a_t))[:, y_t]
            impossible = joint.sum() == 0
            mixture += weight * (torch.eye(V)[y_t] if impossible else joint / joint.sum())
        y_0 = FIRST + torch.multinomial(p, N, replacement=True, generator=generator)
        u, v = torch.rand(2, N, dtype=torch.float64, generator=generator)
        assert chi_square_is_small(k.back(torch.full((N,), y_t), y_0, a_s, a_t, u, v), mixture)


@pytest.mark.parametrize("share", SHARES)
def test_noise_is_the_mask_or_a_word(share):
    u = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = torch.tensor([0, 0, *[(1 - share) / K] * K, share], dtype=torch.float64)
    assert chi_square_is_small(kernel(share).noise(u), expected)


def test_the_largest_number_below_one_is_a_word():
    u = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert kernel(0.0).noise(u) == FIRST + K - 1 and kernel(0.3).noise(u) == FIRST + K - 1


def test_where_words_are_only_hidden_one_that_is_seen_never_changes():
    """Whatever the estimate says, and however 1 - a' - m' is rounded."""
    kernel, count = TokenKernel(1.0, 3, 4, 7), 2000
    u, v = torch.rand(2, count, dtype=torch.float64)
    y_t, y_0 = torch.full((count,), 4), torch.full((count,), 5)
    for a_t, a_s in torch.rand(50, 2, dtype=torch.float64).sort(-1).values:
        assert torch.equal(kernel.back(y_t, y_0, a_s, a_t, u, v), y_t)
        assert kernel.between(a_s, a_t).replaced == 0
