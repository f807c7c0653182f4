"""usage: lock.py FD

Lock the current folder for a recipe, through the open file FD. The lock belongs to the open file, so it is held until
the last process that inherited the file has ended: a training that outlives a killed recipe is noticed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path


def main() -> int:
    descriptor = int(sys.argv[1])
    try:
        locked(descriptor)
    except BlockingIOError:
        print(
            f"recipe: a recipe, or a command that a killed one left behind, is still at work in {Path.cwd()}; wait for "
            f"it or end it, then run the recipe again{holders(descriptor)}",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print(f"recipe: no locks here ({error.strerror}): see to it that only one recipe works in {Path.cwd()}")
    return 0


def locked(descriptor: int) -> None:
    """What was killed a moment ago may still be ending."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.1)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holders(descriptor: int) -> str:
    """The processes that have the lock's file open, but for this recipe's own, where the system tells."""
    ours = {os.getpid(), os.getppid()}
    return "".join(
        f"\n    process {process.name}: {words_of(process)}"
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) not in ours and has_open(process, os.fstat(descriptor))
    )


def has_open(process: Path, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # ended, or another user's
        return any(os.path.samestat(wanted, file.stat()) for file in (process / "fd").iterdir() if file.exists())
    return False


def words_of(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()[:100]
    return "(ended)"


if __name__ == "__main__":
    raise SystemExit(main())
