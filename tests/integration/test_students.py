"""A student on two ranks: its teacher is on both, and in nothing that ranks exchange or save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support import call, read, training
from test_ranks import STEP, two_ranks


def test_words_that_are_read_by_a_table_of_their_own_may_be_distilled(eight: Path, tmp_path: Path):
    """The vectors stay as they are; and a student starts from its own kind without being asked what to take."""
    small = "--arch sed_toy --canvas-positions 12"
    call("train", *training(eight, tmp_path / "teacher", f"{STEP} {small}"))
    teacher = tmp_path / "teacher/checkpoint_last.pt"
    learning = (
        f"{small} --criterion progressive_distillation --teacher {teacher} --finetune-from-model {teacher} {STEP}"
    )
    call("train", *training(eight, tmp_path / "student", f"{learning} --student-steps 2"))
    student, start = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("student", "teacher"))
    weight, reader = (f"translator.state.{name}" for name in ("weight", "reader"))
    assert torch.equal(student[weight], start[weight]) and not torch.equal(student[reader], start[reader])


def test_two_ranks_learn_as_one_with_the_doubled_batch(eight: Path, tmp_path: Path):
    """Four and four sentences, or eight; both ranks find the model behind what fairseq wraps it in."""
    call("train", *training(eight, tmp_path / "teacher", f"{STEP} --objective mse,anchor"))
    teacher = tmp_path / "teacher/checkpoint_last.pt"
    learning = f"--criterion progressive_distillation --teacher {teacher} --finetune-from-model {teacher} {STEP}"
    learning += " --freeze embeddings --student-steps 2"

    def arguments(name: str, batch: int) -> list[Any]:
        return training(eight, tmp_path / name, learning, batch=batch)

    two_ranks(*arguments("two", 4))
    call("train", *arguments("one", 8))
    two, one, start = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("two", "one", "teacher"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
    assert one.keys() == start.keys() and sum(not torch.equal(one[key], start[key]) for key in one) > len(one) / 2
