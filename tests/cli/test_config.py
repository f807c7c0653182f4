"""Presets as YAML (that hydra reads them as the command line does is shown in tests/integration)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.systems.presets import PRESETS


def test_printed_and_written_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["config", "dinoiser_toy"]) == 0
    printed = capsys.readouterr().out
    assert main(["config", "dinoiser_toy", "--output", str(tmp_path / "toy.yaml")]) == 0
    assert (tmp_path / "toy.yaml").read_text() == printed
    assert printed.startswith("# @package _group_\n")
    assert yaml.safe_load(printed) == {"_name": "diffusion", **PRESETS["dinoiser_toy"].fields}


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    assert main(["config", "dinoiser", "--output", str(file)]) == 2
    assert "--force" in capsys.readouterr().err and file.read_text() == "mine"
    assert main(["config", "dinoiser", "--output", str(file), "--force"]) == 0
    assert file.read_text() != "mine"


def test_a_folder_for_hydra_has_every_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "conf"
    command = ["config", "dinoiser_toy", "--config-dir", str(folder)]
    assert main(command) == 0
    found = {str(file.relative_to(folder)): yaml.safe_load(file.read_text()) for file in folder.rglob("*.yaml")}
    contrast = "label_smoothed_cross_entropy_with_frequency_contrast"
    own = [f"criterion/{name}" for name in ("diffusion_loss", "e_arm", contrast, "progressive_distillation")]
    own.append("optimizer/fused_adam")
    assert {*own, "model/dinoiser_toy", "task/diffusion_translation"} == {name[:-5] for name in found}
    assert PRESETS["dinoiser_toy"].fields.items() <= found["model/dinoiser_toy.yaml"].items()
    assert (
        found["model/dinoiser_toy.yaml"]["_name"] == "diffusion"
        and found["task/diffusion_translation.yaml"]["eval_bleu"] is False
    )
    (folder / "model" / "dinoiser_toy.yaml").write_text("mine")
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert (folder / "model" / "dinoiser_toy.yaml").read_text() == "mine"


def test_unknown_architecture_lists_the_known(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "dinoizer"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairseq-diffusion: error: unknown architecture") and "dinoiser_toy" in error
