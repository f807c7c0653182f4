"""Averaging of checkpoints: which files, which entries, and every refusal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_diffusion.cli.main import main


def save(path: Path, weight: float, updates: int = 0, ema: float | None = None, **model: torch.Tensor) -> Path:
    """A checkpoint with fairseq's entries; every weight has the value `weight`."""
    weights: dict[str, Any] = {
        "decoder.weight": torch.full((2, 3), weight),
        "decoder.half": torch.full((2,), weight, dtype=torch.float16),
        "decoder.schedule.table": torch.full((4,), weight),
        "process.schedule.modifier.sigma_min": torch.tensor(weight),
        "decoder.steps": torch.tensor(updates),
    }
    weights.update(model)
    extra: dict[str, Any] = {"val_loss": weight, "train_iterator": {"epoch": 1}}
    if ema is not None:
        extra["ema"] = {key: torch.full_like(value, ema) for key, value in weights.items()}
    state = {
        "args": argparse.Namespace(arch="transformer", task="translation", criterion="cross_entropy", seed=updates),
        "cfg": None,
        "model": weights,
        "optimizer_history": [{"num_updates": updates, "optimizer_name": "Adam", "lr_scheduler_state": {}}],
        "extra_state": extra,
        "last_optimizer_state": {"big": torch.zeros(9)},
    }
    torch.save(state, path)
    return path


def average(tmp_path: Path, *options: Any) -> dict[str, Any]:
    """Run the command; the state it wrote, read safely."""
    output = tmp_path / "out.pt"
    assert main(["average", "--output", str(output), "--inputs", *map(str, options)]) == 0
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(output, weights_only=True)


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *options: Any) -> str:
    """Run the command, which must refuse and write nothing; its sentence."""
    before = sorted(tmp_path.iterdir())
    assert main(["average", "--output", str(tmp_path / "out.pt"), "--inputs", *map(str, options)]) == 2
    assert sorted(tmp_path.iterdir()) == before
    return capsys.readouterr().err


def names(state: dict[str, Any]) -> list[str]:
    return [Path(path).name for path in state["extra_state"]["averaged"]]


def test_weights_are_averaged_and_the_rest_is_the_newest(tmp_path: Path) -> None:
    newest, older = save(tmp_path / "a.pt", 4.0, updates=20), save(tmp_path / "b.pt", 1.0, updates=10)
    state = average(tmp_path, newest, older)
    model = state["model"]
    assert model["decoder.weight"].tolist() == [[2.5] * 3] * 2
    assert model["decoder.half"].tolist() == [2.5] * 2 and model["decoder.half"].dtype == torch.float16
    assert model["decoder.schedule.table"].tolist() == [4.0] * 4 and model["process.schedule.modifier.sigma_min"] == 4.0
    assert model["decoder.steps"] == 20 and model["decoder.steps"].dtype == torch.int64
    assert state["args"].seed == 20 and state["extra_state"]["val_loss"] == 4.0
    assert "last_optimizer_state" not in state and names(state) == ["a.pt", "b.pt"]


def test_the_mean_is_taken_in_double_precision(tmp_path: Path) -> None:
    values = [1.0, 1e-8, -1.0]  # in fp32 the small one is lost in 1 + 1e-8
    paths = [save(tmp_path / f"{i}.pt", value) for i, value in enumerate(values)]
    assert average(tmp_path, *paths)["model"]["decoder.weight"][0, 0].item() == pytest.approx(1e-8 / 3, rel=1e-6)


def test_last_epochs_by_number_not_by_name(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10):
        save(tmp_path / f"checkpoint{epoch}.pt", float(epoch), updates=epoch)
    save(tmp_path / "checkpoint_11_500.pt", 99.0)
    save(tmp_path / "checkpoint_last.pt", 99.0)
    state = average(tmp_path, tmp_path, "--last", 2)
    assert names(state) == ["checkpoint10.pt", "checkpoint9.pt"]
    assert state["model"]["decoder.weight"][0, 0] == 9.5


def test_last_updates(tmp_path: Path) -> None:
    for epoch, update in ((1, 900), (2, 1000), (3, 1100)):
        save(tmp_path / f"checkpoint_{epoch}_{update}.pt", 1.0, updates=update)
    save(tmp_path / "checkpoint7.pt", 9.0)
    state = average(tmp_path, tmp_path, "--last", 2, "--update-based")
    assert names(state) == ["checkpoint_3_1100.pt", "checkpoint_2_1000.pt"]


@pytest.mark.parametrize(
    ("metric", "options", "wanted"),
    [
        ("bleu", [], ["9.9004", "9.1000"]),
        ("bleu", ["--minimize"], ["2.4509", "9.1000"]),
        ("nll_loss", [], ["2.4509", "9.1000"]),
        ("ppl", ["--maximize"], ["9.9004", "9.1000"]),
    ],
)
def test_best_by_value_and_direction(tmp_path: Path, metric: str, options: list[str], wanted: list[str]) -> None:
    for value in ("9.1000", "9.9004", "2.4509"):
        save(tmp_path / f"checkpoint.best_{metric}_{value}.pt", 1.0)
    save(tmp_path / "checkpoint_best.pt", 99.0)
    assert names(average(tmp_path, tmp_path, "--best", 2, *options)) == [
        f"checkpoint.best_{metric}_{value}.pt" for value in wanted
    ]


def test_the_number_behind_the_value_is_not_part_of_it(tmp_path: Path) -> None:
    for value in ("27.1239", "27.124", "27.12310"):
        save(tmp_path / f"checkpoint.best_bleu_{value}.pt", 1.0)
    save(tmp_path / "checkpoint.best_loss_99.000.pt", 1.0)
    assert names(average(tmp_path, tmp_path, "--best", 1, "--metric", "bleu")) == ["checkpoint.best_bleu_27.124.pt"]


def test_fewer_best_ones_than_asked_for_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a short training, of which the first validation was the best or the values are equal."""
    for name in ("checkpoint.best_bleu_0.0001.pt", "checkpoint.best_bleu_3.1002.pt", "checkpoint1.pt"):
        save(tmp_path / name, 1.0)
    sentence = refusal(capsys, tmp_path, tmp_path, "--best", 5)
    assert "there are 2 (checkpoint.best_bleu_3.1002.pt, checkpoint.best_bleu_0.0001.pt)" in sentence
    assert "pass between 1 and 2, or --last K; fairseq writes one only if its bleu is as good" in sentence
    sentence = refusal(capsys, tmp_path, tmp_path, "--best", 1, "--metric", "loss")
    assert "there are 0; none can be averaged; train with --keep-best-checkpoints" in sentence
    assert "there are some by bleu: --metric" in sentence


def test_of_equal_values_the_newest_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, update in enumerate((30, 10, 40, 20)):
        save(tmp_path / f"checkpoint.best_bleu_0.000{number}.pt", 1.0, updates=update)
    save(tmp_path / "checkpoint.best_bleu_1.0000.pt", 1.0, updates=5)
    taken = ["1.0000", "0.0002", "0.0000"]
    assert names(average(tmp_path, tmp_path, "--best", 3)) == [f"checkpoint.best_bleu_{value}.pt" for value in taken]
    assert "4 checkpoints have a bleu of 0; the newest 2 of them are taken" in capsys.readouterr().out
    average(tmp_path, tmp_path, "--best", 5, "--force")
    assert "checkpoints have" not in capsys.readouterr().out


def test_ema_weights_with_the_models_own_schedule(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.pt", 1.0, 1, ema=10.0), save(tmp_path / "b.pt", 2.0, 2, ema=20.0)]
    state = average(tmp_path, *paths, "--ema")
    assert state["model"]["decoder.weight"][0, 0] == 15.0
    assert state["model"]["decoder.schedule.table"].tolist() == [2.0] * 4 and state["model"]["decoder.steps"] == 2
    assert "ema" not in state["extra_state"]


def test_fairseq_loads_the_output(tmp_path: Path) -> None:
    checkpoint_utils = pytest.importorskip("fairseq.checkpoint_utils")
    paths = [save(tmp_path / "a.pt", 1.0), save(tmp_path / "b.pt", 3.0)]
    for path in paths:  # as dataclass-configured trainings write them: plain containers that torch loads by default
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save({**state, "args": None, "cfg": {"task": {"data": "bin"}, "model": {"arch": "tiny"}}}, path)
    average(tmp_path, *paths)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "out.pt"))
    assert state["model"]["decoder.weight"][0, 0] == 2.0 and state["cfg"].model.arch == "tiny"


def test_an_existing_output_needs_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.pt", 1.0)
    (tmp_path / "out.pt").write_text("precious")
    assert "already exists" in refusal(capsys, tmp_path, path)
    assert (tmp_path / "out.pt").read_text() == "precious"
    assert average(tmp_path, path, "--force")["model"]["decoder.weight"][0, 0] == 1.0


def test_another_models_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save(tmp_path / "good.pt", 1.0)
    shape = save(tmp_path / "shape.pt", 1.0, **{"decoder.weight": torch.zeros(5)})
    extra = save(tmp_path / "extra.pt", 1.0, **{"decoder.more": torch.zeros(5)})
    sentence = refusal(capsys, tmp_path, good, shape)
    assert "shape.pt is of another model" in sentence and "decoder.weight (shape (5,), not shape (2, 3))" in sentence
    assert "extra.pt is of another model" in refusal(capsys, tmp_path, good, extra)


def test_files_that_are_no_checkpoints_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "bare.pt")
    torch.save({"model": {}, "extra_state": Path("x")}, tmp_path / "code.pt")
    assert "text.pt cannot be read as a checkpoint" in refusal(capsys, tmp_path, tmp_path / "text.pt")
    assert "bare.pt is not a fairseq checkpoint" in refusal(capsys, tmp_path, tmp_path / "bare.pt")
    assert "code.pt cannot be read as a checkpoint: it holds a pathlib" in refusal(
        capsys, tmp_path, tmp_path / "code.pt"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "pass --last K or --best K"),
        (["--last", "3"], "there are 1"),
        (["--last", "0"], "cannot average 0"),
        (["--last", "1", "--update-based"], "drop --update-based"),
        (["--best", "1"], "choose one with --metric"),
        (["--best", "1", "--metric", "ppl"], "there are 0"),
        (["elsewhere", "--last", "1"], "no such file or folder: elsewhere"),
    ],
)
def test_choices_that_cannot_be_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    for name in ("checkpoint1.pt", "checkpoint.best_loss_1.000.pt", "checkpoint.best_bleu_2.0001.pt"):
        save(tmp_path / name, 1.0)
    assert sentence in refusal(capsys, tmp_path, tmp_path, *options)


def test_other_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.pt", 1.0)
    assert "holds no moving average" in refusal(capsys, tmp_path, path, "--ema")
    assert "choose from one folder" in refusal(capsys, tmp_path, path, "--last", 1)
    assert "no folder" in refusal(capsys, tmp_path, path, "--output", tmp_path / "nowhere" / "out.pt")
