"""What is timed in decoding, from text to text: fairseq's beam search, CTranslate2, and ours step by step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import engine
import networks
import torch
from fairseq.data.data_utils import post_process
from fairseq.sequence_generator import SequenceGenerator
from naive import NaiveGenerator

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.execution import EAGER

BPE = "subword_nmt"
AR = "AR, beam 5"
DIFFUSION = {"DINOISER": "dinoiser_iwslt_de_en", "Difformer": "difformer_iwslt_de_en"}
TOKENS = {"MDLM": "mdlm_iwslt_de_en", "RDM": "rdm_iwslt_de_en_absorb"}
TOKEN_STEPS = (4, 10)
CANDIDATES = (1, 5)
# what fairseq and CTranslate2 run in
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16")}
ENGINE = {"cpu": ("float32", "int8"), "cuda": ("float32", "float16", "int8_float16")}


@dataclass
class System:
    """From lines of text to what a generator takes, to what it returns (given how many words to predict), to text."""

    name: str
    precision: str
    encode: Callable[[list[str]], Any]
    generate: Callable[[Any, int], list[Any]]
    decode: Callable[[list[Any]], list[str]]
    candidates: int = 1
    steps: int | None = None
    preset: str | None = None
    compile_seconds: Callable[[], float] = lambda: 0.0  # so far, in which nothing was translated

    def __call__(self, texts: list[str], words: int) -> list[str]:
        return self.decode(self.generate(self.encode(texts), words))


def of_fairseq(
    name: str, precision: str, generate: Callable[[Any, int], Any], dictionary: Any, device: str, **facts: Any
) -> System:
    """A system whose `generate` takes fairseq's batches and returns its hypotheses."""

    def encode(texts: list[str]) -> dict[str, Any]:
        rows = [dictionary.encode_line(text, add_if_not_exist=False, append_eos=False).long() for text in texts]
        tokens = networks.padded(rows, left=True).to(device)
        lengths = tokens.ne(networks.PAD).sum(-1)
        return {"net_input": {"src_tokens": tokens, "src_lengths": lengths, "prev_output_tokens": tokens}}

    def decode(sentences: list[Any]) -> list[str]:
        return [dictionary.string(hypotheses[0]["tokens"], BPE) for hypotheses in sentences]

    return System(name, precision, encode, generate, decode, **facts)


def placed(model: Any, precision: str, device: str) -> Any:
    return model.eval().to(device, networks.DTYPES[precision])


# -- word by word -----------------------------------------------------------------------------------------------------


def word_by_word(size: dict[str, Any], options: argparse.Namespace) -> list[System]:
    """fairseq's Transformer with its own beam search, and CTranslate2 with the same weights."""
    model = networks.autoregressive(size, options.vocabulary)
    dictionary = networks.dictionary(options.vocabulary)
    systems = []
    for precision in PRECISIONS[options.device]:
        cast = placed(deepcopy(model), precision, options.device)
        for name, beam in ((AR, 5), ("AR, greedy", 1)):
            generate = beam_search(cast, dictionary, beam)
            systems.append(of_fairseq(name, precision, generate, dictionary, options.device))
    return systems + engines(model, size, dictionary, options)


def beam_search(model: Any, dictionary: Any, beam: int) -> Callable[[Any, int], Any]:
    """It is made to write `words` words and the end."""
    generator = SequenceGenerator([model], dictionary, beam)
    generator.max_len_a = 0

    def generate(batch: Any, words: int) -> Any:
        generator.min_len = generator.max_len_b = words
        return generator.generate([model], batch)

    return generate


def engines(model: Any, size: dict[str, Any], dictionary: Any, options: argparse.Namespace) -> list[System]:
    """None, with a notice, where CTranslate2 is not installed."""
    if not engine.installed():
        print(engine.MISSING, file=sys.stderr)
        return []
    args = networks.ar_arguments(networks.AR.format(**size).split())
    types = ENGINE[options.device]
    translators = engine.translators(model, args, dictionary, options.device, types, options.threads)
    return [
        System(
            f"CTranslate2, {name}",
            kind,
            lambda texts: [text.split() for text in texts],
            partial(translators[kind], beam=beam),
            lambda sentences: [post_process(" ".join(symbols), BPE) for symbols in sentences],
        )
        for kind in types
        for name, beam in (("beam 5", 5), ("greedy", 1))
    ]


# -- step by step -----------------------------------------------------------------------------------------------------


def step_by_step(name: str, size: dict[str, Any], options: argparse.Namespace) -> list[System]:
    """A diffusion preset of the same size: candidates x steps in fp32 and bf16, and the naive form of the largest."""
    model = networks.ours(DIFFUSION[name], options.vocabulary, **size)
    guess_the_sources(model.translator.length)
    dictionary = networks.dictionary(options.vocabulary)
    systems = [diffusion(name, model, dictionary, "fp32", CANDIDATES[-1], options.steps[-1], options, naive=True)]
    for precision, execution in (("fp32", EAGER), *(("bf16", execution) for execution in options.executions)):
        cast = placed(deepcopy(model), precision, options.device)
        for K in CANDIDATES:
            for steps in options.steps:
                systems.append(diffusion(name, cast, dictionary, precision, K, steps, options, execution))
    return systems


def word_diffusion(name: str, size: dict[str, Any], options: argparse.Namespace) -> list[System]:
    """A preset that diffuses words, of the same size, one candidate; the surest words first."""
    model = networks.ours(TOKENS[name], options.vocabulary, **size)
    guess_the_sources(model.translator.length)
    dictionary = networks.dictionary(options.vocabulary)
    sampler = None if str(model.cfg.sampler) == "routing" else "confidence"
    return [
        diffusion(name, placed(model, "fp32", options.device), dictionary, "fp32", 1, steps, options, sampler=sampler)
        for steps in TOKEN_STEPS
    ]


def diffusion(
    name: str,
    model: Any,
    dictionary: Any,
    precision: str,
    K: int,
    steps: int,
    options: argparse.Namespace,
    execution: str = EAGER,
    naive: bool = False,
    sampler: str | None = None,
) -> System:
    """K noises of one length, chosen by MBR, with all of the steps taken."""
    cfg, preset = model.cfg, name
    asked = DiffusionOptions(
        steps=steps,
        sampler=sampler or str(cfg.sampler),
        grid=str(cfg.grid),
        decode_noise_factor=cfg.decode_noise_factor,
        noise_beam=K,
        execution=execution,
    )
    choice = SelectionOptions("mbr" if K > 1 else "score")
    generator: Any = Generator(model.eval().to(options.device).translator, asked, choice, dictionary)
    decoder = generator.decoder
    facts = {"candidates": K, "steps": steps, "preset": preset, "compile_seconds": lambda: decoder.compile_seconds}
    if execution != EAGER:
        name = f"{name}, {execution}"
    if naive:
        name, generator = f"{name}, naive", NaiveGenerator(generator, dictionary)

    def generate(batch: Any, words: int) -> Any:
        return generator.generate([model], batch)

    return of_fairseq(name, precision, generate, dictionary, options.device, **facts)


@torch.no_grad()
def guess_the_sources(head: LengthHead) -> None:
    """The likeliest length is the source's, which here is the reference's, then come its neighbours."""
    last = [part for part in head.map.modules() if isinstance(part, torch.nn.Linear)][-1]
    last.weight.zero_()
    wanted = -(torch.arange(head.classes) - head.classes // 2).abs().float()
    if last.bias is None:
        last.bias = torch.nn.Parameter(wanted)
    else:
        last.bias.copy_(wanted)
