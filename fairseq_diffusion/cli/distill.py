"""Distil a training set: a teacher translates its sources, and its translations replace the real targets.

What comes after -- is for fairseq-generate, as in: distill DATA-BIN --path TEACHER.pt --output NEW -- --beam 4 --fp16
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fairseq_diffusion import __version__
from fairseq_diffusion.distillation.command import DEFAULTS, generate_command
from fairseq_diffusion.distillation.data import DataBin, open_data
from fairseq_diffusion.distillation.gather import gather
from fairseq_diffusion.distillation.output import RECORD, atomic_folder, check_output
from fairseq_diffusion.distillation.plan import Plan, make_plan, plan_hash, prepare_work
from fairseq_diffusion.distillation.shards import Shards
from fairseq_diffusion.distillation.teacher import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.progress import Progress

KIND = "distilled training set, by fairseq-diffusion"
ROWS = {
    "sentences": "sentences in the training set",
    "skipped": "skipped: longer than the teacher takes",
    "empty": "dropped: nothing on one side",
    "wild_ratio": "dropped: one side much longer than the other",
    "kept": "kept",
    "unknown_words": "unknown words in what is kept",
    "bleu_of_pieces": "BLEU of what is kept against the real targets, on word pieces",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA-BIN", help="what fairseq-preprocess wrote")
    parser.add_argument("--path", required=True, metavar="TEACHER.pt", help="the teacher, as for fairseq-generate")
    parser.add_argument("--output", type=Path, required=True, metavar="NEW", help="the data-bin to write")
    parser.add_argument("--mixed", action="store_true", help="keep the real pairs and add the distilled ones")
    ratio = "drop a pair if a side is longer than R x the other (default: 3)"
    parser.add_argument("--max-ratio", type=float, default=3.0, metavar="R", help=ratio)
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="decode in N parts (default: 1)")
    parser.add_argument("--shard", type=int, metavar="I", help="decode part I (0 to N-1) alone, and write no data-bin")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="parts to decode at a time, on the GPUs in turn"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where translations are kept (default: NEW.work)")
    parser.add_argument("--force", action="store_true", help="replace NEW, and other translations in the work folder")


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """argparse alone does not take words after -- once it has parsed the data-bin and a flag."""
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.flags = words[end + 1 :]
    args.output = args.output.absolute()
    args.work = args.work or args.output.with_name(f"{args.output.name}.work")
    return args


def run(args: argparse.Namespace) -> int:
    check(args)
    teacher = Teacher(args.path)
    data = open_data(args.data, teacher.languages)
    teacher.check(data)
    flags = [*DEFAULTS.split(), *args.flags]
    command = generate_command(data, teacher, flags)
    plan = make_plan(data, teacher, flags, args.shards)
    prepare_work(plan, args.work, args.force)
    shards = Shards(args.work, plan_hash(plan), args.shards, command)
    if args.shard is not None:
        shards.decode([args.shard], 1)
        return report_missing(shards)
    shards.progress = progress_of(data, shards)
    shards.decode(list(range(args.shards)), args.jobs)
    print_counts(write_data_bin(args, data, shards, plan), args)
    return 0


def progress_of(data: DataBin, shards: Shards) -> Progress:
    """That of the sentences in shards that are not complete."""
    sides = [side.sizes.tolist() for side in data.sides("train")]
    sizes = dict(enumerate(map(max, *sides)))
    for shard in set(range(shards.count)).difference(shards.missing()):
        for number, _ in shards.translations(shard):
            sizes.pop(number, None)
    return Progress("translated", sizes)


def check(args: argparse.Namespace) -> None:
    """Errors in numbers and folders that are seen before anything is read."""
    check_output(args.output, args.force)
    if args.shards < 1 or args.jobs < 1 or not args.max_ratio >= 1:  # nan neither
        raise UserError("--shards, --jobs and --max-ratio are at least 1")
    if args.shard is not None and not (0 <= args.shard < args.shards and args.jobs == 1):
        raise UserError(
            f"--shard {args.shard} of --shards {args.shards}: parts are counted from 0, and --jobs is for several"
        )
    output = args.output.resolve()
    if output == args.data.resolve() or output in (args.work.resolve(), *args.work.resolve().parents):
        raise UserError(f"--output {args.output} is the data-bin itself, or holds the --work folder; name another")


def report_missing(shards: Shards) -> int:
    missing = shards.missing()
    if missing:
        print(f"{len(missing)} of {shards.count} shards are missing: {', '.join(map(str, missing))}")
    else:
        print("all shards are complete: the same command without --shard writes the data-bin")
    return 0


def write_data_bin(args: argparse.Namespace, data: DataBin, shards: Shards, plan: Plan) -> dict[str, Any]:
    """Write the data-bin with its record, replacing an older one with --force; returns the counts of its sentences."""
    with atomic_folder(args.output) as folder:
        counts = gather(data, shards, folder, args.max_ratio, args.mixed)
        inputs = {"data": str(args.data), "path": args.path, "mixed": args.mixed, "max_ratio": args.max_ratio}
        record = {"kind": KIND, "version": __version__, **inputs, "counts": counts, "plan": plan}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return counts


def print_counts(counts: dict[str, Any], args: argparse.Namespace) -> None:
    for name, label in ROWS.items():
        number = counts[name]
        print(f"{number:>12,.2f}  {label}" if isinstance(number, float) else f"{number:>12,}  {label}")
    real = " (the real ones among them)" if args.mixed else ""
    print(f"wrote {args.output}: {counts['pairs']:,} pairs to train on{real}; the other splits are the real ones")
    print(f"{args.work} holds the translations, for other --mixed or --max-ratio, and may be removed")
