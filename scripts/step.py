"""One step of a recipe: run its command unless that has been done, and lose nothing. scripts/recipe.sh calls this.

usage, in the recipe's folder:
    step.py NAME --inputs PATH ... --outputs PATH ... --command TEXT [OPTIONS]

A step is complete when steps/NAME.json says so, and its command, inputs and outputs are what they were: then it is
skipped. One that was interrupted is run again: what --continues goes on from its outputs, all else begins anew. One
whose outputs are missing or changed is made anew. One whose command or inputs changed is refused, but for --redo, and
unless the inputs changed because an earlier step was made anew, or it is quickly made (--remake). Outputs that were
there are moved to replaced/NAME-N, never overwritten.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sums import Sums, changed, listed, lost, missing, sums, within

STEPS, LOGS, REPLACED = Path("steps"), Path("logs"), Path("replaced")
LAST_LINES = 15  # of a failed step's log, on the screen

Record = dict[str, Any]  # state (begun, ended, complete), identity, command, inputs, outputs, and whether it is stale


class Refused(Exception):
    """What is wrong, what was found, and what to do."""


@dataclass(frozen=True)
class Step:
    """`identity` is what the command does, where it can be done in several ways (on more GPUs)."""

    name: str
    inputs: list[str]
    outputs: list[str]
    command: str
    identity: str
    continues: bool
    remake: bool
    redo: bool

    @property
    def marker(self) -> Path:
        return STEPS / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def refusal(self, reason: str) -> Refused:
        return Refused(
            f"{reason}. Make that what it was again, or pass --redo {self.name} to make {self.name} anew; its old "
            f"outputs then go to {REPLACED}/"
        )


def read(marker: Path) -> Record | None:
    return json.loads(marker.read_text()) if marker.exists() else None


def write(marker: Path, record: Record) -> None:
    """Whole or not at all."""
    temporary = marker.with_name(f".{marker.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(marker)


# -- what is to be done ------------------------------------------------------------------------------------------------


def decide(step: Step, record: Record | None, inputs: Sums) -> tuple[str, str]:
    """What to do, "skip", "run", "anew" (with the old outputs moved away) or "finish", and why."""
    if record is None:
        return first_time(step)
    if step.redo:
        return "anew", "made anew, as asked"
    if record["state"] == "begun" and not step.continues:
        return "anew", "was interrupted, begins anew"
    if others := changed(record["inputs"], inputs):
        if record.get("stale") or step.remake:
            return "anew", f"made anew, as {listed(others)}"
        raise step.refusal(f"{step.name} was made from other files: {listed(others)}")
    if record["identity"] != step.identity:
        if step.remake:
            return "anew", "made anew, as its command changed"
        raise step.refusal(f"{step.name} was made by another command: {differences(record['identity'], step.identity)}")
    if record["state"] == "begun":
        return "run", "was interrupted, goes on" + ("" if record["command"] == step.command else " in another way")
    if record["state"] == "ended":
        return "finish", ""
    if broken := lost(record["outputs"], sums(step.outputs)):
        return "anew", f"made anew, as {listed(broken)}"
    return "skip", "complete"


def first_time(step: Step) -> tuple[str, str]:
    there = [name for name in step.outputs if Path(name).exists()]
    if there:
        raise Refused(
            f"{step.name} would write {there[0]}, which is there already, and no step of a recipe made it; move it "
            "away, or name another --out"
        )
    return "run", ""


def differences(before: str, now: str) -> str:
    old, new = shlex.split(before), shlex.split(now)
    return f"it had {only_in(old, new)}, now it has {only_in(new, old)}"


def only_in(words: list[str], others: list[str]) -> str:
    """Words that the others lack, each behind its flag."""
    kept = []
    for before, word in zip(["", *words], words):
        if word not in others:
            kept += [before, word] if before.startswith("--") and before in others else [word]
    return " ".join(kept) or "fewer words"


# -- doing it ----------------------------------------------------------------------------------------------------------


def run(step: Step) -> int:
    inputs = sums(step.inputs)
    if absent := missing(step.inputs, inputs):
        raise Refused(f"{step.name} needs {listed(absent)}, which is not there")
    record = read(step.marker)
    action, why = decide(step, record, inputs)
    if action == "anew":
        make_way(step)
    if record is None or action in ("run", "anew"):
        return execute(step, inputs, why)
    if action == "finish":
        print(f"{step.name}: had ended,", end=" ")
        return finish(step, record, "complete")
    if record.pop("stale", False):  # what was made anew before it came out the same
        write(step.marker, record)
    print(f"{step.name}: {why}", flush=True)
    return 0


def make_way(step: Step) -> None:
    """Tell the steps behind that their inputs may change, and move the outputs away; only then is there a new record,
    so that a kill in between leaves a step whose outputs are missing."""
    for marker in STEPS.glob("*.json"):
        record = read(marker) or {}
        follows = any(within(a, b) or within(b, a) for a in record["inputs"] for b in step.outputs)
        if follows and marker != step.marker:
            write(marker, {**record, "stale": True})
    there = [Path(name) for name in step.outputs if Path(name).exists()]
    folder = free_folder(step.name) if there else REPLACED
    for path in there:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path)


def free_folder(name: str) -> Path:
    number = 1
    while (folder := REPLACED / f"{name}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def execute(step: Step, inputs: Sums, why: str) -> int:
    for folder in (STEPS, LOGS, *(Path(name).parent for name in step.outputs)):
        folder.mkdir(parents=True, exist_ok=True)
    record = {"state": "begun", "identity": step.identity, "command": step.command, "inputs": inputs}
    write(step.marker, record)
    print(f"{step.name}: {why + ' ' if why else ''}...", end=" ", flush=True)
    begun = time.time()
    with step.log.open("a") as log:
        log.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {step.name} {why}\n$ {step.command}\n")
        log.flush()
        code = in_a_shell(step.command, log)
    if code:
        return failed(step, f"was stopped by signal {-code}" if code < 0 else f"failed with status {code}")
    write(step.marker, {**record, "state": "ended"})  # what had ended well need not be run again
    return finish(step, record, f"done in {time.time() - begun:.0f} s")


def finish(step: Step, record: Record, how: str) -> int:
    outputs = sums(step.outputs)
    if absent := missing(step.outputs, outputs):
        write(step.marker, {**record, "state": "begun"})
        return failed(step, f"ended without an error, but {listed(absent)} is not there")
    write(step.marker, {**record, "state": "complete", "outputs": outputs})
    print(how, flush=True)
    return 0


def in_a_shell(command: str, log: Any) -> int:
    """The exit status of a command, in a process group of its own; signals that would end us are passed on to it."""
    shell: subprocess.Popen | None = None
    came: list[int] = []

    def pass_on(number: int, frame: Any = None) -> None:
        came.append(number)
        if shell:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        close_fds=False,  # it inherits the recipe's lock
        start_new_session=True,
    )
    for number in list(came):  # before there was one to pass them on to
        pass_on(number)
    return shell.wait()


def failed(step: Step, how: str) -> int:
    last = step.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    print(how, *(f"    {line}" for line in last), sep="\n", flush=True)
    print(f"recipe: {step.name} {how}; its log is {step.log.resolve()}", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--inputs", nargs="*", default=[])
    parser.add_argument("--outputs", nargs="+", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--identity", help="what the command does, where that can be done in several ways")
    parser.add_argument("--continues", action="store_true", help="the command goes on from outputs that it finds")
    parser.add_argument("--remake", action="store_true", help="make it anew whenever its command or inputs changed")
    parser.add_argument("--redo", action="store_true", help="make it anew")
    said = vars(parser.parse_args())
    try:
        return run(Step(**{**said, "identity": said["identity"] or said["command"]}))
    except Refused as refusal:
        print(f"recipe: {refusal}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
