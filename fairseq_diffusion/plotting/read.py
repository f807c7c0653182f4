"""The data of a figure, read from a training log or from the output of fairseq-generate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import generated, histories
from fairseq_diffusion.files.json_text import parsed

NOISE_LOSS = re.compile(r"(?:train_)?mse_noise_(\d\d)")
TRAINING = ("", "train_")  # prefixes of what is logged at intervals, and once an epoch

Series = tuple[list[float], list[float]]


class Training(NamedTuple):
    """Curves of one training, each over numbers of updates."""

    name: str
    train_loss: Series | None
    valid_loss: Series | None
    valid_bleu: Series | None
    sigma_min: Series | None
    noise_losses: dict[int, Series]  # by the lower edge of the bucket of sigma, in percent


class Trajectory(NamedTuple):
    """The tokens of one sentence at each decoding step."""

    sentence: str
    source: str
    steps: dict[int, list[str]]


def read_training(path: Path) -> Training:
    """The curves in a log written with ``--log-format json``."""
    lines = generated.lines_of(path, errors="replace")
    records = [record for line in lines if (record := json_record(line)) is not None]
    if not records:
        raise UserError(f"{path} holds no JSON lines; train with --log-format json and keep the log (--log-file)")
    return training_of(path.stem, records, path)


def training_of(name: str, records: list[dict[str, Any]], path: Path) -> Training:
    """The curves in what a training logged, each record under fairseq's names in its JSON log."""
    buckets = sorted({int(match[1]) for record in records for key in record if (match := NOISE_LOSS.fullmatch(key))})
    losses = {bucket: series(records, f"mse_noise_{bucket:02d}") for bucket in buckets}
    training = Training(
        name=name,
        train_loss=series(records, "loss"),
        valid_loss=series(records, "loss", ("valid_",)),
        valid_bleu=series(records, "bleu", ("valid_",)),
        sigma_min=series(records, "sigma_min"),
        noise_losses={bucket: curve for bucket, curve in losses.items() if curve is not None},
    )
    if not any(training[1:]):
        raise UserError(f"{path} holds neither loss nor BLEU over numbers of updates; is it the log of a training?")
    return training


def with_distinct_names(trainings: list[Training], paths: list[Path]) -> list[Training]:
    """Trainings that share a name (runs/a/log, runs/b/log) with that of their folder before it."""
    names = [training.name for training in trainings]
    longer = [f"{path.resolve().parent.name}/{name}" for path, name in zip(paths, names)]
    return [t._replace(name=full if names.count(t.name) > 1 else t.name) for t, full in zip(trainings, longer)]


def json_record(line: str) -> dict[str, Any] | None:
    """The JSON object at the end of a log line, from its first brace; None if there is none."""
    try:
        record = parsed(line[line.index("{") :])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def series(records: list[dict[str, Any]], key: str, prefixes: Sequence[str] = TRAINING) -> Series | None:
    """Updates and values of a key under the first prefix that has any; None if it never has a value.

    Where a resumed training repeats an update, the later value is taken.
    """
    for prefix in prefixes:
        logged = [record for record in records if prefix + key in record]
        points = {number(record.get(f"{prefix}num_updates")): number(record[prefix + key]) for record in logged}
        kept = sorted((update, value) for update, value in points.items() if math.isfinite(update + value))
        if kept:
            return [update for update, _ in kept], [value for _, value in kept]
    return None


def number(text: Any) -> float:
    """A logged value, fairseq writes them as strings; nan for anything else."""
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def read_trajectory(path: Path, sentence: str) -> Trajectory:
    """Source and tokens at each step of a sentence's first hypothesis."""
    found = {str(number): one for number, one in generated.read(path).items()}
    if not found:
        raise UserError(f"{path} has no S- lines; is it the output of fairseq-generate?")
    if sentence not in found:
        there = ", ".join(islice(found, 5))
        raise UserError(f"{path} holds no sentence {sentence!r}; it has {len(found)}, among them {there}")
    beside = path.with_suffix(".history.jsonl")
    steps = every_token(beside, sentence) if beside.exists() else shown_tokens(path, found[sentence])
    return Trajectory(sentence, found[sentence].source or "", steps)


def every_token(history: Path, sentence: str) -> dict[int, list[str]]:
    """The steps in the file that --results-path writes beside the text, which has special tokens, too."""
    (own,) = histories.chosen(histories.read(history), [sentence], 1)
    return {number: step["tokens"] for number, step in enumerate(own["candidates"][0]["steps"])}


def shown_tokens(path: Path, sentence: generated.Sentence) -> dict[int, list[str]]:
    """The steps in the lines E-ID_STEP, in which fairseq leaves out <s> and </s>, also those between words."""
    if not sentence.hypotheses or not sentence.hypotheses[0].steps:
        raise UserError(f"sentence {sentence.number} in {path} has no E- lines; decode with --retain-iter-history")
    steps = {step: text.split() for step, text in sentence.hypotheses[0].steps.items()}
    if len({len(tokens) for tokens in steps.values()}) > 1:
        raise UserError(
            f"the steps of sentence {sentence.number} in {path} differ in length: E- lines lack special tokens, so no "
            "token has a known position; decode with --results-path DIR, and pass DIR/generate-SUBSET.txt, which "
            "has a file with all tokens beside it"
        )
    return steps
