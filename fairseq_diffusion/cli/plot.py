"""Draw a training (noise scale, loss by noise level) and how a sentence's tokens settle while decoding, as one PNG."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fairseq_diffusion.cli.output import check_writable, written_whole
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.plotting.read import read_training, read_trajectory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", nargs="+", type=Path, default=[], help="training logs (--log-format json)")
    parser.add_argument("--generate", type=Path, help="output of fairseq-generate with --retain-iter-history")
    parser.add_argument("--sentence", metavar="ID", help="with --generate: the number behind S-, H-, E-")
    parser.add_argument("--output", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    if not args.log and args.generate is None:
        raise UserError("nothing to plot: give --log, or --generate with --sentence, or both")
    if (args.generate is None) != (args.sentence is None):
        raise UserError("--generate and --sentence belong together: a decoding and the sentence to draw from it")
    check_writable(args.output, args.force)
    trainings = [read_training(path) for path in args.log]
    trajectory = None if args.generate is None else read_trajectory(args.generate, args.sentence)
    draw = load_plotting()
    with written_whole(args.output) as temporary:
        draw(trainings, trajectory, temporary)
    print(f"wrote {args.output}")
    return 0


def load_plotting() -> Any:
    """The drawing function; matplotlib is needed only here."""
    try:
        from fairseq_diffusion.plotting.draw import draw_figure
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise UserError("plotting needs matplotlib: pip install 'fairseq-diffusion[plot]'") from error
    return draw_figure
