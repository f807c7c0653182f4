"""Where the time goes, as ratios inside one run (`make bench`); prints a table and writes JSON.

Random weights and tokens, lengths around 25; on a GPU, pass --device cuda and real sizes.  Each row is the median of
--repeats calls, after one that is not counted.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from benchmark import Row, flags, report, versus
from sacrebleu.metrics import BLEU, CHRF

import fairseq_diffusion
from fairseq_diffusion.decoding.chrf import chrf
from fairseq_diffusion.decoding.mbr import mbr_scores
from fairseq_diffusion.decoding.ngrams import Sequences
from fairseq_diffusion.kernels.cross_entropy import linear_cross_entropy
from fairseq_diffusion.process import noise
from fairseq_diffusion.process.nearest import spread
from fairseq_diffusion.translator import Source, Translator

LENGTH = 25


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=5)
    parser.add_argument("--arch", default="dinoiser_toy", help="architecture preset")
    parser.add_argument("--vocabulary", type=int, default=10_000, help="entries of the target dictionary")
    parser.add_argument("--sentences", type=int, default=16, help="sentences in a batch")
    parser.add_argument("--candidates", type=int, default=5, help="candidates a sentence")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.manual_seed(0)
    benches = (bench_mbr, bench_chrf, bench_strings, bench_denoiser, bench_losses, bench_spread)
    report([row for bench in benches for row in bench(options)], options)
    return 0


def similar(count: int) -> list[list[int]]:
    """Candidates that agree in four of five words."""
    draw = random.Random(0)
    base = [draw.randrange(200) for _ in range(LENGTH)]
    return [[word if draw.random() < 0.8 else draw.randrange(200) for word in base] for _ in range(count)]


def all_pairs(metric: Any, texts: list[str]) -> list[float]:
    """The loop that a matrix replaces."""
    return [metric.sentence_score(a, [b]).score for i, a in enumerate(texts) for j, b in enumerate(texts) if i != j]


def bench_mbr(options: argparse.Namespace) -> list[Row]:
    """All pairs of one sentence's candidates."""
    rows, metric = [], BLEU(effective_order=True, tokenize="none")
    for count in (5, 21, 50):
        candidates = similar(count)
        texts = [" ".join(map(str, candidate)) for candidate in candidates]
        ours, loop = partial(mbr_scores, candidates), partial(all_pairs, metric, texts)
        rows.append(versus(f"MBR of {count} candidates, against a sacreBLEU loop", ours, loop, options))
    return rows


def bench_chrf(options: argparse.Namespace) -> list[Row]:
    """The same with chrF, of words of four letters."""
    texts = [" ".join(f"{word:04d}" for word in candidate) for candidate in similar(21)]
    letters = ["".join(text.split()) for text in texts]
    items = np.array([ord(letter) for text in letters for letter in text])
    sequences = Sequences(items, np.array([[len(text) for text in letters]]))
    ours, loop = partial(chrf, sequences), partial(all_pairs, CHRF(), texts)
    return [versus("chrF-MBR of 21 candidates, against a sacreBLEU loop", ours, loop, options)]


def bench_strings(options: argparse.Namespace) -> list[Row]:
    """A sentence's tokens as text, against fairseq's Dictionary."""
    from fairseq.data import Dictionary

    from fairseq_diffusion.tasks.dictionary import TableDictionary

    ours, theirs = TableDictionary(), Dictionary()
    for dictionary in (ours, theirs):
        for word in range(200):
            dictionary.add_symbol(f"w{word}@@" if word % 3 else f"w{word}")
    tokens = torch.tensor(similar(1)[0]) + 4
    calls = (partial(dictionary.string, tokens, "subword_nmt") for dictionary in (ours, theirs))
    return [versus(f"text of {LENGTH} tokens, against fairseq's Dictionary", *calls, options)]


def translator(options: argparse.Namespace) -> Translator:
    from fairseq_diffusion.models.build import build_translator
    from fairseq_diffusion.models.config import DiffusionConfig
    from fairseq_diffusion.presets import PRESETS

    cfg = DiffusionConfig()
    for field, value in {
        **PRESETS[options.arch].fields,
        "max_source_positions": 256,
        "max_target_positions": 256,
    }.items():
        setattr(cfg, field, value)
    return build_translator(cfg, options.vocabulary, options.vocabulary).to(options.device)


def bench_denoiser(options: argparse.Namespace) -> list[Row]:
    """A denoising step with keys and values kept a sentence, against making them anew for copied sentences."""
    model, K = translator(options).eval(), options.candidates
    tokens = torch.randint(4, options.vocabulary, (options.sentences, LENGTH), device=options.device)
    mask = torch.ones_like(tokens).bool()
    rows, x = options.sentences * K, torch.randn(options.sentences * K, LENGTH, model.state.dim, device=options.device)
    t, everything = torch.rand(rows, device=options.device), torch.ones(rows, LENGTH, device=options.device).bool()
    with torch.no_grad():
        source = model.encode(tokens, mask)
        states, masks = source.states.repeat_interleave(K, 0), mask.repeat_interleave(K, 0)

        def kept() -> Any:
            with torch.no_grad():
                return model.denoise(x, t, x, everything, source)

        def anew() -> Any:
            with torch.no_grad():
                copied = Source(masks, states, model.denoiser.memory(states, masks))
                return model.denoise(x, t, x, everything, copied)

        return [versus(f"denoising step, {options.sentences} x {K} candidates, memory kept", kept, anew, options)]


def bench_losses(options: argparse.Namespace) -> list[Row]:
    """Rounding loss without its logits, against torch's."""
    n, V, D = options.sentences * LENGTH * 4, options.vocabulary, 16
    x = torch.randn(n, D, device=options.device, requires_grad=True)
    W = torch.randn(V, D, device=options.device, requires_grad=True)
    y = noise.uniform(torch.tensor(1), n).mul(V).long().to(options.device)

    def chunked() -> None:
        linear_cross_entropy(x, W, y).sum().backward()

    def plain() -> None:
        F.cross_entropy(x @ W.T, y, reduction="sum").backward()

    return [versus(f"rounding loss, {n} tokens x {V} entries, forward and backward", chunked, plain, options)]


def bench_spread(options: argparse.Namespace) -> list[Row]:
    """delta^2 for sigma_min, against all distances at once."""
    table = F.normalize(torch.randn(options.vocabulary, 16, device=options.device), dim=-1) * 4

    def at_once() -> Any:
        return torch.cdist(table, table).fill_diagonal_(torch.inf).min(-1).values.square().mean()

    return [versus(f"spread of {options.vocabulary} embeddings", lambda: spread(table), at_once, options)]


if __name__ == "__main__":
    fairseq_diffusion.load()
    raise SystemExit(main())
