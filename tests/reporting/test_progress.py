"""Progress: which lines there are and when, what they say, and where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import call, decoding, generate, hypotheses

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.reporting import progress
from fairseq_diffusion.reporting.progress import Progress, bar_is_seen, duration


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "sentences/s" in line]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line after every batch, but the last."""
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_a_line_every_thirty_seconds_and_none_at_the_end(capsys: pytest.CaptureFixture[str]):
    """Ten sentences a batch and ten seconds; the second half is of sentences three times as long."""
    sizes = {i: 10 if i < 60 else 30 for i in range(120)}
    now = 0.0
    counted = Progress("translated", sizes, lambda: now)
    for start in range(0, 120, 10):
        now += 10
        counted.add(range(start, start + 10))
    assert lines(capsys) == [
        "translated 30 of 120 sentences, 1 sentences/s, about 4 min left",  # 7/8 of the tokens
        "translated 60 of 120 sentences, 1 sentences/s, about 3 min left",
        "translated 90 of 120 sentences, 1 sentences/s, about 54 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (5399, "90 min"), (9e3, "2.5 h")]
)
def test_durations(seconds: float, said: str):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("flags", "terminal", "seen"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"log_format": "tqdm"}, True, True),
        ({"log_format": "simple"}, True, False),
        ({"log_format": "none"}, False, True),
        ({"no_progress_bar": True}, True, False),
    ],
)
def test_none_where_fairseqs_bar_is_seen(
    flags: dict[str, Any], terminal: bool, seen: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: terminal))
    assert bar_is_seen(SimpleNamespace(**{"log_format": None, "no_progress_bar": False, **flags})) is seen


@pytest.fixture(params=["checkpoint", "teacher"])
def model(request: pytest.FixtureRequest) -> Iterator[Path]:
    """One of ours, and an autoregressive one."""
    return request.getfixturevalue(request.param)


def test_generate_says_how_far_it_has_come(
    data: Path, model: Path, often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    generate(data, model, f"--results-path {tmp_path}", steps="")
    (line,) = lines(capsys)  # a batch of 8, and one of 3
    assert line.startswith("translated 8 of 11 sentences, ") and line.endswith(" left")
    assert "sentences/s" not in (tmp_path / "generate-test.txt").read_text().split("\n| ")[0]


def test_a_shard_counts_its_own_sentences(
    data: Path, checkpoint: Path, often: None, capsys: pytest.CaptureFixture[str]
):
    generate(data, checkpoint, "--batch-size 2 --distributed-world-size 2 --distributed-rank 1")
    assert [line.split(" sentences")[0] for line in lines(capsys)] == ["translated 2 of 5", "translated 4 of 5"]


def test_likelihood_does(data: Path, checkpoint: Path, often: None, capsys: pytest.CaptureFixture[str]):
    command = f"likelihood {data} --path {checkpoint} --samples 2 --steps 2 --batch-size 4 --cpu"
    assert main(command.split()) == 0
    assert [line.split(" sentences")[0] for line in lines(capsys)] == ["scored 4 of 11", "scored 8 of 11"]


def test_interactive_does_not(
    data: Path, checkpoint: Path, often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "input").write_text("w1 w2\nw3\nw4\n")
    flags = f"--input {tmp_path / 'input'} --buffer-size 2 --batch-size 1"
    output = call("interactive", *decoding(data, checkpoint, flags))
    assert len(hypotheses(output)) == 3 and not lines(capsys)
