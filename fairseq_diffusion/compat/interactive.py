"""fairseq-interactive, which reads its input by a function of its own: bytes that are no text end it."""

from __future__ import annotations

import fileinput
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fairseq_diffusion.compat.wrapping import wrap_once
from fairseq_diffusion.errors import UserError

MARK = "\ufeff"  # the byte-order mark
_refused: list[str] = []


def read_every_line() -> None:
    """Any fairseq: lines with bytes that are no UTF-8 are read, too, for the task to refuse them alone.

    The command has imported its module before ours; started with ``-m`` it is ``__main__``.
    """
    for name in ("__main__", "fairseq_cli.interactive"):
        if hasattr(module := sys.modules.get(name), "buffered_read"):
            wrap_once(module, "buffered_read", _buffers)


def refuse_line(number: int, sentence: str) -> None:
    """Say on stderr why a line, counted from 0 as in fairseq's output, has no translation."""
    _refused.append(sentence)
    print(f"fairseq-diffusion: error: line {number} (counted from 0) {sentence}", file=sys.stderr, flush=True)


def _buffers(read: Any, input: str, buffer_size: int) -> Iterator[list[str]]:
    """In place of fairseq's: the same lines, without a byte-order mark; invalid bytes are lone surrogates."""
    _refused.clear()
    if input == "-" and hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    with fileinput.input([input], openhook=fileinput.hook_encoded("utf-8", "surrogateescape")) as lines:
        stripped = (line.removeprefix(MARK if lines.isfirstline() else "").strip() for line in lines)
        while buffer := list(islice(stripped, buffer_size)):
            yield buffer
        if _refused:
            raise UserError(f"{len(_refused)} of {lines.lineno()} lines have no translation; their errors are above")
