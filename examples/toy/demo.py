"""The main job, small: generate a toy corpus, train a Transformer and three diffusion models, decode, compare.

    make demo            (or: .venv/bin/python examples/toy/demo.py --help)

Everything is written to runs/demo: corpus, data-bin, checkpoints, logs, translations, table and picture. A second call
continues what is not complete, and makes again what its flags change; to train all again, pass another folder as --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from chain import Job, build, decode_all, main, run, save, slug, step, working_in
from systems import AR, DEMO, DIFFORMER, DINOISER, PLAIN, Recipe, add_flags, flags_given
from table import COLUMNS, LEFT_TO_RIGHT, Row, cells, notes, render

from fairseq_diffusion.toy.corpus import read_language, read_split

ONE_BY_FIVE = "--noise-beam 5"
FIVE_BY_FIVE = "--iter-decode-with-beam 5 --noise-beam 5"
WATCHED = (DINOISER, "CeDi", "--sampler cedi --retain-iter-history")  # the one that the picture shows
WAYS = (
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
    recipe = Recipe.of(DEMO, **flags_given(options))
    with working_in(options.out):
        build(recipe)
        rows = decode_all(jobs(options.steps), recipe.seed)
        draw(Job(*WATCHED, options.steps))
        save("table", table(rows) + "\n", recipe, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write to (runs/demo)")
    add_flags(parser, DEMO)
    parser.add_argument("--steps", type=int, default=20, help="decoding steps (20)")
    return parser.parse_args()


def jobs(steps: int) -> list[Job]:
    """What is decoded, in the table's order."""
    return [Job(AR, "beam 5", "--beam 5"), *[Job(*way, steps) for way in WAYS]]


def table(rows: Sequence[Row]) -> str:
    said = [
        "decoding: 5 x 5 is five lengths with five noises each; rescored: chosen by the Transformer's score.",
        *notes(rows, list(COLUMNS)),
        f"{DIFFORMER} leaves out the last quarter of its steps. {LEFT_TO_RIGHT}",
    ]
    return render(list(COLUMNS), [cells(row, *COLUMNS) for row in rows], said)


def draw(job: Job) -> None:
    """Loss, sigma_min, loss by noise level, and an ambiguous sentence on its way through the steps."""
    language, split = read_language("corpus"), read_split("corpus", "test")
    ambiguous = [i for i, source in enumerate(split.sources) if language.is_ambiguous(source)]
    sentence = max(ambiguous, key=lambda i: len(split.sources[i].split()))
    logs = [f"logs/train-{slug(name)}.log" for name in (DINOISER, PLAIN)]
    shown = f"--log {' '.join(logs)} --generate {job.output}/generate-test.txt --sentence {sentence}"
    command = f"fairseq-diffusion plot {shown} --output picture.png"
    run(step("picture", [*logs, job.output], "picture.png", command))


if __name__ == "__main__":
    raise SystemExit(main("demo", demo))
