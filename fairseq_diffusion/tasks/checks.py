"""Errors for what can be wrong with the data a user names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from fairseq import utils

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel


def languages_of(directory: Path) -> set[str]:
    """Languages that have a dictionary in a data-bin."""
    return {match[1] for file in directory.iterdir() if (match := re.fullmatch(r"dict\.(.+)\.txt", file.name))}


def check_data(cfg: Any) -> None:
    """The data-bin exists and holds the language pair asked for."""
    directory = Path(utils.split_paths(cfg.data)[0])
    if not directory.is_dir():
        raise UserError(f"the data directory {directory} does not exist; fairseq-preprocess --destdir makes one")
    found = languages_of(directory)
    if not found:
        raise UserError(f"{directory} holds no dict.LANGUAGE.txt; pass the --destdir of fairseq-preprocess")
    missing = {language for language in (cfg.source_lang, cfg.target_lang) if language} - found
    if missing:
        raise UserError(
            f"{directory} has no dictionary for {', '.join(sorted(missing))}; it holds {', '.join(sorted(found))}; "
            "correct --source-lang and --target-lang, or name another directory"
        )


def check_split(directory: str, split: str, source: str, target: str) -> None:
    """The split was binarised in this data-bin."""
    folder = Path(directory)
    if not list(folder.glob(f"{split}.{source}-{target}.*")) and not list(folder.glob(f"{split}.{target}-{source}.*")):
        splits = sorted({file.name.split(".")[0] for file in folder.glob("*.idx")})
        raise UserError(
            f"{directory} has no split {split!r} for {source}-{target}; it holds {', '.join(splits) or 'none'}; "
            "correct the subset's name or binarise it with fairseq-preprocess"
        )


def fingerprint(dictionary: Any, size: int | None = None) -> dict[str, Any]:
    """Size and hash of a dictionary's words in their order, or of its first `size` words."""
    symbols = dictionary.symbols[:size]
    return {"size": len(symbols), "sha256": hashlib.sha256("\n".join(symbols).encode()).hexdigest()}


def check_dictionary(side: str, ours: dict[str, Any], saved: dict[str, Any]) -> None:
    """The data's dictionary is the one the checkpoint was trained with."""
    if ours == saved:
        return
    difference = (
        f"{ours['size']} entries against {saved['size']}"
        if ours["size"] != saved["size"]
        else f"{ours['size']} entries in both, but other words or another order"
    )
    raise UserError(
        f"the {side} dictionary of this data does not match the checkpoint's: {difference}; use the data-bin the "
        "model was trained on, or binarise new data with its dictionaries (fairseq-preprocess --srcdict --tgtdict)"
    )


def check_direction(ours: list[str], saved: list[str] | None) -> None:
    """The checkpoint does not translate the other way, which a joined dictionary would not show."""
    if saved and list(saved) == ours[::-1] and saved[0] != saved[1]:
        raise UserError(
            f"the checkpoint translates from {saved[0]} to {saved[1]}, but this command from {ours[0]} to {ours[1]}; "
            f"pass --source-lang {saved[0]} --target-lang {saved[1]}, or another checkpoint"
        )


def check_whole(model: Any) -> None:
    """Each rank holds all weights of our models; fairseq wraps what fully_sharded cuts up in a class of this name."""
    if type(model).__name__ == "FullyShardedDataParallel" and isinstance(model.module, TranslatorModel):
        raise UserError(
            "--ddp-backend fully_sharded leaves no rank a whole embedding table, which these models measure between "
            "updates; train with --ddp-backend legacy_ddp or c10d"
        )


def not_finite_sentence(update: int, ids: list[int], cause: str) -> str:
    """Why a training ends: `cause` behind so many updates, with a loss that is not finite for sentences `ids`."""
    shown = ", ".join(map(str, ids[:50])) + ("" if len(ids) <= 50 else f" and {len(ids) - 50} more")
    where = f"it was for the batch of the training sentences {shown} (from 0)" if ids else "its own losses are finite"
    return (
        f"the training stops behind update {update}, because a loss or a gradient is not finite ({cause.strip()}); on "
        f"this rank {where}; no checkpoint was saved but crash.pt, for looking into; continue from the last one with a "
        "smaller --lr, more warm-up or --clip-norm 1, or correct these sentences"
    )
