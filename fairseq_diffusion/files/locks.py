"""One command at a time where two would mix their files: a lock of the operating system's on a small file.

The kernel ends such a lock with the process that holds it, however that ends, and a file that is left locks nothing.
Processes that are forked, such as those that load data, do not hold it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from fairseq_diffusion.errors import UserError

logger = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds, because a process that was just killed may still be ending
TAKEN = (BlockingIOError, PermissionError)  # by system


class Lock:
    """Held from when it is made until it is released, or the process ends.

    Args:
        file: the small file, beside what is written.
        where: what the lock is for, as a message begins with it.
        advice: what the user can do besides waiting.
    """

    def __init__(self, file: Path, where: Path, advice: str):
        self.file, self.where, self.advice = file, where, advice
        self._descriptor = self._acquired()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Remove the file while it is locked, then end the lock."""
        if self._descriptor is not None:
            self.file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _acquired(self) -> int | None:
        """An open file that is locked; None where there are no locks."""
        patient_until = time.monotonic() + PATIENCE
        while True:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except TAKEN as error:
                owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                if time.monotonic() > patient_until:
                    raise self._refusal(owner) from error
                time.sleep(0.1)
            except OSError as error:
                os.close(descriptor)
                self._warn(error)
                return None
            else:
                if is_at(self.file, descriptor):
                    sign(descriptor)
                    return descriptor
                os.close(descriptor)  # who held it has removed it in between

    def _refusal(self, owner: str) -> UserError:
        return UserError(
            f"{self.where} is being written to by {owner}, and two at once would mix their files; wait until that has "
            f"ended, end it, or {self.advice}"
        )

    def _warn(self, error: OSError) -> None:
        self.file.unlink(missing_ok=True)
        logger.warning(
            f"{self.where} is on a file system without locks ({error.strerror}): make sure that only one command "
            "writes to it at a time"
        )


def is_at(file: Path, descriptor: int) -> bool:
    """Whether an open file is the one of this name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    return False


def sign(descriptor: int) -> None:
    """Write who holds the lock; without room the lock is as good."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
