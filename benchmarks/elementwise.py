"""What memory limits: LayerNorm by torch and apex, and Adam by fairseq's loop, torch's fused kernel and apex."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import networks
import torch
from common import Call, Row
from fairseq.optim import adam
from fairseq.optim.fused_adam import get_fused_adam_class
from forms import Work, apart, checked, in_turns
from torch import Tensor, nn

from fairseq_diffusion import compat
from fairseq_diffusion.optim.fused_adam import FusedAdam

NORMED = {"quick": (4, 16), "cpu": (4096, 512), "cuda": (65_536, 512)}  # tokens, width
SIZE = {"quick": "difformer_toy", "cpu": "difformer_iwslt_de_en", "cuda": "difformer_iwslt_de_en"}
ADAM = {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01}
FP32 = 1e-4  # of the largest number


def rows(copy: float, options: argparse.Namespace) -> list[Row]:
    return layer_norms(copy, options) + adams(copy, options)


def apex(options: argparse.Namespace) -> bool:
    """Whether there is one that works, and a GPU for it."""
    return options.device == "cuda" and compat.apex_state() == "healthy"


def notices(options: argparse.Namespace) -> list[str]:
    if apex(options):
        return []
    state = compat.apex_state()
    return [f"no rows of apex: {'it needs a GPU' if state == 'healthy' else f'it is {state} here'}"]


def layer_norms(copy: float, options: argparse.Namespace) -> list[Row]:
    """Forward and backward."""
    N, D = NORMED[options.size]
    x, grad = (torch.randn(N, D, device=options.device) for _ in range(2))
    x.requires_grad_()

    def both_ways(norm: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(norm(x), (x, *norm.parameters()), grad)

    forms = {"torch": partial(both_ways, nn.LayerNorm(D).to(options.device))}
    if apex(options):
        from apex.normalization import FusedLayerNorm

        forms["apex"] = partial(both_ways, FusedLayerNorm(D).to(options.device))
    same(forms, "LayerNorms")
    return in_turns(Work("LayerNorm, both ways", {"N": N, "D": D}, N, 4.0 * 5 * N * D), forms, copy, options)


def adams(copy: float, options: argparse.Namespace) -> list[Row]:
    """An update of all parameters of a model; read are parameters, gradients and two moments, written all but one."""
    kinds: dict[str, Any] = {"fairseq's loop": adam.Adam, "torch, fused": FusedAdam}
    if apex(options):
        kinds["apex"] = partial(get_fused_adam_class(), use_fp16_stats=False)
    forms = {name: update_of(kind, options) for name, kind in kinds.items()}
    same(forms, "parameters after an update")
    numbers = sum(parameter.numel() for parameter in next(iter(forms.values()))())
    what = f"Adam, {numbers / 1e6:.1f} M parameters"
    return in_turns(Work(what, {}, None, 4.0 * 7 * numbers), forms, copy, options)


def update_of(kind: Any, options: argparse.Namespace) -> Call:
    """An optimizer's step on a model of its own, gradients and all the same for each."""
    torch.manual_seed(0)
    model = networks.ours(SIZE[options.size], 100 if options.quick else 10_000).to(options.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape).to(options.device)
    optimizer = kind(parameters, **ADAM)

    def step() -> list[Tensor]:
        optimizer.step()
        return parameters

    return step


def same(forms: dict[str, Call], what: str) -> None:
    truth, *others = (call() for call in forms.values())
    for found in others:
        for ours, true in zip(found, truth):
            checked(what, apart(ours.detach(), true.detach()), FP32)
