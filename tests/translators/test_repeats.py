"""A diffusion model's words that repeat their neighbour may be dropped."""

import pytest
import torch
from gaussians import build, encode, sources

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.batch import Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

TOKENS = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "objective": "elbo"}


@pytest.mark.parametrize("flags, sampler", [({}, "ddim"), (TOKENS, "confidence")])
def test_a_word_that_repeats_its_neighbour_is_dropped_if_asked(flags, sampler):
    """Also across symbols that are no words; what it cost goes to the end."""
    translator = build(**flags)
    with torch.no_grad():
        translator.encoder.layers[0].feed_forward.down.weight.mul_(0.01)
    lengths = Lengths(torch.full((7, 2), 14), torch.zeros(7, 2), 14)
    keys = noise.fold(torch.arange(7)[:, None, None], torch.arange(2)[:, None])
    plain, dropped = (
        translator.decoder_for(DiffusionOptions(steps=2, sampler=sampler, drop_repeats=drop))(
            encode(translator, sources()), lengths, keys
        )
        for drop in (False, True)
    )
    rows = [[words[words >= 0].tolist() for words in x.tokens.flatten(0, 1)] for x in (plain, dropped)]
    assert rows[1] == [[w for i, w in enumerate(row) if i == 0 or w != row[i - 1]] for row in rows[0]]
    assert rows[1] != rows[0]
    torch.testing.assert_close(dropped.log_p.sum(-1), plain.log_p.sum(-1))
    torch.testing.assert_close(dropped.scores, plain.log_p.double().sum(-1) / (dropped.sizes + 1))
