"""Kernels of this machine at real sizes against all logits in fp64, and against each other.

scripts/gpu_check.py runs it; how fast they are is measured by benchmarks/kernels.py --device cuda.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.kernels import choice, noise
from fairseq_diffusion.kernels.log_probs import linear_cross_entropy
from fairseq_diffusion.kernels.rounding import best_rows, round_to_rows

SMOOTHING = 0.1
SLACK = 1e-5
Loss = Callable[[Tensor, Tensor], Tensor]


class Inputs:
    """Vectors x [N, D], a table [V, D] whose products have unit variance, words, noise keys, and which rows count."""

    def __init__(self, N: int, V: int, D: int, dtype: torch.dtype, device: str):
        g = torch.Generator(device).manual_seed(0)
        self.x = torch.randn(N, D, generator=g, device=device).to(dtype)
        self.table = (torch.randn(V, D, generator=g, device=device) / D**0.5).to(dtype)
        self.words = torch.randint(V, (N,), generator=g, device=device)
        self.keys = noise.fold(torch.arange(N, device=device), 1)
        self.mask = torch.arange(N, device=device) % 5 != 0


def checked(cpu: bool) -> list[dict[str, Any]]:
    """A row for each width and type."""
    N, V, dims, device = (60, 300, (16,), "cpu") if cpu else (8192, 37_000, (16, 128, 512), "cuda")
    rows = []
    for D in dims:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = Inputs(N, V, D, dtype, device)
            row = {"N": N, "V": V, "D": D, "dtype": str(dtype), **rounding(inputs), **loss(inputs)}
            row["as_exact_as_portable"] = all(row[name] <= 2 * row[other] + SLACK for name, other in pairs(row))
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
    return rows


def pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Names of errors, of auto's choice and of the portable kernels."""
    names = [name for name in row if name.endswith("_auto")]
    return [(name, name.replace("_auto", "_portable")) for name in names]


def by_each(call: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """What a call returns by auto's choice and by the portable kernels."""
    for mode in ("auto", "portable"):
        choice.use(mode)
        yield mode, call()
    choice.use("auto")


def rounding(i: Inputs) -> dict[str, Any]:
    """Of the answers: how far the log-probability is from fp64's, and where auto and portable differ."""
    exact = (i.x.double() @ i.table.double().T).log_softmax(-1)
    row: dict[str, Any] = {"auto_is_triton": choice.uses_triton(i.x, i.table)}
    for mode, (words, log_p) in by_each(partial(round_to_rows, i.x, i.table)):
        row[f"log_p_error_{mode}"] = (log_p - exact.gather(-1, words[:, None])[:, 0]).abs().max().item()
        row[f"word_error_{mode}"] = (exact.amax(-1) - exact.gather(-1, words[:, None])[:, 0]).max().item()
    samples = dict(by_each(partial(best_rows, i.x, i.table, keys=i.keys)))
    row["samples_that_differ"] = (samples["auto"] != samples["portable"]).sum().item()
    return row


def loss(i: Inputs) -> dict[str, Any]:
    """Of cross-entropy and its gradients: largest errors, as shares of the largest number, and sameness."""
    ours = partial(linear_cross_entropy, target=i.words, label_smoothing=SMOOTHING, mask=i.mask)
    exact = gradients(i.x.double(), i.table.double(), lambda x, table: unfused_loss(x, table, i))
    row: dict[str, Any] = {}
    for mode, found in by_each(lambda: gradients(i.x, i.table, ours)):
        for name, part, wanted in zip(("loss", "grad_x", "grad_table"), found, exact):
            row[f"{name}_error_{mode}"] = ((part - wanted).abs().max() / wanted.abs().max()).item()
    row["same_twice"] = all(map(torch.equal, gradients(i.x, i.table, ours), gradients(i.x, i.table, ours)))
    return row


def unfused_loss(x: Tensor, table: Tensor, i: Inputs) -> Tensor:
    return F.cross_entropy(x @ table.T, i.words, reduction="none", label_smoothing=SMOOTHING).where(i.mask, 0.0)


def gradients(x: Tensor, table: Tensor, function: Loss) -> tuple[Tensor, ...]:
    """A loss and its gradients."""
    x, table = x.detach().requires_grad_(), table.detach().requires_grad_()
    value = function(x, table)
    return value.detach(), *torch.autograd.grad(value.sum(), (x, table))
