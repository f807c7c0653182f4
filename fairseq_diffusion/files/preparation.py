"""The files beside a checkpoint: which checkpoint is meant, its dictionaries, and the preparation of its text.

A folder that can be moved as a whole holds the checkpoint, dict.SOURCE.txt and dict.TARGET.txt, the BPE codes and
preprocessing.json, as the recipes write it:
{"source": "de", "target": "en", "tokenizer": "moses", "lowercase": true, "bpe": "subword_nmt"}
"""

from __future__ import annotations

import io
import os
import re
from argparse import Namespace
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from fairseq import utils
from fairseq.data import data_utils, encoders
from sacremoses import MosesPunctNormalizer

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.json_text import read_json
from fairseq_diffusion.files.texts import Moses, tidy

CHECKPOINTS = ("average.pt", "checkpoint_best.pt")  # the one to load from a folder that holds several
PREPROCESSING = "preprocessing.json"
LANGUAGE = re.compile(r"[^\s/\0${}]{1,64}")  # in a configuration ${...} stands for another value
CHOICES = {
    "tokenizer": ("moses", "none"),
    "split_dashes": (True, False),  # the -a of Moses' tokenizer.perl
    "lowercase": (True, False),
    "bpe": ("subword_nmt", "none"),
}


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


@dataclass(frozen=True)
class Preparation:
    """Converts a line of text to the word pieces of a dictionary, and word pieces to text."""

    source: str
    target: str
    tokenizer: str = "none"
    split_dashes: bool = False
    lowercase: bool = False
    codes: Path | None = None

    def encode(self, text: str) -> str:
        if self.tokenizer == "moses":
            normaliser, tokenizer, _ = self._moses
            text = " ".join(tokenizer.tokens(normaliser.normalize(tidy(text)), escape=True))
        if self.lowercase:
            text = text.lower()
        return self._bpe.encode(text) if self._bpe else text

    def decode(self, text: str) -> str:
        text = self._bpe.decode(text) if self._bpe else text
        return self._moses[2].text(text) if self.tokenizer == "moses" else text

    @cached_property
    def of_target(self) -> Preparation:
        """The same for text in the target language."""
        codes = self.codes and codes_beside(self.codes.parent, self.target)
        if self.codes and codes is None:
            raise UserError(
                f"{self.codes} are the BPE codes of {self.source}, and there are none of {self.target} beside them; "
                f"copy them there as bpe.{self.target}.codes"
            )
        return replace(self, source=self.target, target=self.source, codes=codes)

    def describe(self) -> dict[str, Any]:
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "codes"}
        return {**shown, "bpe": str(self.codes) if self.codes else "none"}

    @cached_property
    def _moses(self) -> tuple[MosesPunctNormalizer, Moses, Moses]:
        """What normalises punctuation, tokenises the source, and detokenises the target."""
        return MosesPunctNormalizer(self.source), Moses(self.source, self.split_dashes), Moses(self.target)

    @cached_property
    def _bpe(self) -> Any:
        if self.codes is None:
            return None
        said = io.StringIO()
        try:
            with redirect_stderr(said):  # subword-nmt prints what is wrong, and exits
                found = encoders.build_bpe(Namespace(bpe="subword_nmt", bpe_codes=str(self.codes), bpe_separator="@@"))
                found.encode("ab")  # only now it looks at the version
                return found
        except (SystemExit, ValueError, NotImplementedError) as error:
            wrong = " ".join((said.getvalue() or str(error)).split())
            raise UserError(
                f"the BPE codes {self.codes} cannot be read ({wrong[:200]}); copy them again as subword-nmt learn-bpe "
                "wrote them, two pieces in each line"
            ) from error


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


def is_language(name: Any) -> TypeGuard[str]:
    """Whether it may be a language's part of the names of files."""
    return isinstance(name, str) and LANGUAGE.fullmatch(name) is not None


def languages_of(data: Path, trained_on: Any) -> tuple[str | None, str | None]:
    """The languages in the names of binarised files, in one of two folders."""
    for folder in (str(data), *utils.split_paths(trained_on if isinstance(trained_on, str) else "")[:1]):
        if os.path.isdir(folder) and None not in (found := data_utils.infer_language_pair(folder)):
            return found
    return None, None


def read_preprocessing(path: Path) -> dict[str, Any]:
    """The entries of preprocessing.json, checked; empty without the file."""
    if not path.exists():
        return {}
    example = 'write for example {"source": "de", "target": "en", "tokenizer": "moses"}'
    entries = read_json(path, "a JSON object", example)
    if not isinstance(entries, dict):
        raise UserError(f"{path} is not a JSON object; {example}")
    for side in ("source", "target"):
        if (name := entries.get(side)) is not None and not is_language(name):
            raise UserError(f"{path} has {side} {str(name)[:50]!r}, which is no name of a language; {example}")
    if unknown := sorted(entries.keys() - {"source", "target", *CHOICES}):
        raise UserError(
            f"{path} has the entry {unknown[0]!r}, which is unknown; it may have source, target, {', '.join(CHOICES)}"
        )
    return {name: allowed(name, value, str(path)) if name in CHOICES else value for name, value in entries.items()}


def allowed(name: str, value: Any, where: str) -> Any:
    if value not in CHOICES[name]:
        raise UserError(f"{where} has {name} {str(value)[:50]!r}; choose {' or '.join(map(repr, CHOICES[name]))}")
    return value


def codes_beside(folder: Path, source: str) -> Path | None:
    """The codes of subword-nmt for source text, under one of the usual names."""
    names = ("bpe.codes", f"bpe.{source}.codes", "code", "codes")
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(
            f"{folder} holds {' and '.join(path.name for path in found)}: which BPE codes are meant? Remove the others"
        )
    return found[0] if found else None
