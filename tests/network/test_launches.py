"""A step costs few launches: on a GPU with small batches, what is launched is what takes the time."""

import runpy

import pytest
import torch
from support import ROOT

from fairseq_diffusion.network.block_decoder import BlockDecoder
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder, own_words
from fairseq_diffusion.network.latent_maps import LATENT_MAPS
from fairseq_diffusion.network.time_features import TIME_FEATURES
from fairseq_diffusion.network.transformer import ACTIVATIONS, Size

LAYERS = 6
MOST = 130  # a step of six layers
SOURCE = torch.arange(12).view(2, 6) + 4
Launches = runpy.run_path(str(ROOT / "benchmarks" / "launches.py"))["Launches"]  # as the benchmarks count them


def size_of(activation="gelu", pre_norm=False):
    return Size(hidden=16, inner=32, heads=2, activation=activation, pre_norm=pre_norm)


@torch.no_grad()
def launches_of_a_step(layers, candidates=3, length=5, activation="gelu", pre_norm=False, **parts):
    size = size_of(activation, pre_norm)
    encoder, denoiser = Encoder(own_words(20, 16), size, 1, 40).eval(), Denoiser(6, size, layers, 40, **parts).eval()
    memory = denoiser.memory(encoder(SOURCE, SOURCE > 0), SOURCE > 0)
    x, t = torch.randn(2 * candidates, length, 6), torch.rand(2 * candidates)
    c = x if parts.get("self_conditioned", True) else None
    with Launches() as launches:
        denoiser(x, c, t, torch.ones(x.shape[:2]).bool(), memory)
    return launches.count


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("time_features", TIME_FEATURES)
@pytest.mark.parametrize("latent_map", LATENT_MAPS)
def test_a_step_of_six_layers(latent_map, time_features, activation, pre_norm):
    parts = {"latent_map": latent_map, "time_features": time_features}
    assert launches_of_a_step(LAYERS, activation=activation, pre_norm=pre_norm, **parts) <= MOST


def test_a_layer_is_fifteen_launches():
    """Project, attend, project, add, norm; to the source the same; up, activate, down, add, norm."""
    assert launches_of_a_step(LAYERS) - launches_of_a_step(LAYERS - 1) == 5 + 5 + 5


def test_launches_do_not_grow_with_the_batch():
    assert launches_of_a_step(2) == launches_of_a_step(2, candidates=7, length=11)


@torch.no_grad()
def test_a_pass_over_a_canvas():
    decoder = BlockDecoder(torch.nn.Embedding(20, 16), size_of(), LAYERS, 1, 40, "gated").eval()
    memory = decoder.memory(torch.randn(2, 6, 16), SOURCE > 0)
    z, mask = torch.full((2, 7), 19), torch.ones(2, 7).bool()
    with Launches() as launches:
        decoder.read(decoder.block(1, decoder.enter(z, mask, None), mask, memory))
    assert launches.count <= MOST


def test_launches_are_counted_and_views_are_not():
    x = torch.ones(4, 4)
    for run, expected in ((lambda: x.t()[None, :2], 0), (lambda: x + x, 1), (lambda: x.add_(1), 1)):
        with Launches() as launches:
            run()
        assert launches.count == expected
