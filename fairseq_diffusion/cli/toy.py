"""Generate a corpus of the toy language (xx to yy, or more languages), or score translations from xx to yy."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.table import pairs
from fairseq_diffusion.toy.corpus import SPLITS, Split, read_hypotheses, read_language, read_split, write_corpus
from fairseq_diffusion.toy.language import Language
from fairseq_diffusion.toy.multilingual import AMBIGUITY, directions, write_languages
from fairseq_diffusion.toy.score import score

AMBIGUITY_OF_TWO = 0.5
ROWS = {
    "sentences": "sentences",
    "ambiguous": "of them ambiguous (register not marked)",
    "valid": "valid: outputs that are a valid translation",
    "mixed": "mixed: ambiguous, valid except that registers are mixed",
    "exact": "exact: unambiguous, the one valid translation",
    "bleu": "BLEU against all valid translations",
    "bleu_single": "BLEU against the single reference",
    "bleu_unambiguous": "BLEU of the unambiguous sentences",
    "signature": "sacreBLEU",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add_generate_arguments(actions.add_parser("generate", help="write a corpus", description=generate.__doc__))
    add_score_arguments(actions.add_parser("score", help="score translations", description=print_score.__doc__))


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=generate)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to write, new or empty")
    parser.add_argument("--size", type=int, default=20000, metavar="N", help="sentences to train on")
    parser.add_argument("--valid-size", type=int, default=200, metavar="N", help="sentences to validate on")
    parser.add_argument("--test-size", type=int, default=500, metavar="N", help="sentences to test on")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed is another language")
    for words, number in {"nouns": 40, "verbs": 20, "adjectives": 16, "adverbs": 8}.items():
        parser.add_argument(f"--{words}", type=int, default=number, metavar="N", help=f"how many {words} there are")
    parser.add_argument(
        "--ambiguity", type=float, default=AMBIGUITY_OF_TWO, metavar="P", help="share of ambiguous sentences"
    )
    parser.add_argument(
        "--languages", type=int, default=2, metavar="N", help="3 or 4: tagged sources, pairs without xx are zero-shot"
    )
    parser.add_argument(
        "--copies", action="store_true", help="with --languages: sentences of all but xx are copied in training, too"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a corpus that is in the directory")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=print_score)
    parser.add_argument("--corpus", required=True, metavar="DIR", help="what `toy generate` wrote")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which part was translated (default: test)")
    parser.add_argument(
        "--hyp", required=True, metavar="FILE", help="one translation a line, or the output of fairseq-generate"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    return args.command(args)


def generate(args: argparse.Namespace) -> int:
    """Write a corpus of the toy language: {train,valid,test}.{xx,yy} and language.json; of several languages:
    {train,valid,test.A-B}.{src,tgt}."""
    if args.languages != 2:
        return generate_several(args)
    if args.copies:
        raise UserError("--copies is of corpora with tags; add --languages 3, or leave it out")
    language = Language(args.seed, args.nouns, args.verbs, args.adjectives, args.adverbs, args.ambiguity)
    corpus = write_corpus(args.out, language, args.size, args.valid_size, args.test_size, args.force)
    print(f"wrote {args.out}")
    for name in SPLITS:
        print(f"  {name:5}  {describe(language, corpus[name])}")
    return 0


def generate_several(args: argparse.Namespace) -> int:
    if args.ambiguity != AMBIGUITY_OF_TWO:
        raise UserError("--ambiguity is of two languages, and with more all is formal; leave it out")
    language = Language(args.seed, args.nouns, args.verbs, args.adjectives, args.adverbs, AMBIGUITY)
    sizes = {"train": args.size, "valid": args.valid_size, "test": args.test_size}
    write_languages(args.out, language, args.languages, sizes, args.copies, args.force)
    found = directions(args.languages)
    print(f"wrote {args.out}")
    for name, unseen in (("trained on", False), ("zero-shot", True)):
        print(f"  {name:10}  {', '.join(str(way) for way in found if way.zero_shot == unseen)}")
    return 0


def describe(language: Language, split: Split) -> str:
    number = len(split.sources)
    ambiguous = sum(map(language.is_ambiguous, split.sources))
    types = len({word for line in split.references for word in line.split()})
    return f"{number} sentences, {ambiguous / number:.1%} ambiguous, {types} distinct target words"


def print_score(args: argparse.Namespace) -> int:
    """Score translations of the toy language: are they valid, do they mix registers, and their BLEU."""
    language, split = read_language(args.corpus), read_split(args.corpus, args.split)
    result = score(language, split.sources, read_hypotheses(args.hyp), split.references)
    print(
        json.dumps(asdict(result))
        if args.json
        else pairs([(label, shown(name, getattr(result, name))) for name, label in ROWS.items()])
    )
    return 0


def shown(name: str, value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if name.startswith("bleu") else f"{value:.1%}"
    return str(value)
