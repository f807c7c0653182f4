"""The generator on a stand-in for a model that knows the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.decoding.generator import DiffusionGenerator
from fairseq_diffusion.decoding.options import DecodeOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.process.embedding import EmbeddingState
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.translator import Source

BOS, PAD, EOS, WORDS, DIM = 0, 1, 2, 12, 6
DICTIONARY = SimpleNamespace(bos=lambda: BOS, pad=lambda: PAD, eos=lambda: EOS)


class Oracle(nn.Module):
    """Its translation of length L is <s> a a .. a </s>, where a is the source's second token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.state, self.schedule = EmbeddingState(WORDS, DIM), Schedule()
        self.length = LengthHead(4, 8, "difference", False, 20)

    def encode(self, tokens: Tensor, mask: Tensor) -> Source:
        self.words = tokens.gather(1, (mask.cumsum(1) == 2).long().argmax(1, keepdim=True))[:, 0]
        return Source(mask, mask[..., None].float().expand(*mask.shape, 4), [])

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source) -> Tensor:
        answer = self.words.repeat_interleave(len(x_t) // len(self.words))[:, None].expand(mask.shape).clone()
        answer[:, 0] = BOS
        answer.scatter_(1, mask.sum(-1, keepdim=True) - 1, EOS)
        return self.state.encode(answer)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.translator, self.pad = Oracle(), PAD

    def with_bos(self, tokens: Tensor) -> Tensor:
        return F.pad(tokens, (1, 0), value=BOS)

    def encode(self, tokens: Tensor) -> Source:
        return self.translator.encode(self.with_bos(tokens), self.with_bos(tokens).ne(PAD))


SOURCE = torch.tensor([[5, 6, 7, EOS], [PAD, PAD, 9, EOS]])


def generate(target: Tensor | None = None, **options: Any) -> list[list[dict[str, Any]]]:
    batch = {"net_input": {"src_tokens": SOURCE}, "target": target}
    model = Model().train()
    found = DiffusionGenerator(DecodeOptions(**{"steps": 3, **options}), "ddim", DICTIONARY).generate([model], batch)
    assert not model.training
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


def test_candidates_are_lengths_times_noises():
    first, second = generate(length_beam=3, noise_beam=2, nbest=10)
    assert len(first) == len(second) == 6
    sizes = [len(hypothesis["tokens"]) for hypothesis in first]
    assert sorted(sizes.count(size) for size in set(sizes)) == [2, 2, 2]
    assert all(set(h["tokens"][:-1].tolist()) <= {9} for h in second)  # rows stay with their sentence


def test_nbest_is_a_prefix():
    every, best = generate(length_beam=3, nbest=3), generate(length_beam=3, nbest=1)
    assert [found[0]["tokens"].tolist() for found in every] == [found[0]["tokens"].tolist() for found in best]
    assert {len(found) for found in best} == {1}


def test_what_is_not_supported_is_named():
    generator, batch = DiffusionGenerator(DecodeOptions(), "ddim", DICTIONARY), {}
    with pytest.raises(UserError, match="prefix_tokens"):
        generator.generate([Model()], batch, prefix_tokens=torch.zeros(1), constraints=None)
    with pytest.raises(UserError, match="2 models"):
        generator.generate([Model(), Model()], batch)


def test_settings_are_announced_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    generator = DiffusionGenerator(DecodeOptions(steps=2, seed=9), "cedi", DICTIONARY)
    for _ in range(2):
        generator.generate([Model()], {"net_input": {"src_tokens": SOURCE}})
    (text,) = [record.message for record in caplog.records if record.message.startswith("decoding:")]
    assert "cedi" in text and "1.0 to 0.99" in text and "2 network calls" in text and "seed 9" in text
