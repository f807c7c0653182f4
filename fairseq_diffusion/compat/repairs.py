"""Repairs of some versions of fairseq, torch and apex; each does nothing with other versions."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from importlib import util
from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once


def allow_argparse_checkpoints() -> None:
    """torch >= 2.6 refuses ``argparse.Namespace``, which fairseq's argparse-style models keep in their checkpoints."""
    _let_torch_load(argparse.Namespace)


def allow_tensors_between_ranks() -> None:
    """torch >= 2.6 refuses the placeholder of a tensor when fairseq's first rank sends a checkpoint to the others."""
    from fairseq.distributed import utils

    _let_torch_load(utils._TensorPlaceholder)


def _let_torch_load(kind: type) -> None:
    import torch

    if hasattr(torch.serialization, "add_safe_globals"):  # not before torch 2.4, where loading is not restricted either
        torch.serialization.add_safe_globals([kind])


def avoid_encoder_fast_path() -> None:
    """fairseq 0.12.2 under torch 2: its encoder layer calls a fused torch operation without its mask type in eval mode.

    The operation then fails with "Mask Type should be defined", or ignores the mask.  The layer asks `can_use_fastpath`
    first; that now always answers no.  fairseq-fixed has no such path: nothing is done.
    """
    from fairseq.modules import transformer_layer

    layer = transformer_layer.TransformerEncoderLayerBase
    if "_load_from_state_dict" in vars(layer):  # the method that packs the fused operation's weights
        layer.can_use_fastpath = property(lambda self: False, lambda self, wanted: None)


def apex_state() -> str:
    """One of "absent", "healthy", "foreign" (an unrelated package of that name) and "broken" (no CUDA extension)."""
    spec = util.find_spec("apex")
    if spec is None:
        return "absent"
    folders = spec.submodule_search_locations or ()
    if not any(os.path.exists(os.path.join(folder, "normalization")) for folder in folders):
        return "foreign"  # known by its files: importing an unrelated package could do anything
    try:
        importlib.import_module("fused_layer_norm_cuda")
        importlib.import_module("apex.normalization").FusedLayerNorm(8)
    except Exception:  # a half-built extension fails in many ways: missing symbols, CUDA versions, missing files
        return "broken"
    return "healthy"


def avoid_broken_apex() -> None:
    """Any fairseq with an apex that is not NVIDIA's or lacks its CUDA extensions: use torch's LayerNorm and Adam.

    fairseq looks at apex when it is imported (LayerNorm) and again when it builds Adam, so the flag of the first is
    cleared and further imports of apex are refused.  A healthy apex is left to fairseq.
    """
    if apex_state() not in ("foreign", "broken"):
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]
    sys.modules["apex"] = None  # type: ignore[assignment]
    from fairseq.modules import layer_norm  # only now: with a broken apex on the path its import may fail

    layer_norm.has_fused_layernorm = False


def copy_checkpoints_atomically() -> None:
    """Any fairseq: it writes and renames a checkpoint, but then copies it over checkpoint_last.pt.

    A training that is killed during the copy leaves half a file, and cannot be resumed from it.
    """
    from fairseq.file_io import PathManager

    wrap_once(PathManager, "copy", _copy_and_rename)


def _copy_and_rename(copy: Callable[..., Any], src_path: str, dst_path: str, overwrite: bool = False) -> Any:
    from fairseq.file_io import PathManager

    if not overwrite or not PathManager.supports_rename(dst_path):
        return copy(src_path, dst_path, overwrite)
    temporary = f"{dst_path}.tmp"  # fairseq's own name; what a killed copy left, the next one replaces
    done = copy(src_path, temporary, overwrite)
    if done:
        os.replace(temporary, dst_path)
    return done
