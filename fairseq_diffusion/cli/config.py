"""Write an architecture preset as YAML for fairseq-hydra-train, which does not read --arch."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

import fairseq_diffusion.systems  # noqa: F401  registers the presets
from fairseq_diffusion.files.writing import check_writable, write_text
from fairseq_diffusion.systems.presets import PRESETS

HEADER = "# @package _group_\n# The architecture {name} of fairseq_diffusion; put this file into CONFIG-DIR/model/.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arch", metavar="ARCH", help=f"one of: {', '.join(PRESETS)}")
    parser.add_argument("--output", type=Path, help="file to write (default: print)")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    model, fields = PRESETS[args.arch]
    text = HEADER.format(name=args.arch) + yaml.safe_dump({"_name": model, **fields}, sort_keys=False)
    if args.output is None:
        print(text, end="")
    else:
        check_writable(args.output, args.force)
        write_text(args.output, text)
    return 0
