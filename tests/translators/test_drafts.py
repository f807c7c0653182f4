"""Sampling that begins with a translation instead of with noise alone."""

from __future__ import annotations

import pytest
import torch
from gaussians import BOS, EOS, PAD, build, encode, sources

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.batch import Draft, Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

TOKENS = torch.tensor([[BOS, 5, 6, EOS, PAD], [BOS, 7, 5, 8, EOS]])
KEYS = noise.fold(torch.tensor([3, 4])[:, None, None], torch.arange(3))  # three noises at the one length


def decode(translator, tokens, keys=KEYS, **options):
    decoder = translator.decoder_for(DiffusionOptions(noise_beam=3, **options))
    positions = TOKENS.ne(PAD).sum(-1, keepdim=True)
    draft = None if tokens is None else Draft(tokens, torch.zeros(tokens.shape))
    lengths = Lengths(positions, torch.zeros(2, 1), TOKENS.shape[1], draft=draft)
    with torch.no_grad():
        return decoder.grid, decoder(encode(translator, sources((6, 9))), lengths, keys)


@pytest.mark.parametrize("grid", ["time", "sigma", "log_snr", "respaced"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "cedi", "dpmpp_2m"])
def test_the_first_step_sees_the_draft_at_its_time_and_as_an_estimate(sampler, grid, monkeypatch):
    """x_t = alpha_t E[draft] + sigma_t eps, with the noise that x_T would have had; c = E[draft]."""
    translator, seen = build(), []
    denoise = translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: seen.append(args) or denoise(*args))
    made, _ = decode(translator, TOKENS, draft=0.6, steps=3, sampler=sampler, grid=grid)
    (x_t, _, c, mask, _), *later = seen
    assert len(later) == 2 and float(made.t[0]) == 0.6 and len(made.t) == 4
    level, clean = translator.schedule.level(torch.tensor(0.6, dtype=torch.double)), translator.state.encode(TOKENS)
    keys = noise.fold(KEYS.flatten(), torch.zeros((), dtype=torch.long))
    eps = noise.normal(keys, 5, clean.shape[-1]).view(2, 3, 5, -1)
    expected = level.alpha.float() * clean[:, None] + level.sigma.float() * eps
    torch.testing.assert_close(x_t.view(2, 3, 5, -1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(c.view(2, 3, 5, -1), clean[:, None].expand(-1, 3, -1, -1))
    assert mask.view(2, 3, 5).sum(-1).tolist() == [[4] * 3, [5] * 3]


def test_a_draft_with_nothing_but_noise_is_a_length_and_an_estimate():
    """At time 1 the draft's words are gone; without self-conditioning its length is all that is left."""
    translator = build(self_conditioning="none")
    _, drafted = decode(translator, TOKENS, draft=1.0, steps=4)
    _, plain = decode(translator, None, steps=4)
    assert torch.equal(drafted.tokens, plain.tokens)
    _, later = decode(translator, TOKENS, draft=0.3, steps=4)
    assert not torch.equal(later.tokens, plain.tokens)


def test_a_time_behind_the_last_one_is_refused():
    with pytest.raises(UserError, match="begins at time 0.1"):
        decode(build(), None, draft=0.1, final_time=0.2)
    with pytest.raises(UserError, match="have room for on the grid time; .* a larger --draft"):
        decode(build(diffusion_steps=20, schedule_modifier="none"), None, draft=0.01, steps=5)
