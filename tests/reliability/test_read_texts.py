"""Damaged texts and JSON that `plot`, `score` and `toy score` read: what they say is shown, or a sentence names the
file."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from damage import damaged, other_json, works_or_says
from hypothesis import given
from hypothesis import strategies as st

from fairseq_diffusion.cli.main import command_module, main
from fairseq_diffusion.plotting.events import read_tensorboard
from fairseq_diffusion.plotting.points import read_points
from fairseq_diffusion.plotting.read import read_training, read_trajectory
from fairseq_diffusion.reporting.output import KIND

STEPS = [{"tokens": ["a@@", "<mask>"], "p": [0.5, None]}, {"tokens": ["a@@", "b"], "p": [0.5, 0.9]}]
CANDIDATE = {"text": "ab", "score": -0.5, "calls": 2, "steps": STEPS}
HISTORY = [{"id": i, "source": "x y", "reference": "ab", "candidates": [CANDIDATE] * 2} for i in range(3)]
LOG = [{"num_updates": "10", "loss": "3.5"}, {"valid_num_updates": "10", "valid_loss": "3.1", "valid_bleu": "7"}]
LOG += [{"num_updates": "20", "loss": "2.5", "sigma_min": "0.1", "mse_noise_40": "0.3"}]
TABLE = {"rows": [{"name": f"system, {i} steps", "calls": i, "sacrebleu": 10.0 + i} for i in (1, 2, 5)]}
LINES = "".join(
    f"S-{i}\tx y\nT-{i}\ta b\nH-{i}\t-0.5\ta b@@ c\nD-{i}\t-0.5\ta bc\nP-{i}\t-0.1 -0.2\n" for i in range(4)
)
STEP_LINES = "".join(f"E-2_{i}\ta b@@ c\n" for i in range(3))
REPORT = {"kind": KIND, "system": "x", "data": {"languages": "de-en", "skipped": 0}, "scores": {}, "speed": {}}
REPORT["decoding"] = {"decoder": "x", "steps": 5, "calls": 5.0, "rescored": False, "draft": {"calls": 2}}
REFERENCES = "A bc.\n" * 4


def json_lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def written(path: Path, data: st.DataObject, good: bytes, value: Any = None) -> Path:
    """A damaged file at `path`; a JSON `value` is damaged as such in half of the cases."""
    harm = other_json(value) if value is not None and data.draw(st.booleans()) else damaged(good)
    path.write_bytes(data.draw(harm))
    return path


def run(*words: Any) -> Any:
    """A command of ours, without what makes a line on stderr of its sentence."""
    name, *rest = map(str, words)
    module, parser = command_module(name), argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args(rest))


@given(st.data())
def test_a_history(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path, page = tmp_path / "history.jsonl", tmp_path / "page.html"
    lines = [json.dumps(record).encode() for record in HISTORY]
    if data.draw(st.booleans()):
        lines[1] = data.draw(other_json(HISTORY[1]))
        path.write_bytes(b"\n".join(lines) + b"\n")
    else:
        written(path, data, b"\n".join(lines) + b"\n")
    if works_or_says(lambda: run("plot", "--history", path, "--output", page, "--force"), str(path)) == 0:
        html = page.read_text(encoding="utf-8")
        assert html.count("<script>") == 1 and html.count("<article") <= 50
    count("damaged histories, logs and tables")


@given(st.data())
def test_a_log(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path = tmp_path / "train.log"
    if data.draw(st.booleans()):
        path.write_bytes(json_lines(LOG) + data.draw(other_json(LOG[2])) + b"\n")
    else:
        written(path, data, json_lines(LOG))
    works_or_says(lambda: read_training(path), str(path))
    if not data.draw(st.integers(0, 19)):  # drawing takes long
        works_or_says(lambda: run("plot", "--log", path, "--output", tmp_path / "log.png", "--force"), str(path))
    count("damaged histories, logs and tables")


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = pytest.importorskip("tensorboardX").SummaryWriter
    folder = tmp_path_factory.mktemp("curves")
    with writer(str(folder / "train_inner")) as events:
        for update in range(1, 6):
            events.add_scalar("loss", 3 / update, update)
    return folder


@given(st.data())
def test_event_files(curves: Path, tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    folder = Path(shutil.copytree(curves, tmp_path / "curves", dirs_exist_ok=True))
    (path,) = (folder / "train_inner").iterdir()
    written(path, data, path.read_bytes())
    works_or_says(lambda: read_tensorboard(folder), str(folder))
    count("damaged histories, logs and tables")


@given(st.data())
def test_a_table(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path = written(tmp_path / "table.json", data, json.dumps(TABLE, indent=1).encode(), TABLE)
    works_or_says(lambda: read_points(path), str(path))
    if not data.draw(st.integers(0, 19)):  # drawing takes long
        works_or_says(lambda: run("plot", "--pareto", path, "--output", tmp_path / "t.png", "--force"), str(path))
    count("damaged histories, logs and tables")


@given(st.data())
def test_a_sentence_over_its_steps(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path = written(tmp_path / "generate.txt", data, (LINES + STEP_LINES).encode())
    works_or_says(lambda: read_trajectory(path, "2"), str(path))
    if not data.draw(st.integers(0, 19)):  # drawing takes long
        drawn = ["--sentence", "2", "--output", tmp_path / "grid.png", "--force"]
        works_or_says(lambda: run("plot", "--generate", path, *drawn), str(path))
    count("damaged histories, logs and tables")


@given(st.data())
def test_scores(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    good = {"generate-test.txt": LINES, "generate-test.json": json.dumps(REPORT), "raw.txt": REFERENCES}
    for name, text in good.items():
        (tmp_path / name).write_text(text)
    name = data.draw(st.sampled_from(sorted(good)))
    written(tmp_path / name, data, good[name].encode(), REPORT if name.endswith("json") else None)
    arguments = ["--hyp", tmp_path / "generate-test.txt", "--ref", tmp_path / "raw.txt", "--samples", 0]
    arguments += ["--json", tmp_path / "table.json", "--markdown", tmp_path / "table.md", "--force"]
    if works_or_says(lambda: run("score", *arguments), str(tmp_path / name), "references") == 0:
        (row,) = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"]
        assert row["sentences"] == 4 and 0 <= row["sacrebleu"] <= 100
    count("damaged translations, references and reports")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "corpus"
    assert main(["toy", "generate", "--out", str(folder), "--size", "60"]) == 0
    return folder


@given(st.data())
def test_a_toy_corpus(toy: Path, count: Callable[..., None], data: st.DataObject):
    paths = [path for path in sorted(toy.iterdir()) if path.stem == "test" or path.suffix == ".json"]
    path = data.draw(st.sampled_from(paths))
    whole = path.read_bytes()
    try:
        written(path, data, whole, json.loads(whole) if path.suffix == ".json" else None)
        arguments = ["score", "--corpus", toy, "--hyp", toy / "test.yy", "--split", "test"]
        works_or_says(lambda: run("toy", *arguments), str(path), str(toy), "sentence", "toy language", "translation")
    finally:
        path.write_bytes(whole)
    count("damaged translations, references and reports")
