"""Sources of some sentences alone, with more or less padding, are encoded the same."""

import pytest
import torch
from blocks import SOURCE
from blocks import build as build_blocks
from gaussians import build, encode, sources
from torch.nn.functional import pad

CHOSEN = torch.tensor([3, 0, 3])


def estimate(translator, source, length=6):
    x = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(2)).expand(len(source.mask), -1, -1)
    return translator.denoise(x, torch.full((1,), 0.5), x, torch.ones(x.shape[:2]).bool(), source)


@torch.no_grad()
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("width", [None, 10, 24])
def test_selected_sentences_are_packed(left, width):
    """Ten places are enough for the two; <s> stands before left padding."""
    translator, tokens = build(source_drop=0.1), sources(left=left)
    source = encode(translator, tokens)
    found = source.select(CHOSEN, width)
    size = source.mask.shape[1] if width is None else width
    assert found.length.tolist() == source.length[CHOSEN].tolist() == [6, 10, 6]
    assert torch.equal(found.mask, torch.arange(size) < found.length[:, None])
    for number, sentence in enumerate(CHOSEN):
        assert torch.equal(found.states[number][found.mask[number]], source.states[sentence][source.mask[sentence]])
    torch.testing.assert_close(estimate(translator, found), estimate(translator, source)[CHOSEN])
    one, all_ = (estimate(translator, translator.without_source(each)) for each in (found, source))
    torch.testing.assert_close(one, all_[CHOSEN])


@torch.no_grad()
def test_the_memory_is_that_of_the_selected_states():
    translator = build()
    found = encode(translator, sources(left=True)).select(CHOSEN, 10)
    for layer, expected in zip(found.memory, translator.denoiser.memory(found.states, found.mask)):
        for x, y in zip(layer[:2], expected[:2]):
            real = found.mask[:, None, :, None].expand(x.shape)
            torch.testing.assert_close(x[real], y[real])
        assert torch.equal(layer.bias, expected.bias) and layer.bias.stride() == expected.bias.stride()


def test_words_go_along():
    model = build_blocks().eval()
    source = model.encode(pad(SOURCE, (2, 3), value=1), pad(SOURCE, (2, 3), value=1).ne(1))
    found = source.select(torch.tensor([2]), 5)
    assert torch.equal(found.words[0, :4], model.encoder.embedding(SOURCE[2, :4]))
