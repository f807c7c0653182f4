"""Write a model for use without torch and fairseq: a folder with its decoding as an ONNX graph, in fp32 or int8, its
dictionaries, BPE codes and preparation. How it decodes is said behind --, by the flags of fairseq-generate, as in
-- --iter-decode-max-iter 4. fairseq_diffusion.runtime translates with the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fairseq_diffusion.api import load_model
from fairseq_diffusion.export.folder import export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a checkpoint, or a folder that holds one")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--data", type=Path, metavar="DATA-BIN", help="for dictionaries that are not beside the model")
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="of the graph (default: onnx)")
    parser.add_argument("--int8", action="store_true", help="quantise the weights to 8 bits")
    parser.add_argument("--use-ema", action="store_true", help="take the averaged weights that --store-ema kept")
    parser.add_argument("--tokenizer", help="moses or none, where no preprocessing.json beside the model says it")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """What stands behind -- are flags of fairseq-generate."""
    own, decoding = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = parser.parse_args(own)
    args.decoding = decoding
    return args


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model, args.data, device="cpu", use_ema=args.use_ema, tokenizer=args.tokenizer)
    manifest = export(model, args.output, args.decoding, args.int8)
    size = sum(file.stat().st_size for file in args.output.iterdir()) / 2**20
    print(f"wrote {args.output}: {manifest['precision']}, {size:.1f} MiB")
    print(f"{manifest['agreement']:.0%} of random sentences are translated as by the model itself")
    return 0
