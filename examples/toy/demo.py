"""The main job, small: generate a toy corpus, train a Transformer and three diffusion models, decode, compare.

    make demo            (or: .venv/bin/python examples/toy/demo.py --help)

Everything is left in a new folder runs/demo-N: corpus, data-bin, checkpoints, logs, translations, table and picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from chain import Job, Stage, StageFailed, build, decode_all, program, run
from systems import AR, DEMO, DIFFORMER, DINOISER, PLAIN, Recipe, add_flags, flags_given
from table import COLUMNS, LEFT_TO_RIGHT, Row, cells, notes, render

from fairseq_diffusion.errors import UserError
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


def main() -> int:
    options = arguments()
    recipe = Recipe.of(DEMO, **flags_given(options))
    begun = time.time()
    try:
        folder = build(options.runs, "demo", recipe)
        print("decoding", flush=True)
        rows = decode_all(jobs(options.steps), folder, folder, recipe.seed)
        picture = draw(folder, Job(*WATCHED, options.steps))
    except (StageFailed, UserError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    text = table(rows)
    (folder / "table.txt").write_text(text + "\n")
    print(f"\n{text}\n\npicture: {picture}\ntook {(time.time() - begun) / 60:.1f} minutes")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where to make the new folder (runs)")
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


def draw(folder: Path, job: Job) -> Path:
    """Loss, sigma_min, loss by noise level, and an ambiguous sentence on its way through the steps."""
    language, split = read_language(folder / "corpus"), read_split(folder / "corpus", "test")
    ambiguous = [i for i, source in enumerate(split.sources) if language.is_ambiguous(source)]
    sentence = max(ambiguous, key=lambda i: len(split.sources[i].split()))
    logs = " ".join(str(Stage(f"train {name}", "", folder).log.relative_to(folder)) for name in (DINOISER, PLAIN))
    what = f"--log {logs} --generate {job.output}/generate-test.txt --sentence {sentence}"
    run(Stage("draw", f"{program('fairseq-diffusion')} plot {what} --output picture.png", folder))
    return folder / "picture.png"


if __name__ == "__main__":
    raise SystemExit(main())
