"""The sums of the archives that `make setup` installs are those of the versions that it pins."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "scripts"))
import hash_constraints  # noqa: E402

PINNED = sorted((ROOT / "constraints").glob("py3.??.txt"))


def test_each_python_has_pins():
    assert [path.stem for path in PINNED] == ["py3.10", "py3.11", "py3.12"]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_every_pin_has_its_sums(path: Path):
    lines = path.with_name(f"{path.stem}-hashes.txt").read_text().splitlines()[1:]
    found = [line.split() for line in lines]
    assert [tuple(pin.split("==")) for pin, *_ in found] == hash_constraints.pins(path)
    assert len(found) > 60 and {"fairseq-fixed", "fairseq"} & {pin.split("==")[0] for pin, *_ in found}
    for pin, *sums in found:
        assert sums and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in sums), pin


ARCHIVES = [
    ("Jinja2-3.1.6.tar.gz", True),
    ("jinja2-3.1.6-py3-none-any.whl", True),
    ("jinja2-3.1.6-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
    ("jinja2-3.1.6-cp39-abi3-macosx_11_0_arm64.whl", True),
    ("jinja2-3.1.6-cp312-cp312-manylinux_2_17_x86_64.whl", False),
    ("jinja2-3.1.6-cp312-abi3-manylinux_2_17_x86_64.whl", False),
    ("jinja2-3.1.6-cp311-cp311t-manylinux_2_17_x86_64.whl", False),
    ("jinja2-3.1.6-cp311-cp311-win_amd64.whl", False),
    ("jinja2-3.1.7-py3-none-any.whl", False),
    ("Jinja2-3.1.6.post1.tar.gz", False),
]


@pytest.mark.parametrize("name, fits", ARCHIVES)
def test_an_archive_is_of_the_version_and_for_this_python(name: str, fits: bool):
    assert hash_constraints.suits({"filename": name}, "Jinja2", "3.1.6", "py3.11") is fits


def test_sums_are_those_that_the_index_lists(monkeypatch: pytest.MonkeyPatch):
    page = {"files": [{"filename": name, "hashes": {"sha256": f"{i:064x}"}} for i, (name, _) in enumerate(ARCHIVES)]}
    asked: list[Any] = []

    def opened(request: Any) -> io.StringIO:
        asked.append(request.full_url)
        return io.StringIO(json.dumps(page))

    monkeypatch.setattr(hash_constraints.urllib.request, "urlopen", opened)
    line = hash_constraints.hashed("https://index/simple", "Jinja2", "3.1.6", "py3.11")
    assert asked == ["https://index/simple/jinja2/"]
    assert line == "Jinja2==3.1.6 " + " ".join(f"--hash=sha256:{i:064x}" for i in range(4)) + "\n"
    with pytest.raises(SystemExit, match="has no archive of Jinja2 9.9"):
        hash_constraints.hashed("https://index/simple", "Jinja2", "9.9", "py3.11")
