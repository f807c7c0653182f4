"""Lines of text files, joining word pieces, and tokenising with sacremoses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError

CONTINUES = "@@"  # subword-nmt: the word continues in the next piece
BEGINS = "\u2581"  # sentencepiece: a word begins here
PIECES = {"sentencepiece": re.compile(BEGINS), "subword_nmt": re.compile(f"{CONTINUES}( |$)")}
# Marks of Moses' tokenizer, rare in other text: escapes, split hyphens, separate commas and full stops
TOKENISED = re.compile(r"&(?:apos|quot|#124|#91|#93);| @-@ | [,،、，] | [.。।]$")
TOKENISED_SHARE = 0.1
SPLIT_HYPHEN = "@-@"
# Control characters, separators and formats. To some tools some of them end a line, which would
# misalign the two sides of a corpus.
INVISIBLE: dict[str, str | None] = {"Cc": " ", "Zl": " ", "Zp": " ", "Zs": " ", "Cf": None}
ZERO_WIDTH_SPACE = 0x200B  # it separates words; other formats, such as soft hyphens, are inside them
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


@cache
def plain_table() -> dict[int, str | None]:
    """The replacement of each character of the categories in INVISIBLE, for str.translate."""
    kinds = {code: unicodedata.category(chr(code)) for code in range(0xE0080)}
    return {**{code: INVISIBLE[kind] for code, kind in kinds.items() if kind in INVISIBLE}, ZERO_WIDTH_SPACE: " "}


def tidy(line: str) -> str:
    """A line without invisible characters and with single blanks: the first step of the recipes."""
    return " ".join(line.translate(plain_table()).split())


def language_of(name: str | None) -> str:
    """The language of a data-bin's name for it: "zh_CN" -> "zh"."""
    return re.split("[-_]", name or "")[0].lower()


def pieces_in(texts: Iterable[str]) -> str | None:
    """The kind of word pieces in some of the texts; None if there are none."""
    texts = list(texts)
    return next((kind for kind, mark in PIECES.items() if any(map(mark.search, texts))), None)


def join_pieces(text: str, pieces: str | None) -> str:
    """Text with word pieces joined, as fairseq's --remove-bpe does."""
    if pieces == "sentencepiece":
        return text.replace(" ", "").replace(BEGINS, " ").strip()
    return f"{text} ".replace(f"{CONTINUES} ", "").rstrip() if pieces == "subword_nmt" else text


def looks_tokenised(texts: Iterable[str]) -> bool:
    """Whether at least a tenth of the lines that are not empty have marks of Moses' tokenizer."""
    written = [text for text in texts if text.strip()]
    marked = sum(bool(TOKENISED.search(text)) for text in written)
    return marked > 0 and marked >= TOKENISED_SHARE * len(written)


class Moses:
    """Moses' tokenizer and detokenizer of one language; sacremoses takes half a second to import, so only here."""

    def __init__(self, language: str, split_hyphens: bool = False):
        from sacremoses import MosesDetokenizer

        self._language, self._split_hyphens = language, split_hyphens
        self._detokenizer = MosesDetokenizer(language)

    @cached_property
    def _tokenizer(self) -> Any:
        """Made when it is needed: for Chinese and Japanese that takes seconds."""
        from sacremoses import MosesTokenizer

        return MosesTokenizer(self._language)

    def tokens(self, text: str, escape: bool = False) -> list[str]:
        """Tokens, with XML escapes of special characters if `escape`."""
        return self._tokenizer.tokenize(text, aggressive_dash_splits=self._split_hyphens, escape=escape)

    def text(self, words: str) -> str:
        return self._detokenizer.detokenize(words.split())

    def unescaped(self, words: str) -> list[str]:
        """Tokens of tokenised text, without XML escapes, as from ``tokens``."""
        plain = self._detokenizer.unescape_xml(words)
        pattern, replacement = self._tokenizer.AGGRESSIVE_HYPHEN_SPLIT
        return (re.sub(pattern, replacement, plain) if self._split_hyphens else plain).split()
