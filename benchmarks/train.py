"""Training: target tokens a second against fairseq's autoregressive Transformer of the same size, in one run.

    .venv/bin/python benchmarks/train.py                                    (CPU, the toy's size, minutes)
    .venv/bin/python benchmarks/train.py --device cuda                      (GPU, the size of IWSLT)

An update is fairseq's: criterion, backward pass, gradients divided and clipped, optimizer, gradients cleared.  All
systems have the same batches, optimizer, precision and dropout, random weights, and sentences of 22 to 26 words; data
loading and logging are left out.  Times are of two updates, halved, in one of which Difformer has a first pass: half of
its updates are self-conditioned.  Systems take turns, so that a busy machine slows all alike.  `ratio` is the
throughput over that of the autoregressive Transformer, whose loss is label-smoothed cross-entropy.  `launches` counts
the operations of forward pass, backward pass and optimizer that are no views.  GB is the peak of an update on a GPU,
weights and optimizer counted in.

The second table is what sigma_min of noise-scale clipping costs: the spread of --spread-vocabulary embeddings, which
is taken every 50 updates, as a share of updates of a model of that size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import networks
import torch
from common import Call, Row, elapsed, filled, flags, interleaved, iqr, median, print_table, progress, report
from fairseq import optim
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from launches import launches_of

from fairseq_diffusion.criterions.diffusion_loss import DiffusionLoss

AR = "AR"
PARTS = ("forward", "backward", "optimizer")
SYSTEMS = {
    "Difformer": "difformer_{}",
    "DINOISER": "dinoiser_{}",
    "Diff-Glat": "diffglat_{}",
    "MDLM": "mdlm_{}",
    "RDM": "rdm_{}_absorb",
}
SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "pair": "toy",
        "vocabulary": 60,
        "max_tokens": [60],
        "precisions": ["fp32"],
        "optimizers": ["adam"],
        "spread_vocabulary": 200,
    },
    "cpu": {
        "pair": "toy",
        "vocabulary": 728,
        "max_tokens": [1024, 4096],
        "precisions": ["fp32"],
        "optimizers": ["adam"],
        "spread_vocabulary": 40_000,
    },
    "cuda": {
        "pair": "iwslt_de_en",
        "vocabulary": 10_000,
        "max_tokens": [4096, 8192, 32_768],
        "precisions": ["fp32", "bf16", "fp16"],
        "optimizers": ["adam", "fused_adam"],
        "spread_vocabulary": 40_000,
    },
}
CLIP = 1.0
Measure = Callable[[Call], Any]
COLUMNS = {
    "system": ("system", ""),
    "in": ("precision", ""),
    "by": ("optimizer", ""),
    "tokens": ("tokens", "d"),
    "tokens/s": ("tokens_per_second", ".0f"),
    "ms": ("ms", ".1f"),
    "IQR": ("iqr_ms", ".1f"),
    "forward": ("forward_ms", ".1f"),
    "backward": ("backward_ms", ".1f"),
    "optimizer": ("optimizer_ms", ".1f"),
    "launches": ("forward_launches", ".0f"),
    "launches ": ("backward_launches", ".0f"),
    "launches  ": ("optimizer_launches", ".0f"),
    "GB": ("peak_gb", ".2f"),
    "ratio": ("ratio", ".2f"),
}
SPREAD_ARCH = "dinoiser_wmt16_en_ro"
SPREAD_COLUMNS = {
    "sigma_min": ("what", ""),
    "ms a refresh": ("ms", ".0f"),
    "IQR": ("iqr_ms", ".0f"),
    "ms an update": ("baseline_ms", ".0f"),
    "IQR ": ("baseline_iqr_ms", ".0f"),
    "share of training": ("share", ".2%"),
}


class Training:
    """A model, its criterion and optimizer, as fairseq's Trainer puts them together."""

    def __init__(self, model: Any, criterion: Any, flags: str, options: argparse.Namespace):
        cfg = networks.fairseq_config(flags)
        dtype = torch.bfloat16 if cfg.common.bf16 else torch.float16 if cfg.common.fp16 else torch.float32
        self.model, self.criterion = model.to(options.device, dtype).train(), criterion
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        wrapped = dtype != torch.float32
        build = optim.FP16Optimizer.build_optimizer if wrapped else optim.build_optimizer
        self.optimizer = build(cfg if wrapped else cfg.optimizer, parameters)
        self.random = getattr(getattr(model, "translator", None), "self_conditioning", None) == "random"
        self.done = 0
        self.model.set_num_updates(0)

    def two_updates(self, batch: dict[str, Any], measure: Measure) -> dict[str, float]:
        """Mean of what each part measures over an update with a first pass for self-conditioning and one without."""
        with_it, without = self.update(batch, measure), self.update(batch, measure)
        return {part: (with_it[part] + without[part]) / 2 for part in PARTS}

    def update(self, batch: dict[str, Any], measure: Measure) -> dict[str, float]:
        """One, measured in its parts."""
        self.done += 1
        self.model.set_num_updates(self.done)
        if self.random:
            self.model.translator.self_conditioning_p = float(self.done % 2)
        outputs: list[Any] = []
        return {
            "forward": measure(lambda: outputs.extend(self.criterion(self.model, batch))),
            "backward": measure(lambda: self.optimizer.backward(outputs[0])),
            "optimizer": measure(lambda: self.step(outputs[1])),
        }

    def step(self, sample_size: Any) -> None:
        self.optimizer.multiply_grads(1 / float(sample_size))
        self.optimizer.clip_grad_norm(CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> int:
    options = arguments()
    torch.manual_seed(1)
    rows = []
    for precision, optimizer, tokens in product(options.precisions, options.optimizers, options.max_tokens):
        rows += measured(precision, optimizer, tokens, options)
        print_table(rows[-len(SYSTEMS) - 1 :], COLUMNS)
    spread = spread_cost(options)
    print_table([spread], SPREAD_COLUMNS)
    report(rows, options, COLUMNS, also={"sigma_min": spread})
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=7)
    parser.add_argument("--pair", help="whose size: toy, iwslt_de_en, wmt_en_de or wmt16_en_ro (CPU toy, GPU IWSLT)")
    parser.add_argument("--vocabulary", type=int, help="entries of the joined dictionary (728; 10000 on a GPU)")
    parser.add_argument("--max-tokens", type=int, nargs="+", help="target tokens of a batch")
    parser.add_argument("--precisions", nargs="+", choices=networks.DTYPES, help="fp32, bf16, fp16 (CPU fp32, GPU all)")
    parser.add_argument("--optimizers", nargs="+", help="fairseq's names of them (adam; GPU fused_adam, too)")
    parser.add_argument("--spread-vocabulary", type=int, help="embeddings of sigma_min (40000)")
    options = parser.parse_args()
    return filled(options, SIZES)


def batch_of(tokens: int, vocabulary: int, device: str) -> dict[str, Any]:
    """As fairseq makes it: sources padded on the left, targets on the right and shifted, at most `tokens` of these."""
    sizes = networks.lengths(tokens // (max(networks.LENGTHS) + 1))
    source, target = (networks.random_words(sizes, vocabulary, seed) for seed in (1, 2))
    wanted = networks.padded(target)
    net_input = {
        "src_tokens": networks.padded(source, left=True),
        "src_lengths": torch.tensor(sizes) + 1,
        "prev_output_tokens": shifted(wanted),
    }
    net_input = {name: tensor.to(device) for name, tensor in net_input.items()}
    ids = torch.arange(len(sizes), device=device)
    return {
        "id": ids,
        "net_input": net_input,
        "target": wanted.to(device),
        "ntokens": sum(sizes) + len(sizes),
        "nsentences": len(sizes),
    }


def shifted(target: torch.Tensor) -> torch.Tensor:
    """[B, L] with the end of sentence in front, as teacher forcing needs it."""
    before = target.roll(1, 1).masked_fill(target.eq(networks.EOS).roll(1, 1), networks.PAD)
    before[:, 0] = networks.EOS
    return before


def builders(flags: str, options: argparse.Namespace) -> dict[str, Any]:
    """How each system is made; the dropout is the same for all."""
    size = networks.size_of(f"difformer_{options.pair}")
    task = networks.task_of(options.vocabulary)

    def baseline() -> Training:
        loss = LabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.1)
        return Training(networks.autoregressive(size, options.vocabulary), loss, flags, options)

    def system(name: str) -> Training:
        model = networks.ours(SYSTEMS[name].format(options.pair), options.vocabulary, dropout=size["dropout"])
        return Training(model, DiffusionLoss(task), flags, options)

    return {AR: baseline, **{name: lambda name=name: system(name) for name in SYSTEMS}}


def measured(precision: str, optimizer: str, tokens: int, options: argparse.Namespace) -> list[Row]:
    """All systems on one batch, in turns."""
    progress(f"training in {precision} with {optimizer}, batches of {tokens} tokens")
    batch, clock = batch_of(tokens, options.vocabulary, options.device), partial(elapsed, device=options.device)
    flags = f"--optimizer {optimizer} --lr 1e-4 --fp16-init-scale 4"
    flags += "" if precision == "fp32" else f" --{precision}"
    trainings, facts = {}, {}
    for name, build in builders(flags, options).items():
        trainings[name], facts[name] = warmed_up(build, batch, options.device)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in trainings}
    for _ in range(options.repeats):
        for name, training in trainings.items():
            times[name].append(training.two_updates(batch, clock))
    settings = {"precision": precision, "optimizer": optimizer, "max_tokens": tokens}
    rows = [{"system": name, **settings, **facts[name], **row_of(times[name], batch)} for name in trainings]
    return [{**row, "ratio": rows[0]["ms"] / row["ms"]} for row in rows]


def warmed_up(build: Any, batch: dict[str, Any], device: str) -> tuple[Training, Row]:
    """A system after four updates, with its launches in one and its peak of memory, of the last two."""
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    training = build()
    training.two_updates(batch, launches_of)  # in which the optimizer makes its state
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    counts = training.two_updates(batch, launches_of)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9 if device == "cuda" else None
    return training, {"peak_gb": peak, **{f"{part}_launches": count for part, count in counts.items()}}


def row_of(times: list[dict[str, float]], batch: dict[str, Any]) -> Row:
    whole = [sum(parts.values()) for parts in times]
    return {
        "tokens": batch["ntokens"],
        "ms": median(whole),
        "iqr_ms": iqr(whole),
        **{f"{part}_ms": median([parts[part] for parts in times]) for part in PARTS},
        "tokens_per_second": 1000 * batch["ntokens"] / median(whole),
        "repeats": len(times),
    }


def spread_cost(options: argparse.Namespace) -> Row:
    """A refresh of sigma_min in turns with updates of the model that has these embeddings."""
    progress(f"sigma_min of {options.spread_vocabulary} embeddings")
    changes = {"encoder_layers": 1, "decoder_layers": 1, "hidden": 16, "heads": 2, "inner": 16} if options.quick else {}
    model = networks.ours(SPREAD_ARCH, options.spread_vocabulary, **changes)
    task = networks.task_of(options.spread_vocabulary)
    training = Training(model, DiffusionLoss(task), f"--optimizer {options.optimizers[0]} --lr 1e-4", options)
    batch = batch_of(min(options.max_tokens), options.spread_vocabulary, options.device)
    table = model.translator.state.table().detach()
    calls = {
        "update": lambda: training.update(batch, lambda part: part()),
        "refresh": lambda: model.translator.schedule.update(table),
    }
    times = interleaved(calls, options.device, min(options.repeats, 2))
    every = model.cfg.schedule_update
    return {
        "what": f"{len(table)} embeddings of {table.shape[1]}, every {every} updates of {batch['ntokens']} tokens",
        "ms": median(times["refresh"]),
        "iqr_ms": iqr(times["refresh"]),
        "baseline_ms": median(times["update"]),
        "baseline_iqr_ms": iqr(times["update"]),
        "share": median(times["refresh"]) / every / median(times["update"]),
        "repeats": len(times["update"]),
    }


if __name__ == "__main__":
    raise SystemExit(main())
