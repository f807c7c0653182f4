"""Tatoeba's pairs as training, validation and test sets.

usage: python split.py deu.txt DIR

deu.txt, from https://www.manythings.org/anki/deu-eng.zip, has lines of an English sentence, a German one and their
authors, with tabs between. DIR gets train, valid and test, .de.gz and .en.gz: 2,000 pairs each for validation and test,
drawn by a fixed seed, and all others for training, several translations of one sentence included. No sentence of
validation or test, of either language, is in training.
"""

from __future__ import annotations

import gzip
import random
import sys
from pathlib import Path

HELD_OUT = ("valid", "test")
PAIRS = 2000


def split(pairs: list[tuple[str, str]], size: int = PAIRS) -> dict[str, list[tuple[str, str]]]:
    """Each pair once; the held-out sets share no sentence with training or with each other."""
    pairs = list(dict.fromkeys(pairs))
    random.Random(1).shuffle(pairs)
    sets: dict[str, list[tuple[str, str]]] = {}
    for name in HELD_OUT:
        sets[name] = pairs[:size]
        german, english = {pair[0] for pair in sets[name]}, {pair[1] for pair in sets[name]}
        pairs = [pair for pair in pairs[size:] if pair[0] not in german and pair[1] not in english]
    return {"train": pairs, **sets}


def main(published: str, folder: str) -> None:
    lines = Path(published).read_text(encoding="utf-8").split("\n")
    pairs = [(german, english) for english, german, *_ in (line.split("\t") for line in lines if "\t" in line)]
    sets = split(pairs)
    if not sets["train"]:
        sys.exit(f"split.py: {published} has only {len(pairs)} pairs of sentences; is it deu.txt of deu-eng.zip?")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, chosen in sets.items():
        for language, side in zip(("de", "en"), zip(*chosen)):
            path = Path(folder) / f"{name}.{language}.gz"
            if path.exists():
                sys.exit(f"split.py: {path} is there already; choose another folder")
            with gzip.GzipFile(path, "wb", mtime=0) as file:  # no time, so that equal text makes equal files
                file.write("".join(f"{sentence}\n" for sentence in side).encode())
            print(f"{path}: {len(side)} sentences")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
