"""Replacing a function of fairseq by another one around it."""

from __future__ import annotations

import functools
from typing import Any, Callable

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def wrap_once(owner: Any, name: str, wrapper: Wrapper) -> None:
    """Replace `owner.name`, of a module or a class, by `wrapper` of it; nothing where that has been done."""
    found = vars(owner)[name]
    kind = type(found) if isinstance(found, (classmethod, staticmethod)) else None
    function = found.__func__ if kind else found
    if not hasattr(function, "is_wrapped"):
        new = functools.wraps(function)(wrapper(function))
        new.is_wrapped = True  # type: ignore[attr-defined]
        setattr(owner, name, kind(new) if kind else new)
