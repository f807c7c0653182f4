"""Score what fairseq-generate printed, or plain text, against untokenised references, and compare systems."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import language_of, read_lines
from fairseq_diffusion.files.writing import check_writable, write_texts
from fairseq_diffusion.scoring.comet import check_installed, comet_scores
from fairseq_diffusion.scoring.comparison import compared, is_compound_pair, language_from
from fairseq_diffusion.scoring.frequencies import BUCKETS, Training
from fairseq_diffusion.scoring.metrics import Options
from fairseq_diffusion.scoring.outputs import name_and_path, read_output
from fairseq_diffusion.scoring.references import check_distinct, read_references
from fairseq_diffusion.scoring.table import Markdown, Text, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_inputs(parser)
    parser.add_argument(
        "--tokenize", choices=BLEU.TOKENIZERS, help="sacreBLEU's tokenizer (default: by the language, mostly 13a)"
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case (as papers on IWSLT14 do)")
    parser.add_argument(
        "--compound-split",
        action="store_true",
        help="also BLEU with words split at hyphens (the default where a report has English to German)",
    )
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="of the paired bootstrap between systems; 0: no test"
    )
    parser.add_argument(
        "--frequencies",
        type=Path,
        metavar="FILE",
        help="also recall, precision and F1 of words by how often they are in this text, the target side of the "
        "training data, with BPE or without",
    )
    parser.add_argument(
        "--buckets",
        metavar="N,N,...",
        help=f"least occurrences of the words in each bucket but the first, which begins at 0 (default: {BUCKETS})",
    )
    parser.add_argument("--comet", metavar="MODEL", help="also COMET, such as Unbabel/wmt22-comet-da; needs --src")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics as JSON too")
    parser.add_argument("--force", action="store_true", help="replace existing outputs")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hyp",
        nargs="+",
        action="extend",
        required=True,
        metavar="[NAME=]FILE",
        help="what fairseq-generate printed, its --results-path, or one translation a line; several are compared",
    )
    parser.add_argument(
        "--ref",
        nargs="+",
        action="extend",
        type=Path,
        required=True,
        metavar="FILE",
        help="untokenised references, one a line; several files are several references",
    )
    parser.add_argument("--src", type=Path, metavar="FILE", help="untokenised sources, for COMET")
    parser.add_argument("--language", help="target language, such as de (default: the one in the reports beside --hyp)")


def run(args: argparse.Namespace) -> int:
    named_files = [name_and_path(spec) for spec in args.hyp]
    check_arguments(args, named_files)
    references = read_references(args.ref)
    sources = read_sources(args.src, references) if args.src else []
    outputs = [read_output(name, path, len(references[0])) for name, path in named_files]
    language = language_of(args.language) or language_from(outputs)
    options = Options(args.tokenize, args.lowercase, args.compound_split or is_compound_pair(outputs))
    training = Training.read(args.frequencies, args.buckets or BUCKETS) if args.frequencies else None
    comparison, texts = compared(outputs, args.ref, references, language, options, args.samples, training)
    if args.comet:
        add_comet(comparison, args.comet, sources, texts, references)
    files = {}
    if args.markdown:
        files[args.markdown] = render(comparison, Markdown())
    if args.json:
        files[args.json] = json.dumps(comparison, indent=2, ensure_ascii=False) + "\n"
    write_texts(files)
    print(render(comparison, Text()), end="")
    return 0


def check_arguments(args: argparse.Namespace, named_files: list[tuple[str, Path]]) -> None:
    """Errors in the arguments that are seen before anything is read."""
    outputs = [(flag, path) for flag, path in (("--markdown", args.markdown), ("--json", args.json)) if path]
    inputs = [*(("--hyp", path) for _, path in named_files), *(("--ref", path) for path in args.ref)]
    more = [(flag, path) for flag, path in (("--src", args.src), ("--frequencies", args.frequencies)) if path]
    check_distinct([*inputs, *more, *outputs])
    for _, path in outputs:
        check_writable(path, args.force)
    names = [name for name, _ in named_files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"several systems are called {', '.join(twice)}; name each with --hyp NAME=FILE")
    if args.samples < 0:
        raise UserError(f"--samples {args.samples} is negative; give the number of resamples, or 0 for no test")
    if args.buckets and not args.frequencies:
        raise UserError(f"--buckets {args.buckets} are of --frequencies FILE, which is missing; add it, or drop them")
    check_comet(args)


def check_comet(args: argparse.Namespace) -> None:
    if bool(args.comet) != bool(args.src):
        raise UserError("--comet MODEL and --src FILE go together: COMET reads the sources, and nothing else does")
    if args.comet and len(args.ref) > 1:
        raise UserError("COMET takes one reference; give one --ref, or leave out --comet")
    if args.comet:
        check_installed()


def read_sources(path: Path, references: list[list[str]]) -> list[str]:
    sources = read_lines(path, "--src")
    if len(sources) != len(references[0]):
        raise UserError(
            f"--src {path} has {len(sources)} lines, but there are {len(references[0])} references; "
            "give the sources of the same test set"
        )
    return sources


def add_comet(
    comparison: dict[str, Any], model: str, sources: list[str], texts: dict[str, list[str]], references: list[list[str]]
) -> None:
    scores = comet_scores(model, sources, list(texts.values()), references[0])
    for row, score in zip(comparison["rows"], scores):
        row["comet"] = score
    comparison["signatures"]["comet"] = model
