"""The parts together: sources left out in training, sources chosen, and the losses.  torch only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from gaussians import BOS, EOS, build
from token_batches import TOKENS

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder, SharedWords, own_words
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.objective.terms import Objective, Outcome
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.samplers.halving import Halving
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.translators.batch import Losses, Source
from fairseq_diffusion.translators.diffusion import DiffusionTranslator
from fairseq_diffusion.translators.distillation import DistillationTargets

PAD, WORDS, DIM, HIDDEN = 1, 20, 4, 16
SOURCES = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, PAD, PAD], [12, 13, PAD, PAD, PAD]])


def make(
    source_drop: float = 0.0, modifier: str = "none", factor: float = 1.0, share: bool = False
) -> DiffusionTranslator:
    torch.manual_seed(0)
    size, state = Size(HIDDEN, 32, 2), EmbeddingState(WORDS, DIM)
    translator = DiffusionTranslator(
        encoder=Encoder(SharedWords(state, HIDDEN) if share else own_words(WORDS, HIDDEN), size, 1, 40),
        denoiser=Denoiser(state, size, 2, 40),
        state=state,
        schedule=Schedule("sigma_t", modifier, factor),
        length=LengthHead(HIDDEN, 16, "difference", True, 30),
        prediction=PREDICTIONS["x_0"],
        objective=Objective("mse,anchor"),
        time_sampler=TIME_SAMPLERS["uniform"](),
        source_drop=source_drop,
    )
    if translator.null is not None:
        torch.nn.init.normal_(translator.null)
    return translator


def encode(
    translator: DiffusionTranslator, tokens: torch.Tensor = SOURCES, dropped: list[bool] | None = None
) -> Source:
    return translator.encode(tokens, tokens.ne(PAD), None if dropped is None else torch.tensor(dropped))


def estimate(translator: DiffusionTranslator, source: Source) -> torch.Tensor:
    """x_0-hat of the same noisy state for every sentence."""
    count = len(source.mask)
    x = torch.linspace(-1, 1, 6 * DIM).view(1, 6, DIM).expand(count, -1, -1)
    return translator.denoise(x, torch.full((count,), 0.6), 0 * x, torch.ones(count, 6).bool(), source)


def test_dropped_sources_leave_no_trace():
    translator = make(0.3)
    full, partial = encode(translator), encode(translator, dropped=[False, True, False])
    other = SOURCES.clone()
    other[1] = torch.tensor([14, 15, 16, 17, 18])  # longer, too
    changed = encode(translator, other, dropped=[False, True, False])
    one, two, three = (estimate(translator, source) for source in (full, partial, changed))
    assert torch.equal(two, three)
    assert torch.allclose(one[[0, 2]], two[[0, 2]], atol=1e-6)
    assert not torch.allclose(one[1], two[1], atol=1e-3)


def test_without_source_every_source_is_dropped_whatever_its_width():
    translator = make(0.3)
    dropped, without = encode(translator, dropped=[True] * 3), translator.without_source(encode(translator))
    alone = estimate(translator, translator.without_source(encode(translator, SOURCES[2:, :2])))
    assert torch.equal(estimate(translator, without), estimate(translator, dropped))
    assert torch.allclose(estimate(translator, without), alone.expand(3, -1, -1), atol=1e-6)
    shapes = [[memory.keys.shape for memory in source.memory] for source in (without, encode(translator))]
    assert shapes[0] == shapes[1]


def test_the_length_head_sees_dropped_sources():
    translator, mask = make(0.3), torch.ones(3, 6).bool()
    full, dropped = encode(translator), encode(translator, dropped=[True] * 3)
    assert torch.equal(full.states, dropped.states) and torch.equal(full.mask, dropped.mask)
    whole, left = (translator.length_loss(source, mask)[0]["length"] for source in (full, dropped))
    assert torch.equal(whole, left)


def test_sources_are_dropped_with_their_probability_whatever_the_batch():
    translator, keys = make(0.3), torch.arange(4000) * 7919
    dropped = translator.dropped(keys)
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.03)
    order = torch.randperm(4000)
    assert torch.equal(translator.dropped(keys[order]), dropped[order])
    assert torch.equal(translator.dropped(keys[:3]), dropped[:3])


def test_nothing_is_dropped_in_validation_or_by_default():
    keys = torch.arange(50)
    assert make(0.9).eval().dropped(keys) is None
    assert make().dropped(keys) is None
    assert "null" not in make().state_dict() and make(0.1).state_dict()["null"].shape == (HIDDEN,)


def test_the_null_vector_learns_even_where_no_one_was_dropped():
    """A gradient of zeros, not none: ranks must agree on which parameters have one."""
    translator = make(0.3)
    for dropped, learns in (([True, False, False], True), ([False] * 3, False)):
        translator.zero_grad()
        estimate(translator, encode(translator, dropped=dropped)).square().sum().backward()
        assert (translator.null.grad.abs().sum() > 0) == learns


def test_guidance_without_source_drop_is_explained():
    translator = make()
    with pytest.raises(UserError, match="--guidance needs a model trained with --source-drop, for example 0.1"):
        translator.without_source(encode(translator))


def test_selected_sources_are_those_of_the_sentences():
    translator, chosen = make(), torch.tensor([2, 0])
    source = encode(translator)
    selected = source.select(chosen)
    assert torch.equal(selected.length, torch.tensor([2, 5]))
    assert torch.equal(selected.states, source.states[chosen])
    assert torch.allclose(estimate(translator, selected), estimate(translator, source)[chosen], atol=1e-6)


def losses(translator: DiffusionTranslator, target: torch.Tensor, keys: torch.Tensor, update: int = 0) -> Losses:
    """Of targets that are their own sources."""
    return translator.losses(target, target.ne(PAD), target, target.ne(PAD), keys, update)


@pytest.mark.parametrize("modifier, factor", [("none", 1.0), ("factor", 4.0), ("factor_vp", 4.0)])
def test_errors_are_logged_by_the_share_of_noise(modifier: str, factor: float):
    """sigma / sqrt(alpha^2 + sigma^2): the same for a noise factor at unit variance or not."""
    translator, keys = make(modifier=modifier, factor=factor), torch.arange(200)
    found = losses(translator, torch.full((200, 2), 5), keys)
    u, _ = translator.time_sampler(noise.fold(keys, Stream.TIME))
    t = translator.schedule.training_time(u)
    tau = factor * t / (1 - t.square()).sqrt()
    expected = (10 * tau / (1 + tau.square()).sqrt()).long().bincount(minlength=10)
    means = [found.means[f"mse_noise_{i}0"] for i in range(10)]
    assert [int(mean.number) for mean in means] == expected.tolist()
    assert all((mean.total > 0) == (mean.number > 0) for mean in means)


def test_random_self_conditioning_has_a_second_pass_in_some_updates_for_all_sentences():
    """In validation always: its losses do not depend on the update."""
    translator, calls = make(), []
    translator.self_conditioning = "random"
    translator.denoiser.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))

    def passes(sentence: int, update: int) -> list[bool]:
        calls.clear()
        losses(translator, SOURCES[sentence : sentence + 1], torch.tensor([sentence]), update)
        return [*calls]

    one, other = ([passes(sentence, update) for update in range(40)] for sentence in (0, 1))
    assert one == other and 10 < one.count([False, True]) < 30 and one.count([True]) == 40 - one.count([False, True])
    translator.eval()
    assert [passes(0, update) for update in range(5)] == [[False, True]] * 5


@pytest.mark.parametrize("flags", [{}, {**TOKENS, "objective": "corrupted"}], ids=["vectors", "words"])
@pytest.mark.parametrize("steps", [0, 20])
def test_a_first_pass_may_see_more_of_the_same_noise(flags, steps, monkeypatch):
    """At min(t + gap, 1), a time of the table if there is one; a word that is noise in the second is in the first."""
    flags = {**flags, "self_conditioning": "random", "self_conditioning_gap": 0.2, "diffusion_steps": steps}
    translator, asked = build(**flags), []
    denoise = translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: asked.append(args) or denoise(*args))
    target, keys = torch.tensor([[BOS, 5, 6, 7, 8, EOS]]).expand(50, -1), torch.arange(50)
    translator.losses(target, target.ne(PAD), target, target.ne(PAD), keys, 0)
    (more, t_1, *_), (s_t, t, c, mask, _) = asked
    torch.testing.assert_close(t_1, (t + 0.2).clamp(max=1))
    assert (t_1 == 1).any() and (t_1 < 1).any()
    state, own = translator.state, noise.fold(keys, Stream.STATE)
    level = translator.schedule.level(t_1[:, None])
    torch.testing.assert_close(more, state.corrupt(state.encode(target), level, own, mask))
    torch.testing.assert_close(c, denoise(*asked[0]))
    if flags.get("state"):
        assert ((more == WORDS) >= (s_t == WORDS)).all() and ((more == WORDS) > (s_t == WORDS)).any()


def outcomes(translator: DiffusionTranslator, monkeypatch: pytest.MonkeyPatch, count: int = 300) -> Outcome:
    """What a training step of as many targets has produced."""
    seen, terms = [], translator.objective.terms
    monkeypatch.setattr(translator.objective, "terms", lambda outcome, due: seen.append(outcome) or terms(outcome, due))
    target = torch.tensor([[BOS, 5, 6, 7, 8, EOS]]).expand(count, -1)
    translator.train().losses(target, target.ne(PAD), target, target.ne(PAD), torch.arange(count), 0)
    return seen[0]


def test_losses_are_weighted_back_where_times_are_drawn_to_estimate_them_better(monkeypatch):
    """The mean over times stays, and what the time sampler and the schedule observe has no weight."""
    plaid = {"schedule": "log_snr", "prediction": "posterior", "objective": "snr_mse,reconstruction"}
    translator = build(**plaid, schedule_modifier="least_variance", time_sampler="second_moment")
    modifier, u = translator.schedule.modifier, torch.linspace(0, 1, 101).double()
    modifier.knots.copy_(u.square())
    seen: list[torch.Tensor] = []
    for part in (modifier, translator.time_sampler):
        monkeypatch.setattr(part, "observe", lambda *args: seen.append(args[1]))
    o = outcomes(translator, monkeypatch)
    slope = 1 / (100 * u.square().diff())  # dt / du
    k = (torch.searchsorted(modifier.knots, o.u, right=True) - 1).clamp(0, 99)
    torch.testing.assert_close(o.weight, slope[k])
    assert o.weight.max() > 2 * o.weight.min()
    each = translator.objective.each(translator.objective.terms(o, o.tokens.ne(PAD)), o.tokens.ne(PAD))
    torch.testing.assert_close(seen[1], each / o.weight)  # of the modifier, by time
    torch.testing.assert_close(seen[0], each.double())  # of the sampler, by u


def test_noisy_vectors_are_corrupted_and_estimated(monkeypatch):
    translator = build(embedding_noise=0.5)
    o = outcomes(translator, monkeypatch)
    state, keys = translator.state, torch.arange(300)
    expected = state.draw(o.tokens, keys)
    assert torch.equal(o.drawn, expected) and torch.equal(o.s_0, expected)
    assert abs((expected - state.encode(o.tokens)).std() - 0.5) < 0.02
    s_t = state.corrupt(expected, o.level, noise.fold(keys, Stream.STATE), o.tokens.ne(PAD))
    assert torch.equal(o.s_t, s_t)


def test_blanks_are_part_of_targets_and_of_no_translation(monkeypatch):
    blank = WORDS  # the symbol behind the dictionary's
    translator = build(canvas_blanks=0.4, length_target="canvas", canvas_positions=12)
    tokens = outcomes(translator, monkeypatch).tokens
    assert 0.25 < (tokens == blank).sum() / (300 * 5) < 0.5
    assert blank in translator.special_ids
    state = translator.state
    assert torch.equal(state.round(state.encode(tokens))[0], tokens)  # a blank has a vector like any word


@pytest.mark.parametrize("steps", [0, 20])
def test_words_may_be_corrupted_at_times_of_their_own(steps, monkeypatch):
    """In an interval around that of the sentence, which the network sees, and inside of time."""
    translator, asked = build(word_time_spread=0.4, diffusion_steps=steps, self_conditioning="none"), []
    denoise = translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: asked.append(args) or denoise(*args))
    target, keys = torch.tensor([[BOS, 5, 6, 7, 8, EOS]]).expand(400, -1), torch.arange(400)
    found = translator.losses(target, target.ne(PAD), target, target.ne(PAD), keys, 0)
    ((s_t, t, _, mask, _),) = asked
    own = noise.fold(keys, Stream.STATE)
    table = torch.linspace(0, 1, 2001 if not steps else steps + 1).double()
    levels = translator.schedule.level(table[:, None])
    each = torch.stack(
        [
            translator.state.corrupt(translator.state.encode(target), level, own, mask)
            for level in map(levels.__getitem__, range(len(table)))
        ]
    )
    at = table[(each - s_t).square().sum(-1).argmin(0)]  # the time of each word
    off = at - t[:, None]
    assert off.abs().max() <= 0.2 + 1.01 * (0.5 / steps if steps else 1 / 2000) and off.std() > 0.08
    assert (off.std(-1) > 0).float().mean() > 0.95  # words differ within a sentence
    inside = (t > 0.25) & (t < 0.75)
    assert off[inside].mean().abs() < 0.02 and sum(mean.number for mean in found.means.values()) > 0


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"word_time_spread": -0.1}, "--word-time-spread is -0.1"),
        ({"prediction": "v"}, "but --prediction v takes a sentence to have one"),
        ({"schedule_modifier": "position"}, "but --schedule-modifier position"),
        ({**TOKENS, "objective": "corrupted"}, "--word-time-spread 0.1 has no meaning"),
    ],
)
def test_times_of_the_words_own_need_levels_of_their_own(flags, said):
    with pytest.raises(UserError, match=said):
        build(**{"word_time_spread": 0.1, **flags})


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"self_conditioning": "none"}, "--self-conditioning-gap 0.1 is for a first pass"),
        ({**TOKENS, "self_conditioning": "both", "objective": "corrupted"}, "is for a first pass"),
        ({"self_conditioning_gap": 1.0}, "--self-conditioning-gap is 1.0"),
    ],
)
def test_a_gap_needs_a_first_pass_without_a_loss_of_its_level(flags, said):
    with pytest.raises(UserError, match=said):
        build(**{"self_conditioning_gap": 0.1, **flags})


@pytest.mark.parametrize("flags", [{}, {**TOKENS, "objective": "corrupted"}], ids=["vectors", "words"])
@pytest.mark.parametrize("on", ["expected", "best"])
@pytest.mark.parametrize("self_conditioning", ["random", "both"])
def test_a_pass_may_be_conditioned_on_words(flags, on, self_conditioning, monkeypatch):
    """On their mean vector or the best one's, but on nothing where there is no estimate yet; without a gradient."""
    translator = build(**{**flags, "self_conditioning": self_conditioning, "self_conditioning_on": on})
    state, read, made = translator.state, [], []
    translator.denoiser.register_forward_hook(lambda _, args, out: made.append(out))
    translator.denoiser.register_forward_pre_hook(lambda _, args: read.append(args[1]))
    target = torch.tensor([[BOS, 5, 6, 7, 8, EOS]])
    translator.losses(target, target.ne(PAD), target, target.ne(PAD), torch.arange(1), 3).total.backward()
    p = (made[0].detach() @ state.readout().T).softmax(-1)
    wanted = p @ state.table()[: p.shape[-1]] if on == "expected" else state.clamp(made[0].detach())
    assert len(read) == 2 and (read[0] == 0).all()
    torch.testing.assert_close(read[1], wanted, atol=1e-5, rtol=1e-5)
    assert not read[1].requires_grad


@pytest.mark.parametrize("self_conditioning", ["random", "both"])
def test_where_words_are_expected_the_second_pass_is_conditioned_on_their_mean(self_conditioning):
    flags = {"prediction": "expected", "objective": "anchor=1", "self_conditioning": self_conditioning}
    translator, read, made = build(**flags), [], []
    translator.denoiser.register_forward_hook(lambda _, args, out: made.append(out))
    translator.denoiser.register_forward_pre_hook(lambda _, args: read.append(args[1]))
    target = torch.tensor([[BOS, 5, 6, 7, 8, EOS]])
    found = translator.losses(target, target.ne(PAD), target, target.ne(PAD), torch.arange(1), 3)
    torch.testing.assert_close(read[1], translator.state.expected(made[0].detach()))
    assert not read[1].requires_grad and not any(name.startswith("mse") for name in found.means)


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"self_conditioning_on": "best", "self_conditioning": "none"}, "has no meaning with --self-conditioning none"),
        (
            {"self_conditioning_on": "best", "prediction": "expected", "objective": "anchor"},
            "drop --self-conditioning-on best",
        ),
        ({"soft_absorb": 1.5}, "--soft-absorb is 1.5; pass a probability"),
        ({"objective": "mse=1,anchor=1,center=0.1"}, "which --soft-absorb 0 has not"),
        ({"soft_absorb": 0.5, "prediction": "v"}, "takes noise to be around 0"),
        ({**TOKENS, "objective": "corrupted", "soft_absorb": 0.5}, "--soft-absorb 0.5 has no meaning"),
        (
            {**TOKENS, "objective": "corrupted", "hide_masked": True, "conditioning": "prefix"},
            "where both are one stack, drop it",
        ),
        ({"prediction": "posterior", "embedding_norm": "layer"}, "where all vectors have one norm"),
        ({"prediction": "expected", "objective": "rounding=1"}, "which nothing in --objective rounding=1 trains"),
        ({"prediction": "expected", "objective": "rounding=1,mse=0"}, "which nothing in --objective"),
        (
            {**TOKENS, "objective": "corrupted", "prediction": "expected"},
            "--prediction expected is for gaussian states",
        ),
    ],
)
def test_estimates_and_conditions_that_do_not_go_together_are_refused(flags, said):
    with pytest.raises(UserError, match=said):
        build(**flags)


@pytest.mark.parametrize("modifier", ["warp", "position"])
@pytest.mark.parametrize("canvas", [{}, {"length_target": "canvas", "canvas_positions": 9}], ids=["length", "canvas"])
def test_a_schedule_sees_what_the_times_drawn_have_cost(modifier, canvas):
    """The loss of each sentence, or the error of each of its own tokens; in training alone, and without a gradient."""
    translator = build(schedule_modifier=modifier, objective="anchor=1,mse=0", self_conditioning="none", **canvas)
    target, keys = torch.tensor([[BOS, 5, 6, 7, 8, EOS], [BOS, 9, EOS, PAD, PAD, PAD]]), torch.arange(2)
    mask, made = target.ne(PAD), translator.schedule.modifier
    translator.losses(target, mask, target, mask, keys, 1)
    assert not made.count.any()
    translator.train()
    outcomes, terms = [], translator.objective.terms
    translator.objective.terms = lambda outcome, due: outcomes.append(outcome) or terms(outcome, due)
    found = translator.losses(target, mask, target, mask, keys, 1)
    found.total.backward()
    (outcome,) = outcomes
    bins = (outcome.t[:, 0] * 100).ceil().long() - 1
    if modifier == "warp":
        assert made.count.sum() == 2
        torch.testing.assert_close(made.total[bins], found.terms["anchor"].double())
    else:
        error = (outcome.estimates[0] - outcome.s_0).square().mean(-1)
        assert made.count.sum() == 9 and [int(made.count[k].sum()) for k in bins] == [6, 3]
        for row, (k, length) in enumerate(zip(bins, (6, 3))):
            torch.testing.assert_close(made.total[k, :length], error[row, :length].double())
    assert not any(buffer.requires_grad for buffer in made.buffers())


def test_the_norm_of_the_vector_that_absorbs_is_a_loss():
    translator = build(soft_absorb=0.5, objective="anchor=1,center=0.01").train()
    target = torch.tensor([[BOS, 5, 6, 7, 8, EOS]])
    found = translator.losses(target, target.ne(PAD), target, target.ne(PAD), torch.arange(1), 1)
    torch.testing.assert_close(found.terms["center"], translator.state.center.detach().norm()[None])
    found.total.backward()
    assert translator.state.center.grad.any()


def test_the_warp_changes_the_times_and_nothing_else(monkeypatch):
    """At the same times the network has the same gradient."""
    target, keys = torch.tensor([[BOS, 5, 6, 7, 8, EOS]]), torch.arange(1)

    def gradients(modifier: str, at: torch.Tensor | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        translator = build(schedule_modifier=modifier, objective="anchor=1", prediction="expected").train()
        if modifier == "warp":
            t = torch.linspace(0.001, 1, 1000).double()
            translator.schedule.modifier.observe(t, t**3, None, t[:, None] > 0)
            translator.adapt(0)
        drawn = translator.schedule.training_time(translator.time_sampler(noise.fold(keys, Stream.TIME))[0])
        if at is not None:
            monkeypatch.setattr(translator.schedule, "training_time", lambda u: at)
        translator.losses(target, target.ne(PAD), target, target.ne(PAD), keys, 1).total.backward()
        return drawn, [parameter.grad for parameter in translator.parameters() if parameter.grad is not None]

    t, warped = gradients("warp", None)
    own, plain = gradients("none", t)
    assert (own - t).abs() > 0.05 and all(map(torch.equal, warped, plain)) and len(warped) == len(plain) > 10


def test_a_schedule_is_left_as_it_is_where_only_lengths_are_learnt():
    for modifier in ("warp", "position"):
        translator = build(schedule_modifier=modifier, length_training="only").train()
        before = {name: buffer.clone() for name, buffer in translator.schedule.named_buffers()}
        for update in range(0, 600, translator.adapt_every):
            translator.adapt(update)
        assert all(torch.equal(buffer, before[name]) for name, buffer in translator.schedule.named_buffers())


@pytest.mark.parametrize("steps, calls", [(1, 2), (3, 3)])
def test_a_student_whose_estimates_are_its_teachers_has_nothing_to_learn(steps: int, calls: int):
    """Its words cost as ever; in one step, decoding conditions on nothing, and nothing is asked for it."""
    translator, keys, asked = make(0.5), torch.arange(3), []
    translator.self_conditioning, translator.self_conditioning_p = "random", 0.0
    target, dropped = SOURCES[:, :3], translator.dropped(keys)
    mask, source = target.ne(PAD), encode(translator, SOURCES[:, :3], dropped.tolist())
    assert dropped.any() and not dropped.all()

    def denoise(x_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor, mask: torch.Tensor, seen: Source) -> torch.Tensor:
        """Whatever the teacher is asked later, the student's estimate for the first question."""
        asked.append((x_t, t, c, mask, seen))
        return translator.denoise(*asked[0])

    teacher = SimpleNamespace(encode=translator.encode, denoise=denoise)
    halving = Halving(translator.schedule, steps)
    translator.set_teacher(DistillationTargets(halving, teacher, Objective("mse=1,anchor=1")))
    found = losses(translator, target, keys)
    words = translator.state.nll(translator.denoise(*asked[0][:4], source), target)
    assert torch.equal(found.terms["mse"], torch.zeros(3))
    assert sum(mean.total for name, mean in found.means.items() if name.startswith("mse")) == 0
    torch.testing.assert_close(found.terms["anchor"], (words * mask).sum(-1) / mask.sum(-1))
    assert len(asked) == calls and (asked[0][2] == 0).all()


def test_a_shared_table_learns_from_both_sides():
    translator, weight = make(share=True), lambda: translator.state.weight.grad.clone()
    target = torch.tensor([[4, 15]])

    def gradient(source_counts: bool, target_counts: bool) -> torch.Tensor:
        translator.zero_grad()
        source, x_0 = encode(translator), translator.state.encode(target)
        (source_counts * source.states[..., 0].sum() + target_counts * x_0[..., 0].sum()).backward()
        return weight()

    from_source, from_target = gradient(True, False), gradient(False, True)
    torch.testing.assert_close(gradient(True, True), from_source + from_target)
    moved = [set(g.abs().sum(-1).nonzero()[:, 0].tolist()) for g in (from_source, from_target)]
    assert moved == [{PAD, *range(4, 14)}, {4, 15}]
