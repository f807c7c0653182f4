"""usage: moses.py LANGUAGE [--split-dashes] [--lowercase] [--workers N] <TEXT >TOKENS

Normalise punctuation and tokenise as Moses does (sacremoses), a sentence a line. --split-dashes is the -a of
tokenizer.perl, which the WMT recipes of fairseq use.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from multiprocessing import Pool

import lines
from sacremoses import MosesPunctNormalizer, MosesTokenizer


def tokenised(text: str, normaliser: MosesPunctNormalizer, tokenizer: MosesTokenizer, dashes: bool, lower: bool) -> str:
    words = tokenizer.tokenize(normaliser.normalize(text), aggressive_dash_splits=dashes, return_str=True)
    return words.lower() if lower else words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language")
    parser.add_argument("--split-dashes", action="store_true")
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    tools = MosesPunctNormalizer(args.language), MosesTokenizer(args.language)
    work = partial(tokenised, normaliser=tools[0], tokenizer=tools[1], dashes=args.split_dashes, lower=args.lowercase)
    with Pool(args.workers) as pool:
        lines.write(pool.imap(work, lines.read(sys.stdin), chunksize=1000))


if __name__ == "__main__":
    main()
