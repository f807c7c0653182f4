"""Which files there are, with which content, and what changed: for a recipe's steps and the data it starts from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

Sums = dict[str, str]

NOTES = (".dictionaries.json",)  # written into a data-bin when it is first used: fairseq_diffusion/tasks/data.py


def sums(names: Iterable[str]) -> Sums:
    """sha256 by name, of files and of each file in a folder but for notes; nothing for what is not there. $DATA in a
    name is the user's folder, and stays in the name."""
    found: Sums = {}
    for name in names:
        path = Path(os.path.expandvars(name))
        if path.is_dir():
            inside = sorted(part for part in path.rglob("*") if part.is_file() and part.name not in NOTES)
            found.update({f"{name}/{part.relative_to(path).as_posix()}": digest(part) for part in inside})
        elif path.is_file():
            found[name] = digest(path)
    return found


def digest(path: Path, kind: str = "sha256") -> str:
    state = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def missing(names: Iterable[str], found: Sums) -> list[str]:
    """The files and folders of which nothing was found."""
    return [name for name in names if not any(within(part, name) for part in found)]


def lost(recorded: Sums, found: Sums) -> list[str]:
    """What became of recorded files that are not as they were."""
    gone = [f"{name} is missing" for name in recorded if name not in found]
    return gone + [f"{name} changed" for name in recorded if name in found and found[name] != recorded[name]]


def changed(recorded: Sums, found: Sums) -> list[str]:
    """The same, and what is new."""
    return lost(recorded, found) + [f"{name} is new" for name in found if name not in recorded]


def listed(reasons: list[str]) -> str:
    more = len(reasons) - 3
    return ", ".join(reasons[:3]) + (f" and {more} more" if more > 0 else "")
