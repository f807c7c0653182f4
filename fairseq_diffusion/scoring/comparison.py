"""Several systems compared on one set of references: a row of metrics for each, with what it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import language_of
from fairseq_diffusion.scoring.frequencies import Training, WordScores
from fairseq_diffusion.scoring.metrics import Metrics, Options
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.significance import SEED, p_values
from fairseq_diffusion.scoring.text_forms import TextForms

COMPOUND_PAIR = ("en", "de")


def language_from(outputs: list[Output]) -> str:
    """The target language that the reports beside the outputs agree on; "" where there are none."""
    found = sorted({language_of(output.languages[1]) for output in outputs if output.languages})
    if len(found) > 1:
        raise UserError(
            f"the systems have different target languages ({', '.join(found)}); score one language at a time"
        )
    return found[0] if found else ""


def is_compound_pair(outputs: list[Output]) -> bool:
    """Whether this is English to German by the reports: papers split compounds there."""
    pairs = {tuple(map(language_of, output.languages)) for output in outputs if output.languages}
    return pairs == {COMPOUND_PAIR}


def compared(
    outputs: list[Output],
    paths: list[Path],
    references: list[list[str]],
    language: str,
    options: Options,
    samples: int,
    training: Training | None = None,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The comparison as it is written to JSON, and the detokenised text of each system; with scores of words by how
    often they are in `training` text, if it is given."""
    text_forms = TextForms(language, outputs)
    metrics = Metrics(references, text_forms, options)
    words = training and WordScores(training, text_forms, metrics.reference_words, options.lowercase)
    forms = {output.name: text_forms.detokenised(output) for output in outputs}
    texts = {name: text for name, (text, _) in forms.items()}
    rows = [
        {
            **facts_of(output),
            **metrics.scores(output, texts[output.name]),
            **({"by_frequency": words.of(text_forms.tokens(output) or [])} if words else {}),
            "text": forms[output.name][1],
            "notes": notes_on(output, texts, references, options.lowercase),
        }
        for output in outputs
    ]
    return {
        "references": list(map(str, paths)),
        "sentences": len(references[0]),
        "language": language,
        "reference_repetition": metrics.reference_repetition,
        **({"frequencies": words.facts()} if words else {}),
        "rows": rows,
        "signatures": metrics.signatures(),
        "significance": significance(metrics, texts, samples),
    }, texts


def facts_of(output: Output) -> dict[str, Any]:
    """What is known of an output without references."""
    return {
        "name": output.name,
        "file": str(output.path),
        "system": output.report.get("system"),
        "steps": output.steps,
        "calls": output.calls,
        "sentences": len(output.printed),
        "skipped": output.skipped,
        "report": output.report,
    }


def significance(metrics: Metrics, texts: dict[str, list[str]], samples: int) -> dict[str, Any] | None:
    """p-values for all pairs; None with a single system, or where no samples are asked for."""
    if samples == 0 or len(texts) < 2:
        return None
    return {
        "test": "paired bootstrap",
        "samples": samples,
        "seed": SEED,
        "p": {name: p_values(metrics.detokenised[name], texts, samples) for name in ("sacrebleu", "chrf")},
    }


def notes_on(output: Output, texts: dict[str, list[str]], references: list[list[str]], lowercase: bool) -> list[str]:
    """What changes the meaning of the row."""
    decoding, own = output.report.get("decoding", {}), texts[output.name]
    draft = decoding["draft"] if isinstance(decoding.get("draft"), dict) else {}
    empty = sum(not text.strip() for text in own) - output.skipped
    twins = [name for name, text in texts.items() if text == own and name != output.name]
    notes = {
        "REFERENCE LENGTHS USED": decoding.get("oracle_length"),
        f"rescored by AR{' energy' * (decoding.get('rescored_by') == 'energy')}": decoding.get("rescored"),
        f"begins with a draft of {draft.get('calls') or 0:g} more calls": draft,
        f"{output.skipped} SKIPPED, scored as empty": output.skipped,
        f"{empty} empty": empty,
        "no capitals, but the references have them (--lowercase)": not lowercase
        and any(map(has_capitals, references[0]))
        and not any(map(has_capitals, own)),
        "the same as the references": own in references,
        f"the same as {', '.join(twins)}": twins,
    }
    return [note for note, holds in notes.items() if holds]


def has_capitals(text: str) -> bool:
    return text != text.lower()
