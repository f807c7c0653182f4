"""Flags that the loaded model does not read are refused, so that none is without effect."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairseq.dataclass.configs import GenerationConfig

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.decoding.options import SelectionOptions, flag_of
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.config import OPTIONS, DiffusionTranslationConfig
from fairseq_diffusion.translators.base import Translator

LEFT_TO_RIGHT = ("print_alignment", "replace_unk", "score_reference", "lm_path")  # fairseq's
DEFAULTS = {"task": DiffusionTranslationConfig, "generation": GenerationConfig}


def check_flags(task: Any, generation: Any, translator: Translator) -> None:
    """Flags of the task and of fairseq's generation are those that this translator reads."""
    for name in LEFT_TO_RIGHT:
        if getattr(generation, name, None):
            raise UserError(f"{spelt(name)} needs a left-to-right decoder; drop it here")
    if getattr(generation, "constraints", None):
        raise UserError(
            f"--constraints is {generation.constraints}, but it is for beam search from left to right; drop it, pass "
            "--complete, and write lines such as SOURCE<tab>___ dog ___ snow ___"
        )
    sections = {"task": task, "generation": generation}
    for section, name in sorted(flags_read(*OPTIONS) - flags_read(translator.Options, SelectionOptions)):
        if was_given(sections[section], section, name):
            raise UserError(refusal(name, getattr(sections[section], name), translator))


def flags_read(*options: type) -> set[tuple[str, str]]:
    """Section and name of the flags that set these options."""
    return {flag_of(field) for each in options for field in fields(each)}


def was_given(cfg: Any, section: str, name: str) -> bool:
    """Whether a flag differs from its default; one of fairseq's own may be missing."""
    default = DEFAULTS[section].__dataclass_fields__[name].default
    return getattr(cfg, name, default) != default


def refusal(name: str, value: Any, translator: Translator) -> str:
    if name == "iter_decode_max_iter":
        return (
            f"--iter-decode-max-iter is {value}, but {translator.name} models do not use it; drop it, and pass "
            "--passes for more than one pass"
        )
    own = ", ".join(spelt(flag) for section, flag in sorted(own_flags(translator)) if section == "task")
    return (
        f"{spelt(name)} is {value}, but {translator.name} models do not use it; drop it (flags that only such models "
        f"use: {own})"
    )


def own_flags(translator: Translator) -> set[tuple[str, str]]:
    """Flags that translators of this kind alone read."""
    others = [options for options in OPTIONS if options is not translator.Options]
    return flags_read(translator.Options) - flags_read(*others)
