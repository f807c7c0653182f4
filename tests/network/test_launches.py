"""A step's operations are as many for every batch: on a GPU with small ones, launching them is what takes the time."""

import runpy

import torch
from commands import ROOT

from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder, own_words
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.states.embedding import EmbeddingState

SOURCE = torch.arange(12).view(2, 6) + 4
Launches = runpy.run_path(str(ROOT / "benchmarks" / "launches.py"))["Launches"]  # as the benchmarks count them


@torch.no_grad()
def launches_of_a_step(candidates, length):
    size = Size(hidden=16, inner=32, heads=2)
    encoder, denoiser = (
        Encoder(own_words(20, 16), size, 1, 40).eval(),
        Denoiser(EmbeddingState(20, 6), size, 2, 40).eval(),
    )
    memory = denoiser.memory(encoder(SOURCE, SOURCE > 0), SOURCE > 0)
    x, t = torch.randn(2 * candidates, length, 6), torch.rand(2 * candidates)
    with Launches() as launches:
        denoiser(x, x, t, torch.ones(x.shape[:2]).bool(), memory)
    return launches.count


def test_launches_do_not_grow_with_the_batch():
    assert 0 < launches_of_a_step(3, 5) == launches_of_a_step(7, 11)
