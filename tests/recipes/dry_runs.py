"""What a recipe would do, read from its --dry-run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from commands import ENVIRONMENT, ROOT

SMALL = ["multi30k/small", "tatoeba/small"]
RECIPES = ["toy", "multi30k", "tatoeba", *SMALL, "iwslt14_de_en", "wmt14_en_de", "wmt16_en_ro"]
PROGRAM = re.compile(r"^(?:torchrun [^\"]*\"\$\(command -v fairseq-train\)\"|(fairseq-\w+)) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Planned:
    name: str
    inputs: list[str]
    outputs: list[str]
    command: str

    @property
    def programs(self) -> list[tuple[str, list[str]]]:
        """(program, arguments) of its fairseq commands, without where their output goes."""
        found = PROGRAM.findall(re.sub(r" >\S+", "", self.command.replace("\\\n", " ")))
        return [(name or "fairseq-train", shlex.split(said, comments=True)) for name, said in found]


def environment() -> dict[str, str]:
    """One in which a recipe finds the programs that stand beside this Python."""
    return {**ENVIRONMENT, "PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"}


def recipe(name: str, *arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a recipe, a folder's recipe.sh or the page that is named."""
    page = f"{name}.sh" if "/" in name else f"{name}/recipe.sh"
    command = ["bash", path / "examples" / page, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@cache
def plan(name: str, *arguments: object) -> tuple[Planned, ...]:
    """The steps of a recipe that has its data and its results elsewhere."""
    data = [] if name == "toy" else ["--data", "/the user's data"]
    return dry_run(name, "--out", "/not/there", *data, *arguments)[1]


def dry_run(name: str, *arguments: object) -> tuple[str, tuple[Planned, ...]]:
    """What comes before the steps, and these."""
    done = recipe(name, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    head, *parts = re.split(r"\n(?=# \S)", done.stdout)
    return head, tuple(map(read, parts))


def read(part: str) -> Planned:
    name, inputs, outputs, command = part.split("\n", 3)
    return Planned(name.removeprefix("# "), inputs.split()[2:], outputs.split()[2:], command)


def flag(arguments: list[str], name: str) -> str:
    """The value of a flag; the last one wins."""
    return arguments[len(arguments) - arguments[::-1].index(name)]
