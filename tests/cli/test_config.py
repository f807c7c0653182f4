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


def test_unknown_architecture_lists_the_known(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "dinoizer"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairseq-diffusion: error: unknown architecture") and "dinoiser_toy" in error
