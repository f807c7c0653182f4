"""A shard's process: what is kept of what it prints, what becomes of it when one of the two dies, and on which GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fairseq_diffusion.distillation import shards
from fairseq_diffusion.distillation.shards import Shards
from fairseq_diffusion.errors import UserError


def program(code: str) -> list[str]:
    """A command that stands for fairseq-generate; `shard` is its number."""
    return [sys.executable, "-c", f"import os, sys, time; shard = int(sys.argv[-1]); {code}"]


def test_sentences_are_kept_and_the_rest_is_logged(tmp_path: Path):
    code = r"print('loading'); print('S-1\ta b\nH-1\t-1\tA\u2028B\nP-1\t-1\nH-0\t-2\t'); print('oh', file=sys.stderr)"
    work = Shards(tmp_path, "plan", 1, program(code))
    work.decode([0], 1)
    assert list(work.translations(0)) == [(0, ""), (1, "A\u2028B")] and work.missing() == []
    assert sorted(work.log(0).read_text().split()) == ["loading", "oh"]
    assert Shards(tmp_path, "other plan", 1, []).missing() == [0]


def test_the_lengths_that_fairseq_skips_are_in_the_trailer_of_either_stream(tmp_path: Path):
    said = "7 samples have invalid sizes and will be skipped, max_positions=(30, 40), first few sample ids=[1]"
    for stream in ("stdout", "stderr"):
        work = Shards(tmp_path, stream, 2, program(f"print({said!r}, file=sys.{stream}) if shard else 0"))
        work.decode([0, 1], 2)
        assert work.limits() == [30, 40]


def test_a_failed_process_leaves_no_shard_and_its_last_words(tmp_path: Path):
    code = r"print('H-0\t-1\tA'); sys.exit('CUDA out of memory') if shard == 1 else 0"
    work = Shards(tmp_path, "plan", 3, program(code))
    with pytest.raises(UserError, match=r"(?s)ended with status 1; .*shard-1-of-3.log.*CUDA out of memory"):
        work.decode([0, 1, 2], 1)
    assert work.missing() == [1, 2]  # and the third was not begun


def test_more_shards_than_batches(tmp_path: Path):
    """fairseq-generate divides by the number of its sentences in the end."""
    work = Shards(tmp_path, "plan", 2, program(r"print('H-0\t-1\tA') if shard == 0 else 1 / 0"))
    work.decode([0, 1], 1)
    assert work.missing() == [] and [*work.translations(0), *work.translations(1)] == [(0, "A")]


def test_jobs_share_the_gpus_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = r"print(f'H-{shard}\t-1\t' + os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    work = Shards(tmp_path, "plan", 6, program(code + "; time.sleep(0.2)"))
    work.decode(list(range(6)), 3)
    gpus = [text for shard in range(6) for _, text in work.translations(shard)]
    assert set(gpus) == {"4", "7"}
    assert shards.environments_for(1) == [{}]  # a job alone stays where it is
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shards.environments_for(2) == [{}, {}]


def test_a_process_ends_with_the_pipe_that_a_killed_reader_leaves(tmp_path: Path):
    code = f"[print(i, flush=True) for i in range(10**5)]; open({str(tmp_path / 'finished')!r}, 'w')"
    with (tmp_path / "log").open("w") as log:
        lines = shards.process_lines([*program(code), "0"], {}, log)
        assert next(lines) == "0\n"
        lines.close()
    assert "BrokenPipeError" in (tmp_path / "log").read_text() and not (tmp_path / "finished").exists()
