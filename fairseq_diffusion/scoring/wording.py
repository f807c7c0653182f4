"""The two forms of a text that are scored: as people write it, and as words kept apart."""

from __future__ import annotations

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.texts import SPLIT_HYPHEN, UNSEGMENTED, Moses, looks_tokenised


class Wording:
    """Both forms, in one language ("" where nobody has said which), with hyphens split if some output splits them."""

    def __init__(self, language: str, outputs: list[Output]):
        self.language = language
        self.split_hyphens = any(map(splits_hyphens, outputs))
        self._moses = Moses(language or "en", self.split_hyphens)

    @property
    def splits_words(self) -> bool:
        """Whether text can be tokenised."""
        return bool(self.language) and self.language not in UNSEGMENTED

    @property
    def rule(self) -> str:
        return f"words by sacremoses ({self.language})" + (", hyphens split" if self.split_hyphens else "")

    def text(self, output: Output) -> tuple[list[str], str]:
        """Text as people write it, and how it became so."""
        if output.detokenised is not None:
            return output.detokenised, "detokenised by fairseq-generate"
        if not looks_tokenised(output.printed):
            return output.printed, "as it stands"
        if not self.language:
            raise UserError(f"{output.path} is tokenised; say its language with --language, to detokenise it")
        return [self._moses.text(words) for words in output.printed], f"detokenised by sacremoses ({self.language})"

    def tokens(self, output: Output) -> list[list[str]] | None:
        """Words as printed, or of a text that was printed as people write it; None if that cannot be split."""
        if keeps_words_apart(output):
            return [self._moses.unescaped(words) for words in output.printed]
        return self.split(output.printed)

    def split(self, texts: list[str]) -> list[list[str]] | None:
        """The words of texts as people write them."""
        return [self._moses.tokens(text) for text in texts] if self.splits_words else None


def splits_hyphens(output: Output) -> bool:
    return any(SPLIT_HYPHEN in text.split() for text in output.printed)


def keeps_words_apart(output: Output) -> bool:
    """Whether what was printed is tokenised."""
    return output.detokenised is not None or looks_tokenised(output.printed)
