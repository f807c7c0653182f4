"""Room for targets that is filled with </s>."""

import pytest
import torch
from gaussians import BOS, EOS, PAD

from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.length import LengthHead

TARGET = torch.tensor([[PAD, BOS, 5, 6, EOS], [BOS, 4, 5, 6, EOS], [BOS, EOS, PAD, PAD, PAD]])  # padded on either side
MASK = TARGET != PAD
SOURCES = torch.tensor([3, 4, 9])


@pytest.mark.parametrize(
    "positions, scale, unit, sizes",
    [
        (8, 0.0, 1, [8, 8, 8]),
        (2, 0.0, 1, [4, 5, 2]),  # a target has room, however long
        (1, 1.5, 1, [6, 7, 15]),
        (0, 0.0, 2, [4, 6, 2]),
        (60, 0.0, 1, [20, 20, 20]),  # no more than the model has positions
    ],
)
def test_what_a_target_leaves_is_filled(positions, scale, unit, sizes):
    canvas = FilledCanvas(EOS, PAD, 20, positions, scale, unit)
    assert canvas.room(SOURCES, MASK.sum(-1)).tolist() == sizes
    tokens, real = canvas.filled(SOURCES, 9, TARGET, MASK)
    for row, length, size, found, mask in zip(TARGET, MASK.sum(-1).tolist(), sizes, tokens.tolist(), real.tolist()):
        words = row[row != PAD].tolist()
        assert found[:size] == words + [EOS] * (size - length) and set(found[size:]) <= {PAD}
        assert mask == [place < size for place in range(len(found))]


def test_a_sentence_is_filled_alike_in_any_batch():
    canvas = FilledCanvas(EOS, PAD, 20, 1, 1.5)
    tokens, real = canvas.filled(SOURCES, 9, TARGET, MASK)
    for i, length in enumerate(SOURCES):
        alone, own = canvas.filled(SOURCES[i : i + 1], int(length), TARGET[i : i + 1], MASK[i : i + 1])
        size = int(real[i].sum())
        assert torch.equal(alone[0, :size], tokens[i, :size]) and own.sum() == size


BLANK, MANY = 77, torch.arange(300)


def spaced(share, count=300, size=30):
    """Targets of seven words with blanks between them."""
    canvas = FilledCanvas(EOS, PAD, 40, size, blank=BLANK, blanks=share)
    words = torch.tensor([[BOS, *range(4, 11), EOS]]).expand(count, -1)
    return words, canvas.filled(torch.full((count,), 5), 5, words, words != PAD, MANY[:count])[0]


def test_a_word_has_a_blank_before_it_with_the_probability_asked_for():
    words, found = spaced(0.3)
    for row, word in zip(found.tolist(), words.tolist()):
        kept = [token for token in row if token != BLANK]
        assert kept[: len(word)] == word and set(kept[len(word) :]) == {EOS} and row[0] == BOS
        assert all(pair != (BLANK, BLANK) for pair in zip(row, row[1:]))
    assert abs((found == BLANK).sum() / (300 * 8) - 0.3) < 0.03
    assert len({tuple(row) for row in found.tolist()}) > 100


def test_blanks_have_the_room_that_is_left():
    for size, most in ((9, 0), (11, 2), (40, 8)):
        words, found = spaced(0.999, 20, size)
        assert ((found == BLANK).sum(-1) == most).all()
        assert [[token for token in row if token != BLANK][:9] for row in found.tolist()] == words.tolist()


def test_blanks_are_of_training_alone_and_alike_in_any_batch():
    canvas = FilledCanvas(EOS, PAD, 20, 12, blank=BLANK, blanks=0.5)
    assert (canvas.filled(SOURCES, 9, TARGET, MASK)[0] != BLANK).all()
    tokens, real = canvas.filled(SOURCES, 9, TARGET, MASK, MANY[:3])
    assert (tokens == BLANK).any()
    for i, length in enumerate(SOURCES):
        one = slice(i, i + 1)
        alone, own = canvas.filled(SOURCES[one], int(length), TARGET[one], MASK[one], MANY[one])
        assert torch.equal(alone[own], tokens[i][real[i]])


def test_a_translation_ends_at_the_first_end_of_sentence_behind_what_is_known():
    canvas = FilledCanvas(EOS, PAD, 20, 7)
    tokens = torch.tensor([[BOS, 4, 5, EOS, 6, EOS, EOS], [BOS, EOS, 4, 5, 6, EOS, PAD], [BOS, 4, 5, 6, 7, 8, 9]])
    mask = tokens != PAD
    assert canvas.used(tokens, mask).sum(-1).tolist() == [4, 2, 7]
    known = torch.full_like(tokens, -1)
    known[:, 0], known[0, 4], known[1, 3], known[:2, 5] = BOS, 6, 5, EOS
    assert canvas.used(tokens, mask, known).sum(-1).tolist() == [6, 6, 7]


@pytest.mark.parametrize("longest", [19, 20])
def test_half_a_length_is_a_class_and_twice_the_class_is_tried(longest):
    head = LengthHead(4, 16, "half", False, longest)
    lengths = torch.arange(2, longest + 1)
    assert head.class_of(lengths * 0, lengths).tolist() == [-(-length // 2) for length in lengths.tolist()]
    logits = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    tried = head.candidates(logits, torch.tensor([7]), 5)
    possible = {min(2 * number, longest): float(logits[0, number]) for number in range(1, 11)}
    assert tried[0].tolist() == sorted(possible, key=possible.get, reverse=True)[:5]
    expected = logits.log_softmax(-1)[0, [-(-length // 2) for length in tried[0].tolist()]]
    torch.testing.assert_close(head.log_p(logits, torch.tensor([7]), tried)[0], expected)
    least = head.candidates(logits, torch.tensor([7]), 3, "top_k", torch.tensor([7]))
    assert (least >= 7).all()
    p = sum(torch.exp(-head.nll(logits, torch.tensor([7]), torch.tensor([2 * k]))) for k in range(1, 16))
    assert float(p) == pytest.approx(1 - float(logits.softmax(-1)[0, 0]), abs=1e-6)
