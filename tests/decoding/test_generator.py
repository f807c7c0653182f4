"""The generator on a stand-in for a model that knows the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussians import BOS, DICTIONARY, EOS, PAD, WORDS, Model
from generators import generator_of
from torch import Tensor

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.translators.base import Translator
from fairseq_diffusion.translators.batch import Lengths, Losses, Source
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

DIM = 6


class Oracle(Translator):
    """Its translation of length L is <s> a a .. a </s>, where a is the source's second token."""

    name, Options = "oracle", DiffusionOptions

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.state, self.schedule = EmbeddingState(WORDS, DIM), Schedule()
        self.length = LengthHead(4, 8, "difference", False, 20)
        self.prediction, self.special_ids = PREDICTIONS["x_0"], torch.tensor([BOS, PAD, EOS])

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        return Source(mask, tokens[..., None].float().expand(*mask.shape, 4), [])

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source) -> Tensor:
        words = source.states[:, 1, 0].long()
        answer = words.repeat_interleave(len(x_t) // len(words))[:, None].expand(mask.shape).clone()
        answer[:, 0] = BOS
        answer.scatter_(1, mask.sum(-1, keepdim=True) - 1, EOS)
        return self.state.encode(answer)

    def losses(self, *batch: Any) -> Losses:
        raise AssertionError("an oracle has nothing to learn")

    def decoder_for(self, options: DiffusionOptions) -> DiffusionDecoder:
        return DiffusionDecoder(self, options)  # type: ignore[arg-type]


SOURCE = torch.tensor([[5, 6, 7, EOS], [PAD, PAD, 9, EOS]])


def model() -> Model:
    return Model(Oracle())


def generate(target: Tensor | None = None, **options: Any) -> list[list[dict[str, Any]]]:
    batch = {"net_input": {"src_tokens": SOURCE}, "target": target}
    training = model().train()
    found = generator_of(Oracle(), **{"steps": 3, **options}).generate([training], batch)
    assert not training.training
    return found


def test_hypothesis_is_as_fairseq_wants_it():
    (first,), (second,) = generate()
    assert set(first["tokens"][:-1].tolist()) <= {5} and set(second["tokens"][:-1].tolist()) <= {9}
    assert first["tokens"][-1] == EOS
    assert first["steps"] == 3 and first["history"] == []
    assert first["score"] == pytest.approx(first["positional_scores"].mean().item())


def test_oracle_length_and_history():
    target = torch.tensor([[8, 8, 8, EOS], [EOS, PAD, PAD, PAD]])
    (first,), (second,) = generate(target, oracle_length=True, history=True)
    assert first["tokens"].tolist() == [5, 5, 5, EOS] and second["tokens"].tolist() == [EOS]
    assert len(first["positional_scores"]) == 4 and len(second["positional_scores"]) == 1  # one a word, one for </s>
    assert [step["tokens"].tolist() for step in first["history"]] == [[BOS, 5, 5, 5, EOS]] * 3
    assert second["history"][0]["tokens"].tolist() == [BOS, EOS]


def test_oracle_needs_references():
    with pytest.raises(UserError, match="has none"):
        generate(oracle_length=True)


def test_candidates_are_lengths_times_noises_and_copies_are_left_out(monkeypatch):
    tried = []
    denoise = Oracle.denoise
    monkeypatch.setattr(Oracle, "denoise", lambda self, *args: tried.append(len(args[0])) or denoise(self, *args))
    first, second = generate(length_beam=3, noise_beam=2, nbest=10)
    assert tried == [2 * 3 * 2] * 3
    for found, word in ((first, 5), (second, 9)):
        assert len({len(hypothesis["tokens"]) for hypothesis in found}) == len(found) == 3
        assert all(set(h["tokens"][:-1].tolist()) <= {word} for h in found)  # rows stay with their sentence


def test_nbest_is_a_prefix():
    every, best = generate(length_beam=3, nbest=3), generate(length_beam=3, nbest=1)
    assert [found[0]["tokens"].tolist() for found in every] == [found[0]["tokens"].tolist() for found in best]
    assert {len(found) for found in best} == {1}


def test_pruned_candidates_are_not_listed():
    for found in generate(length_beam=4, nbest=9, prune_after="1,2"):
        assert len(found) == 1 and found[0]["steps"] == 3
    for found in generate(length_beam=4, nbest=9, prune_after="1"):
        assert len(found) == 2


def test_a_stable_candidate_stops():
    """The oracle's answer is always the same: two checks agree after three steps; who may leave is seen after four."""
    (first,), (second,) = generate(steps=20, stop_stable=2)
    assert first["steps"] == second["steps"] == 4
    assert first["tokens"].tolist() == generate(steps=20)[0][0]["tokens"].tolist()


def test_history_of_those_who_left():
    (first,), _ = generate(steps=8, stop_stable=2, history=True, prune_after="1", noise_beam=2)
    shown = [step["tokens"].tolist() for step in first["history"]]
    assert len(shown) == 4 and all(row == shown[0] for row in shown)
    assert shown[0] == [BOS, *first["tokens"][:-1].tolist(), EOS]


def test_clamping_and_early_stop():
    (first,), _ = generate(clamp=True, early_stop=0.34)
    assert set(first["tokens"][:-1].tolist()) <= {5} and first["steps"] == 2


def test_what_is_not_supported_is_named():
    plain, batch = generator_of(Oracle()), {}
    with pytest.raises(UserError, match="prefix_tokens"):
        plain.generate([model()], batch, prefix_tokens=torch.zeros(1), constraints=None)
    with pytest.raises(UserError, match="2 models"):
        plain.generate([model(), model()], batch)


def test_settings_are_announced_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    pruning = generator_of(Oracle(), steps=2, seed=9, sampler="cedi", noise_beam=2, prune_after="1")
    for _ in range(2):
        pruning.generate([model()], {"net_input": {"src_tokens": SOURCE}})
    (text,) = [record.message for record in caplog.records if record.message.startswith("decoding:")]
    assert (
        "sampler cedi" in text and "conditioning_sigma 1.0 to 0.99" in text and "calls 1.5" in text and "seed 9" in text
    )
    facts = pruning.describe()
    assert facts["sentences"] == 4 and facts["calls"] == 1.5 and facts["model_seconds"] > 0


class Verbose(Oracle):
    """Writes seven and five words."""

    def lengths(self, source: Source, beam: int, how: str, template: Any = None) -> Lengths:
        return Lengths(torch.tensor([[9], [7]]), torch.zeros(2, 1), 9)


def test_a_draft_gives_its_length_and_is_made_once():
    drafts = generator_of(Verbose(), steps=1)
    options = DiffusionOptions(steps=3, draft=0.5, noise_beam=2)
    refining = Generator(Oracle(), options, SelectionOptions(), DICTIONARY, drafts=drafts)
    found = refining.generate([model(), Model(Verbose())], {"net_input": {"src_tokens": SOURCE}})
    assert [each[0]["tokens"].tolist() for each in found] == [[5] * 7 + [EOS], [9] * 5 + [EOS]]
    assert (drafts.candidates, drafts.calls, refining.candidates, refining.calls) == (2, 2, 4, 12)
    with pytest.raises(UserError, match="1 models"):
        refining.generate([model()], {})
    short = Oracle()
    short.length.longest = 8
    with pytest.raises(UserError, match="a draft has 9 tokens with both ends, .* takes up to 8"):
        refining.generate([Model(short), Model(Verbose())], {"net_input": {"src_tokens": SOURCE}})
