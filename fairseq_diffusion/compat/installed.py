"""The installed fairseq, and whether this package works with it."""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata, util
from types import ModuleType

from fairseq_diffusion.errors import UserError

OLDEST_FAIRSEQ = (0, 12)
OLDEST_TORCH = (2, 1)
DISTRIBUTIONS = ("fairseq", "fairseq-fixed")

INSTALL_LINES = """\
  Python 3.10:          pip install "pip<24.1" && pip install fairseq==0.12.2
  Python 3.11 or 3.12:  pip install "pip<24.1" "setuptools<80" "cython<3.1" wheel numpy torch
                        pip install --no-build-isolation fairseq-fixed==0.12.3.1"""


def distributions() -> dict[str, str]:
    """Installed distributions that provide the module `fairseq`, with their versions."""
    return {name: number for name in DISTRIBUTIONS if (number := version(name))}


def version(distribution: str) -> str | None:
    """Of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def version_tuple(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "2.13.0+cpu" -> (2, 13, 0), "2.11.0a0" -> (2, 11)."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def fairseq_problem() -> str | None:
    """What is wrong with the fairseq of this Python, in a sentence; None if nothing is."""
    if util.find_spec("fairseq") is None:
        other = " (fairseq2 is installed, but it is another library with another interface)"
        return "fairseq is not installed" + (other if util.find_spec("fairseq2") else "")
    try:
        fairseq = importlib.import_module("fairseq")
    except Exception as error:  # stock fairseq on Python 3.11 fails with ValueError, a broken dependency with anything
        return f"fairseq is installed but cannot be imported ({type(error).__name__}: {error}){_copies()}"
    return _version_problem(fairseq) or _extension_problem(fairseq)


def _copies() -> str:
    """A message if both distributions are installed: they write into the same folder and break each other."""
    found = [f"{name} {version}" for name, version in distributions().items()]
    if len(found) < 2:
        return ""
    return f"; {' and '.join(found)} are both installed and overwrite each other: pip uninstall both, install one"


def _version_problem(fairseq: ModuleType) -> str | None:
    version = getattr(fairseq, "__version__", None)
    if version is None:
        return f"the module fairseq found in {list(fairseq.__path__)} is a folder of that name and not fairseq"
    if version_tuple(version)[:2] < OLDEST_FAIRSEQ:
        return f"fairseq {version} is too old: 0.12 or newer is needed"
    return None


def _extension_problem(fairseq: ModuleType) -> str | None:
    """A source tree put on the path without a build lacks the compiled batching code, and fails only when training."""
    try:
        importlib.import_module("fairseq.data.data_utils_fast")
    except Exception as error:
        where = os.path.dirname(fairseq.__file__ or "")
        return f"fairseq in {where} lacks its compiled part fairseq.data.data_utils_fast ({error}){_copies()}"
    return None


def require_fairseq() -> None:
    """Raise :class:`UserError` with the install lines unless a fairseq that this package works with is installed."""
    problem = fairseq_problem()
    if problem:
        python = ".".join(map(str, sys.version_info[:3]))
        raise UserError(f"{problem}. This is Python {python}; install fairseq with\n{INSTALL_LINES}")
