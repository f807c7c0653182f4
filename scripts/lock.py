"""usage: lock.py FD

Lock the current folder for a recipe or an example, through the open file FD. The lock belongs to the open file, so it
is held until the last process that inherited the file has ended: the next recipe notices a training that is still
running after its recipe was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path


def main() -> int:
    if reason := lock(int(sys.argv[1])):
        print(f"recipe: {reason}", file=sys.stderr)
    return 2 if reason else 0


def lock(descriptor: int) -> str | None:
    """Lock the folder; return why not, with the processes that hold the lock."""
    try:
        locked(descriptor)
    except BlockingIOError:
        return (
            f"another run, or a command of a killed run, still works in {Path.cwd()}; wait until it ends, or end it, "
            f"then start again{holders(descriptor)}"
        )
    except OSError as error:
        print(f"no locks here ({error.strerror}): make sure that only one run works in {Path.cwd()}")
    return None


def locked(descriptor: int) -> None:
    """Try for two seconds: a process that was just killed may still be ending."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.1)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holders(descriptor: int) -> str:
    """The processes that have the lock's file open, but for our own, where the system shows them."""
    ours = {os.getpid(), os.getppid()}
    return "".join(
        f"\n    process {process.name}: {words_of(process)}"
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) not in ours and has_open(process, os.fstat(descriptor))
    )


def has_open(process: Path, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # ended, or another user's
        return any(is_same(wanted, file) for file in (process / "fd").iterdir())
    return False


def is_same(wanted: os.stat_result, file: Path) -> bool:
    with contextlib.suppress(OSError):  # closed since it was listed, which says nothing about the process's other files
        return os.path.samestat(wanted, file.stat())
    return False


def words_of(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()[:100]
    return "(ended)"


if __name__ == "__main__":
    raise SystemExit(main())
