"""The one exception for mistakes a user can mend."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Callable


class UserError(ValueError):
    """Says in a sentence what is wrong, what was found, and what to do about it."""


def sentence_of(kind: type[BaseException], error: BaseException) -> str | None:
    """A UserError's sentence, also when it was raised in a rank that torch spawned; None for another exception."""
    if issubclass(kind, UserError):
        return str(error)
    _, found, sentence = str(error).rpartition("fairseq_diffusion.errors.UserError: ")
    return sentence.strip() if found and kind.__name__ == "ProcessRaisedException" else None


def exit_with_a_sentence() -> None:
    """Make an uncaught :class:`UserError` end the program with its sentence alone; other exceptions are untouched."""
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
