"""Lines of fairseq-interactive: one that cannot be translated is refused alone, and the others go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

import numpy as np

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError


class Lines:
    """The lines read so far, and those of the current buffer that are refused."""

    def __init__(self) -> None:
        self.first = self.next = 0
        self.refused: set[int] = set()

    def read(self, lines: list[str], parse: Callable[[str], Any]) -> list[Any]:
        """Each line of a buffer parsed; one that is no text, or that `parse` refuses, is parsed as an empty one."""
        self.first, self.next, self.refused = self.next, self.next + len(lines), set()
        return [self._parsed(number, line, parse) for number, line in enumerate(lines)]

    def _parsed(self, number: int, line: str, parse: Callable[[str], Any]) -> Any:
        try:
            if any("\udc80" <= letter <= "\udcff" for letter in line):
                raise UserError("it is not UTF-8; convert the input")
            return parse(line)
        except UserError as error:
            self.refuse(number, f"is refused: {error}")
            return parse("")

    def check(self, each: Iterable[Any], check: Callable[[Any], None]) -> None:
        """Refuse the lines for whose part of `each` the `check` fails."""
        for number, part in enumerate(each):
            try:
                check(part)
            except UserError as error:
                self.refuse(number, f"is refused: {error}")

    def refuse(self, number: int, sentence: str) -> None:
        """The first sentence about a line is said."""
        if number not in self.refused:
            self.refused.add(number)
            compat.refuse_line(self.first + number, sentence)

    def kept(self, indices: np.ndarray) -> np.ndarray:
        """Without those refused."""
        return indices[~np.isin(indices, list(self.refused))]
