"""The two forms of a text that are scored: detokenised and tokenised."""

from __future__ import annotations

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import SPLIT_HYPHEN, UNSEGMENTED, Moses, looks_tokenised
from fairseq_diffusion.scoring.outputs import Output


class TextForms:
    """Both forms, in one language ("" if unknown), with hyphens split if some output splits them."""

    def __init__(self, language: str, outputs: list[Output]):
        self.language = language
        split_hyphens = any(SPLIT_HYPHEN in text.split() for output in outputs for text in output.printed)
        self._moses = Moses(language or "en", split_hyphens)
        self.tokenizer = f"words by sacremoses ({language})" + ", hyphens split" * split_hyphens  # for signatures

    def detokenised(self, output: Output) -> tuple[list[str], str]:
        """Detokenised text, and what detokenised it."""
        if output.detokenised is not None:
            return output.detokenised, "detokenised by fairseq-generate"
        if not looks_tokenised(output.printed):
            return output.printed, "as given"
        if not self.language:
            raise UserError(f"{output.path} is tokenised; pass its language with --language, to detokenise it")
        return [self._moses.text(words) for words in output.printed], f"detokenised by sacremoses ({self.language})"

    def tokens(self, output: Output) -> list[list[str]] | None:
        """Tokens of an output; None if it is detokenised and cannot be tokenised again."""
        if output.detokenised is not None or looks_tokenised(output.printed):
            return [self._moses.unescaped(words) for words in output.printed]
        return self.tokenise(output.printed)

    def tokenise(self, texts: list[str]) -> list[list[str]] | None:
        """Tokens of detokenised texts; None where text in this language cannot be tokenised."""
        if not self.language or self.language in UNSEGMENTED:
            return None
        return [self._moses.tokens(text) for text in texts]
