"""Quality against network calls on the toy: solvers and steps, early exit, and students of fewer steps.

    .venv/bin/python benchmarks/steps.py --run runs/demo-full
    .venv/bin/python benchmarks/steps.py --run runs/demo-full --students runs/progressive

It decodes what `make compare` decodes for its tables of solvers and of early exit, here in one process, one decoding at
a time.  The baseline of a system is its own sampler with the most steps, and for early exit the same with all
candidates running all steps.  `calls` are the loop's own count, a candidate; `seconds` are from the first batch to the
last text; ratio > 1: faster.  --students adds those that `make progressive` has trained, decoded as they were trained.

Without --run it is runs/demo-full.  Where that is not complete, both systems are trained for so few updates that their
BLEU says nothing of the method; a notice says so, and is kept in the JSON.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import networks  # noqa: F401  registers our parts with fairseq
from common import Row, elapsed, flags, iqr, median, progress, report
from fairseq import checkpoint_utils, tasks, utils
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.corpus import read_language, read_split
from fairseq_diffusion.toy.score import score

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples/toy"))
import chain  # noqa: E402
import compare  # noqa: E402
import progressive  # noqa: E402
from systems import DIFFORMER, DINOISER, Recipe  # noqa: E402

FEW = {"size": 5000, "updates": 100, "difformer_updates": 100}
FEWEST = {"size": 50, "test_size": 4, "updates": 1, "difformer_updates": 1}
HALVINGS = [2**i for i in range(8)]  # how few steps students may take
NOTICE = (
    "no run of the full demo was named or found, so both systems are trained for {updates} updates only (the demo: "
    "2,400): BLEU here says nothing of the method; `make demo-full` trains the real ones, and --run names them"
)
COLUMNS = {
    "system": ("system", ""),
    "decoding": ("how", ""),
    "steps": ("steps", "d"),
    "calls": ("calls", ".2f"),
    "saved": ("saved", ".0%"),
    "BLEU": ("bleu", ".2f"),
    "change": ("change", "+.2f"),
    "unambiguous": ("bleu_unambiguous", ".2f"),
    "seconds": ("seconds", ".2f"),
    "IQR": ("iqr_seconds", ".2f"),
    "ratio": ("ratio", ".2f"),
}


def main() -> int:
    options = arguments()
    try:
        with ExitStack() as stack:
            run, notices = run_of(options, stack)
            recipe = chain.recipe_of(run)
            rows = measured(run, recipe, options)
    except (UserError, chain.StepFailed) as failure:
        print(f"steps: {failure}", file=sys.stderr)
        return 1
    also = {"notices": notices, "recipe": asdict(recipe)}
    report(rows, options, COLUMNS, also=also, precision="fp32")
    print("\n".join(notices))
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=1)
    parser.add_argument("--run", type=Path, help="folder of a complete run of the full demo (runs/demo-full)")
    parser.add_argument("--steps", type=compare.rising, help="decoding steps, rising (5,10,20)")
    parser.add_argument("--students", type=Path, help="folder that make progressive has filled (none)")
    options = parser.parse_args()
    options.steps = options.steps or ([2, 4] if options.quick else [5, 10, 20])
    return options


def run_of(options: argparse.Namespace, stack: ExitStack) -> tuple[Path, list[str]]:
    """The run that was named, or the demo's, or one that is made now, with a notice."""
    usual = Path("runs/demo-full")
    if options.run or (usual / "recipe.json").exists():
        return options.run or usual, []
    few = FEWEST if options.quick else FEW
    notice = NOTICE.format(**few)
    progress(notice)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    with chain.working_in(folder):
        chain.build(Recipe.of([DINOISER, DIFFORMER], **few))
    return folder, [notice]


# -- decoding -------------------------------------------------------------------------------------------------------


def measured(run: Path, recipe: Recipe, options: argparse.Namespace) -> list[Row]:
    """Rows of one candidate a sentence, then of early exit; ratios within each."""
    jobs = compare.solver_jobs(options.steps) + students(options.students)
    decoder = Decoder(run, recipe.seed, options)
    return [
        row
        for table in (jobs, compare.early_exit_jobs(options.steps))
        for row in compared([decoder(job) for job in table], options.steps[-1])
    ]


def students(folder: Path | None) -> list[chain.Job]:
    """One for each halving that was trained."""
    if folder is None:
        return []
    found = [
        chain.Job(system, "student", progressive.DECODING, steps, path.resolve())
        for system in progressive.HALVED
        for steps in HALVINGS
        if (path := folder / progressive.path_of(Path("."), system, progressive.STUDENT, steps)).is_file()
    ]
    if not found:
        raise UserError(f"{folder} holds no student; name with --students a folder that `make progressive` has filled")
    return found


def compared(rows: Sequence[Row], most: int) -> list[Row]:
    """Each against its system's baseline."""
    usual = {system: (samplers[0], "all steps") for system, samplers in compare.SAMPLERS.items()}
    baselines = {row["system"]: row for row in rows if row["steps"] == most and row["how"] in usual[row["system"]]}
    return [{**row, **against(row, baselines[row["system"]])} for row in rows]


def against(row: Row, baseline: Row) -> Row:
    return {
        "saved": 1 - row["calls"] / baseline["calls"],
        "change": row["bleu"] - baseline["bleu"],
        "baseline_seconds": baseline["seconds"],
        "ratio": baseline["seconds"] / row["seconds"],
    }


class Decoder:
    """Decodes the test set of a run as fairseq-generate does, and scores it; each checkpoint is loaded once."""

    def __init__(self, run: Path, seed: int, options: argparse.Namespace):
        self.run, self.options = run.resolve(), options
        self.usual = f"--task diffusion_translation --gen-subset test --batch-size 50 --seed {seed}"
        self.language, self.split = read_language(self.run / "corpus"), read_split(self.run / "corpus", "test")
        self.loaded: dict[str, tuple[Any, list[Any], list[Any]]] = {}

    def __call__(self, job: chain.Job) -> Row:
        cfg = configuration(f"{job.arguments(self.run)} {self.usual}")
        task, models, batches = self.load(cfg)
        task.cfg = cfg.task
        times = []
        for _ in range(self.options.repeats):
            generator, texts = task.build_generator(models, cfg.generation), {}
            decoding = partial(decode, task, generator, models, batches, texts)
            times.append(elapsed(decoding, self.options.device) / 1000)
        found = score(self.language, self.split.sources, [texts[i] for i in range(len(texts))], self.split.references)
        described = {"system": job.system, "how": job.how, "steps": job.steps, "calls": generator.describe()["calls"]}
        progress(f"{job.title}: BLEU {found.bleu:.2f}, {described['calls']:.2f} calls, {median(times):.2f} s")
        spent = {"seconds": median(times), "iqr_seconds": iqr(times), "repeats": len(times)}
        return {**described, **asdict(found), **spent}

    def load(self, cfg: Any) -> tuple[Any, list[Any], list[Any]]:
        """Task, models, and batches on their device."""
        path = cfg.common_eval.path
        if path not in self.loaded:
            task = tasks.setup_task(cfg.task)
            models = checkpoint_utils.load_model_ensemble([path], task=task)[0]
            for model in models:
                model.to(self.options.device).prepare_for_inference_(cfg)
            batches = self.batches(task, cfg)
            decode(task, task.build_generator(models, cfg.generation), models, batches[:1], {})  # to warm up
            self.loaded[path] = task, models, batches
        return self.loaded[path]

    def batches(self, task: Any, cfg: Any) -> list[Any]:
        task.load_dataset("test")
        found = task.get_batch_iterator(
            task.dataset("test"), max_sentences=cfg.dataset.batch_size, disable_iterator_cache=True
        )
        batches = found.next_epoch_itr(shuffle=False)
        return [utils.apply_to_sample(lambda tensor: tensor.to(self.options.device), batch) for batch in batches]


def configuration(arguments: str) -> Any:
    parser = fairseq_options.get_generation_parser()
    return convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, shlex.split(arguments)))


def decode(task: Any, generator: Any, models: list[Any], batches: Sequence[Any], texts: dict[int, str]) -> None:
    """Enters texts by the numbers of their sentences."""
    for batch in batches:
        hypotheses = task.inference_step(generator, models, batch)
        printed = (task.target_dictionary.string(own[0]["tokens"], "subword_nmt") for own in hypotheses)
        texts.update(zip(batch["id"].tolist(), printed))


if __name__ == "__main__":
    raise SystemExit(main())
