"""Runs that several tests of decoding share: with a report to read, and of fairseq's own autoregressive models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import USER_DIR, call, generate

from fairseq_diffusion.reporting import read

SMALL = "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 16"
MODEL = f"--arch transformer {SMALL} --encoder-attention-heads 2 --decoder-attention-heads 2"  # argparse style
UPDATES = "--optimizer adam --lr 1e-2 --cpu --batch-size 8 --max-update 10 --no-epoch-checkpoints --num-workers 0"
RERANKER = "--iter-decode-with-external-reranker"


def train_teacher(data: Path, folder: Path, flags: str = "") -> Path:
    """A checkpoint of fairseq's translation task."""
    own = f"--task translation {MODEL} {UPDATES} --disable-validation --save-dir {folder} {flags}"
    call("train", data, *own.split())
    return folder / "checkpoint_last.pt"


def autoregressive(data: Path, folder: Path, flags: str) -> list[Any]:
    """Arguments of a training of the same model with a criterion of ours; later `flags` win over earlier ones."""
    criterion = "--criterion label_smoothed_cross_entropy_with_frequency_contrast --label-smoothing 0.1"
    own = f"--task translation {MODEL} {UPDATES} --dropout 0.1 {criterion} --save-dir {folder}"
    return [data, *USER_DIR[:2], *own.split(), *flags.split()]


def reported(data: Path, path: Any, folder: Path, flags: str = "", **steps: str) -> tuple[str, dict[str, Any]]:
    """What fairseq-generate writes into a folder: the text, and the report from the JSON beside it."""
    assert generate(data, path, f"{flags} --results-path {folder}", **steps) == ""
    return (folder / "generate-test.txt").read_text(), read(folder / "generate-test.json")
