"""A flag that belongs to another kind of model is refused: nobody is to believe that it did something."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig

FAIRSEQS_STEPS = 10  # its default for --iter-decode-max-iter, which cannot be told from a wish
LEFT_TO_RIGHT = ("print_alignment", "replace_unk", "score_reference", "lm_path")  # fairseq's


def check_flags(cfg: Any, generation: Any, kind: str, what: str) -> None:
    """Flags of the task in `cfg` and of fairseq in `generation` are those that models of this `kind` read; `what` says
    the kind in words."""
    for name in LEFT_TO_RIGHT:
        if getattr(generation, name, None):
            raise UserError(f"{spelt(name)} needs a left-to-right decoder; drop it here")
    if mistaken := [field for field in owned() if field.metadata["only"] != kind and was_given(cfg, field)]:
        name = mistaken[0].name
        own = ", ".join(spelt(field.name) for field in owned() if field.metadata["only"] == kind)
        raise UserError(
            f"{spelt(name)} is {getattr(cfg, name)}, but this is {what}, and does not read it; drop it (such a model "
            f"has its own: {own})"
        )
    steps = getattr(generation, "iter_decode_max_iter", FAIRSEQS_STEPS)
    if kind == "glancing" and steps != FAIRSEQS_STEPS:
        raise UserError(f"--iter-decode-max-iter is {steps}, but this is {what}; drop it and say how many by --passes")


def owned() -> list[Field]:
    """The task's flags that one kind of model alone reads."""
    return [field for field in fields(DiffusionTranslationConfig) if field.metadata.get("only")]


def was_given(cfg: Any, field: Field) -> bool:
    return getattr(cfg, field.name, field.default) != field.default


def spelt(name: str) -> str:
    """As users type it."""
    return "--" + name.replace("_", "-")
