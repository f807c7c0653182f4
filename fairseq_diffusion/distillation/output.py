"""Writing the new data-bin as a folder: complete or not at all, and never over other files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.locks import Lock

RECORD = "distilled.json"  # how the data were made; only our data-bins have it


def check_output(output: Path, force: bool) -> None:
    """Before any work is done, refuse a folder that exists, unless it is one of ours and `force` is set."""
    if not output.parent.is_dir():
        raise UserError(f"--output {output} cannot be written: there is no folder {output.parent}; make it first")
    if output.exists() and not (output / RECORD).is_file():
        raise UserError(f"--output {output} exists, and holds no {RECORD}, so we did not write it; name another folder")
    if output.exists() and not force:
        raise UserError(f"--output {output} already exists; name another folder, or pass --force to replace it")


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """A new hidden folder beside `output`, which replaces it on success; leftovers of a killed run are removed."""
    partial, old, lock = (output.with_name(f".{output.name}.{state}") for state in ("partial", "old", "lock"))
    with Lock(lock, output, "name another --output"):
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
