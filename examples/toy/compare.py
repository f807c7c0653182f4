"""Solvers, steps, early exit and selection: the demo's two diffusion systems, decoded in many ways.

    make compare         (or: .venv/bin/python examples/toy/compare.py --help)

Takes the systems of runs/demo-full, which is made first if it is not complete. The tables, as text and as JSON, are
written to runs/compare, with the translations and logs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from chain import Job, decode_all, demo_run, main, save, working_in
from systems import DIFFORMER, DINOISER
from table import Row, by_measure, cells, notes, number, render

SAMPLERS = {  # each system's own first
    DINOISER: ("cedi", "ddim", "dpmpp_2m"),
    DIFFORMER: ("ddpm", "ddim", "cedi", "dpmpp_2m"),
}
ONE_BY_EIGHT = "--noise-beam 8 --selection mbr"
FIVE_BY_FIVE = "--iter-decode-with-beam 5 --noise-beam 5"
SELECTIONS = {
    "score": "--selection score",
    "joint": "--selection joint",
    "joint:5,mbr": "--selection joint:5,mbr",
    "mbr": "--selection mbr",
    "mbr, chrF": "--selection mbr --mbr-utility chrf",
    "mbr_two_level": "--selection mbr_two_level",
    "rescore": "--selection rescore",
    "mbr:5,rescore": "--selection mbr:5,rescore",
}


class Part(NamedTuple):
    """One of the tables: what it is about, what is decoded for it at the given numbers of steps, and its text."""

    name: str
    title: str
    jobs: Callable[[Sequence[int]], list[Job]]
    table: Callable[[Sequence[Row]], str]


def compare() -> None:
    options = arguments()
    made, recipe = demo_run(options.run)
    with working_in(options.out):
        base = Path(os.path.relpath(made))
        for part in (part for part in PARTS if part.name in options.tables):
            rows = decode_all(part.jobs(options.steps), recipe.seed, base)
            save(f"compare-{part.name}", f"{part.title}\n\n{part.table(rows)}\n", recipe, rows, base)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a complete run of the full demo (runs/demo-full)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder to write to (runs/compare)")
    parser.add_argument("--steps", type=rising, default=[5, 10, 20], help="decoding steps, rising (5,10,20)")
    names = [part.name for part in PARTS]
    parser.add_argument("--tables", nargs="+", choices=names, default=names, help=f"which tables ({' '.join(names)})")
    return parser.parse_args()


def rising(text: str) -> list[int]:
    """ "5,10,20"; candidates are pruned after a quarter and a half of the last, which therefore is 4 at least."""
    numbers = [int(part) for part in text.split(",")]
    if numbers != sorted(set(numbers)) or numbers[0] < 1 or numbers[-1] < 4:
        raise argparse.ArgumentTypeError(
            f"{text!r} should be rising numbers, the last of them 4 or more, as in 5,10,20"
        )
    return numbers


# -- solvers and steps ----------------------------------------------------------------------------------------------


def solver_jobs(steps: Sequence[int]) -> list[Job]:
    return [
        Job(system, sampler, f"--sampler {sampler}", count)
        for system, samplers in SAMPLERS.items()
        for sampler in samplers
        for count in steps
    ]


def solver_table(rows: Sequence[Row]) -> str:
    """One line a system and sampler; each measure has a column for every number of steps."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.system, row.how), []).append(row)
    measures = ("BLEU", "unambiguous", "valid", "calls")
    counts = list(dict.fromkeys(str(row.steps) for row in rows))
    body = [
        (*line, *(cell for measure in measures for row in found for cell in cells(row, measure)))
        for line, found in lines.items()
    ]
    legend = [
        f"{', '.join(counts)}: decoding steps, of which {DIFFORMER} leaves out the last quarter, rounded down.",
        *notes(rows, measures),
    ]
    return render(["system", "sampler", *by_measure(measures, counts)], body, legend)


# -- early exit -----------------------------------------------------------------------------------------------------


def early_exit_jobs(steps: Sequence[int]) -> list[Job]:
    """Eight noises at the likeliest length, each system with its own sampler."""
    quarter, half = steps[-1] // 4, steps[-1] // 2
    stable, once, twice = "--stop-stable 4", f"--prune-after {quarter}", f"--prune-after {quarter},{half}"
    return [
        Job(system, flags or "all steps", f"--sampler {own} {ONE_BY_EIGHT} {flags}", steps[-1])
        for system, (own, *_) in SAMPLERS.items()
        for flags in ("", "--stop-stable 2", stable, once, twice, f"{stable} {twice}")
    ]


def early_exit_table(rows: Sequence[Row]) -> str:
    all_steps = {row.system: row for row in reversed(rows)}  # the first of each system
    body = [
        (
            *cells(row, "system", "decoding", "calls"),
            number(1 - row.calls / all_steps[row.system].calls, ".0%"),
            *cells(row, "BLEU"),
            number(row.bleu - all_steps[row.system].bleu, "+.2f"),
            *cells(row, "sentences/s"),
        )
        for row in rows
    ]
    head = ["system", "candidates", "calls", "saved", "BLEU", "change", "sentences/s"]
    legend = [
        how_decoded(rows),
        "--stop-stable 2 (4): a candidate is finished once its words stayed the same at two (four) checks, one a step.",
        "--prune-after: after these steps the worse half, by score, is dropped; MBR selects among the others.",
        "saved, change: network calls and BLEU against the line in which all candidates run all steps.",
        *notes(rows, head),
    ]
    return render(head, body, legend)


def how_decoded(rows: Sequence[Row]) -> str:
    own = ", ".join(f"{system} {samplers[0]}" for system, samplers in SAMPLERS.items())
    return f"{rows[0].steps} decoding steps (of which {DIFFORMER} leaves out a quarter), samplers {own}."


# -- selection ------------------------------------------------------------------------------------------------------


def selection_jobs(steps: Sequence[int]) -> list[Job]:
    """The same five lengths with five noises each in every line of a system."""
    return [
        Job(system, how, f"--sampler {own} {FIVE_BY_FIVE} {flags}", steps[-1])
        for system, (own, *_) in SAMPLERS.items()
        for how, flags in SELECTIONS.items()
    ]


def selection_table(rows: Sequence[Row]) -> str:
    names = ["system", "decoding", "BLEU", "unambiguous", "valid", "mixed", "sentences/s"]
    legend = [
        how_decoded(rows),
        "--selection: every line of a system selects among the same candidates; the Transformer rescores.",
        *notes(rows, names),
    ]
    return render(["system", "--selection", *names[2:]], [cells(row, *names) for row in rows], legend)


PARTS = (
    Part("solvers", "Solvers and steps: one candidate a sentence", solver_jobs, solver_table),
    Part("early_exit", "Early exit: 1 length x 8 noises, MBR", early_exit_jobs, early_exit_table),
    Part("selection", "Selection among 5 lengths x 5 noises", selection_jobs, selection_table),
)


if __name__ == "__main__":
    raise SystemExit(main("compare", compare))
