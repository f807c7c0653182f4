"""How the time of decoding grows with length, sentences, candidates, steps and the dictionary; and where it goes.

    .venv/bin/python benchmarks/scale.py                     (CPU, the toy's size)
    .venv/bin/python benchmarks/scale.py --device cuda       (GPU, the size of IWSLT)

A step-by-step system with random weights writes as many words as the source has, and chooses among candidates by MBR.
Each axis moves alone, from one point; all points of an axis take turns, so that a busy machine slows all alike.

`fit` is how far the straight line through an axis lies above (+) or below (-) the time measured.  `loop` is the time in
the steps, so without the encoder (and the keys and values made of its output), rounding, and what follows it.
`us` is `loop` by steps x candidates x sentences x words, and `flat` how far it is from the axis' middle.  The second
table shows what should not change at all, as the largest of an axis over its smallest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import networks
import numpy as np
import torch
from common import Row, elapsed, flags, iqr, median, print_table, progress, report
from decoders import guess_the_sources

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

WORDS, SENTENCES, CANDIDATES, STEPS, ENTRIES = "words", "sentences", "candidates", "steps", "dictionary"
WHOLE = "whole"
Point = dict[str, int]
START: dict[str, Point] = {
    "quick": {WORDS: 3, SENTENCES: 2, CANDIDATES: 2, STEPS: 2, ENTRIES: 60},
    "cpu": {WORDS: 24, SENTENCES: 8, CANDIDATES: 5, STEPS: 20, ENTRIES: 10_000},
    "cuda": {WORDS: 24, SENTENCES: 64, CANDIDATES: 5, STEPS: 20, ENTRIES: 10_000},
}
AXES: dict[str, dict[str, list[int]]] = {
    "quick": {WORDS: [2, 3], SENTENCES: [1, 2], CANDIDATES: [1, 2], STEPS: [1, 2], ENTRIES: [50, 60]},
    "cpu": {
        WORDS: [12, 24, 48, 96],
        SENTENCES: [2, 4, 8, 16],
        CANDIDATES: [2, 5, 10, 20],
        STEPS: [5, 10, 20, 50],
        ENTRIES: [1000, 10_000, 37_000],
    },
    "cuda": {
        WORDS: [12, 24, 48, 96, 192],
        SENTENCES: [16, 64, 256, 512],
        CANDIDATES: [2, 5, 10, 20, 50],
        STEPS: [5, 10, 20, 50],
        ENTRIES: [1000, 10_000, 37_000],
    },
}
COLUMNS = {
    "axis": ("axis", ""),
    "": ("value", "d"),
    "ms": ("ms", ".1f"),
    "IQR": ("iqr_ms", ".1f"),
    "fit": ("fit", "+.0%"),
    "loop": ("loop_ms", ".1f"),
    "us": ("us", ".2f"),
    "flat": ("flat", "+.0%"),
    "encoder": ("encoder_share", ".1%"),
    "rounding": ("rounding_share", ".1%"),
}
CONSTANT = {"what should not change": ("what", ""), "measured": ("measured", ".3f")}


def main() -> int:
    options = arguments()
    torch.manual_seed(1)
    models = {entries: model_of(options.arch, entries, options.device) for entries in axes(options)[ENTRIES]}
    rows = [row for axis, values in axes(options).items() for row in along(axis, values, models, options)]
    constant = constants(rows, start(options))
    report(rows, options, COLUMNS, also={"constant": constant, "start": start(options)}, precision="fp32")
    print_table(constant, CONSTANT)
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=3)
    parser.add_argument("--arch", help="preset of a diffusion system (difformer_toy; on a GPU difformer_iwslt_de_en)")
    options = parser.parse_args()
    if options.arch is None:
        options.arch = "difformer_iwslt_de_en" if options.device == "cuda" and not options.quick else "difformer_toy"
    return options


def start(options: argparse.Namespace) -> Point:
    return START["quick" if options.quick else options.device]


def axes(options: argparse.Namespace) -> dict[str, list[int]]:
    return AXES["quick" if options.quick else options.device]


def model_of(arch: str, entries: int, device: str) -> Any:
    model = networks.ours(arch, entries)
    guess_the_sources(model.translator.length)
    return model.eval().to(device)


def along(axis: str, values: list[int], models: dict[int, Any], options: argparse.Namespace) -> list[Row]:
    """A row for each point of an axis."""
    points = [{**start(options), axis: value} for value in values]
    decoders = [Decoder(models[point[ENTRIES]], point, options.device) for point in points]
    rounds = [[decoder() for decoder in decoders] for _ in range(options.repeats + 1)][1:]
    rows = [row_of(axis, point, list(found)) for point, found in zip(points, zip(*rounds))]
    slope, constant = np.polyfit(values, [row["ms"] for row in rows], 1)
    middle = median([row["us"] for row in rows])
    for row in rows:
        fit = (slope * row["value"] + constant) / row["ms"] - 1
        row |= {"fit": fit, "slope_ms": slope, "constant_ms": constant, "flat": row["us"] / middle - 1}
        progress(f"{axis} {row['value']}: {row['ms']:.1f} ms, {row['us']:.2f} us a word, candidate and step")
    return rows


def row_of(axis: str, point: Point, found: list[dict[str, float]]) -> Row:
    """Medians of one point's decodings."""
    ms, loop = (median([times[part] for times in found]) for part in (WHOLE, "loop"))
    calls = point[STEPS] * point[CANDIDATES] * point[SENTENCES] * point[WORDS]
    shares = {
        f"{part}_share": median([times[part] / times[WHOLE] for times in found]) for part in ("encoder", "rounding")
    }
    spread = iqr([times[WHOLE] for times in found])
    row = {"axis": axis, "value": point[axis], "ms": ms, "iqr_ms": spread, "loop_ms": loop, "us": 1000 * loop / calls}
    return {**row, **shares, "repeats": len(found)}


def constants(rows: list[Row], point: Point) -> list[Row]:
    """Largest over smallest of what should be flat, and the share of what is outside of the loop."""

    def largest(axis: str, measure: str) -> float:
        found = [row[measure] for row in rows if row["axis"] == axis]
        return max(found) / min(found)

    (here,) = (row for row in rows if row["axis"] == STEPS and row["value"] == point[STEPS])
    outside = here["encoder_share"] + here["rounding_share"]
    return [
        {"what": "us, over the steps", "measured": largest(STEPS, "us")},
        {"what": "us, over the candidates", "measured": largest(CANDIDATES, "us")},
        {"what": "loop, over the dictionaries", "measured": largest(ENTRIES, "loop_ms")},
        {"what": f"encoder and rounding, share of {point[STEPS]} steps", "measured": outside},
    ]


class Decoder:
    """One point: a generator and its batch, whose parts are timed."""

    def __init__(self, model: Any, point: Point, device: str):
        asked = DiffusionOptions(steps=point[STEPS], noise_beam=point[CANDIDATES])
        dictionary = networks.dictionary(point[ENTRIES])
        self.model, self.device = model, device
        self.generator = Generator(model.translator, asked, SelectionOptions("mbr"), dictionary)
        sentences = networks.random_words([point[WORDS]] * point[SENTENCES], point[ENTRIES], seed=1)
        tokens = networks.padded(sentences, left=True).to(device)
        self.batch = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(networks.PAD).sum(-1)}}
        self.parts = {
            "encoder": (model.translator, "encode"),
            "loop": (self.generator.decoder, "_sample"),
            "rounding": (model.translator.state, "round"),
        }

    def __call__(self) -> dict[str, float]:
        """ms of the whole and of its parts."""
        with timed(self.parts, self.device) as spent:
            spent[WHOLE] = elapsed(lambda: self.generator.generate([self.model], self.batch), self.device)
        return spent


@contextmanager
def timed(parts: dict[str, tuple[Any, str]], device: str) -> Iterator[dict[str, float]]:
    """Within it, ms spent in methods: `parts` has whose each is, and its name there."""
    spent = dict.fromkeys(parts, 0.0)

    def watched(part: str, method: Any, *args: Any) -> Any:
        results: list[Any] = []
        spent[part] += elapsed(lambda: results.append(method(*args)), device)
        return results[0]

    for part, (owner, name) in parts.items():
        setattr(owner, name, partial(watched, part, getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name in parts.values():
            delattr(owner, name)  # what hid the method


if __name__ == "__main__":
    raise SystemExit(main())
