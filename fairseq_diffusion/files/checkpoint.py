"""The files beside a checkpoint: which checkpoint is meant, its dictionaries, and the preparation of its text.

A folder that can be moved as a whole holds the checkpoint, dict.SOURCE.txt and dict.TARGET.txt, the BPE codes and
preprocessing.json.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.data import data_utils

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.preparation import (
    PREPROCESSING,
    Preparation,
    allowed,
    codes_beside,
    is_language,
    read_preprocessing,
)

CHECKPOINTS = ("average.pt", "checkpoint_best.pt")  # the one to load from a folder that holds several


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that is meant by a file's or a folder's name."""
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}; name a file, or a folder that holds one")
        return path
    found = sorted(path.glob("*.pt"))
    meant = [file for file in found if file.name in CHECKPOINTS] or found
    if len(meant) != 1:
        holds = f"{len(found)} checkpoints ({', '.join(file.name for file in found[:6])})" if found else "no *.pt file"
        raise UserError(
            f"{path} holds {holds}; name the one to load (a folder means its only one, or "
            f"{' or '.join(CHECKPOINTS)} if just one of these is there)"
        )
    return meant[0]


def dictionaries_for(checkpoint: Path, data: Path | None, trained_on: Any) -> Path:
    """The folder of the dictionaries: the data-bin that was named, or the checkpoint's, or what it was trained on."""
    if data is not None:
        return data
    trained = Path(utils.split_paths(trained_on)[0]) if trained_on and isinstance(trained_on, str) else None
    for folder in (checkpoint.parent, trained):
        if folder and any(folder.glob("dict.*.txt")):
            return folder
    raise UserError(
        f"no dictionaries for {checkpoint}: there is no dict.LANGUAGE.txt beside it, nor in the data-bin it was "
        f"trained on ({trained or 'unknown'}); pass data=DATA-BIN, or copy the two dictionaries beside the checkpoint"
    )


def preparation_of(checkpoint: Path, data: Path, saved: Any, tokenizer: str | None) -> Preparation:
    """The preparation in preprocessing.json, with `tokenizer` if given; BPE is applied if its codes are there.

    `saved` is the task of the training.  It has the languages only if they were on its command line.
    """
    entries = read_preprocessing(checkpoint.parent / PREPROCESSING)
    if tokenizer is not None:
        entries["tokenizer"] = allowed("tokenizer", tokenizer, "the argument tokenizer")
    source, target = (
        entries.get(side) or getattr(saved, f"{side}_lang", None) or inferred
        for side, inferred in zip(("source", "target"), languages_of(data, getattr(saved, "data", None)))
    )
    if not (is_language(source) and is_language(target)):
        raise UserError(
            f"the languages of {checkpoint} are not known; write them into {PREPROCESSING} beside it, as in "
            '{"source": "de", "target": "en"}, or pass data=DATA-BIN'
        )
    codes = None if entries.get("bpe") == "none" else codes_beside(checkpoint.parent, source)
    if codes is None and entries.get("bpe", "none") != "none":
        raise UserError(f"{PREPROCESSING} has a BPE, but there is no bpe.codes beside {checkpoint}")
    own = {name: value for name, value in entries.items() if name in ("tokenizer", "split_dashes", "lowercase")}
    return Preparation(source, target, codes=codes, **own)


def languages_of(data: Path, trained_on: Any) -> tuple[str | None, str | None]:
    """The languages in the names of binarised files, in one of two folders."""
    for folder in (str(data), *utils.split_paths(trained_on if isinstance(trained_on, str) else "")[:1]):
        if os.path.isdir(folder) and None not in (found := data_utils.infer_language_pair(folder)):
            return found
    return None, None
