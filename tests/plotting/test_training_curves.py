"""Curves of trainings: from JSON logs, and the same from event files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from support import read

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.plotting.events import read_tensorboard, records_in
from fairseq_diffusion.plotting.read import Training, read_training, with_distinct_names

SummaryWriter = pytest.importorskip("tensorboardX").SummaryWriter
masked_crc32c = pytest.importorskip("tensorboardX.record_writer").masked_crc32c


def test_event_files_hold_the_curves_of_a_training(trained: Path):
    found = read_tensorboard(trained / "curves")
    assert found.name == "curves" and found.sigma_min and found.noise_losses
    for curve in (found.train_loss, found.valid_loss, found.valid_bleu):
        assert curve and curve[0][:2] == [5, 10]  # the last numbers may be in the writer's queue yet
    bleu = [read(trained / f"checkpoint{epoch}.pt")["extra_state"]["val_loss"] for epoch in (1, 2)]  # what is watched
    assert found.valid_bleu and found.valid_bleu[1][:2] == pytest.approx(bleu, abs=1e-4)


def test_they_read_as_a_log_of_the_same_numbers_does(tmp_path: Path):
    """Also where a training was resumed, which begins a new file and passes some updates again."""
    numbers = [(10, 3.5), (20, 2.5), (30, 2.0)], [(20, 2.25), (30, 1.75), (40, 1.5)]
    parts = [("train_inner", "", "loss"), ("train", "train_", "loss"), ("valid", "valid_", "bleu")]
    log = []
    for run, (points, (part, prefix, key)) in enumerate((points, part) for points in numbers for part in parts):
        with SummaryWriter(str(tmp_path / "tb" / part), filename_suffix=f".{run}") as writer:
            for update, value in points:
                writer.add_scalar(key, value, update)
                log.append(json.dumps({f"{prefix}num_updates": str(update), prefix + key: str(value)}))
    (tmp_path / "tb.log").write_text("\n".join(log))
    wanted = [10, 20, 30, 40], [3.5, 2.25, 1.75, 1.5]
    assert read_tensorboard(tmp_path / "tb") == read_training(tmp_path / "tb.log")
    assert read_training(tmp_path / "tb.log") == Training("tb", wanted, None, wanted, None, {})


def test_frames():
    def frame(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + struct.pack("<I", masked_crc32c(length)) + data + b"crc4"

    whole = frame(b"one") + frame(b"") + frame(b"three")
    assert list(records_in(whole, masked_crc32c)) == [b"one", b"", b"three"]
    for cut in range(1, len(frame(b"three")) + 1):
        assert list(records_in(whole[:-cut], masked_crc32c)) == [b"one", b""]


def test_a_length_that_has_changed_loses_nothing_silently(tmp_path: Path):
    with SummaryWriter(str(tmp_path / "valid")) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.add_scalar("loss", 2.0, 2)
    (path,) = (tmp_path / "valid").iterdir()
    data = bytearray(path.read_bytes())
    data[1] ^= 255  # of the first record's length, which then is beyond the end
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path} is damaged .the checksum at byte 0 is wrong"):
        read_tensorboard(tmp_path)


def test_a_folder_without_event_files(tmp_path: Path):
    with pytest.raises(UserError, match="--tensorboard-logdir"):
        read_tensorboard(tmp_path)


def test_trainings_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    a, b, c = (Training(name, None, None, None, None, {}) for name in ("log", "log", "other"))
    paths = [tmp_path / "x" / "log", tmp_path / "y" / "log", tmp_path / "z" / "other"]
    assert [training.name for training in with_distinct_names([a, b, c], paths)] == ["x/log", "y/log", "other"]


def test_the_first_losses_do_not_press_the_rest_to_the_ground():
    pytest.importorskip("matplotlib")
    from fairseq_diffusion.plotting.curves import top_of

    falling = [500.0] + [1.0] * 99
    assert top_of([(list(range(100)), falling)]) == pytest.approx(1.25)
    assert top_of([([1.0], [3.0])]) == pytest.approx(3.75)
