"""The number of the update, for criterions that need it."""

from __future__ import annotations

from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once


def tell_criterions() -> None:
    """Any fairseq: before each batch it tells the model the number of the update, but not the criterion."""
    from fairseq.tasks.fairseq_task import FairseqTask

    wrap_once(FairseqTask, "train_step", _telling)


def _telling(
    step: Callable[..., Any],
    task: Any,
    sample: Any,
    model: Any,
    criterion: Any,
    optimizer: Any,
    update_num: int,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if hasattr(criterion, "set_num_updates"):
        criterion.set_num_updates(update_num)
    return step(task, sample, model, criterion, optimizer, update_num, *args, **kwargs)
