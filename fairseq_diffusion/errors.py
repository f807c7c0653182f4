"""The one exception for mistakes a user can mend."""

from __future__ import annotations

import errno
import sys
from types import TracebackType
from typing import Callable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# of an archive that it writes; the last is the C++ library's, of whatever it writes or reads
TORCH_HAS_NO_ROOM = ("PytorchStreamWriter failed", ". unexpected pos ", "basic_ios::clear: iostream error")
EXCHANGES = ("DistBackendError", "DistNetworkError", "DistStoreError")  # torch's, where ranks cannot reach another
# omegaconf's, where a value is missing or of another type, or refers to what is not there
CONFIGURATION = (
    *(
        "MissingMandatoryValue",
        "InterpolationKeyError",
        "InterpolationToMissingValueError",
        "ValidationError",
        "ConfigKeyError",
    ),
    *("InterpolationResolutionError", "UnsupportedInterpolationType"),
)


class UserError(ValueError):
    """Says in a sentence what is wrong, what was found, and what to do about it."""


def sentence_of(kind: type[BaseException], error: BaseException) -> str | None:
    """A UserError's sentence, also when it was raised in a rank that torch spawned, and one for what the system or
    fairseq's commands refuse; None for another exception."""
    if issubclass(kind, UserError):
        return str(error)
    if isinstance(error, OSError):
        return refused_by_the_system(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the latter is torch's
        asked = str(error).rpartition("DefaultCPUAllocator: ")[2] or "no memory is left"
        return f"{asked.splitlines()[0]}; pass smaller sizes or batches: a flag or a file asks for too much memory"
    if kind.__name__ in CONFIGURATION:
        return f"the configuration cannot be read ({', '.join(map(str.strip, str(error).splitlines()))}); correct it"
    if "gloo/transport" in str(error) or kind.__name__ in EXCHANGES:
        said = str(error).splitlines()[0].rpartition(".cc:")[2].partition("] ")  # behind gloo's file and line
        return (
            f"another rank has ended or does not answer ({(said[2] or said[0]).partition('. ')[0]}); see what it says, "
            "end those that still run, and start all of them again: they continue from the last checkpoint"
        )
    if kind is AssertionError and str(error).startswith("--"):  # fairseq's checks of its own flags
        return f"{str(error).rstrip('!.')}; correct these flags"
    _, found, sentence = str(error).rpartition("fairseq_diffusion.errors.UserError: ")
    return sentence.strip() if found and kind.__name__ == "ProcessRaisedException" else None


def has_no_room(error: BaseException) -> bool:
    """Whether a file could not be written for want of space; torch's writer says so in its own way."""
    full = isinstance(error, OSError) and error.errno in NO_ROOM
    return full or (isinstance(error, RuntimeError) and any(said in str(error) for said in TORCH_HAS_NO_ROOM))


def refused_by_the_system(error: OSError) -> str | None:
    """A sentence for a file that is not there, may not be read or written, or finds no room."""
    where = f"{error.filename}: " if error.filename else ""
    if has_no_room(error):
        return f"{where}{error.strerror or error}; free some space, or raise the limit, and start again"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not there; check the path" if error.filename else str(error)
    if isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError)) or error.errno == errno.EROFS:
        return f"{where}{error.strerror}; name a file that you may read, or a folder that you may write to"
    missing = str(error).removeprefix("Model file not found: ")  # fairseq's
    return f"the checkpoint {missing} is not there; check --path" if missing != str(error) else None


def exit_with_a_sentence() -> None:
    """Make an uncaught exception that has a :func:`sentence_of` its own end the program with it alone; others are
    untouched."""
    previous: Callable = sys.excepthook
    if getattr(previous, "says_user_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = sentence_of(kind, error)
        if sentence is not None:
            print(f"fairseq-diffusion: error: {sentence}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.says_user_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook
