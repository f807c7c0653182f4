"""Words and latents as one state: what is corrupted, how a step moves both, and that words are read as ever."""

from __future__ import annotations

from itertools import product
from typing import Any

import gaussians
import pytest
import torch
from gaussians import BOS, EOS, PAD, WORDS, encode, sources
from token_batches import TOKENS, batch
from torch import Tensor

from fairseq_diffusion.decoding.likelihood import LikelihoodScorer
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.joint import Joint, each
from fairseq_diffusion.samplers.gaussian import GaussianStep
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.joint import joint_steps
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.translators.batch import Candidates

OF_JOINT: Any = {"state": "joint", "objective": "elbo,latents", "latents": 3, "latents_dim": 5, "latents_start": 1}
JOINT = {**TOKENS, **OF_JOINT, "dropout": 0.0}


def build(**flags: Any) -> Any:
    return gaussians.build(**{**JOINT, "latents_layers": 1, "latents_drop": 0.0, **flags})


def losses(model: Any, update: int = 1) -> Any:
    source, target, keys = batch()
    return model.losses(source, source.ne(PAD), target, target.ne(PAD), keys, update)


@torch.no_grad()
def decode(model: Any, tokens: Tensor | None = None, noises: int = 1, steps: int = 3, **asked: Any) -> Candidates:
    tokens = sources() if tokens is None else tokens
    source = encode(model, tokens)
    lengths = model.lengths(source, 1, "top_k")
    lengths = lengths._replace(width=int(lengths.positions.max()))
    keys = noise.sentence_keys(1, tokens, tokens.ne(PAD))[:, None, None]
    options = model.Options(**{"steps": steps, "sampler": "ancestral", "noise_beam": noises, **asked})
    return model.decoding(options)(source, lengths, noise.fold(keys, torch.arange(noises)))


# -- noise


def test_both_are_corrupted_at_one_time():
    """Words as ever, and u_t = alpha u_0 + sigma eps at that time."""
    model = build().eval()
    plain = gaussians.build(**TOKENS, objective="elbo", dropout=0.0)
    _, target, keys = batch()
    t, mask = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), target.ne(PAD)
    level = model.schedule.level(t[:, None])
    s_0 = model.state.encode(target)
    found = model.state.corrupt(s_0, level, keys, mask)
    assert torch.equal(found.words, plain.state.corrupt(target, level, keys, mask))
    torch.testing.assert_close(found.t, t)
    own = model.state.schedule.level(t[:, None])
    eps = noise.normal(noise.fold(noise.fold(keys, Stream.LATENTS), 0), 3, 5)
    alpha, sigma = (x[..., None].float() for x in (own.alpha, own.sigma))
    torch.testing.assert_close(found.latents, alpha * s_0.latents + sigma * eps)


def test_latents_may_have_a_time_of_their_own_in_training():
    """Any, whatever that of the words; but not in validation."""
    model = build(latents_own_time=True)
    target, keys = torch.full((500, 3), 5), torch.arange(500)
    level = model.schedule.level(torch.full((500, 1), 0.5))
    s_0, mask = model.state.encode(target), torch.ones_like(target, dtype=torch.bool)
    t = model.state.train().corrupt(s_0, level, keys, mask).t
    assert 0.4 < float(t.mean()) < 0.6 and float(t.min()) < 0.05 and float(t.max()) > 0.95
    torch.testing.assert_close(model.state.eval().corrupt(s_0, level, keys, mask).t, torch.full((500,), 0.5).double())


def test_a_share_of_sentences_has_noise_alone_in_training():
    model = build(latents_drop=0.3)
    target, keys = torch.full((500, 3), 5), torch.arange(500)
    level = model.schedule.level(torch.full((500, 1), 0.5))
    s_0, mask = model.state.encode(target), torch.ones_like(target, dtype=torch.bool)
    found = model.state.train().corrupt(s_0, level, keys, mask)
    dropped = found.t == 1
    assert 0.25 < float(dropped.double().mean()) < 0.35 and torch.isclose(found.t, dropped.double() / 2 + 0.5).all()
    other = model.state.corrupt(s_0._replace(latents=-s_0.latents), level, keys, mask)
    same = torch.isclose(found.latents, other.latents, atol=1e-5).all(-1).all(-1)
    assert torch.equal(same, dropped)
    torch.testing.assert_close(model.state.eval().corrupt(s_0, level, keys, mask).t, torch.full((500,), 0.5).double())


def test_the_encoder_of_targets_sees_a_share_of_the_words_in_training():
    model = build(latents_hide=0.5)
    seen: list[Tensor] = []
    model.state.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    target, keys = torch.full((300, 10), 5), torch.arange(300)
    for training in (True, False):
        model.train(training).state.draw(target, keys)
    assert seen[0][:, 0].all() and seen[1].all()
    assert float(seen[0][:, 1:].double().mean()) == pytest.approx(0.5, abs=0.03)


def test_the_encoder_of_targets_is_learnt_in_the_first_stage_and_the_latents_in_the_second():
    """The encoder by the words that read its latents; what a stage does not learn has gradients of 0."""
    model = build(latents_start=5).train()
    for update, second in ((0, False), (4, False), (5, True), (9, True)):
        model.zero_grad()
        found = losses(model, update)
        found.total.backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
        of_encoder = max(float(parameter.grad.abs().max()) for parameter in model.state.encoder.parameters())
        of_exit = max(float(parameter.grad.abs().max()) for parameter in model.denoiser.leave.latents.parameters())
        assert (of_encoder == 0) == second == bool(found.terms["latents"].any()) == (of_exit > 0)
    assert losses(model.eval(), 0).terms["latents"].all()


def test_the_loss_of_latents_is_their_mean_squared_error():
    model = build(self_conditioning="both").train()
    source, target, keys = batch()
    made: list[Joint] = []
    model.denoiser.register_forward_hook(lambda _, __, output: made.append(output))
    found = losses(model)
    u_0 = model.state.encode(target).latents
    error = torch.stack([(estimate.latents - u_0).square().mean((1, 2)) for estimate in made]).mean(0)
    due = model.state.free(target.ne(PAD)).sum(-1)
    torch.testing.assert_close(found.terms["latents"], error * due)
    assert len(made) == 2 and found.total.isfinite()
    found.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


# -- the network


@torch.no_grad()
def test_words_attend_to_latents_and_not_to_padding():
    model = build()
    source, target, keys = batch()
    encoded, mask = model.encode(source, source.ne(PAD)), target.ne(PAD)
    s_t = Joint(target, torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(1)), torch.full((3,), 0.5))
    blank = model.state.blank(s_t)
    ask = lambda s, mask: model.denoise(s, torch.full((3,), 0.5), blank, mask, encoded)  # noqa: E731
    found = ask(s_t, mask)
    assert found.words.shape == (3, 6, 16) and found.latents.shape == (3, 3, 5)
    for changed in (s_t._replace(latents=-s_t.latents), s_t._replace(t=s_t.t / 2)):
        other = ask(changed, mask)
        assert not torch.allclose(other.words, found.words) and not torch.allclose(other.latents, found.latents)
    padded = ask(s_t._replace(words=torch.where(mask, target, 7)), mask)
    torch.testing.assert_close(padded.words[mask], found.words[mask])
    torch.testing.assert_close(padded.latents, found.latents)


# -- steps


@torch.no_grad()
def test_a_step_is_one_of_words_and_one_of_latents():
    """The joint posterior given (y_0, u_0) is the product of both, as their noises are independent: the words' by brute
    force over all that they may become, and the latents' mean, which DDIM's keeps at its end."""
    model = build()
    grid = make_grid(model.schedule.continuous(), 4)
    words = SAMPLERS["ancestral"].steps(grid)
    steps = joint_steps(words, model.state, grid)
    assert [step.t for step in steps] == grid.t[1:].tolist() and all(step.draws for step in steps)
    n, t, s = 4000, float(grid.t[1]), float(grid.t[2])
    y_0, hidden = torch.tensor([5, 6]), model.state.mask
    readout = model.state.readout()
    sure = 100 * readout[y_0] / readout[y_0].square().sum(-1, keepdim=True)  # an estimate that is all but certain
    y_t = torch.tensor([BOS, hidden, hidden, EOS]).expand(n, 1, -1)
    estimate = torch.stack([sure[0], sure[0], sure[1], sure[1]]).expand(n, 1, -1, -1)
    u_t, u_0 = torch.randn(2, n, 1, 3, 5, generator=torch.Generator().manual_seed(3))
    rows = Rows(model.state, y_t)
    state = Joint(y_t, u_t, torch.full((n, 1), t))
    clean = Joint(estimate, u_0)
    found = steps[1](rows, state, clean, clean, torch.arange(n)[:, None])
    assert (found.t == s).all()
    shares = {at: float(model.schedule.level(torch.tensor(at).double()).alpha.square()) for at in (t, s)}
    shown = (shares[s] - shares[t]) / (1 - shares[t])
    counts = {}
    for first, second in product((True, False), repeat=2):
        here = ((found.words[:, 0, 1] == 5) == first) & ((found.words[:, 0, 2] == 6) == second)
        counts[first, second] = float(here.double().mean())
        wanted = (shown if first else 1 - shown) * (shown if second else 1 - shown)
        assert counts[first, second] == pytest.approx(wanted, abs=0.03)
    now, next_ = (model.state.schedule.level(torch.tensor(at).double()) for at in (t, s))
    eps = (u_t - float(now.alpha) * u_0) / float(now.sigma)
    torch.testing.assert_close(found.latents, float(next_.alpha) * u_0 + float(next_.sigma) * eps, rtol=1e-4, atol=1e-4)


class Rows:
    """S sentences of one candidate, as a step of words sees them."""

    def __init__(self, state: Any, words: Tensor):
        self.state, self.mask = state, torch.ones_like(words, dtype=torch.bool)
        self.free = state.free(self.mask)


@torch.no_grad()
def test_an_oracle_is_read_at_every_number_of_steps(monkeypatch: pytest.MonkeyPatch):
    """Latents end at its own, words at the truth."""
    model = build()
    readout = model.state.readout()
    truth = 4 + torch.arange(40) % (WORDS - 4)
    u_0 = model.state.encoder.normalised(torch.ones(3, 5))
    seen: list[Tensor] = []

    def oracle(s_t: Joint, t: Tensor, c: Joint, mask: Tensor, source: Any) -> Joint:
        seen.append(s_t.latents)
        words = 50 * readout[truth[: mask.shape[1]]] / readout[truth[: mask.shape[1]]].square().sum(-1, keepdim=True)
        return Joint(words.expand(len(mask), -1, -1), u_0.expand(len(mask), -1, -1))

    monkeypatch.setattr(model, "denoise", oracle)
    for steps in (1, 2, 5):
        seen.clear()
        found = decode(model, steps=steps)
        for row, size in zip(found.tokens[:, 0], found.sizes[:, 0]):
            assert torch.equal(row[:size], truth[1 : size + 1])
        assert (found.calls == steps).all() and len(seen) == steps
        distances = [float((u - u_0).norm()) for u in seen]
        assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("sampler", ["ancestral", "remasking", "confidence", "mask_predict", "routing"])
def test_a_translation_does_not_depend_on_its_batch(sampler: str):
    model, noises = build(), 2 if sampler in ("ancestral", "remasking") else 1
    together = decode(model, noises=noises, sampler=sampler)
    for number in (0, 2, 6):
        alone = decode(model, sources()[number : number + 1], noises, sampler=sampler)
        size = int(alone.sizes[0, 0])
        assert torch.equal(alone.tokens[0, 0, :size], together.tokens[number, 0, :size])
        torch.testing.assert_close(alone.scores[0], together.scores[number], rtol=1e-4, atol=1e-5)


def test_candidates_leave_on_the_way():
    model = build()
    whole, pruned = decode(model, noises=4, steps=4), decode(model, noises=4, steps=4, prune_after="2")
    assert (pruned.alive.sum(-1) == 2).all() and (pruned.calls.sum(-1) == 2 * 2 + 2 * 4).all()
    torch.testing.assert_close(pruned.scores[pruned.alive], whole.scores[pruned.alive], rtol=1e-4, atol=1e-5)


def test_guidance_is_of_both():
    model = build(source_drop=0.1)
    plain, guided = decode(model), decode(model, guidance=3.0)
    assert (guided.calls == 2 * plain.calls).all()
    assert not torch.allclose(plain.scores, guided.scores)


def test_guided_latents_are_as_their_encoder_could_have_made_them(monkeypatch: pytest.MonkeyPatch):
    model = build(source_drop=0.1)
    norms: list[Tensor] = []
    step = GaussianStep.apply

    def seen(self: Any, x_t: Tensor, x_0: Tensor, *more: Any) -> Tensor:
        norms.append(x_0.norm(dim=-1))
        return step(self, x_t, x_0, *more)

    monkeypatch.setattr(GaussianStep, "apply", seen)
    decode(model, guidance=3.0)
    assert len(norms) == 2
    torch.testing.assert_close(torch.stack(norms), torch.full_like(torch.stack(norms), 5**0.5))


@pytest.mark.parametrize("objective, share", [("vlb", 1.0), ("vlb", 0.5), ("score_entropy", 1.0), ("corrupted", 0.5)])
def test_other_losses_of_words_go_with_latents(objective: str, share: float):
    """Where latents are noise alone and read by nothing else, they are those of words by themselves."""
    flags = {"mask_share": share, "latents_drop": 0.99}
    found = losses(build(objective=f"{objective},latents", **flags).train())
    assert found.total.isfinite() and found.terms[objective].any()


def test_frozen_embeddings_are_the_words_alone():
    model = build(freeze="embeddings")
    assert not model.state.weight.requires_grad
    assert all(parameter.requires_grad for parameter in model.state.encoder.parameters())


# -- what is refused


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"latents": 0}, "--latents is 0"),
        ({"objective": "elbo"}, "--objective elbo teaches no latents"),
        ({"objective": "elbo,latents=0"}, "--objective elbo,latents=0 teaches no latents"),
        (
            {"schedule_modifier": "factor_vp", "noise_factor": 2.0},
            "--schedule-modifier factor_vp is not made for --state joint",
        ),
        ({"conditioning": "prefix"}, "--conditioning prefix is not made for --state joint"),
        ({"hide_masked": True}, "--hide-masked True is not made for --state joint"),
        ({"self_conditioning": "random", "self_conditioning_on": "best"}, "--self-conditioning-on best"),
        ({"latents_start": 0}, "--latents-start is 0, but with --state joint"),
        ({"latents_source_drop": 0.1}, "--latents-source-drop"),
        ({"latents_contrast": 0.1, "latents_hide": 0.1}, "--latents-contrast"),
        ({"state": "tokens"}, "--objective latents is of latents that are made along with the words"),
        ({"state": "tokens", "objective": "elbo", "latents_own_time": True}, "--latents-own-time is of latents"),
    ],
)
def test_flags_of_training_that_are_refused(flags: dict[str, Any], words: str):
    with pytest.raises(UserError) as refused:
        build(**flags)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"draft": 0.5}, "--draft begins with words"),
        ({"complete": True}, "--complete begins with words"),
        ({"execution": "compile"}, "--execution compile is not made for --state joint"),
        ({"latents_steps": 3}, "--latents-steps is 3, but this model makes no latents before its words"),
    ],
)
def test_flags_of_decoding_that_are_refused(asked: dict[str, Any], words: str):
    with pytest.raises(UserError) as refused:
        decode(build(), **asked)
    assert words in str(refused.value)


def test_there_is_no_likelihood():
    with pytest.raises(UserError, match="latents"):
        LikelihoodScorer(build(), gaussians.DICTIONARY, 2, seed=1)


def test_each_is_of_tensors_and_of_pairs():
    one, pair = torch.ones(2), Joint(torch.ones(2), 2 * torch.ones(3))
    assert torch.equal(each(torch.neg, one), -one)
    found = each(torch.add, pair, Joint(torch.ones(2), torch.ones(3)))
    assert found.words.tolist() == [2, 2] and found.latents.tolist() == [3, 3, 3] and found.t is None
