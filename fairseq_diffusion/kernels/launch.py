"""From tensors to Triton kernels: which tiles, how many programs, and memory for what they write.

The kernels, and Triton with them, are imported when one is called.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.kernels.choice import interpreted

WIDEST = 512  # bytes of a row whose gradient fits in registers
MOST_SPLITS = 256
LEAST_TILES = 4  # of a program
# rows, columns, warps and stages: of rounding and the loss, of the gradient of x, which stays in registers, and of the
# gradient of the table
TILES = {"scan": (128, 64, 8, 3), "by_rows": (64, 32, 8, 2), "by_columns": (32, 64, 8, 2)}


class Tiles(NamedTuple):
    """How a kernel cuts its work."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def arguments(self) -> dict[str, int | bool]:
        """As kernels and Triton call them."""
        cut = {"ROWS": self.rows, "COLUMNS": self.columns, "DEPTH": self.depth}
        return {**cut, "num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


class Scanned(NamedTuple):
    """What a scan found of N rows; what was not asked for has no meaning."""

    word: Tensor  # [N]
    logit: Tensor  # [N], of that word
    lse: Tensor  # [N]
    chosen: Tensor  # [N], the logit of the target


def tiles_of(kernel: str, dim: int, itemsize: int) -> Tiles:
    """At most 128 bytes of a row are multiplied at once."""
    rows, columns, warps, stages = TILES[kernel]
    return Tiles(rows, columns, min(width_of(dim), 128 // itemsize), warps, stages)


def width_of(dim: int) -> int:
    """Of tiles that hold all dimensions: the smallest power of two, at least 16."""
    return max(16, power_of_two(dim))


def has_gradients(x: Tensor, table: Tensor) -> bool:
    """Whether the kernels make gradients for x [N, D]: up to 128 dimensions in fp32, 256 in 16 bits."""
    x, _ = alike(x[:0], table[:0])
    return x.shape[1] * x.element_size() <= WIDEST


def precisions(x: Tensor) -> dict[str, Any]:
    """Of products: fp32 is made of three TF32 products, unless torch may take one; 16 bits fit into TF32 whole."""
    matmul = torch.backends.cuda.matmul
    # torch before 2.9 knows allow_tf32 alone, and later ones refuse it once the other setting was used
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return {"PRECISION": "tf32" if allowed or x.dtype != torch.float32 else "tf32x3", "WIDEN": interpreted()}


def on_its_device(run: Any) -> Any:
    """Triton launches on the current device, wherever the tensors are: that of the first one is made current."""

    @wraps(run)
    def guarded(x: Tensor, *arguments: Any, **named: Any) -> Any:
        with torch.cuda.device_of(x):
            return run(x, *arguments, **named)

    return guarded


@on_its_device
def scan(
    x: Tensor,
    table: Tensor,
    best: bool = False,
    total: bool = False,
    *,
    banned: Tensor | None = None,
    bias: Tensor | None = None,
    keys: Tensor | None = None,
    target: Tensor | None = None,
    mask: Tensor | None = None,
) -> Scanned:
    """Of x [N, D] by table [V, D] in one pass: the best word, the log-partition (`total`), the logit of `target` [N].

    Rows outside `mask` [N] are left out; their log-partition is inf.
    """
    from fairseq_diffusion.kernels import scan as kernels

    x, table = alike(x, table)
    (N, D), V = x.shape, len(table)
    tiles = tiles_of("scan", D, x.element_size())
    splits, span = split(V, tiles.columns, cdiv(N, tiles.rows), x.device)
    order, live = living(mask)
    out = None if banned is None else torch.zeros(V, dtype=torch.int8, device=x.device).index_fill_(0, banned, 1)
    new = x.new_empty if mask is None else x.new_zeros
    numbers, words = new(4, splits, N, dtype=torch.float32), new(splits, N, dtype=torch.int32)
    result, word = x.new_empty(3, N, dtype=torch.float32), x.new_empty(N, dtype=torch.long)
    if N:
        bias, keys, target = (None if vector is None else vector.contiguous() for vector in (bias, keys, target))
        inputs = x, table, None if bias is None else bias.float(), out, keys, target, order, live
        scanned, joined = kernels.scan[cdiv(N, tiles.rows), splits], kernels.joined[(cdiv(N, 16),)]
        scanned(*inputs, numbers, words, N, V, span, best, total, D, **tiles.arguments(), **precisions(x))
        joined(numbers, words, result, word, N, splits, power_of_two(splits), 16, enable_fp_fusion=True)
    logit, lse, chosen = result
    return Scanned(word, logit, lse if mask is None else lse.where(mask, torch.inf), chosen)


@on_its_device
def gradients(
    x: Tensor,
    table: Tensor,
    target: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    own: Tensor,
    whole: Tensor,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Of x [N, D] and table [V, D], those of `wanted`, in fp32, from dL/dlogits = own [v = target] - whole p."""
    from fairseq_diffusion.kernels import gradients as kernels

    x, table = alike(x, table)
    (N, D), V, size = x.shape, len(table), x.element_size()
    inputs = x, table, *(vector.contiguous() for vector in (target, lse, own, whole)), *living(mask)
    common = {"WIDTH": width_of(D), **precisions(x)}
    grad_x = grad_table = None
    if wanted[0]:
        tiles = tiles_of("by_rows", D, size)
        splits, span = split(V, tiles.columns, cdiv(N, tiles.rows), x.device)
        shares = x.new_zeros(splits, N, D, dtype=torch.float32)  # rows left out have no gradient
        by_rows = kernels.by_rows[max(cdiv(N, tiles.rows), 1), splits]
        by_rows(*inputs, shares, N, V, span, D, **tiles.arguments(), **common)
        grad_x = shares.sum(0)
    if wanted[1]:
        tiles = tiles_of("by_columns", D, size)
        splits, _ = split(N, tiles.rows, cdiv(V, tiles.columns), x.device)
        shares = x.new_empty(splits, V, D, dtype=torch.float32)
        by_columns = kernels.by_columns[cdiv(V, tiles.columns), splits]
        by_columns(*inputs, shares, N, V, D, **tiles.arguments(), **common)
        grad_table = shares.sum(0)
    return grad_x, grad_table


def living(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """An order [N] with the rows of `mask` [N] in front, and their number [1]; a GPU is not waited for."""
    if mask is None:
        return None, None
    return (~mask).byte().argsort(stable=True), mask.sum(dtype=torch.int32)[None]


def split(size: int, width: int, others: int, device: torch.device) -> tuple[int, int]:
    """Into how many parts `size` is split beside `others` to fill the device, and their size, a multiple of `width`."""
    parts = min(cdiv(2 * processors(device), max(others, 1)), MOST_SPLITS, cdiv(size, LEAST_TILES * width))
    span = cdiv(cdiv(size, max(parts, 1)), width) * width
    return max(1, cdiv(size, max(span, 1))), span


@lru_cache(None)
def processors(device: torch.device) -> int:
    """Of a GPU; tests without one are to see splits, too."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def alike(x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one type that kernels take: 16 bits if both are the same, else fp32."""
    same = x.dtype == table.dtype and x.dtype in (torch.float16, torch.bfloat16)
    x, table = (x, table) if same else (x.float(), table.float())
    return x.contiguous(), table.contiguous()


def power_of_two(count: int) -> int:
    """The smallest that is at least `count`; 0 for nothing."""
    return 1 << (count - 1).bit_length() if count else 0


def cdiv(a: int, b: int) -> int:
    return -(-a // b)
