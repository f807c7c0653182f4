"""One-pass models, made to write as many words as the reference where length or path decide how many.

The likeliest length is the source's (five lengths are two longer and two shorter ones beside it), and a graph's links
lead over so many vertices.  CTC may predict any number on a canvas of its size; that takes as long.
"""

from __future__ import annotations

import argparse
from typing import Any

import networks
import torch
from decoders import System, guess_the_sources, of_fairseq, placed
from torch import Tensor

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

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


def in_one_pass(name: str, size: dict[str, Any], precision: str, options: argparse.Namespace) -> System:
    arch, network, decoding = SYSTEMS[name]
    dictionary = networks.dictionary(options.vocabulary)
    dictionary.add_mask()
    model = placed(networks.ours(arch, options.vocabulary, **size, **network), precision, options.device)
    alignment, path = str(model.cfg.alignment), Path()
    if alignment == "length":
        guess_the_sources(model.translator.length)
    if alignment == "dag":
        model.translator.alignment.links.register_forward_hook(path.lead)
    generator = Generator(model.translator, OnePassOptions(**decoding), SelectionOptions(), dictionary)

    def generate(batch: Any, words: int) -> Any:
        path.words = words
        return generator.generate([model], batch)

    facts = {"candidates": decoding.get("length_beam", 1), "steps": 1}
    return of_fairseq(f"one pass: {name}", precision, generate, dictionary, options.device, **facts)


class Path:
    """Makes a graph's links [B, L, L] lead over `words` vertices, evenly spread, to the last; random ones would skip
    most."""

    words = 0

    def lead(self, module: Any, inputs: Any, links: Tensor) -> Tensor:
        vertex = torch.arange(links.shape[1], device=links.device)
        way = torch.linspace(0, len(vertex) - 1, self.words + 2, device=links.device).round().long()
        following = way[torch.searchsorted(way, vertex, right=True).clamp(max=self.words + 1)]
        return torch.where(vertex == following[:, None], links, links - 50)


def all_in_one_pass(size: dict[str, Any], precision: str, options: argparse.Namespace) -> list[System]:
    return [in_one_pass(name, size, precision, options) for name in SYSTEMS]
