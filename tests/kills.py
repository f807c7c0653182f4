"""Ending a program with all that it started, as kill -9 does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def children(parent: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended just now
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, thread.read_text().split())
    return found


def descendants(parent: int) -> list[int]:
    return [each for child in children(parent) for each in (child, *descendants(child))]


def kill(parent: int) -> None:
    for one in (parent, *descendants(parent)):
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.kill(one, signal.SIGKILL)


def killed_when(there: Path, command: Sequence[object], environment: dict[str, str]) -> None:
    """Start a program, and kill it once a file is there, whatever it is at."""
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    while not there.exists():
        assert process.poll() is None, f"the program ended before there was {there}"
        time.sleep(0.02)
    kill(process.pid)
    process.wait()
