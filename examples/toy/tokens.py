"""Diffusion of tokens beside the other systems: train them on the toy language, decode with equal numbers of calls.

    make tokens          (or: .venv/bin/python examples/toy/tokens.py --help)

Everything is written to runs/tokens: corpus, data-bin, checkpoints, logs, translations and two tables, as text and as
JSON: every system, and every sampler with the same checkpoint. A second call continues what is
not complete, and makes again what its flags change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from chain import Job, build, decode_all, main, save, slug, working_in
from systems import (
    AR,
    CDCD,
    CMLM,
    D3PM_ABSORB,
    D3PM_UNIFORM,
    DDCAP,
    DIFFGLAT_3,
    DIFFORMER,
    DIFFUSEQ,
    DIFFUSEQ_V2,
    DIFFUSIONBERT,
    DINOISER,
    GENIE,
    LDDM_FUJI,
    LDDM_SEQ,
    MDLM,
    PLAID,
    RDM_ABSORB,
    RDM_UNIFORM,
    SED,
    SEDD_ABSORB,
    SEDD_UNIFORM,
    SEQDIFFUSEQ,
    SUNDAE,
    TOKENS,
    VECTORS,
    VQ,
    Recipe,
    add_flags,
    flags_given,
)
from table import LEFT_TO_RIGHT, Row, by_measure, cells, notes, render

COMPARED = (AR, CMLM, DIFFGLAT_3, *VECTORS)
WAYS = {  # how each system that takes steps is decoded: the name in the table, and flags
    CMLM: ("mask-predict", ""),
    DIFFGLAT_3: ("passes", ""),
    DINOISER: ("cedi", ""),
    DIFFORMER: ("ddpm", "--early-stop 0"),
    CDCD: ("ddim", "--temperature 0.8"),
    SEQDIFFUSEQ: ("ddpm", ""),
    DIFFUSEQ: ("ddpm", ""),
    DIFFUSEQ_V2: ("dpmpp_2m", ""),
    SED: ("ddpm", ""),
    GENIE: ("ddpm", ""),
    PLAID: ("ddpm", "--temperature 0.9"),
    MDLM: ("confidence", "--sampler confidence"),
    D3PM_ABSORB: ("confidence", "--sampler confidence"),
    D3PM_UNIFORM: ("ancestral, colder", "--word-temperature 0.3"),
    SEDD_ABSORB: ("confidence", "--sampler confidence"),
    SEDD_UNIFORM: ("ancestral, colder", "--word-temperature 0.3"),
    RDM_ABSORB: ("routing", ""),
    RDM_UNIFORM: ("routing", ""),
    DIFFUSIONBERT: ("confidence", "--sampler confidence"),
    VQ: ("ancestral, top-p", "--top-p 0.86"),
    DDCAP: ("confidence", ""),
    SUNDAE: ("resample", ""),
    LDDM_SEQ: ("10 + confidence", "--sampler confidence --latents-steps 10"),
    LDDM_FUJI: ("confidence", "--sampler confidence"),
}
MORE = {LDDM_SEQ: ("2 + confidence", "--sampler confidence --latents-steps 2")}  # another way
SAMPLERS = {  # of one checkpoint whose words were only hidden, and of one whose words were replaced, too
    MDLM: ("ancestral", "remasking", "purity", "confidence", "mask_predict", "routing", "routing_unconditional"),
    VQ: (
        *("ancestral", "purity", "confidence", "mask_predict", "routing", "routing_unconditional"),
        *("resample", "renoise"),
    ),
}
SEQ = "10 + or 2 +: so many small steps make latents, before those of the tokens."
MEASURES = ("BLEU", "unambiguous", "mixed")


def tokens() -> None:
    options = arguments()
    recipe = Recipe.of(options.systems, **flags_given(options))
    with working_in(options.out):
        build(recipe)
        for name, title, jobs in TABLES:
            if wanted := list(jobs(options.systems, options.calls)):
                rows = decode_all(wanted, recipe.seed)
                save(name, f"{title}\n\n{table(rows, options.calls)}\n", recipe, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"), help="folder to write to (runs/tokens)")
    names = {slug(name): name for name in (*COMPARED, *TOKENS)}
    parser.add_argument(
        "--systems", nargs="+", choices=names, metavar="NAME", help=f"which systems (all: {' '.join(names)})"
    )
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[1, 2, 4, 10, 20], help="numbers of steps or passes (1 2 4 10 20)"
    )
    add_flags(parser, tuple(names.values()))
    options = parser.parse_args()
    options.systems = [name for key, name in names.items() if key in (options.systems or names)]
    return options


def system_jobs(systems: Iterable[str], calls: Sequence[int]) -> Iterable[Job]:
    for system in systems:
        if system == AR:
            yield Job(AR, "beam 5", "--beam 5")
        elif system in (CMLM, DIFFGLAT_3):
            yield from (Job(system, *WAYS[system], count, counted="--passes") for count in calls)
        else:
            ways = [ways[system] for ways in (WAYS, MORE) if system in ways]
            yield from (Job(system, *way, count) for way in ways for count in calls)


def sampler_jobs(systems: Iterable[str], calls: Sequence[int]) -> Iterable[Job]:
    for system, samplers in SAMPLERS.items():
        if system in systems:
            yield from (Job(system, name, f"--sampler {name}", count) for name in samplers for count in calls)


TABLES = (
    ("tokens", "Every system: one candidate a sentence", system_jobs),
    ("samplers", "Every sampler of one checkpoint: one candidate a sentence", sampler_jobs),
)


def table(rows: Sequence[Row], calls: Sequence[int]) -> str:
    """One line a system and sampler; each measure has a column for every number of calls."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.system, row.how), []).append(row)
    body = []
    for line, found in lines.items():
        body.append((*line, *(cell for measure in MEASURES for cell in across(found, measure, len(calls)))))
    counts = list(map(str, calls))
    legend = [
        f"{', '.join(counts)}: steps, or passes; samplers that know when tokens are shown make a call only then.",
        *([SEQ] if any(row.system == LDDM_SEQ for row in rows) else []),
        *notes(rows, MEASURES),
        *([LEFT_TO_RIGHT] if any(row.system == AR for row in rows) else []),
    ]
    return render(["system", "decoding", *by_measure(MEASURES, counts)], body, legend)


def across(rows: Sequence[Row], measure: str, columns: int) -> list[str]:
    """A measure at each number of calls; that of a system that takes no steps comes last."""
    found = [cells(row, measure)[0] for row in rows]
    return ["-"] * (columns - len(found)) + found


if __name__ == "__main__":
    raise SystemExit(main("tokens", tokens))
