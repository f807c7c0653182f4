"""fairseq's configurations, composed as hydra composes them, but at once: hydra takes half a second, longer than most
commands of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental import compose
from omegaconf import DictConfig, OmegaConf, open_dict


@cache
def parsed(override: str) -> tuple[str, Any]:
    found = OverridesParser.create().parse_override(override)
    return found.key_or_group, found.value()


@cache
def of_groups(name: str, groups: tuple[str, ...]) -> DictConfig:
    """With the defaults of the chosen groups: task=translation, optimizer=adam, ..."""
    return compose(name, overrides=list(groups), strict=False)


def composed(name: str, overrides: Sequence[str], strict: bool = False) -> DictConfig:
    """In place of hydra's ``compose``, for what fairseq's commands ask of it."""
    values = [override for override in overrides if "." in override.partition("=")[0]]
    configuration = deepcopy(of_groups(name, tuple(each for each in overrides if each not in values)))
    with open_dict(configuration):
        for key, value in map(parsed, values):
            OmegaConf.update(configuration, key, value, merge=True)
    return configuration
