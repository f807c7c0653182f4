"""Masked training and mask-predict in a one-pass model and in a diffusion of tokens: what of them is the same."""

from __future__ import annotations

from typing import Any

import blocks
import gaussians
import pytest
import torch
from blocks import BOS, EOS, MASK, PAD
from torch import Tensor

from fairseq_diffusion.alignment.glancing import Boundary, Glance
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.translators.diffusion import DiffusionTranslator
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.one_pass import OnePassTranslator
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions
from fairseq_diffusion.translators.one_pass_training import TrainingPass

ALIKE: dict[str, Any] = {"decoder_layers": 2, "length_classes": 32, "label_smoothing": 0.1, "loss_normaliser": "words"}
MASKED = {"blocks": 1, "glance_count": "uniform", "source_copy": "none"}
TOKENS = {"state": "tokens", "schedule": "log_linear", "objective": "corrupted=1", "time_features": "none"}
TOKENS |= {"self_conditioning": "none", "sampler": "mask_predict"}


def pair(**flags: Any) -> tuple[OnePassTranslator, DiffusionTranslator]:
    """The same network as a one-pass model and as a diffusion of tokens."""
    one_pass = blocks.build(**ALIKE, **MASKED, **flags).eval()
    tokens = gaussians.build(**ALIKE, **TOKENS, **flags)
    found = one_pass.state_dict().items()
    named = {name.replace("decoder.words", "state").replace("decoder.", "denoiser."): value for name, value in found}
    if flags.get("share_embeddings"):
        named["encoder.embedding.project.weight"] = torch.eye(16)
    tokens.load_state_dict(named)
    return one_pass, tokens


def sources() -> Tensor:
    return torch.nn.functional.pad(gaussians.sources(), (1, 0), value=BOS)


LAYOUTS = [{}, {"scale_embeddings": True, "no_encoder_norm": True, "no_entry_norm": True}, {"share_embeddings": True}]
LAYOUTS += [{"pre_norm": True}]


@torch.no_grad()
@pytest.mark.parametrize("passes", [1, 4, 10])
@pytest.mark.parametrize("flags", LAYOUTS, ids=str)
def test_the_same_words_and_scores(flags: dict[str, Any], passes: int):
    """Three lengths each.  The steps of a diffusion end at time 0.001, and in sentences as short as these they hide as
    many words as the passes do."""
    one_pass, tokens = pair(**flags)
    source, found = sources(), []
    steps = DiffusionOptions(steps=passes, sampler="mask_predict")
    for model, options in ((one_pass, OnePassOptions(passes=passes)), (tokens, steps)):
        encoded = model.encode(source, source.ne(PAD))
        lengths = model.lengths(encoded, 3, "offsets")
        lengths = lengths._replace(width=int(lengths.positions.max()))
        keys = torch.zeros(*lengths.positions.shape, 1, dtype=torch.long)
        found.append(model.decoder_for(options)(encoded, lengths, keys))
    expected, candidates = found
    assert torch.equal(candidates.tokens, expected.tokens) and (expected.sizes > 1).sum() > 10
    for name in ("scores", "joint", "log_p"):
        torch.testing.assert_close(getattr(candidates, name), getattr(expected, name), rtol=0, atol=1e-5)
    assert torch.equal(candidates.calls, expected.calls)


def test_as_many_words_are_hidden_but_for_those_where_none_is():
    """Of n words U{1 .. n}, or by a time for each sentence U{0 .. n}: a share 1 / (n + 1) of them has no loss."""
    n, sentences = 4, 40_000
    keys = torch.arange(sentences)
    target = torch.full((sentences, n + 2), 7)
    target[:, 0], target[:, -1] = BOS, EOS
    free = (target == 7) & torch.ones_like(target, dtype=torch.bool)
    boundary = Boundary(0, free, free, keys, torch.zeros(sentences))
    shown, _ = Glance(count="uniform")(boundary, 0)
    state = gaussians.build(**TOKENS).state
    t = torch.rand(sentences, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    level = Schedule("log_linear", "none", 1.0, 0, 0.0).level(t[:, None])
    s_t = state.corrupt(target, level, keys, target.ne(PAD))
    for hidden, counts in ((free & ~shown, range(1, n + 1)), (s_t == MASK, range(n + 1))):
        share = torch.tensor([(hidden.sum(-1) == k).double().mean() for k in range(n + 1)])
        expected = torch.tensor([float(k in counts) / len(counts) for k in range(n + 1)]).double()
        torch.testing.assert_close(share, expected, rtol=0, atol=0.01)
        where = hidden[hidden.sum(-1) == 2].double().mean(0)[1:-1]  # any two of the four
        torch.testing.assert_close(where, torch.full_like(where, 0.5), rtol=0, atol=0.02)


def test_the_same_loss_for_the_same_hidden_words():
    """A sum over hidden words, which one divides by their number and the other by that of all words."""
    one_pass, tokens = pair()
    source, target, mask = blocks.SOURCE, blocks.TARGET, blocks.TARGET.ne(PAD)
    hidden = torch.zeros_like(mask)
    hidden[0, 2:4], hidden[1, 1] = True, True
    encoded = one_pass.encode(source, source.ne(PAD))
    run = TrainingPass(one_pass, encoded, target, mask, one_pass.canvas(encoded, one_pass._target_lengths(mask)))
    known = torch.where(mask & ~hidden, torch.arange(target.shape[1]), -1)
    ((_, _, scored),) = run.blocks(lambda s, index, before: known)
    s_t, blank = target.masked_fill(hidden, MASK), torch.zeros(3, 6, 16)
    estimate = tokens.denoise(s_t, torch.zeros(3), blank, mask, tokens.encode(source, source.ne(PAD)))
    nll = tokens.state.nll(estimate, target, 0.1, hidden).sum(-1)
    torch.testing.assert_close(nll, scored.nll, rtol=0, atol=1e-5)
    assert scored.count.tolist() == [2, 1, 1] and nll[2] == 0
