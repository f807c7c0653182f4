"""Training on several ranks: how long they wait for each other, and what a rank says while it waits."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once

logger = logging.getLogger(__name__)

LONGEST_WAIT = 600  # seconds, torch's own for NCCL; for gloo it has 1800
HINT_EVERY = 30  # seconds


def limit_waiting() -> None:
    """Any fairseq: it leaves the time that ranks wait for each other to torch, and its --heartbeat-timeout ends no rank
    that waits."""
    from fairseq.distributed import DistributedTimeoutWrapper, utils

    wrap_once(utils, "distributed_init", _joining)
    wrap_once(DistributedTimeoutWrapper, "__init__", _ending)


def _ending(init: Callable[..., Any], wrapper: Any, module: Any, timeout: int) -> None:
    """Python sees the usual SIGINT only when torch's exchange has returned, which it does not."""
    init(wrapper, module, timeout, signal=signal.SIGTERM)


def _joining(join: Callable[..., Any], cfg: Any) -> Any:
    from fairseq.distributed import utils
    from torch import distributed

    chosen = cfg.distributed_training
    with _limited(distributed, max(chosen.heartbeat_timeout, LONGEST_WAIT)), _hinting(chosen):
        rank = join(cfg)
        utils.get_global_group()  # fairseq makes it at its first use and keeps it
    return rank


@contextmanager
def _limited(distributed: Any, seconds: int) -> Iterator[None]:
    """Within it, groups of ranks are made with this limit."""
    names = ("init_process_group", "new_group")
    before = {name: getattr(distributed, name) for name in names}
    for name, make in before.items():
        setattr(distributed, name, functools.partial(make, timeout=timedelta(seconds=seconds)))
    try:
        yield
    finally:
        for name, make in before.items():
            setattr(distributed, name, make)


@contextmanager
def _hinting(chosen: Any) -> Iterator[None]:
    """Within it, a line every now and then says that this rank waits for the others to start."""
    done = threading.Event()

    def hint() -> None:
        waited = 0
        while not done.wait(HINT_EVERY):
            waited += HINT_EVERY
            logger.warning(
                f"rank {chosen.distributed_rank} has waited for {waited} s for all {chosen.distributed_world_size} "
                f"ranks to meet at {chosen.distributed_init_method}; start the others, and check that they can reach "
                "this address"
            )

    thread = threading.Thread(target=hint, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
