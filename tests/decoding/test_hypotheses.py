"""Words scattered over a canvas become hypotheses, and any kind of model that writes so is a generator."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nan, nn

from fairseq_diffusion.alignment.base import Written
from fairseq_diffusion.decoding.buckets import Drafts
from fairseq_diffusion.decoding.gaussian import nothing_said, updated
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.hypotheses import Spoken, Step, gather_words, hypotheses, readable
from fairseq_diffusion.decoding.kinds import KINDS, kind_of
from fairseq_diffusion.decoding.options import CandidateOptions, candidate_flags
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.samplers.early_exit import Roster
from fairseq_diffusion.translators.source import Source

PAD, EOS = 1, 2
TOKENS = torch.tensor([[[7, 8, 9, 5], [5, 5, 6, 1]], [[4, 4, 4, 4], [1, 6, 1, 7]]])  # [2, 2, 4]
SAID = torch.tensor([[[1, 0, 1, 1], [0, 0, 0, 0]], [[0, 1, 0, 0], [0, 1, 0, 1]]]).bool()
LOG_P = torch.tensor([[[-1.0, nan, -2.0, -3.0], [nan] * 4], [[-1, -5.0, -1, -1], [-1, -0.5, -1, -0.25]]])
END = torch.tensor([[-4.0, -0.5], [0.0, -0.25]])
WORDS = [[[7, 9, 5], []], [[4], [6, 7]]]
POSITIONAL = [[[-1, -2, -3, -4], [-0.5]], [[-5, 0], [-0.5, -0.25, -0.25]]]
RANKS, LIKELY = torch.tensor([[0, 1], [0, 1]]), -torch.ones(2, 2)
CALLS = torch.tensor([[1, 2], [3, 4]])


def spoken(calls: Tensor = CALLS, rows: Tensor | None = None) -> Spoken:
    return gather_words(Written(TOKENS, LOG_P, SAID, END), LIKELY, RANKS, calls, rows)


def test_words_move_together_and_take_their_scores_along():
    found = hypotheses(spoken(), [[0, 1], [0, 1]], EOS)
    for s, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        hypothesis, positions = found[s][k], POSITIONAL[s][k]
        assert hypothesis["tokens"].tolist() == [*WORDS[s][k], EOS]
        assert hypothesis["positional_scores"].tolist() == positions
        assert hypothesis["score"] == pytest.approx(sum(positions) / len(positions))
        assert spoken().candidates.joint[s, k] == pytest.approx((sum(positions) - 1) / len(positions))
        assert spoken().candidates.length_rank[s, k] == k
    assert [[h["steps"] for h in row] for row in found] == [[1, 2], [3, 4]]


def test_those_who_are_left_keep_their_calls_and_history():
    """Of three candidates two are left, in another order in each sentence."""
    rows, calls = torch.tensor([[2, 0], [1, 2]]), torch.tensor([[1, 2, 3], [4, 5, 6]])
    canvas, sizes = 10 * torch.arange(6).view(2, 3, 1).expand(2, 3, 4), torch.tensor([[3, 1, 4], [1, 1, 4]])
    wider = torch.nn.functional.pad(canvas, (0, 2), value=5)
    trail = [Step(canvas, -canvas.float(), sizes), Step(wider, -wider.float(), sizes + 2)]
    found = hypotheses(spoken(calls, rows), [[0, 1], [1]], EOS, trail)
    assert [[h["steps"] for h in row] for row in found] == [[3, 1], [6]]
    shown = [[[step["tokens"].tolist() for step in h["history"]] for h in row] for row in found]
    assert shown == [[[[20] * 4, [20] * 4 + [5] * 2], [[0] * 3, [0] * 4 + [5]]], [[[50] * 4, [50] * 4 + [5] * 2]]]
    for step in (step for row in found for h in row for step in h["history"]):
        assert step["positional_scores"].tolist() == [-token for token in step["tokens"].tolist()]


class Model(nn.Module):
    pad = PAD

    def encode(self, tokens: Tensor) -> Source:
        return Source(tokens.ne(PAD), (tokens + 1.0)[..., None], [])


class Echo(Generator):
    """Says the source; and nothing."""

    def lengths(self, model: Any, batch: Any, source: Source) -> tuple[Tensor, Tensor]:
        return source.length[:, None], torch.zeros(len(source.length), 1)

    def write(self, model: Any, drafts: Drafts) -> tuple[Spoken, list[Step]]:
        assert drafts.keys.shape == drafts.source.mask.shape[:1]
        tokens = drafts.source.states[..., 0].long()[:, None].expand(-1, 2, -1)
        assert tokens.shape[-1] == drafts.width
        said = torch.tensor([True, False])[:, None].expand(tokens.shape)
        written = Written(tokens, torch.full(tokens.shape, -1.0), said, torch.full(tokens.shape[:2], -2.0))
        sizes, nothing = said.new_full(tokens.shape[:2], tokens.shape[2], dtype=torch.long), torch.zeros(1, 1)
        ranks, calls = torch.zeros_like(sizes), torch.tensor([[1, 2]]).expand(sizes.shape)
        trail = [Step(tokens, written.log_p, sizes)] if self.options.history else []
        return gather_words(written, nothing, ranks, calls), trail

    def manner(self) -> dict[str, Any]:
        return {"passes": 2}


DICTIONARY = SimpleNamespace(bos=lambda: 0, pad=lambda: 1, eos=lambda: EOS)


def test_a_kind_of_model_says_how_it_writes_and_no_more(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    echo = Echo(CandidateOptions(nbest=5, history=True, seed=3), DICTIONARY)
    batch = {"net_input": {"src_tokens": torch.tensor([[4, 5], [6, 7]])}}
    (best, empty), (other, _) = echo.generate([Model()], batch)
    assert best["tokens"].tolist() == [5, 6, EOS] and other["tokens"].tolist() == [7, 8, EOS]
    assert empty["tokens"].tolist() == [EOS] and empty["score"] == -2
    assert best["history"][0]["tokens"].tolist() == [5, 6]
    told = echo.describe()
    assert (told["passes"], told["calls"], told["seed"], told["sentences"]) == (2, 1.5, 3, 2)
    (text,) = [record.message for record in caplog.records if record.message.startswith("decoding:")]
    assert "passes 2, calls 1.5" in text


def test_an_ensemble_is_refused_for_every_kind():
    with pytest.raises(UserError, match="ensemble of 2 models"):
        Echo(CandidateOptions(), DICTIONARY).generate([Model(), Model()], {})


def test_a_generator_says_how_it_writes():
    with pytest.raises(TypeError, match="abstract"):
        Generator(CandidateOptions(), DICTIONARY)  # type: ignore[abstract]


@pytest.mark.parametrize("options, flag", [({"length_beam": 0}, "--iter-decode-with-beam"), ({"noise_beam": 0}, "--n")])
def test_candidates_of_every_kind_are_checked(options: dict[str, int], flag: str):
    with pytest.raises(UserError, match=flag):
        CandidateOptions(**options)


@pytest.mark.parametrize("asked, kind", [(None, "top_k"), ("offsets", "offsets")])
def test_candidate_flags_are_the_fields(asked: str | None, kind: str):
    own = {"noise_beam": 3, "selection": None, "mbr_utility": "bleu", "mbr_units": "words", "oracle_length": False}
    own["candidate_positions"] = None
    task = SimpleNamespace(length_beam=asked, decode_seed=5, **own)
    generation = SimpleNamespace(iter_decode_with_beam=2, nbest=4)
    found = CandidateOptions(**candidate_flags(task, generation, SimpleNamespace(length_beam="top_k")))
    assert found == CandidateOptions(2, kind, 3, mbr_units="words", nbest=4, seed=5)


def test_kinds():
    assert kind_of(Model()) == "diffusion" and kind_of(SimpleNamespace(kind="glancing")) == "glancing"
    assert KINDS["diffusion"]().generator.__name__ == "GaussianGenerator"
    with pytest.raises(UserError, match="unknown kind of model 'oracle'; choose one of: diffusion, glancing"):
        KINDS["oracle"]


def test_what_has_left_goes_on_saying_what_it_said():
    """Two sentences of two candidates; of the batch that is left, one row has been finished before."""
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 1, 1]]]).bool()
    everyone = Roster(2, 2)
    first = updated(nothing_said(mask), everyone, torch.full((2, 2, 3), 7), torch.full((2, 2, 3), -1.0))
    assert first.tokens.eq(7).all() and first.sizes.tolist() == [[3, 2], [1, 3]]
    left = SimpleNamespace(here=(torch.tensor([[1]]), torch.tensor([[0, 1]])), held=torch.tensor([[True, False]]))
    second = updated(first, left, torch.full((1, 2, 3), 9), torch.full((1, 2, 3), -2.0))
    assert second.tokens[:, :, 0].tolist() == [[7, 7], [7, 9]]
    assert second.log_p[:, :, 0].tolist() == [[-1, -1], [-1, -2]]
    assert first.tokens.eq(7).all()


def test_a_readable_history_is_json():
    steps = [
        {"tokens": torch.tensor([0, 2]), "positional_scores": torch.tensor([nan, -0.5]).half()},
        {"tokens": torch.tensor([1]), "positional_scores": None},  # as fairseq's own iterative models have it
    ]
    found = readable(steps, ["<s>", "a", "b@@"])
    assert found == [{"tokens": ["<s>", "b@@"], "p": [None, 0.6065]}, {"tokens": ["a"], "p": [None]}]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
