"""How fast a translation is written in one pass, against fairseq's beam search, in one run on one machine.

    .venv/bin/python scripts/bench_one_pass.py                       (CPU, minutes)
    .venv/bin/python scripts/bench_one_pass.py --device cuda --fp16  (GPU)

Random weights, the same size for all (IWSLT: 512 wide, 1024 inside, 4 heads, 6 + 6 layers), sentences of --length
words on both sides, which every system is made to write in full: beam search may not end before, the likeliest length
is the reference's (five lengths are two longer and two shorter ones beside it), and a graph's links lead over so many
vertices. CTC says what it likes on a canvas of its size; that takes as long. Timed is what fairseq calls a generator,
from a batch of tokens to hypotheses on the host. Latency: a batch of one, the median of --repeats; throughput: the best
of --batches. Ratios are against the first line.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from benchmark import Row, flags, milliseconds, report
from fairseq import options as fairseq_options
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.decoding.glancing import GlancingGenerator, GlancingOptions  # noqa: E402
from fairseq_diffusion.models.glancing import GlancingModel  # noqa: E402
from fairseq_diffusion.models.glancing_config import GlancingConfig  # noqa: E402
from fairseq_diffusion.network.length import LengthHead  # noqa: E402
from fairseq_diffusion.presets import PRESETS  # noqa: E402
from fairseq_diffusion.tasks.dictionary import TableDictionary  # noqa: E402

Batch = dict[str, Any]
Decode = Callable[[Batch], Any]

AR = (
    "--arch transformer --encoder-attention-heads 4 --decoder-attention-heads 4 --encoder-layers 6 --decoder-layers 6 "
    "--share-all-embeddings --max-source-positions 256 --max-target-positions 256"
)
LONGEST = {"max_source_positions": 256, "max_target_positions": 256}
EOS = 2
BASELINE = "AR, beam 5"
# arch, and flags of its model and its decoding
SYSTEMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "length": ("diffglat_iwslt_de_en", {}, {}),
    "length, 3 blocks": ("diffglat_iwslt_de_en", {"blocks": 3}, {}),
    "length, 2 blocks": ("diffglat_iwslt_de_en", {"blocks": 2}, {}),
    "length, 5 lengths": ("diffglat_iwslt_de_en", {}, {"length_beam": 5}),
    "CTC": ("diffglat_iwslt_de_en_ctc", {}, {}),
    "DAG, lambda 8, lookahead": ("diffglat_iwslt_de_en_dag", {"upsample": 8.0}, {}),
    "DAG, lambda 4, lookahead": ("diffglat_iwslt_de_en_dag", {"upsample": 4.0}, {}),
    "DAG, lambda 4, joint Viterbi": ("diffglat_iwslt_de_en_dag", {"upsample": 4.0}, {"path_search": "joint_viterbi"}),
    "DAG, lambda 4, beam 5": ("diffglat_iwslt_de_en_dag", {"upsample": 4.0}, {"path_search": "beam"}),
    "one block, length": ("nat_iwslt_de_en", {}, {}),
    "one block, DAG, lambda 8, lookahead": ("da_transformer_iwslt_de_en", {}, {}),
}
COLUMNS = {
    "system": ("system", ""),
    "words": ("words", "d"),
    "ms, batch 1": ("latency_ms", ".1f"),
    "ratio": ("latency_ratio", ".2f"),
    "sentences/s": ("throughput", ".1f"),
    "batch": ("batch", "d"),
    "ratio ": ("throughput_ratio", ".2f"),
}


def main() -> int:
    options = arguments()
    torch.manual_seed(1)
    decoders = {BASELINE: autoregressive(options, 5), "AR, greedy": autoregressive(options, 1)}
    decoders |= {name: one_pass(options, *SYSTEMS[name]) for name in options.systems}
    rows = [measured(name, decode, options) for name, decode in decoders.items()]
    for row in rows:
        row["latency_ratio"] = rows[0]["latency_ms"] / row["latency_ms"]
        row["throughput_ratio"] = row["throughput"] / rows[0]["throughput"]
    report(rows, options, COLUMNS, precision="fp16" if options.fp16 else "fp32")
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=7)
    parser.add_argument("--length", type=int, default=25, help="words of a sentence (25)")
    parser.add_argument("--vocabulary", type=int, default=10_000, help="entries of the joined dictionary (10000)")
    parser.add_argument("--hidden", type=int, default=512, help="width of all networks, twice as wide inside (512)")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="batch sizes for throughput (16 64)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="which of ours (all)")
    parser.add_argument("--fp16", action="store_true", help="all models in half precision")
    return parser.parse_args()


def measured(name: str, decode: Decode, options: argparse.Namespace) -> Row:
    """Latency of a batch of one, and the best throughput."""
    print(f"timing {name}", file=sys.stderr, flush=True)

    def times(size: int, repeats: int) -> list[float]:
        return milliseconds(partial(decode, sentences(size, options)), options.device, repeats)

    one = times(1, options.repeats)
    rates = {size: 1000 * size / min(times(size, min(2, options.repeats))) for size in options.batches}
    batch = max(rates, key=lambda size: rates[size])
    return {
        "system": name,
        "words": words(decode(sentences(1, options))[0][0]),
        "latency_ms": statistics.median(one),
        "latency_spread_ms": max(one) - min(one),
        "throughput": rates[batch],
        "batch": batch,
        "rates": rates,
    }


def words(hypothesis: dict[str, Any]) -> int:
    """Without the end of sentence."""
    return int(hypothesis["tokens"].ne(EOS).sum())


def sentences(count: int, options: argparse.Namespace) -> Batch:
    """A batch as fairseq makes it; all sentences as long."""
    words = torch.randint(4, options.vocabulary, (count, options.length), device=options.device)
    tokens = torch.cat([words, words.new_full((count, 1), EOS)], 1)
    lengths = torch.full((count,), options.length + 1, device=options.device)
    net_input = {"src_tokens": tokens, "src_lengths": lengths, "prev_output_tokens": tokens}
    return {"id": torch.arange(count), "net_input": net_input, "target": tokens}


def filled(dictionary: Dictionary, size: int) -> Dictionary:
    for number in range(size - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
    return dictionary


def placed(model: Any, options: argparse.Namespace) -> Any:
    model = model.eval().to(options.device)
    return model.half() if options.fp16 else model


def autoregressive(options: argparse.Namespace, beam: int) -> Decode:
    """fairseq's Transformer and its generator, which is made to write `length` words and the end."""
    dictionary = filled(Dictionary(), options.vocabulary)
    hidden, inner = options.hidden, 2 * options.hidden
    widths = [f"--{side}-embed-dim {hidden} --{side}-ffn-embed-dim {inner}" for side in ("encoder", "decoder")]
    parser = fairseq_options.get_training_parser()
    args = fairseq_options.parse_args_and_arch(parser, ["unused", *" ".join([AR, *widths]).split()])
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = placed(TransformerModel.build_model(args, task), options)
    length = options.length
    generator = SequenceGenerator([model], dictionary, beam, max_len_a=0, max_len_b=length, min_len=length)
    return lambda batch: generator.generate([model], batch)


def one_pass(options: argparse.Namespace, arch: str, network: dict[str, Any], decoding: dict[str, Any]) -> Decode:
    """A preset of ours, made to write as many words where length or path say how many."""
    source, target = (filled(TableDictionary(), options.vocabulary) for _ in range(2))
    sizes = {"hidden": options.hidden, "inner": 2 * options.hidden, **LONGEST, **network}
    cfg = GlancingConfig(**{**PRESETS[arch].fields, "seed": 1, **sizes})
    target.add_mask()
    task = SimpleNamespace(source_dictionary=source, target_dictionary=target)
    model = placed(GlancingModel.build_model(cfg, task), options)
    if cfg.back_end == "length":
        guess_the_sources(model.translator.length)
    if cfg.back_end == "dag":
        links = partial(one_way, words=options.length)
        model.translator.back_end.links.register_forward_hook(lambda module, inputs, output: links(output))
    generator = GlancingGenerator(GlancingOptions(back_end=str(cfg.back_end), **decoding), model.translator, target)
    return lambda batch: generator.generate([model], batch)


@torch.no_grad()
def guess_the_sources(head: LengthHead) -> None:
    """The likeliest length is the source's, which here is the reference's, then come its neighbours."""
    *_, last = head.map
    last.weight.zero_()
    last.bias.copy_(-(torch.arange(head.classes) - head.classes // 2).abs())


def one_way(links: Tensor, words: int) -> Tensor:
    """Links [B, L, L] that lead over `words` vertices, evenly spread, to the last; random ones would skip most."""
    vertex = torch.arange(links.shape[1], device=links.device)
    way = torch.linspace(0, len(vertex) - 1, words + 2, device=links.device).round().long()
    following = way[torch.searchsorted(way, vertex, right=True).clamp(max=words + 1)]
    return torch.where(vertex == following[:, None], links, links - 50)


if __name__ == "__main__":
    raise SystemExit(main())
