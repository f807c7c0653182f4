"""What a training starts from, where that is another model: an AR one, or one without latents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fairseq import utils

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.models.from_ar import first_weights, is_autoregressive
from fairseq_diffusion.tasks.checks import check_dictionary, fingerprint
from fairseq_diffusion.tasks.teacher import check_sizes

logger = logging.getLogger(__name__)

ENTRANCE, PAIRED, NULL = "translator.denoiser.enter.", "translator.state.encoder.", "translator.latents.null"
OF_LATENTS = (  # what names of their weights begin with
    *("translator.latents.", PAIRED, "translator.denoiser.leave.latents."),
    *(f"{ENTRANCE}{part}" for part in ("latents.", "time.", "places")),
)


def starting_state(
    state: dict[str, Any], model: Any, path: str, finetunes: bool, cfg: Any, dictionaries: dict[str, Any]
) -> dict[str, Any]:
    """The checkpoint `state` of the file `path` for a training of `model`: an AR model's, which --finetune-from-model
    names (`finetunes`), becomes one with first weights for it, and nothing else; others stay as they are."""
    if not isinstance(model, TranslatorModel):
        return state
    if not is_autoregressive(compat.model_name(state)):
        if finetunes and model.cfg.init_parts:
            raise UserError(
                f"--init-parts is {model.cfg.init_parts}, but {path} is no AR model, and all of it is taken; drop it"
            )
        return with_latents(state, model) if finetunes else state
    if not finetunes:
        raise UserError(
            f"{path} is a checkpoint of an AR model, which cannot be gone on with as another; pass "
            f"--finetune-from-model {path} to start from its weights"
        )
    check_ar_data(state, cfg, dictionaries, path)
    weights = first_weights(state["model"], state["cfg"]["model"], model, path)
    return {
        "model": weights,
        "extra_state": {"train_iterator": {"epoch": 1}, "ema": weights},  # read with --store-ema alone
        "optimizer_history": [],
    }


def with_latents(state: dict[str, Any], model: TranslatorModel) -> dict[str, Any]:
    """A checkpoint without latents, for a model that has some: they begin as any do; so does the vector in the place of
    the source, where a model with latents had none."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(OF_LATENTS)}
    averages = state.get("extra_state", {}).get("ema") or {}
    for weights in filter(None, (state["model"], averages)):
        if not weights.keys() & (own.keys() - {NULL}):
            if any(name.startswith(PAIRED) for name in own):  # what was all of an entrance is that of the words
                for name in [name for name in weights if name.startswith(ENTRANCE)]:
                    weights[f"{ENTRANCE}words.{name.removeprefix(ENTRANCE)}"] = weights.pop(name)
            weights |= own
        elif NULL in own:
            weights.setdefault(NULL, own[NULL])
    return state


def check_ar_data(state: dict[str, Any], cfg: Any, dictionaries: dict[str, Any], path: str) -> None:
    """The AR checkpoint that a training with the task `cfg` starts from was made for the same words.

    Ours has their fingerprints, which were compared; of another the data-bin is looked up, and if it is gone there are
    the sizes alone.
    """
    check_sizes({side: len(words) for side, words in dictionaries.items()}, state["model"])
    if state.get("task_state"):
        return
    folder = Path(utils.split_paths(state["cfg"]["task"]["data"])[0])
    for side, language in (("source", cfg.source_lang), ("target", cfg.target_lang)):
        file = folder / f"dict.{language}.txt"
        if file.is_file():
            theirs = type(dictionaries[side]).load(str(file))
            check_dictionary(side, fingerprint(dictionaries[side]), fingerprint(theirs))
        else:
            logger.warning(
                f"{path} was trained with {file}, which is not there: the {side} dictionaries agree in size, but "
                "whether they have the same words was not checked"
            )
