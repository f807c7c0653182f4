"""A batch decoded in buckets gives what it gives at once."""

from __future__ import annotations

from typing import Any

import blocks
import pytest
import torch
from gaussians import PAD, Model, build, sources
from generators import generator_of

from fairseq_diffusion.decoding.buckets import GRAIN, plan
from fairseq_diffusion.kernels.launch import power_of_two
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder

AT_ONCE = 10**9
LENGTHS, SOURCES = [40, 40, 31, 22, 9, 9, 8, 2], [33, 50, 30, 20, 9, 8, 7, 1]


# -- the plan


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("limit", [1, 50, 130, 10**6])
@pytest.mark.parametrize("candidates", [1, 3])
def test_every_sentence_is_in_a_bucket_that_has_room(candidates: int, limit: int, fixed: bool):
    found = plan(LENGTHS, SOURCES, candidates, limit, fixed)
    assert [i for bucket in found for i in range(bucket.first, bucket.first + bucket.sentences)] == list(range(8))
    for first, count, rows, width, source_width in found:
        assert width >= max(LENGTHS[first : first + count])
        assert source_width >= max(SOURCES[first : first + count])
        assert candidates * rows * width <= limit or count == 1 or rows > count  # copies may fill the last bucket


def test_buckets_are_as_full_as_they_can_be():
    assert [bucket.sentences for bucket in plan(LENGTHS, SOURCES, 1, 80, False)] == [2, 2, 4]
    assert [bucket.sentences for bucket in plan(LENGTHS, SOURCES, 2, 80, False)] == [1, 1, 1, 1, 4]
    assert [bucket[2:] for bucket in plan(LENGTHS, SOURCES, 1, 80, False)] == [(2, 40, 50), (2, 31, 30), (4, 9, 9)]


def test_fixed_shapes_are_few():
    """Lengths to multiples of 8, full buckets of 2^n sentences; the source at least as wide as the canvas."""
    assert [tuple(bucket) for bucket in plan(LENGTHS, SOURCES, 1, 100, True)] == [
        (0, 2, 2, 40, 56),
        (2, 2, 2, 32, 32),
        (4, 4, 4, 16, 16),
    ]
    assert [bucket.rows for bucket in plan([16] * 7, [9] * 7, 1, 10**6, True)] == [8]
    everything = [plan([n] * s, [n] * s, 1, 512, True) for n in range(2, 65) for s in range(1, 33)]
    assert len({bucket[2:] for found in everything for bucket in found}) <= 64 // GRAIN * 6


def test_powers_of_two():
    assert [power_of_two(count) for count in range(10)] == [0, 1, 2, 4, 4, 8, 8, 8, 8, 16]


# -- what comes out


class Longer:
    """An AR model that likes its translations long."""

    def scores(self, net_input: dict[str, Any], hypotheses: list[list[list[int]]]) -> list[list[float]]:
        first = net_input["src_tokens"].masked_fill(net_input["src_tokens"].eq(PAD), 0).sum(-1).tolist()
        return [[len(words) + total * 1e-3 for words in own] for total, own in zip(first, hypotheses)]


def same(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]], steps: bool = True) -> None:
    """Hypotheses, their scores, and all that stood on their canvases; and, unless `steps` is off, network calls."""
    assert [len(own) for own in found] == [len(own) for own in expected]
    for one, other in ((a, b) for own, its in zip(found, expected) for a, b in zip(own, its)):
        assert one["tokens"].tolist() == other["tokens"].tolist()
        torch.testing.assert_close(one["positional_scores"], other["positional_scores"], rtol=0, atol=1e-4)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["steps"] == other["steps"] or not steps
        assert len(one["history"]) == len(other["history"])
        for shown, expected_shown in zip(one["history"], other["history"]):
            assert shown["tokens"].tolist() == expected_shown["tokens"].tolist()
            torch.testing.assert_close(
                shown["positional_scores"], expected_shown["positional_scores"], rtol=0, atol=1e-3, equal_nan=True
            )


WIDE = {"length_beam": 3, "noise_beam": 2, "nbest": 6}
DIFFUSION: dict[str, dict[str, Any]] = {
    "one candidate": {},
    "candidates": WIDE,
    "history": {**WIDE, "history": True, "sampler": "ddpm"},
    "pruned": {**WIDE, "prune_after": "1,3", "history": True},
    "stopped": {**WIDE, "stop_stable": 1, "history": True, "steps": 14, "sampler": "cedi"},
    "both": {**WIDE, "stop_stable": 2, "prune_after": "3", "steps": 14},
    "guided": {"noise_beam": 2, "guidance": 1.5, "clamp": True, "sampler": "dpmpp_2m"},
    "mbr": {**WIDE, "selection": "mbr_two_level", "length_beam_kind": "offsets"},
    "rescored": {**WIDE, "selection": "joint:4,rescore", "rescore": True},
    "words": {**WIDE, "sampler": "ancestral", "history": True, "prune_after": "1,3"},
    "words drawn": {**WIDE, "sampler": "confidence", "word_temperature": 1.0},
    "replaced words, stopped": {**WIDE, "sampler": "resample", "stop_stable": 1, "steps": 14},
    "words, guided": {"noise_beam": 2, "guidance": 1.5, "sampler": "mask_predict", "word_temperature": 2.0},
}
WORDS = {"state": "tokens", "schedule": "log_linear", "objective": "corrupted", "self_conditioning": "random"}


def translator_for(way: str) -> Any:
    if "words" not in way:
        return build(source_drop=0.1)
    share = 0.0 if way.startswith("replaced") else 1.0
    return build(source_drop=0.1, **WORDS, mask_share=share)


def translate(translator: Any, positions: int | None, fixed: bool = False, left: bool = True, **options: Any) -> Any:
    rescored = options.get("rescore", False)
    asked = {"steps": 5, **options, "candidate_positions": positions}
    generator = generator_of(translator, Longer() if rescored else None, **asked)
    generator.decoder.fixed_shapes = fixed
    models = [Model(translator), *[None] * rescored]
    found = generator.generate(models, {"net_input": {"src_tokens": sources(left=left)}})
    assert generator.describe()["sentences"] == len(found) == 7
    return found


@pytest.mark.parametrize("way", DIFFUSION)
def test_buckets_change_nothing_step_by_step(way: str):
    options = DIFFUSION[way]
    translator = translator_for(way)
    expected = translate(translator, AT_ONCE, **options)
    assert len({tuple(own[0]["tokens"].tolist()) for own in expected}) > 3
    for positions in (1, 70):
        same(translate(translator, positions, **options), expected, steps="stop_stable" not in options)
    same(translate(translator, 90, left=False, **options), expected, steps="stop_stable" not in options)


@pytest.mark.parametrize("way", DIFFUSION)
def test_fixed_shapes_change_nothing(way: str):
    """Rows and positions that are there to fill a shape up are not seen, and not counted."""
    options = DIFFUSION[way]
    translator = translator_for(way)
    expected = translate(translator, AT_ONCE, **options)
    for positions in (AT_ONCE, 100):
        same(translate(translator, positions, True, **options), expected, steps="stop_stable" not in options)


def test_fixed_shapes_stay_few_while_candidates_leave(monkeypatch: pytest.MonkeyPatch):
    translator, seen = build(), set()
    denoise = translator.denoise
    translator.denoise = lambda x, t, c, mask, source: (
        seen.add((*source.mask.shape, *x.shape)) or denoise(x, t, c, mask, source)
    )
    translate(translator, AT_ONCE, True, **{**DIFFUSION["stopped"], "noise_beam": 3, "history": False})
    assert len({sentences for sentences, *_ in seen}) > 1
    for sentences, width, rows, length, _ in seen:
        assert sentences == power_of_two(sentences) and width % GRAIN == length % GRAIN == 0
        assert rows // sentences in (1, 2, 4, 8, 9)


ONE_PASS: dict[str, tuple[str, dict[str, Any]]] = {
    "lengths": ("length", {"length_beam": 3, "nbest": 3, "selection": "joint:2,mbr"}),
    "passes": ("length", {"length_beam": 2, "passes": 2, "drop_repeats": True, "nbest": 2}),
    "ctc": ("ctc", {"passes": 2}),
    **{search: ("dag", {"path_search": search, "passes": 2}) for search in ("greedy", "lookahead", "joint_viterbi")},
    "sample": ("dag", {"path_search": "sample", "noise_beam": 4, "nbest": 4}),
    "beam": ("dag", {"path_search": "beam", "beam": 3, "nbest": 3}),
}


def predict(translator: Any, positions: int | None, **options: Any) -> tuple[Any, set[int]]:
    """Hypotheses, and the widths of the canvases."""
    seen: set[int] = set()
    hook = translator.decoder.layers[0].register_forward_hook(lambda layer, inputs, out: seen.add(out.shape[1]))
    generator = generator_of(translator, **options, history=True, candidate_positions=positions)
    found = generator.generate([Model(translator)], {"net_input": {"src_tokens": sources(left=True)}})
    hook.remove()
    return found, seen


@pytest.mark.parametrize("copy", ["uniform", "soft"])
@pytest.mark.parametrize("way", ONE_PASS)
def test_buckets_change_nothing_in_one_pass(way: str, copy: str):
    kind, options = ONE_PASS[way]
    translator = blocks.build(alignment=kind, blocks=2, source_copy=copy, keep_schedule="linear").eval()
    expected, one = predict(translator, AT_ONCE, **options)
    assert len(one) == 1
    for positions in (1, 80):
        found, widths = predict(translator, positions, **options)
        same(found, expected)
    assert len(widths) > 1 and max(widths) in one


def test_the_host_asks_once(monkeypatch: pytest.MonkeyPatch):
    """For all that a plan needs, however many buckets there are; translations come to it in the end."""
    waits: list[str] = []
    for name in ("item", "__int__", "__bool__", "__index__", "tolist", "nonzero", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda x, *a, original=original, name=name: waits.append(name) or original(x, *a)
        )
    translator = build()
    generator = generator_of(translator, steps=4, noise_beam=2, candidate_positions=9)
    asked: list[int] = []
    decode = DiffusionDecoder.__call__
    monkeypatch.setattr(DiffusionDecoder, "__call__", lambda *given: asked.append(len(waits)) or decode(*given))
    monkeypatch.setattr(generator, "select", lambda candidates, net_input: [[0]] * 7)
    del waits[:]
    generator.generate([Model(translator)], {"net_input": {"src_tokens": sources()}})
    assert len(asked) > 2 and waits[0] == "tolist"
    assert set(asked) == {1}


def test_a_bucket_of_another_size_for_every_limit():
    """Else the tests above compared a batch with itself."""
    seen: dict[int, list[int]] = {}
    for positions in (1, 70, 150, AT_ONCE):
        translator, rows = build(), []
        denoise = translator.denoise
        translator.denoise = lambda x, *more, rows=rows, denoise=denoise: rows.append(len(x)) or denoise(x, *more)
        translate(translator, positions, steps=1, **WIDE)
        seen[positions] = rows
    assert seen[1] == [6] * 7 and seen[AT_ONCE] == [42]
    assert len(seen[70]) > len(seen[150]) > 1
