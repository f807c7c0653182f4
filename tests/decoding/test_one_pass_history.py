"""What a one-pass model keeps with --retain-iter-history: what each block is fed, and the words that are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import ALIGNMENTS, BOS, EOS, MASK, PAD, SOURCE, build

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

DICTIONARY = SimpleNamespace(bos=lambda: BOS, pad=lambda: PAD, eos=lambda: EOS)


def decode(alignment: str, **options: Any) -> list[list[dict[str, Any]]]:
    translator = build(alignment=alignment, blocks=2)
    generator = Generator(translator, OnePassOptions(**options), SelectionOptions(history=True, nbest=2), DICTIONARY)
    model = SimpleNamespace(translator=translator, eval=translator.eval)
    return generator.generate([model], {"net_input": {"src_tokens": SOURCE[:, 1:]}})


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_last_entry_is_what_was_read(alignment: str, passes: int):
    """Its words are the hypothesis, each with its log-probability; what is no word has none."""
    for hypothesis in (h for found in decode(alignment, passes=passes) for h in found):
        *canvases, last = hypothesis["history"]
        words = ~last["positional_scores"].isnan()
        assert last["tokens"][words].tolist() == hypothesis["tokens"][:-1].tolist()
        assert torch.equal(last["positional_scores"][words], hypothesis["positional_scores"][:-1])
        assert len(canvases) == 2 * passes
        assert alignment == "dag" or len(last["tokens"]) == len(canvases[0]["tokens"])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_first_entry_is_an_empty_canvas(alignment: str):
    for hypothesis in (h for found in decode(alignment) for h in found):
        first = hypothesis["history"][0]
        ends = [] if alignment == "ctc" else [BOS, EOS]
        assert [token for token in first["tokens"].tolist() if token != MASK] == ends
        assert first["positional_scores"].isnan().all()


def test_lengths_of_the_beam_have_canvases_of_their_own():
    for found in decode("length", length_beam=2):
        assert len({len(hypothesis["history"][0]["tokens"]) for hypothesis in found}) == len(found) == 2
