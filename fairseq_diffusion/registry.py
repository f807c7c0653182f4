"""What users choose by name: parts in registries, and options with their flags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Callable, Iterator, TypeVar

from fairseq_diffusion.errors import UserError

T = TypeVar("T")


class Registry(dict[str, T]):
    """The parts of one kind by their sorted names; duplicate and unknown names are errors that list the choices."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the decorated part under `name`."""

        def enter(part: T) -> T:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is already registered as {self[name]!r}")
            self[name] = part
            return part

        return enter

    def __missing__(self, name: str) -> T:
        raise UserError(f"unknown {self.kind} {name!r}; choose one of: {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.keys()))


def option(
    default: Any,
    help: str = "",
    choices: Iterable[str] | None = None,
    flag: str | None = None,
    generation: str | None = None,
    system: bool = False,
) -> Any:
    """A field of an Options dataclass, and the flag that sets it.

    Args:
        default: its value where no flag sets it.
        help: the flag's help; it is its documentation.
        choices: names that users may type.
        flag: the flag's name, where it is not the field's.
        generation: fairseq's own flag of this name sets it, and the task has none.
        system: without the flag, the model's configuration has it, from the system's preset.
    """
    own = {"help": help, "choices": choices and list(choices), "flag": flag, "generation": generation, "system": system}
    return field(default=default, metadata=own)
