"""Writing a file for a user: complete or not at all, and not over an existing one without --force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from fairseq_diffusion.errors import UserError, has_no_room


def check_writable(output: Path, force: bool) -> None:
    """Before any work is done, refuse an output that exists (unless `force`) or whose folder does not."""
    if output.is_dir() or not output.parent.is_dir():
        kind = "is a folder" if output.is_dir() else f"cannot be written: there is no folder {output.parent}"
        raise UserError(f"the output {output} {kind}; name a file in an existing folder")
    if output.exists() and not force:
        raise UserError(f"the output {output} already exists; name another file, or pass --force to replace it")


@contextmanager
def atomic_write(output: Path) -> Iterator[Path]:
    """A temporary path beside `output` to write to; renamed to `output` on success, removed on failure."""
    temporary = output.with_name(f".{output.name}.{uuid4().hex}.tmp")  # two hosts may have the same process ids
    try:
        yield temporary
        temporary.replace(output)
    except (OSError, RuntimeError) as error:
        if not has_no_room(error):
            raise
        raise UserError(f"there is no room for {output} ({error}); free some space, and start again") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(output: Path, text: str) -> None:
    """Write `text` as UTF-8, by :func:`atomic_write`."""
    write_texts({output: text})


def write_texts(texts: dict[Path, str]) -> None:
    """Write each text as UTF-8 to its path, all of them or none."""
    with ExitStack() as files:
        for temporary, text in [(files.enter_context(atomic_write(path)), text) for path, text in texts.items()]:
            temporary.write_text(text, encoding="utf-8")
