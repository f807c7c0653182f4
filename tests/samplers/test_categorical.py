"""Samplers of words against an oracle, by counts, and by the frequencies of the process they invert."""

import math
from dataclasses import dataclass, field
from typing import Any, Callable

import pytest
import torch
from gaussians import BOS, EOS, PAD, UNK, WORDS, build, encode, sources
from host_looks import HostLooks

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.log_probs import linear_cross_entropy
from fairseq_diffusion.kernels.rounding import ALL, Truncation
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.confidence import Confidence
from fairseq_diffusion.samplers.grid import GRIDS, make_grid
from fairseq_diffusion.samplers.loop import SAMPLERS, Drawing, sample
from fairseq_diffusion.states import base
from fairseq_diffusion.states.tokens import TokenState
from fairseq_diffusion.translators.batch import Draft, Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

MASK, L = WORDS, 9
CATEGORICAL = [name for name in SAMPLERS if SAMPLERS[name].family == "categorical"]
KNOWN = ["ancestral", "confidence", "purity", "remasking"]  # whose busy steps are known, where words are hidden
BY_CONFIDENCE = [name for name in CATEGORICAL if isinstance(SAMPLERS[name], Confidence) and name != "purity"]
SHARES = (0.0, 0.5, 1.0)


def goes(name: str, share: float) -> bool:
    """Whether a sampler goes with a model of this mask share."""
    return not (SAMPLERS[name].needs_hidden and share < 1 or SAMPLERS[name].needs_replaced and share == 1)


SCHEDULE = Schedule("log_linear")
WORDS_ONLY = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "objective": "corrupted"}
REAL = torch.arange(L) < torch.tensor([9, 4, 6])[:, None, None].expand(3, 2, 1)  # [3, 2, L]
TRUTH = torch.randint(4, WORDS, REAL.shape, generator=torch.Generator().manual_seed(1))


def state(share: float = 1.0) -> TokenState:
    """One whose words are as many directions, so that an estimate is one of them, or some of each."""
    hides = share > 0
    s = TokenState(WORDS + hides, WORDS + hides, Symbols(BOS, PAD, EOS, MASK if hides else -1, UNK), share)
    with torch.no_grad():
        s.weight.copy_(torch.eye(WORDS + hides))
    return s


@dataclass
class Words:
    """Sentences whose estimates are a function (s_t, call number) -> log-probabilities [3, 2, L, WORDS]."""

    estimate: Callable
    state: TokenState = field(default_factory=state)
    mask: torch.Tensor = field(default_factory=lambda: REAL)
    seed: int = 0
    seen: list[torch.Tensor] = field(default_factory=list)

    @property
    def keys(self) -> torch.Tensor:
        return noise.fold(torch.arange(6).view(3, 2), torch.arange(60).view(-1, 1, 1), self.seed)

    @property
    def free(self) -> torch.Tensor:
        return self.state.free(self.mask)

    def settle(self, estimate: torch.Tensor) -> torch.Tensor:
        return estimate

    def denoise(self, s_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        self.seen.append(s_t)
        found = self.estimate(s_t, len(self.seen) - 1)
        return torch.nn.functional.pad(found, (0, self.state.dim - WORDS))


def oracle(s_t: torch.Tensor, call: int) -> torch.Tensor:
    return 60.0 * torch.nn.functional.one_hot(TRUTH, WORDS).float()


def run(name: str, batch: Words, steps: int, **drawing: Any) -> torch.Tensor:
    """The words that are read at the end, [3, 2, L]."""
    grid = make_grid(SCHEDULE, steps)
    found = sample(batch, grid, SAMPLERS[name].steps(grid, drawing=Drawing(**drawing)))
    assert (found.calls == steps).all()
    return batch.state.read(found.s, found.estimate)[0]


@pytest.mark.parametrize(
    "name, share", [(name, share) for name in CATEGORICAL for share in SHARES if goes(name, share)]
)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_an_oracle_leads_to_the_truth(name, share, steps):
    batch = Words(oracle, state(share))
    read = run(name, batch, steps)
    free = batch.state.free(REAL)
    assert torch.equal(read[free], TRUTH[free])
    assert torch.equal(read[~free], batch.state.prior(batch.keys[0], REAL, SCHEDULE.level(torch.ones(1)))[~free])


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", BY_CONFIDENCE)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 12])
def test_the_surest_words_are_shown_first_and_as_many_as_it_says(name, steps, share):
    """Of n words floor(n (N - p) / N) are hidden, or noise drawn anew, behind step p; those that are shown are the
    likeliest so far."""
    sure = torch.rand(REAL.shape, generator=torch.Generator().manual_seed(2))

    def unsure(s_t, call):
        return (2 + 4 * sure[..., None]) * torch.nn.functional.one_hot(TRUTH, WORDS).float()

    batch = Words(unsure, state(share))
    run(name, batch, steps)
    free = batch.state.free(REAL)
    n = free.sum(-1)
    for p, s_t in enumerate(batch.seen):
        hidden = batch.state.hidden(s_t) & free
        assert torch.equal(batch.state.plain(s_t)[free & ~hidden], TRUTH[free & ~hidden])
        if p and hidden.sum() > 5:
            assert (s_t == batch.seen[p - 1])[hidden].all() == (share == 1)
        assert torch.equal(hidden.sum(-1), n * (steps - p) // steps)
        least = sure.masked_fill(hidden | ~free, 9).amin(-1)
        assert (sure.masked_fill(~hidden, -9).amax(-1) < least).all()


def hidden_again(name: str, share: float, sureness: Callable) -> bool:
    """Whether a word shown in the second of three calls is hidden in the third; a call's `sureness` is [3, 2, L]."""
    s = state(share)

    def network(s_t, call):
        return sureness(s.hidden(s_t), call)[..., None] * torch.nn.functional.one_hot(TRUTH, WORDS).float()

    batch = Words(network, s)
    run(name, batch, 3)
    _, second, third = (s.hidden(s_t) & s.free(REAL) for s_t in batch.seen)
    return bool((third & ~second).any())


@pytest.mark.parametrize("share", SHARES)
def test_words_that_are_shown_compete_with_those_that_are_not_or_stay(share):
    """Either the network is surer of all words in a later call than it was when the first were shown (mask-predict
    compares with then); or it begins to doubt what is shown (RDM compares with now).  Where it would say another word
    now, only unconditional routing hides the one that is shown."""
    place = torch.arange(L).expand(REAL.shape) / 10
    surer, doubts, others = (
        {name: hidden_again(name, share, sureness) for name in BY_CONFIDENCE}
        for sureness in (
            lambda hidden, call: 3.0 + 3 * call + place,
            lambda hidden, call: torch.where(hidden, 3.0, 1.0),
            lambda hidden, call: torch.where(hidden, 3.0, -3.0),
        )
    )
    none = dict.fromkeys(BY_CONFIDENCE, False)
    assert surer == {**none, "mask_predict": True}
    assert doubts == {**none, "routing": True, "routing_unconditional": True}
    assert others == {**none, "routing_unconditional": True}


def test_resampling_draws_all_words_anew():
    """At temperature 0 the most probable; a word that is seen has no say."""

    def network(s_t, call):
        return torch.randn(*REAL.shape, WORDS, generator=torch.Generator().manual_seed(call))

    batch = Words(network, state(0.0))
    run("resample", batch, 3, temperature=0.0)
    free = batch.state.free(REAL)
    for call in (0, 1):
        best = network(None, call).index_fill(-1, torch.tensor([BOS, PAD, EOS]), -torch.inf).argmax(-1)
        assert torch.equal(batch.seen[call + 1][free], best[free])
    drawn = [run("resample", Words(network, state(0.0), seed=seed), 3) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    warm = [Words(network, state(0.0), seed=seed) for seed in (0, 1)]
    for one in warm:
        run("resample", one, 3, temperature=1.0)
    assert not torch.equal(warm[0].seen[1], warm[1].seen[1])


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("eta", [0.3, 0.5])
def test_resampling_may_change_a_share_of_the_words_the_least_probable(share, eta):
    """Those behind the mask come first."""

    def network(s_t, call):
        return torch.randn(*REAL.shape, WORDS, generator=torch.Generator().manual_seed(call))

    s = state(share)
    batch, grid = Words(network, s), make_grid(SCHEDULE, 4)
    sample(batch, grid, SAMPLERS["resample"].steps(grid, eta, drawing=Drawing(0.0)))
    free = s.free(REAL)
    for call in (0, 1, 2):
        before, after, logits = batch.seen[call], batch.seen[call + 1], network(None, call).log_softmax(-1)
        best = logits.index_fill(-1, torch.tensor([BOS, PAD, EOS]), -torch.inf).argmax(-1)
        p = logits.gather(-1, before.clamp(max=WORDS - 1)[..., None])[..., 0].masked_fill(before == MASK, -torch.inf)
        for row in range(6):
            here = free.flatten(0, 1)[row].nonzero()[:, 0]
            least = here[p.flatten(0, 1)[row, here].argsort(stable=True)[: math.ceil(eta * len(here) - 1e-9)]]
            expected = before.flatten(0, 1)[row].clone()
            expected[least] = best.flatten(0, 1)[row, least]
            assert torch.equal(after.flatten(0, 1)[row], expected)


def test_by_purity_positions_are_drawn_by_their_largest_probability_and_words_are_sharper():
    """Of two hidden words one is shown, and it is drawn from p^(1 + s), s = 1 and 1/3."""
    count, s = 6000, state()
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.2]])
    logits = torch.full((1, count, 4, WORDS + 1), -40.0)
    logits[..., 1:3, 4:7] = p.log()
    logits[..., 2, 7:9] = torch.tensor(0.2).log()
    s_t = torch.tensor([BOS, MASK, MASK, EOS]).expand(1, count, 4)
    best = s.round(logits)[0][0]
    batch = Words(oracle, s, torch.ones(1, count, 4).bool())
    (step, *_) = SAMPLERS["purity"].steps(make_grid(SCHEDULE, 2))
    words = step(batch, s_t, logits, logits, noise.fold(torch.arange(count)[None], 3))[0]
    first = words[:, 1] != MASK
    assert torch.equal(first, words[:, 2] == MASK)
    assert abs(float(first.double().mean()) - 0.75) < 4 * (0.75 * 0.25 / count) ** 0.5
    for place, exponent in ((1, 2.0), (2, 1 + 1 / 3)):
        shown = words[words[:, place] != MASK, place]
        expected = logits[0, 0, place, :WORDS].exp() ** exponent
        expected /= expected.sum()
        found = shown.bincount(minlength=WORDS) / len(shown)
        assert (found - expected).abs().max() < 4 * (0.25 / len(shown)) ** 0.5
    (cold, *_) = SAMPLERS["purity"].steps(make_grid(SCHEDULE, 2), drawing=Drawing(0.0))
    words = cold(batch, s_t, logits, logits, noise.fold(torch.arange(count)[None], 3))[0]
    shown = words != MASK
    assert torch.equal(words[shown & (s_t[0] == MASK)], best[shown & (s_t[0] == MASK)])
    assert shown[:, 1:3].sum() == count and shown[:, 1].any() and shown[:, 2].any()


def test_by_purity_what_is_drawn_does_not_decide_where():
    count, s = 4000, state()
    logits = torch.full((1, count, 10, WORDS + 1), -40.0)
    logits[..., 4:9] = 0.0
    s_t = torch.tensor([BOS, *[MASK] * 8, EOS]).expand(1, count, 10)
    batch = Words(oracle, s, torch.ones(1, count, 10).bool())
    (step, *_) = SAMPLERS["purity"].steps(make_grid(SCHEDULE, 2))
    words = step(batch, s_t, logits, logits, noise.fold(torch.arange(count)[None], 3))[0]
    for place in range(1, 9):
        for word in (4, 6, 8):
            here = words[words[:, place] == word]
            for other in set(range(1, 9)) - {place}:
                share = float((here[:, other] != MASK).double().mean())
                assert abs(share - 3 / 7) < 5 * (0.25 / len(here)) ** 0.5


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", BY_CONFIDENCE)
def test_words_may_be_drawn_at_a_temperature(name, share):
    """The same for a key, others for another; so few that they are cold are the most probable ones."""

    def flat(s_t, call):
        return torch.randn(*REAL.shape, WORDS, generator=torch.Generator().manual_seed(call))

    plain, cold, warm, same, other = (
        run(name, Words(flat, state(share), seed=seed), 4, temperature=at)
        for at, seed in ((None, 0), (1e-4, 0), (1.0, 0), (1.0, 0), (1.0, 1))
    )
    assert torch.equal(plain, cold) and torch.equal(warm, same)
    assert not torch.equal(plain, warm) and not torch.equal(warm, other)


def test_ancestral_steps_have_the_frequencies_of_the_process():
    """A hidden word is revealed with probability (a_s - a_t) / (1 - a_t), as a word drawn from the estimate."""
    count = 4000
    p = torch.tensor([0.5, 0.3, 0.2])
    estimate = torch.full((WORDS,), -torch.inf)
    estimate[4:7] = p.log()
    s = state()
    mask = torch.ones(1, count, 3).bool()
    batch = Words(oracle, s, mask)
    (step,) = SAMPLERS["ancestral"].steps(make_grid(SCHEDULE, 2))[:1]
    keys = noise.fold(torch.arange(count)[None], 5)
    s_t = torch.tensor([BOS, MASK, EOS]).expand(1, count, 3)
    x = torch.nn.functional.pad(estimate.nan_to_num(neginf=-1e4), (0, 1)).expand(1, count, 3, WORDS + 1)
    words = step(batch, s_t, x, x, keys)[0, :, 1]
    found = torch.tensor([float((words == word).double().mean()) for word in (4, 5, 6, MASK)])
    expected = torch.cat([0.5 * p, torch.tensor([0.5])])
    assert (found - expected).abs().max() < 4 * (0.25 / count) ** 0.5


@pytest.mark.parametrize("eta", [0.0, 0.1, 0.3])
def test_shown_words_are_hidden_again_and_as_many_are_shown(eta):
    """The share that is shown is a_s at every step; a shown word is hidden with probability eta, or all that have
    room to be."""
    count, steps = 5000, 6
    s, grid = state(), make_grid(SCHEDULE, steps)
    batch = Words(oracle, s, torch.ones(1, count, 3).bool())
    estimate = torch.nn.functional.one_hot(torch.full((1, count, 3), 7), WORDS + 1).float() * 60
    s_t, a = torch.tensor([BOS, MASK, EOS]).expand(1, count, 3), grid.level.alpha.square()
    for i, step in enumerate(SAMPLERS["remasking"].steps(grid, eta)):
        again = min(eta, float((1 - a[i + 1]) / a[i].clamp(min=1e-12)))
        before, keys = s_t[0, :, 1] == 7, noise.fold(torch.arange(count)[None], i)
        predicted = step.hidden_next(s_t == MASK, s.kernel, keys)[0, :, 1]
        s_t = step(batch, s_t, estimate, estimate, keys)
        shown, spread = s_t[0, :, 1] == 7, 4 * (0.25 / count) ** 0.5
        assert torch.equal(predicted, ~shown)
        assert abs(float(shown.double().mean()) - float(a[i + 1])) < spread
        hidden = (before & ~shown).sum() / before.sum().clamp(min=1)
        assert abs(float(hidden) - again * bool(before.any())) < 4 * (0.25 / before.sum().clamp(min=1)) ** 0.5
        assert (hidden == 0) or eta > 0


def test_a_half_precision_network_draws_from_the_same_distribution():
    """Noise is fp32, whatever the estimate was computed in."""
    s, x = state(), torch.randn(2, 3, 5, WORDS + 1).bfloat16()
    keys, every = noise.fold(torch.arange(6).view(2, 3), 9), torch.ones(2, 3, 5, dtype=torch.bool)
    assert torch.equal(s.sample(x.float(), keys, every), s.sample(x, keys, every))


def test_words_are_drawn_only_where_a_step_shows_them(monkeypatch):
    """On a CPU, drawing them everywhere would take most of a step's time."""
    drawn, best = [], base.best_rows

    def watched(x, table, banned, bias, keys, truncation, mask):
        drawn.append(mask.view(REAL.shape))
        return best(x, table, banned, bias, keys, truncation, mask)

    monkeypatch.setattr(base, "best_rows", watched)
    batch, grid = Words(oracle), make_grid(SCHEDULE, 6)
    sample(batch, grid, SAMPLERS["ancestral"].steps(grid))
    shown = [before.eq(MASK) & after.ne(MASK) for before, after in zip(batch.seen, batch.seen[1:])]
    assert all(torch.equal(*pair) for pair in zip(drawn, shown)) and len(drawn) == 5 and any(map(torch.any, shown))


@pytest.mark.parametrize("name", CATEGORICAL)
def test_nothing_waits_for_the_device(name, monkeypatch):
    """But for leaving out rows, which is done on a CPU only; and, once, for which calls are needed."""
    best = base.best_rows

    def everywhere(x, weight, target, label_smoothing, mask):
        return linear_cross_entropy(x, weight, target, label_smoothing)

    def best_everywhere(x, table, banned, bias=None, keys=None, truncation=ALL, mask=None):
        return best(x, table, banned, bias, keys, truncation)

    share = 1.0 if goes(name, 1.0) else 0.0
    translator = build(**WORDS_ONLY, mask_share=share, sampler=name)
    decoder = translator.decoder_for(
        DiffusionOptions(steps=5, sampler=name, length_beam=2, noise_beam=2, word_temperature=1.0)
    )
    source = encode(translator, sources())
    lengths = Lengths(torch.full((7, 2), 9), torch.zeros(7, 2), 9)
    keys = noise.fold(torch.arange(7)[:, None, None], torch.arange(4).view(2, 2))
    monkeypatch.setattr(base, "linear_cross_entropy", everywhere)
    monkeypatch.setattr(base, "best_rows", best_everywhere)
    looked, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: (looked.append(x), tolist(x))[1])
    with HostLooks() as looks:
        candidates = decoder(source, lengths, keys)
    assert looks.count == 0 and len(looked) == (name in KNOWN) and (candidates.sizes == 7).all()
    assert (candidates.calls <= 5).all() if name in KNOWN else (candidates.calls == 5).all()
    assert torch.isfinite(candidates.scores).all()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", CATEGORICAL)
def test_every_sampler_takes_any_number_of_steps_on_every_grid(name, grid):
    """Also of a model that was trained in few."""
    translator = build(**WORDS_ONLY, mask_share=1.0 if goes(name, 1.0) else 0.0, sampler=name, diffusion_steps=10)
    source, keys = encode(translator, sources()), noise.fold(torch.arange(7)[:, None, None], torch.arange(1))
    for steps in (1, 3, 25):
        decoder = translator.decoder_for(DiffusionOptions(steps=steps, sampler=name, grid=grid))
        candidates = decoder(source, Lengths(torch.full((7, 1), 9), torch.zeros(7, 1), 9), keys)
        assert (candidates.calls <= steps if name in KNOWN else candidates.calls == steps).all()
        assert torch.isfinite(candidates.scores).all()


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"noise_beam": 3, "word_temperature": 0.8}, {"draft": 0.6}])
@pytest.mark.parametrize("name", KNOWN)
def test_calls_that_would_change_nothing_are_left_out(name, options, monkeypatch):
    """The words are those that all calls lead to; a word is revealed by a call or more, so there are no more calls than
    words, but for the other candidates of a sentence."""
    translator, n = build(**WORDS_ONLY, sampler=name, source_drop=0.1), torch.tensor([9, 2, 14, 5, 11, 3, 7])
    keys = noise.fold(torch.arange(7)[:, None, None], torch.arange(options.get("noise_beam", 1)))
    lengths = Lengths(n[:, None], torch.zeros(7, 1), 14)
    if "draft" in options:
        lengths = lengths._replace(draft=draft_of(n))
    decoder = translator.decoder_for(DiffusionOptions(steps=30, sampler=name, **options))
    found = decoder(encode(translator, sources()), lengths, keys)
    monkeypatch.setattr(type(decoder.sampler), "busy", lambda *_: None)
    every = decoder(encode(translator, sources()), lengths, keys)
    assert torch.equal(found.tokens, every.tokens)
    torch.testing.assert_close(found.log_p, every.log_p, rtol=1e-4, atol=1e-5)
    each = 2 if "guidance" in options else 1
    assert (every.calls == 30 * each).all()
    first = each if "draft" in options else 0  # which scores the words that stay
    if name != "remasking":  # which reveals some words several times
        assert (found.calls <= first + keys.shape[-1] * each * (n - 2)[:, None]).all()
    assert (found.calls < every.calls).any()
    assert (found.calls[n == 14] > 0).all() and (found.calls[n == 2] == first).all()
    if name == "confidence" and "draft" not in options:
        assert torch.equal(found.calls, each * (n - 2)[:, None].expand(found.calls.shape))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_history_has_the_estimates_of_all_steps(guidance):
    """So all calls are made for it; and without one, what guidance reads for a source is made once a batch."""
    translator, made = build(**WORDS_ONLY, sampler="ancestral", source_drop=0.1), []
    without = translator.without_source
    translator.without_source = lambda source: (made.append(source), without(source))[1]
    decoder = translator.decoder_for(DiffusionOptions(steps=12, sampler="ancestral", guidance=guidance))
    keys, lengths = (
        noise.fold(torch.arange(7)[:, None, None], torch.arange(1)),
        Lengths(torch.full((7, 1), 9), torch.zeros(7, 1), 9),
    )
    steps = []
    watched = decoder(encode(translator, sources()), lengths, keys, steps.append)
    assert (watched.calls == 12 * guidance).all() and len(steps) == 12
    hidden = steps[0].log_p[0, 0, 1:8]
    assert len(set(hidden.tolist())) > 1  # an estimate, and not that of nothing
    assert len(made) == (guidance != 1)
    made.clear()
    found = decoder(encode(translator, sources()), lengths, keys)
    assert torch.equal(found.tokens, watched.tokens) and (found.calls < 12 * guidance).any()
    assert len(made) == (guidance != 1)


def draft_of(n):
    """Words between <s> and </s>, n positions with them."""
    place = torch.arange(14)
    tokens = torch.where(place == 0, BOS, torch.where(place == n[:, None] - 1, EOS, 4 + place)).where(
        place < n[:, None], PAD
    )
    return Draft(tokens, torch.zeros(tokens.shape))


def test_words_of_a_draft_that_are_shown_stay(monkeypatch):
    """Also where the first step has room for more masks than there are."""
    translator, n = build(**WORDS_ONLY, sampler="confidence"), torch.tensor([9, 2, 14, 5, 11, 3, 7])
    decoder = translator.decoder_for(DiffusionOptions(steps=3, sampler="confidence", draft=0.5))
    lengths, seen = Lengths(n[:, None], torch.zeros(7, 1), 14, draft=draft_of(n)), []
    keys = noise.fold(torch.arange(7)[:, None, None], torch.arange(1))
    denoise = decoder.network
    decoder.network = lambda s_t, *rest: (seen.append(s_t), denoise(s_t, *rest))[1]
    monkeypatch.setattr(type(decoder.sampler), "busy", lambda *_: None)
    decoder(encode(translator, sources()), lengths, keys)
    for before, after in zip(seen, seen[1:]):
        assert torch.equal(after[before != MASK], before[before != MASK])
    assert len(seen) == 3


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_what_is_least_probable_becomes_noise_again(share, temperature):
    """floor(n (N - p) / N) words behind step p; the others are what is predicted."""
    sure = torch.rand(REAL.shape, generator=torch.Generator().manual_seed(2))

    def unsure(s_t, call):
        return (6 + 4 * sure[..., None]) * torch.nn.functional.one_hot(TRUTH, WORDS).float()

    batch = Words(unsure, state(share))
    run("renoise", batch, 4, temperature=temperature)
    free = batch.state.free(REAL)
    for p, s_t in enumerate(batch.seen[1:], 1):
        count = free.sum(-1) * (4 - p) // 4
        order = sure.masked_fill(~free, 9).argsort(-1).argsort(-1)
        low = order < count[..., None]
        assert torch.equal(s_t[free & ~low], TRUTH[free & ~low])
        assert (s_t[low] != TRUTH[low]).double().mean() > 0.6
        assert bool((s_t[low] == MASK).any()) == (share > 0)
    again = Words(unsure, state(share), seed=1)
    run("renoise", again, 4, temperature=temperature)
    assert not torch.equal(again.seen[1], batch.seen[1])


@pytest.mark.parametrize("kernel", [{}, {"schedule": "cosine", "mask_share": 0.0}], ids=["absorbing", "uniform"])
@pytest.mark.parametrize("steps", [2, 10, 16, 25])
def test_rdm_hides_the_share_of_its_paper(steps, kernel):
    translator = build(**{**WORDS_ONLY, "sampler": "routing", "diffusion_steps": 50, **kernel})
    decoder = translator.decoder_for(DiffusionOptions(steps=steps, sampler="routing", grid="cosine", final_time=1e-9))
    expected = torch.cos(torch.pi / 2 * torch.arange(1, steps + 1).double() / steps)
    hidden = torch.tensor([step.hidden for step in decoder.steps], dtype=torch.float64)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("ancestral", {"eta": 0.5}, "--eta is 0.5; with a model whose states are words it is the probability"),
        ("remasking", {"eta": 1.5}, "--eta is 1.5"),
        ("renoise", {"eta": 0.5}, "--eta is 0.5"),
        ("resample", {"eta": 0.0}, "--eta 0 leaves no word to draw anew"),
        ("confidence", {"temperature": 0.5}, "--temperature 0.5 is for Gaussian noise"),
        ("confidence", {"drawing": Drawing(-1.0)}, "--word-temperature is -1.0"),
        ("ancestral", {"drawing": Drawing(0.0)}, "--word-temperature 0 leaves nothing to draw"),
        (
            "confidence",
            {"drawing": Drawing(None, Truncation(k=3))},
            "--top-k and --top-p say what words",
        ),
        ("ddim", {"drawing": Drawing(0.5)}, "--word-temperature, --top-k and --top-p are for models whose states"),
        ("ddim", {"drawing": Drawing(None, Truncation(p=0.9))}, "--top-p are for models whose states are words"),
    ],
)
def test_what_has_no_meaning_is_refused(name, options, said):
    with pytest.raises(UserError, match=said):
        SAMPLERS[name].steps(make_grid(SCHEDULE, 3), **options)


def test_a_sampler_goes_with_what_words_became_in_training():
    for share in (0.0, 0.5):
        with pytest.raises(UserError, match="--sampler remasking takes words that are seen for right"):
            build(**WORDS_ONLY, mask_share=share, sampler="remasking")
        translator = build(**WORDS_ONLY, mask_share=share)
    with pytest.raises(UserError, match="--clamp moves vectors"):
        translator.decoder_for(DiffusionOptions(sampler="ancestral", clamp=True))
    translator = build(**WORDS_ONLY)
    for options, said in (
        ({"sampler": "resample"}, "--sampler resample changes words that are seen"),
        ({"stop_stable": 1}, "--stop-stable 1 would end with words that are still hidden"),
        ({"decode_noise_factor": 2.0}, "--decode-noise-factor 2.0 multiplies Gaussian noise"),
        ({"sampler": "confidence", "noise_beam": 2}, "--noise-beam is 2, but --sampler confidence draws nothing"),
        ({"sampler": "ddim"}, "--sampler ddim is for gaussian states"),
    ):
        with pytest.raises(UserError, match=said):
            translator.decoder_for(DiffusionOptions(**{"sampler": "ancestral", **options}))
    translator.decoder_for(DiffusionOptions(sampler="confidence", noise_beam=2, word_temperature=0.5))
