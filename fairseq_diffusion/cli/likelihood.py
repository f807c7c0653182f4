"""The likelihood of a data set's translations by a model: -log p(y | x) in nats, or an upper bound on it.

Prints for each sentence its number, nats, their standard error, and its number of tokens with the end of sentence; and
their means, each with the standard error by the noise that was drawn.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from fairseq_diffusion.api import TranslationModel, load_model
from fairseq_diffusion.decoding.likelihood import SentenceLikelihood, scored_batches
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import check_writable, write_text
from fairseq_diffusion.reporting.progress import Progress

LARGEST = 700.0  # nats a token that have a perplexity in fp64
Scored = dict[int, SentenceLikelihood]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA-BIN", help="what fairseq-preprocess wrote")
    parser.add_argument("--path", type=Path, required=True, metavar="CHECKPOINT", help="the model")
    parser.add_argument("--gen-subset", default="test", metavar="SPLIT", help="the part of the data (default: test)")
    parser.add_argument(
        "--samples", type=int, default=32, metavar="N", help="of noise, to estimate a bound from (default: 32)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="T", help="of a bound's chain, for a model in continuous time (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the noise (default: 1)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="sentences at a time (default: 32)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens at a time, in place of --batch-size")
    parser.add_argument("--use-ema", action="store_true", help="take the averaged weights that --store-ema kept")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument(
        "--skip-invalid-size-inputs-valid-test", action="store_true", help="leave out pairs that are too long"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the sentences' lines there, not to the screen"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_writable(args.output, args.force)
    for name in ("batch_size", "max_tokens"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise UserError(f"--{name.replace('_', '-')} is {number}; pass 1 or more")
    model = load_model(args.path, args.data, device="cpu" if args.cpu else None, use_ema=args.use_ema)
    found, skipped = scored(model, args)
    lines = "".join(f"{i}\t{x.nats:.4f}\t{x.error:.4f}\t{x.tokens}\n" for i, x in sorted(found.items()))
    if args.output:
        write_text(args.output, lines)
    else:
        print(lines, end="")
    print(summary(list(found.values()), skipped, args.samples))
    return 0


def scored(model: TranslationModel, args: argparse.Namespace) -> tuple[Scored, int]:
    """What each sentence of the data costs, and how many were left out."""
    scorer = model.likelihood_scorer(args.samples, args.steps, args.seed)
    model.task.load_dataset(args.gen_subset)
    dataset = model.task.dataset(args.gen_subset)
    batches = model.batches(
        dataset,
        args.batch_size or (None if args.max_tokens else 32),
        max_tokens=args.max_tokens,
        ignore_invalid_inputs=args.skip_invalid_size_inputs_valid_test,
    )
    progress = Progress("scored", {i: int(dataset.num_tokens(i)) for i in range(len(dataset))})
    found = dict(scored_batches(scorer, progress.watched(batches)))
    return found, len(dataset) - len(found)


def summary(found: list[SentenceLikelihood], skipped: int, samples: int) -> str:
    """Means over the sentences whose likelihood is finite."""
    finite = [each for each in found if math.isfinite(each.nats)]
    tokens, exact = sum(each.tokens for each in finite), all(each.exact for each in found)
    kind = "exact" if exact else f"upper bound, by {samples} samples"
    rows = [f"{len(finite)} sentences, {tokens} tokens with the ends of sentences ({kind})"]
    if skipped:
        rows.append(f"{skipped} longer than the model takes, left out")
    if impossible := len(found) - len(finite):
        rows.append(f"{impossible} that the model cannot make (infinite), left out of the means")
    if finite:
        total, error = sum(each.nats for each in finite), math.hypot(*(each.error for each in finite))
        each_token = math.exp(total / tokens) if total / tokens < LARGEST else math.inf
        means = {
            "nats per sentence": (total / len(finite), error / len(finite)),
            "nats per token": (total / tokens, error / tokens),
            "perplexity per token": (each_token, each_token * error / tokens),
        }
        rows += [f"{mean:.6g} +- {spread:.6g} {what}" for what, (mean, spread) in means.items()]
    return "\n".join(rows)
