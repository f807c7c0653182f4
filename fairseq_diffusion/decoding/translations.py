"""What `translate` returns: the candidates of each sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Candidate:
    """A translation of a sentence.  `tokens` are as in the dictionary, without the end of the sentence; `score` is the
    mean natural log-probability of tokens and end (fairseq-generate prints it to base 2)."""

    text: str
    tokens: list[str]
    score: float
    calls: int  # of the decoder; for an autoregressive model, one a token and one for the end
    history: list[dict[str, list[Any]]] = field(default_factory=list, repr=False)  # "tokens" and "p" of each step


@dataclass
class Translation:
    """The candidates of a sentence, the best first, whose text, tokens, score and calls are also the translation's."""

    source: str
    candidates: list[Candidate]

    @property
    def text(self) -> str:
        return self.candidates[0].text

    @property
    def tokens(self) -> list[str]:
        return self.candidates[0].tokens

    @property
    def score(self) -> float:
        return self.candidates[0].score

    @property
    def calls(self) -> int:
        return self.candidates[0].calls

    def record(self, number: int) -> dict[str, Any]:
        """A line of generate-SUBSET.history.jsonl as a dictionary, which `plotting` draws."""
        candidates = [
            {"text": each.text, "score": each.score, "calls": each.calls, "steps": each.history}
            for each in self.candidates
        ]
        return {"id": number, "source": self.source, "candidates": candidates}
