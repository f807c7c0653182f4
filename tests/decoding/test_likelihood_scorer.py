"""Likelihoods of the targets of a batch, and of candidates to choose among."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gaussians import BOS, DICTIONARY, EOS, PAD, Model, build, encode, sources
from generators import generator_of

from fairseq_diffusion.decoding import likelihood
from fairseq_diffusion.decoding.likelihood import LikelihoodScorer, pairs
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise

TOKENS = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "objective": "elbo"}
SOURCE = sources((5, 9, 3), left=True)
TARGET = torch.tensor([[5, 6, 7, EOS], [8, EOS, PAD, PAD], [9, 9, EOS, PAD]])
NET_INPUT = {"src_tokens": SOURCE}
CANDIDATES = {"steps": 3, "sampler": "ancestral", "length_beam": 4, "noise_beam": 3, "nbest": 12}
HYPOTHESES = [[[5, 6, 7], [5, 6]], [], [[9, 9], [4], []]]


def scorer(translator: Any = None, **more: Any) -> LikelihoodScorer:
    return LikelihoodScorer(translator or build(**TOKENS), DICTIONARY, **{"samples": 4, "seed": 3, **more})


def test_a_batch_is_scored_by_the_noise_of_its_sources():
    model = build(**TOKENS)
    found = scorer(model.train()).of_batch({"net_input": NET_INPUT, "target": TARGET})
    assert not model.training
    target = torch.nn.functional.pad(TARGET, (1, 0), value=BOS)
    keys = noise.sentence_keys(3, SOURCE, SOURCE.ne(PAD))
    nats, error, _ = model.likelihood(encode(model, SOURCE), target, target.ne(PAD), keys, 4)
    assert [each.tokens for each in found] == [4, 2, 3] and not any(each.exact for each in found)
    assert [each.nats for each in found] == pytest.approx(nats.tolist(), rel=1e-5)
    assert [each.error for each in found] == pytest.approx(error.tolist(), rel=1e-4)
    assert [each.per_token for each in found] == [each.nats / each.tokens for each in found]


def test_candidates_are_scored_per_token():
    scores = scorer().scores(NET_INPUT, HYPOTHESES)
    assert [len(own) for own in scores] == [2, 0, 3]
    for index, own in ((0, [5, 6]), (2, [])):
        target = torch.tensor([[*own, EOS]])
        batch = {"net_input": {"src_tokens": SOURCE[index : index + 1]}, "target": target}
        alone = scorer().of_batch(batch)[0].per_token
        assert scores[index][HYPOTHESES[index].index(own)] == pytest.approx(-alone, rel=1e-4)
    assert scorer().scores(NET_INPUT, [[], [], []]) == [[], [], []]


def test_candidates_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    model, seen = build(**TOKENS), []
    own = type(model).likelihood
    monkeypatch.setattr(model, "likelihood", lambda *args: (seen.append(len(args[1])), own(model, *args))[1])
    whole = scorer(model).scores(NET_INPUT, HYPOTHESES)
    monkeypatch.setattr(likelihood, "POSITIONS", 8)
    parts = scorer(model).scores(NET_INPUT, HYPOTHESES)
    assert seen == [5, 2, 2, 1]
    for one, other in zip(whole, parts):
        assert one == pytest.approx(other, rel=1e-4)


MANY = {"steps": 3, "sampler": "ancestral", "length_beam": 4, "noise_beam": 3, "nbest": 12}


def test_a_generator_ranks_candidates_by_it():
    """Best first, and otherwise than by the score."""
    model, batch = build(**TOKENS), {"net_input": NET_INPUT}
    asked = {**MANY, "seed": 3, "likelihood_samples": 4}
    chosen, usual = (
        generator_of(model, selection=selection, **asked).generate([Model(model)], batch)
        for selection in ("likelihood", "score")
    )
    words = [[found["tokens"][:-1].tolist() for found in own] for own in chosen]
    merit = scorer(model).scores(NET_INPUT, words)
    assert all(own == sorted(own, reverse=True) for own in merit)
    assert words != [[found["tokens"][:-1].tolist() for found in own] for own in usual]
    assert [len(own) for own in chosen] == [len(own) for own in usual] and max(map(len, chosen)) > 3


def test_it_is_a_stage_like_others():
    model = build(**TOKENS)
    asked = {**MANY, "selection": "score:2,likelihood"}
    found = generator_of(model, **asked).generate([Model(model)], {"net_input": NET_INPUT})
    by_score = generator_of(model, **{**asked, "selection": "score"}).generate([Model(model)], {"net_input": NET_INPUT})
    for one, other in zip(found, by_score):
        ours, usual = ([each["tokens"].tolist() for each in own] for own in (one, other))
        assert sorted(ours[:2]) == sorted(usual[:2]) and ours[2:] == usual[2:]


def test_one_sample_is_too_few():
    with pytest.raises(UserError, match="--likelihood-samples is 1; pass 2 or more"):
        generator_of(build(**TOKENS), likelihood_samples=1)
    with pytest.raises(UserError, match="1 samples of a likelihood's bound"):
        scorer(samples=1)


@pytest.mark.parametrize(
    "source, target, said",
    [
        ([EOS], "w4", r"source 1 \(counted from 0\) is empty"),
        ([5, EOS], "w4 w5 w6", r"translation 1 \(counted from 0\) has 4 tokens with its end, .* up to 3; split"),
    ],
)
def test_pairs_that_a_model_does_not_take(source: list[int], target: str, said: str):
    encode_line = lambda text, add_if_not_exist: torch.tensor([*(int(w[1:]) for w in text.split()), EOS])  # noqa: E731
    task: Any = SimpleNamespace(target_dictionary=SimpleNamespace(encode_line=encode_line))
    with pytest.raises(UserError, match=said):
        pairs(task, [torch.tensor([5, EOS]), torch.tensor(source)], ["w4 w5", target], 3)
