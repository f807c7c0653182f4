"""Lines of files, pieces joined to words, and words as Moses splits and joins them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from sacremoses import MosesDetokenizer, MosesTokenizer

from fairseq_diffusion.errors import UserError

CONTINUES = "@@"  # subword-nmt: this piece goes on in the next
BEGINS = "\u2581"  # sentencepiece: a word begins here
PIECES = {"sentencepiece": re.compile(BEGINS), "subword_nmt": re.compile(f"{CONTINUES}( |$)")}
# What Moses' tokenizer leaves behind and people hardly write: escapes, split hyphens, commas and full stops kept apart
TOKENISED = re.compile(r"&(?:apos|quot|#124|#91|#93);| @-@ | [,،、，] | [.。।]$")
TOKENISED_SHARE = 0.1
SPLIT_HYPHEN = "@-@"
UNSEGMENTED = ("zh", "ja", "th", "lo", "km", "my")  # written without spaces, which Moses' tokenizer does not add


def read_lines(path: str | Path, role: str) -> list[str]:
    """Lines of a text file; line feeds alone end them, as sacreBLEU reads them.  `role` is the flag that named it."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{role} {path} cannot be read ({error}); name a text file in UTF-8") from error
    if lines and lines[0].startswith("\ufeff"):
        raise UserError(
            f"{role} {path} begins with a byte-order mark, which would count as a part of the first word; "
            "save the file as UTF-8 without it"
        )
    return lines


def language_of(name: str | None) -> str:
    """The language of a data-bin's name for it: "zh_CN" -> "zh"."""
    return re.split("[-_]", name or "")[0].lower()


def pieces_in(texts: Iterable[str]) -> str | None:
    """The kind of word pieces that some text still shows."""
    texts = list(texts)
    return next((kind for kind, mark in PIECES.items() if any(map(mark.search, texts))), None)


def join_pieces(text: str, kind: str | None) -> str:
    """Pieces put together, as fairseq's --remove-bpe does."""
    if kind == "sentencepiece":
        return text.replace(" ", "").replace(BEGINS, " ").strip()
    return f"{text} ".replace(f"{CONTINUES} ", "").rstrip() if kind == "subword_nmt" else text


def looks_tokenised(texts: Iterable[str]) -> bool:
    """Whether at least a tenth of the lines that are not empty show that Moses' tokenizer has been there."""
    written = [text for text in texts if text.strip()]
    marked = sum(bool(TOKENISED.search(text)) for text in written)
    return marked > 0 and marked >= TOKENISED_SHARE * len(written)


class Moses:
    """Splits words from punctuation, and joins them again, in one language."""

    def __init__(self, language: str, split_hyphens: bool = False):
        self._language, self._split_hyphens = language, split_hyphens
        self._detokenizer = MosesDetokenizer(language)

    @cached_property
    def _tokenizer(self) -> MosesTokenizer:
        """Made when it is wanted: for Chinese and Japanese that takes seconds."""
        return MosesTokenizer(self._language)

    def tokens(self, text: str) -> list[str]:
        return self._tokenizer.tokenize(text, aggressive_dash_splits=self._split_hyphens, escape=False)

    def text(self, words: str) -> str:
        return self._detokenizer.detokenize(words.split())

    def unescaped(self, words: str) -> list[str]:
        """Words that are tokenised already; ``tokens`` escapes nothing, so their escapes are undone."""
        return self._detokenizer.unescape_xml(words).split()
