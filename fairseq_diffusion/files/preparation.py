"""The preparation of text: from a line to the word pieces of a dictionary, and back.

preprocessing.json beside a model says how, as the recipes write it:
{"source": "de", "target": "en", "tokenizer": "moses", "lowercase": true, "bpe": "subword_nmt"}
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence, Sized
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from sacremoses import MosesPunctNormalizer

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.json_text import read_json
from fairseq_diffusion.files.texts import Moses, join_pieces, tidy

Tokens = TypeVar("Tokens", bound=Sized)

PREPROCESSING = "preprocessing.json"
LANGUAGE = re.compile(r"[^\s/\0${}]{1,64}")  # in a configuration ${...} stands for another value
CHOICES = {
    "tokenizer": ("moses", "none"),
    "split_dashes": (True, False),  # the -a of Moses' tokenizer.perl
    "lowercase": (True, False),
    "bpe": ("subword_nmt", "none"),
}


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
        return self._bpe.process_line(text) if self._bpe else text

    def decode(self, text: str) -> str:
        text = join_pieces(text, "subword_nmt") if self._bpe else text
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
        from subword_nmt.apply_bpe import BPE

        said = io.StringIO()
        try:
            with (
                redirect_stderr(said),
                open(self.codes, encoding="utf-8") as codes,
            ):  # it prints what is wrong, and exits
                found = BPE(codes)
                found.process_line("ab")  # only now it looks at the version
                return found
        except (SystemExit, ValueError, NotImplementedError) as error:
            wrong = " ".join((said.getvalue() or str(error)).split())
            raise UserError(
                f"the BPE codes {self.codes} cannot be read ({wrong[:200]}); copy them again as subword-nmt learn-bpe "
                "wrote them, two pieces in each line"
            ) from error


def is_language(name: Any) -> TypeGuard[str]:
    """Whether it may be a language's part of the names of files."""
    return isinstance(name, str) and LANGUAGE.fullmatch(name) is not None


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


def encoded(sentences: Sequence[str], encode: Callable[[str], Tokens], longest: int) -> list[Tokens]:
    """Tokens of each sentence; one that is no text or too long is refused."""
    for index, text in enumerate(sentences):
        if not isinstance(text, str):
            raise UserError(f"sentence {index} (counted from 0) is of type {type(text).__name__}; pass text (str)")
    found = [encode(text) for text in sentences]
    for index, tokens in enumerate(found):
        if len(tokens) > longest:
            raise UserError(
                f"sentence {index} (counted from 0) has {len(tokens)} tokens with its end, but this model takes up to "
                f"{longest}; split it"
            )
    return found
