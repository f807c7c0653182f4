"""The texts that are scored: pieces joined, words joined, one for each sentence."""

from __future__ import annotations

import re
from typing import Any

from fairseq.data import data_utils
from sacremoses import MosesDetokenizer

from fairseq_diffusion.errors import UserError

PIECES = {"sentencepiece": re.compile("\u2581"), "subword_nmt": re.compile("@@( |$)")}


def read_lines(path: str) -> list[str]:
    """Lines of a text file; line feeds alone end them, as sacreBLEU reads them."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--raw-reference {path} cannot be read ({error}); name a text file in UTF-8") from error


def language_of(name: str | None) -> str:
    """The language of a data-bin's name for it: "zh_CN" -> "zh"."""
    return re.split("[-_]", name or "")[0].lower()


def pieces_in(texts: list[str]) -> str | None:
    """The kind of word pieces that some text still shows."""
    return next((kind for kind, mark in PIECES.items() if any(map(mark.search, texts))), None)


class Surface:
    """From the printed hypotheses to text as people write it, with the words that say how."""

    def __init__(self, cfg: Any, tokenizer: Any, language: str, texts: list[str]):
        self.pieces = pieces_in(texts)
        asked = cfg.common_eval.post_process or name_of(cfg.bpe)
        if tokenizer:
            self.join, self.how = tokenizer.decode, f"--tokenizer {name_of(cfg.tokenizer)}"
        elif "sentencepiece" in (self.pieces, asked):
            self.join, self.how = str, "sentencepiece alone"
        else:
            moses = MosesDetokenizer(language or "en")
            self.join, self.how = lambda text: moses.detokenize(text.split()), f"sacremoses ({language or 'en'})"

    def __call__(self, text: str) -> str:
        return self.join(data_utils.post_process(text, self.pieces))


def name_of(choice: Any) -> str | None:
    """The name of a part that fairseq's configuration chooses, itself a name or a section."""
    return choice if choice is None or isinstance(choice, str) else getattr(choice, "_name", None)
