"""Fewer steps: the demo's two diffusion systems, trained on, and their decoding steps halved again and again.

    make progressive     (or: .venv/bin/python examples/toy/progressive.py --help)

Takes the newest complete run of the demo, or trains one where there is none. Students, translations, logs and the
table, as text and as JSON, are left in a new folder progressive-N beside the run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chain import Job, Stage, StageFailed, checkpoint, decode_all, new_folder, recipe_of, save, train, training_of
from compare import find
from systems import DIFFORMER, DINOISER, SYSTEMS
from table import Row, cells, notes, render

from fairseq_diffusion.errors import UserError

HALVED = (DINOISER, DIFFORMER)
TAUGHT = "--sampler ddim --grid time --early-stop 0"  # the decoding that students learn, and all are compared by
LEARNING = "--criterion progressive_distillation --freeze encoder,embeddings"
DEMO, TEACHER, STUDENT = HOWS = ("demo", "teacher", "student")
MEASURES = ("BLEU", "unambiguous", "valid", "mixed")


@dataclass(frozen=True)
class Plan:
    """Whose steps are halved; all numbers of them, from the first teacher's down to 1; how long and fast they learn."""

    systems: Sequence[str]
    steps: list[int]
    updates: int
    teacher_updates: int
    lr: float
    seed: int


def main() -> int:
    options = arguments()
    begun = time.time()
    try:
        made = find(options.run, options.runs).resolve()
        recipe = recipe_of(made, "demo", options.systems)
        plan = Plan(options.systems, options.steps, options.updates, options.teacher_updates, options.lr, recipe.seed)
        folder = new_folder(made.parent, "progressive")
        print(f"halving the steps of the systems of {made}; everything goes to {folder}", flush=True)
        base = Path(os.path.relpath(made, folder))
        for side_by_side in trainings(folder, base, plan):
            train(side_by_side)
        rows = decode_all(jobs(base, plan), made, folder, recipe.seed)
    except (StageFailed, UserError) as failure:
        print(f"progressive: {failure}", file=sys.stderr)
        return 1
    save(folder, "progressive", table(rows, plan) + "\n", made, recipe, rows)
    print(f"took {(time.time() - begun) / 60:.1f} minutes")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a complete run of the demo (the newest in --runs)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are, and a new one goes (runs)")
    names = " ".join(HALVED)
    parser.add_argument("--systems", nargs="+", choices=HALVED, default=HALVED, help=f"which systems ({names})")
    parser.add_argument("--steps", type=halvings, default="16", help="steps of the first teacher (16)")
    parser.add_argument("--updates", type=int, default=300, help="updates of each halving (300)")
    parser.add_argument("--teacher-updates", type=int, default=1200, help="more updates of the first teacher (1200)")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate (0.0002)")
    return parser.parse_args()


def halvings(text: str) -> list[int]:
    """ "16" -> [16, 8, 4, 2, 1]."""
    steps = int(text)
    if steps < 2 or steps & (steps - 1):
        raise argparse.ArgumentTypeError(f"{text} steps cannot be halved down to 1; pass 2, 4, 8, 16, ...")
    return [steps >> i for i in range(steps.bit_length())]


# -- training and decoding ------------------------------------------------------------------------------------------
# `base` is the run of the demo, as seen from the new folder.


def path_of(base: Path, system: str, how: str, steps: int) -> Path:
    """The checkpoint of a system: the demo's, the first teacher's, or that of a student of so many steps."""
    if how == DEMO:
        return base / checkpoint(system)
    return checkpoint(f"{system}, {how} of {steps}" if how == STUDENT else f"{system}, {how}")


def trainings(folder: Path, base: Path, plan: Plan) -> list[list[Stage]]:
    """Those of a list are independent of each other; each list needs those before it."""
    rounds = [[halving(folder, base, system, steps, plan) for system in plan.systems] for steps in plan.steps[1:]]
    return [[trained_on(folder, base, system, plan) for system in plan.systems], *rounds]


def halving(folder: Path, base: Path, system: str, steps: int, plan: Plan) -> Stage:
    first = 2 * steps == plan.steps[0]
    teacher = shlex.quote(str(path_of(base, system, TEACHER if first else STUDENT, 2 * steps)))
    flags = f"{LEARNING} --teacher {teacher} --student-steps {steps} --finetune-from-model {teacher}"
    return stage(folder, base, system, f"{system}, {STUDENT} of {steps}", flags, plan.updates, plan)


def trained_on(folder: Path, base: Path, system: str, plan: Plan) -> Stage:
    """With the system's own loss: a student is no better than its teacher, and the demo's is in a hurry."""
    flags = f"--finetune-from-model {shlex.quote(str(path_of(base, system, DEMO, 0)))}"
    return stage(folder, base, system, f"{system}, {TEACHER}", flags, plan.teacher_updates, plan)


def stage(folder: Path, base: Path, system: str, name: str, flags: str, updates: int, plan: Plan) -> Stage:
    """The decoding goes into the checkpoint, for whoever decodes it later."""
    return training_of(
        folder, name, f"{SYSTEMS[system].flags} {flags} {TAUGHT}", updates, plan.lr, plan.seed, base=base
    )


def jobs(base: Path, plan: Plan) -> list[Job]:
    """Every model at every number of steps, students at their own alone."""
    return [
        Job(system, how, TAUGHT, count, path_of(base, system, how, count))
        for system in plan.systems
        for how in HOWS
        for count in (plan.steps[1:] if how == STUDENT else plan.steps)
    ]


# -- the table ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], plan: Plan) -> str:
    """One line a system and number of steps; under each measure a column for each model."""
    found = {(row.system, row.steps, row.how): row for row in rows}
    body = [
        (system, str(steps), *(cell(found.get((system, steps, how)), name) for name in MEASURES for how in HOWS))
        for system in plan.systems
        for steps in plan.steps
    ]
    groups = ["", "", *(word for measure in MEASURES for word in (measure, *[""] * (len(HOWS) - 1)))]
    said = [
        f"{DEMO}: as the demo trained it; {TEACHER}: {plan.teacher_updates} updates more with its own loss.",
        f"{STUDENT}: {plan.updates} updates a halving, from that of twice as many steps, the first from {TEACHER}.",
        f"All are decoded with {TAUGHT}.",
        *notes(rows, MEASURES),
    ]
    return render(["system", "steps", *HOWS * len(MEASURES)], body, said, groups)


def cell(row: Row | None, measure: str) -> str:
    return "-" if row is None else cells(row, measure)[0]


if __name__ == "__main__":
    raise SystemExit(main())
