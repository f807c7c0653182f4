"""-log p(y | x) of given translations: exact ones are a distribution, and bounds do not depend on the batch."""

from __future__ import annotations

from itertools import product
from typing import Any

import blocks
import gaussians
import pytest
import torch
import torch.nn.functional as F
from blocks import ALIGNMENTS, BOS, EOS, MASK, PAD, SOURCE, TARGET
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.base import Translator

KEYS = torch.tensor([11, 12, 13])


@torch.no_grad()
def encoded(model: Any, source: Tensor = SOURCE) -> Any:
    return model.encode(source, source.ne(PAD))


def likelihood(model: Any, source: Tensor = SOURCE, target: Tensor = TARGET, samples: int = 4, **asked: Any) -> Any:
    keys = asked.pop("keys", KEYS[: len(target)])
    with torch.no_grad():
        return model.likelihood(encoded(model, source), target, target.ne(PAD), keys, samples, **asked)


# -- one pass


def everything(longest: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """All sentences of up to so many words, numbered from the `first` on, and their masks."""
    rows = [words for size in range(longest + 1) for words in product(range(first, MASK), repeat=size)]
    target = torch.tensor([[BOS, *words, EOS] + [PAD] * (longest - len(words)) for words in rows])
    sizes = torch.tensor([len(words) + 2 for words in rows])
    return target, torch.arange(longest + 2) < sizes[:, None]


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("number", [1, 2])
@torch.no_grad()
def test_all_translations_together_have_probability_one(kind: str, number: int):
    """Those of two words on canvases for four symbols with both ends, or three without, of which one is CTC's blank."""
    model = blocks.build(alignment=kind, upsample=1.0, blocks=number, feed="self").eval()
    source = torch.tensor([[BOS, 5, EOS] if kind == "ctc" else [BOS, 5, 9, EOS]])
    target, mask = everything(3, first=1) if kind == "ctc" else everything(2)
    each = encoded(model, source).select(torch.zeros(len(target), dtype=torch.long))
    found, lengths = model.likelihood(each, target, mask, torch.arange(len(target)), 2), model.length_nll(each, mask)
    assert found.exact and (found.error == 0).all() and found.nats.dtype == torch.float64
    p, of_length = (-found.nats).exp(), (-lengths).exp()
    if kind != "length":
        assert float(p.sum()) == pytest.approx(1, rel=1e-5) and (of_length == 1).all()
        return
    for size in (2, 3, 4):
        here = mask.sum(-1) == size
        assert float(p[here].sum()) == pytest.approx(float(of_length[here][0]), rel=1e-5)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_it_is_the_loss_of_the_last_block_in_validation(kind: str):
    """Without the mean over words; and that of the length, which is a class."""
    model = blocks.build(alignment=kind, blocks=2).eval()
    loss, found = blocks.losses(model), likelihood(model)
    words = TARGET.ne(PAD).sum(-1) - (0 if kind == "dag" else 2)
    of_length = loss.terms["length"] if kind == "length" else 0
    torch.testing.assert_close(found.nats, (loss.terms["block_2"] * words + of_length).double(), rtol=1e-5, atol=1e-4)


def test_a_likelihood_is_not_smoothed():
    plain, smooth = (blocks.build(label_smoothing=e).eval() for e in (0.0, 0.3))
    assert torch.equal(likelihood(plain).nats, likelihood(smooth).nats)
    assert (blocks.losses(plain).terms["block_1"] != blocks.losses(smooth).terms["block_1"]).all()


@pytest.mark.parametrize("kind, longest", [("ctc", 7), ("dag", 6)])
def test_a_translation_that_does_not_fit_is_impossible(kind: str, longest: int):
    """The third source has eight positions: for CTC repeats take two, a DAG's first and last are given."""
    model = blocks.build(alignment=kind, upsample=2.0).eval()
    for words, fits in ((longest, True), (longest + 1, False)):
        last = [4, *[4, 5, 6, 7, 8, 9, 10][: words - 1]]
        target = torch.cat([F.pad(TARGET[:2], (0, words - 4), value=PAD), torch.tensor([[BOS, *last, EOS]])])
        nats = likelihood(model, target=target).nats
        assert nats.isfinite().tolist() == [True, True, fits] and (fits or nats[2] == torch.inf)


def test_a_length_that_no_class_stands_for_is_impossible():
    """Eight classes of differences from -4 to 3."""
    model = blocks.build(length_classes=8).eval()
    target = torch.tensor([[BOS, *[5] * n, EOS] + [PAD] * (8 - n) for n in (0, 3, 6, 7)])
    source = torch.tensor([[BOS, 5, 6, EOS]] * 4)
    nats = likelihood(model, source, target, keys=torch.arange(4)).nats
    assert nats.isfinite().tolist() == [True, True, False, False]
    logits = model.length(encoded(model, source).states, source.ne(PAD))
    lengths = model.length_nll(encoded(model, source), target.ne(PAD))
    torch.testing.assert_close(lengths[:2], -logits.double().log_softmax(-1)[[0, 1], [2, 5]])


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_batches_and_padding_change_nothing_in_one_pass(kind: str):
    model = blocks.build(alignment=kind).eval()
    whole = likelihood(model).nats
    padded = likelihood(model, F.pad(SOURCE, (3, 0), value=PAD), F.pad(TARGET, (0, 4), value=PAD)).nats
    torch.testing.assert_close(padded, whole, rtol=1e-5, atol=1e-5)
    for row in range(3):
        torch.testing.assert_close(likelihood(model, SOURCE[row : row + 1], TARGET[row : row + 1]).nats, whole[[row]])


def test_one_pass_has_no_steps():
    with pytest.raises(UserError, match="8 steps were asked for, but a one-pass model has no chain of them"):
        likelihood(blocks.build(), steps=8)


# -- diffusion

TOKENS = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "loss_normaliser": "words"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "MDLM": {**TOKENS, "objective": "elbo", "time_min": 1e-3, "time_features": "none"},
    "RDM": {**TOKENS, "objective": "reweighted", "diffusion_steps": 9, "label_smoothing": 0.1},
    "D3PM, uniform": {**TOKENS, "objective": "vlb", "mask_share": 0.0, "diffusion_steps": 9, "schedule": "cosine_root"},
    "SUNDAE": {**TOKENS, "objective": "anchor", "mask_share": 0.0, "unroll": 2},
    "DINOISER": {"schedule_modifier": "clip", "self_conditioning": "both"},
    "Difformer": {
        **{"schedule": "sqrt_offset", "schedule_modifier": "factor", "noise_factor": 4.0, "diffusion_steps": 20},
        **{
            "embedding_norm": "scaled",
            "objective": "mse,anchor",
            "self_conditioning": "random",
            "label_smoothing": 0.1,
        },
    },
}
ALL = pytest.mark.parametrize("flags", SYSTEMS.values(), ids=SYSTEMS)


def made(flags: dict[str, Any]) -> Any:
    model = gaussians.build(**flags)
    model.adapt(0)
    return model


@ALL
def test_batches_and_padding_change_nothing(flags: dict[str, Any]):
    model = made(flags)
    whole = likelihood(model)
    assert whole.nats.isfinite().all() and (whole.error > 0).all() and not whole.exact
    assert whole.nats.dtype == whole.error.dtype == torch.float64
    padded = likelihood(model, F.pad(SOURCE, (3, 0), value=PAD), F.pad(TARGET, (0, 4), value=PAD))
    torch.testing.assert_close(padded, whole, rtol=1e-4, atol=1e-4)
    for row in range(3):
        rows = slice(row, row + 1)
        alone = likelihood(model, SOURCE[rows], TARGET[rows], keys=KEYS[rows])
        torch.testing.assert_close(alone[:2], (whole.nats[rows], whole.error[rows]), rtol=1e-4, atol=1e-4)


@ALL
def test_keys_are_the_only_noise(flags: dict[str, Any]):
    model = made(flags)
    one, again, other = (likelihood(model, keys=keys) for keys in (KEYS, KEYS, KEYS + 1))
    assert torch.equal(one.nats, again.nats) and (one.nats != other.nats).any()


@ALL
def test_lengths_count(flags: dict[str, Any]):
    """The bound without its length is what is left."""
    model = made(flags)
    source, lengths = encoded(model), TARGET.ne(PAD)
    expected = model.length.loss(model.length(source.states, source.mask), source.length, lengths.sum(-1))
    torch.testing.assert_close(model.length_nll(source, lengths), expected.double())
    whole = likelihood(model).nats
    model.length = None
    torch.testing.assert_close(whole - likelihood(model).nats, expected.double())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_step_is_one_prediction_of_all_words(share: float):
    """From what sampling starts with; where words are hidden nothing is random."""
    model = made({**SYSTEMS["SUNDAE"], "mask_share": share})
    found = likelihood(model, steps=1, samples=2)
    mask, source = TARGET.ne(PAD), encoded(model)
    free, total = model.state.free(mask), torch.zeros(3).double()
    for k in range(2):
        key = noise.fold(noise.fold(KEYS, noise.Stream.STATE, 0), k)
        y_t = torch.where(free, model.state.kernel.noise(noise.uniform(noise.fold(key, 1), TARGET.shape[1])), TARGET)
        estimate = model.denoise(y_t, torch.ones(3), model.state.blank(y_t), mask, source)
        total += model.state.nll(estimate, TARGET, mask=free).sum(-1).double() / 2
    torch.testing.assert_close(found.nats, total + model.length_nll(source, mask), rtol=1e-5, atol=1e-5)
    assert bool((found.error == 0).all()) == (share == 1)


def test_estimates_have_no_self_condition(monkeypatch: pytest.MonkeyPatch):
    model, seen = made(SYSTEMS["DINOISER"]), list[Tensor]()
    denoise = model.denoise
    monkeypatch.setattr(model, "denoise", lambda s, t, c, *more: (seen.append(c), denoise(s, t, c, *more))[1])
    likelihood(model)
    assert len(seen) == 2 and not any(c.any() for c in seen)


@pytest.mark.parametrize("flags, steps, said", [("RDM", 8, "9 of its own"), ("MDLM", 0, "a chain of 0 steps")])
def test_chains_that_a_model_does_not_have(flags: str, steps: int, said: str):
    with pytest.raises(UserError, match=said):
        likelihood(made(SYSTEMS[flags]), steps=steps)
    with pytest.raises(UserError, match="1 samples of a likelihood's bound .* pass 2 or more"):
        likelihood(made(SYSTEMS[flags]), samples=1)


def test_a_translator_of_ones_own_need_not_have_one():
    with pytest.raises(UserError, match="one-pass models define no likelihood"):
        Translator.likelihood(blocks.build(), None, TARGET, TARGET, KEYS, 2)  # type: ignore[arg-type]
