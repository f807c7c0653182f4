"""Architecture presets: a base preset and the fields it changes, in one table for --arch and for hydra."""

from __future__ import annotations

from typing import Any, NamedTuple

from fairseq_diffusion.registry import Registry


class Preset(NamedTuple):
    """Which registered model it is of, and the fields of that model's configuration that it sets."""

    model: str
    fields: dict[str, Any]


PRESETS: Registry[Preset] = Registry("architecture")
OF_FAIRSEQ: Registry[str] = Registry("model of fairseq")  # and the architecture here that it can be converted to


def preset(name: str, base: str | None = None, model: str | None = None, **changes: Any) -> None:
    """Enter `name`: everything that `base` has, but for `changes`; without a base, name the `model`."""
    if (base is None) == (model is None):
        raise ValueError(f"preset {name} needs either a base or a model")
    start = PRESETS[base] if base else Preset(str(model), {})
    PRESETS.register(name)(Preset(start.model, {**start.fields, **changes}))
