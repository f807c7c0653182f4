"""One-pass systems: train them on the toy language, decode, compare.

    make one-pass        (or: .venv/bin/python examples/toy/one_pass.py --help)

Everything is written to runs/one-pass: corpus, data-bin, checkpoints, logs, translations and the table, as text and as
JSON. A second call continues what is not complete, and makes again what its flags change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from chain import Job, build, decode_all, main, save, slug, working_in
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


def one_pass() -> None:
    options = arguments()
    recipe = Recipe.of(options.systems, **flags_given(options))
    with working_in(options.out):
        build(recipe)
        rows = decode_all(jobs(options.systems), recipe.seed)
        save("table", table(rows) + "\n", recipe, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/one-pass"), help="folder to write to (runs/one-pass)")
    names = {slug(name): name for name in ONE_PASS}
    parser.add_argument(
        "--systems", nargs="+", choices=names, metavar="NAME", help=f"which systems (all: {' '.join(names)})"
    )
    add_flags(parser, ONE_PASS)
    options = parser.parse_args()
    options.systems = [name for key, name in names.items() if key in (options.systems or names)]
    return options


def jobs(systems: Iterable[str]) -> list[Job]:
    return [Job(*way) for way in WAYS if way[0] in systems]


def table(rows: Sequence[Row]) -> str:
    about = [text for how, text in ABOUT.items() if any(row.how == how for row in rows)]
    beam = [LEFT_TO_RIGHT] if any(row.system == AR for row in rows) else []
    legend = [*about, *notes(rows, COLUMNS), *beam]
    return render(list(COLUMNS), [cells(row, *COLUMNS) for row in rows], legend)


if __name__ == "__main__":
    raise SystemExit(main("one_pass", one_pass))
