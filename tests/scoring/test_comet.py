"""COMET is another program: what it is given, and what is made of what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.comet import check_installed, comet_scores

# Says, as comet-score prints it, how many lines of each system are those of the reference.
STAND_IN = """#!{python}
import sys
given = sys.argv[1:]
def lines(path):
    return open(path, encoding="utf-8").read().splitlines()
start = given.index("-t") + 1
systems = given[start:next(i for i in range(start, len(given)) if given[i].startswith("--"))]
source, reference = lines(given[given.index("-s") + 1]), lines(given[given.index("-r") + 1])
for name in systems:
    assert len(lines(name)) == len(source) == len(reference)
    same = sum(one == other for one, other in zip(lines(name), reference))
    print("%s\\tscore: %.4f" % (name, same / len(reference)))
for option in ("--only_system", "--quiet"):
    assert option in given
assert given[given.index("--gpus") + 1] in "01"
sys.exit(3 if given[given.index("--model") + 1] == "bad" else 0)
"""


@pytest.fixture
def comet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "comet-score"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def test_scores_come_in_the_order_of_the_systems(comet: Path):
    check_installed()
    systems = [["a", "x"], ["a", "b\rb"], ["", "y"]]
    assert comet_scores("some/model", ["s", "t"], systems, ["a", "b\rb"]) == [0.5, 1, 0]


def test_its_failure_is_told(comet: Path):
    with pytest.raises(UserError, match="comet-score ended with status 3"):
        comet_scores("bad", ["s"], [["a"]], ["a"])


def test_an_output_that_is_not_understood_is_told(comet: Path):
    comet.write_text("#!/bin/sh\necho nothing")
    with pytest.raises(UserError, match="printed 0 scores for 1 systems"):
        comet_scores("m", ["s"], [["a"]], ["a"])


def test_where_it_is_missing_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="comet/bin/pip install unbabel-comet"):
        check_installed()
