"""Whether the binarised data of a split are whole, and of the dictionaries that are beside them.

Numbers in the data are places in a dictionary, and mean other words once it is edited.  So the first command that uses
the data remembers its dictionaries' fingerprints in a file there.  Data that are binarised again are remembered anew.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from fairseq.data import data_utils

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.binarised import AGAIN, check_parallel, read_index
from fairseq_diffusion.files.json_text import fits, is_count, parsed
from fairseq_diffusion.files.writing import write_text
from fairseq_diffusion.tasks.checks import fingerprint

REMEMBERED = ".dictionaries.json"

Known = dict[str, dict[str, Any]]  # by "train.de-en.de": the fingerprint, and which data it is of


def check_other(data: Path, dictionary: Any) -> None:
    """Data that fairseq has no memory map of are as fairseq reads them; the first and the last sentence are tried."""
    try:
        dataset = data_utils.load_indexed_dataset(str(data), dictionary)
        if dataset is not None and len(dataset):
            ends = sorted({0, len(dataset) - 1})
            if dataset.supports_prefetch:
                dataset.prefetch(ends)
            for i in ends:
                dataset[i]
    except Exception as error:
        raise UserError(f"fairseq cannot read {data}.idx and what is beside it ({error}); {AGAIN}") from error
    if dataset is None:
        raise UserError(f"{data}.idx is damaged, or a file that belongs to its format is missing beside it; {AGAIN}")


def check_files(folder: Path, split: str, dictionaries: dict[str, Any]) -> None:
    """The files of a split; `dictionaries` are those of the languages."""
    check_parallel(folder, split, {language: len(dictionary) for language, dictionary in dictionaries.items()})
    known = read(folder / REMEMBERED)
    found: Known = {}
    for language, dictionary in dictionaries.items():
        for index in folder.glob(f"{split}.*-*.{language}.idx"):
            data = index.with_suffix("")
            if read_index(index) is None:
                check_other(data, dictionary)
            found[data.name] = checked(data, dictionary, known.get(data.name, {}), f"dict.{language}.txt")
    if not found.items() <= known.items():
        remember(folder / REMEMBERED, {**known, **found})


def checked(data: Path, dictionary: Any, before: dict[str, Any], name: str) -> dict[str, Any]:
    """What is to be known of binarised `data`: what was known `before`, if that is of the same data.  Their dictionary
    may have more words now, behind the others."""
    tokens = data.with_name(f"{data.name}.bin").stat()
    these = {"bytes": tokens.st_size, "modified": tokens.st_mtime_ns}
    if not before.items() >= these.items():
        return {**these, **fingerprint(dictionary)}
    now = fingerprint(dictionary, before.get("size"))
    if before.items() >= now.items():
        return before
    fewer = now["size"] != before.get("size")
    difference = f"{len(dictionary)} entries against {before.get('size')}" if fewer else "other words or another order"
    raise UserError(
        f"the dictionary {name} is not what it was when {data}.bin was first used ({difference}), so the numbers in "
        "the data mean other words now; binarise the data again with fairseq-preprocess, or take back the change; if "
        f"the change was meant, remove {data.with_name(REMEMBERED)}"
    )


def read(file: Path) -> Known:
    """Nothing is known if the file cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        known = parsed(file.read_text(encoding="utf-8"))
        if isinstance(known, dict) and all(fits(entry, {"size": is_count}) for entry in known.values()):
            return known
    return {}


def remember(file: Path, known: Known) -> None:
    """Where the folder can be written to.  Of two commands at once the last one's file stays, and what it lacks is
    remembered at the next use."""
    with contextlib.suppress(OSError, UserError):
        write_text(file, json.dumps(known, indent=1) + "\n")
