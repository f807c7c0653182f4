"""A task of two registers, learnt: words that are predicted at once agree by their latents."""

from __future__ import annotations

from functools import cache
from typing import Any

import gaussians
import torch
from gaussians import BOS, EOS, PAD
from token_batches import TOKENS
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.latents import Made

WORDS = torch.arange(4, 8)  # of the source; each has two translations, a word of 8 to 11 and one of 12 to 15
UPDATES, BATCH, LENGTH = 400, 64, 5


def data(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sources and targets with both ends, and the register of each target, which the source does not tell."""
    made = torch.Generator().manual_seed(seed)
    words = WORDS[torch.randint(4, (count, LENGTH), generator=made)]
    register = torch.randint(2, (count,), generator=made)
    ends = torch.full((count, 1), BOS), torch.full((count, 1), EOS)
    source, target = (torch.cat([ends[0], x, ends[1]], 1) for x in (words, words + 4 + 4 * register[:, None]))
    return source, target, register


@cache
def learnt() -> Any:
    """The encoder of targets and the words first, then the chain, too."""
    flags = {"hidden": 32, "inner": 64, "dropout": 0.0, "latents": 2, "latents_dim": 8, "latents_start": 100}
    model = gaussians.build(**TOKENS, objective="elbo", time_min=1e-3, **flags).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for update in range(UPDATES):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - update / UPDATES)
        source, target, _ = data(update, BATCH)
        keys = noise.fold(torch.arange(BATCH), 7, update)
        found = model.losses(source, source.ne(PAD), target, target.ne(PAD), keys, update)
        optimizer.zero_grad()
        (found.total / found.sample_size).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def decoded(model: Any, source: Tensor, **asked: Any) -> Tensor:
    """Words [S, K, L] in one step of words, at the right length, and the calls of each."""
    encoded = model.encode(source, source.ne(PAD))
    lengths = model.lengths(encoded, 1, "top_k")
    lengths = lengths._replace(positions=torch.full_like(lengths.positions, source.shape[1]), width=source.shape[1])
    options = model.Options(steps=1, sampler="ancestral", **asked)
    keys = noise.fold(torch.arange(len(source))[:, None, None], torch.arange(options.noise_beam))
    found = model.decoding(options)(encoded, lengths, keys)
    assert (found.calls == 1 + options.latents_steps).all()
    return found.tokens[..., :LENGTH]


def registers(words: Tensor) -> Tensor:
    """Of each word, 0 or 1; others are neither."""
    return (words - 8).div(4, rounding_mode="floor")


def test_words_with_an_ideal_latent_are_of_its_register(monkeypatch: Any):
    """That of a target: its register is told, and no sentence mixes two in its one step."""
    model, (source, target, register) = learnt(), data(-1, 100)
    u = model.latents.encoder(target, target.ne(PAD))[:, None].detach()
    monkeypatch.setattr(model.latents, "make", lambda *_: Made(u, torch.full(u.shape[:2], 10)))
    found = decoded(model, source)[:, 0]
    assert torch.equal(registers(found), register[:, None].expand(found.shape))
    assert float((found == target[:, 1:-1]).double().mean()) > 0.95


def test_words_with_latents_that_are_made_agree_and_both_registers_are_made():
    model, (source, _, _) = learnt(), data(-2, 100)
    found = registers(decoded(model, source, noise_beam=4, latents_steps=5))
    agree = (found == found[..., :1]).all(-1)
    assert float(agree.double().mean()) > 0.95
    share = float(found[..., 0][agree].double().mean())
    assert 0.25 < share < 0.75


def test_validation_sees_that_latents_help():
    model, (source, target, _) = learnt(), data(-3, 100)
    with torch.no_grad():
        means = model.losses(source, source.ne(PAD), target, target.ne(PAD), torch.arange(100), UPDATES).means
    own, made = (float(means[name].total / means[name].number) for name in ("latents_gain", "latents_made_gain"))
    assert own > 0.1 and own > made
