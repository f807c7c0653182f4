"""The main job, small: generate a toy corpus, train a Transformer and diffusion models, decode, compare.

    make demo            Transformer, vanilla NAT and DINOISER, trained briefly (or: examples/toy/demo.py --help)
    make demo-full       Transformer, DINOISER with and without clipping and Difformer, trained longer (--full)

Everything is written to runs/demo (or runs/demo-full): corpus, data-bin, checkpoints, logs, translations, table and
picture. A second call continues what is not complete, and makes again what its flags change; to train all again, pass
another folder as --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from chain import Job, build, decode_all, main, run, save, slug, step, working_in
from systems import AR, DEMO, DIFFORMER, DIFFUSION, DINOISER, FULL_DEMO, NAT, PLAIN, Recipe, add_flags, flags_given
from table import COLUMNS, LEFT_TO_RIGHT, Row, cells, notes, render

from fairseq_diffusion.toy.corpus import read_language, read_split

SHORT = {DINOISER: 800, NAT: 350, AR: 700}  # updates; the full demo has those of the table of systems
ONE_BY_FIVE = "--noise-beam 5"
FIVE_BY_FIVE = "--iter-decode-with-beam 5 --noise-beam 5"
WATCHED = (DINOISER, "CeDi", "--sampler cedi --retain-iter-history")  # the one that the picture shows
WAYS = (
    (AR, "beam 5", "--beam 5"),
    (NAT, "1 pass", ""),
    WATCHED,
    (DINOISER, "DDIM", "--sampler ddim"),
    (DINOISER, "CeDi, 1 x 5, MBR", f"--sampler cedi {ONE_BY_FIVE} --selection mbr"),
    (DINOISER, "CeDi, 5 x 5, MBR", f"--sampler cedi {FIVE_BY_FIVE} --selection mbr_two_level"),
    (DINOISER, "DDIM, 5 x 5, MBR", f"--sampler ddim {FIVE_BY_FIVE} --selection mbr_two_level"),
    (DINOISER, "CeDi, 5 x 5, rescored", f"--sampler cedi {FIVE_BY_FIVE} --selection rescore"),
    (PLAIN, "CeDi", "--sampler cedi"),
    (PLAIN, "DDIM", "--sampler ddim"),
    (DIFFORMER, "DDPM", "--sampler ddpm"),
    (DIFFORMER, "DDPM, 1 x 5, MBR", f"--sampler ddpm {ONE_BY_FIVE} --selection mbr"),
)


def demo() -> None:
    options = arguments()
    systems, usual = (FULL_DEMO, None) if options.full else (DEMO, SHORT)
    recipe = Recipe.of(systems, usual, **flags_given(options))
    with working_in(options.out or Path("runs/demo-full" if options.full else "runs/demo")):
        build(recipe)
        rows = decode_all(jobs(recipe, options), recipe.seed)
        draw(Job(*WATCHED, options.steps), recipe)
        save("table", table(rows) + "\n", recipe, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the full demo")
    parser.add_argument("--out", type=Path, help="folder to write to (runs/demo; with --full runs/demo-full)")
    add_flags(parser, FULL_DEMO, SHORT)
    parser.add_argument("--steps", type=int, default=20, help="decoding steps (20)")
    options = parser.parse_args()
    if not options.full and any(name.startswith("difformer") for name in flags_given(options)):
        parser.error(f"the short demo trains no {DIFFORMER}: pass --full, or drop its flags")
    return options


def jobs(recipe: Recipe, options: argparse.Namespace) -> list[Job]:
    """What is decoded, in the table's order; five lengths with five noises take too long for the short demo."""
    ways = [way for way in WAYS if way[0] in recipe.systems and (options.full or FIVE_BY_FIVE not in way[2])]
    return [Job(*way, options.steps if way[0] in DIFFUSION else 0) for way in ways]


def table(rows: Sequence[Row]) -> str:
    legend = [
        "decoding: K x N is K lengths with N noises each; rescored: chosen by the Transformer's score.",
        *notes(rows, list(COLUMNS)),
        LEFT_TO_RIGHT,
    ]
    if any(row.system == DIFFORMER for row in rows):
        legend.append(f"{DIFFORMER} leaves out the last quarter of its steps.")
    return render(list(COLUMNS), [cells(row, *COLUMNS) for row in rows], legend)


def draw(job: Job, recipe: Recipe) -> None:
    """Loss, sigma_min, loss by noise level, and an ambiguous sentence on its way through the steps."""
    language, split = read_language("corpus"), read_split("corpus", "test")
    ambiguous = [i for i, source in enumerate(split.sources) if language.is_ambiguous(source)]
    sentence = max(ambiguous, key=lambda i: len(split.sources[i].split()))
    logs = [f"logs/train-{slug(name)}.log" for name in (DINOISER, PLAIN) if name in recipe.systems]
    shown = f"--log {' '.join(logs)} --generate {job.output}/generate-test.txt --sentence {sentence}"
    command = f"fairseq-diffusion plot {shown} --output picture.png"
    run(step("picture", [*logs, job.output], "picture.png", command))


if __name__ == "__main__":
    raise SystemExit(main("demo", demo))
