"""A dictionary of fairseq, read without it."""

from __future__ import annotations

from pathlib import Path

from fairseq_diffusion.errors import UserError

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
REPLACES = " #fairseq:overwrite"


class Dictionary:
    """Words by their numbers: the special ones, and then those of the file."""

    pad, eos, unk = 1, 2, 3

    def __init__(self, words: list[str]):
        self.words = words
        self.numbers = {word: number for number, word in enumerate(words)}

    @classmethod
    def read(cls, path: Path) -> Dictionary:
        """Of lines with a word and how often it occurred."""
        numbers = {word: number for number, word in enumerate(SPECIAL)}
        words = list(SPECIAL)
        with open(path, encoding="utf-8") as file:
            for count, line in enumerate(file, 1):
                replaces = line.rstrip().endswith(REPLACES)
                word, _, often = line.rstrip().removesuffix(REPLACES).rpartition(" ")
                if not often.isdigit() or (word in numbers and not replaces):
                    raise UserError(
                        f"line {count} of {path} is no new word with a number behind it: {line.strip()[:50]!r}; export "
                        "the model again"
                    )
                numbers[word] = len(words)
                words.append(word)
        return cls(words)

    def encode(self, text: str) -> list[int]:
        """Numbers of the words of a line, and of its end."""
        return [*(self.numbers.get(word, self.unk) for word in text.split()), self.eos]
