"""Which generator decodes which kind of model; a model names its kind as the class attribute `kind`."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.registry import Registry


class Decoder(NamedTuple):
    """What fairseq's task needs to decode a kind of model."""

    what: str  # the kind in words
    options: Any  # has from_flags(task, generation, model), which refuses what makes no sense
    generator: Callable[..., Generator]  # of options, translator, dictionary, teacher


KINDS: Registry[Callable[[], Decoder]] = Registry("kind of model")


@KINDS.register("diffusion")
def gaussian() -> Decoder:
    from fairseq_diffusion.decoding.gaussian import GaussianGenerator
    from fairseq_diffusion.decoding.options import DecodeOptions

    return Decoder("a Gaussian model, which denoises step by step", DecodeOptions, GaussianGenerator)


@KINDS.register("glancing")
def glancing() -> Decoder:
    from fairseq_diffusion.decoding.glancing import GlancingGenerator, GlancingOptions

    return Decoder("a glancing model, which writes in whole passes", GlancingOptions, GlancingGenerator)


def kind_of(model: Any) -> str:
    return getattr(model, "kind", "diffusion")
