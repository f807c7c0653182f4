"""Checkpoints of an earlier version: what flags, their values and weights are called now, and flags that are new."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

logger = logging.getLogger(__name__)

RENAMED_FLAGS = {
    "self_conditioning_p": "self_conditioning_probability",
    "back_end": "alignment",
    "told_start": "conditioning_sigma_start",
    "told_end": "conditioning_sigma_end",
}
RENAMED_VALUES = {("self_conditioning", "coin"): "random"}
RENAMED_KEYS = {  # of weights, by what they begin with
    "translator.back_end.": "translator.alignment.",
    "translator.denoiser.enter.merge.3.": "translator.denoiser.enter.merge.2.",
}


def with_new_names(cfg: Any) -> None:
    """Rename in place what an older checkpoint's configuration holds, a namespace or a mapping."""
    from omegaconf import OmegaConf, open_dict  # comes with fairseq, without which this room can be imported

    entries: MutableMapping[str, Any] = cfg if isinstance(cfg, MutableMapping) else vars(cfg)
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for old, new in RENAMED_FLAGS.items():
            if old in entries:
                value = entries.pop(old)
                entries.setdefault(new, value)
        for (name, old_value), value in RENAMED_VALUES.items():
            if name in entries and str(entries[name]) == old_value:
                entries[name] = value


def rename_keys(weights: MutableMapping[str, Any]) -> None:
    """Rename in place the weights of an older checkpoint."""
    for old, new in RENAMED_KEYS.items():
        for key in [key for key in weights if key.startswith(old)]:
            weights[new + key[len(old) :]] = weights.pop(key)


def fill_up(cfg: Any, config: type) -> None:
    """Defaults for flags that are younger than a checkpoint's configuration: a new flag's default changes nothing, but
    its architecture's preset, which fairseq would take for what is missing, may."""
    from omegaconf import OmegaConf, open_dict

    missing = [field for field in fields(config) if not hasattr(cfg, field.name)]  # an opened omegaconf 2.0 has all
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for field in missing:
            setattr(cfg, field.name, field.default)


def note_old_names(arguments: Sequence[str] | None = None) -> None:
    """Log the new name of each old flag, and of each old value of a flag, on the command line."""
    given = [word for argument in (sys.argv if arguments is None else arguments) for word in argument.split("=", 1)]
    for old, new in RENAMED_FLAGS.items():
        if spelt(old) in given:
            logger.warning(f"{spelt(old)} is now called {spelt(new)}; the old name still works")
    for (name, old_value), value in RENAMED_VALUES.items():
        if (spelt(name), old_value) in zip(given, given[1:]):
            logger.warning(f"{spelt(name)} {old_value} is now called {spelt(name)} {value}; the old name still works")


def old_name(flag: str) -> str | None:
    """What a flag was called, as users typed it; None for most."""
    return next((spelt(old) for old, new in RENAMED_FLAGS.items() if new == flag), None)


def spelt(name: str) -> str:
    """As users type it."""
    return "--" + name.replace("_", "-")
