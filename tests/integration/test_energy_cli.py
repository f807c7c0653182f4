"""An autoregressive teacher with an energy on the command line: it trains, resumes, translates and rescores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES
from fairseq import checkpoint_utils
from runs import MODEL, RERANKER, train_teacher
from support import USER_DIR, call, different, generate, hypotheses, read
from test_ranks import STEP, two_ranks

from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.reporting import read as read_report

ENERGY = f"{' '.join(USER_DIR)} --criterion e_arm --label-smoothing 0.1 --energy-samples 3"
TASKS = ("translation", "diffusion_translation")
LIST = "--iter-decode-with-beam 3 --noise-beam 2 --nbest 6 --remove-bpe none"


def trained(data: Path, folder: Path, flags: str = "") -> dict[str, Any]:
    return read(train_teacher(data, folder, f"{ENERGY} {flags}"))


@pytest.fixture(scope="module")
def energetic(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has trained past the start of its energy."""
    flags = f"{ENERGY} --energy-weight 1 --energy-start 20 --max-update 40"
    return train_teacher(data, tmp_path_factory.mktemp("energetic"), flags)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_at", [3, 7, 12])
def test_resumed_training_equals_the_uninterrupted_one(data: Path, tmp_path: Path, cut_at: int):
    """Cut before, at and behind the start of the energy, with dropout."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = "--dropout 0.1 --energy-start 7 --max-update"
    expected = trained(data, whole, f"{flags} 16")
    at_the_cut = trained(data, cut, f"{flags} {cut_at}")
    torch.manual_seed(99)  # a new process starts anywhere
    found = trained(data, cut, f"{flags} 16")
    for part in ("model", "last_optimizer_state"):
        assert different(expected[part], found[part]) == []
        assert different(at_the_cut[part], found[part]) != []


def test_before_its_start_nothing_differs_from_the_usual_training(data: Path, tmp_path: Path):
    """Bit for bit, with dropout and validation, of fairseq's own task and of ours; the update at the start differs."""
    for task, updates, same in ((task, *case) for task in TASKS for case in ((7, True), (8, False))):
        flags = f"--label-smoothing 0.1 --dropout 0.1 --max-update {updates} --task {task}"
        usual = f"{' '.join(USER_DIR)} {flags} --criterion label_smoothed_cross_entropy"
        plain = read(train_teacher(data, tmp_path / f"{task}{updates}", usual))
        found = trained(data, tmp_path / f"{task}{updates}-energy", f"{flags} --energy-start 7")
        assert (different(plain["model"], found["model"]) == []) is same


def test_two_ranks_equal_one_with_the_doubled_batch(eight: Path, tmp_path: Path):
    """Samples are those of a sentence, whichever rank has it; and --update-freq does not matter."""

    def arguments(name: str, batch: int, more: str = "") -> list[Any]:
        flags = f"{ENERGY} {MODEL} --energy-weight 1 --cpu --num-workers 0 {STEP} {more}"
        return [eight, *flags.split(), "--batch-size", batch, "--save-dir", tmp_path / name]

    two_ranks(*arguments("two", 4))
    call("train", *arguments("one", 8))
    call("train", *arguments("accumulated", 4, "--update-freq 2"))
    two, one, accumulated = (read(tmp_path / n / "checkpoint_last.pt")["model"] for n in ("two", "one", "accumulated"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(accumulated[key], one[key], rtol=1e-4, atol=1e-6)


# -- decoding ----------------------------------------------------------------------------------------------------------


def test_it_translates_as_any_teacher(data: Path, energetic: Path):
    """fairseq's own task does not need this package for it."""
    own = f"--gen-subset test --batch-size 4 --remove-bpe --cpu --num-workers 0 --beam 3 --path {energetic}"
    output = call("generate", data, *USER_DIR, *own.split())
    fairseqs = call("generate", data, "--task", "translation", "--required-batch-size-multiple", 1, *own.split())
    assert len(hypotheses(output)) == SIZES["test"] and hypotheses(output) == hypotheses(fairseqs)
    assert read(energetic)["cfg"]["criterion"]["_name"] == "e_arm"


def measured(data: Path, teacher: Path, output: str, measure: str) -> dict[str, list[float]]:
    """What the teacher says of each sentence's translations, in the order printed."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(teacher)], {"data": str(data)})
    task.load_dataset("test")
    dataset, scorer, found = task.dataset("test"), Teacher(model, task.target_dictionary, measure), {}
    for i, printed in hypotheses(output).items():
        inputs = dataset.collater([dataset[int(i)]])["net_input"]
        encode = task.target_dictionary.encode_line
        texts = [encode(text, add_if_not_exist=False, append_eos=False).tolist() for text, _ in printed]
        (found[i],) = scorer.scores(inputs, [texts])
    return found


def test_its_energy_orders_candidates(data: Path, learned: Path, energetic: Path, tmp_path: Path):
    ours = f"{learned / 'checkpoint_last.pt'}:{energetic}"
    folders = {measure: tmp_path / measure for measure in ("energy", "probability")}
    for measure, folder in folders.items():
        generate(data, ours, f"{RERANKER} --rescore-by {measure} {LIST} --results-path {folder}")
    by = {measure: (folder / "generate-test.txt").read_text() for measure, folder in folders.items()}
    for measure, output in by.items():
        scores = measured(data, energetic, output, measure)
        assert all(one > other - 1e-4 for own in scores.values() for one, other in zip(own, own[1:]))
        report = read_report(folders[measure] / "generate-test.json")
        assert report["decoding"]["rescored_by"] == measure
        assert re.search(rf"^\| AR rescoring +yes, by the {measure} of {re.escape(str(energetic))}$", output, re.M)
    assert hypotheses(by["energy"]) != hypotheses(by["probability"])
