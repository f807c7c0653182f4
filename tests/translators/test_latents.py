"""Latents beside the source: what words read, what the chain learns, and that each candidate has its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import blocks
import gaussians
import pytest
import torch
import torch.nn.functional as F
from gaussians import BOS, EOS, PAD, WORDS, encode, sources
from token_batches import TOKENS, batch
from torch import Tensor

from fairseq_diffusion.decoding.likelihood import LikelihoodScorer
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.batch import Candidates, LatentStep
from fairseq_diffusion.translators.latents import contrast

OF_TOKENS = {**TOKENS, "objective": "corrupted", "dropout": 0.0}
KINDS: dict[str, Any] = {
    "tokens": lambda **own: gaussians.build(**OF_TOKENS, **own),
    "vectors": lambda **own: gaussians.build(dropout=0.0, **own),
    "prefix": lambda **own: gaussians.build(dropout=0.0, conditioning="prefix", **own),
    **{kind: lambda kind=kind, **own: blocks.build(alignment=kind, seed=1, **own) for kind in blocks.ALIGNMENTS},
}
FEW = {"latents": 3, "latents_dim": 5, "latents_layers": 1}


def build(kind: str, **flags: Any) -> Any:
    return KINDS[kind](**{**FEW, **flags})


def losses(model: Any, update: int = 0) -> Any:
    source, target, keys = batch()
    return model.losses(source, source.ne(PAD), target, target.ne(PAD), keys, update)


def step(model: Any, update: int = 0) -> Any:
    source, target, keys = batch()
    return model.latent_step(model.encode(source, source.ne(PAD)), target, target.ne(PAD), keys, update)


@torch.no_grad()
def decode(model: Any, tokens: Tensor | None = None, noises: int = 1, **asked: Any) -> Candidates:
    """Candidates of one length each, in 2 steps; those of a sentence depend on it alone."""
    tokens = sources() if tokens is None else tokens
    source = encode(model, tokens)
    lengths = model.lengths(source, 1, "top_k")
    lengths = lengths._replace(width=int(lengths.positions.max()))
    keys = noise.sentence_keys(1, tokens, tokens.ne(PAD))[:, None, None]
    own = {"steps": 2, "sampler": model_sampler(model)} if model.name == "diffusion" else {}
    if model.name == "one-pass":
        own = {"path_search": model.path_search}
    options = model.Options(**{**own, "noise_beam": noises, "latents_steps": 3, **asked})
    return model.decoding(options)(source, lengths, noise.fold(keys, torch.arange(noises)))


def model_sampler(model: Any) -> str:
    return "ancestral" if model.state.family == "categorical" else "ddim"


# -- what words read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop", [0.0, 0.99])
def test_the_loss_of_words_reaches_the_encoder_of_targets(kind: str, drop: float):
    """But not that of sentences without latents: none of these three has any at 0.99."""
    model = build(kind, latents_drop=drop).train()
    (gradient,) = torch.autograd.grad(losses(model).total, model.latents.encoder.queries)
    assert bool(gradient.any()) == (drop == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_words_without_latents_are_those_of_a_model_without(kind: str):
    """In training, where all are dropped, and in decoding with none."""
    model, plain = build(kind, latents_drop=0.99), KINDS[kind]()
    plain.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("latents.")})
    ours, wanted = losses(model.train()), losses(plain.train())
    for name, share in wanted.terms.items():
        torch.testing.assert_close(ours.terms[name], share, rtol=1e-5, atol=1e-5)
    ours, wanted = decode(model.eval(), latents_steps=0), decode(plain.eval(), latents_steps=10)
    assert torch.equal(ours.tokens, wanted.tokens) and torch.equal(ours.calls, wanted.calls)
    torch.testing.assert_close(ours.scores, wanted.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_selection_of_sentences_keeps_its_latents(kind: str):
    model, (source, _, _) = build(kind), batch()
    u, present = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([True, False, True])
    encoded, rows = model.encode(source, source.ne(PAD)), torch.tensor([2, 0, 1, 1])
    ours = model.latents.beside(model, encoded, u, present).select(rows, 12)
    wanted = model.latents.beside(model, encoded.select(rows, 12), u[rows], present[rows])
    for one, other in zip(ours.memory, wanted.memory):
        seen = one.bias == 0
        assert torch.equal(one.bias, other.bias) and not seen[2, ..., -3:].any() and seen[0, ..., -3:].all()
        for x, y in ((one.keys, other.keys), (one.values, other.values)):
            real = seen[:, 0, 0, :, None].expand(len(rows), *x.shape[2:])
            torch.testing.assert_close(x.transpose(0, 1)[:, real], y.transpose(0, 1)[:, real])
    again = ours.select(torch.tensor([1]), 12)
    torch.testing.assert_close(again.memory[0].bias, ours.memory[0].bias[1:2])


def test_two_sentences_without_and_with_latents_are_read_apart():
    """The words of one do not depend on whether another has latents."""
    model = build("tokens", latents_drop=0.0)
    alone, together = losses(model.train()), None
    model.latents.how = replace(model.latents.how, drop=0.5)
    together = losses(model)
    source, _, keys = batch()
    kept = noise.uniform(noise.fold(noise.fold(keys, noise.Stream.LATENTS), 0), 1)[:, 0] >= 0.5
    same = torch.isclose(alone.terms["corrupted"], together.terms["corrupted"], rtol=1e-5)
    changes = alone.terms["corrupted"] > 0  # a sentence of which no word was hidden has no loss
    assert torch.equal(same[changes], kept[changes]) and not kept.all() and (kept & changes).any()


# -- how latents are learnt


def test_the_chain_has_no_gradient_into_the_encoder_of_targets():
    model = build("tokens").train()
    loss = step(model).losses["latents"].sum()
    own, of_encoder = model.latents.denoiser.parameters(), model.latents.encoder.parameters()
    assert all(gradient is None for gradient in torch.autograd.grad(loss, list(of_encoder), allow_unused=True))
    loss = step(model).losses["latents"].sum()
    assert any(gradient.any() for gradient in torch.autograd.grad(loss, list(own)))


def test_the_chain_is_learnt_from_an_update_on():
    """Before it, it has a loss of 0 and gradients of 0: ranks wait for gradients of all that they share."""
    model = build("tokens", latents_start=5).train()
    for update, learnt in ((0, False), (4, False), (5, True), (6, True)):
        model.zero_grad()
        found = losses(model, update)
        found.total.backward()
        gradients = [parameter.grad for parameter in model.latents.denoiser.parameters()]
        assert all(gradient is not None for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients) == bool(found.terms["latents"].any()) == learnt
    assert losses(model.eval(), 0).terms["latents"].all()  # what validation says is comparable


def test_the_chain_learns_the_mean_squared_error_of_its_estimate():
    """By a straight line: u_t = alpha u + sigma eps, and one estimate that is conditioned on another."""
    model = build("tokens", latents_prediction="v", latents_schedule="log_linear", latents_noise_factor=3.0).eval()
    latents, (source, _, keys) = model.latents, batch()
    found = step(model)
    own = noise.fold(noise.fold(keys, noise.Stream.LATENTS), 3)
    u, _ = latents.time_sampler(noise.fold(own, noise.Stream.TIME))
    odds = (1 - u) / u / 9
    alpha, sigma = ((x[:, None, None]).float() for x in ((odds / (1 + odds)).sqrt(), (1 / (1 + odds)).sqrt()))
    eps = noise.normal(noise.fold(own, noise.Stream.STATE), 3, 5)
    u_t, real = alpha * found.u + sigma * eps, torch.ones(3, 3, dtype=torch.bool)
    memory = latents.denoiser.memory(model.encode(source, source.ne(PAD)).states, source.ne(PAD))
    estimate = torch.zeros_like(u_t)
    for _ in range(2):
        estimate = alpha * u_t - sigma * latents.denoiser(u_t, estimate, u, real, memory)
    torch.testing.assert_close(
        found.losses["latents"], (estimate - found.u).square().mean((1, 2)), rtol=1e-4, atol=1e-5
    )


def test_latents_have_one_norm_or_a_penalty():
    """|u|^2 / 2 of the encoder's output, which then may be of any size."""
    bound, free = build("tokens"), build("tokens", latents_penalty=0.25)
    free.load_state_dict(bound.state_dict())
    one, other = step(bound.train()), step(free.train())
    torch.testing.assert_close(one.u.norm(dim=-1), torch.full((3, 3), 5**0.5))
    torch.testing.assert_close(F.normalize(other.u, dim=-1) * 5**0.5, one.u)
    torch.testing.assert_close(other.losses["latents_penalty"], other.u.square().sum((1, 2)) / 2)
    assert "latents_penalty" not in one.losses
    names = ("latents", "latents_penalty")
    assert other.weights == dict(zip(names, (1.0, 0.25))) and losses(free).terms.keys() > set(names)


def test_the_encoder_sees_a_share_of_the_words_in_training():
    """Each target's <s> always; all words in validation."""
    model = build("tokens", latents_hide=0.5)
    seen: list[Tensor] = []
    model.latents.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    target = torch.full((400, 10), 5)
    mask = torch.arange(10) < torch.tensor([10, 6])[:, None].repeat(200, 1)
    source, keys = torch.full((400, 2), BOS), torch.arange(400)
    encoded = model.encode(source, source.ne(PAD))
    for training in (True, False):
        model.train(training).latent_step(encoded, target, mask, keys, 0)
    in_training, in_validation = seen
    assert torch.equal(in_validation, mask) and in_training[:, 0].all() and not in_training[~mask].any()
    assert float(in_training[:, 1:][mask[:, 1:]].double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kind", ["tokens", "ctc"])
def test_a_hidden_word_is_not_a_word_that_is_not_there(kind: str):
    """Words behind it stay at their places; and what it was makes no difference."""
    encoder = build(kind).eval().latents.encoder
    whole, other, without = (
        torch.tensor([row]) for row in ([BOS, 5, 9, 6, EOS], [BOS, 5, 4, 6, EOS], [BOS, 5, 6, EOS])
    )
    real, seen = torch.ones(1, 5, dtype=torch.bool), torch.tensor([[True, True, False, True, True]])
    hidden = encoder(whole, real, seen)
    torch.testing.assert_close(encoder(other, real, seen), hidden)
    assert not torch.allclose(encoder(without, real[:, :4]), hidden) and not torch.allclose(
        encoder(whole, real), hidden
    )


def test_noise_on_latents_is_for_words_in_training_alone():
    plain, noisy = build("tokens", latents_drop=0.0), build("tokens", latents_noise=2.0, latents_drop=0.0)
    for training, same in ((True, False), (False, True)):
        one, other = (losses(model.train(training)).terms for model in (plain, noisy))
        assert torch.equal(one["corrupted"], other["corrupted"]) == same
        assert torch.equal(one["latents"], other["latents"])  # the chain learns latents without it


def test_contrast_is_the_probability_of_the_right_view():
    """By brute force, both ways round."""
    one, two = torch.randn(2, 4, 3, 5, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    a, b = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (one, two))
    wanted = []
    for i in range(4):
        there = torch.stack([(a[i] * b[j]).sum() / 0.1 for j in range(4)]).softmax(0)[i]
        back = torch.stack([(b[i] * a[j]).sum() / 0.1 for j in range(4)]).softmax(0)[i]
        wanted.append(-(there.log() + back.log()) / 2)
    torch.testing.assert_close(contrast(one, two), torch.stack(wanted))


def test_contrast_is_between_two_views():
    model = build("tokens", latents_contrast=0.5, latents_hide=0.5).train()
    found = step(model)
    assert found.weights["latents_contrast"] == 0.5 and (found.losses["latents_contrast"] > 1e-4).all()


def test_sentences_train_the_chain_without_their_source():
    """A share of them: their loss does not depend on it."""
    model = build("tokens", latents_source_drop=0.3).train()
    source, target, keys = batch()
    other = torch.where(source.ne(PAD) & source.ne(BOS), 4 + (source - 3) % (WORDS - 4), source)
    one, two = (model.latent_step(model.encode(x, x.ne(PAD)), target, target.ne(PAD), keys, 0) for x in (source, other))
    own = noise.fold(noise.fold(keys, noise.Stream.LATENTS), 3)
    dropped = noise.uniform(noise.fold(own, noise.Stream.SOURCE_DROP), 1)[:, 0] < 0.3
    assert torch.equal(torch.isclose(one.losses["latents"], two.losses["latents"], rtol=1e-6), dropped)
    assert 0 < int(dropped.sum()) < 3


@pytest.mark.parametrize("kind", ["tokens", "vectors", "length", "ctc", "dag"])
@torch.no_grad()
def test_validation_says_what_latents_are_worth(kind: str, monkeypatch: pytest.MonkeyPatch):
    """To a word: the target's own, and the mixture of four that the chain makes, once it has learnt for an update."""
    model, plain = build(kind, latents_start=4).eval(), KINDS[kind]().eval()
    plain.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("latents.")})
    source, target, keys = batch()
    encoded, present = model.encode(source, source.ne(PAD)), torch.ones(3, dtype=torch.bool)
    each = noise.fold(noise.fold(keys, noise.Stream.LATENTS)[:, None], torch.arange(4))
    made = model.latents.make(encoded, each, model.latents.course(10)).u
    words = target.ne(PAD).sum(-1) - (2 if model.name == "diffusion" and kind == "tokens" else 0)
    found = losses(model, 5).means
    share = words if kind == "tokens" else torch.ones(3)  # others are means over words
    costs = []
    for u in (step(model).u, *made.unbind(1)):
        given = LatentStep(model.latents.beside(model, encoded, u, present), u)
        with monkeypatch.context() as patched:
            patched.setattr(model.latents, "step", lambda *_, given=given: given)
            costs.append((of_words(model) / share).double())
    without = (of_words(plain) / share).double()
    mixed = -torch.stack([(-words * cost).exp() for cost in costs[1:]]).mean(0).log() / words
    for name, cost in (("latents_gain", costs[0]), ("latents_made_gain", mixed)):
        torch.testing.assert_close(found[name].total.double(), (without - cost).sum(), rtol=1e-3, atol=1e-4)
        assert int(found[name].number) == 3
    assert "latents_made_gain" not in losses(model, 4).means
    assert "latents_gain" not in losses(build(kind, latents_drop=0.0).eval(), 5).means
    of_validation = {"latents_gain", "latents_made_gain", "length_exact", "length_off"}
    assert found.keys() - of_validation == losses(model.train(), 5).means.keys()


def of_words(model: Any) -> Tensor:
    """The loss of words, [B]."""
    found = losses(model, 5).terms
    return torch.stack([loss for name, loss in found.items() if name != "length"]).sum(0)


# -- decoding


@pytest.mark.parametrize("kind", KINDS)
def test_each_candidate_has_latents_of_its_own(kind: str):
    """So candidates differ, of one-pass models too; and the calls of both chains are counted."""
    model = build(kind)
    found = decode(model, noises=3)
    assert found.tokens.shape[:2] == (len(sources()), 3)
    assert (found.calls >= 3 + (1 if model.name == "one-pass" else 0)).all()
    if kind not in ("tokens", "dag"):  # where a step that changes nothing takes no call
        assert (found.calls == 3 + (1 if model.name == "one-pass" else 2)).all()
    assert any(not torch.equal(found.scores[:, 0], found.scores[:, i]) for i in (1, 2))
    assert (found.length_rank == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_translation_does_not_depend_on_its_batch(kind: str):
    model = build(kind)
    together = decode(model, noises=2)
    for number in (0, 2, 6):
        alone = decode(model, sources()[number : number + 1], noises=2)
        for candidate in range(2):
            size = int(alone.sizes[0, candidate])
            assert size == together.sizes[number, candidate]
            words = (found.tokens[i, candidate, :size] for found, i in ((alone, 0), (together, number)))
            assert torch.equal(*words)
        torch.testing.assert_close(alone.scores[0], together.scores[number], rtol=1e-4, atol=1e-5)


def test_several_lengths_have_their_ranks():
    model = build("tokens")
    tokens = sources()
    source = encode(model, tokens)
    lengths = model.lengths(source, 3, "top_k")
    lengths = lengths._replace(width=int(lengths.positions.max()))
    keys = noise.fold(torch.arange(len(tokens))[:, None, None], lengths.positions[:, :, None], torch.arange(2))
    options = model.Options(steps=2, sampler="ancestral", noise_beam=2, length_beam=3, latents_steps=2)
    found = model.decoding(options)(source, lengths, keys)
    assert found.length_rank[0].tolist() == [0, 0, 1, 1, 2, 2]
    each = lengths.log_p.repeat_interleave(2, 1)
    words = found.scores * (found.sizes + 1)
    torch.testing.assert_close(found.joint * (found.sizes + 1), words + each.double())


def test_guidance_is_away_from_latents_without_a_source():
    """x = u + w (x - u): twice the calls, and with w = 1 and w = 0 the two estimates alone."""
    model = build("tokens", latents_source_drop=0.1)
    source, keys = encode(model, sources()), torch.arange(len(sources()))[:, None]
    one, two, none = (model.latents.make(source, keys, model.latents.course(1), w) for w in (1.0, 2.0, 0.0))
    assert (one.calls == 1).all() and (two.calls == 2).all()
    null = model.latents.without_source(model.latents.read(source.states, source.mask))
    u_T = model.latents.state.prior(keys, torch.ones(*keys.shape, 3, dtype=torch.bool), top_level(model))
    alone = model.latents.denoise(
        u_T.flatten(0, 1), torch.ones(1), torch.zeros_like(u_T.flatten(0, 1)), torch.ones(len(keys), 3).bool(), null
    )
    torch.testing.assert_close(none.u[:, 0], model.latents.encoder.normalised(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.u, two.u)


def top_level(model: Any) -> Any:
    from fairseq_diffusion.samplers.grid import make_grid

    return make_grid(model.latents.schedule, 1).level[0]


def test_made_latents_are_as_their_encoder_could_have_made_them():
    model = build("tokens")
    made = model.latents.make(encode(model, sources()), torch.arange(len(sources()))[:, None], model.latents.course(4))
    torch.testing.assert_close(made.u.norm(dim=-1), torch.full((len(sources()), 1, 3), 5**0.5))


def test_a_history_has_all_candidates():
    model, steps = build("tokens"), []
    tokens = sources()
    source, keys = encode(model, tokens), torch.arange(len(tokens))[:, None, None] + torch.arange(2)
    lengths = model.lengths(source, 1, "top_k")
    lengths = lengths._replace(width=int(lengths.positions.max()))
    options = model.Options(steps=2, sampler="ancestral", noise_beam=2, latents_steps=2)
    found = model.decoding(options)(source, lengths, keys, steps.append)
    assert len(steps) == 2 and all(step.tokens.shape[:2] == (len(tokens), 2) for step in steps)
    sizes = steps[-1].sizes
    assert torch.equal(sizes, lengths.positions.expand(-1, 2)) and found.tokens.shape[2] <= int(sizes.max())


def test_guidance_of_words_keeps_their_latents():
    """The estimate without a source, as in training, where the source alone is dropped."""
    model = build("tokens", source_drop=0.2)
    source = encode(model, sources())
    u, present = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1)), torch.ones(7, dtype=torch.bool)
    dropped = model.read(source.states, source.mask, present)
    wanted = model.latents.beside(model, dropped, u, present)
    found = model.without_source(model.latents.beside(model, source, u, present))
    for one, other in zip(found.memory, wanted.memory):
        for x, y in zip(one, other):
            assert torch.equal(x, y)
    assert torch.equal(
        found.select(torch.tensor([2])).memory[0].keys[..., -3:, :], found.memory[0].keys[2:3, ..., -3:, :]
    )
    assert not torch.allclose(decode(model, guidance=2.0).scores, decode(model).scores)


# -- what is refused


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"latents": -1}, "--latents is -1"),
        ({"latents": 3, "latents_dim": 0}, "--latents-dim is 0"),
        ({"latents": 3, "latents_drop": 1.0}, "--latents-drop is 1.0"),
        ({"latents": 3, "latents_hide": -0.1}, "--latents-hide is -0.1"),
        ({"latents": 3, "latents_noise": float("nan")}, "--latents-noise is nan"),
        ({"latents": 3, "latents_loss": 0.0}, "--latents-loss is 0"),
        ({"latents": 3, "latents_contrast": 0.1}, "--latents-hide 0.3"),
        ({"latents": 3, "latents_objective": "mse,rounding"}, "--latents-objective has rounding, which is of words"),
        ({"latents": 3, "latents_objective": "elbo"}, "--latents-objective has elbo, which is of words"),
        ({"latents": 3, "latents_objective": "hinge"}, "--latents-objective has the unknown term 'hinge'"),
        ({"latents": 3, "latents_noise_factor": 0.0}, "the noise factor is 0.0"),
    ],
)
def test_flags_of_training_that_are_refused(flags: dict[str, Any], words: str):
    for kind in ("tokens", "ctc"):
        with pytest.raises(UserError) as refused:
            KINDS[kind](**flags)
        assert words in str(refused.value)


@pytest.mark.parametrize(
    "flags, asked, words",
    [
        (
            {"latents": 0},
            {"latents_steps": 5},
            "--latents-steps is 5, but this model makes no latents before its words",
        ),
        ({"latents": 0}, {"latents_steps": 10, "latents_guidance": 2.0}, "--latents-guidance is 2.0"),
        ({}, {"latents_guidance": 2.0}, "--latents-guidance needs a model trained with --latents-source-drop"),
        ({}, {"latents_steps": -1}, "--latents-steps is -1"),
        ({"latents_drop": 0.0}, {"latents_steps": 0}, "never trained so (--latents-drop 0)"),
        (
            {"latents_source_drop": 0.1},
            {"latents_steps": 0, "latents_guidance": 2.0},
            "--latents-steps 0 makes no latents",
        ),
        ({}, {"prune_after": "1", "noises": 2}, "--prune-after compares candidates"),
    ],
)
def test_flags_of_decoding_that_are_refused(flags: dict[str, Any], asked: dict[str, Any], words: str):
    with pytest.raises(UserError) as refused:
        decode(build("tokens", **flags), **asked)
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", ["tokens", "ctc"])
def test_there_is_no_likelihood(kind: str):
    with pytest.raises(UserError, match="latents"):
        LikelihoodScorer(build(kind), gaussians.DICTIONARY, 2, seed=1)


def test_there_is_no_progressive_distillation():
    with pytest.raises(UserError, match="cannot be a student"):
        build("vectors").set_teacher(None)
