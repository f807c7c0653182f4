"""Running the commands of an example: logged, watched, and stopped with their own message when they fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

ENTRIES = {
    "fairseq-preprocess": "fairseq_cli.preprocess:cli_main",
    "fairseq-train": "fairseq_cli.train:cli_main",
    "fairseq-generate": "fairseq_cli.generate:cli_main",
    "fairseq-diffusion": "fairseq_diffusion.cli.main:main",
    "subword-nmt": "subword_nmt.subword_nmt:main",
}


def program(name: str) -> str:
    """A console script of this Python, as a shell would be told; its entry point where scripts are not installed."""
    script = Path(sys.executable).parent / name
    if script.exists():
        return shlex.quote(str(script))
    module, function = ENTRIES[name].split(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


running: dict[str, subprocess.Popen] = {}


class StageFailed(Exception):
    """Names the stage, the end of what it said, and its log."""


@dataclass(frozen=True)
class Stage:
    """One command, run in the run's folder; what it prints goes to a log there."""

    name: str
    command: str
    folder: Path
    updates: int = 0  # of a training

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{re.sub(r'[^A-Za-z0-9]+', '-', self.name).lower()}.log"


def new_folder(parent: Path, name: str) -> Path:
    """The first free name-N below `parent`: earlier runs stay."""
    number = 1
    while True:
        folder = parent.resolve() / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            (folder / "logs").mkdir()
            return folder


def run(stage: Stage) -> str:
    """Run to the end and return what was printed; one that fails ends what runs beside it."""
    if not stage.updates:
        print(f"{stage.name} ...", flush=True)
    with stage.log.open("w") as log:
        log.write(f"$ {stage.command}\n")
        log.flush()
        started = subprocess.Popen(
            shlex.split(stage.command),
            cwd=stage.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # stages share the cores: spinning threads would fight
        )
        running[stage.name] = started
        code = started.wait()
        del running[stage.name]
    said = stage.log.read_text(errors="replace")
    if code:
        for other in list(running.values()):
            other.terminate()
        last = "\n".join(said.strip().splitlines()[-5:])
        raise StageFailed(f"'{stage.name}' failed with status {code}:\n{last}\nits whole log: {stage.log}")
    return said


def report_progress(stages: Sequence[Stage], futures: Sequence[Future], every: float = 10.0) -> None:
    """Print where the running trainings are until all are done or one has failed; on a terminal, in one line."""
    begun, width = time.time(), 0
    while not all(future.done() for future in futures):
        if any(future.done() and future.exception() for future in futures):
            return
        time.sleep(every)
        running = [stage for stage, future in zip(stages, futures) if future.running()]
        states = " | ".join(f"{stage.name.removeprefix('train ')} {progress(stage)}" for stage in running)
        done = sum(future.done() for future in futures)
        line = f"training {time.time() - begun:4.0f} s, {done} of {len(stages)} done: {states}"
        width = max(width, len(line))  # over what a longer line has left
        print(f"\r{line:{width}}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)
    print()


def progress(stage: Stage) -> str:
    """Updates done and the loss, from the last progress record of a training's log."""
    records = (
        re.findall(r"\| train_inner \| (\{.*\})", stage.log.read_text(errors="replace")) if stage.log.exists() else []
    )
    if not records:
        return f"0/{stage.updates}"
    last = json.loads(records[-1])
    return f"{last['num_updates']}/{stage.updates} loss {float(last['loss']):.2f}"
