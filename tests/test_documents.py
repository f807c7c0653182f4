"""Every training and decoding command that the documents show is one that fairseq's own parser takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import ROOT
from fairseq import options

import fairseq_diffusion

PARSERS = {"train": options.get_training_parser, "generate": options.get_generation_parser}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"your_own_system.md": "misread"}  # --user-dir: another test runs these commands as they are


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(tool, arguments) of the commands in a document, whose lines end in a backslash where they go on."""
    found = re.findall(r"^ *fairseq-(train|generate) ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return [(tool, shlex.split(said.replace("\\\n", " "), comments=True)) for tool, said in found]


def user_dir(arguments: list[str]) -> str:
    return arguments[arguments.index("--user-dir") + 1]


SHOWN = [(path.name, tool, arguments) for path in DOCUMENTS for tool, arguments in commands(path.read_text())]
OURS = [shown for shown in SHOWN if user_dir(shown[2]) != ELSEWHERE.get(shown[0])]


def test_there_are_commands():
    assert {tool for _, tool, _ in OURS} == set(PARSERS)
    assert {path.stem for path in DOCUMENTS if path.parent.name == "systems"} < {Path(name).stem for name, *_ in OURS}
    assert len(OURS) > 20


@pytest.mark.parametrize(("document", "tool", "arguments"), OURS)
def test_a_command_is_one_that_fairseq_takes(document: str, tool: str, arguments: list[str]):
    fairseq_diffusion.load()
    here = [str(ROOT / "fairseq_diffusion") if word == "$USER_DIR" else word for word in arguments]
    args = options.parse_args_and_arch(PARSERS[tool](), here)
    assert args.data.split("/")[0] == "DATA-BIN"
