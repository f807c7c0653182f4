"""Translations in one pass: train the systems that write so on the toy language, decode, compare.

    make one-pass        (or: .venv/bin/python examples/toy/one_pass.py --help)

Everything is left in a new folder runs/one-pass-N: corpus, data-bin, checkpoints, logs, translations and the table, as
text and as JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from chain import Job, StageFailed, build, decode_all, recipe_of, save, slug
from systems import (
    AR,
    CMLM,
    DAG,
    DIFFGLAT_2,
    DIFFGLAT_3,
    DIFFGLAT_6,
    DIFFGLAT_CTC,
    DIFFGLAT_DAG,
    DSLP,
    GLAT,
    GLAT_CTC,
    NAT,
    ONE_PASS,
    Recipe,
    add_flags,
    flags_given,
)
from table import LEFT_TO_RIGHT, Row, cells, notes, render

from fairseq_diffusion.errors import UserError

WAYS = (  # in the table's order
    (AR, "beam 5", "--beam 5"),
    (NAT, "1 pass", ""),
    (GLAT, "1 pass", ""),
    (GLAT_CTC, "1 pass", ""),
    (DSLP, "1 pass", ""),
    (CMLM, "10 passes", "--passes 10"),
    (CMLM, "1 pass", "--passes 1"),
    (DAG, "lookahead", "--path-search lookahead"),
    (DAG, "joint Viterbi", "--path-search joint_viterbi"),
    (DAG, "beam 5", "--path-search beam --beam 5"),
    (DIFFGLAT_2, "1 pass", ""),
    (DIFFGLAT_3, "1 pass", ""),
    (DIFFGLAT_6, "1 pass", ""),
    (DIFFGLAT_6, "1 pass, exit at 3", "--exit-block 3"),
    (DIFFGLAT_6, "3 passes", "--passes 3"),
    (DIFFGLAT_6, "5 lengths, joint", "--iter-decode-with-beam 5 --selection joint"),
    (DIFFGLAT_CTC, "1 pass", ""),
    (DIFFGLAT_DAG, "lookahead", ""),
)
ABOUT = {
    "1 pass, exit at 3": f"{DIFFGLAT_6}, exit at 3: read off the third of six blocks; the others are not computed.",
    "5 lengths, joint": "5 lengths, joint: the likeliest of five, the length's probability counted in.",
}
COLUMNS = ("system", "decoding", "calls", "BLEU", "unambiguous", "valid", "mixed", "sentences/s")


def main() -> int:
    options = arguments()
    begun = time.time()
    try:
        folder, recipe = (again if options.run else anew)(options)
        print("decoding", flush=True)
        rows = decode_all(jobs(options.systems or recipe.systems), folder, folder, recipe.seed)
    except (StageFailed, UserError) as failure:
        print(f"one_pass: {failure}", file=sys.stderr)
        return 1
    save(folder, "table", table(rows) + "\n", folder, recipe, rows)
    print(f"took {(time.time() - begun) / 60:.1f} minutes")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where to make the new folder (runs)")
    parser.add_argument("--run", type=Path, help="decode this trained run again, and write its table anew")
    names = {slug(name): name for name in ONE_PASS}
    parser.add_argument(
        "--systems", nargs="+", choices=names, metavar="NAME", help=f"which systems (all: {' '.join(names)})"
    )
    add_flags(parser, ONE_PASS)
    options = parser.parse_args()
    options.systems = [name for key, name in names.items() if key in (options.systems or ())]
    if options.run and (given := flags_given(options)):
        parser.error(f"--run trains nothing, so drop --{next(iter(given)).replace('_', '-')}")
    return options


def anew(options: argparse.Namespace) -> tuple[Path, Recipe]:
    """A new run."""
    recipe = Recipe.of(options.systems or ONE_PASS, **flags_given(options))
    return build(options.runs, "one-pass", recipe), recipe


def again(options: argparse.Namespace) -> tuple[Path, Recipe]:
    """A run that is trained."""
    return options.run.resolve(), recipe_of(options.run, "one-pass", options.systems)


def jobs(systems: Iterable[str]) -> list[Job]:
    return [Job(*way) for way in WAYS if way[0] in systems]


def table(rows: Sequence[Row]) -> str:
    about = [text for how, text in ABOUT.items() if any(row.how == how for row in rows)]
    beam = [LEFT_TO_RIGHT] if any(row.system == AR for row in rows) else []
    said = [*about, *notes(rows, COLUMNS), *beam]
    return render(list(COLUMNS), [cells(row, *COLUMNS) for row in rows], said)


if __name__ == "__main__":
    raise SystemExit(main())
