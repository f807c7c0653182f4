"""Buckets and compiled steps by the flags of fairseq-generate: the same output, and a report that tells them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import BEAM
from runs import RERANKER, reported
from support import generate, lines, read, same_hypotheses

from fairseq_diffusion.errors import UserError

HISTORY = "--retain-iter-history --print-step"


def test_positions_at_once_do_not_change_the_output(data: Path, checkpoint: Path, plain_output: str, tmp_path: Path):
    for positions in (1, 200):
        flags = f"{BEAM} --candidate-positions {positions}"
        output, report = reported(data, checkpoint, tmp_path / str(positions), flags)
        assert same_hypotheses(output, plain_output)
        assert report["decoding"]["candidate_positions"] == positions


def test_histories_of_buckets_are_those_of_the_batch(data: Path, checkpoint: Path):
    one, other = (
        generate(data, checkpoint, f"{BEAM} {HISTORY} --prune-after 1 --candidate-positions {positions}")
        for positions in (150, 10**6)
    )
    assert same_hypotheses(one, other)
    assert lines(one, "E") == lines(other, "E") and lines(one, "I") == lines(other, "I") and len(lines(one, "E")) > 11


def test_buckets_are_rescored_in_the_batchs_order(data: Path, checkpoint: Path, teacher: Path):
    both = f"{checkpoint}:{teacher}"
    one, other = (
        generate(data, both, f"{BEAM} --selection mbr:3,rescore {RERANKER} --candidate-positions {positions}")
        for positions in (60, 10**6)
    )
    assert same_hypotheses(one, other)


@pytest.mark.parametrize("precision", ["--fp16", "--bf16"])
def test_half_precision_goes_with_buckets(data: Path, checkpoint: Path, precision: str):
    """Sums in half precision depend on the padding a little; of eleven sentences most stay as they are."""
    one, other = (
        lines(generate(data, checkpoint, f"{precision} --candidate-positions {positions}"), "H")
        for positions in (40, 10**6)
    )
    same = [one[i][0][1] == other[i][0][1] for i in other]
    assert one.keys() == other.keys() and sum(same) >= 8


def test_none_at_once_is_refused(data: Path, checkpoint: Path):
    with pytest.raises(UserError, match="--candidate-positions is 0; pass how many"):
        generate(data, checkpoint, "--candidate-positions 0")


@pytest.mark.slow
def test_compiled_steps(data: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Short sentences, each in a bucket of the same shape, which is compiled once; afterwards the checkpoint decodes as
    before."""
    short = "--max-source-positions 5 --skip-invalid-size-inputs-valid-test"
    flags = f"{short} --oracle-length --noise-beam 2 --nbest 2 --candidate-positions 16"
    before = generate(data, checkpoint, flags)
    state = read(checkpoint)["model"].keys()
    output, report = reported(data, checkpoint, tmp_path / "compiled", f"{flags} --execution compile")
    assert same_hypotheses(output, before)
    prepared = [message for message in caplog.messages if message.startswith("--execution compile: ")]
    assert len(prepared) == 1 < len(lines(before, "H")) and "1 sentences x 2 candidates x 8 positions" in prepared[0]
    seconds = float(re.search(r"compile: ([\d.]+) s", prepared[0])[1])
    assert report["decoding"]["execution"] == "compile"
    assert report["speed"]["compile_seconds"] == pytest.approx(seconds, abs=0.1)
    assert report["speed"]["model"]["seconds"] + seconds < report["speed"]["inference_step"]["seconds"] + 0.1
    assert re.search(r"\| compiling +[\d.]+ s.* not inside encoder and sampler", output)
    assert same_hypotheses(generate(data, checkpoint, flags), before, 1e-12)
    assert read(checkpoint)["model"].keys() == state


def test_a_graph_on_a_cpu_is_refused(data: Path, checkpoint: Path):
    with pytest.raises(UserError, match="--execution cuda_graph needs an NVIDIA GPU"):
        generate(data, checkpoint, "--execution cuda_graph")
