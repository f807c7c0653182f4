"""The first weights of a training, taken from an AR Transformer of fairseq where it has the like."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from torch import Tensor

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.models.from_fairseq import Weights, joined, layout, names_of, positions

logger = logging.getLogger(__name__)

AR_MODELS = ("transformer", "transformer_align")  # by the names that fairseq registers them under
PARTS = ("encoder", "embeddings", "decoder")
ALIKE = ("hidden", "scale_embeddings")  # flags, whatever is taken
OF_LAYERS = ("inner", "heads", "activation", "pre_norm")
OF_PART = {
    "encoder": (*OF_LAYERS, "encoder_layers", "no_encoder_norm"),
    "decoder": (*OF_LAYERS, "decoder_layers", "no_entry_norm"),
}
SOURCE_TABLE, TARGET_TABLE = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"  # theirs, as below
ALIASES = (SOURCE_TABLE, "decoder.output_projection.weight")  # names that the target's table may have besides
OUR_TARGET_TABLES = ("state.weight", "decoder.words.weight")  # of a diffusion model, of a one-pass model
SHARED_MAP = "encoder.embedding.project.weight"  # from the target's table to what the encoder reads
NO_WEIGHTS = (".version", "._float_tensor")  # entries of theirs that nothing is computed with


def is_autoregressive(architecture: str | None) -> bool:
    return ARCH_MODEL_NAME_REGISTRY.get(architecture, architecture) in AR_MODELS


def first_weights(theirs: Weights, arguments: Any, model: TranslatorModel, path: str) -> Weights:
    """All weights of `model`: those of the AR model, and its own where that has none.

    Args:
        theirs: the weights of the AR model.
        arguments: what it was trained with.
        model: as it was built.
        path: where the AR model was read from.
    """
    parts = parts_to_take(model)
    check_layout(path, layout(arguments), model.cfg, parts, not is_gaussian(model) or "encoder" in parts)
    own = {plain(name): value.cpu() for name, value in model.state_dict().items()}
    names = counterparts(theirs, own, parts)
    found = {**joined(theirs, names), **places(theirs, own, parts, model.pad)}
    if is_gaussian(model) and OUR_TARGET_TABLES[0] in found:
        found |= narrowed(found[OUR_TARGET_TABLES[0]], model)
    taken = {name for of in names.values() for name in of}
    taken |= {f"{part}.embed_positions.weight" for part in parts} & theirs.keys()
    if TARGET_TABLE in taken:
        taken |= {name for name in ALIASES if name in theirs and torch.equal(theirs[name], theirs[TARGET_TABLE])}
        if SHARED_MAP in own and SOURCE_TABLE in taken and not is_gaussian(model):
            found[SHARED_MAP] = torch.eye(len(own[SHARED_MAP]))
    fitted = {name: fit(name, found[name], value) if name in found else value for name, value in own.items()}
    report(path, theirs.keys(), taken, [plain(name) for name, _ in model.named_parameters()], own, found)
    return {name: fitted[plain(name)] for name in model.state_dict()}


def plain(name: str) -> str:
    """Of a weight here, with the denoiser called a decoder."""
    return re.sub(r"^translator\.(denoiser(?=\.))?", lambda match: "decoder" if match[1] else "", name)


def parts_to_take(model: TranslatorModel) -> list[str]:
    """What --init-parts names, or all parts that the model has a like for: one that denoises vectors has an encoder;
    if these are frozen, they are narrowed from what is trained already."""
    gaussian = is_gaussian(model)
    able = PARTS[:2] if gaussian else PARTS
    named = [part.strip() for part in model.cfg.init_parts.split(",") if part.strip()]
    if unknown := [part for part in named if part not in able]:
        raise UserError(
            f"--init-parts names {unknown[0]!r}, which a model of this kind cannot take of an AR model; choose from: "
            f"{', '.join(able)}"
        )
    if named or not gaussian:
        return named or list(able)
    return [PARTS[0] if cast(Any, model.translator).state.weight.requires_grad else PARTS[1]]


def is_gaussian(model: TranslatorModel) -> bool:
    """Whether it denoises vectors."""
    state = getattr(model.translator, "state", None)
    return state is not None and state.family == "gaussian"


def narrowed(table: Tensor, model: TranslatorModel) -> Weights:
    """A table [V, h] as D dimensions that keep as much as D can: the principal components of its rows, scaled to the
    standard deviation that the vectors would start with.  What words are read by starts alike."""
    cfg, state = model.cfg, cast(Any, model.translator).state
    if cfg.latent_dim > table.shape[1]:
        raise UserError(
            f"--latent-dim is {cfg.latent_dim}, but the AR model's embeddings have {table.shape[1]} dimensions, which "
            "are narrowed; pass as many or fewer"
        )
    rows = table.double() - table.double().mean(0)
    axes = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -cfg.latent_dim :].flip(1)
    most = axes.gather(0, axes.abs().argmax(0, keepdim=True))  # an axis has no sign: its largest number is positive
    kept = rows @ (axes * most.sign())
    kept = (kept * cfg.embedding_init_std / kept.std()).float()
    found, readout = {OUR_TARGET_TABLES[0]: kept}, state.norm.readout(kept.to(state.weight.device))
    return found if state.reader is None else {**found, "state.reader": readout.detach().cpu()}


def check_layout(path: str, wanted: dict[str, Any], cfg: Any, parts: list[str], alike: bool = True) -> None:
    """What the parts compute is the same in both networks: sizes, activation, norms; and scale and width of embeddings,
    if those of words are `alike`."""
    names = [*(ALIKE if alike else ()), *(name for part in parts for name in OF_PART.get(part, ()))]
    names = list(dict.fromkeys(names))
    if cfg.pre_norm and wanted["pre_norm"] and "no_entry_norm" in names:
        names.remove("no_entry_norm")  # there is none with --pre-norm
    other = [name for name in names if str(wanted[name]) != str(getattr(cfg, name))]
    if not other:
        return
    passed = [spelt(name) + ("" if wanted[name] is True else f" {wanted[name]}") for name in other if wanted[name]]
    dropped = [spelt(name) for name in other if not wanted[name]]
    advice = [f"{verb} {' '.join(flags)}" for verb, flags in (("pass", passed), ("drop", dropped)) if flags]
    raise UserError(
        f"the network that is to start from the AR model {path} is not laid out like it; {', and '.join(advice)}"
        + ("" if set(other) & set(ALIKE) else f", or name other parts than {','.join(parts)} with --init-parts")
    )


def counterparts(theirs: Weights, own: Weights, parts: list[str]) -> dict[str, list[str]]:
    """The names of weights here that are made of theirs, and of which."""
    names = {name: of for part in OF_PART if part in parts for name, of in names_of(theirs, part).items()}
    if "encoder" in parts:
        names["encoder.embedding.weight"] = [SOURCE_TABLE]
    if "embeddings" in parts:
        names.update((table, [TARGET_TABLE]) for table in OUR_TARGET_TABLES)
    return {name: of for name, of in names.items() if name in own and theirs.keys() >= set(of)}


def places(theirs: Weights, own: Weights, parts: list[str], pad: int) -> Weights:
    """The tables of positions.  Here a source begins with <s>, for which there is the row of zeros before that of their
    first word; a target begins with </s> there, too."""
    firsts = {"encoder": pad, "decoder": pad + 1}
    return {
        (name := f"{part}.positions.weight"): positions(theirs, part, len(own[name]), pad, first)
        for part, first in firsts.items()
        if part in parts
    }


def fit(name: str, value: Tensor, own: Tensor) -> Tensor:
    """`value` with the shape of `own`: of a table, the rows that it does not have are our own."""
    rows = len(own) if value.shape == own.shape else min(len(value), len(own))
    table = name.endswith(("positions.weight", "state.reader")) or name in OUR_TARGET_TABLES
    if value.shape != own.shape and not (table and value.shape[1:] == own.shape[1:]):
        raise UserError(
            f"the AR model's {name} has the shape {tuple(value.shape)}, but {tuple(own.shape)} is needed; name other "
            "parts with --init-parts"
        )
    return torch.cat([value[:rows], own[rows:]])


def report(
    path: str, theirs: Iterable[str], taken: set[str], parameters: Iterable[str], own: Weights, found: Weights
) -> None:
    """What was taken, what of theirs was not, and what here has nothing like it, in a sentence of the log."""
    left = [name for name in theirs if name not in taken and not name.endswith(NO_WEIGHTS)]
    new = [name for name in parameters if name not in found]
    new += [f"{name} from row {len(value)} on" for name, value in found.items() if len(value) < len(own[name])]
    logger.info(
        f"the training starts from the AR model {path}: taken were {listed(taken)}; not taken {listed(left)}; what has "
        f"nothing like it there starts as it was built: {listed(new)}"
    )


def listed(names: Iterable[str]) -> str:
    """The modules that weights are of, those of all layers once."""
    modules = {re.sub(r"\.(weight|bias)$", "", re.sub(r"layers\.\d+\.", "layers.*.", name)) for name in names}
    return ", ".join(sorted(modules)) or "nothing"
