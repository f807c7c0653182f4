"""Candidates by the flags of fairseq-generate: dropped, stopped and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SIZES
from fairseq.data.data_utils import post_process
from runs import reported
from sacrebleu.metrics import BLEU, CHRF
from support import call, generate, hypotheses, lines, training

PIECES = "--remove-bpe none"
FOUR = f"--noise-beam 4 --nbest 9 --sampler ddpm {PIECES}"
SIX = f"--iter-decode-with-beam 3 --noise-beam 2 --nbest 9 -s b -t a {PIECES}"


@pytest.fixture(scope="module")
def backwards(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model into the language whose words come in pieces."""
    folder = tmp_path_factory.mktemp("backwards")
    call("train", *training(data, folder, "-s b -t a --max-update 20 --lr 1e-2 --no-epoch-checkpoints"))
    return folder / "checkpoint_last.pt"


def texts(output: str) -> dict[str, list[str]]:
    return {i: [text for text, _ in found] for i, found in hypotheses(output).items()}


# -- fewer calls


def test_pruning_keeps_the_better_half_for_the_rest_of_the_steps(data: Path, checkpoint: Path, tmp_path: Path):
    """Three steps: four candidates take part in the first, two in the others; what they say is what they would say."""
    whole, all_of_it = reported(data, checkpoint, tmp_path / "whole", FOUR)
    pruned, half_of_it = reported(data, checkpoint, tmp_path / "pruned", f"{FOUR} --prune-after 1 --print-step")
    assert all_of_it["decoding"]["calls"] == 3
    assert half_of_it["decoding"]["calls"] == pytest.approx((4 * 1 + 2 * 2) / 4)
    assert half_of_it["decoding"]["prune_after"] == "1" and half_of_it["decoding"]["steps"] == 3
    assert {fields[0] for found in lines(pruned, "I").values() for fields in found} == {"3"}
    every, few = hypotheses(whole), hypotheses(pruned)
    assert len(few) == SIZES["test"] and max(map(len, every.values())) > 2
    for i, found in few.items():
        score_of = dict(every[i])
        assert 1 <= len(found) <= 2
        assert all(score == pytest.approx(score_of[text], abs=1e-4) for text, score in found)


def test_pruning_twice_leaves_one(data: Path, checkpoint: Path, tmp_path: Path):
    output, report = reported(data, checkpoint, tmp_path, f"{FOUR} --prune-after 1,2")
    assert {len(found) for found in hypotheses(output).values()} == {1}
    assert report["decoding"]["calls"] == pytest.approx((4 + 2 + 1) / 4)
    assert report["decoding"]["prune_after"] == "1, 2"


def test_stable_candidates_stop(data: Path, learned: Path, tmp_path: Path):
    flags = f"--noise-beam 2 --nbest 2 --iter-decode-max-iter 20 --print-step {PIECES}"
    ours = learned / "checkpoint_last.pt"
    found = {}
    for stable in (0, 1, 3):
        output, report = reported(data, ours, tmp_path / str(stable), f"{flags} --stop-stable {stable}")
        assert len(hypotheses(output)) == SIZES["test"]
        steps = [int(fields[0]) for found in lines(output, "I").values() for fields in found]
        assert max(steps) <= 20 and report["decoding"]["stop_stable"] == (stable or "never")
        found[stable] = report["decoding"]["calls"]
    assert found[1] < found[3] <= found[0] == 20


def test_guided_calls_count_twice_for_those_who_are_left(data: Path, tmp_path: Path):
    call("train", *training(data, tmp_path, "--source-drop 0.3 --max-update 1 --no-epoch-checkpoints"))
    guided = tmp_path / "checkpoint_last.pt"
    _, report = reported(data, guided, tmp_path / "out", f"{FOUR} --prune-after 1 --guidance 2")
    assert report["decoding"]["calls"] == pytest.approx(2 * (4 * 1 + 2 * 2) / 4)


# -- choices


def words(piece_text: str) -> str:
    return post_process(piece_text, "subword_nmt")


SENTENCE_BLEU = BLEU(effective_order=True, tokenize="none")
UTILITIES: dict[str, tuple[Callable[[str, str], float], Callable[[str], str]]] = {
    "--mbr-utility bleu --mbr-units tokens": (lambda h, r: SENTENCE_BLEU.sentence_score(h, [r]).score, str),
    "--mbr-utility bleu --mbr-units words": (lambda h, r: SENTENCE_BLEU.sentence_score(h, [r]).score, words),
    "--mbr-utility chrf": (lambda h, r: CHRF().sentence_score(h, [r]).score, words),
}


@pytest.mark.parametrize("flags", UTILITIES)
def test_mbr_orders_all_candidates_by_sacrebleus_utility(data: Path, backwards: Path, flags: str):
    by_score = texts(generate(data, backwards, SIX))
    found = texts(generate(data, backwards, f"{SIX} --selection mbr {flags}"))
    assert any("@@" in text for listed in found.values() for text in listed)
    assert {i: set(listed) for i, listed in found.items()} == {i: set(listed) for i, listed in by_score.items()}
    utility, said = UTILITIES[flags]
    full = {i: list(map(said, listed)) for i, listed in found.items() if len(listed) == 6}  # no copies: a vote each
    assert len(full) > SIZES["test"] // 2
    for listed in full.values():
        merits = [sum(utility(h, r) for k, r in enumerate(listed) if k != i) for i, h in enumerate(listed)]
        assert merits == sorted(merits, reverse=True) or merits == pytest.approx(sorted(merits, reverse=True))


def test_utilities_disagree(data: Path, backwards: Path):
    """Else the test above could not tell them apart."""
    orders = [texts(generate(data, backwards, f"{SIX} --selection mbr {flags}")) for flags in UTILITIES]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


@pytest.mark.parametrize("selection", ["mbr_two_level", "score:4,mbr:2,score"])
def test_nbest_lists_each_translation_once(data: Path, backwards: Path, selection: str):
    """Before pieces are joined: two segmentations of a text are two translations."""
    found = texts(generate(data, backwards, f"{SIX} --selection {selection}"))
    assert len(found) == SIZES["test"]
    assert all(len(listed) == len(set(listed)) for listed in found.values())


def test_a_chain_keeps_what_it_was_told_to(data: Path, backwards: Path):
    """The first three by score, in the order of MBR; and behind them the rest by score."""
    by_score, chain = (
        texts(generate(data, backwards, f"{SIX} --selection {spec}")) for spec in ("score", "score:3,mbr")
    )
    assert chain != by_score
    for i, listed in chain.items():
        assert set(listed[:3]) == set(by_score[i][:3]) and listed[3:] == by_score[i][3:]
