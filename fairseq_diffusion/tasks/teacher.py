"""An autoregressive model beside ours, given as the last checkpoint of --path."""

from __future__ import annotations

from functools import partial
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel

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
