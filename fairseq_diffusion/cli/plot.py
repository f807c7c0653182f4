"""Draw trainings, a sentence over its decoding steps, BLEU against network calls, or a page of decoding steps.

One figure per call, which depends on the options given.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import histories
from fairseq_diffusion.files.writing import atomic_write, check_writable
from fairseq_diffusion.plotting.events import read_tensorboard
from fairseq_diffusion.plotting.page import write_page
from fairseq_diffusion.plotting.points import read_points
from fairseq_diffusion.plotting.read import read_training, read_trajectory, with_distinct_names

MOST_SENTENCES = 50  # on a page, unless they are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("a training, and a sentence in it (PNG)")
    training.add_argument("--log", nargs="+", type=Path, default=[], help="training logs (--log-format json)")
    training.add_argument(
        "--tensorboard", nargs="+", type=Path, default=[], metavar="DIR", help="or folders of --tensorboard-logdir"
    )
    training.add_argument("--generate", type=Path, help="output of fairseq-generate with --retain-iter-history")
    table = parser.add_argument_group("BLEU against network calls (PNG)")
    table.add_argument("--pareto", type=Path, metavar="TABLE", help="what fairseq-diffusion score --json wrote")
    page = parser.add_argument_group("sentences at each decoding step (HTML)")
    page.add_argument("--history", type=Path, help="generate-SUBSET.history.jsonl, of --retain-iter-history")
    parser.add_argument(
        "--sentence",
        nargs="+",
        default=[],
        metavar="ID",
        help="with --generate: the number after S-, H-, E-; with --history: as many as you like (default: the first "
        f"{MOST_SENTENCES})",
    )
    parser.add_argument("--output", type=Path, required=True, help="the PNG or HTML to write")
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    training = bool(args.log or args.tensorboard or args.generate)
    if training + bool(args.pareto) + bool(args.history) != 1:
        raise UserError(
            "one figure is drawn per call: --log, --tensorboard or --generate with --sentence (these go together), "
            "or --pareto, or --history"
        )
    if args.sentence and not (args.generate or args.history):
        raise UserError("--sentence belongs to --generate or --history; drop it, or pass one of these")
    check_writable(args.output, args.force)
    if args.history:
        return write_history(args)
    return draw_table(args) if args.pareto else draw_training(args)


def draw_training(args: argparse.Namespace) -> int:
    if args.generate and len(args.sentence) != 1:
        raise UserError("--generate and --sentence belong together: a decoding and the one sentence to draw from it")
    trainings = [*map(read_training, args.log), *map(read_tensorboard, args.tensorboard)]
    trajectory = read_trajectory(args.generate, args.sentence[0]) if args.generate else None
    return draw("draw_figure", args.output, with_distinct_names(trainings, args.log + args.tensorboard), trajectory)


def draw_table(args: argparse.Namespace) -> int:
    points, left_out = read_points(args.pareto)
    if left_out:
        print(f"left out, without network calls or sacreBLEU: {'; '.join(left_out)}")
    return draw("draw_pareto", args.output, points)


def draw(function: str, output: Path, *what: Any) -> int:
    """Matplotlib is imported only here."""
    if output.suffix != ".png":
        raise UserError(f"the figure is a PNG, but the output is {output}; name it something.png")
    try:
        drawing = import_module("fairseq_diffusion.plotting.draw")
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise UserError("plotting needs matplotlib: pip install 'fairseq-diffusion[plot]'") from error
    with atomic_write(output) as temporary:
        getattr(drawing, function)(*what, temporary)
    print(f"wrote {output}")
    return 0


def write_history(args: argparse.Namespace) -> int:
    if args.output.suffix not in (".html", ".htm"):
        raise UserError(f"--history makes a page of HTML, but the output is {args.output}; name it something.html")
    every = histories.read(args.history)
    shown = histories.chosen(every, args.sentence, MOST_SENTENCES)
    about = f"{len(shown)} of {len(every)} sentences of {args.history.name}."
    write_page(shown, args.output, "Translations at each decoding step", about)
    print(f"wrote {args.output}: {about}")
    return 0
