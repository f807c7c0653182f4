"""Transformers of fairseq in the terms of this package: how their networks are laid out, and their weights by the names
that they have here.  Models of its NAT task become one-pass models as a whole."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.modules import SinusoidalPositionalEmbedding
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.systems.presets import OF_FAIRSEQ

LENGTH_CLASSES = 256  # fixed there
UNSUPPORTED = {  # a flag of theirs -> what there is none of here
    "src_embedding_copy": "source embeddings in place of the mask",
    "layernorm_embedding": "a LayerNorm on embeddings",
    "adaptive_input": "adaptive input",
    "adaptive_softmax_cutoff": "an adaptive softmax",
    "no_token_positional_embeddings": "a model without positions",
    "no_decoder_final_norm": "a pre-norm decoder without a LayerNorm behind it",
    "no_cross_attention": "a decoder without attention to the source",
    "cross_self_attention": "one attention over source and target",
    "encoder_layerdrop": "LayerDrop",
    "decoder_layerdrop": "LayerDrop",
}

Weights = dict[str, Tensor]


def architecture_of(name: str | None) -> str:
    """The architecture here for one of theirs; its fields are replaced by `configuration`."""
    model = ARCH_MODEL_NAME_REGISTRY.get(name, name)
    if model not in OF_FAIRSEQ:
        raise UserError(f"a checkpoint of {name} cannot be converted; these can: {', '.join(OF_FAIRSEQ)}")
    return OF_FAIRSEQ[model]


def layout(theirs: Any) -> dict[str, Any]:
    """The fields of a NetworkConfig, its sizes and where its norms stand, for the arguments of one of their models; one
    that has no like here is refused."""
    get = lambda name, default=None: getattr(theirs, name, default)  # noqa: E731
    for name, what in UNSUPPORTED.items():
        if get(name):
            raise UserError(f"the checkpoint was trained with --{name.replace('_', '-')}, and {what} has no like here")
    for name in ("embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before"):
        encoder, decoder = get(f"encoder_{name}"), get(f"decoder_{name}")
        if encoder != decoder:
            raise UserError(f"the checkpoint's encoder has {name} {encoder}, its decoder {decoder}; they are one here")
    return {
        "hidden": get("encoder_embed_dim"),
        "inner": get("encoder_ffn_embed_dim"),
        "heads": get("encoder_attention_heads"),
        "encoder_layers": get("encoder_layers"),
        "decoder_layers": get("decoder_layers"),
        "activation": get("activation_fn"),
        "pre_norm": bool(get("encoder_normalize_before")),
        "scale_embeddings": not get("no_scale_embedding"),
        "no_encoder_norm": not get("encoder_normalize_before"),
        "no_entry_norm": True,
    }


def configuration(theirs: Any) -> dict[str, Any]:
    """The fields of a OnePassConfig for the arguments of one of their NAT models."""
    get = lambda name, default=None: getattr(theirs, name, default)  # noqa: E731
    if not (get("share_decoder_input_output_embed") or get("share_all_embeddings")):
        raise UserError(
            "the checkpoint's output projection is not its decoder's embeddings, which are one here; it was trained "
            "without --share-decoder-input-output-embed"
        )
    return {
        **layout(theirs),
        "dropout": get("dropout"),
        "attention_dropout": get("attention_dropout"),
        "activation_dropout": get("activation_dropout"),
        "share_embeddings": bool(get("share_all_embeddings")),
        "label_smoothing": get("label_smoothing", 0.1),
        "loss_normaliser": "words",
        "length_target": "difference" if get("pred_length_offset") else "absolute",
        "length_classes": LENGTH_CLASSES,
        "length_map": "linear",
        "length_grad": not get("sg_length_pred"),
        "length_loss": get("length_loss_factor"),
        "length_beam": "offsets",
        "source_copy": "none",
    }


def weights(theirs: Weights, wanted: Weights, unknown: int, pad: int) -> Weights:
    """Their weights under the names of `wanted`, those of the model here, and in its shapes.

    Args:
        theirs: the weights of their checkpoint.
        wanted: the weights of a model built for `configuration`, all of which are replaced.
        unknown: the row of `<unk>`, which is their mask.
        pad: the padding symbol, behind which their positions begin.
    """
    found = joined(theirs, {**names_of(theirs, "encoder"), **names_of(theirs, "decoder")})
    words = theirs["decoder.embed_tokens.weight"]
    found["decoder.words.weight"] = torch.cat([words, words[unknown, None]])
    found["length.map.weight"] = theirs["decoder.embed_length.weight"]
    found["encoder.embedding.weight"] = theirs["encoder.embed_tokens.weight"]
    for part in ("encoder", "decoder"):
        name = f"{part}.positions.weight"
        found[name] = positions(theirs, part, len(wanted[f"translator.{name}"]), pad, pad + 1)
    named = {f"translator.{name}": value for name, value in found.items()}
    return {name: named[name] for name in wanted}  # all of them: a KeyError names what theirs does not have


def joined(theirs: Weights, names: dict[str, list[str]]) -> Weights:
    """Each weight here, of one or several of theirs side by side."""
    return {ours: torch.cat([theirs[name] for name in of]) for ours, of in names.items()}


def names_of(theirs: Weights, part: str) -> dict[str, list[str]]:
    """Of the layers of the encoder or the decoder, `part`, and the norm behind the last: the names of weights here, and
    of theirs that each is made of."""
    prefix, last = f"{part}.layers.", {"encoder": "norm", "decoder": "last_norm"}[part]
    modules = {
        "self_attn.out_proj": "self_attention.out",
        "self_attn_layer_norm": "residuals.0.norm",
        "encoder_attn.q_proj": "cross_attention.query",
        "encoder_attn.out_proj": "cross_attention.out",
        "encoder_attn_layer_norm": "residuals.1.norm",
        "fc1": "feed_forward.up",
        "fc2": "feed_forward.down",
        "final_layer_norm": f"residuals.{2 if part == 'decoder' else 1}.norm",
    }
    found: dict[str, list[str]] = {}
    for name in theirs:
        module, _, kind = name.rpartition(".")
        if module == f"{part}.layer_norm":
            found[f"{part}.{last}.{kind}"] = [name]
        if not name.startswith(prefix):
            continue
        number, _, module = module[len(prefix) :].partition(".")
        if module in modules:
            found[f"{prefix}{number}.{modules[module]}.{kind}"] = [name]
        elif module.endswith("v_proj"):  # the last of those that are one map here
            attention, ours, maps = "self_attn", "self_attention.query_key_value", ["q_proj", "k_proj", "v_proj"]
            if module.startswith("encoder_attn."):
                attention, ours, maps = "encoder_attn", "cross_attention.key_value", maps[1:]
            found[f"{prefix}{number}.{ours}.{kind}"] = [f"{prefix}{number}.{attention}.{each}.{kind}" for each in maps]
    return found


def positions(theirs: Weights, part: str, count: int, pad: int, first: int) -> Tensor:
    """`count` rows of the table of the encoder or the decoder, `part`, from row `first` on, and fewer if fewer were
    learnt; sinusoids where nothing was.  Behind that of the padding symbol they are the places of words."""
    table = theirs.get(f"{part}.embed_positions.weight")
    if table is None:
        hidden = theirs[f"{part}.embed_tokens.weight"].shape[1]
        table = SinusoidalPositionalEmbedding.get_embedding(first + count, hidden, pad)
    return table[first : first + count].clone()
