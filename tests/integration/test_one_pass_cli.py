"""One-pass models by fairseq's commands: trained, resumed, decoded, rescored, reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES
from runs import RERANKER
from support import (
    TINY_BLOCKS,
    USER_DIR,
    call,
    different,
    generate,
    hypotheses,
    lines,
    process,
    read,
    same_hypotheses,
    training,
)

from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError

ARCHS = {"length": "diffglat_toy", "ctc": "diffglat_toy_ctc", "dag": "diffglat_toy_dag"}
QUICK = "--max-update 60 --lr 1e-2 --no-epoch-checkpoints --upsample 3 --disable-validation"
# ways to decode, and the alignment whose model can
WAYS = {
    "one length": ("length", ""),
    "lengths": ("length", "--iter-decode-with-beam 3 --nbest 3 --selection joint:2,mbr"),
    "passes": ("length", "--passes 3 --iter-decode-with-beam 2 --length-beam offsets --drop-repeats"),
    "exit": ("length", "--exit-block 1"),
    "nothing revealed": ("length", "--keep-schedule none"),
    "ctc": ("ctc", ""),
    "ctc, passes": ("ctc", "--passes 2"),
    "ctc, penalty": ("ctc", "--blank-penalty 1 --path-search lookahead"),  # without a search, whatever the preset has
    "ctc, beam": ("ctc", "--path-search beam --beam 4 --nbest 4 --lenpen 1.2 --vertex-tokens 7 --selection score"),
    "greedy": ("dag", "--path-search greedy"),
    "lookahead": ("dag", "--lookahead-weight 0.5 --drop-repeats"),
    "viterbi": ("dag", "--path-search viterbi --lenpen 0.8"),
    "joint": ("dag", "--path-search joint_viterbi --passes 2"),
    "sample": ("dag", "--path-search sample --noise-beam 4 --nbest 4 --temperature 0.7 --vertex-tokens 3"),
    "beam": ("dag", "--path-search beam --beam 4 --nbest 4 --lenpen 1.2 --vertex-tokens 7 --selection score"),
}


def train(data: Path, folder: Path, arch: str, flags: str = "") -> Path:
    call("train", *training(data, folder, f"{QUICK} {flags}", arch, size=TINY_BLOCKS))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each alignment."""
    return {kind: train(data, tmp_path_factory.mktemp(kind), arch) for kind, arch in ARCHS.items()}


def translate(data: Path, path: Any, flags: str = "") -> str:
    return generate(data, path, flags, steps="")


@pytest.mark.parametrize("way", WAYS)
def test_batching_does_not_change_the_output(data: Path, models: dict[str, Path], way: str):
    kind, flags = WAYS[way]
    output = translate(data, models[kind], flags)
    assert len(hypotheses(output)) == SIZES["test"]
    assert any(text for found in hypotheses(output).values() for text, _ in found)
    assert same_hypotheses(translate(data, models[kind], f"{flags} --batch-size 1"), output)


@pytest.mark.parametrize("way", ["lengths", "ctc", "sample"])
def test_ranks_and_interactive_agree(data: Path, corpus: Path, models: dict[str, Path], way: str):
    kind, flags = WAYS[way]
    path, output = models[kind], translate(data, models[kind], flags)
    shards = [translate(data, path, f"{flags} --distributed-world-size 2 --distributed-rank {r}") for r in (0, 1)]
    assert same_hypotheses("\n".join(shards), output)
    other_side = "--left-pad-source"  # fairseq's own side is the left one, and the flag turns it
    assert same_hypotheses(translate(data, path, f"{flags} {other_side}"), output)
    usual = f"-s a -t b --remove-bpe --cpu --buffer-size 5 --batch-size 2 --path {path} {flags}"
    typed = call("interactive", data, *USER_DIR, *usual.split(), "--input", corpus / "test.a")
    assert same_hypotheses(typed, output)


def test_ways_differ(data: Path, models: dict[str, Path]):
    ways = [flags for kind, flags in WAYS.values() if kind == "dag"]
    outputs = [hypotheses(translate(data, models["dag"], flags.replace("--nbest 4", ""))) for flags in ways]
    assert len({str(output) for output in outputs}) == len(ways)


def test_samples_depend_on_the_seed(data: Path, models: dict[str, Path]):
    flags = WAYS["sample"][1]
    one = translate(data, models["dag"], flags)
    assert same_hypotheses(translate(data, models["dag"], flags), one)
    assert not same_hypotheses(translate(data, models["dag"], f"{flags} --seed 2"), one)
    assert max(map(len, hypotheses(one).values())) > 1


@pytest.mark.parametrize("way", ["beam", "ctc, beam"])
def test_beam_search_ranks_by_its_length_penalty(data: Path, models: dict[str, Path], way: str):
    kind, flags = WAYS[way]
    output = translate(data, models[kind], flags)
    for found in hypotheses(output).values():
        scores = [score for _, score in found]
        assert len(found) > 1 and scores == sorted(scores, reverse=True)
    for i, fields in lines(output, "P").items():
        for (_, score), (logs,) in zip(hypotheses(output)[i], fields):
            numbers = [float(log) for log in logs.split()]
            assert score == pytest.approx(sum(numbers) / len(numbers) ** 1.2, abs=2e-3)


def test_without_a_keep_schedule_the_last_block_still_sees_masks(data: Path, models: dict[str, Path]):
    output = translate(data, models["length"], "--retain-iter-history --keep-schedule none")
    shown = lines(output, "E")
    for sentence in hypotheses(output):
        *fed, _ = (shown[f"{sentence}_{step}"][0][0].split().count("<mask>") for step in range(3))
        assert fed[0] == fed[1] > 0


def test_history_shows_the_masks(data: Path, models: dict[str, Path]):
    """One line a block and pass; each pass begins with the empty canvas, as training did, and then shows more."""
    output = translate(data, models["length"], "--retain-iter-history --passes 2")
    shown = lines(output, "E")
    for sentence in hypotheses(output):
        steps = [shown[f"{sentence}_{step}"][0][0] for step in range(4)]
        first, second, again, last = (step.split().count("<mask>") for step in steps)
        assert first == again == len(steps[0].split())
        assert first > second >= last or first == 1


def test_the_report_has_the_settings_of_decoding(data: Path, models: dict[str, Path], tmp_path: Path):
    assert translate(data, models["dag"], f"--path-search beam --passes 2 --results-path {tmp_path}") == ""
    decoding = reporting.read(tmp_path / "generate-test.json")["decoding"]
    assert decoding["calls"] == decoding["passes"] == 2
    assert (decoding["alignment"], decoding["path_search"], decoding["beam"]) == ("dag", "beam", 5)
    assert decoding["block"] == "2 of 2"


def test_a_teacher_rescores_lengths_and_beams(data: Path, models: dict[str, Path], teacher: Path):
    """The teacher knows no mask, though it is built behind a model that has one."""
    for kind, flags in (
        ("length", "--iter-decode-with-beam 3"),
        ("dag", "--path-search beam --beam 3"),
        ("ctc", "--path-search beam --beam 3"),
    ):
        path = f"{models[kind]}:{teacher}"
        output = translate(data, path, f"{flags} --nbest 3 {RERANKER}")
        assert len(hypotheses(output)) == SIZES["test"]
        assert not same_hypotheses(output, translate(data, models[kind], f"{flags} --nbest 3"))


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        ("length", "--sampler ddim", "--sampler"),
        ("length", "--iter-decode-max-iter 0", "--passes"),
        ("length", "--path-search beam", "--path-search is beam, but a model with --alignment length"),
        ("ctc", "--path-search viterbi", "--alignment ctc has beam"),
        ("ctc", "--noise-beam 2 --path-search beam", "decodes without noise"),
        ("ctc", "--vertex-tokens 2", "--path-search sample or beam"),
        ("length", "--exit-block 3", "blocks 1 to 2"),
        ("length", "--passes 0", "--passes is 0"),
        ("length", "--noise-beam 2", "decodes without noise"),
        ("ctc", "--iter-decode-with-beam 2", "chooses no length"),
        ("ctc", "--drop-repeats", "CTC"),
        ("ctc", "--blank-penalty 1 --path-search beam", "--blank-penalty is for CTC whose best symbols are read"),
        ("dag", "--blank-penalty 1", "--blank-penalty is for CTC"),
        ("dag", "--oracle-length", "chooses no length"),
        ("dag", "--lookahead-weight 2 --path-search greedy", "pass --path-search lookahead"),
        ("dag", "--temperature 2", "pass --path-search sample"),
        ("dag", "--vertex-tokens 2", "--path-search sample or beam"),
        ("dag", "--vertex-tokens 0 --path-search beam", "1 word or more"),
        ("dag", "--path-search sample --temperature 0", "above 0"),
        ("dag", "--path-search beam --beam 0", "--beam is 0"),
        ("dag", "--beam 4", "--beam is 4, but the search lookahead does not read it"),
        ("dag", "--lenpen 0.8", "--lenpen is 0.8, but the search lookahead .* pass --path-search viterbi"),
        ("length", "--beam 4", "--beam is 4, but the search of --alignment length"),
        ("ctc", "--unkpen 1", "--unkpen is 1.0, but one-pass models do not use it"),
        ("ctc", "--nbest 2", "--nbest is 2, but each sentence has one candidate"),
    ],
)
def test_decoding_flags_that_make_no_sense(data: Path, models: dict[str, Path], kind: str, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        translate(data, models[kind], flags)


# -- training ---------------------------------------------------------------------------------------------------------

WAYS_TO_TRAIN = {
    "one pass": "diffglat_toy --fuse linear --feed self --block-weights increasing --keep-schedule cosine",
    "two passes": "diffglat_toy_ctc --two-pass --source-copy uniform --glance-source any",
    "graph": "diffglat_toy_dag --glance-start 0.9 --glance-end 0.5 --glance-updates 10",
    "masked": "cmlm_toy --glance-count uniform --blocks 1 --passes 4",
    "scheduled": "diffglat_toy --glance-count schedule --alignment length",
}


@pytest.mark.parametrize("way_to_train", WAYS_TO_TRAIN)
def test_resumed_training_equals_the_uninterrupted_one(data: Path, tmp_path: Path, way_to_train: str):
    """With dropout, cut inside an epoch; BLEU is taken on the way, in as many passes as the system says."""
    arch, _, flags = WAYS_TO_TRAIN[way_to_train].partition(" ")
    flags += " --dropout 0.1 --upsample 3 --eval-bleu --no-epoch-checkpoints --validate-interval-updates 5"
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def run(folder: Path, updates: int) -> dict[str, Any]:
        call("train", *training(data, folder, f"{flags} --max-update {updates}", arch, size=TINY_BLOCKS))
        return read(folder / "checkpoint_last.pt")

    uninterrupted, half = run(whole, 12), run(cut, 6)
    torch.manual_seed(99)  # a new process starts anywhere
    resumed = run(cut, 12)
    assert uninterrupted["optimizer_history"][-1]["num_updates"] == 12
    for part in ("model", "last_optimizer_state"):
        assert different(uninterrupted[part], resumed[part]) == []
        assert different(half[part], resumed[part]) != []


@pytest.mark.parametrize("kind", ARCHS)
def test_twice_half_a_batch_is_one_batch(eight: Path, tmp_path: Path, kind: str):
    """Eight sentences of different lengths in one step, and four twice before a step; with `words` a mean is over what
    is in memory at once."""
    step = "--optimizer sgd --lr 1 --clip-norm 0 --max-update 1 --no-epoch-checkpoints --disable-validation"

    def weights(name: str, batch: int, more: str = "") -> dict[str, torch.Tensor]:
        flags = f"{step} --upsample 3 --glance-start 0.9 --loss-normaliser tokens {more}"
        call("train", *training(eight, tmp_path / name, flags, ARCHS[kind], batch, TINY_BLOCKS))
        return read(tmp_path / name / "checkpoint_last.pt")["model"]

    whole, halves, start = weights("whole", 8), weights("halves", 4, "--update-freq 2"), weights("start", 8, "--lr 0")
    assert any(not torch.equal(whole[key], start[key]) for key in whole)
    assert all(torch.allclose(whole[key], halves[key], atol=1e-4, rtol=1e-3) for key in whole)


def test_targets_that_do_not_fit_are_counted(data: Path, tmp_path: Path):
    done = process(
        "train",
        *training(data, tmp_path, "--upsample 1 --max-update 3 --log-format json", ARCHS["dag"], size=TINY_BLOCKS),
    )
    assert done.returncode == 0, done.stderr
    last = [line for line in (done.stdout + done.stderr).splitlines() if '"train_impossible"' in line][-1]
    assert 0 < float(last.split('"train_impossible": "')[1].split('"')[0]) < 1
    assert "nan" not in last


def test_joined_dictionaries_share_one_table(corpus: Path, tmp_path: Path):
    from conftest import binarise

    joined = binarise(corpus, tmp_path / "bin", "--joined-dictionary")
    path = train(joined, tmp_path / "model", ARCHS["length"], "--share-embeddings")
    state = read(path)
    assert "translator.encoder.embedding.weight" not in state["model"]
    assert len(state["model"]["translator.decoder.words.weight"]) == state["task_state"]["target"]["size"] + 1
    assert len(hypotheses(translate(joined, path))) == SIZES["test"]
