"""What fairseq evaluates of a configuration is a value, and never a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stored_models import DATA, checkpoint
from support import read

import fairseq_diffusion
from fairseq_diffusion.compat.values import value_of
from fairseq_diffusion.errors import UserError


@pytest.mark.parametrize(
    "text, value",
    [
        ("(0.9, 0.98)", (0.9, 0.98)),
        (" [(512, 10, 5)] + [(512, 3, 2)] * 2", [(512, 10, 5), (512, 3, 2), (512, 3, 2)]),
        ("-1e-6", -1e-6),
        ("True", True),
        ("None", None),
        ("{'a': 1}", {"a": 1}),
        ("'a'", "a"),
    ],
)
def test_values(text: str, value: Any):
    assert value_of(text) == value


CODE = [
    "open('x')",
    "().__class__",
    "[x for x in (1,)]",
    "lambda: 1",
    "x",
    "(0.9,",
    "",
    "1 if 2 else 3",
    "9**9**9",
    "[0] * 9 * 9",
    "9999999 * [0]",
]


@pytest.mark.parametrize("text", [*CODE, "f'{1}'", "(y := 1)", "(" * 5000, "[0] + 'a'"])
def test_others_are_refused(text: str):
    with pytest.raises(UserError, match="where a value such as"):
        value_of(text)


def test_what_is_no_string_is_left_to_fairseq():
    from fairseq import utils

    fairseq_diffusion.load()
    assert utils.eval_bool(None, default=True) is True and utils.eval_bool("False") is False
    assert utils.eval_str_list("[1, 2]", int) == [1, 2]


SETTINGS = {"adaptive_softmax_cutoff": "CODE"}


@pytest.mark.parametrize("name, own", [("transformer", SETTINGS), ("fconv", {"encoder_layers": "CODE"})])
def test_a_checkpoint_runs_nothing(tmp_path: Path, name: str, own: dict[str, Any]):
    """Models of fairseq's own, which rescore or are a baseline."""
    path, sentinel = tmp_path / "attack.pt", tmp_path / "sentinel"
    state = read(checkpoint("glat"))
    code = f"open({str(sentinel)!r}, 'w')"
    model = {"_name": name, **{key: code if value == "CODE" else value for key, value in own.items()}}
    torch.save({**state, "cfg": {**state["cfg"], "model": model}}, path)
    with pytest.raises(UserError, match="attack.pt"):
        fairseq_diffusion.load(path, data=DATA, device="cpu")
    assert not sentinel.exists()
