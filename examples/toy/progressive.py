"""Fewer steps: the demo's two diffusion systems, trained on, and their decoding steps halved again and again.

    make progressive     (or: .venv/bin/python examples/toy/progressive.py --help)

Takes the systems of runs/demo-full, which is made first if it is not complete. Students, translations, logs and the
table, as text and as JSON, are written to runs/progressive. A second call continues what is not complete.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chain import Job, Step, checkpoint, decode_all, demo_run, main, save, train, training_of, working_in
from systems import DIFFORMER, DINOISER, SYSTEMS
from table import Row, by_measure, cells, notes, render

HALVED = (DINOISER, DIFFORMER)
DECODING = "--sampler ddim --grid time --early-stop 0"  # what students are trained for, and all are compared with
DISTILLATION = "--criterion progressive_distillation --freeze encoder,embeddings"
DEMO, TEACHER, STUDENT = HOWS = ("demo", "teacher", "student")
MEASURES = ("BLEU", "unambiguous", "valid", "mixed")


@dataclass(frozen=True)
class Plan:
    """The systems whose steps are halved; the steps, from the first teacher's to 1; settings of the trainings."""

    systems: Sequence[str]
    steps: list[int]
    updates: int
    teacher_updates: int
    lr: float
    seed: int


def progressive() -> None:
    options = arguments()
    made, recipe = demo_run(options.run)
    plan = Plan(options.systems, options.steps, options.updates, options.teacher_updates, options.lr, recipe.seed)
    with working_in(options.out):
        base = Path(os.path.relpath(made))
        for side_by_side in trainings(base, plan):
            train(side_by_side)
        rows = decode_all(jobs(base, plan), recipe.seed, base)
        save("progressive", table(rows, plan) + "\n", recipe, rows, base)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a complete run of the full demo (runs/demo-full)")
    parser.add_argument("--out", type=Path, default=Path("runs/progressive"), help="folder to write to")
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


def trainings(base: Path, plan: Plan) -> list[list[Step]]:
    """Those of a list are independent of each other; each list needs those before it."""
    rounds = [[halving(base, system, steps, plan) for system in plan.systems] for steps in plan.steps[1:]]
    return [[first_teacher(base, system, plan) for system in plan.systems], *rounds]


def halving(base: Path, system: str, steps: int, plan: Plan) -> Step:
    first = 2 * steps == plan.steps[0]
    teacher = path_of(base, system, TEACHER if first else STUDENT, 2 * steps)
    flags = f"{DISTILLATION} --teacher {shlex.quote(str(teacher))} --student-steps {steps}"
    return finetuning(base, system, f"{system}, {STUDENT} of {steps}", teacher, flags, plan.updates, plan)


def first_teacher(base: Path, system: str, plan: Plan) -> Step:
    """With the system's own loss: a student is no better than its teacher, and the demo's training is short."""
    start = path_of(base, system, DEMO, 0)
    return finetuning(base, system, f"{system}, {TEACHER}", start, "", plan.teacher_updates, plan)


def finetuning(base: Path, system: str, name: str, start: Path, flags: str, updates: int, plan: Plan) -> Step:
    """A training from the weights in `start`; the flags of its decoding are stored in the checkpoint."""
    flags = f"{SYSTEMS[system].flags} {flags} --finetune-from-model {shlex.quote(str(start))} {DECODING}"
    return training_of(name, flags, updates, plan.lr, plan.seed, base, inputs=[start])


def jobs(base: Path, plan: Plan) -> list[Job]:
    """Every model at every number of steps, students at their own alone."""
    return [
        Job(system, how, DECODING, count, path_of(base, system, how, count))
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
    legend = [
        f"{DEMO}: as the demo trained it; {TEACHER}: {plan.teacher_updates} updates more with its own loss.",
        f"{STUDENT}: {plan.updates} updates a halving, from that of twice as many steps, the first from {TEACHER}.",
        f"All are decoded with {DECODING}.",
        *notes(rows, MEASURES),
    ]
    return render(["system", "steps", *by_measure(MEASURES, HOWS)], body, legend)


def cell(row: Row | None, measure: str) -> str:
    return "-" if row is None else cells(row, measure)[0]


if __name__ == "__main__":
    raise SystemExit(main("progressive", progressive))
