"""One step of a recipe or an example: run its command unless that has been done, and lose nothing.

usage, in the folder that all paths are relative to:
    step.py NAME --inputs PATH ... --outputs PATH ... --command TEXT [OPTIONS]

A step is complete when steps/NAME.json says so, and its command, inputs and outputs are what they were: then it is
skipped. One that was interrupted is run again: with --continues from its outputs, else from the start. One whose
outputs are missing or changed is made again. One whose command or inputs changed is refused, except with --redo, or if
the inputs changed because an earlier step was made again, or if it is quickly made (--remake). Existing outputs are
moved to replaced/NAME-N with their log, never overwritten. Behind the deadline (see deadline.py) a step that still runs
is interrupted, none begins, and the exit status is 75; a command that ends with status 75 has interrupted itself.

scripts/recipe.sh calls this program for each step; examples/toy imports `Step` and `run`, which threads may call.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from deadline import MORE_TO_DO, seconds_left
from markers import DAMAGED, Record, read, write
from sums import Sums, changed, listed, lost, missing, sums, within

STEPS, LOGS, REPLACED = Path("steps"), Path("logs"), Path("replaced")
LAST_LINES = 15  # of a failed step's log, on the screen


class StepFailed(Exception):
    """Which step, how it ended, and the end of its log."""


class TimeOver(StepFailed):
    """The step was interrupted, or not begun, because the time is over."""


class Refused(StepFailed):
    """Nothing was run: what is wrong, what was found, and what to do."""


@dataclass(frozen=True)
class Step:
    """The options of the program, which says what they mean."""

    name: str
    inputs: list[str]
    outputs: list[str]
    command: str
    identity: str = ""
    continues: bool = False
    remake: bool = False
    redo: bool = False

    @property
    def purpose(self) -> str:
        """What must stay the same: how it is done may change."""
        return self.identity or self.command

    @property
    def marker(self) -> Path:
        return STEPS / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def refusal(self, reason: str) -> Refused:
        return Refused(
            f"{reason}. Make that what it was again, or pass --redo {self.name} to make {self.name} again; its old "
            f"outputs then go to {REPLACED}/"
        )


# -- what is to be done ------------------------------------------------------------------------------------------------


def decide(step: Step, record: Record | None, inputs: Sums) -> tuple[str, str]:
    """What to do, "skip", "run", "again" (with the old outputs moved away) or "finish", and why."""
    if record is None:
        return first_time(step)
    if step.redo:
        return "again", "made again, as requested"
    if record["state"] == "damaged":
        raise step.refusal(f"{step.marker}, the record of {step.name}, is damaged")
    if record["state"] == "begun" and not step.continues:
        return "again", "was interrupted, starts again"
    if others := changed(record["inputs"], inputs):
        if record.get("stale") or step.remake:
            return "again", f"made again, because {listed(others)}"
        raise step.refusal(f"{step.name} was made from other files: {listed(others)}")
    if record["identity"] != step.purpose:
        if step.remake:
            return "again", "made again, because its command changed"
        raise step.refusal(f"{step.name} was made by another command: {differences(record['identity'], step.purpose)}")
    if record["state"] == "begun":
        return "run", "was interrupted, continues" + ("" if record["command"] == step.command else " in another way")
    if record["state"] == "ended":
        return "finish", "had ended, complete"
    unknown = [f"{name} is not in its record" for name in missing(step.outputs, record["outputs"])]
    if broken := unknown + lost(record["outputs"], sums(step.outputs)):
        return "again", f"made again, because {listed(broken)}"
    return "skip", "complete"


def first_time(step: Step) -> tuple[str, str]:
    there = [name for name in step.outputs if Path(name).exists()]
    if there:
        raise Refused(
            f"{step.name} would write {there[0]}, which is there already, and no step made it; move it away, or name "
            "another --out"
        )
    return "run", "begins"


def differences(before: str, now: str) -> str:
    old, new = shlex.split(before), shlex.split(now)
    return f"it had {only_in(old, new)}, now it has {only_in(new, old)}"


def only_in(words: list[str], others: list[str]) -> str:
    """Words that the others lack, each after its flag."""
    kept = []
    for before, word in zip(["", *words], words):
        if word not in others:
            kept += [before, word] if before.startswith("--") and before in others else [word]
    return " ".join(kept) or "fewer words"


# -- doing it ----------------------------------------------------------------------------------------------------------


def run(step: Step) -> None:
    inputs = sums(step.inputs)
    if absent := missing(step.inputs, inputs):
        raise Refused(f"{step.name} needs {listed(absent)}, which is not there")
    record = read(step.marker)
    action, why = decide(step, record, inputs)
    if action == "again":
        make_way(step)
    if record is None or action in ("run", "again"):
        return execute(step, inputs, why)
    if action == "finish":
        return finish(step, record, why)
    if record.pop("stale", False):  # its inputs were made again, with the same content
        write(step.marker, record)
    print(f"{step.name}: {why}", flush=True)


def make_way(step: Step) -> None:
    """Mark the steps that follow, whose inputs may change, and move the outputs away; only then write a new record, so
    that a kill in between gives a step whose outputs are missing."""
    for marker in STEPS.glob("*.json"):
        record = read(marker) or DAMAGED
        follows = any(within(a, b) or within(b, a) for a in record["inputs"] for b in step.outputs)
        if follows and marker != step.marker:
            write(marker, {**record, "stale": True})
    if any(Path(name).exists() for name in step.outputs):
        set_aside(step.name, [*step.outputs, str(step.log)])


def set_aside(name: str, paths: Iterable[str]) -> None:
    """Move what is there of these to a new folder of replaced/."""
    folder = free_folder(name)
    for path in (Path(path) for path in paths if Path(path).exists()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path)


def free_folder(name: str) -> Path:
    number = 1
    while (folder := REPLACED / f"{name}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def execute(step: Step, inputs: Sums, why: str) -> None:
    if seconds_left() == 0:
        raise TimeOver(f"{step.name} is next")
    for folder in (STEPS, LOGS, *(Path(name).parent for name in step.outputs)):
        folder.mkdir(parents=True, exist_ok=True)
    record = {"state": "begun", "identity": step.purpose, "command": step.command, "inputs": inputs}
    write(step.marker, record)
    print(f"{step.name}: {why}", flush=True)
    begun = time.time()
    with step.log.open("a") as log:
        log.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {step.name} {why}\n$ {step.command}\n")
        log.flush()
        code = in_a_shell(step.command, log)
    if code == MORE_TO_DO:
        raise TimeOver(f"{step.name} continues next time")
    if code:
        raise failure(step, f"was stopped by signal {-code}" if code < 0 else f"failed with status {code}")
    write(step.marker, {**record, "state": "ended"})  # a kill from here on does not cost the run
    finish(step, record, f"done in {time.time() - begun:.0f} s")


def finish(step: Step, record: Record, how: str) -> None:
    outputs = sums(step.outputs)
    if absent := missing(step.outputs, outputs):
        write(step.marker, {**record, "state": "begun"})
        raise failure(step, f"ended without an error, but {listed(absent)} is not there")
    write(step.marker, {**record, "state": "complete", "outputs": outputs})
    print(f"{step.name}: {how}", flush=True)


def failure(step: Step, how: str) -> StepFailed:
    last = step.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return StepFailed("\n    ".join([f"{step.name} {how}; the end of its log, {step.log.resolve()}:", *last]))


running: set[subprocess.Popen] = set()
stopped = Event()


def stop(*signal_and_frame: Any) -> None:
    """End every command that runs, and those that are about to start, by SIGTERM: fairseq may miss a SIGINT."""
    stopped.set()
    for shell in list(running):
        terminate(shell)


def terminate(shell: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)


def stop_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def in_a_shell(command: str, log: Any) -> int:
    """The exit status of a command, in a process group of its own."""
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        close_fds=False,  # it inherits the folder's lock
        start_new_session=True,
    )
    running.add(shell)
    if stopped.is_set():
        terminate(shell)
    try:
        return shell.wait(timeout=seconds_left())
    except subprocess.TimeoutExpired:
        terminate(shell)
        shell.wait()
        return MORE_TO_DO
    finally:
        running.discard(shell)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--inputs", nargs="*", default=[])
    parser.add_argument("--outputs", nargs="+", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--identity", default="", help="what the command does, where that can be done in several ways")
    parser.add_argument("--continues", action="store_true", help="the command continues from the outputs that it finds")
    parser.add_argument("--remake", action="store_true", help="make it again whenever its command or inputs changed")
    parser.add_argument("--redo", action="store_true", help="make it again")
    stop_on_signals()
    try:
        run(Step(**vars(parser.parse_args())))
    except TimeOver as over:
        print(f"recipe: the time is over; {over}", file=sys.stderr)
        return MORE_TO_DO
    except StepFailed as failed:
        print(f"recipe: {failed}", file=sys.stderr)
        return 2 if isinstance(failed, Refused) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
