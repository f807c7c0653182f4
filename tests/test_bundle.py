"""The bundle of wheels: what would be fetched, and what is refused before anything is."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

VERSION = "{}.{}".format(*sys.version_info[:2])
FAIRSEQ = "fairseq==0.12.2" if VERSION == "3.10" else "--no-build-isolation fairseq-fixed==0.12.3.1"


def run(script: Path, *args: Any, cwd: Path = ROOT, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python}
    command = ["sh", script, *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def bundle(*args: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    return run(ROOT / "scripts/bundle_wheels.sh", *args, **more)


def test_a_dry_run_says_what_is_fetched_and_writes_nothing(tmp_path: Path):
    done = bundle("--dry-run", "out", "torch==2.11.0 --index-url URL", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fetched = re.findall(r" -m pip --disable-pip-version-check wheel (.*)", done.stdout)
    assert all(f"--wheel-dir {tmp_path}/out.partial/wheels" in line for line in fetched)
    tools, torch, fairseq, ours = fetched
    assert tools.endswith("pip<24.1 setuptools<80 wheel cython numpy")
    assert torch.endswith("torch==2.11.0 --index-url URL") and fairseq.endswith(FAIRSEQ)
    assert ours.endswith("source[plot]") and list(tmp_path.iterdir()) == []
    assert "torch==2.13.0" in bundle("--dry-run", tmp_path / "out").stdout


def test_what_is_there_is_never_touched(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("kept")
    for flags in ([], ["--dry-run"]):
        done = bundle(*flags, tmp_path / "out")
        assert done.returncode == 2 and "exists already" in done.stderr
    (tmp_path / "other.partial").mkdir()
    assert "is left from another attempt" in bundle(tmp_path / "other").stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other.partial", "out"]


@pytest.mark.parametrize(
    "args, python, words",
    [([], "", "usage"), (["{}/a/b"], "", "there is no folder"), (["{}/a"], "/absent", "no Python /absent")],
)
def test_what_cannot_be_made(tmp_path: Path, args: list[str], python: str, words: str):
    done = bundle(*(each.format(tmp_path) for each in args), python=python or sys.executable)
    assert done.returncode == 2 and words in done.stderr


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle as it is carried, without wheels."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "requirements.txt").write_text("torch\n")
    text = (ROOT / "scripts/install_bundle.sh").read_text()
    (folder / "install.sh").write_text(text.replace("@VERSION@", VERSION))
    digest = hashlib.sha256(b"torch\n").hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  requirements.txt\n")
    return folder


def test_installing_refuses_before_it_begins(made: Path, tmp_path: Path):
    """Another Python, a folder that is there, a damaged bundle."""
    install, venv = made / "install.sh", tmp_path / "venv"
    (tmp_path / "python").write_text("#!/bin/sh\necho 3.9\n")
    (tmp_path / "python").chmod(0o755)
    assert f"is Python 3.9, and the wheels are for {VERSION}" in run(install, venv, tmp_path / "python").stderr
    assert "exists already" in run(install, made, sys.executable).stderr
    (made / "requirements.txt").write_text("torc")
    assert "damaged or incomplete" in run(install, venv, sys.executable).stderr
    assert not venv.exists()
