"""What the toy examples share: a run's data and trained systems, and decoding one system in one way.

A run is a folder such as demo-1: corpus, data-bin, checkpoints, logs, and at last recipe.json, which says that it is
complete.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from systems import AR, SYSTEMS, Recipe
from table import Row

import fairseq_diffusion
from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.corpus import SOURCE, SPLITS, TARGET

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from stages import Stage, StageFailed, new_folder, program, report_progress, run  # noqa: E402

# quoted, because a clone may lie anywhere; all other paths are relative to the folder that a stage runs in
USER_DIR = shlex.quote(str(Path(fairseq_diffusion.__file__).parent))

OPTIMISER = "--optimizer adam --adam-betas (0.9,0.98) --lr-scheduler polynomial_decay --batch-size 64 --cpu"
SAVING = "--no-epoch-checkpoints --log-format json --log-interval 20"

TRAININGS, DECODINGS = 3, 2  # so many at a time, one thread each

Work = TypeVar("Work")
Result = TypeVar("Result")


# -- a run ----------------------------------------------------------------------------------------------------------


def build(runs: Path, example: str, recipe: Recipe) -> Path:
    """A new run, named after its example: data, and every system of the recipe trained."""
    folder = new_folder(runs, example)
    print(f"everything goes to {folder}", flush=True)
    prepare(folder, recipe)
    train([training(folder, system, recipe) for system in recipe.systems])
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return folder


def recipe_of(folder: Path, example: str, systems: Sequence[str] = ()) -> Recipe:
    """The recipe of a complete run of an example, which has trained these systems at least."""

    def lacks(part: str | Path) -> UserError:
        return UserError(
            f"{folder} is no complete run of `make {example}`, for it has no {part}; name another with --run, or make "
            "a new one"
        )

    if not (folder / "recipe.json").is_file():
        raise lacks("recipe.json")
    said = json.loads((folder / "recipe.json").read_text())
    if said.keys() != {field.name for field in fields(Recipe)}:
        raise lacks("recipe.json of this version")
    for part in map(checkpoint, (*said["systems"], *systems)):
        if not (folder / part).is_file():
            raise lacks(part)
    return Recipe(**said)


def newest(runs: Path) -> Path | None:
    """The complete run of the demo that was finished last."""
    recipes = sorted(runs.glob("demo-*/recipe.json"), key=lambda path: path.stat().st_mtime)
    return recipes[-1].parent if recipes else None


def prepare(folder: Path, recipe: Recipe) -> None:
    """Corpus, BPE (words are compounded, so it matters) and data-bin, the same for all systems."""
    words = "--nouns 30 --verbs 15 --adjectives 10 --adverbs 6"
    sizes = f"--size {recipe.size} --test-size {recipe.test_size} --seed {recipe.seed}"
    run(Stage("corpus", f"{program('fairseq-diffusion')} toy generate --out corpus {words} {sizes}", folder))
    binarise(folder, (SOURCE, TARGET), "corpus/{split}.{side}", 1000, "data-bin")


def binarise(folder: Path, sides: tuple[str, str], text: str, merges: int, data_bin: str, more: str = "") -> None:
    """BPE learnt on each side's training text, and a data-bin of it; `text` names the files of a split and side."""
    bpe = program("subword-nmt")
    for side in sides:
        learn = f"learn-bpe -s {merges} -i {text.format(split='train', side=side)} -o bpe.{side}"
        run(Stage(f"learn BPE {side}", f"{bpe} {learn}", folder))
        for split in SPLITS:
            files = f"-i {text.format(split=split, side=side)} -o {split}.bpe.{side}"
            run(Stage(f"apply BPE {split} {side}", f"{bpe} apply-bpe -c bpe.{side} {files}", folder))
    prefixes = " ".join(f"--{split}pref {split}.bpe" for split in SPLITS)
    flags = f"-s {sides[0]} -t {sides[1]} {prefixes} --destdir {data_bin} {more}"
    run(Stage("preprocess", f"{program('fairseq-preprocess')} {flags}", folder))


def training(folder: Path, system: str, recipe: Recipe) -> Stage:
    return training_of(folder, system, SYSTEMS[system].flags, seed=recipe.seed, **recipe.systems[system])


def training_of(
    folder: Path, name: str, flags: str, updates: int, lr: float, seed: int, base: Path = Path(".")
) -> Stage:
    """A training called `name` on the data of the run in `base`."""
    schedule = f"--lr {lr} --warmup-updates {max(1, updates // 8)} --max-update {updates} --total-num-update {updates}"
    command = (
        f"{program('fairseq-train')} {shlex.quote(str(base / 'data-bin'))} --user-dir {USER_DIR} {flags} {OPTIMISER} "
        f"{schedule} {SAVING} --seed {seed} --save-dir {checkpoint(name).parent}"
    )
    return Stage(f"train {name}", command, folder, updates)


def train(stages: Sequence[Stage]) -> None:
    """Trainings side by side, with their progress on the screen."""
    side_by_side(run, stages, TRAININGS, lambda futures: report_progress(stages, futures))


def side_by_side(
    call: Callable[[Work], Result],
    works: Sequence[Work],
    at_a_time: int,
    watch: Callable[[list[Future]], None] = lambda futures: None,
) -> list[Result]:
    """Results in the order of `works`. The first failure is raised, not those of the stages that it ended."""
    failures: list[Exception] = []

    def attempt(work: Work) -> Any:
        if failures:
            return None
        try:
            return call(work)
        except (StageFailed, UserError) as failure:
            failures.append(failure)

    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(attempt, work) for work in works]
        watch(futures)
    if failures:
        raise failures[0]
    return [future.result() for future in futures]


def checkpoint(system: str) -> Path:
    return Path("checkpoints") / slug(system) / "checkpoint_last.pt"


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


# -- decoding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A system to decode in one way; `steps` is 0 where it goes from left to right.  `path` is its checkpoint, if it is
    not the run's."""

    system: str
    how: str
    flags: str
    steps: int = 0
    path: Path | None = None

    @property
    def title(self) -> str:
        return f"{self.system}, {self.how}" + (f", {self.steps} steps" if self.steps else "")

    @property
    def output(self) -> Path:
        """Folder of the translations and their report."""
        return Path("translations") / slug(self.title)

    def arguments(self, base: Path) -> str:
        """Of fairseq-generate, for the run in `base`; what names a rescorer gets the Transformer."""
        path, flags = str(self.path or base / checkpoint(self.system)), self.flags
        if "rescore" in flags:
            path, flags = f"{path}:{base / checkpoint(AR)}", f"{flags} --iter-decode-with-external-reranker"
        if self.steps:
            flags += f" --iter-decode-max-iter {self.steps}"
        return f"{shlex.quote(str(base / 'data-bin'))} --path {shlex.quote(path)} {flags}"


def decode_all(jobs: Sequence[Job], made: Path, folder: Path, seed: int) -> list[Row]:
    """Decode systems of the run `made`; translations, reports and logs go to `folder`."""
    base = Path(os.path.relpath(made, folder))
    return side_by_side(lambda job: decode(job, base, folder, seed), jobs, DECODINGS)


def decode(job: Job, base: Path, folder: Path, seed: int) -> Row:
    command = (
        f"{program('fairseq-generate')} {job.arguments(base)} --user-dir {USER_DIR} --task diffusion_translation "
        f"--gen-subset test --batch-size 50 --remove-bpe --cpu --seed {seed} --results-path {job.output}"
    )
    run(Stage(f"decode {job.title}", command, folder))
    files = f"--corpus {shlex.quote(str(base / 'corpus'))} --hyp {job.output}/generate-test.txt"
    scored = run(Stage(f"score {job.title}", f"{program('fairseq-diffusion')} toy score --json {files}", folder))
    report = reporting.read(folder / job.output / "generate-test.json")
    printed = (folder / job.output / "generate-test.txt").read_text()
    row = Row.of(job.system, job.how, report, printed, json.loads(scored.splitlines()[-1]))
    print(f"  {job.title}: BLEU {row.bleu:.1f}, valid {row.valid:.0%}", flush=True)
    return row


def save(folder: Path, name: str, text: str, made: Path, recipe: Recipe, rows: Sequence[Row]) -> None:
    """A table as text and as JSON, and on the screen."""
    (folder / f"{name}.txt").write_text(text)
    record = {"run": str(made), "recipe": asdict(recipe), "rows": [asdict(row) for row in rows]}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{text}", flush=True)
