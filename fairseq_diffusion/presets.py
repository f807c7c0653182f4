"""Architecture presets: a base preset and the fields it changes, in one table for --arch and for hydra."""

from __future__ import annotations

from typing import Any

from fairseq_diffusion.registry import Registry

PRESETS: Registry[dict[str, Any]] = Registry("architecture")


def preset(name: str, base: str | None = None, **changes: Any) -> None:
    """Enter `name`: everything `base` says, but for `changes`.  Fields are those of models.config.DiffusionConfig."""
    PRESETS.register(name)({**(PRESETS[base] if base else {}), **changes})
