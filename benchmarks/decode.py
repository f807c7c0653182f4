"""Decoding: sentences a second and latency, against fairseq's beam search and CTranslate2 with the same weights.

    .venv/bin/python benchmarks/decode.py                    (CPU, minutes)
    .venv/bin/python benchmarks/decode.py --device cuda      (GPU)

All are of one size (IWSLT: 512 wide, 1024 inside, 4 heads, 6 + 6 layers, 10,000 entries in one dictionary), have
random weights, and are made to write as many words as the source has: 22 to 26, or where a batch is written to one
length, their mean.  `generator` counts what fairseq-generate's own figure counts: a batch of tokens in, hypotheses out,
candidates chosen.  `end to end` also counts reading lines of text, batching, and turning tokens into text.  Latency is
that of the generator for one sentence at a time, of one system after the other.  Rates are those of the best of
--batches (on a CPU one size a family, unless more are asked for); in them all take turns, so that a busy machine slows
all alike.  Ratios are against fairseq's beam of 5 in fp32, the last one against the naive form of the same system
(naive.py).  DINOISER and Difformer take all of their steps, K noises of one length, and choose by MBR; MDLM and RDM
have one candidate.  What compiling or recording steps takes is reported separately, and in no other figure.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import networks
import numpy as np
import torch
from common import Row, filled, flags, iqr, median, progress, report, synchronize
from decoders import AR, DIFFUSION, TOKENS, System, step_by_step, word_by_word, word_diffusion
from single_pass import all_in_one_pass

from fairseq_diffusion.translators.execution import EXECUTIONS

WORDS, STEPS, PASS = FAMILIES = ("words", "steps", "pass")
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"hidden": 16, "vocabulary": 60, "latency": 2, "steps": [2, 4], "executions": ["eager"]},
    "cpu": {"hidden": 512, "vocabulary": 10_000, "latency": 3, "steps": [4, 5, 10, 20], "executions": ["eager"]},
    "cuda": {
        "hidden": 512,
        "vocabulary": 10_000,
        "latency": 25,
        "steps": [4, 5, 10, 20],
        "executions": ["eager", "cuda_graph"],
    },
}
# Sentences in a batch, by family; of systems with 5 candidates half as many on a CPU, which they fill as well.
BATCHES = {
    "quick": {WORDS: [2], STEPS: [2], PASS: [2]},
    "cpu": {WORDS: [32], STEPS: [8], PASS: [8]},
    "cuda": {WORDS: [256, 1024], STEPS: [256, 1024], PASS: [64, 256]},
}
COLUMNS = {
    "system": ("system", ""),
    "in": ("precision", ""),
    "K": ("candidates", "d"),
    "steps": ("steps", "d"),
    "compile s": ("compile_seconds", ".1f"),
    "p50 ms": ("p50_ms", ".1f"),
    "p95": ("p95_ms", ".1f"),
    "p50 ratio": ("latency_ratio", ".2f"),
    "sentences/s": ("generator_rate", ".1f"),
    "end to end": ("rate", ".1f"),
    "batch": ("batch", "d"),
    "ratio": ("ratio", ".2f"),
    "to naive": ("naive_ratio", ".2f"),
}


def main() -> int:
    options = arguments()
    torch.manual_seed(1)
    rows = timed(systems(options), options)
    for row in rows:
        row |= ratios(row, rows)
    report(rows, options, COLUMNS, also={"lengths": networks.LENGTHS})
    return 0


def ratios(row: Row, rows: list[Row]) -> Row:
    """Against fairseq's beam search, and against the naive form where it is of as many candidates and steps."""
    baseline = next(other for other in rows if other["system"] == AR and other["precision"] == "fp32")
    like = {**row, "system": f"{row['preset']}, naive"}
    naive = [other for other in rows if all(other[key] == like[key] for key in ("system", "candidates", "steps"))]
    return {
        "latency_ratio": baseline["p50_ms"] / row["p50_ms"],
        "ratio": row["generator_rate"] / baseline["generator_rate"],
        "naive_ratio": row["generator_rate"] / naive[0]["generator_rate"] if naive else None,
    }


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=3)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES, help="beside word by word (all)")
    parser.add_argument("--hidden", type=int, help="width of all networks, twice as wide inside (512)")
    parser.add_argument("--vocabulary", type=int, help="entries of the joined dictionary (10000)")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes of all systems (by family and device)")
    parser.add_argument("--steps", type=int, nargs="+", help="of DINOISER and Difformer (4 5 10 20)")
    parser.add_argument(
        "--executions", nargs="+", choices=EXECUTIONS, help="of steps in bf16 (eager, on a GPU also cuda_graph)"
    )
    parser.add_argument("--latency", type=int, help="sentences translated one at a time (4, on a GPU 25)")
    options = parser.parse_args()
    return filled(options, SIZES)


def systems(options: argparse.Namespace) -> list[tuple[System, list[int]]]:
    """All systems, with the sizes of batches to try."""
    hidden = {"hidden": options.hidden, "inner": 2 * options.hidden}
    size = networks.size_of("difformer_iwslt_de_en", **hidden)
    found = {WORDS: word_by_word(size, options)}
    if STEPS in options.families:
        found[STEPS] = [system for name in DIFFUSION for system in step_by_step(name, size, options)]
        found[STEPS] += [system for name in TOKENS for system in word_diffusion(name, size, options)]
    if PASS in options.families:
        found[PASS] = all_in_one_pass(size, "fp32" if options.device == "cpu" else "fp16", options)
    sizes = BATCHES["quick" if options.quick else options.device]
    return [
        (system, options.batches or own_batches(system, sizes[family], options.device))
        for family, members in found.items()
        for system in members
    ]


def own_batches(system: System, sizes: list[int], device: str) -> list[int]:
    return [size // 2 for size in sizes] if device == "cpu" and system.candidates > 1 else sizes


def timed(systems: list[tuple[System, list[int]]], options: argparse.Namespace) -> list[Row]:
    """Latency of one after the other, which also warms them up; then all batches in turns."""
    latencies = [latency(system, options) for system, _ in systems]
    rounds = [[timings(system, sizes, options) for system, sizes in systems] for _ in range(options.repeats)]
    return [
        {**of_system(system), **latencies[i], **best_batch([turn[i] for turn in rounds])}
        for i, (system, _) in enumerate(systems)
    ]


def of_system(system: System) -> Row:
    kept = ("precision", "candidates", "steps", "preset")
    facts = {name: getattr(system, name) for name in kept}
    return {"system": system.name, **facts, "compile_seconds": system.compile_seconds()}


def latency(system: System, options: argparse.Namespace) -> Row:
    """Of one sentence at a time, after one that is not counted."""
    sizes = networks.lengths(options.latency)
    times = [timing(system, [size], i, options)["generator_ms"] for i, size in enumerate([sizes[0], *sizes])][1:]
    p50, p95 = (float(np.percentile(times, share)) for share in (50, 95))
    progress(f"{system.name}, {system.precision}, {system.candidates} x {system.steps}: {p50:.1f} ms a sentence")
    return {"p50_ms": p50, "p95_ms": p95, "latencies": len(times)}


def timings(system: System, sizes: list[int], options: argparse.Namespace) -> dict[int, Row]:
    """A batch of each size."""
    found = {size: timing(system, networks.lengths(size), size, options) for size in sizes}
    rates = ", ".join(f"{1000 * size / row['ms']:.1f} in batches of {size}" for size, row in found.items())
    progress(f"{system.name}, {system.precision}, {system.candidates} x {system.steps}: sentences/s {rates}")
    return found


def timing(system: System, sizes: list[int], seed: int, options: argparse.Namespace) -> Row:
    """Milliseconds of a batch, as a whole and inside the generator, without those of compiling."""
    entries = networks.dictionary(options.vocabulary)
    sentences = networks.random_words(sizes, options.vocabulary, seed)
    texts = [" ".join(entries[number] for number in words.tolist()) for words in sentences]
    synchronize(options.device)
    compiled, begun = system.compile_seconds(), time.perf_counter()
    batch = system.encode(texts)
    encoded = time.perf_counter()
    outputs = system.generate(batch, round(sum(sizes) / len(sizes)))
    synchronize(options.device)
    generated = time.perf_counter()
    system.decode(outputs)
    ended, compiling = time.perf_counter(), system.compile_seconds() - compiled
    return {"ms": 1000 * (ended - begun - compiling), "generator_ms": 1000 * (generated - encoded - compiling)}


def best_batch(turns: list[dict[int, Row]]) -> Row:
    """Rates in the batch size that does the most sentences a second, and the times of all."""
    times = {size: {key: [turn[size][key] for turn in turns] for key in turns[0][size]} for size in turns[0]}
    best = min(times, key=lambda size: median(times[size]["generator_ms"]) / size)
    own = times[best]
    return {
        "batch": best,
        "ms": median(own["ms"]),
        "iqr_ms": iqr(own["ms"]),
        "generator_ms": median(own["generator_ms"]),
        "generator_iqr_ms": iqr(own["generator_ms"]),
        "rate": 1000 * best / median(own["ms"]),
        "generator_rate": 1000 * best / median(own["generator_ms"]),
        "repeats": len(turns),
        "times": times,
    }


if __name__ == "__main__":
    raise SystemExit(main())
