"""Make pairs to pretrain on out of text of one language: spans as targets, the paragraphs around them as sources.

The text has one sentence a line, as it is before fairseq-preprocess, so with its word pieces; an empty line ends a
paragraph.  Writes {train,valid}.{SRC,TGT} and, with --dict, the dictionary with <span>, which stands where a span was.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.spans import SPAN, paragraphs, without_span
from fairseq_diffusion.files.texts import read_lines
from fairseq_diffusion.files.writing import atomic_write, check_writable

DICTIONARY = "dict.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", type=Path, metavar="TEXT", help="of the target's language")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--source-lang", "-s", required=True, metavar="SRC", help="as in the training that follows")
    parser.add_argument("--target-lang", "-t", required=True, metavar="TGT", help="as in the training that follows")
    parser.add_argument("--dict", type=Path, metavar="FILE", help="joined dictionary of that training")
    parser.add_argument(
        "--paragraph", type=int, default=512, metavar="N", help="most tokens of a paragraph (default: 512)"
    )
    parser.add_argument("--share", type=float, default=0.3, metavar="P", help="share that a span has (default: 0.3)")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="spans of each paragraph (default: 1)")
    parser.add_argument(
        "--valid", type=int, default=500, metavar="N", help="first paragraphs, to validate on (default: 500)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the spans (default: 1)")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    check(args)
    args.out.mkdir(parents=True, exist_ok=True)
    languages = args.source_lang, args.target_lang
    paths = [args.out / f"{split}.{language}" for split in ("train", "valid") for language in languages]
    outputs = [*paths, *([args.out / DICTIONARY] if args.dict else [])]
    for path in outputs:
        check_writable(path, args.force)
    lines, words = read_lines(args.text, "the text"), dictionary(args.dict)
    counts = Counter(token for line in lines for token in line.split())
    if counts[SPAN]:
        raise UserError(f"{args.text} has the word {SPAN}, which is to stand for spans; replace it there")
    unknown = unknown_share(counts, words) if args.dict else 0.0
    if unknown == 1:
        raise UserError(
            f"--dict {args.dict} has no word of {args.text}, so that all of it would be unknown; pass the joined "
            "dictionary of both languages, and text with the same word pieces"
        )
    with ExitStack() as opened:
        files = [opened.enter_context(atomic_write(path)) for path in outputs]
        texts = [opened.enter_context(open(file, "w", encoding="utf-8")) for file in files]
        train, valid, short = write_pairs(args, lines, texts[:2], texts[2:4])
        for text in texts[4:]:
            text.write("".join(f"{line}\n" for line in words))
        if not train:
            raise UserError(
                f"{args.text} gives no pair to train on: {valid} paragraphs are there to validate on, and "
                f"{short} are too short for a span of {args.share:g} of them; lower --valid, or raise --share"
            )
    print(f"wrote {args.out}: {train} pairs to train on and {valid} to validate on")
    if unknown:
        print(f"{unknown:.2%} of the text's tokens are not in {args.dict}")
    if short:
        print(f"left out: {short} paragraphs that are too short for a span")
    return 0


def check(args: argparse.Namespace) -> None:
    if args.source_lang == args.target_lang:
        raise UserError(
            f"--source-lang and --target-lang are both {args.source_lang}; pass those of the training that follows, "
            "whatever the language of this text"
        )
    if not 0 < args.share < 1:
        raise UserError(f"--share is {args.share}; pass a share above 0 and below 1, for example 0.3")
    if args.paragraph < 2 or args.times < 1 or args.valid < 0:
        raise UserError(
            f"--paragraph is {args.paragraph}, --times {args.times} and --valid {args.valid}; pass 2, 1 and 0, or more"
        )


def dictionary(path: Path | None) -> list[str]:
    """The lines of a dictionary, with SPAN behind the words."""
    lines = [] if path is None else read_lines(path, "--dict")
    return lines if any(line.split(" ")[0] == SPAN for line in lines) else [*lines, f"{SPAN} 1"]


def unknown_share(counts: Counter[str], words: list[str]) -> float:
    """The share of the counted tokens that are not in a dictionary with these lines."""
    known = {line.rsplit(" ", 1)[0] for line in words}
    unknown = sum(number for token, number in counts.items() if token not in known)
    return unknown / max(1, sum(counts.values()))


def write_pairs(
    args: argparse.Namespace, lines: list[str], train: Sequence[TextIO], valid: Sequence[TextIO]
) -> tuple[int, int, int]:
    """Pairs to train on, to validate on, and paragraphs that are too short: how many there are of each."""
    draw, written, short = random.Random(args.seed), [0, 0], 0
    for number, paragraph in enumerate(paragraphs(lines, args.paragraph)):
        held_out = number < args.valid
        for _ in range(1 if held_out else args.times):
            pair = without_span(paragraph, args.share, draw)
            if pair is None:
                short += 1
                break
            written[held_out] += 1
            for file, words in zip(valid if held_out else train, pair):
                file.write(" ".join(words) + "\n")
    return written[0], written[1], short
