"""Lines as the text tools read and write them: UTF-8, ended by line feeds alone, nothing invisible within."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from fairseq_diffusion.files.texts import tidy


def read(file: TextIO) -> Iterator[str]:
    file.reconfigure(encoding="utf-8-sig", errors="replace", newline="\n")
    return map(tidy, file)


def write(lines: Iterable[str]) -> None:
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.writelines(f"{line}\n" for line in lines)
