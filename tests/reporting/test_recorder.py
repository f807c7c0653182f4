"""What is kept of checkpoints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_diffusion.reporting.recorder import Recorder


@pytest.fixture
def recorder() -> Recorder:
    ranks = SimpleNamespace(distributed_rank=0, distributed_world_size=1)
    return Recorder(SimpleNamespace(task=SimpleNamespace(), distributed_training=ranks))


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
    recorder.add_checkpoint("m.pt", state, used)
    (checkpoint,) = recorder.checkpoints
    assert checkpoint["ema"] is ema and checkpoint["updates"] == 5
    assert checkpoint["averaged"] == (extra or {}).get("averaged", [])
