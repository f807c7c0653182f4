"""The new data-bin as a folder: never over another's unasked, and never half of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairseq_diffusion.errors import UserError

RECORD = "distilled.json"  # how the data were made; what tells a data-bin of ours from others


def check_output(output: Path, force: bool) -> None:
    """Refuse, before any work is done, a folder that is there, unless it is one of ours and `force` says so."""
    if not output.parent.is_dir():
        raise UserError(f"--output {output} cannot be written: there is no folder {output.parent}; make it first")
    if not output.exists():
        return
    if not (output / RECORD).is_file():
        raise UserError(f"--output {output} exists, and holds no {RECORD}, so we did not write it; name another folder")
    if not force:
        raise UserError(f"--output {output} already exists; name another folder, or pass --force to replace it")


@contextmanager
def folder_written_whole(output: Path) -> Iterator[Path]:
    """A hidden folder beside `output`, new and empty, that takes its place on success; what a killed run left of
    either name is removed."""
    partial, old = (output.with_name(f".{output.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
            output.rename(old)
        partial.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
