"""How many of the target's words stand for each token of the source, by a CTC or DAG model's best alignment.

Writes FOLDER/SPLIT.durations, which a model with --length-target durations learns from (--durations FOLDER).
"""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from fairseq_diffusion.api import TranslationModel, load_model
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.durations import Durations, data_sha256, file_of, write_durations
from fairseq_diffusion.files.writing import check_writable
from fairseq_diffusion.reporting.progress import Progress
from fairseq_diffusion.translators.one_pass import OnePassTranslator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA-BIN", help="what fairseq-preprocess wrote")
    parser.add_argument("--path", type=Path, required=True, metavar="CHECKPOINT", help="a CTC or DAG model")
    parser.add_argument("--gen-subset", default="train", metavar="SPLIT", help="the part of the data (default: train)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="sentences at a time (default: 32)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens at a time, in place of --batch-size")
    parser.add_argument("--use-ema", action="store_true", help="take the averaged weights that --store-ema kept")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where SPLIT.durations is written")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    for name in ("batch_size", "max_tokens"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise UserError(f"--{name.replace('_', '-')} is {number}; pass 1 or more")
    model = load_model(args.path, args.data, device="cpu" if args.cpu else None, use_ema=args.use_ema)
    check_aligns(model)
    args.output.mkdir(exist_ok=True)
    output = file_of(args.output, args.gen_subset)
    check_writable(output, args.force)
    task, split = model.task, args.gen_subset
    parts = split == task.cfg.train_subset  # which fairseq-train reads together, train1 behind train
    task.cfg.upsample_primary = 1
    task.load_dataset(split, combine=parts)
    dataset = task.dataset(split)
    rows = [array("h")] * len(dataset)  # a few bytes a number
    for sentence, row in durations_of(model, watched(model, dataset, args)):
        rows[sentence] = row
    durations = Durations.of(rows)
    durations.check(output, dataset.src_sizes, dataset.tgt_sizes)
    sha256 = data_sha256(args.data, split, (task.cfg.source_lang, task.cfg.target_lang), parts)
    write_durations(output, rows, sha256)
    print(summary(output, durations))
    return 0


def check_aligns(model: TranslationModel) -> None:
    translator = getattr(model.models[0], "translator", None)
    if not isinstance(translator, OnePassTranslator) or translator.alignment.aligned or translator.has_latents:
        raise UserError(
            f"{model.checkpoint} has no alignments to count; name a one-pass model that was trained with --alignment "
            "ctc or dag, without latents"
        )


def watched(model: TranslationModel, dataset: Any, args: argparse.Namespace) -> Iterable[Any]:
    """Batches of the pairs that the model takes."""
    size = args.batch_size or (None if args.max_tokens else 32)
    batches = model.batches(dataset, size, max_tokens=args.max_tokens, ignore_invalid_inputs=True)
    return Progress("aligned", {i: int(dataset.num_tokens(i)) for i in range(len(dataset))}).watched(batches)


def durations_of(model: TranslationModel, batches: Iterable[Any]) -> Iterator[tuple[int, array[int]]]:
    """The number of each sentence that fits on its canvas, and the durations of <s>, its tokens and </s>."""
    translator, dictionary = model.models[0].translator.eval(), model.task.target_dictionary
    for batch in batches:
        pair = batch["net_input"]["src_tokens"], batch["target"]
        source, target = (F.pad(tokens, (1, 0), value=dictionary.bos()) for tokens in pair)
        encoded = translator.encode(source, source.ne(dictionary.pad()))
        durations = translator.durations(encoded, target, target.ne(dictionary.pad())).tolist()
        for sentence, row, size in zip(batch["id"].tolist(), durations, encoded.length.tolist()):
            if row[0] >= 0:
                yield sentence, array("h", row[:size])


def summary(output: Path, durations: Durations) -> str:
    known, numbers = int((durations.counts > 0).sum()), np.bincount(durations.numbers)
    lines = [f"wrote {output}: durations of {known} of {len(durations)} sentences"]
    if missing := len(durations) - known:
        lines.append(
            f"{missing} do not fit on the model's canvas or are longer than it takes; their lines are empty, and a "
            "training learns from their lengths alone"
        )
    shares = ", ".join(f"{i}: {100 * each / max(1, numbers.sum()):.1f}%" for i, each in enumerate(numbers))
    return "\n".join([*lines, f"words for a token of the source, both ends included: {shares}"])
