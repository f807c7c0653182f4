"""Scores of translations of the toy language, of which all valid translations are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sacrebleu.metrics import BLEU

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.language import Language


@dataclass(frozen=True)
class ToyScore:
    """Shares are in [0, 1], corpus BLEU in [0, 100]; None where there is no sentence to take a share of."""

    sentences: int
    ambiguous: int
    valid: float  # outputs that are a valid translation
    mixed: float | None  # of the ambiguous sentences: would be valid in one register, but mix both
    exact: float | None  # of the unambiguous sentences: the one valid translation
    bleu: float  # against all valid translations
    bleu_single: float  # against the one reference of the file; no system can reach 100
    bleu_unambiguous: float | None
    signature: str  # sacreBLEU's description of `bleu`


def score(language: Language, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> ToyScore:
    """Score one hypothesis per source sentence."""
    check_counts(sources, hypotheses, references)
    hypotheses = [" ".join(hypothesis.split()) for hypothesis in hypotheses]
    translations = [language.translations(source) for source in sources]
    valid = [hypothesis in choices for hypothesis, choices in zip(hypotheses, translations)]
    mixed = [
        not right and is_valid_but_for_register(language, source, hypothesis)
        for source, hypothesis, right in zip(sources, hypotheses, valid)
    ]
    ambiguous = [i for i, choices in enumerate(translations) if len(choices) > 1]
    unambiguous = [i for i, choices in enumerate(translations) if len(choices) == 1]
    bleu, signature = corpus_bleu(hypotheses, translations)
    return ToyScore(
        sentences=len(sources),
        ambiguous=len(ambiguous),
        valid=sum(valid) / len(valid),
        mixed=share(mixed, ambiguous),
        exact=share(valid, unambiguous),
        bleu=bleu,
        bleu_single=corpus_bleu(hypotheses, [[reference] for reference in references])[0],
        bleu_unambiguous=bleu_of(hypotheses, translations, unambiguous),
        signature=signature,
    )


def check_counts(sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not len(sources) == len(hypotheses) == len(references) or not sources:
        raise UserError(
            f"there are {len(hypotheses)} translations for {len(sources)} source sentences and {len(references)} "
            "references; give one translation of each sentence of the split, in its order "
            "(fairseq-generate may leave some out unless --required-batch-size-multiple is 1)"
        )


def is_valid_but_for_register(language: Language, source: str, hypothesis: str) -> bool:
    """Whether each word is right in one register or the other."""
    words, choices = hypothesis.split(), language.spellings(source)
    return len(words) == len(choices) and all(word in spellings for word, spellings in zip(words, choices))


def share(holds: Sequence[bool], among: Sequence[int]) -> float | None:
    return sum(holds[i] for i in among) / len(among) if among else None


def bleu_of(hypotheses: Sequence[str], references: Sequence[Sequence[str]], among: Sequence[int]) -> float | None:
    return corpus_bleu([hypotheses[i] for i in among], [references[i] for i in among])[0] if among else None


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """SacreBLEU and its signature; `references` has any number for each sentence (None fills up a stream)."""
    metric = BLEU()
    result = metric.corpus_score(hypotheses, [list(stream) for stream in zip_longest(*references)])
    return result.score, str(metric.get_signature())
