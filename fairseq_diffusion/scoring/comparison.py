"""Several systems over one set of references: rows of figures, and everything that must be said with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.figures import Figures, Manner
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.significance import SEED, p_values
from fairseq_diffusion.scoring.wording import Wording
from fairseq_diffusion.texts import language_of

COMPOUND_PAIR = ("en", "de")


def language_from(outputs: list[Output]) -> str:
    """The target language that the reports beside the outputs agree on; "" where there are none."""
    found = sorted({language_of(output.languages[1]) for output in outputs if output.languages})
    if len(found) > 1:
        raise UserError(f"the systems write different languages ({', '.join(found)}); score those of one at a time")
    return found[0] if found else ""


def is_compound_pair(outputs: list[Output]) -> bool:
    """Whether the reports say that this is English to German, where papers split compounds."""
    pairs = {tuple(map(language_of, output.languages)) for output in outputs if output.languages}
    return pairs == {COMPOUND_PAIR}


def compared(
    outputs: list[Output], paths: list[Path], references: list[list[str]], language: str, manner: Manner, samples: int
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The comparison as it is written to JSON, and each system's text as people write it."""
    wording = Wording(language, outputs)
    figures = Figures(references, wording, manner)
    forms = {output.name: wording.text(output) for output in outputs}
    texts = {name: text for name, (text, _) in forms.items()}
    rows = [
        {
            **head_of(output),
            **figures.of(output, texts[output.name]),
            "text": forms[output.name][1],
            "notes": notes_on(output, texts, references, manner.lowercase),
        }
        for output in outputs
    ]
    return {
        "references": list(map(str, paths)),
        "sentences": len(references[0]),
        "language": language,
        "reference_repetition": figures.reference_repetition,
        "rows": rows,
        "signatures": figures.signatures(),
        "significance": significance(figures, texts, samples),
    }, texts


def head_of(output: Output) -> dict[str, Any]:
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


def significance(figures: Figures, texts: dict[str, list[str]], samples: int) -> dict[str, Any] | None:
    """p-values for all pairs; None with a single system, or where no samples are asked for."""
    if samples == 0 or len(texts) < 2:
        return None
    return {
        "test": "paired bootstrap",
        "samples": samples,
        "seed": SEED,
        "p": {name: p_values(figures.written[name], texts, samples) for name in ("sacrebleu", "chrf")},
    }


def notes_on(output: Output, texts: dict[str, list[str]], references: list[list[str]], lowercase: bool) -> list[str]:
    """What a reader of the row must know."""
    decoding, own = output.report.get("decoding", {}), texts[output.name]
    empty = sum(not text.strip() for text in own) - output.skipped
    twins = [name for name, text in texts.items() if text == own and name != output.name]
    notes = {
        "REFERENCE LENGTHS USED": decoding.get("oracle_length"),
        "rescored by AR": decoding.get("rescored"),
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
