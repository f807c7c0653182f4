# mypy: disable-error-code="no-untyped-def"
"""Triton: gradients of log-probabilities of one word a row, without stored logits and without atomics.

With p = softmax(x W^T), a row that got gradient `own` for its word and `whole` in all has dL/dlogits = own [v = y] -
whole p: made anew tile by tile, it is multiplied by W for the rows, and by x for the words.  Whoever launches adds up
the splits, so a result is the same each time.
"""

from __future__ import annotations

from fairseq_diffusion.kernels.tiles import jit, products, rows_of, tile, tl


@jit
def by_rows(x, table, target, lse, own, whole, order, live, out, N, V, span, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr):  # fmt: skip # noqa: E501
    """A split's share out [splits, N, D] of the gradient of x [N, D], for `span` columns of ROWS rows."""
    count = N
    if live is not None:
        count = tl.load(live)
    if tl.program_id(0) * ROWS >= count:
        return
    rows, real = rows_of(order, tl.program_id(0) * ROWS, count, ROWS)
    held = None
    if D <= DEPTH:
        held = tile(x, rows, real, 0, D, DEPTH, WIDEN)
    wanted, level, mine, all_of = given(target, lse, own, whole, rows, real)
    grad = tl.zeros((ROWS, WIDTH), tl.float32)
    first = tl.program_id(1) * span
    for start in range(first, tl.minimum(first + span, V), COLUMNS):
        columns, inside = rows_of(None, start, V, COLUMNS)
        logits = products(held, x, rows, real, table, columns, inside, D, DEPTH, PRECISION, WIDEN)
        p = tl.exp2(logits * 1.4426950408889634 - level[:, None])
        residual = tl.where(columns[None, :] == wanted[:, None], mine[:, None], 0.0) - all_of[:, None] * p
        residual = tl.where(inside[None, :], residual, 0.0)  # p is inf there if all logits are far below 0
        part = tile(table, columns, inside, 0, D, WIDTH, WIDEN).to(tl.float32)
        grad = tl.dot(residual, part, grad, input_precision=PRECISION)
    d = tl.arange(0, WIDTH)
    place = out + (tl.program_id(1) * N + rows)[:, None].to(tl.int64) * D + d[None, :]
    tl.store(place, grad, mask=real[:, None] & (d < D)[None, :])


@jit
def by_columns(x, table, target, lse, own, whole, order, live, out, N, V, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr):  # fmt: skip # noqa: E501
    """A split's share out [splits, V, D] of the gradient of table [V, D], for COLUMNS words and a share of the rows."""
    count = N
    if live is not None:
        count = tl.load(live)
    columns, inside = rows_of(None, tl.program_id(0) * COLUMNS, V, COLUMNS)
    held = None
    if D <= DEPTH:
        held = tile(table, columns, inside, 0, D, DEPTH, WIDEN)
    grad = tl.zeros((COLUMNS, WIDTH), tl.float32)
    span = tl.cdiv(tl.cdiv(count, tl.num_programs(1)), ROWS) * ROWS
    first = tl.program_id(1) * span
    for start in range(first, tl.minimum(first + span, count), ROWS):
        rows, real = rows_of(order, start, count, ROWS)
        wanted, level, mine, all_of = given(target, lse, own, whole, rows, real)
        logits = products(held, table, columns, inside, x, rows, real, D, DEPTH, PRECISION, WIDEN)
        p = tl.exp2(logits * 1.4426950408889634 - level[None, :])
        residual = tl.where(columns[:, None] == wanted[None, :], mine[None, :], 0.0) - all_of[None, :] * p
        part = tile(x, rows, real, 0, D, WIDTH, WIDEN).to(tl.float32)
        grad = tl.dot(residual, part, grad, input_precision=PRECISION)
    d = tl.arange(0, WIDTH)
    place = out + (tl.program_id(1) * V + columns)[:, None].to(tl.int64) * D + d[None, :]
    tl.store(place, grad, mask=inside[:, None] & (d < D)[None, :])


@jit
def given(target, lse, own, whole, rows, real):
    """What is known of rows: word, log-partition in powers of two, and both gradients, 0 outside."""
    wanted = tl.load(target + rows, mask=real, other=-1)
    level = tl.load(lse + rows, mask=real, other=0.0) * 1.4426950408889634
    return wanted, level, tl.load(own + rows, mask=real, other=0.0), tl.load(whole + rows, mask=real, other=0.0)
