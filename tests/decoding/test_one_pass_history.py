"""What a model that writes in one pass keeps with --retain-iter-history: what each block is shown, and what is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import BACK_ENDS, BOS, EOS, MASK, PAD, SOURCE, build
from torch import Tensor, nn

from fairseq_diffusion.decoding.glancing import GlancingGenerator, GlancingOptions
from fairseq_diffusion.translators.one_pass import GlancingTranslator

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(4, MASK)), "<mask>"]
DICTIONARY = SimpleNamespace(bos=lambda: BOS, pad=lambda: PAD, eos=lambda: EOS, symbols=SYMBOLS)


class Model(nn.Module):
    pad = PAD

    def __init__(self, translator: GlancingTranslator):
        super().__init__()
        self.translator = translator

    def encode(self, tokens: Tensor) -> Any:
        return self.translator.encode(tokens, tokens.ne(PAD))


def decode(back_end: str, **options: Any) -> list[list[dict[str, Any]]]:
    translator = build(back_end=back_end, blocks=2).eval()
    own = GlancingOptions(back_end=back_end, history=True, nbest=2, **options)
    batch = {"net_input": {"src_tokens": SOURCE}}
    return GlancingGenerator(own, translator, DICTIONARY).generate([Model(translator)], batch)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_last_entry_is_what_was_read(back_end: str, passes: int):
    """Its words are the hypothesis, each with its score; what is no word has none."""
    for hypothesis in (h for found in decode(back_end, passes=passes) for h in found):
        *canvases, last = hypothesis["history"]
        said = ~last["positional_scores"].isnan()
        assert last["tokens"][said].tolist() == hypothesis["tokens"][:-1].tolist()
        assert torch.equal(last["positional_scores"][said], hypothesis["positional_scores"][:-1])
        assert len(canvases) == 2 * passes
        assert back_end == "dag" or len(last["tokens"]) == len(canvases[0]["tokens"])


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_first_entry_is_an_empty_canvas(back_end: str):
    for hypothesis in (h for found in decode(back_end) for h in found):
        first = hypothesis["history"][0]
        ends = [] if back_end == "ctc" else [BOS, EOS]
        assert [token for token in first["tokens"].tolist() if token != MASK] == ends
        assert first["positional_scores"].isnan().all()


def test_lengths_of_the_beam_have_canvases_of_their_own():
    for found in decode("length", length_beam=2):
        assert len({len(hypothesis["history"][0]["tokens"]) for hypothesis in found}) == len(found) == 2
