"""What tells whether a file has changed."""

import hashlib
from pathlib import Path

BLOCK = 1 << 20


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
