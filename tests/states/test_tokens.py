"""Words as a state: what is hidden and replaced, what is known from the start, and how estimates are read."""

import pytest
import torch
from gaussians import BOS, EOS, PAD, UNK, WORDS

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.states.tokens import TokenState

MASK = WORDS
SENTENCE = torch.tensor([[BOS, 5, 9, UNK, 7, EOS, PAD], [BOS, 4, 6, EOS, PAD, PAD, PAD]])
REAL = SENTENCE != PAD
FREE = torch.tensor([[0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]]).bool()
MANY = 3000


def state(share=1.0, tags=()):
    torch.manual_seed(1)
    hides = share > 0
    return TokenState(WORDS + hides, 8, Symbols(BOS, PAD, EOS, MASK if hides else -1, UNK, tags), share)


def level(kept):
    return Level(torch.tensor([[kept**0.5]]).double(), torch.tensor([[(1 - kept) ** 0.5]]).double())


def test_the_ends_of_a_sentence_are_known_wherever_it_is_padded():
    assert torch.equal(state().free(REAL), FREE)
    assert torch.equal(state().free(REAL.flip(-1)), FREE.flip(-1))
    assert torch.equal(state().free(REAL[:, None]), FREE[:, None])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
def test_as_many_words_are_kept_hidden_and_replaced_as_the_level_says(share, kept):
    s, tokens = state(share), SENTENCE[:1].expand(MANY, -1)
    found = s.corrupt(tokens, level(kept), noise.fold(torch.arange(MANY), 3), REAL[:1].expand(MANY, -1))
    assert torch.equal(found[:, ~FREE[0]], tokens[:, ~FREE[0]])
    words, size = found[:, FREE[0]], WORDS - 4
    hidden = (words == MASK).double().mean() if share else 0.0
    assert abs(float(hidden) - share * (1 - kept)) < 0.02
    # the same word may be drawn in its own place, but <unk> is none that is
    same = (words == tokens[:, FREE[0]]).double().mean(0)
    by_chance = (1 - share) * (1 - kept) / size
    assert (same - kept - by_chance * (SENTENCE[0, FREE[0]] != UNK)).abs().max() < 0.04
    replaced = words[(words != MASK) & (words != tokens[:, FREE[0]])]
    assert replaced.numel() == 0 or (int(replaced.min()) == 4 and int(replaced.max()) == WORDS - 1)
    assert share < 1 or replaced.numel() == 0


def test_noise_does_not_depend_on_the_batch_or_its_padding():
    s, keys = state(0.4), noise.fold(torch.arange(2), 3)
    both = s.corrupt(SENTENCE, level(0.3), keys, REAL)
    alone = s.corrupt(SENTENCE[1:, :4], level(0.3), keys[1:], REAL[1:, :4])
    assert torch.equal(both[1:, :4], alone)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_sampling_begins_with_the_known_ends_and_noise(share):
    s = state(share)
    begin = s.prior(noise.fold(torch.arange(2), 3), REAL, level(0.0))
    assert torch.equal(begin[~FREE], SENTENCE[~FREE])
    words = begin[FREE]
    assert (words == MASK).all() if share else ((words >= 4) & (words < WORDS)).all()


def test_words_that_are_seen_are_read_with_the_probability_they_had():
    s, estimate = state(), torch.randn(2, 7, 8)
    hidden = FREE & (torch.arange(7) % 2 == 1)
    s_t = torch.where(hidden, MASK, SENTENCE)
    tokens, log_p = s.read(s_t, estimate)
    logits = (estimate @ s.weight[:WORDS].T).log_softmax(-1)
    assert torch.equal(tokens[~hidden], SENTENCE[~hidden])
    allowed = logits.clone()
    allowed[..., [BOS, PAD, EOS]] = -torch.inf
    assert torch.equal(tokens[hidden], allowed.argmax(-1)[hidden])
    expected = logits.gather(-1, tokens[..., None])[..., 0].where(FREE, 0.0)
    torch.testing.assert_close(log_p, expected)


def test_a_word_that_is_seen_keeps_its_estimate_where_words_are_only_hidden():
    estimate, previous = torch.randn(2, 2, 7, 8)
    s_t = torch.where(FREE & (torch.arange(7) % 2 == 1), MASK, SENTENCE)
    carried = state().carried(s_t, estimate, previous)
    hidden = s_t == MASK
    assert torch.equal(carried[hidden], estimate[hidden]) and torch.equal(carried[~hidden], previous[~hidden])
    assert torch.equal(state(0.4).carried(s_t, estimate, previous), estimate)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_where_noise_looks_like_words_shown_ones_are_remembered_and_the_network_does_not_see_which(share):
    s, (estimate, previous) = state(share), torch.randn(2, 2, 7, 8)
    shown = FREE & (torch.arange(7) % 2 == 0)
    s_t = torch.where(shown, s.shown(SENTENCE), SENTENCE)
    assert torch.equal(s.hidden(s_t), ~shown) and torch.equal(s.plain(s_t), SENTENCE)
    tokens, log_p = s.read(s_t, estimate)
    assert torch.equal(tokens[shown | ~FREE], SENTENCE[shown | ~FREE])
    assert torch.equal(tokens[FREE & ~shown], s.round(estimate)[0][FREE & ~shown])
    nll = s.nll(estimate, SENTENCE)
    torch.testing.assert_close(log_p[shown], -nll[shown])
    carried = s.carried(s_t, estimate, previous)
    assert torch.equal(carried[shown], previous[shown]) and torch.equal(carried[~shown], estimate[~shown])
    entrance = s.entrance(None, self_conditioned=False)
    assert torch.equal(entrance(s_t, None), entrance(SENTENCE, None))


@pytest.mark.parametrize("tags", [(), (4, 9)])
def test_nothing_reads_or_draws_a_special_symbol_or_a_tag(tags):
    s, estimate, never = state(tags=tags), torch.zeros(1, 50, 8), [BOS, PAD, EOS, *tags]
    with torch.no_grad():
        s.weight[never] += 3.0
    estimate += s.weight[never[-1]]
    s_t = torch.full((1, 50), MASK)
    drawn = [s.sample(estimate, torch.tensor([key]), s_t == MASK) for key in range(20)]
    for words in (s.read(s_t, estimate)[0], *drawn):
        assert not torch.isin(words, torch.tensor([*never, MASK])).any()


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_all_words_but_tags_are_drawn_as_noise(share):
    s, mask = state(share, (4, 9)), torch.ones(MANY, 7).bool()
    keys, expected = noise.fold(torch.arange(MANY), 3), {*range(4, WORDS)} - {4, 9}
    begin = s.prior(keys, mask, level(0.0))
    end = s.corrupt(torch.full((MANY, 7), UNK), level(0.0), keys, mask)
    for found in (begin, end):
        assert set(found[:, 1:-1].unique().tolist()) - {MASK} == expected
