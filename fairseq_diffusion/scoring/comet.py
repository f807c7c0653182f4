"""COMET, by the command of its own environment: it needs older libraries than fairseq's torch works with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from fairseq_diffusion.errors import UserError

COMMAND = "comet-score"
SCORE = re.compile(r"\tscore: (-?\d+(?:\.\d+)?)$", re.MULTILINE)


def check_installed() -> None:
    if shutil.which(COMMAND) is None:
        raise UserError(
            f"--comet needs the command {COMMAND}, which is not on the PATH; install it into an environment of its own "
            f"(python -m venv comet; comet/bin/pip install unbabel-comet) and put its comet/bin at the end of the PATH"
        )


def comet_scores(model: str, sources: list[str], systems: list[list[str]], references: list[str]) -> list[float]:
    """The score of each system's detokenised text."""
    import torch  # slow to import, and needed here only

    gpus = str(int(torch.cuda.is_available()))
    with tempfile.TemporaryDirectory() as folder:
        names = [f"system{i}" for i in range(len(systems))]
        for name, lines in zip(["source", "reference", *names], [sources, references, *systems]):
            text = "".join(line.replace("\r", " ") + "\n" for line in lines)  # to some readers, \r ends a line too
            Path(folder, name).write_text(text, encoding="utf-8")
        files = ["-s", "source", "-r", "reference", "-t", *names]
        printed = output_of([*files, "--model", model, "--gpus", gpus, "--quiet", "--only_system"], folder)
    found = SCORE.findall(printed)
    if len(found) != len(systems):
        raise UserError(f"{COMMAND} printed {len(found)} scores for {len(systems)} systems; run it by hand to see why")
    return list(map(float, found))


def output_of(arguments: list[str], folder: str) -> str:
    """What the command prints; it imports its own libraries, not ours."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{COMMAND} ended with status {done.returncode}; its messages are above")
    return done.stdout
