"""usage: clean_corpus.py SOURCE TARGET SOURCE-OUT TARGET-OUT [--longest 175] [--ratio 1.5]

Keep the pairs of tokenised sentences in which neither side is empty or longer than --longest tokens, or more than
--ratio times as long as the other (Moses' clean-corpus-n); print how many were left out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path


def fault(source: str, target: str, longest: int, ratio: float) -> str | None:
    """What is wrong with a pair."""
    shorter, longer = sorted((len(source.split()), len(target.split())))
    if not shorter:
        return "empty"
    if longer > longest:
        return "too long"
    return "unlike in length" if longer / shorter > ratio else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "target", "source_out", "target_out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--longest", type=int, default=175)
    parser.add_argument("--ratio", type=float, default=1.5)
    args = parser.parse_args()
    counts: Counter[str | None] = Counter()
    with (
        args.source.open(encoding="utf-8", newline="\n") as sources,
        args.target.open(encoding="utf-8", newline="\n") as targets,
        args.source_out.open("w", encoding="utf-8", newline="\n") as source_out,
        args.target_out.open("w", encoding="utf-8", newline="\n") as target_out,
    ):
        for source, target in zip_longest(sources, targets):
            if source is None or target is None:
                print(f"clean_corpus: {args.source} and {args.target} differ in their number of lines", file=sys.stderr)
                return 1
            wrong = fault(source, target, args.longest, args.ratio)
            counts[wrong] += 1
            if not wrong:
                source_out.write(source)
                target_out.write(target)
    left_out = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=str) if name)
    print(f"kept {counts[None]} of {counts.total()} pairs; left out: {left_out or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
