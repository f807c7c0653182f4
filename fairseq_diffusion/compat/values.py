"""Strings of a configuration, also a checkpoint's, that fairseq evaluates as Python: here they are values alone."""

from __future__ import annotations

import ast
import sys
from typing import Any

from fairseq_diffusion.errors import UserError

PARTS = (  # of an expression that calls nothing: "[(512, 10, 5)] + [(512, 3, 2)] * 4"
    *(ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Load),
    *(ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.USub),
)
LONGEST, MOST = 10_000, 10_000  # characters, and factors


def evaluate_values_alone() -> None:
    """Any fairseq: many of its models evaluate strings of their configuration, so that a checkpoint could run anything.

    Each module of fairseq finds this `eval` before Python's.
    """
    import fairseq.models
    import fairseq.optim  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "fairseq" and module is not None:
            module.eval = value_of  # type: ignore[attr-defined]


def value_of(text: Any) -> Any:
    """The value that a string spells: numbers, text, True, False, None, in tuples, lists and dictionaries, and sums and
    products of these.  What is no string is a TypeError, as of Python's `eval`."""
    if not isinstance(text, str):
        raise TypeError("eval() arg 1 must be a string, bytes or code object")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        if len(text) <= LONGEST and all(map(is_plain, ast.walk(tree))):
            return eval(compile(tree, "<configuration>", "eval"), {"__builtins__": {}})
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    raise UserError(f"the configuration has {text[:200]!r} where a value such as (0.9, 0.98) belongs; write one")


def is_plain(part: ast.AST) -> bool:
    """Whether a part of an expression calls nothing, and makes nothing that is large."""
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
        inside = [each for side in (part.left, part.right) for each in ast.walk(side)]
        numbers = [each.value for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, int)]
        return max(numbers, default=0) <= MOST and not any(isinstance(each, ast.Mult) for each in inside)
    return isinstance(part, PARTS)
