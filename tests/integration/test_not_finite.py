"""Numbers that are not finite are found: in a checkpoint that is read, in an update, and before weights are saved."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import RERANKER
from support import call, generate, read, training

import fairseq_diffusion
from fairseq_diffusion import compat
from fairseq_diffusion.cli.main import main
from fairseq_diffusion.compat.finite import is_finite, not_finite
from fairseq_diffusion.criterions.diffusion_loss import DiffusionLoss
from fairseq_diffusion.errors import UserError


def spoilt(checkpoint: Path, folder: Path, place: str = "model", value: float = math.nan) -> Path:
    """A copy with one number that is not finite, in the weights or in what a training goes on with."""
    state = read(checkpoint)
    entries = {
        "model": state["model"],
        "ema": state["extra_state"].get("ema"),
        "optimizer": next(iter(state["last_optimizer_state"]["state"].values())),
    }[place]
    first = next(x for x in entries.values() if torch.is_tensor(x) and x.is_floating_point() and x.dim() > 1)
    first[0, 0] = value
    path = folder / f"checkpoint_{place}.pt"
    torch.save(state, path)
    return path


# -- what is read


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_weights_are_refused_when_a_model_is_loaded(data: Path, checkpoint: Path, tmp_path: Path, value: float):
    path = spoilt(checkpoint, tmp_path, value=value)
    words = rf"{path} has numbers that are not finite \(NaN or infinity\) in 1 tensors, first translator\..*earlier one"
    with pytest.raises(UserError, match=words):
        generate(data, path)
    with pytest.raises(UserError, match=words):
        fairseq_diffusion.load(path, data=data, device="cpu")


def test_nan_weights_of_a_teacher_are_refused(data: Path, checkpoint: Path, teacher: Path, tmp_path: Path):
    path = spoilt(teacher, tmp_path)
    with pytest.raises(UserError, match=f"{path} has numbers that are not finite"):
        generate(data, f"{checkpoint}:{path}", f"{RERANKER} --noise-beam 2")


def test_nan_averages_are_refused_where_they_are_used(data: Path, checkpoint: Path, tmp_path: Path):
    path = spoilt(checkpoint, tmp_path, "ema")
    generate(data, path)
    with pytest.raises(UserError, match=f"{path} has numbers that are not finite"):
        generate(data, path, "--use-ema")


def test_nan_weights_are_not_averaged(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, output = spoilt(checkpoint, tmp_path), tmp_path / "average.pt"
    assert main(["average", "--inputs", str(checkpoint), str(path), "--output", str(output)]) == 2
    assert f"{path} has numbers that are not finite" in capsys.readouterr().err and not output.exists()


@pytest.mark.parametrize("place", ["model", "ema", "optimizer"])
def test_a_training_does_not_go_on_from_nan(data: Path, checkpoint: Path, tmp_path: Path, place: str):
    path = spoilt(checkpoint, tmp_path, place)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"{path} has numbers that are not finite .* first {place}.*--restore-file"):
        call("train", *training(data, tmp_path, f"--store-ema --max-update 99 --restore-file {path}"))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_nan_scores_are_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "generate-test.txt").write_text("S-0\ta\nT-0\tb\nH-0\tnan\tb\nD-0\tnan\tb\nP-0\tnan\n")
    (tmp_path / "ref").write_text("b\n")
    assert main(["score", "--hyp", f"x={tmp_path / 'generate-test.txt'}", "--ref", str(tmp_path / "ref")]) == 2
    assert "sentence 0 has a translation whose score is no number (nan)" in capsys.readouterr().err


def test_a_sum_that_overflows_is_no_number_that_does():
    assert is_finite(torch.full((4,), 3e38)) and is_finite(torch.full((9,), 60000.0, dtype=torch.half))
    bad = {"a": torch.ones(2), "b": [torch.tensor([1.0, math.inf]), torch.tensor(3)], "c": torch.tensor([math.nan])}
    assert list(not_finite(bad)) == ["b.0", "c"]


# -- an update


def breaking(monkeypatch: pytest.MonkeyPatch, factor: float, where: Any) -> None:
    """Multiply the loss of the batches for which `where` (of model and ids) is true."""
    whole = DiffusionLoss.forward

    def forward(self: Any, model: Any, sample: Any, reduce: bool = True) -> Any:
        loss, size, log = whole(self, model, sample, reduce)
        bad = where(model, sample["id"].tolist())
        return (loss * factor, size, {**log, "loss": log["loss"] * factor}) if bad else (loss, size, log)

    monkeypatch.setattr(DiffusionLoss, "forward", forward)


@pytest.mark.parametrize("flags", ["", "--update-freq 2", "--bf16"])
def test_a_training_that_becomes_nan_stops_and_names_the_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
):
    fairseq_diffusion.load()
    breaking(monkeypatch, math.nan, lambda model, ids: model.training and 7 in ids)
    with pytest.raises(UserError, match="stops behind update .*gradients are Nan/Inf") as stopped:
        call("train", *training(data, tmp_path, f"--max-epoch 2 --batch-size 8 --store-ema {flags}"))
    ids = str(stopped.value).partition("training sentences ")[2].partition(" (")[0].split(", ")
    assert "7" in ids and len(ids) == 8  # one batch, also where an update has two
    assert [path.name for path in tmp_path.glob("*.pt*")] == ["crash.pt"]
    assert not list(not_finite(read(tmp_path / "crash.pt")["model"]))  # the weights are those of before


def test_an_infinite_loss_with_finite_gradients_stops_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fairseq_diffusion.load()
    whole = DiffusionLoss.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss, size, log = whole(self, *args, **kwargs)
        return loss + math.inf, size, log

    monkeypatch.setattr(DiffusionLoss, "forward", forward)
    with pytest.raises(UserError, match=r"behind update 0, .*\(the loss is not finite\).* sentences \d+, \d+, "):
        call("train", *training(data, tmp_path, "--max-update 2"))


def test_a_training_that_explodes_saves_nothing(data: Path, tmp_path: Path):
    with pytest.raises(
        UserError, match="behind update 1 the model has numbers that are not finite .* nothing was saved"
    ):
        call("train", *training(data, tmp_path, "--lr 1e39 --max-update 1 --disable-validation"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", ["", "--keep-best-checkpoints 2"])
def test_nan_in_validation_is_never_the_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, more: str
):
    fairseq_diffusion.load()
    breaking(monkeypatch, math.nan, lambda model, ids: not model.training and model.num_updates < 8)
    caplog.set_level(logging.WARNING)
    call("train", *training(data, tmp_path, f"--max-epoch 2 --no-epoch-checkpoints {more}"))
    assert "loss of validation is nan behind update 5" in caplog.text
    best = read(tmp_path / "checkpoint_best.pt")
    assert best["optimizer_history"][-1]["num_updates"] == 10 and math.isfinite(best["extra_state"]["best"])
    assert len(list(tmp_path.glob("checkpoint.best_*"))) == bool(more)


def test_a_loss_scale_that_collapses_ends_with_a_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fairseq_diffusion.load()
    breaking(monkeypatch, math.inf, lambda model, ids: model.training)
    flags = "--fp16 --fp16-init-scale 4 --min-loss-scale 0.5 --max-update 3 --disable-validation"
    with pytest.raises(UserError, match=r"behind update 0, .*\(Minimum loss scale reached"):
        call("train", *training(data, tmp_path, flags))
    assert [path.name for path in tmp_path.glob("*.pt*")] == ["crash.pt"]


def test_another_task_keeps_fairseqs_own_error():
    class Trainer:
        task = object()

    def step(trainer: Any) -> None:
        raise FloatingPointError("gradients are Nan/Inf")

    with pytest.raises(FloatingPointError):
        compat.finite._explaining(step, Trainer())
