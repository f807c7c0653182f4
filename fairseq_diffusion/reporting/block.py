"""A report as lines of text; each begins with a bar, which no line of a sentence does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Order of the facts of decoding; others are between FIRST and LAST.  "told" is in older reports.
FIRST = (
    *("steps", "calls", "sampler", "told", "conditioning_sigma", "grid"),
    *("candidates", "selection", "utility", "rescored", "oracle_length", "ORACLE LENGTH"),
)
LAST = ("seed",)
UNITS = {"calls": " (mean of a candidate)"}
NAMES = {"calls": "network calls", "rescored": "AR rescoring", "told": "conditioning sigma"}
ORACLE = "LENGTHS OF THE REFERENCES WERE USED: FOR ANALYSIS ONLY"


def render(report: dict[str, Any]) -> str:
    rows = [*head_rows(report), *decoding_rows(report), *score_rows(report["scores"]), *last_rows(report)]
    width = max(len(label) for label, _ in rows)
    lines = [f"| {label.ljust(width)}  {' '.join(text.split())}".rstrip() for label, text in rows]
    rule = "|" + "-" * 79
    return "\n".join([rule, *lines, rule])


def head_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    data = report["data"]
    yield "system", f"{report['system']} (task {report['task']})"
    for checkpoint in report["checkpoints"]:
        yield "checkpoint", checkpoint["path"]
        yield "", f"{checkpoint['system']}, {checkpoint['updates']} updates, {weights_text(checkpoint)}"
        for path in checkpoint["averaged"]:
            yield "", f"averaged: {path}"
    yield "data", f"{data['directory']}, subset {data['subset']} ({data['languages']})"
    yield "sentences", sentences_text(data)


def weights_text(checkpoint: dict[str, Any]) -> str:
    count = len(checkpoint["averaged"])
    average = f"average of {count} checkpoint{'s' * (count != 1)}" if count else "not averaged"
    ema = {True: "EMA weights", False: "no EMA", None: "EMA not recorded"}[checkpoint["ema"]]
    return f"{average}, {ema}"


def sentences_text(data: dict[str, Any]) -> str:
    text = f"{data['decoded']} of {data['sentences']} decoded"
    if data["shards"] > 1:
        return f"{text} (shard {data['shard']} of {data['shards']}, counted from 0)"
    return text + (f", {data['skipped']} SKIPPED" if data["skipped"] else "")


def decoding_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each fact, but both beams on one line, with the number of candidates."""
    facts = dict(report["decoding"])
    if "length_beam" in facts and "noise_beam" in facts:
        lengths, noises, kind = (facts.pop(name, None) for name in ("length_beam", "noise_beam", "length_beam_kind"))
        count = noises * (lengths if isinstance(lengths, int) else 1)  # an oracle's length is one, and has a name
        how = f" ({kind})" if kind and lengths != 1 and isinstance(lengths, int) else ""
        facts["candidates"] = f"length beam {lengths}{how} x noise beam {noises} = {count}"
    by = facts.pop("rescored_by", "probability")  # older reports have none
    if facts.get("rescored"):
        facts["rescored"] = f"yes, by the {by} of {report['checkpoints'][-1]['path']}"
    if facts.get("oracle_length"):
        del facts["oracle_length"]
        facts["ORACLE LENGTH"] = ORACLE
    for name in (*FIRST, *sorted(facts.keys() - {*FIRST, *LAST}), *LAST):
        if name in facts:
            yield NAMES.get(name, name.replace("_", " ")), value_text(facts[name]) + UNITS.get(name, "")


def value_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {value_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def score_rows(scores: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, label in (("tokenised", "tokenised BLEU"), ("sacrebleu", "sacreBLEU")):
        score = scores[name]
        if "unavailable" in score:
            yield label, f"not available: {score['unavailable']}"
            continue
        yield (
            label,
            f"{score['bleu']:.2f} (brevity penalty {score['brevity_penalty']:.3f}, length ratio "
            f"{score['length_ratio']:.3f}, {score['sentences']} sentences)",
        )
        own = f"against the data's own references; BPE {score['bpe']}" if name == "tokenised" else raw_text(score)
        yield "", own
        yield "", score["signature"]


def raw_text(score: dict[str, Any]) -> str:
    missing = f"; {score['missing']} MISSING, scored as empty" if score["missing"] else ""
    shard = "; of this shard alone" if score["shard_alone"] else ""
    return f"against {score['reference']}; BPE removed, detokenised by {score['detokenised']}{missing}{shard}"


def last_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    speed, here = report["speed"], report["environment"]
    quiet = "" if speed["printed"] else ", without printing (--quiet)"
    yield "sentences/s", f"{rate_text(speed['end_to_end'])} end to end{quiet}"
    yield "", f"{rate_text(speed['inference_step'])} inside inference_step"
    if speed["model"]:
        yield "", f"{rate_text(speed['model'])} inside encoder and sampler"
    if speed.get("compile_seconds"):  # older reports have none
        yield "compiling", f"{speed['compile_seconds']:.2f} s of this run, not inside encoder and sampler"
    yield "loading", f"{speed['loading_seconds']:.2f} s before the first batch, not counted above"
    limits = [f"{speed[f'max_{what}']} {what}" for what in ("sentences", "tokens") if speed[f"max_{what}"]]
    yield "batches", f"up to {' and '.join(limits)}"
    yield "device", f"{here['device']}, {here['precision']}"
    yield (
        "versions",
        f"torch {here['torch']}, {here['fairseq']}, python {here['python']}, fairseq-diffusion "
        f"{here['fairseq_diffusion']}",
    )


def rate_text(rate: dict[str, Any]) -> str:
    speed = rate["sentences_per_second"]
    return f"{'unknown' if speed is None else f'{speed:.2f}'} in {rate['seconds']:.3f} s"
