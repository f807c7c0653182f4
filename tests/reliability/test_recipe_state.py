"""Damaged records of a recipe: the step is made again, or a sentence; no step is skipped on other data."""

from __future__ import annotations

import io
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

import pytest
from commands import ROOT
from damage import damaged, other_json, other_values, part_of_the_examples
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts/text"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@part_of_the_examples(2)
@given(st.data())
def test_a_step(count: Callable[..., None], data: st.DataObject):
    """Its record, input or output is damaged; the step that follows is then made of what there is."""
    steps = import_module("step")
    copy, follow = (
        steps.Step("copy", ["in"], ["out"], "cat in >out"),
        steps.Step("next", ["out"], ["end"], "cp out end"),
    )
    for name in ("in", "out", "end"):
        Path(name).unlink(missing_ok=True)
    for marker in Path("steps").glob("*.json"):
        marker.unlink()
    Path("in").write_text("a b\nc d\n")
    for step in (copy, follow):
        steps.run(step)
    path = Path(data.draw(st.sampled_from(["steps/copy.json", "steps/copy.json", "in", "out"])))
    harmed = damaged(path.read_bytes())
    if path.suffix == ".json" and data.draw(st.booleans()):
        record = json.loads(path.read_text())
        others = other_values({key: value for key, value in record.items() if key != "checksum"})
        harmed = others.map(lambda found: json.dumps({**found, "checksum": record["checksum"]}).encode())
    path.write_bytes(data.draw(harmed))
    redo = data.draw(st.booleans())
    try:
        steps.run(steps.Step(copy.name, copy.inputs, copy.outputs, copy.command, redo=redo))
        steps.run(follow)
    except steps.Refused as refused:
        assert not redo and ("steps/copy.json" in str(refused) or "in changed" in str(refused)), refused
    else:
        assert Path("end").read_bytes() == Path("out").read_bytes() == Path("in").read_bytes()
    count("damaged records of recipes")


SUM = "6a04a8a8aa6f7e0c7e6d8c1f7a5d3d9bb1ce1b0a0d4f8e6f9b1e3c2d4a5f6e7d"


@given(st.data())
def test_sums_of_the_data(count: Callable[..., None], data: st.DataObject):
    """The file that is not as it was recorded is found, unless nothing is left of its record, which is said."""
    check_data = import_module("check_data")
    Path("text").write_text("other words\n")
    record = Path("data.sha256")
    record.write_bytes(data.draw(damaged(f"{SUM}  text\n{SUM}  more\n".encode())))
    left = record.read_text(errors="replace")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["check_data.py", ".", "checksums.txt", "data.sha256"])
        patched.setattr(sys, "stdin", io.StringIO("text there\n"))
        patched.setattr(sys, "stdout", said := io.StringIO())
        patched.setattr(sys, "stderr", said)
        try:
            code = check_data.main()
        except SystemExit as refused:
            code = 2
            said.write(str(refused))
    printed = said.getvalue()
    assert ("data.sha256" if code == 0 or "line" in printed else "text is not as it was") in printed
    assert code == 2 or ("1 seen for the first time" in printed and "  text\n" not in left)
    count("damaged records of recipes")


ROW = {"name": "x, raw", "file": "results/x/generate-test.txt", "calls": 1, "sacrebleu": 2.0, "notes": []}
REPORT = {
    "checkpoints": [{"path": "models/x-raw/average.pt"}],
    "speed": {"inference_step": {"sentences_per_second": 3.0}},
    "decoding": {"steps": 1},
    "environment": {"torch": "2"},
}
WRITTEN: dict[str, Any] = {
    "table.json": {"rows": [ROW], "signatures": {"sacrebleu": "s"}},
    "results/x/generate-test.json": REPORT,
    "steps/train-x-raw.json": {"command": "a \\\n b"},
    "steps/decode-x.json": {"command": "c"},
}


@given(st.data())
def test_results_of_a_recipe(count: Callable[..., None], data: st.DataObject):
    records = import_module("records")
    for name, value in WRITTEN.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(value))
    name = data.draw(st.sampled_from(list(WRITTEN)))
    harmed = other_json(WRITTEN[name]) | damaged(json.dumps(WRITTEN[name]).encode())
    Path(name).write_bytes(data.draw(harmed))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["records.py", "x", "table.json", "out"])
        try:
            records.main()
        except SystemExit as refused:
            assert "not as it was written" in str(refused)
    count("damaged records of recipes")
