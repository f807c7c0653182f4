"""BLEU twice: of the tokenised text that was printed, and of text as people write it against raw references."""

from __future__ import annotations

import logging
from typing import Any, Callable

from sacrebleu.metrics import BLEU

from fairseq_diffusion.reporting.record import Recorder
from fairseq_diffusion.reporting.texts import Surface, name_of
from fairseq_diffusion.texts import language_of, pieces_in

logger = logging.getLogger(__name__)


def scores_of(recorder: Recorder) -> dict[str, Any]:
    """Each score, or why there is none."""
    if recorder.cfg.common_eval.quiet:
        return dict.fromkeys(("tokenised", "sacrebleu"), none("--quiet prints no hypotheses to score"))
    if not recorder.hypotheses:
        return dict.fromkeys(("tokenised", "sacrebleu"), none("no sentence was decoded"))
    bpe = recorder.task.build_bpe(recorder.cfg.bpe)
    tokenizer = recorder.task.build_tokenizer(recorder.cfg.tokenizer)
    join = bpe.decode if bpe else str
    words = {i: join(text) for i, text in sorted(recorder.hypotheses.items())}
    return {
        "tokenised": attempt(lambda: tokenised(recorder, words, tokenised_references(recorder, join, tokenizer))),
        "sacrebleu": attempt(lambda: against_raw(recorder, words, tokenizer)),
    }


def none(why: str) -> dict[str, Any]:
    return {"unavailable": why}


def attempt(score: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """One score's failure (no tokenizer for Japanese, say) must not take the rest of the report with it."""
    try:
        return score()
    except Exception as error:
        logger.exception("a score could not be computed")
        return none(f"{type(error).__name__}: {error}")


def tokenised_references(recorder: Recorder, join: Callable[[str], str], tokenizer: Any) -> dict[int, str]:
    """The T- lines, with words kept apart as in the H- lines: with --tokenizer fairseq joins those of T- alone."""
    if not tokenizer:
        return recorder.references
    dictionary, generator = recorder.task.target_dictionary, recorder.generator
    silent = getattr(generator, "symbols_to_strip_from_output", None)
    post_process = recorder.cfg.common_eval.post_process

    def reference(i: int) -> str:
        tokens = recorder.dataset[i]["target"]
        return join(dictionary.string(tokens, post_process, escape_unk=True, extra_symbols_to_ignore=silent))

    return {i: reference(i) for i in recorder.references}


def tokenised(recorder: Recorder, words: dict[int, str], references: dict[int, str]) -> dict[str, Any]:
    """BLEU of what was printed against the references in the data-bin, on their own tokens."""
    if not references:
        return none("the data hold no references")
    both = sorted(words.keys() & references.keys())
    hypotheses, wanted = [words[i] for i in both], [references[i] for i in both]
    pieces = pieces_in([*hypotheses, *wanted])
    asked = recorder.cfg.common_eval.post_process or name_of(recorder.cfg.bpe)
    removed = f"removed ({asked.strip()})" if asked else "none to remove"
    bpe = f"NOT REMOVED ({pieces}), so this is BLEU of pieces" if pieces else removed
    return {**bleu(hypotheses, wanted, tokenize="none", force=True), "bpe": bpe}


def against_raw(recorder: Recorder, words: dict[int, str], tokenizer: Any) -> dict[str, Any]:
    """BLEU of joined words against the raw file; a sentence that was not decoded is empty, unless a shard is scored."""
    if recorder.raw is None:
        return none("no --raw-reference was given")
    language = language_of(recorder.task_cfg.target_lang)
    surface = Surface(recorder.cfg, tokenizer, language, list(words.values()))
    scored = sorted(words) if recorder.shards > 1 else range(len(recorder.raw))
    hypotheses = [surface(words.get(i, "")) for i in scored]
    return {
        **bleu(hypotheses, [recorder.raw[i] for i in scored], trg_lang=language),
        "reference": recorder.cfg.task.raw_reference,
        "detokenised": surface.how,
        "missing": sum(i not in words for i in scored),
        "shard_alone": recorder.shards > 1,
    }


def bleu(hypotheses: list[str], references: list[str], **options: Any) -> dict[str, Any]:
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
