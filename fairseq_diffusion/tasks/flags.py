"""Flags that the loaded model does not read are refused, so that none is without effect."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairseq.dataclass.configs import GenerationConfig

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.decoding.options import SelectionOptions, flag_of
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.config import OPTIONS, DiffusionTranslationConfig
from fairseq_diffusion.translators import TRANSLATORS
from fairseq_diffusion.translators.base import Translator

Flag = tuple[str, str]  # the section of fairseq's configuration and the name

AUTOREGRESSIVE = "autoregressive"
DEFAULTS = {"task": DiffusionTranslationConfig, "generation": GenerationConfig}
# of fairseq's own flags: what fairseq-generate reads for every model, or sets by itself
FOR_ALL = {("generation", name) for name in ("sacrebleu", "no_seed_provided", "temperature")}
PRINTED = {("generation", name) for name in ("nbest", "print_step", "retain_iter_history")}
# and what fairseq's beam search does not read; for other tasks of fairseq's, or for none
NOT_BEAM_SEARCH = {
    *("beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt", "no_early_stop", "decoding_format", "eos_token"),
    *("print_step", "retain_iter_history", "iter_decode_eos_penalty", "iter_decode_max_iter"),
    *("iter_decode_force_max_iter", "iter_decode_with_beam", "iter_decode_with_external_reranker"),
}
INSTEAD = {
    "iter_decode_max_iter": "pass --passes to a one-pass model for more than one pass",
    "constraints": "pass --complete, and write lines such as SOURCE<tab>___ dog ___ snow ___",
    "max_len_a": "the model predicts the length",
    "max_len_b": "the model predicts the length",
}


def check_flags(task: Any, generation: Any, translator: Translator | type[Translator]) -> None:
    """Flags of the task and of fairseq's generation are those that this translator reads."""
    refuse_unread(task, generation, translator.name)


def check_autoregressive_flags(task: Any, generation: Any) -> None:
    """The same where fairseq's beam search decodes, which keeps one hypothesis or more."""
    for name in ("beam", "nbest"):
        if (number := getattr(generation, name, 1)) < 1:
            raise UserError(f"{spelt(name)} is {number}; pass 1 or more")
    refuse_unread(task, generation, AUTOREGRESSIVE)


def refuse_unread(task: Any, generation: Any, kind: str) -> None:
    sections = {"task": task, "generation": generation}
    for section, name in sorted(all_flags() - READERS[kind]):
        if was_given(sections[section], section, name):
            raise UserError(refusal((section, name), getattr(sections[section], name), kind))


def flags_read(*options: type) -> set[Flag]:
    """Section and name of the flags that set these options."""
    return {flag_of(field) for each in options for field in fields(each)}


def all_flags() -> set[Flag]:
    """Every flag of decoding: ours, and fairseq's."""
    names = {each.name for each in fields(GenerationConfig)} - {"_name"}
    return flags_read(*OPTIONS) | {("generation", name) for name in names}


def beam_search_flags() -> set[Flag]:
    """What an autoregressive model reads; fairseq's --temperature and --seed set an option of ours, too."""
    own = {("task", "temperature"), ("task", "decode_seed"), *FOR_ALL}
    return own | {flag for flag in all_flags() if flag[0] == "generation" and flag[1] not in NOT_BEAM_SEARCH}


READERS: dict[str, set[Flag]] = {
    **{each.name: flags_read(each.Options, SelectionOptions) | FOR_ALL | PRINTED for each in TRANSLATORS},
    AUTOREGRESSIVE: beam_search_flags(),
}


def was_given(cfg: Any, section: str, name: str) -> bool:
    """Whether a flag differs from its default; one of fairseq's own may be missing."""
    default = DEFAULTS[section].__dataclass_fields__[name].default
    return getattr(cfg, name, default) != default


def refusal(flag: Flag, value: Any, kind: str) -> str:
    """What was set, who reads it, and what models of this `kind` read."""
    name = flag[1]
    readers = [other for other in READERS if flag in READERS[other]]
    who = f"{' and '.join(readers)} models read it" if readers else "no model of this task reads it"
    notes = [who, *([INSTEAD[name]] if name in INSTEAD and kind != AUTOREGRESSIVE else [])]
    if own := ", ".join(spelt(other) for section, other in sorted(own_flags(kind)) if section == flag[0] == "task"):
        notes.append(f"flags that only {kind} models read: {own}")
    return f"{spelt(name)} is {value}, but {kind} models do not use it; drop it ({'; '.join(notes)})"


def own_flags(kind: str) -> set[Flag]:
    """Flags that models of this kind alone read."""
    return READERS[kind].difference(*(READERS[other] for other in READERS if other != kind))
