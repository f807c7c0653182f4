"""Durations in the losses of translators, and durations by the alignments of CTC and DAG models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import blocks
import gaussians
import pytest
import torch
from blocks import BOS, PAD, SOURCE, TARGET
from torch import Tensor

KEYS = torch.tensor([11, 12, 13])
DURATIONS = torch.tensor([[0, 2, 1, 1, 0, -1, -1], [1, 0, 0, 9, 0, 0, 0], [-1] * 7])  # the last one's are not known
WORDS = {"state": "tokens", "objective": "elbo", "self_conditioning": "none", "time_features": "none"}
MODELS = {
    "words": lambda **flags: gaussians.build(**WORDS, **flags),
    "vectors": lambda **flags: gaussians.build(**flags),
    "one pass": lambda **flags: blocks.build(**flags),
}


def losses(model: Any, source: Tensor = SOURCE, durations: Tensor | None = None) -> Any:
    return model.losses(source, source.ne(PAD), TARGET, TARGET.ne(PAD), KEYS, 0, durations)


def expected(model: Any, durations: Tensor | None) -> list[float]:
    """The loss of the length, sentence by sentence: -log of the sum over what adds up, or of the durations known."""
    length, found = model.length, []
    for i, tokens in enumerate(SOURCE):
        tokens, size = tokens[tokens.ne(PAD)][None], int(TARGET[i].ne(PAD).sum())
        log_p = length.map(model.encode(tokens, tokens.ne(PAD)).states)[0].double().log_softmax(-1)
        r, total = length.free.double().sigmoid(), torch.zeros(42, dtype=torch.float64)
        if durations is None or durations[i, 0] < 0:
            total[2:] = (1 - r) * r ** torch.arange(40)
            for row in log_p.exp():
                total = sum(row[f] * torch.cat([total.new_zeros(f), total[: 42 - f]]) for f in range(len(row)))
            found.append(float(-(total[size] / total.sum()).log()))
        else:
            true = durations[i, : len(log_p)].tolist()
            known = sum(row[min(f, len(row) - 1)] for row, f in zip(log_p, true))
            beyond = sum(max(0, f - log_p.shape[1] + 1) for f in true)
            found.append(float(-known - (1 - r).log() - beyond * r.log()))
    return found


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("durations", [None, DURATIONS], ids=["not known", "known"])
def test_the_loss_of_the_length(kind: str, durations: Tensor | None):
    """Left padding behind <s> is the same to it."""
    model = MODELS[kind](length_target="durations", duration_classes=4, length_loss=0.5)
    left = torch.stack([torch.cat([row[:1], row[row.eq(PAD)], row[1:][row[1:].ne(PAD)]]) for row in SOURCE])
    for source in (SOURCE, left):
        found = losses(model, source, durations).terms["length"].tolist()
        assert found == pytest.approx(expected(model, durations), rel=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_only_the_loss_of_the_length_knows_of_durations(kind: str):
    model = MODELS[kind](length_target="durations")
    with_them, without = losses(model, durations=DURATIONS), losses(model)
    for name in without.terms:
        assert torch.equal(with_them.terms[name], without.terms[name]) == (name != "length")
    assert with_them.means.keys() == without.means.keys()


TARGETS = ("difference", "absolute", "half", "durations")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", MODELS)
def test_validation_logs_how_far_the_likeliest_length_is_off(kind: str, target: str):
    """Half of a length is of positions, of which one may be filled."""
    if (kind, target) == ("one pass", "half"):
        return
    model = MODELS[kind](length_target=target, length_classes=32).eval()
    found = losses(model).means
    best = model.lengths(model.encode(SOURCE, SOURCE.ne(PAD)), 1, "top_k").positions[:, 0]
    true = TARGET.ne(PAD).sum(-1)
    off = (best - (true + true % 2 if target == "half" else true)).abs().double()
    assert float(found["length_off"].total) == float(off.sum()) and int(found["length_off"].number) == 3
    assert int(found["length_exact"].total) == int((off == 0).sum())
    assert "length_off" not in losses(model.train()).means


# -- durations by an alignment


def by_hand(index: list[int], words: int, tokens: int) -> list[int]:
    """Words 1 to `words` counted at the token nearest to the first of their places, of a canvas as long as `index`."""
    found = [0] * tokens
    for word in range(1, words + 1):
        place = index.index(word)
        found[(2 * place * (tokens - 1) + len(index) - 1) // (2 * (len(index) - 1))] += 1
    return found


@pytest.mark.parametrize("kind", ["ctc", "dag"])
@pytest.mark.parametrize("number", [1, 2])
def test_words_are_counted_at_the_token_nearest_to_their_place(kind: str, number: int):
    model = blocks.build(alignment=kind, blocks=number, upsample=2.0).eval()
    seen: list[Any] = []
    score = model.alignment.score
    model.alignment.score = lambda *given: (seen.append(score(*given)), seen[-1])[1]
    source = torch.stack([torch.cat([row[:1], row[row.eq(PAD)], row[1:][row[1:].ne(PAD)]]) for row in SOURCE])
    encoded = model.encode(source, source.ne(PAD))
    found = model.durations(encoded, TARGET, TARGET.ne(PAD))
    sizes, words = source.ne(PAD).sum(-1).tolist(), (TARGET.ne(PAD).sum(-1) - 2).tolist()
    assert not any(scored.impossible.any() for scored in seen)
    for row, index, size, count in zip(found.tolist(), seen[-1].align().tolist(), sizes, words):
        assert row[:size] == by_hand(index[: 2 * size], count, size) and not any(row[size:])
        assert sum(row) == count


def test_what_does_not_fit_on_the_canvas_is_not_known():
    model = blocks.build(alignment="ctc", upsample=1.0).eval()
    source = torch.tensor([[BOS, 5, 6, 2], [BOS, 5, 2, PAD]])
    target = torch.tensor([[BOS, 5, 6, 7, 2], [BOS, 5, 5, 5, 2]])  # of three positions, where repeats need a blank
    found = model.durations(model.encode(source, source.ne(PAD)), target, target.ne(PAD))
    assert found[0].sum() == 3 and (found[1] == -1).all()


def test_repeated_positions_of_a_word_count_once(monkeypatch: pytest.MonkeyPatch):
    model = blocks.build(alignment="ctc", upsample=2.0).eval()
    index = torch.tensor([[1, 1, 0, 2, 2, 2, 3, 4, 0, 0]])
    score = model.alignment.score
    monkeypatch.setattr(model.alignment, "score", lambda *given: replace(score(*given), align=lambda: index))
    found = model.durations(model.encode(SOURCE[:1, :5], SOURCE[:1, :5].ne(PAD)), TARGET[:1], TARGET[:1].ne(PAD))
    assert found.tolist() == [[1, 1, 0, 2, 0]]
