# mypy: disable-error-code="no-untyped-def"
"""What all Triton kernels are made of: tiles of matrices, their products, and noise for them.

Where Triton is missing the kernels can be imported all the same, though not called.
An argument that is None leaves its code out.  WIDEN computes all in fp32, as Triton's interpreter needs it for bf16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    import triton
    import triton.language as tl

    # a kernel is compiled for a vocabulary and a width, but not for each kind of number of rows
    jit: Any = partial(triton.jit, do_not_specialize=("N", "splits"))
except ImportError:
    tl: Any = None  # type: ignore[no-redef]

    def jit(function: Any) -> Any:
        return function


@jit
def rows_of(order, first, last, SIZE: tl.constexpr):
    """Numbers of the rows from place `first` of `order` on (None: as is), and which of them are before `last`."""
    place = first + tl.arange(0, SIZE)
    real = place < last
    if order is not None:
        place = tl.load(order + place, mask=real, other=0)
    return place, real


@jit
def tile(matrix, rows, real, first, D: tl.constexpr, DEPTH: tl.constexpr, WIDEN: tl.constexpr):
    """[rows, DEPTH] of a matrix [.., D] from column `first` on; 0 outside."""
    d = first + tl.arange(0, DEPTH)
    values = tl.load(matrix + rows[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0)
    if WIDEN:
        values = values.to(tl.float32)
    return values


@jit
def products(held, x, rows, real, table, columns, inside, D: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr):  # fmt: skip # noqa: E501
    """x T^T in fp32, [rows, columns]; `held` are the rows of x [N, D] where DEPTH has room for them."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    if held is not None:
        part = tile(table, columns, inside, 0, D, DEPTH, WIDEN)
        return tl.dot(held, tl.trans(part), total, input_precision=PRECISION)
    for first in range(0, D, DEPTH):
        left = tile(x, rows, real, first, D, DEPTH, WIDEN)
        right = tile(table, columns, inside, first, D, DEPTH, WIDEN)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    return total


@jit
def mixed(x):
    """SplitMix64's finaliser, as in kernels/noise.py."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@jit
def gumbel(keys, columns):
    """The noise of noise.gumbel, of keys [n] for the words columns [m], [n, m]."""
    row = mixed(keys.to(tl.uint64, bitcast=True) + 0x9E3779B97F4A7C15)
    bits = mixed(row[:, None] ^ (columns.to(tl.uint64) * 0x9E3779B97F4A7C15)[None, :])
    w = tl.minimum(((bits >> 11).to(tl.float32) + 0.5) * 1.1102230246251565e-16, 0.99999994)
    rest = 1.0 - w
    energy = tl.where(rest == 1.0, w, tl.log(rest) * w / (rest - 1.0))  # log1p without what rounding 1 - w lost
    return -tl.log(energy)
