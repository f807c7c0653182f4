"""The main job, small: generate a toy corpus, train an autoregressive Transformer and DINOISER, decode, compare.

    make demo            (or: .venv/bin/python examples/toy/demo.py --help)

Everything is left in a new folder runs/demo-N: corpus, data-bin, checkpoints, logs, translations, table and picture.
Three trainings share the machine's cores, one thread each.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from table import Row, render

import fairseq_diffusion
from fairseq_diffusion.toy.corpus import SOURCE, SPLITS, TARGET, read_language, read_split

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from stages import Stage, StageFailed, new_folder, program, report_progress, run  # noqa: E402

# quoted, because a clone may lie anywhere; all other paths are relative to the run's folder
USER_DIR = shlex.quote(str(Path(fairseq_diffusion.__file__).parent))

AR = (
    "--task translation --arch transformer --criterion label_smoothed_cross_entropy --label-smoothing 0.1 "
    "--share-decoder-input-output-embed --encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 "
    "--decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0 "
    "--encoder-layers 3 --decoder-layers 3"
)
DINOISER = "--task diffusion_translation --arch dinoiser_toy --criterion diffusion_loss"
OPTIMISER = "--optimizer adam --adam-betas (0.9,0.98) --lr 2e-3 --lr-scheduler polynomial_decay --batch-size 64 --cpu"
SAVING = "--no-epoch-checkpoints --log-format json --log-interval 20"

AR_NAME, DINOISER_NAME, PLAIN_NAME = "Transformer", "DINOISER", "DINOISER, no clipping"
ONE_BY_FIVE = "--noise-beam 5 --selection mbr"
FIVE_BY_FIVE = "--iter-decode-with-beam 5 --noise-beam 5 --selection mbr_two_level"


def main() -> int:
    options = arguments()
    begun = time.time()
    folder = new_folder(options.runs, "demo")
    print(f"everything goes to {folder}", flush=True)
    try:
        prepare(folder, options)
        train(folder, options)
        rows = decode(folder, options)
        picture = draw(folder)
    except StageFailed as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    text = render(rows)
    (folder / "table.txt").write_text(text + "\n")
    print(f"\n{text}\n\npicture: {picture}\ntook {(time.time() - begun) / 60:.1f} minutes")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where to make the new folder")
    parser.add_argument("--size", type=int, default=50_000, help="sentences to train on")
    parser.add_argument("--test-size", type=int, default=200, help="sentences to test on")
    parser.add_argument("--updates", type=int, default=2400, help="updates of DINOISER, with and without clipping")
    parser.add_argument("--ar-updates", type=int, default=1000, help="updates of the autoregressive Transformer")
    parser.add_argument("--steps", type=int, default=20, help="decoding steps")
    parser.add_argument("--seed", type=int, default=1, help="seed of language, training and decoding")
    return parser.parse_args()


# -- data -----------------------------------------------------------------------------------------------------------


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """Corpus, BPE (words are compounded, so it matters) and data-bin."""
    words = "--nouns 30 --verbs 15 --adjectives 10 --adverbs 6"
    sizes = f"--size {options.size} --test-size {options.test_size} --seed {options.seed}"
    run(Stage("corpus", f"{program('fairseq-diffusion')} toy generate --out corpus {words} {sizes}", folder))
    for side in (SOURCE, TARGET):
        codes = f"bpe.{side}"
        run(
            Stage(
                f"learn BPE {side}",
                f"{program('subword-nmt')} learn-bpe -s 1000 -i corpus/train.{side} -o {codes}",
                folder,
            )
        )
        for split in SPLITS:
            files = f"-i corpus/{split}.{side} -o {split}.bpe.{side}"
            run(Stage(f"apply BPE {split} {side}", f"{program('subword-nmt')} apply-bpe -c {codes} {files}", folder))
    prefixes = " ".join(f"--{split}pref {split}.bpe" for split in SPLITS)
    run(
        Stage(
            "preprocess",
            f"{program('fairseq-preprocess')} -s {SOURCE} -t {TARGET} {prefixes} --destdir data-bin",
            folder,
        )
    )


# -- training -------------------------------------------------------------------------------------------------------


def train(folder: Path, options: argparse.Namespace) -> None:
    """Three trainings side by side, with their progress on the screen."""
    stages = [
        training(folder, DINOISER_NAME, DINOISER, options.updates, options.seed),
        training(folder, PLAIN_NAME, f"{DINOISER} --schedule-modifier none", options.updates, options.seed),
        training(folder, AR_NAME, AR, options.ar_updates, options.seed),
    ]
    with ThreadPoolExecutor(len(stages)) as pool:
        futures = [pool.submit(run, stage) for stage in stages]
        report_progress(stages, futures)
        for future in as_completed(futures):  # the first to fail speaks, not those it ended
            future.result()


def training(folder: Path, name: str, system: str, updates: int, seed: int) -> Stage:
    length = (
        f"--max-update {updates} --total-num-update {updates} --warmup-updates {max(1, updates // 8)} --seed {seed}"
    )
    command = (
        f"{program('fairseq-train')} data-bin --user-dir {USER_DIR} {system} {OPTIMISER} {length} {SAVING} "
        f"--save-dir {checkpoint(name).parent}"
    )
    return Stage(f"train {name}", command, folder, updates)


def checkpoint(name: str) -> Path:
    return Path("checkpoints") / name.replace(", ", "-").replace(" ", "-") / "checkpoint_last.pt"


# -- decoding -------------------------------------------------------------------------------------------------------


def decode(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Every system and sampler of the table, two at a time, in the table's order."""
    steps = f"--iter-decode-max-iter {options.steps}"
    jobs = [
        (AR_NAME, "beam 5", "-", "--task translation --beam 5"),
        *[
            (system, how, str(options.steps), f"{steps} {flags}")
            for system, how, flags in (
                (DINOISER_NAME, "CeDi", "--sampler cedi --retain-iter-history"),
                (DINOISER_NAME, "DDIM", "--sampler ddim"),
                (DINOISER_NAME, "CeDi, 1 x 5, MBR", f"--sampler cedi {ONE_BY_FIVE}"),
                (DINOISER_NAME, "CeDi, 5 x 5, MBR", f"--sampler cedi {FIVE_BY_FIVE}"),
                (DINOISER_NAME, "DDIM, 5 x 5, MBR", f"--sampler ddim {FIVE_BY_FIVE}"),
                (PLAIN_NAME, "CeDi", "--sampler cedi"),
                (PLAIN_NAME, "DDIM", "--sampler ddim"),
            )
        ],
    ]
    print("decoding", flush=True)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: decode_one(folder, options.seed, *job), jobs))


def decode_one(folder: Path, seed: int, system: str, how: str, steps: str, flags: str) -> Row:
    task = "" if "--task" in flags else "--task diffusion_translation --print-step"
    command = (
        f"{program('fairseq-generate')} data-bin --user-dir {USER_DIR} {task} {flags} --cpu --seed {seed} "
        f"--path {checkpoint(system)} --gen-subset test --batch-size 50 --required-batch-size-multiple 1 "
        "--remove-bpe"
    )
    printed = Stage(f"decode {system} {how}", command, folder)
    run(printed)
    command = f"{program('fairseq-diffusion')} toy score --json --corpus corpus --hyp {printed.log.relative_to(folder)}"
    scored = run(Stage(f"score {system} {how}", command, folder))
    row = Row.of(system, how, steps, printed.log.read_text(), json.loads(scored.splitlines()[-1]))
    print(f"  {system}, {how}: BLEU {row.bleu:.1f}, valid {row.valid:.0%}", flush=True)
    return row


def draw(folder: Path) -> Path:
    """sigma_min, loss by noise level, and an ambiguous sentence on its way through the steps."""
    language, split = read_language(folder / "corpus"), read_split(folder / "corpus", "test")
    ambiguous = [i for i, source in enumerate(split.sources) if language.is_ambiguous(source)]
    sentence = max(ambiguous, key=lambda i: len(split.sources[i].split()))
    logs = " ".join(
        str(Stage(f"train {name}", "", folder).log.relative_to(folder)) for name in (DINOISER_NAME, PLAIN_NAME)
    )
    decoded = Stage(f"decode {DINOISER_NAME} CeDi", "", folder).log.relative_to(folder)
    what = f"--log {logs} --generate {decoded} --sentence {sentence}"
    run(Stage("draw", f"{program('fairseq-diffusion')} plot {what} --output picture.png", folder))
    return folder / "picture.png"


if __name__ == "__main__":
    raise SystemExit(main())
