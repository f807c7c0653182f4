"""A Python of its own, in which stand-ins for installed packages are found first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python that finds modules in `folder` before the installed ones."""
    before = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    return subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=False)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
