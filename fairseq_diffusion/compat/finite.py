"""Numbers that are not finite: found where a checkpoint is read or about to be saved, and where an update stops.

One NaN among the weights makes every output NaN, or worse, a few of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once
from fairseq_diffusion.errors import UserError, has_no_room

logger = logging.getLogger(__name__)


def not_finite(part: Any, name: str = "") -> Iterator[str]:
    """Names of the tensors in nested containers that hold NaN or infinity."""
    import torch

    if torch.is_tensor(part):
        if part.is_floating_point() and not is_finite(part):
            yield name
    elif isinstance(part, (dict, list, tuple)):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from not_finite(value, f"{name}.{key}" if name else str(key))


def is_finite(x: Any) -> bool:
    """By the sum first, which is 20 times as fast on a CPU; it may overflow although no number has."""
    import torch

    total = x.sum(dtype=torch.float if x.element_size() < 4 else None)
    return bool(total.isfinite()) or bool(x.isfinite().all())


def check_finite(where: str, part: Any, advice: str) -> None:
    """Refuse weights, or other nested tensors, `where` some are not finite."""
    if found := list(not_finite(part)):
        raise UserError(
            f"{where} has numbers that are not finite (NaN or infinity) in {len(found)} tensors, first {found[0]}; "
            f"{advice}"
        )


def guard_training() -> None:
    """Any fairseq: it stops with a traceback where gradients are not finite, and saves weights that are not."""
    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    wrap_once(Trainer, "train_step", _explaining)
    wrap_once(checkpoint_utils, "save_checkpoint", _saving_finite)


def _explaining(step: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """fairseq raises a FloatingPointError where a gradient is not finite, and where the loss scale is at its minimum;
    overflows before that it handles by itself.  It then repeats the update with hooks that print where numbers go
    wrong, which fail with a TypeError at modules that return no tensors, such as ours."""
    begin = getattr(trainer.task, "begin_update", None)
    if begin is not None:
        begin()
    try:
        return step(trainer, *args, **kwargs)
    except (FloatingPointError, TypeError) as error:
        cause = error if isinstance(error, FloatingPointError) else error.__context__
        if begin is None or not isinstance(cause, FloatingPointError):
            raise
        raise UserError(trainer.task.why_not_finite(trainer.get_num_updates(), cause)) from error


def _saving_finite(save: Callable[..., Any], cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None) -> Any:
    """Weights that are not finite are not saved, and the training ends; a checkpoint whose metric is not finite is
    never one of the best."""
    where = f"behind update {trainer.get_num_updates()} the model"
    advice = (
        f"nothing was saved, and the checkpoints in {cfg.save_dir} are of before; continue from one of them with a "
        "smaller --lr, or with --clip-norm 1"
    )
    check_finite(where, trainer.get_model().state_dict(), advice)
    if trainer.cfg.ema.store_ema:
        check_finite(f"{where}'s moving average", trainer.ema.get_model().state_dict(), advice)
    if val_loss is not None and not math.isfinite(val_loss):
        logger.warning(
            f"{cfg.best_checkpoint_metric} of validation is {val_loss} behind update {trainer.get_num_updates()}: this "
            "checkpoint is not among the best ones"
        )
        val_loss = None
    try:
        return save(cfg, trainer, epoch_itr, val_loss)
    except (OSError, RuntimeError) as error:
        if not has_no_room(error):
            raise
        for part in Path(cfg.save_dir).glob("checkpoint*.pt.tmp"):
            part.unlink()
        raise UserError(
            f"there is no room for a checkpoint in {cfg.save_dir} ({str(error).splitlines()[0]}); those of before are "
            "whole: free some space, and continue by the same command"
        ) from error
