"""One training at a time in a folder of checkpoints."""

from __future__ import annotations

from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.files.locks import Lock

NAME = ".training.lock"


def alone_in_save_dir(load: Callable[..., Any], cfg: Any, trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """What `load`, fairseq's search for a checkpoint to go on with, returns.  Before it nothing has been written; the
    rank that writes locks the folder, until the trainer is gone or the process ends."""
    if trainer.is_data_parallel_master and not cfg.no_save:
        folder = Path(cfg.save_dir)
        lock = Lock(folder / NAME, folder, "pass another --save-dir")
        Finalize(trainer, lock.release, exitpriority=0)  # at the end of a spawned process, too
    return load(cfg, trainer, *args, **kwargs)
