"""Print the path to pass to fairseq's --user-dir."""

from __future__ import annotations

import argparse
from pathlib import Path


def run(args: argparse.Namespace) -> int:
    print(Path(__file__).resolve().parents[1])
    return 0
