"""What the toy examples share: a run's data and trained systems, and decoding one system in one way.

A run is a folder such as runs/demo, in which the steps of scripts/step.py are made: corpus, data-bin, checkpoints,
translations, and recipe.json once all systems are trained. All paths are relative to it. A second call
continues what is not complete; what changed is made again, and the old outputs are moved to replaced/.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from systems import AR, FULL_DEMO, SYSTEMS, Recipe
from table import Row

import fairseq_diffusion
from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.corpus import SOURCE, TARGET

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from lock import lock  # noqa: E402
from step import Step, StepFailed, run, set_aside, stop, stop_on_signals  # noqa: E402

OPTIMISER = "--optimizer adam --adam-betas '(0.9,0.98)' --lr-scheduler polynomial_decay --batch-size 64 --cpu"
SAVING = "--no-epoch-checkpoints --log-format json --log-interval 20"

TRAININGS, DECODINGS = 3, 2  # so many at a time, one thread each
HERE = Path(".")

Work = TypeVar("Work")
Result = TypeVar("Result")


# -- a run ----------------------------------------------------------------------------------------------------------


def main(name: str, example: Callable[[], None]) -> int:
    """An example as a program."""
    begun = time.time()
    stop_on_signals()
    try:
        example()
    except (StepFailed, UserError) as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    print(f"took {(time.time() - begun) / 60:.1f} minutes")
    return 0


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make the folder, lock it, and work in it, with the programs that lie beside this Python."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["USER_DIR"] = str(Path(fairseq_diffusion.__file__).parent)
    os.environ["OMP_NUM_THREADS"] = "1"  # steps share the cores: threads that spin would slow each other down
    try:
        with open(".lock", "a") as file:
            os.set_inheritable(file.fileno(), True)
            if reason := lock(file.fileno()):
                raise UserError(reason)
            print(f"everything is written to {Path.cwd()}", flush=True)
            yield
    finally:
        os.chdir(before)


def build(recipe: Recipe) -> None:
    """Data, and every system of the recipe trained."""
    content = {"recipe.json": json.dumps(asdict(recipe), indent=2) + "\n"}
    set_changed_aside("recipe", content)  # before training: a run without it is not complete
    prepare(recipe)
    train([training(system, recipe) for system in recipe.systems])
    write(content)


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a complete run of the full demo."""
    try:
        return Recipe(**json.loads((folder / "recipe.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder} is no complete run of `make demo-full`, for it has no recipe.json of this version; name "
            "another with --run, or make one"
        ) from error


def demo_run(folder: Path | None) -> tuple[Path, Recipe]:
    """The run of the full demo in a folder; without one, runs/demo-full, which is made if it is not complete."""
    made = (folder or Path("runs/demo-full")).resolve()
    if not folder and not (made / "recipe.json").exists():
        with working_in(made):
            build(Recipe.of(FULL_DEMO))
    return made, recipe_of(made)


def prepare(recipe: Recipe) -> None:
    """Corpus, BPE (words are compounded, so it matters) and data-bin, the same for all systems."""
    words = "--nouns 30 --verbs 15 --adjectives 10 --adverbs 6"
    sizes = f"--size {recipe.size} --test-size {recipe.test_size} --seed {recipe.seed}"
    run(step("corpus", [], "corpus", f"fairseq-diffusion toy generate --out corpus {words} {sizes}"))
    binarise((SOURCE, TARGET), "corpus", 1000, "data-bin")


def binarise(sides: tuple[str, str], text: str, merges: int, data_bin: str, more: str = "") -> None:
    """BPE learnt on each side's training text, and a data-bin of it; `text` is a folder of {train,valid,test}.SIDE."""
    apply = f"subword-nmt apply-bpe -c {text}-bpe/codes.$side <{text}/$split.$side >{text}-bpe/$split.$side"
    split_up = f"""mkdir {text}-bpe
for side in {" ".join(sides)}; do
    subword-nmt learn-bpe -s {merges} <{text}/train.$side >{text}-bpe/codes.$side
    for split in train valid test; do {apply}; done
done"""
    run(step(f"bpe-{text}", [text], f"{text}-bpe", split_up))
    prefixes = " ".join(f"--{split}pref {text}-bpe/{split}" for split in ("train", "valid", "test"))
    flags = f"-s {sides[0]} -t {sides[1]} {prefixes} --destdir {data_bin} {more}"
    forget = f"rm -f {data_bin}/preprocess.log # its times would make equal data differ"
    run(step(f"binarise-{text}", [f"{text}-bpe"], data_bin, f"fairseq-preprocess {flags}\n{forget}"))


def step(name: str, inputs: Sequence[object], output: str, command: str, continues: bool = False) -> Step:
    """A step that is made again when its command or its inputs change."""
    return Step(name, list(map(str, inputs)), [output], command, continues=continues, remake=True)


def training(system: str, recipe: Recipe) -> Step:
    return training_of(system, SYSTEMS[system].flags, seed=recipe.seed, **recipe.systems[system])


def training_of(
    name: str, flags: str, updates: int, lr: float, seed: int, base: Path = HERE, inputs: Sequence[Path] = ()
) -> Step:
    """A training called `name` on the data of the run in `base`, and on other files."""
    schedule = f"--lr {lr} --warmup-updates {max(1, updates // 8)} --max-update {updates} --total-num-update {updates}"
    folder = str(checkpoint(name).parent)
    command = (
        f'fairseq-train {shlex.quote(str(base / "data-bin"))} --user-dir "$USER_DIR" {flags} {OPTIMISER} {schedule} '
        f"{SAVING} --seed {seed} --save-dir {folder}"
    )
    return step(f"train-{slug(name)}", [base / "data-bin", *inputs], folder, command, continues=True)


def train(steps: Sequence[Step]) -> None:
    """Trainings side by side, with their progress on the screen."""
    side_by_side(run, steps, TRAININGS, partial(report_progress, steps))


def side_by_side(
    call: Callable[[Work], Result],
    works: Sequence[Work],
    at_a_time: int,
    watch: Callable[[Sequence[Future]], None] = lambda futures: None,
) -> list[Result]:
    """Results in the order of `works`. The first failure ends all steps, and is raised."""
    failures: list[Exception] = []

    def attempt(work: Work) -> Result:
        if failures:
            raise failures[0]
        try:
            return call(work)
        except (StepFailed, UserError) as failure:
            failures.append(failure)
            stop()
            raise

    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(attempt, work) for work in works]
        while wait(futures, timeout=30, return_when=FIRST_EXCEPTION).not_done and not failures:
            watch(futures)
    if failures:
        raise failures[0]
    return [future.result() for future in futures]


def report_progress(steps: Sequence[Step], futures: Sequence[Future]) -> None:
    running = [step for step, future in zip(steps, futures) if future.running()]
    done = sum(future.done() for future in futures)
    print(f"  {done} of {len(steps)} trained; {' | '.join(map(progress, running))}", flush=True)


def progress(step: Step) -> str:
    """Updates done and the loss, from the last progress record in a training's log."""
    printed = step.log.read_text(errors="replace") if step.log.exists() else ""
    *_, last = ['{"num_updates": 0, "loss": "nan"}', *re.findall(r"\| train_inner \| (\{.*\})", printed)]
    record = json.loads(last)
    return f"{step.name}: {record['num_updates']} updates, loss {float(record['loss']):.2f}"


def checkpoint(system: str) -> Path:
    return Path("checkpoints") / slug(system) / "checkpoint_last.pt"


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


# -- decoding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A system to decode in one way; `steps` is 0 where it goes from left to right, and `counted` the flag that has
    them.  `path` is its checkpoint, if it is not the run's."""

    system: str
    how: str
    flags: str
    steps: int = 0
    path: Path | None = None
    counted: str = "--iter-decode-max-iter"

    @property
    def title(self) -> str:
        return f"{self.system}, {self.how}" + (f", {self.steps} steps" if self.steps else "")

    @property
    def output(self) -> Path:
        """Folder of the translations and their report."""
        return Path("translations") / slug(self.title)

    def checkpoints(self, base: Path) -> list[Path]:
        """Its own, and the Transformer's where that rescores, of the run in `base`."""
        return [self.path or base / checkpoint(self.system), *[base / checkpoint(AR)] * ("rescore" in self.flags)]

    def arguments(self, base: Path) -> str:
        """Of fairseq-generate."""
        path, flags = ":".join(map(str, self.checkpoints(base))), self.flags
        if "rescore" in flags:
            flags += " --iter-decode-with-external-reranker"
        if self.steps:
            flags += f" {self.counted} {self.steps}"
        return f"{shlex.quote(str(base / 'data-bin'))} --path {shlex.quote(path)} {flags}"


def decode_all(jobs: Sequence[Job], seed: int, base: Path = HERE) -> list[Row]:
    """Decode systems of the run in `base`."""
    return side_by_side(lambda job: decode(job, base, seed), jobs, DECODINGS)


def decode(job: Job, base: Path, seed: int) -> Row:
    command = (
        f'fairseq-generate {job.arguments(base)} --user-dir "$USER_DIR" --task diffusion_translation '
        f"--gen-subset test --batch-size 50 --remove-bpe --cpu --seed {seed} --results-path {job.output}\n"
        f"fairseq-diffusion toy score --json --corpus {shlex.quote(str(base / 'corpus'))} "
        f"--hyp {job.output}/generate-test.txt >{job.output}/score.json"
    )
    inputs = [base / "corpus", base / "data-bin", *job.checkpoints(base)]
    run(step(f"decode-{slug(job.title)}", inputs, str(job.output), command))
    report = reporting.read(job.output / "generate-test.json")
    printed, scored = ((job.output / name).read_text() for name in ("generate-test.txt", "score.json"))
    row = Row.of(job.system, job.how, report, printed, json.loads(scored))
    print(f"  {job.title}: BLEU {row.bleu:.1f}, valid {row.valid:.0%}", flush=True)
    return row


def save(name: str, text: str, recipe: Recipe, rows: Sequence[Row], base: Path = HERE) -> None:
    """A table as text and as JSON, and on the screen."""
    record = {"run": str(base.resolve()), "recipe": asdict(recipe), "rows": [asdict(row) for row in rows]}
    content = {f"{name}.txt": text, f"{name}.json": json.dumps(record, indent=2) + "\n"}
    set_changed_aside(name, content)
    write(content)
    print(f"\n{text}", flush=True)


def set_changed_aside(name: str, content: dict[str, str]) -> None:
    """Move these files to replaced/ if the content of one differs."""
    if any(Path(path).exists() and Path(path).read_text() != text for path, text in content.items()):
        set_aside(name, content)


def write(content: dict[str, str]) -> None:
    for path, text in content.items():
        Path(path).write_text(text)
