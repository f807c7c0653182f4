"""Whether a checkpoint has the bytes that were written: its zip archive has a checksum of each tensor, which torch does
not look at."""

from __future__ import annotations

import zipfile
import zlib


def damage(path: str) -> str | None:
    """What is wrong with the archive at `path`; None for one that is whole, and for a file of another form."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, EOFError) as error:
        return str(error)
    return part and f"the checksum of {part} is wrong"
