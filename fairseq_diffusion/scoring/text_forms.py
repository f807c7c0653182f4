"""The two forms of a text that are scored: detokenised and tokenised."""

from __future__ import annotations

from collections import Counter

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

    def counts(self, lines: list[str]) -> Counter[str] | None:
        """How often each token is in lines of text, tokenised or not; None where they cannot be tokenised.  Training
        text is large, so each word of it is looked at once."""
        if not looks_tokenised(lines):
            return Counter(word for line in lines for word in self._moses.tokens(line)) if self.tokenises else None
        found: Counter[str] = Counter()
        for word, number in Counter(word for line in lines for word in line.split()).items():
            for token in self._moses.unescaped(word):
                found[token] += number
        return found

    @property
    def tokenises(self) -> bool:
        """Whether text in this language can be tokenised."""
        return bool(self.language) and self.language not in UNSEGMENTED

    def tokenise(self, texts: list[str]) -> list[list[str]] | None:
        """Tokens of detokenised texts; None where text in this language cannot be tokenised."""
        if not self.tokenises:
            return None
        return [self._moses.tokens(text) for text in texts]
