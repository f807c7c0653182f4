"""An autoregressive model beside ours, given as the last checkpoint of --path; or that one of ours starts from."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from fairseq import utils

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.tasks.checks import check_dictionary, fingerprint

logger = logging.getLogger(__name__)

EMBEDDINGS = {"source": "encoder.embed_tokens.weight", "target": "decoder.embed_tokens.weight"}


def check_embeddings(cfg: Any, source: Any, target: Any) -> None:
    """The AR model to be built from `cfg` has use for the dictionaries `source` and `target`."""
    if getattr(cfg, "share_all_embeddings", False) and source != target:
        raise UserError(
            "the AR model shares its embeddings (--share-all-embeddings), so it takes one dictionary for both sides, "
            f"but this data has two, of {len(source)} and {len(target)} entries; train one without the flag on this "
            "data-bin, or binarise with fairseq-preprocess --joined-dictionary for both models"
        )


def check_when_loaded(model: Any, sizes: dict[str, int]) -> Any:
    """`model`, which from now on refuses weights made for dictionaries of other sizes; fairseq names neither size.

    A hook, and not another load_state_dict: that of a copy, as EMA makes one, would load into the original.
    """
    model._register_load_state_dict_pre_hook(partial(check_sizes, sizes))
    return model


def check_sizes(sizes: dict[str, int], state: dict[str, Any], *_: Any) -> None:
    """Weights about to be loaded have an embedding for each word of this data."""
    for side, key in EMBEDDINGS.items():
        if key in state and len(state[key]) != sizes[side]:
            raise UserError(
                f"the AR model was trained with a {side} dictionary of {len(state[key])} entries, but "
                f"this data has {sizes[side]}; take one trained on this data-bin, or on data binarised with its "
                "dictionaries (fairseq-preprocess --srcdict --tgtdict)"
            )


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


def check_alone(models: list[Any], complete: bool = False) -> None:
    """Where the first checkpoint on --path is an AR model, the others are too, and no templates are completed."""
    if complete:
        raise UserError(
            "--complete is for models of this package, and the checkpoint on --path is autoregressive; drop it, and "
            "use fairseq's --constraints ordered"
        )
    if any(isinstance(model, TranslatorModel) for model in models):
        raise UserError(
            "--path names an AR model before a diffusion model; name the diffusion model first, and the AR model that "
            "rescores last, --path OURS.pt:AR.pt"
        )


def check_count(models: list[Any], rescore: bool, draft: bool) -> None:
    """The flags and the checkpoints on --path agree: ours, the one that drafts, and the AR model that rescores."""
    wanted = "OURS.pt" + ":DRAFT.pt" * draft + ":AR.pt" * rescore
    if draft and len(models) > 1 and not isinstance(models[1], TranslatorModel):
        raise UserError(
            f"--draft begins with the translation of a model of this package, --path {wanted}, but the second "
            "checkpoint on --path is another; an AR model can rescore, see --iter-decode-with-external-reranker"
        )
    if len(models) == 1 + draft + rescore:
        return
    if rescore or draft:
        flags = " and ".join(["--draft"] * draft + ["--iter-decode-with-external-reranker"] * rescore)
        raise UserError(
            f"{flags} asks for --path {wanted}, but there are {len(models)} checkpoints (validation during training "
            "has no other model)"
        )
    raise UserError(
        f"--path names {len(models)} checkpoints, but diffusion decoding does not support an ensemble; give one, or "
        "with --iter-decode-with-external-reranker an AR model as the last of two, or with --draft a model of this "
        "package as the second"
    )
