"""What is kept of lines and checkpoints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_diffusion.reporting.record import Recorder


@pytest.fixture
def recorder() -> Recorder:
    ranks = SimpleNamespace(distributed_rank=0, distributed_world_size=1)
    return Recorder(SimpleNamespace(task=SimpleNamespace(), distributed_training=ranks))


def test_lines_of_sentences(recorder: Recorder):
    for line in ("S-0\tsource", "T-0\treference", "H-0\t-0.5\tbest", "H-0\t-0.9\tsecond", "H-12\t-1\t", "T-12\t"):
        recorder.see_line(line)
    assert recorder.hypotheses == {0: "best", 12: ""} and recorder.references == {0: "reference", 12: ""}


@pytest.mark.parametrize(
    "line", ["", "H", "H-", "H-x\t1\ttext", "H-1", "2026-01-01 | INFO | H-1\t0\ttext", "| H-1\t0\tx"]
)
def test_other_lines(recorder: Recorder, line: str):
    before = recorder.ended
    recorder.see_line(line)
    assert not recorder.hypotheses and recorder.ended == before


@pytest.mark.parametrize(
    "extra, used, ema",
    [
        ({}, False, False),
        ({}, True, True),
        ({"ema": {}}, False, False),
        ({"averaged": ["a"]}, False, None),
        ({"averaged": ["a"], "averaged_ema": True}, False, True),
        ({"averaged": ["a"], "averaged_ema": False}, False, False),
        (None, False, False),
    ],
)
def test_ema_of_a_checkpoint(recorder: Recorder, extra: dict[str, Any] | None, used: bool, ema: bool | None):
    state = {"extra_state": extra, "optimizer_history": [{"num_updates": 1}, {"num_updates": 5}]}
    recorder.see_checkpoint("m.pt", state, used)
    (checkpoint,) = recorder.checkpoints
    assert checkpoint["ema"] is ema and checkpoint["updates"] == 5
    assert checkpoint["averaged"] == (extra or {}).get("averaged", [])
