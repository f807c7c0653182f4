"""What the tests of the chain share: fairseq's commands, as processes or as calls, and reading what they print."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from commands import ROOT, Command
from fairseq.dataclass.configs import DatasetConfig

import fairseq_diffusion
from fairseq_diffusion import compat

USER_DIR = ["--user-dir", str(ROOT / "fairseq_diffusion"), "--task", "diffusion_translation"]
TINY_WORDS = "--hidden 16 --inner 32 --heads 2 --encoder-layers 1 --decoder-layers 1".split()
TINY = [*TINY_WORDS, "--latent-dim", "4"]
TINY_BLOCKS = "--hidden 16 --inner 32 --heads 2 --encoder-layers 1 --decoder-layers 4 --blocks 2".split()
DEFAULT_WORKERS = f"--num-workers {DatasetConfig.num_workers}"  # of fairseq; for speed, most tests have none


def command(tool: str, *args: Any) -> list[str]:
    """A fairseq command as its console script would start it, for what ``Command`` cannot do."""
    start = f"import sys; sys.argv[0] = {tool!r}; from fairseq_cli.{tool} import cli_main; cli_main()"
    return [sys.executable, "-c", start, *map(str, args)]


def process(tool: str, *args: Any, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a fairseq command in a process of its own."""
    return Command(tool, *args, stdin=stdin).done()


def call(tool: str, *args: Any) -> str:
    """Run a fairseq command in this process, which saves its start, and return what it prints."""
    from fairseq import checkpoint_utils
    from fairseq.logging import metrics

    fairseq_diffusion.load()
    metrics.reset()
    compat.prefer_ema(False)
    logging.getLogger("fairseq.logging.progress_bar").handlers.clear()  # it would go on writing to older --log-file
    vars(checkpoint_utils.save_checkpoint).pop("best", None)  # fairseq keeps the best value in its function
    output = io.StringIO()
    logging.getLogger().setLevel(logging.INFO)  # as fairseq sets it in a process of its own
    with patch.object(sys, "argv", [tool, *map(str, args)]), redirect_stdout(output):
        import_module(f"fairseq_cli.{tool}").cli_main()
    return output.getvalue()


def training(
    data: Path,
    save_dir: Path,
    flags: str = "",
    arch: str = "dinoiser_toy",
    batch: int = 8,
    size: Sequence[str] = TINY,
) -> list[Any]:
    """Arguments of a tiny training; later `flags` win over earlier ones."""
    usual = "--criterion diffusion_loss --optimizer adam --lr 1e-3 --cpu --no-progress-bar --num-workers 0"
    own = [data, *USER_DIR, *usual.split(), "--arch", arch, *size, "--batch-size", batch]
    return [*own, "--save-dir", save_dir, *flags.split()]


def decoding(data: Path, checkpoint: Any, flags: str = "", steps: str = "--iter-decode-max-iter 3") -> list[Any]:
    usual = f"--gen-subset test --batch-size 8 --remove-bpe {steps} --cpu --num-workers 0"
    return [data, *USER_DIR, "--path", checkpoint, *usual.split(), *flags.split()]


def generate(data: Path, checkpoint: Any, flags: str = "", steps: str = "--iter-decode-max-iter 3") -> str:
    return call("generate", *decoding(data, checkpoint, flags, steps))


def lines(output: str, kind: str) -> dict[str, list[list[str]]]:
    """Lines such as ``H-3<tab>score<tab>text`` by sentence id, each as its fields behind the first."""
    found: dict[str, list[list[str]]] = {}
    for line in output.splitlines():
        name, *fields = line.split("\t")
        if name.startswith(f"{kind}-"):
            found.setdefault(name[2:], []).append(fields)
    return found


def hypotheses(output: str) -> dict[str, list[tuple[str, float]]]:
    """Text and score of each sentence's hypotheses, in the order printed."""
    return {i: [(text, float(score)) for score, text in found] for i, found in lines(output, "H").items()}


def same_hypotheses(one: str, other: str, tolerance: float = 1e-4) -> bool:
    """The same sentences, texts and, within `tolerance`, scores."""
    one_h, other_h = hypotheses(one), hypotheses(other)
    return one_h.keys() == other_h.keys() and all(
        [text for text, _ in one_h[i]] == [text for text, _ in other_h[i]]
        and all(abs(a - b) < tolerance for (_, a), (_, b) in zip(one_h[i], other_h[i]))
        for i in one_h
    )


def read(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint under torch's safe default."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def different(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two nested states differ in the least."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{path}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [where for key in one for where in different(one[key], other[key], f"{path}/{key}")]
    if torch.is_tensor(one):
        return [] if torch.equal(one, other) else [path]
    return [] if one == other else [path]
