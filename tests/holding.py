"""A process that holds a lock, and does nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from fairseq_diffusion.files.locks import Lock

FORK = multiprocessing.get_context("fork")


def hold(file: Path, here: Connection) -> None:
    with Lock(file, file.parent, "go away"):
        here.send(None)
        here.recv()


@contextmanager
def held(file: Path) -> Iterator[int]:
    """Within it, a process of this number holds the lock of `file`; it is killed."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(file, there))
    process.start()
    here.recv()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
