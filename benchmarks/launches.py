"""Counting what is launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Launches(TorchDispatchMode):
    """Counts operations that do something; a view of a tensor costs a device nothing.  On a GPU some are several
    kernels, and some none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = [value.alias_info is not None and not value.alias_info.is_write for value in function._schema.returns]
        self.count += not any(views)
        return function(*args, **(kwargs or {}))


def launches_of(call: Callable[[], Any]) -> int:
    with Launches() as launches:
        call()
    return launches.count
