"""Building a model from a checkpoint: what can go wrong there ends in a sentence."""

from __future__ import annotations

import logging
from typing import Any, Callable

from fairseq_diffusion.compat.checkpoints import UNREADABLE, first_line
from fairseq_diffusion.compat.wrapping import wrap_once
from fairseq_diffusion.errors import UserError

logger = logging.getLogger(__name__)


def wrap_model_building() -> None:
    """Any fairseq: a checkpoint whose configuration does not describe its weights ends in many kinds of exceptions."""
    from fairseq import checkpoint_utils

    wrap_once(checkpoint_utils, "load_model_ensemble_and_task", _building)


def _building(load: Callable[..., Any], filenames: list[str], *args: Any, **kwargs: Any) -> Any:
    from omegaconf.errors import OmegaConfBaseException

    names = " or ".join(map(str, filenames))
    try:
        return load(filenames, *args, **kwargs)
    except OSError:
        raise  # its message needs no addition
    except UserError as error:
        if any(str(name) in str(error) for name in filenames):
            raise
        raise UserError(f"{error} (while {names} was loaded)") from error
    except (*UNREADABLE, OmegaConfBaseException, NotImplementedError, ZeroDivisionError, SyntaxError) as error:
        logger.debug("the model was not built", exc_info=True)
        raise UserError(
            f"cannot build the model of {names}: its weights, its configuration and the data do not go together; take "
            f"the data-bin it was trained on, or another checkpoint. It ended with: {type(error).__name__}, "
            f"{first_line(error)}"
        ) from error
