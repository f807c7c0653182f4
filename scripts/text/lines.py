"""Lines as the text tools read and write them: UTF-8, ended by line feeds alone, nothing invisible within."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO

# Control characters, separators and formats. Other tools take some of them for the end of a line, which would shift one
# side of a corpus against the other.
PLAIN = {"Cc": " ", "Zl": " ", "Zp": " ", "Zs": " ", "Cf": None}
TIDY = {ord(c): PLAIN[unicodedata.category(c)] for c in map(chr, range(0xE0080)) if unicodedata.category(c) in PLAIN}
TIDY[0x200B] = " "  # a zero-width space parts words; other formats, such as soft hyphens, stand within them


def tidy(line: str) -> str:
    return " ".join(line.translate(TIDY).split())


def read(file: TextIO) -> Iterator[str]:
    file.reconfigure(encoding="utf-8-sig", errors="replace", newline="\n")
    return map(tidy, file)


def write(lines: Iterable[str]) -> None:
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.writelines(f"{line}\n" for line in lines)
