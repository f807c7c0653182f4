"""A generator made of one set of options, whichever of its parts reads them."""

from __future__ import annotations

from typing import Any

from gaussians import DICTIONARY

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions


def generator_of(translator: Any, teacher: Any = None, **options: Any) -> Generator:
    """Options of the translator's class by their names, and those of the choice among candidates."""
    choice = {name: options.pop(name) for name in [*options] if name in SelectionOptions.__dataclass_fields__}
    return Generator(translator, translator.Options(**options), SelectionOptions(**choice), DICTIONARY, teacher)
