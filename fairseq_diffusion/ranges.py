"""Numbers that flags may have: others, and what is no number (NaN), are refused before anything is built of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.errors import UserError

Ranges = Mapping[str, tuple[float, float]]  # the least and the largest, by the name of a flag

COUNT = (0, 10**6)  # where 0 has a check, or a meaning, of its own
SIZE = (1, 10**6)
WEIGHT = (0, 1e6)
FINITE = (-1e6, 1e6)
KEPT = (0, 0.99)  # probabilities that leave something


def check_ranges(values: Any, ranges: Ranges, flag: Callable[[str], str] = spelt) -> None:
    """Refuse an attribute of `values` outside its range, or of another type; None, and what refers to another flag, is
    left to others."""
    for name, (least, most) in ranges.items():
        value = getattr(values, name, None)
        if value is None or str(value).startswith("${"):
            continue
        if not isinstance(value, (int, float)) or not least <= value <= most:
            raise UserError(f"{flag(name)} is {value}; pass a number from {least:,} to {most:,}")
