"""BLEU twice: of tokenised text against the references in the data-bin, and of detokenised text against raw ones."""

from __future__ import annotations

import logging
from typing import Any, Callable

from sacrebleu.metrics import BLEU

from fairseq_diffusion.files.texts import join_pieces, language_of, pieces_in
from fairseq_diffusion.reporting.recorder import Recorder
from fairseq_diffusion.reporting.texts import detokeniser

logger = logging.getLogger(__name__)

Score = dict[str, Any]


def scores_of(recorder: Recorder) -> dict[str, Score]:
    """Each score, or why there is none."""
    if not recorder.hypotheses:
        return dict.fromkeys(("tokenised", "sacrebleu"), {"unavailable": "no sentence was decoded"})
    return {"tokenised": attempt(tokenised, recorder), "sacrebleu": attempt(sacrebleu, recorder)}


def attempt(score: Callable[[Recorder], Score], recorder: Recorder) -> Score:
    """One score may fail, as without a tokenizer for Japanese, and the rest of the report is still made."""
    try:
        return score(recorder)
    except Exception as error:
        logger.exception("a score could not be computed")
        return {"unavailable": f"{type(error).__name__}: {error}"}


def tokenised(recorder: Recorder) -> Score:
    """BLEU of words as decoded against the references in the data-bin."""
    if not recorder.references:
        return {"unavailable": "the data hold no references"}
    both = sorted(recorder.hypotheses.keys() & recorder.references.keys())
    hypotheses, references = [recorder.hypotheses[i] for i in both], [recorder.references[i] for i in both]
    pieces, name = pieces_in([*hypotheses, *references]), recorder.texts.bpe_name
    removed = f"removed ({name.strip()})" if name else "none to remove"
    bpe = f"NOT REMOVED ({pieces}), so this is BLEU of pieces" if pieces else removed
    return {**bleu(hypotheses, references, tokenize="none", force=True), "bpe": bpe}


def sacrebleu(recorder: Recorder) -> Score:
    """BLEU of joined words against the raw file; a sentence that was not decoded is empty, unless a shard is scored."""
    found, raw = recorder.hypotheses, recorder.raw
    if raw is None:
        return {"unavailable": "no --raw-reference was given"}
    language, pieces = language_of(recorder.task_cfg.target_lang), pieces_in(found.values())
    join, how = detokeniser(recorder.texts, language, pieces)
    scored = sorted(found) if recorder.shards > 1 else range(len(raw))
    hypotheses = [join(join_pieces(found.get(i, ""), pieces)) for i in scored]
    return {
        **bleu(hypotheses, [raw[i] for i in scored], trg_lang=language),
        "reference": recorder.cfg.task.raw_reference,
        "detokenised": how,
        "missing": sum(i not in found for i in scored),
        "shard_alone": recorder.shards > 1,
    }


def bleu(hypotheses: list[str], references: list[str], **options: Any) -> Score:
    metric = BLEU(**options)
    result = metric.corpus_score(hypotheses, [references])
    return {
        "bleu": result.score,
        "precisions": result.precisions,
        "brevity_penalty": result.bp,
        "length_ratio": result.ratio,
        "sentences": len(hypotheses),
        "signature": str(metric.get_signature()),
    }
