"""Kernels against plain torch in the same run: time a token, bandwidth beside that of a copy, ratios.

    .venv/bin/python benchmarks/kernels.py                   (CPU: portable kernels)
    .venv/bin/python benchmarks/kernels.py --device cuda     (GPU: Triton's beside them)

Every form is held against the first before it is timed.  `ratio` is over the first form, which is torch with all N x V
logits.  `GB/s` is for what a form that holds its logits moves at least: they are written and read once, and in a
training step their gradient is written and read twice.  So `of a copy` above 100 % is out of such a form's reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import alignments
import elementwise
import torch
import torch.nn.functional as F
from common import Call, Row, filled, flags, report
from forms import COLUMNS, Work, apart, checked, copy_bandwidth, in_turns
from torch import Tensor

from fairseq_diffusion.kernels import choice
from fairseq_diffusion.kernels.log_probs import linear_cross_entropy
from fairseq_diffusion.kernels.rounding import best_rows, round_to_rows
from fairseq_diffusion.process.nearest import spread
from fairseq_diffusion.states.embedding import EmbeddingState

SIZES: dict[str, dict[str, Any]] = {
    "quick": {"vocabularies": [70], "dims": [16], "tokens": [8]},
    "cpu": {"vocabularies": [10_000, 37_000], "dims": [16, 64, 128, 512], "tokens": [1024]},
    "cuda": {"vocabularies": [10_000, 32_000, 37_000], "dims": [16, 64, 128, 512], "tokens": [1024, 8192, 65_536]},
}
SMOOTHING = 0.1
BATCH = {"quick": 16, "cpu": 4096, "cuda": 32_768}  # tokens of a training batch
TABLE = {"quick": 70, "cpu": 10_000, "cuda": 40_000}  # embeddings whose spread is taken
TORCHS_CHUNK = 512  # rows; of torch's own choice chunks are far too small for such narrow rows
FP32 = 1e-4  # of the largest number
FEW = 1024  # rows that are looked at


def main() -> int:
    options = arguments()
    torch.manual_seed(0)
    copy = copy_bandwidth(options)
    rows: list[Row] = []
    for N, V, D in product(options.tokens, options.vocabularies, options.dims):
        for bench in (argmax, rounding, cross_entropy):
            rows += bench(N, V, D, copy, options)
    rows += distinct_words(options) + spreads(options) + alignments.rows(options) + elementwise.rows(copy, options)
    choice.use("auto")
    report(rows, options, COLUMNS, also={"notices": notices(options)}, copy=f"{copy:.1f} GB/s", precision="fp32")
    print("\n".join(notices(options)))
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=3)
    parser.add_argument("--vocabularies", type=int, nargs="+", help="entries (CPU 10000 37000; GPU 32000 too)")
    parser.add_argument("--dims", type=int, nargs="+", help="width of embeddings (16 64 128 512)")
    parser.add_argument("--tokens", type=int, nargs="+", help="vectors in a call (CPU 1024; GPU 1024 8192 65536)")
    options = parser.parse_args()
    options.size = "quick" if options.quick else options.device
    return filled(options, SIZES)


def notices(options: argparse.Namespace) -> list[str]:
    """Which forms are left out, and why."""
    found = [f"no rows of Triton's kernels: {reason}"] if (reason := without_triton(options)) else []
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        found.append(f"no rows of torch's own linear_cross_entropy: torch {torch.__version__} has none")
    return [*found, *elementwise.notices(options)]


def without_triton(options: argparse.Namespace) -> str | None:
    return choice.why_no_triton(torch.device(options.device))


def ours(call: Call, options: argparse.Namespace) -> dict[str, Call]:
    """A call by the kernels that this machine has."""

    def by(mode: str) -> Any:
        choice.use(mode)
        return call()

    modes = ["portable"] if without_triton(options) else ["portable", "triton"]
    return {mode: partial(by, mode) for mode in modes}


def drawn(N: int, V: int, D: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [N, D] and a table [V, D] whose products have unit variance, and words [N]."""
    x, table = torch.randn(N, D, device=device), torch.randn(V, D, device=device) / D**0.5
    return x, table, torch.randint(V, (N,), device=device)


# -- rounding and linear cross-entropy ------------------------------------------------------------------------------


def argmax(N: int, V: int, D: int, copy: float, options: argparse.Namespace) -> list[Row]:
    """The likeliest word alone, as clamping needs it at every step."""
    x, table, _ = drawn(N, V, D, options.device)
    forms = {"torch": lambda: (x @ table.T).argmax(-1), **ours(partial(best_rows, x, table), options)}
    for call in list(forms.values())[1:]:
        agree_on_words(x[:FEW], table, call())
    moved = 4.0 * (2 * N * V + (N + V) * D)
    return in_turns(Work("argmax", {"N": N, "V": V, "D": D}, N, moved), forms, copy, options)


def rounding(N: int, V: int, D: int, copy: float, options: argparse.Namespace) -> list[Row]:
    """The likeliest word and its log-probability."""
    x, table, _ = drawn(N, V, D, options.device)

    def torchs() -> tuple[Tensor, Tensor]:
        log_p, tokens = (x @ table.T).log_softmax(-1).max(-1)
        return tokens, log_p

    forms = {"torch": torchs, **ours(partial(round_to_rows, x, table), options)}
    for call in list(forms.values())[1:]:
        agree_on_words(x[:FEW], table, *call())
    moved = 4.0 * (2 * N * V + (N + V) * D)
    return in_turns(Work("rounding", {"N": N, "V": V, "D": D}, N, moved), forms, copy, options)


def agree_on_words(x: Tensor, table: Tensor, tokens: Tensor, log_p: Tensor | None = None) -> None:
    """Each word is as likely as the likeliest, which may be one of several, and has the log-probability returned."""
    truth = (x @ table.T).log_softmax(-1)
    given = truth.gather(-1, tokens[: len(x), None])[:, 0]
    checked("words", apart(given, truth.amax(-1)), FP32)
    if log_p is not None:
        checked("log-probabilities", apart(log_p[: len(x)], given), FP32)


def cross_entropy(N: int, V: int, D: int, copy: float, options: argparse.Namespace) -> list[Row]:
    """Label-smoothed, forward and backward, with gradients of the vectors and of the table."""
    x, table, words = drawn(N, V, D, options.device)
    x.requires_grad_()
    table.requires_grad_()

    def backward(loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss().sum(), (x, table))

    plain = lambda: F.cross_entropy(x @ table.T, words, reduction="none", label_smoothing=SMOOTHING)  # noqa: E731
    forms = {"torch": partial(backward, plain)}
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        forms["torch, chunked"] = partial(backward, partial(torchs_chunked, x, table, words))
    forms |= ours(partial(backward, partial(linear_cross_entropy, x, table, words, SMOOTHING)), options)
    agree_on_gradients(forms)
    moved = 4.0 * (5 * N * V + 2 * (N + V) * D)
    return in_turns(Work("linear cross-entropy", {"N": N, "V": V, "D": D}, N, moved), forms, copy, options)


def torchs_chunked(x: Tensor, table: Tensor, words: Tensor) -> Tensor:
    """torch's own linear_cross_entropy, whose chunks refuse smoothing; but smoothing adds only e (x w_y - mean x w)."""
    chunked = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=TORCHS_CHUNK)
    loss = F.linear_cross_entropy(x, table, words, reduction="sum", options=chunked)
    return loss + SMOOTHING * (x * (table[words] - table.mean(0))).sum()


def agree_on_gradients(forms: dict[str, Call]) -> None:
    truth, *others = (call() for call in forms.values())
    for gradients in others:
        for gradient, true in zip(gradients, truth):
            checked("gradients", apart(gradient, true), FP32)


# -- training's other sums over the vocabulary ----------------------------------------------------------------------


def distinct_words(options: argparse.Namespace) -> list[Row]:
    """The rounding term of a batch of words as frequent as in text, against the same without looking for copies."""
    N, V, D = BATCH[options.size], max(options.vocabularies), min(options.dims)
    state = EmbeddingState(V, D, init_std=1.0).to(options.device)
    frequency = 1 / (torch.arange(V, dtype=torch.float64) + 2.7)  # Zipf's law, by Mandelbrot
    tokens = frequency.multinomial(N, replacement=True).view(8, -1).to(options.device)

    everywhere, s_0 = torch.ones_like(tokens, dtype=torch.bool), state.encode(tokens).detach()

    def gradients(nll: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(nll().sum(), list(state.parameters()))

    forms = {
        "all tokens": partial(gradients, lambda: state.nll(state.encode(tokens), tokens, SMOOTHING, everywhere)),
        "each word once": partial(gradients, partial(state.clean_nll, tokens, s_0, everywhere, SMOOTHING)),
    }
    agree_on_gradients(forms)
    what = f"rounding term, {tokens.unique().numel()} words in {N} tokens"
    return in_turns(Work(what, {"N": N, "V": V, "D": D}, N), forms, 0.0, options)


def spreads(options: argparse.Namespace) -> list[Row]:
    """delta^2 of sigma_min, chunk by chunk, against all distances at once."""
    V, D = TABLE[options.size], 64
    table = F.normalize(torch.randn(V, D, device=options.device), dim=-1) * D**0.5

    def at_once() -> Tensor:
        return torch.cdist(table, table).fill_diagonal_(torch.inf).amin(-1).square().mean() / D

    forms = {"all distances": at_once, "chunked": partial(spread, table)}
    checked("spreads", apart(spread(table), at_once()), FP32)
    return in_turns(Work("spread of embeddings", {"V": V, "D": D}), forms, 0.0, options)


if __name__ == "__main__":
    raise SystemExit(main())
