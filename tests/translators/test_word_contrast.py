"""The contrast of words' states in every kind of model: whose states, of which words, and what it weighs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import blocks
import gaussians
import pytest
import torch
import torch.nn.functional as F
from gaussians import BOS, EOS, PAD, WORDS
from token_batches import TOKENS, batch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.models.contrast import contrast_of
from fairseq_diffusion.translators.diffusion_training import TrainingStep
from fairseq_diffusion.translators.one_pass_training import TrainingPass

COUNTS = torch.tensor([-1, -1, -1, 1, *(2**k for k in range(WORDS - 4))])
FLAGS: dict[str, Any] = {"contrast_temperature": 0.1, "contrast_dropout": 0.0}
OF_TOKENS = {**TOKENS, "objective": "corrupted"}
JOINT = {**OF_TOKENS, "state": "joint", "latents": 3, "latents_dim": 5, "latents_layers": 1, "latents_start": 1}
DIFFUSION: dict[str, dict[str, Any]] = {
    "tokens": OF_TOKENS,
    "tokens, both passes": {**OF_TOKENS, "self_conditioning": "both"},
    "unrolled": {**TOKENS, "objective": "anchor", "unroll": 2},
    "vectors": {"self_conditioning": "none"},
    "expected": {"prediction": "expected", "objective": "anchor", "self_conditioning": "none"},
    "joint": {**JOINT, "objective": "corrupted,latents"},
}


def build(kind: str, frequency_contrast: float = 0.5, **own: Any) -> Any:
    """With counts of the words; the mask, where there is one, is no word."""
    if kind in DIFFUSION:
        model: Any = gaussians.build(**{**DIFFUSION[kind], "dropout": 0.0, **own})
    else:
        model = blocks.build(alignment=kind, **{"dropout": 0.0, **own})
    model.contrast = contrast_of(SimpleNamespace(frequency_contrast=frequency_contrast, **FLAGS))
    table = model.state.table() if kind in DIFFUSION else model.decoder.words.weight
    model.count_words(F.pad(COUNTS, (0, len(table) - WORDS), value=-1))
    return model.train()


KEYS = noise.fold(torch.arange(3), 4)  # by which some words are seen, and some are not


def losses(model: Any, update: int = 0) -> Any:
    source, target, _ = batch()
    source = F.pad(source, (1, 0), value=BOS)
    return model.losses(source, source.ne(PAD), target, target.ne(PAD), KEYS, update)


def compared(states: Tensor, words: Tensor, where: Tensor) -> float:
    """The mean over true words, by the part itself, whose oracle is elsewhere."""
    part = contrast_of(SimpleNamespace(frequency_contrast=1.0, **FLAGS))
    part.count_words(F.pad(COUNTS, (0, 1), value=-1))
    return float(part(states, words, where, torch.arange(len(words))).sum())


@pytest.mark.parametrize("kind", DIFFUSION)
def test_in_a_diffusion_model_it_is_of_estimates_where_words_were_corrupted(kind: str):
    model = build(kind)
    source, target, _ = batch()
    source = F.pad(source, (1, 0), value=BOS)
    step = TrainingStep(model, model.encode(source, source.ne(PAD)), target, target.ne(PAD), KEYS, False)
    outcome = step.outcome()
    where = target.ne(PAD) & target.ne(BOS) & target.ne(EOS) & outcome.noised
    passes = [getattr(estimate, "words", estimate) for estimate in outcome.estimates]
    assert len(passes) == 1 + (kind in ("tokens, both passes", "unrolled"))
    assert 1 < where.sum() < 9 or kind in ("vectors", "expected")  # of the words
    expected = sum(compared(states, target, where) for states in passes) / len(passes)
    found = losses(model)
    assert float(found.terms["frequency_contrast"].sum() / found.sample_size) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", blocks.ALIGNMENTS)
def test_in_a_one_pass_model_it_is_of_the_words_of_the_best_alignment(kind: str):
    """Of the last block, where they are hidden: with everything hidden, as many as the target has, or with CTC more."""
    model = build(kind, blocks=2, label_smoothing=0.0).eval()
    source, target, _ = batch()
    source = F.pad(source, (1, 0), value=BOS)
    encoded = model.encode(source, source.ne(PAD))
    run = TrainingPass(
        model, encoded, target, target.ne(PAD), model.canvas(encoded, model._target_lengths(target.ne(PAD)))
    )
    last = run.blocks()[-1]
    align = last.scored.align()
    words = torch.where(align >= 0, target.gather(1, align.clamp(min=0)), PAD)
    for row, true in zip(words.tolist(), target.tolist()):
        merged = [w for w, before in zip(row, [None, *row]) if w > 3 and (w != before or kind != "ctc")]
        assert merged == [w for w in true if w > 3]
    expected = compared(last.states, words, words > 3)
    found = losses(model)
    assert float(found.terms["frequency_contrast"].sum() / found.sample_size) == pytest.approx(expected, rel=1e-4)


def test_what_glancing_reveals_takes_no_part():
    """Where all is revealed, nothing is left to compare."""
    model = build("length", glance_count="uniform", two_pass=True)
    source, target, _ = batch()
    encoded = model.encode(source, source.ne(PAD))
    run = TrainingPass(
        model, encoded, target, target.ne(PAD), model.canvas(encoded, model._target_lengths(target.ne(PAD)))
    )
    hidden, shown = (run.blocks(lambda s, index, before, to=to: to)[-1] for to in ends_and_all(target))
    words, where = run.aligned(hidden)
    assert torch.equal(where, target > 3) and torch.equal(words[where], target[where])
    assert not run.aligned(shown)[1].any()


def ends_and_all(target: Tensor) -> tuple[Tensor, Tensor]:
    """The index of what is revealed: the ends, or every word."""
    everything = torch.where(target.ne(PAD), torch.arange(target.shape[1]), -1)
    return torch.where(target > 3, -1, everything), everything


@pytest.mark.parametrize("kind", ["tokens", "vectors", *blocks.ALIGNMENTS])
def test_it_adds_its_weight_times_a_mean_whatever_counts_alike(kind: str):
    """With --loss-normaliser sentences, tokens or words; and it changes nothing else."""
    means = []
    for normaliser in ("sentences", "tokens", "words"):
        model, without = (build(kind, loss_normaliser=normaliser, frequency_contrast=w) for w in (0.5, 0.0))
        assert model.state_dict().keys() == without.state_dict().keys()
        found, plain = losses(model), losses(without)
        term = found.terms["frequency_contrast"].sum()
        assert "frequency_contrast" not in plain.terms and term > 0.1 * found.sample_size
        torch.testing.assert_close(found.total, plain.total + 0.5 * term)
        means.append(float(term / found.sample_size))
    assert means == pytest.approx(means[:1] * 3, rel=1e-5)


@pytest.mark.parametrize("kind", ["tokens", "vectors", *blocks.ALIGNMENTS])
@pytest.mark.parametrize("wide", [False, True])
def test_sentences_without_words_cost_nothing(kind: str, wide: bool):
    """With gradients of 0 from it, in bf16 too, as all ranks expect some."""
    model = build(kind)
    source, target = torch.tensor([[BOS, 5, 6, EOS]]), torch.tensor([[BOS, EOS]])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not wide):
        found = model.losses(source, source.ne(PAD), target, target.ne(PAD), torch.tensor([3]), 0)
    found.total.backward()
    assert found.terms["frequency_contrast"].tolist() == [0]
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["tokens", "vectors", *blocks.ALIGNMENTS])
def test_a_step_against_its_gradient_lowers_it(kind: str):
    """In the decoder, by the term alone."""
    models = [build(kind, frequency_contrast=w) for w in (1.0, 0.0)]
    for model in models:
        losses(model).total.backward()
    name = "denoiser" if kind in DIFFUSION else "decoder"
    pairs = zip(*(getattr(model, name).layers.parameters() for model in models))
    before, moved = losses(models[0]).terms["frequency_contrast"].sum(), False
    with torch.no_grad():
        for own, other in pairs:
            slope = own.grad - other.grad
            moved |= bool(slope.any())
            own -= 1e-4 * slope
    assert moved and losses(models[0]).terms["frequency_contrast"].sum() < before
