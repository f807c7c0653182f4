"""The metrics of a system's output, each with a signature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable

from sacrebleu.metrics import BLEU, CHRF, TER

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import SPLIT_HYPHEN
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.text_forms import TextForms

UNKNOWN = "<unk>"
HYPHEN = re.compile(r"(\S)-(\S)")  # as in the script of Vaswani et al. (2017), whose tokenizer does not split hyphens
SPLIT = "##AT##-##AT##"


@dataclass(frozen=True)
class Options:
    """The user's choices.  `tokenize` is sacreBLEU's name for a tokenizer; None: the language's."""

    tokenize: str | None = None
    lowercase: bool = False
    compound_split: bool = False


class Metrics:
    """All metrics over one set of references (one list of lines for each file)."""

    def __init__(self, references: list[list[str]], text_forms: TextForms, options: Options):
        self.text_forms = text_forms
        case: dict[str, Any] = {"lowercase": options.lowercase}
        self.detokenised: dict[str, Any] = {
            "sacrebleu": detokenised_bleu(references, text_forms.language, options),
            "chrf": CHRF(**case, references=references),
            "ter": TER(references=references),
        }
        words = [text_forms.tokenise(lines) for lines in references]
        self.reference_words = [lines for lines in words if lines is not None]
        self.reference_repetition = repetition([line for lines in self.reference_words for line in lines])
        joined = [[" ".join(line) for line in lines] for lines in self.reference_words]
        names = ["tokenised", *["compound_split"] * options.compound_split] if joined else []
        self.tokenised: dict[str, Any] = {}
        for name in names:
            own = [list(map(SPLITS[name], lines)) for lines in joined]
            self.tokenised[name] = BLEU(**case, tokenize="none", force=True, references=own)

    def scores(self, output: Output, texts: list[str]) -> dict[str, Any]:
        """All metrics of an output; `texts` is its detokenised form."""
        bleu = self.detokenised["sacrebleu"].corpus_score(texts, None)
        tokens = self.text_forms.tokens(output)
        return {
            "sacrebleu": bleu.score,
            **{name: self.token_score(name, tokens) for name in SPLITS},
            "chrf": self.detokenised["chrf"].corpus_score(texts, None).score,
            "ter": self.detokenised["ter"].corpus_score(texts, None).score,
            "brevity_penalty": bleu.bp,
            "length_ratio": bleu.ratio,
            "repetition": repetition(tokens or []),
            "unknown": unknown(output.printed),
        }

    def token_score(self, name: str, tokens: list[list[str]] | None) -> float | None:
        """BLEU of tokens; None where there are none, or it was not asked for."""
        if not tokens or name not in self.tokenised:
            return None
        return self.tokenised[name].corpus_score([SPLITS[name](" ".join(words)) for words in tokens], None).score

    def signatures(self) -> dict[str, str]:
        found = {name: str(metric.get_signature()) for name, metric in self.detokenised.items()}
        split = {"tokenised": "", "compound_split": ", then a-b as a ##AT##-##AT## b"}
        for name, metric in self.tokenised.items():
            found[name] = f"{metric.get_signature()}; {self.text_forms.tokenizer}{split[name]}"
        return found


def detokenised_bleu(references: list[list[str]], language: str, options: Options) -> BLEU:
    try:
        return BLEU(lowercase=options.lowercase, tokenize=options.tokenize, trg_lang=language, references=references)
    except (ImportError, RuntimeError, OSError) as error:
        wanted, why = options.tokenize or f"for {language}", " ".join(str(error).split())
        raise UserError(
            f"sacreBLEU cannot load its tokenizer {wanted} ({why}); install what it needs, or choose another with "
            "--tokenize"
        ) from error


def split_compounds(line: str) -> str:
    """Split a-b into three words, also where a tokenizer has done so."""
    words = (SPLIT if word == SPLIT_HYPHEN else HYPHEN.sub(rf"\1 {SPLIT} \2", word) for word in line.split(" "))
    return " ".join(words)


SPLITS: dict[str, Callable[[str], str]] = {"tokenised": str, "compound_split": split_compounds}


def repetition(sentences: list[list[str]]) -> float | None:
    """Share of words that equal the word before them in their sentence; None without words."""
    total = sum(map(len, sentences))
    repeated = sum(one == other for words in sentences for one, other in zip(words, words[1:]))
    return repeated / total if total else None


def unknown(printed: list[str]) -> float | None:
    """Share of words, as printed, that contain <unk>; None without words."""
    words = [word for line in printed for word in line.split()]
    return sum(UNKNOWN in word for word in words) / len(words) if words else None
