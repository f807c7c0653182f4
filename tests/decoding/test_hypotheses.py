"""Words scattered over positions become hypotheses, and any translator that finds some can be decoded with."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gaussians import DICTIONARY, EOS, Model
from torch import Tensor, nan

from fairseq_diffusion.alignment.base import Words
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.hypotheses import hypotheses, readable
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.samplers.early_exit import ActiveRows
from fairseq_diffusion.translators.base import Decoder, Options, Translator
from fairseq_diffusion.translators.batch import Candidates, HistoryStep, Lengths, Losses, OnStep, Source
from fairseq_diffusion.translators.diffusion_decoding import History

TOKENS = torch.tensor([[[7, 8, 9, 5], [5, 5, 6, 1]], [[4, 4, 4, 4], [1, 6, 1, 7]]])  # [2, 2, 4]
MASK = torch.tensor([[[1, 0, 1, 1], [0, 0, 0, 0]], [[0, 1, 0, 0], [0, 1, 0, 1]]]).bool()
LOG_P = torch.tensor([[[-1.0, nan, -2.0, -3.0], [nan] * 4], [[-1, -5.0, -1, -1], [-1, -0.5, -1, -0.25]]])
END = torch.tensor([[-4.0, -0.5], [0.0, -0.25]])
WORDS = [[[7, 9, 5], []], [[4], [6, 7]]]
POSITIONAL = [[[-1, -2, -3, -4], [-0.5]], [[-5, 0], [-0.5, -0.25, -0.25]]]
LENGTHS = Lengths(torch.full((2, 2), 4), -torch.ones(2, 2), width=4)
CALLS = torch.tensor([[1, 2], [3, 4]])


def test_words_move_together_and_take_their_scores_along():
    candidates = Candidates.of(Words(TOKENS, LOG_P, MASK, END), LENGTHS, CALLS)
    found = hypotheses(candidates, [[0, 1], [0, 1]], EOS)
    for s, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        hypothesis, positions = found[s][k], POSITIONAL[s][k]
        assert hypothesis["tokens"].tolist() == [*WORDS[s][k], EOS]
        assert hypothesis["positional_scores"].tolist() == positions
        assert hypothesis["score"] == pytest.approx(sum(positions) / len(positions))
        assert candidates.joint[s, k] == pytest.approx((sum(positions) - 1) / len(positions))
        assert candidates.length_rank[s, k] == k
    assert [[h["steps"] for h in row] for row in found] == [[1, 2], [3, 4]]


def test_the_length_penalty_is_the_exponent_of_the_number_of_words_and_end():
    candidates = Candidates.of(Words(TOKENS, LOG_P, MASK, END), LENGTHS, CALLS, length_penalty=0.5)
    wanted = [[sum(log_p) / len(log_p) ** 0.5 for log_p in sentence] for sentence in POSITIONAL]
    torch.testing.assert_close(candidates.scores, torch.tensor(wanted).double())


def test_candidates_of_one_length_have_its_rank():
    """Two noises at each of two lengths; and lengths that nobody predicted make no groups."""
    words = Words(*(part.repeat(1, 2, *[1] * (part.dim() - 2)) for part in (TOKENS, LOG_P, MASK, END)))
    candidates = Candidates.of(words, LENGTHS, CALLS.repeat(1, 2))
    assert candidates.length_rank.tolist() == [[0, 0, 1, 1]] * 2
    assert Candidates.of(words, LENGTHS._replace(predicted=False), CALLS.repeat(1, 2)).length_rank.eq(0).all()


def test_each_candidate_has_its_own_calls_and_history():
    """Of three candidates, two are chosen in one sentence and one in the other."""
    canvas, sizes = 10 * torch.arange(6).view(2, 3, 1).expand(2, 3, 4), torch.tensor([[3, 1, 4], [1, 1, 4]])
    wider = torch.nn.functional.pad(canvas, (0, 2), value=5)
    history = [HistoryStep(canvas, -canvas.float(), sizes), HistoryStep(wider, -wider.float(), sizes + 2)]
    words = Words(*(torch.cat([part, part[:, :1]], 1) for part in (TOKENS, LOG_P, MASK, END)))
    lengths = Lengths(torch.full((2, 1), 4), torch.zeros(2, 1), width=4)
    candidates = Candidates.of(words, lengths, torch.tensor([[1, 2, 3], [4, 5, 6]]))
    found = hypotheses(candidates, [[2, 0], [2]], EOS, history)
    assert [[h["steps"] for h in row] for row in found] == [[3, 1], [6]]
    shown = [[[step["tokens"].tolist() for step in h["history"]] for h in row] for row in found]
    assert shown == [[[[20] * 4, [20] * 4 + [5] * 2], [[0] * 3, [0] * 4 + [5]]], [[[50] * 4, [50] * 4 + [5] * 2]]]
    for step in (step for row in found for h in row for step in h["history"]):
        assert step["positional_scores"].tolist() == [-token for token in step["tokens"].tolist()]


class Echo(Translator):
    """Translates by the source itself; and by nothing."""

    name, Options = "echo", Options

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        return Source(mask, (tokens + 1.0)[..., None], [])

    def losses(self, *batch: Any) -> Losses:
        raise AssertionError("an echo has nothing to learn")

    def lengths(self, source: Source, beam: int, kind: str, template: Any = None) -> Lengths:
        return Lengths(source.length[:, None], torch.zeros(len(source.mask), 1), source.mask.shape[1], predicted=False)

    def decoder_for(self, options: Options) -> Decoder:
        return EchoDecoder()


class EchoDecoder(Decoder):
    def __call__(self, source: Source, lengths: Lengths, keys: Tensor, on_step: OnStep | None = None) -> Candidates:
        assert keys.shape == (len(source.mask), 1, 1)
        tokens = source.states[..., 0].long()[:, None].expand(-1, 2, -1)
        assert tokens.shape[-1] == lengths.width
        mask = torch.tensor([True, False])[:, None].expand(tokens.shape)
        words = Words(tokens, torch.full(tokens.shape, -1.0), mask, torch.full(tokens.shape[:2], -2.0))
        if on_step is not None:
            on_step(HistoryStep(tokens, words.log_p, torch.full(tokens.shape[:2], tokens.shape[2])))
        return Candidates.of(words, lengths, torch.tensor([[1, 2]]).expand(tokens.shape[:2]))

    def settings(self) -> dict[str, Any]:
        return {"passes": 2}


def test_any_translator_can_be_decoded_with(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    generator = Generator(Echo(), Options(), SelectionOptions(nbest=5, history=True, seed=3), DICTIONARY)
    batch = {"net_input": {"src_tokens": torch.tensor([[4, 5], [6, 7]])}}
    (best, empty), (other, _) = generator.generate([Model(Echo())], batch)
    assert best["tokens"].tolist() == [1, 5, 6, EOS] and other["tokens"].tolist() == [1, 7, 8, EOS]
    assert empty["tokens"].tolist() == [EOS] and empty["score"] == -2
    assert best["history"][0]["tokens"].tolist() == [1, 5, 6]
    facts = generator.describe()
    assert (facts["passes"], facts["calls"], facts["seed"], facts["sentences"]) == (2, 1.5, 3, 2)
    (text,) = [record.message for record in caplog.records if record.message.startswith("decoding:")]
    assert "passes 2, calls 1.5" in text


def test_candidates_that_have_left_keep_what_they_had_last():
    """Two sentences of two candidates; of the batch that remains, one row has been finished before."""
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 1, 1]]]).bool()
    steps: list[HistoryStep] = []
    history = History(mask, lambda s_t, estimate, index: (s_t, estimate), steps.append)
    history(ActiveRows(2, 2), torch.full((2, 2, 3), 7), torch.full((2, 2, 3), -1.0))
    remaining = SimpleNamespace(
        index=(torch.tensor([[1]]), torch.tensor([[0, 1]])), stopped=torch.tensor([[True, False]])
    )
    history(remaining, torch.full((1, 2, 3), 9), torch.full((1, 2, 3), -2.0))
    first, second = steps
    assert first.tokens.eq(7).all() and first.sizes.tolist() == [[3, 2], [1, 3]]
    assert second.tokens[:, :, 0].tolist() == [[7, 7], [7, 9]]
    assert second.log_p[:, :, 0].tolist() == [[-1, -1], [-1, -2]]


def test_a_readable_history_is_json():
    steps = [
        {"tokens": torch.tensor([0, 2]), "positional_scores": torch.tensor([nan, -0.5]).half()},
        {"tokens": torch.tensor([1]), "positional_scores": None},  # as fairseq's own iterative models have it
    ]
    found = readable(steps, ["<s>", "a", "b@@"])
    assert found == [{"tokens": ["<s>", "b@@"], "p": [None, 0.6065]}, {"tokens": ["a"], "p": [None]}]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
