"""Translations that contain the words of a template: of every kind of model, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from blocks import MASK
from blocks import build as build_blocks
from gaussians import BOS, EOS, PAD, Model, build, sources
from generators import generator_of
from templates import contains, rows_of, template_of
from token_batches import TOKENS

from fairseq_diffusion.alignment.template import GAP
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

LENGTHS = (9, 4, 12, 6, 7, 10, 5)
SOURCE = sources(LENGTHS)
TEMPLATES: list[tuple[int, ...]] = [
    (GAP, 5, 6, GAP, 7, GAP),  # gaps at either end
    (8, GAP),
    (GAP, 9, 9, GAP, 9, 9),  # the same word side by side, and on both sides of a gap
    (GAP,),
    (4, 5, 6),  # nothing to fill in
    (5, GAP, 5, GAP, 10),
    (GAP, 11, 12, 13),
]
GAPS = [(GAP,)] * len(TEMPLATES)
CANVAS = {"length_target": "canvas", "canvas_positions": 17}
WORDS = {**TOKENS, "objective": "corrupted"}
TOKEN_SAMPLERS = [
    (share, name)
    for share in (0.0, 0.5, 1.0)
    for name in SAMPLERS
    if SAMPLERS[name].family == "categorical"
    and not (SAMPLERS[name].needs_hidden and share < 1 or SAMPLERS[name].needs_replaced and share == 1)
]
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{
        f"vectors {name}": ({}, {"sampler": name, "steps": 4})
        for name in SAMPLERS
        if SAMPLERS[name].family == "gaussian"
    },
    "vectors of any norm, clamped": ({"embedding_norm": "none"}, {"clamp": True, "steps": 4}),
    "vectors, guided": ({"source_drop": 0.1}, {"guidance": 1.5, "steps": 3}),
    **{
        f"words {share} {name}": ({**WORDS, "mask_share": share}, {"sampler": name, "steps": 4})
        for share, name in TOKEN_SAMPLERS
    },
    "words, self-conditioned": (
        {**WORDS, "mask_share": 1.0, "self_conditioning": "random"},
        {"sampler": "ancestral", "steps": 3},
    ),
    "words, canvas": ({**WORDS, **CANVAS}, {"sampler": "mask_predict", "steps": 3}),
    "words, replaced, canvas": ({**WORDS, **CANVAS, "mask_share": 0.0}, {"sampler": "routing", "steps": 4}),
    "words, half": ({**WORDS, "length_target": "half"}, {"sampler": "confidence", "steps": 3}),
    "vectors, canvas": ({**CANVAS, "canvas_scale": 0.5}, {"steps": 3}),
    "one pass length": ({"alignment": "length"}, {}),
    "one pass length, blocks": ({"alignment": "length", "blocks": 4}, {}),
    "one pass length, glanced": ({"alignment": "length", "blocks": 2, "two_pass": True}, {}),
    "one pass length, fed": ({"alignment": "length", "blocks": 4, "feed": "self"}, {}),
    "one pass length, passes": ({"alignment": "length", "glance_count": "uniform"}, {"passes": 3}),
    "one pass length, never shown": ({"alignment": "length", "glance_start": 0.0, "glance_end": 0.0}, {}),
    "one pass ctc": ({"alignment": "ctc"}, {}),
    "one pass ctc, blocks": ({"alignment": "ctc", "blocks": 4}, {}),
    "one pass ctc, words revealed": ({"alignment": "ctc", "blocks": 4, "reveal": "words"}, {}),
    "one pass ctc, passes": ({"alignment": "ctc"}, {"passes": 3}),
    "one pass dag": ({"alignment": "dag"}, {"path_search": "lookahead"}),
    "one pass dag, blocks": ({"alignment": "dag", "blocks": 4}, {"path_search": "joint_viterbi"}),
    "one pass dag, passes": ({"alignment": "dag"}, {"path_search": "greedy", "passes": 3}),
}
PREDICTED = [kind for kind in KINDS if not kind.startswith(("one pass ctc", "one pass dag")) and "canvas" not in kind]


def translator_of(kind: str) -> Any:
    flags = KINDS[kind][0]
    return (build_blocks if kind.startswith("one pass") else build)(**flags).eval()


def decode(
    kind: str, templates: list[tuple[int, ...]] | None = TEMPLATES, source: Any = SOURCE, **options: Any
) -> list[list[dict[str, Any]]]:
    """Hypotheses of each sentence; plain translation without templates."""
    translator = translator_of(kind)
    generator = generator_of(translator, complete=templates is not None, **{**KINDS[kind][1], "nbest": 20, **options})
    rows = None if templates is None else rows_of(*templates)
    return generator.generate([Model(translator)], {"net_input": {"src_tokens": source}}, constraints=rows)


def sentences(found: list[list[dict[str, Any]]]) -> list[list[list[int]]]:
    return [[each["tokens"][:-1].tolist() for each in own] for own in found]


def check_contained(found: list[list[dict[str, Any]]], templates: list[tuple[int, ...]] = TEMPLATES) -> None:
    for own, template in zip(sentences(found), templates):
        assert all(contains(words, template) for words in own), (own, template)


@pytest.mark.parametrize("kind", KINDS)
def test_every_translation_contains_its_template(kind):
    """And plain ones do not, but for the one that is no template, and one at most by chance."""
    check_contained(decode(kind))
    plain = [contains(own[0], template) for own, template in zip(sentences(decode(kind, None)), TEMPLATES)]
    assert plain[3] and sum(plain) <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_mere_gap_is_plain_translation(kind):
    """Word for word, with the same scores, also beside others that have a template."""
    plain, gaps, mixed = decode(kind, None), decode(kind, GAPS), decode(kind)
    assert sentences(plain) == sentences(gaps)
    for one, other in [*zip(plain, gaps), (plain[3], mixed[3])]:
        assert one[0]["tokens"].tolist() == other[0]["tokens"].tolist()
        assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_padding_changes_a_translation(kind):
    together = sentences(decode(kind))
    assert sentences(decode(kind, source=sources(LENGTHS, left=True))) == together
    assert sentences(decode(kind, candidate_positions=1)) == together
    for i, length in enumerate(LENGTHS):
        assert sentences(decode(kind, TEMPLATES[i : i + 1], SOURCE[i : i + 1, :length])) == together[i : i + 1]


@pytest.mark.parametrize("kind", PREDICTED)
def test_lengths_without_room_are_not_tried(kind):
    """There are always as many as asked for, each with room; words without gaps have one length."""
    beam = {"length_beam": 3, **({} if kind.startswith("one pass") else {"noise_beam": 2})}
    if SAMPLERS[KINDS[kind][1].get("sampler", "ddim")].word_temperature == 0:
        beam["word_temperature"] = 1.0
    found = decode(kind, **beam)
    check_contained(found)
    long = [(GAP, *range(4, 18), GAP)] * len(TEMPLATES)  # longer than any length that is predicted for these
    check_contained(decode(kind, long, **beam), long)


def test_lengths_are_the_most_probable_with_room():
    translator = build()
    encoded = translator.encode(SOURCE, SOURCE.ne(PAD))
    made = template_of(*TEMPLATES)
    logits = translator.length(encoded.states, encoded.mask)
    lengths = translator.lengths(encoded, 4, "top_k", made)
    for i, row in enumerate(lengths.positions.tolist()):
        if GAP not in TEMPLATES[i]:
            assert row == [len(TEMPLATES[i]) + 2] * 4
            continue
        every = torch.arange(2, 25)[None]
        log_p = translator.length.log_p(logits[i : i + 1], encoded.length[i : i + 1], every)[0]
        classes = every[0] - encoded.length[i] + translator.length.classes // 2
        real = (every[0] >= made.size[i]) & (classes >= 0) & (classes < translator.length.classes)
        best = every[0][log_p.masked_fill(~real, -torch.inf).topk(4).indices]
        assert row == best.tolist()
    neighbours = translator.lengths(encoded, 3, "offsets", template_of(*[(GAP, *range(4, 19))] * 7)).positions
    assert neighbours.sort(-1).values.diff().eq(1).all() and neighbours.min() >= 17


@pytest.mark.parametrize(
    "options", [{"prune_after": "1,2"}, {"stop_stable": 1}, {"stop_stable": 2, "prune_after": "2"}]
)
@pytest.mark.parametrize("kind", ["vectors ddpm", "words 0.5 ancestral", "words 1.0 ancestral"])
def test_candidates_that_leave_early(kind, options):
    """And choice among them; with --stop-stable the words of a template are stable like any others."""
    if "stop_stable" in options and kind == "words 1.0 ancestral":
        with pytest.raises(UserError, match="still hidden"):
            decode(kind, noise_beam=2, **options)
        return
    asked = {"noise_beam": 4, "length_beam": 2, "steps": 8, **options}
    found = decode(kind, **asked)
    check_contained(found)
    assert sentences(found) == sentences(decode(kind, **asked, candidate_positions=1))
    check_contained(decode(kind, **asked, selection="mbr", nbest=2))


@pytest.mark.parametrize(
    "kind", ["vectors ddim", "words 0.0 resample", "words 1.0 ancestral", "one pass length, glanced"]
)
def test_a_history_shows_the_template_at_every_step(kind):
    """One more network call has placed it."""
    found = decode(kind, history=True)
    for own, template in zip(found, TEMPLATES):
        words = [word for word in template if word != GAP]
        for step in own[0]["history"]:
            shown = iter(step["tokens"].tolist())
            assert all(word in shown for word in words)
    steps = KINDS[kind][1].get("steps", 1)
    calls = [own[0]["steps"] for own in found]
    assert {*calls} == {steps + 1}
    assert max(own[0]["steps"] for own in decode(kind, None)) == steps


@pytest.mark.parametrize("share, name", TOKEN_SAMPLERS)
def test_the_network_sees_the_words_of_the_template_at_every_call(share, name, monkeypatch):
    """A model of words; the first call, which places them, sees none."""
    kind, seen = f"words {share} {name}", []
    translator = translator_of(kind)
    denoise = translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: seen.append(args[0]) or denoise(*args))
    generator = generator_of(translator, complete=True, **KINDS[kind][1])
    template = (GAP, 5, 6, GAP, 7)
    generator.generate([Model(translator)], {"net_input": {"src_tokens": SOURCE[:1]}}, constraints=rows_of(template))
    first, *others = seen
    assert others and all(contains(s[0, 1:-1].tolist(), template) for s in others)
    assert not contains(first[0, 1:-1].tolist(), template)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_vectors_of_known_words_follow_the_forward_process(sampler, monkeypatch):
    """x_t at a known place is alpha_t E[y] + sigma_t eps, and the self-condition is E[y] itself."""
    translator, seen = build(), []
    denoise = translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: seen.append(args) or denoise(*args))
    generator = generator_of(translator, complete=True, steps=6, sampler=sampler, noise_beam=400)
    words = (4, 5, 6, 7)
    generator.generate([Model(translator)], {"net_input": {"src_tokens": SOURCE[:1]}}, constraints=rows_of(words))
    clean = translator.state.encode(torch.tensor([BOS, *words, EOS]))
    grid = generator.decoder.grid
    for i, (x_t, _, c, *_) in enumerate(seen[1:]):
        level = grid.level[i]
        eps = (x_t - level.alpha.float() * clean) / level.sigma.float()
        assert abs(float(eps.mean())) < 0.03 and float(eps.std()) == pytest.approx(1, abs=0.03)
        torch.testing.assert_close(c, (clean if i else torch.zeros_like(clean)).expand(c.shape))


def test_template_words_are_scored_by_what_placed_them():
    """A sentence that is all template: the mean over its words of what the first estimate gives them, and the end."""
    for kind in ("one pass length", "vectors ddim", "words 1.0 ancestral"):
        found = decode(kind, [(4, 5, 6)], SOURCE[:1, :9])[0][0]
        log_p = found["positional_scores"]
        assert (log_p[:3] < -0.05).all() and float(log_p[3]) == 0
        assert found["score"] == pytest.approx(float(log_p.mean()), abs=1e-6)


def test_what_cannot_be_completed_is_refused(monkeypatch):
    for options, words in (
        ({"draft": 0.5}, "does not go with --oracle-length, --draft or --drop-repeats"),
        ({"oracle_length": True}, "does not go with --oracle-length, --draft or --drop-repeats"),
        ({"drop_repeats": True}, "does not go with --oracle-length, --draft or --drop-repeats"),
    ):
        for made in (DiffusionOptions, OnePassOptions):
            with pytest.raises(UserError, match=words):
                made(complete=True, **options)
    for alignment, options, words in (
        ("ctc", {"blank_penalty": 1.0}, "--blank-penalty is not made for"),
        ("ctc", {"path_search": "beam"}, "--path-search beam looks for several"),
        ("dag", {"path_search": "beam"}, "--path-search beam looks for several"),
        ("dag", {"path_search": "sample", "noise_beam": 2}, "--path-search sample looks for several"),
    ):
        with pytest.raises(UserError, match=words):
            build_blocks(alignment=alignment).decoder_for(OnePassOptions(complete=True, **options))
    long = [(GAP, *[5] * 14)]
    for alignment in ("ctc", "dag"):
        with pytest.raises(UserError, match=r"a template takes \d+ positions .* room for"):
            decode(f"one pass {alignment}", long, sources((4,)))
    with pytest.raises(UserError, match="takes 42 positions .* room for 41"):
        decode("vectors ddim", [(GAP, *[5] * 40)], SOURCE[:1])
    with pytest.raises(UserError, match="takes 42 positions"):
        decode("vectors ddim", [(GAP, *[5] * 38)], SOURCE[:1], length_beam=3)
    monkeypatch.setattr(type(build(**WORDS).state), "show", State.show)
    with pytest.raises(UserError, match="a state of the class TokenState cannot"):
        decode("words 1.0 ancestral")


@pytest.mark.parametrize("kind, sees", [("one pass length, glanced", True), ("one pass length, never shown", False)])
def test_words_are_given_only_to_networks_that_have_seen_some(kind, sees, monkeypatch):
    """Glancing shows true words in training; without it the place of a word stays hidden, and is read in the end."""
    translator, seen = translator_of(kind), []
    block = translator.block
    monkeypatch.setattr(translator, "block", lambda s, h, z, *rest: seen.append(z) or block(s, h, z, *rest))
    generator = generator_of(translator, complete=True)
    rows = rows_of((GAP, 5, 6, GAP))
    generator.generate([Model(translator)], {"net_input": {"src_tokens": SOURCE[:1]}}, constraints=rows)
    half = len(seen) // 2
    assert all(z[0, 1:-1].eq(MASK).all() for z in seen[:half])  # nothing at all is revealed where the places are found
    assert all(bool((z == 5).any()) == sees for z in seen[half:])
