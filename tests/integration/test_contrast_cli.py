"""The contrast of words' states with the programs that a user calls: training, going on, validation, decoding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import SIZES
from runs import autoregressive
from support import TINY_BLOCKS, TINY_WORDS, USER_DIR, call, different, hypotheses, process, read, training

LOGGED = r'"epoch": (\d+), .*"%sfrequency_contrast": "([\d.]+)"'


def logged(log: Path, subset: str) -> list[float]:
    """Of each epoch; fairseq may log one several times."""
    return list({epoch: float(value) for epoch, value in re.findall(LOGGED % subset, log.read_text())}.values())


@pytest.mark.parametrize("flags", ["--update-freq 2", "--sentence-avg"])
def test_a_resumed_teacher_equals_the_uninterrupted_one(data: Path, tmp_path: Path, flags: str):
    """Cut inside an epoch, with dropout."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags += " --task diffusion_translation --disable-validation"
    call("train", *autoregressive(data, whole, f"{flags} --max-update 12"))
    for updates in (7, 12):
        torch.manual_seed(updates)  # a new process starts anywhere
        call("train", *autoregressive(data, cut, f"{flags} --max-update {updates}"))
    states = [read(folder / "checkpoint_last.pt") for folder in (whole, cut)]
    for part in ("model", "last_optimizer_state"):
        assert different(*(state[part] for state in states)) == []


@pytest.mark.parametrize("flags", ["", "--fp16 --fp16-init-scale 4"])
def test_a_teacher_is_fairseqs_own_model(data: Path, tmp_path: Path, flags: str):
    """Trained and validated by fairseq's task, and decoded without our package."""
    log = tmp_path / "log"
    call("train", *autoregressive(data, tmp_path, f"{flags} --max-update 5 --log-format json --log-file {log}"))
    assert logged(log, "train_")[0] > 0 and logged(log, "valid_")[0] > 0
    own = f"--path {tmp_path / 'checkpoint_last.pt'} --batch-size 8 --required-batch-size-multiple 1 --cpu"
    assert (
        len(hypotheses(call("generate", data, *f"--task translation --num-workers 0 {own}".split()))) == SIZES["test"]
    )


@pytest.mark.parametrize("arch, size", [("mdlm_toy", TINY_WORDS), ("diffglat_toy_ctc", TINY_BLOCKS)])
def test_a_model_goes_on_with_it_and_validates(data: Path, tmp_path: Path, arch: str, size: list[str]):
    """From a model that was trained without: with a large weight, the contrast falls."""
    log, start = tmp_path / "log", tmp_path / "start" / "checkpoint_last.pt"
    usual = f"--no-epoch-checkpoints --log-format json --log-file {log}"
    call("train", *training(data, start.parent, f"{usual} --max-update 5", arch, size=size))
    assert "frequency_contrast" not in log.read_text().partition("epoch")[2]
    flags = f"{usual} --finetune-from-model {start} --frequency-contrast 10 --lr 3e-3 --max-epoch 6"
    call("train", *training(data, tmp_path / "on", flags, arch, size=size))
    trained, valid = (logged(log, subset) for subset in ("train_", "valid_"))
    assert len(trained) == len(valid) == 6 and trained[-1] < trained[0] and valid[-1] < valid[0]
    path = f"--path {tmp_path / 'on' / 'checkpoint_last.pt'} --batch-size 8 --cpu --num-workers 0"
    shown = process("validate", data, *USER_DIR, *f"{path} --log-format json".split())
    (again,) = re.findall(r'"valid_frequency_contrast": "([\d.]+)"', shown.stdout + shown.stderr)
    assert float(again) == pytest.approx(valid[-1], abs=1e-3)
