"""usage: plain.py [--segments] [--romanian] [FILE ...] >TEXT

Plain text, a sentence a line, of text files (which may be gzipped) or standard input: lines end at line feeds alone,
and control characters, soft hyphens and runs of spaces are gone. --segments takes the text between <seg> and </seg>
in the files of evaluation campaigns. --romanian writes s and t with commas below, where older texts have cedillas.
"""

from __future__ import annotations

import argparse
import gzip
import html
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import lines

SEGMENT = re.compile(r"<seg[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
COMMAS = str.maketrans("ŞşŢţ", "ȘșȚț")


def opened(path: Path) -> TextIO:
    return io.TextIOWrapper(gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def sentences(file: TextIO, segments: bool) -> Iterator[str]:
    found = lines.read(file)
    if not segments:
        return found
    return (html.unescape(text).strip() for text in SEGMENT.findall(" ".join(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    for flag in ("--segments", "--romanian"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    found = (text for file in map(opened, args.files) for text in sentences(file, args.segments))
    if not args.files:
        found = sentences(sys.stdin, args.segments)
    if args.romanian:
        found = (text.translate(COMMAS) for text in found)
    lines.write(found)


if __name__ == "__main__":
    main()
