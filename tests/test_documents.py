"""Every training and decoding command that the documents show is one that fairseq's own parser takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from support import ROOT

import fairseq_diffusion

PARSERS = {"train": options.get_training_parser, "generate": options.get_generation_parser}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(tool, arguments) of the commands in a document, whose lines end in a backslash where they go on."""
    found = re.findall(r"^ *fairseq-(train|generate) ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return [(tool, shlex.split(said.replace("\\\n", " "), comments=True)) for tool, said in found]


SHOWN = [(path.name, tool, arguments) for path in DOCUMENTS for tool, arguments in commands(path.read_text())]


def test_there_are_commands():
    assert {tool for _, tool, _ in SHOWN} == set(PARSERS)
    assert len(SHOWN) > 5


@pytest.mark.parametrize(("document", "tool", "arguments"), SHOWN)
def test_a_command_is_one_that_fairseq_takes(document: str, tool: str, arguments: list[str], tmp_path: Path):
    fairseq_diffusion.load()
    here = [str(ROOT / "fairseq_diffusion") if word == "$USER_DIR" else word for word in arguments]
    args = options.parse_args_and_arch(PARSERS[tool](), here)
    cfg = convert_namespace_to_omegaconf(args)
    assert cfg.task.data == "DATA-BIN"
