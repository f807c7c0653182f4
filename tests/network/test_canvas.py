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
