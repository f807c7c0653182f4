"""Names to parts: every schedule, sampler, objective term or system is found by the name users type."""

from __future__ import annotations

from typing import Callable, Generic, Iterator, TypeVar

from fairseq_diffusion.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """A named table of one kind of part; duplicate and unknown names are errors that list the choices."""

    def __init__(self, kind: str):
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the decorated part under `name`."""

        def enter(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"{self.kind} {name!r} is already registered as {self._parts[name]!r}")
            self._parts[name] = part
            return part

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            raise UserError(f"unknown {self.kind} {name!r}; choose one of: {', '.join(self)}")
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        return len(self._parts)
