"""Reading JSON, and whether a value is of the shape that a reader counts on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Callable, TypeGuard

from fairseq_diffusion.errors import UserError

MOST = 1e15  # of a number that is read; those above have no use in any file of ours


def parsed(text: str) -> Any:
    """What a JSON text says; a ValueError also for one that is nested too deeply, and for half a character (a lone
    surrogate, which no file can hold)."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def read_json(path: Path, what: str, advice: str) -> Any:
    """What the JSON in a file says; `what` it should be is named where it cannot be read."""
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not {what} ({error}); {advice}") from error


def fits(value: Any, shape: Any) -> bool:
    """Whether a value is of a shape: a dictionary with shapes of some entries, a list with the shape of each, or a
    predicate.  A missing entry is None."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(fits(value.get(key), part) for key, part in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    return shape(value)


def maybe(shape: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value, shape)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> TypeGuard[float]:
    """Neither a truth value nor NaN or infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MOST < value < MOST


def is_count(value: Any) -> bool:
    return is_number(value) and isinstance(value, int) and value >= 0


def is_score(value: Any) -> bool:
    """A number, also one that is not finite."""
    return is_number(value) or (isinstance(value, float) and not math.isfinite(value))


def is_probability(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1
