# mypy: disable-error-code="no-untyped-def"
"""Triton: one pass over the vocabulary for the best word, the log-partition and the logit of a chosen word.

Columns are split among programs, so that few rows keep a GPU busy; `joined` puts their shares together, in a fixed
order.  Their shares are `words` and `numbers` [4, splits, N]: best score, its logit, log-partition, chosen logit.
"""

from __future__ import annotations

from fairseq_diffusion.kernels.tiles import gumbel, jit, products, rows_of, tile, tl


@jit
def scan(x, table, bias, banned, keys, target, order, live, numbers, words, N, V, span, BEST: tl.constexpr, TOTAL: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr):  # fmt: skip # noqa: E501
    """`span` columns of ROWS rows, for x [N, D], table [V, D]; of `order` [N] the first `live` [1] rows only."""
    count = N
    if live is not None:
        count = tl.load(live)
    if tl.program_id(0) * ROWS >= count:
        return
    rows, real = rows_of(order, tl.program_id(0) * ROWS, count, ROWS)
    held, wanted, key = None, None, None
    if D <= DEPTH:
        held = tile(x, rows, real, 0, D, DEPTH, WIDEN)
    if target is not None:
        wanted = tl.load(target + rows, mask=real, other=0)
    if keys is not None:
        key = tl.load(keys + rows, mask=real, other=0)
    score = tl.full((ROWS,), float("-inf"), tl.float32)
    logit, peak, total, chosen = score, score, tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    word = tl.zeros((ROWS,), tl.int32)
    first = tl.program_id(1) * span
    for start in range(first, tl.minimum(first + span, V), COLUMNS):
        columns, inside = rows_of(None, start, V, COLUMNS)
        logits = products(held, x, rows, real, table, columns, inside, D, DEPTH, PRECISION, WIDEN)
        if bias is not None:
            logits += tl.load(bias + columns, mask=inside, other=0.0)[None, :]
        logits = tl.where(inside[None, :], logits, float("-inf"))
        if TOTAL:
            peak, total = summed(logits, peak, total)
        if wanted is not None:
            chosen += tl.sum(tl.where(columns[None, :] == wanted[:, None], logits, 0.0), 1)
        if BEST:
            score, logit, word = better(logits, banned, key, columns, inside, V, score, logit, word)
    share, step = tl.program_id(1) * N + rows, tl.num_programs(1) * N
    stored(numbers + share, step, words + share, real, score, logit, peak, total, chosen, word)


@jit
def summed(logits, peak, total):
    """The largest logit so far, and the sum of exp(logits - peak), of logits [rows, columns]; in powers of two."""
    scaled = logits * 1.4426950408889634
    higher = tl.maximum(peak, tl.max(scaled, 1))
    level = tl.where(higher == float("-inf"), 0.0, higher)
    return higher, total * tl.exp2(peak - level) + tl.sum(tl.exp2(scaled - level[:, None]), 1)


@jit
def better(logits, banned, key, columns, inside, V, score, logit, word):
    """The best score so far, its logit and its word; the first of those that are equal."""
    scores = logits
    if banned is not None:
        out = tl.load(banned + columns, mask=inside, other=0)
        scores = tl.where((out != 0)[None, :], float("-inf"), scores)
    if key is not None:
        scores += gumbel(key, columns)
    here = tl.max(scores, 1)
    place = tl.min(tl.where(scores == here[:, None], columns[None, :], V), 1)
    gain = here > score
    own = here
    if key is not None:
        own = tl.sum(tl.where(columns[None, :] == place[:, None], logits, 0.0), 1)
    return tl.where(gain, here, score), tl.where(gain, own, logit), tl.where(gain, place, word)


@jit
def stored(numbers, step, words, real, score, logit, peak, total, chosen, word):
    """One program's share, where rows are real."""
    tl.store(numbers, score, mask=real)
    tl.store(numbers + step, logit, mask=real)
    tl.store(numbers + 2 * step, (peak + tl.log2(total)) * 0.6931471805599453, mask=real)
    tl.store(numbers + 3 * step, chosen, mask=real)
    tl.store(words, word, mask=real)


@jit
def joined(numbers, words, result, word, N, splits, SPLITS: tl.constexpr, ROWS: tl.constexpr):
    """The shares of all splits put together: `result` [3, N] is best logit, log-partition, chosen logit; `word` [N]."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.arange(0, SPLITS)
    here = (split < splits)[:, None] & (rows < N)[None, :]
    share, step = split[:, None] * N + rows[None, :], splits * N
    score = tl.load(numbers + share, mask=here, other=float("-inf"))
    first = tl.min(tl.where(score == tl.max(score, 0)[None, :], split[:, None], SPLITS), 0)
    first = tl.where(first < splits, first, 0)  # nowhere: no number
    tl.store(word + rows, tl.load(words + first * N + rows, mask=rows < N).to(tl.int64), mask=rows < N)
    tl.store(result + rows, tl.load(numbers + step + first * N + rows, mask=rows < N), mask=rows < N)
    partition = tl.load(numbers + 2 * step + share, mask=here, other=float("-inf"))
    peak = tl.max(partition, 0)
    level = tl.where(peak == float("-inf"), 0.0, peak)
    total = level + tl.log(tl.sum(tl.exp(partition - level[None, :]), 0))
    tl.store(result + N + rows, total, mask=rows < N)
    chosen = tl.load(numbers + 3 * step + share, mask=here, other=0.0)
    tl.store(result + 2 * N + rows, tl.sum(chosen, 0), mask=rows < N)
