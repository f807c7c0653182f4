"""The texts that are scored: pieces joined, words joined, one for each sentence."""

from __future__ import annotations

from typing import Any

from fairseq_diffusion.texts import Moses, join_pieces, pieces_in


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
            self.join, self.how = Moses(language or "en").text, f"sacremoses ({language or 'en'})"

    def __call__(self, text: str) -> str:
        return self.join(join_pieces(text, self.pieces))


def name_of(choice: Any) -> str | None:
    """The name of a part that fairseq's configuration chooses, itself a name or a section."""
    return choice if choice is None or isinstance(choice, str) else getattr(choice, "_name", None)
