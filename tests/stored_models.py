"""The stored checkpoints: where they are, and what they translate and cost now.  See stored/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.logging import metrics
from support import USER_DIR, call, hypotheses

import fairseq_diffusion

STORED = Path(__file__).resolve().parent / "stored"
DATA = STORED / "data-bin"
MOMENTS = ("validation", 7, 8, 50)  # and updates; before the 50th the schedule adapts to the embeddings

Hypotheses = dict[str, list[list[Any]]]  # by sentence: text and score of each


def checkpoint(name: str) -> Path:
    return STORED / "checkpoints" / f"{name}.pt"


def decodings(name: str) -> Path:
    return STORED / "decodings" / f"{name}.jsonl"


def losses(name: str) -> Path:
    return STORED / "losses" / f"{name}.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decode(path: Path, flags: str) -> Hypotheses:
    """What fairseq-generate prints for the test set, pieces as they are."""
    usual = "--gen-subset test --batch-size 8 --cpu --num-workers 0"
    output = call("generate", DATA, *USER_DIR, "--path", path, *usual.split(), *flags.split())
    return {i: [[text, round(score, 5)] for text, score in found] for i, found in sorted(hypotheses(output).items())}


def texts(found: Hypotheses) -> dict[str, list[str]]:
    return {sentence: [text for text, _ in hypotheses] for sentence, hypotheses in found.items()}


def validation(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The model at `path` as fairseq loads it, its criterion, and the validation set as one batch."""
    fairseq_diffusion.load()
    overrides = {"data": str(DATA), "teacher": str(checkpoint("dinoiser"))}
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], overrides)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[i] for i in range(len(dataset))])
    return model, task.build_criterion(cfg.criterion), batch


def at(model: Any, moment: Any) -> Any:
    """`model` as it is at an update, or in validation."""
    model.train(moment != "validation")
    model.set_num_updates(0 if moment == "validation" else moment)
    return model


def training_losses(path: Path) -> list[dict[str, Any]]:
    """What training logs of the batch at each moment: the loss and its terms, and what else it watches."""
    model, criterion, batch = validation(path)
    found = []
    for moment in MOMENTS:
        with metrics.aggregate(new_root=True) as logged:
            criterion.reduce_metrics([criterion(at(model, moment), batch)[2]])
        found.append({"moment": moment, "losses": {key: float(meter.avg) for key, meter in logged.items()}})
    return found
