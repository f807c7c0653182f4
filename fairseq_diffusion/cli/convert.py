"""Convert a checkpoint of fairseq's own NAT models (cmlm_transformer, nonautoregressive_transformer), trained with its
translation_lev task, to one of this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

import fairseq_diffusion
from fairseq_diffusion import compat
from fairseq_diffusion.cli.average import exported, load_checkpoint
from fairseq_diffusion.compat.checkpoints import model_name
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import atomic_write, check_writable
from fairseq_diffusion.models.base import BOS
from fairseq_diffusion.models.from_fairseq import architecture_of, configuration, weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of fairseq's NAT models")
    parser.add_argument("--data", required=True, help="the data-bin that it was trained on, for its dictionaries")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    check_writable(args.output, args.force)
    fairseq_diffusion.load()
    state = converted(args.checkpoint, args.data)
    with atomic_write(args.output) as temporary:
        torch.save(state, temporary)
    print(f"converted {args.checkpoint} into {args.output}; decode it with --task {compat.OUR_TASK}")
    return 0


def converted(checkpoint: Path, data: str) -> dict[str, Any]:
    """A checkpoint of ours with the same weights, and without an optimiser."""
    state = load_checkpoint(checkpoint)
    architecture = architecture_of(model_name(state))
    theirs = (state.get("cfg") or {}).get("model") or state["args"]
    cfg = training(data, architecture, theirs)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    dictionary = task.target_dictionary
    try:
        found = weights(state["model"], model.state_dict(), dictionary.unk(), dictionary.pad())
        model.load_state_dict(found)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"the weights do not fit the dictionaries of {data} and the checkpoint's own configuration; pass the data "
            f"that it was trained on ({str(error).splitlines()[-1].strip()})"
        ) from error
    settings = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    kept = exported(state, model.state_dict(), [checkpoint], ema=False)
    return {**kept, "args": None, "cfg": settings, "task_state": task.state_dict()}


def training(data: str, architecture: str, theirs: Any) -> Any:
    """The configuration of a training of ours that could have made such a model."""
    flags = [data, "--task", compat.OUR_TASK, "--criterion", "diffusion_loss", "--arch", architecture]
    given = options.parse_args_and_arch(options.get_training_parser(), flags)
    for name, value in configuration(theirs).items():
        setattr(given, name, value)
    for side in ("source", "target"):
        # a model here puts <s> before a sentence itself; there the data have it
        setattr(given, f"max_{side}_positions", getattr(theirs, f"max_{side}_positions", 1024) - BOS)
    return convert_namespace_to_omegaconf(given)
