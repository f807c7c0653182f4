"""The same seed on the same machine: the same curves, weights and translations, to the bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from kinds import KINDS
from reliability_fixtures import with_quick
from stored_models import DATA
from support import call, decoding, different, lines, read, training

TIMES = ("wps", "ups", "wall", "train_wall", "train_wps", "train_ups", "valid_wps")
QUICK = ("dinoiser_toy", "mdlm_toy", "diffglat_toy_ctc")


def curves(log: Path) -> list[dict[str, Any]]:
    """Every value that a training has logged, but how long it took."""
    values = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [{key: each[key] for key in each if not key.endswith(TIMES)} for each in values]


@pytest.mark.parametrize("arch", with_quick(KINDS, QUICK))
def test_the_same_seed_is_the_same_training(
    arch: str, soak: bool, tmp_path: Path, count: Callable[..., None], trains: None
):
    size, flags = KINDS[arch]
    more = f"{flags} --dropout 0.1 --max-update {100 if soak else 20} --no-epoch-checkpoints --log-format json"
    found = []
    for name in ("one", "other"):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(len(found))  # a new process starts anywhere
        log = tmp_path / f"{name}.log"
        call("train", *training(DATA, tmp_path / name, f"{more} --log-interval 1 --log-file {log}", arch, size=size))
        printed = call("generate", *decoding(DATA, tmp_path / name / "checkpoint_last.pt", steps=""))
        found.append((curves(log), read(tmp_path / name / "checkpoint_last.pt"), lines(printed, "H")))
    (curve, state, printed), (other_curve, other_state, other_printed) = found
    assert len(curve) > 20 and curve == other_curve and len(printed) > 5 and printed == other_printed
    for part in ("model", "last_optimizer_state"):
        assert different(state[part], other_state[part]) == []
    count("trainings and decodings repeated")
