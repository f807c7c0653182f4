"""Replacing a function of fairseq by another one that calls it."""

from __future__ import annotations

import functools
from typing import Any, Callable


def wrap_once(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have `owner.name`, of a module or a class, call `around`, which gets the original function and then the
    arguments; nothing where `around` has been put there already."""
    found = vars(owner)[name]
    kind = type(found) if isinstance(found, (classmethod, staticmethod)) else None
    function = found.__func__ if kind else found
    names = getattr(function, "is_wrapped", ())
    if around.__qualname__ in names:
        return

    @functools.wraps(function)
    def new(*args: Any, **kwargs: Any) -> Any:
        return around(function, *args, **kwargs)

    new.is_wrapped = (*names, around.__qualname__)  # type: ignore[attr-defined]
    setattr(owner, name, kind(new) if kind else new)
