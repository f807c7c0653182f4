"""Diffusion-based, non-autoregressive translation for fairseq.

Importing this package is cheap and needs neither torch nor fairseq.  ``fairseq-train --user-dir`` imports it and then
every module of ``tasks/`` and ``models/``; the Python API calls :func:`load`, which does the same.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fairseq_diffusion.api import TranslationModel

__version__ = "0.1.0"

__all__ = ["__version__", "load"]

_LOADING = RLock()  # one at a time: fairseq keeps some settings for the whole process


def load(
    path: str | Path | None = None,
    data: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    precision: str = "fp32",
    use_ema: bool = False,
    tokenizer: str | None = None,
    draft: str | Path | None = None,
) -> TranslationModel | None:
    """Register our tasks, criterions, models with fairseq, as ``--user-dir`` does; and load a model, if one is named.

    `path` is a checkpoint or a folder that holds one.  Dictionaries are those of the data-bin `data`, else those beside
    the checkpoint, else those it was trained with.  `teacher` is an autoregressive checkpoint that rescores,
    `precision` fp32, fp16 or bf16; `use_ema` takes the averaged weights that --store-ema kept.  `tokenizer` is "moses"
    or "none", where no preprocessing.json beside the checkpoint says it.  `draft` is a checkpoint of ours that makes
    the translations to begin with, for ``translate(draft=0.5)``.
    """
    import logging
    from importlib import import_module

    with _LOADING:
        root = logging.getLogger()
        level, quiet = root.level, not root.handlers
        for room in ("tasks", "models"):
            import_module(f"{__name__}.{room}")
        if quiet:  # some of fairseq's modules turn on everybody's debugging messages
            root.handlers.clear()
            root.setLevel(level)
        if path is None:
            return None
        load_model = import_module(f"{__name__}.api").load_model
        return load_model(path, data, teacher, device, precision, use_ema, tokenizer, draft)
