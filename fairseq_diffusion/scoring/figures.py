"""The figures of a system, each by a rule that its signature says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics import BLEU, CHRF, TER

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.wording import Wording
from fairseq_diffusion.texts import SPLIT_HYPHEN

UNKNOWN = "<unk>"
HYPHEN = re.compile(r"(\S)-(\S)")  # as in the script behind Vaswani et al. (2017), whose tokenizer left hyphens whole
SPLIT = "##AT##-##AT##"


@dataclass(frozen=True)
class Manner:
    """What the user chose.  `tokenize` is sacreBLEU's name for a tokenizer; None leaves it to the language."""

    tokenize: str | None = None
    lowercase: bool = False
    compound_split: bool = False


class Figures:
    """All metrics over one set of references (one list of lines for each file)."""

    def __init__(self, references: list[list[str]], wording: Wording, manner: Manner):
        self.wording = wording
        case: dict[str, Any] = {"lowercase": manner.lowercase}
        self.written: dict[str, Any] = {
            "sacrebleu": people_bleu(references, wording.language, manner),
            "chrf": CHRF(**case, references=references),
            "ter": TER(references=references),
        }
        words = [wording.split(lines) for lines in references]
        self.reference_repetition = repetition([line for lines in words if lines is not None for line in lines])
        self.tokenised: dict[str, Any] = {}
        joined = [[" ".join(line) for line in lines] for lines in words if lines is not None]
        if joined:
            self.tokenised["tokenised"] = BLEU(**case, tokenize="none", force=True, references=joined)
        if joined and manner.compound_split:
            split = [[split_compounds(line) for line in lines] for lines in joined]
            self.tokenised["compound_split"] = BLEU(**case, tokenize="none", force=True, references=split)

    def of(self, output: Output, texts: list[str]) -> dict[str, Any]:
        """`texts` is the output as people write it."""
        bleu = self.written["sacrebleu"].corpus_score(texts, None)
        tokens = self.wording.tokens(output)
        return {
            "sacrebleu": bleu.score,
            **self.of_tokens([" ".join(words) for words in tokens or []]),
            "chrf": self.written["chrf"].corpus_score(texts, None).score,
            "ter": self.written["ter"].corpus_score(texts, None).score,
            "brevity_penalty": bleu.bp,
            "length_ratio": bleu.ratio,
            "repetition": repetition(tokens or []),
            "unknown": unknown(output.printed),
        }

    def of_tokens(self, lines: list[str]) -> dict[str, float | None]:
        """BLEU of words kept apart; None where there are no such words, or it was not asked for."""
        found: dict[str, float | None] = {"tokenised": None, "compound_split": None}
        for name, metric in self.tokenised.items() if lines else ():
            said = list(map(split_compounds, lines)) if name == "compound_split" else lines
            found[name] = metric.corpus_score(said, None).score
        return found

    def signatures(self) -> dict[str, str]:
        said = {name: str(metric.get_signature()) for name, metric in self.written.items()}
        split = {"tokenised": "", "compound_split": ", then a-b as a ##AT##-##AT## b"}
        for name, metric in self.tokenised.items():
            said[name] = f"{metric.get_signature()}; {self.wording.rule}{split[name]}"
        return said


def people_bleu(references: list[list[str]], language: str, manner: Manner) -> BLEU:
    try:
        return BLEU(lowercase=manner.lowercase, tokenize=manner.tokenize, trg_lang=language, references=references)
    except (ImportError, RuntimeError, OSError) as error:
        wanted, why = manner.tokenize or f"for {language}", " ".join(str(error).split())
        raise UserError(
            f"sacreBLEU cannot load its tokenizer {wanted} ({why}); install what it asks for, or choose another with "
            "--tokenize"
        ) from error


def split_compounds(line: str) -> str:
    """a-b as three words, also where a tokenizer has made them three already."""
    words = (SPLIT if word == SPLIT_HYPHEN else HYPHEN.sub(rf"\1 {SPLIT} \2", word) for word in line.split(" "))
    return " ".join(words)


def repetition(sentences: list[list[str]]) -> float | None:
    """Share of words that equal the word before them in their sentence; None without words."""
    total = sum(map(len, sentences))
    repeated = sum(one == other for words in sentences for one, other in zip(words, words[1:]))
    return repeated / total if total else None


def unknown(printed: list[str]) -> float | None:
    """Share of words, as printed, that hold the unknown word; None without words."""
    words = [word for line in printed for word in line.split()]
    return sum(UNKNOWN in word for word in words) / len(words) if words else None
