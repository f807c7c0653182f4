"""Loss terms, each [B, L] from the outcome of a training step and the mask [B, L] of where a loss is due, and the
objective, their weighted sum.

Elsewhere a term's value is not used, so it need not be computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, cast

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.joint import Joint, of_words
from fairseq_diffusion.objective.reduction import Reduction
from fairseq_diffusion.objective.score_entropy import Moments, score_entropy
from fairseq_diffusion.objective.token_bound import Rows, divergence
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.states.base import State


@dataclass(frozen=True)
class Outcome:
    """What a training step produced: `estimates` holds the clean estimate of each pass that has a loss."""

    tokens: Tensor  # [B, L]
    drawn: Tensor  # [B, L, ...], s_0
    s_0: Tensor  # [B, L, ...], or in its place what a teacher estimates
    s_t: Tensor  # [B, L, ...]
    noised: Tensor  # [B, L], where it is noise
    t: Tensor  # [B, 1]
    level: Level  # of s_t
    weight: Tensor  # [B], importance of the time drawn
    u: Tensor  # [B], what the time sampler drew
    estimates: list[Tensor]  # each [B, L, d]
    state: State
    schedule: Schedule
    label_smoothing: float = 0.0


Term = Callable[[Outcome, Tensor], Tensor]
TERMS: Registry[Term] = Registry("objective term")
FAMILIES: dict[str, str] = {}  # of the terms that are for states of one family


def term(name: str, family: str | None = None) -> Callable[[Term], Term]:
    """Decorator: enter a term; with `family` it is for states of this family alone."""
    if family:
        FAMILIES[name] = family
    return TERMS.register(name)


def over_passes(loss: Callable[[Tensor], Tensor], outcome: Outcome) -> Tensor:
    """Mean over the passes, so that a term weighs the same whatever the self-conditioning; times the importance."""
    return torch.stack([loss(estimate) for estimate in outcome.estimates]).mean(0) * outcome.weight[:, None].float()


def cross_entropy(outcome: Outcome, due: Tensor) -> Tensor:
    """-log p(y | x_0-hat) where `due` [B, L] is true, else 0."""
    nll = lambda estimate: outcome.state.nll(estimate, outcome.tokens, outcome.label_smoothing, due)  # noqa: E731
    return over_passes(nll, outcome)


@term("mse", "gaussian")
def mse(outcome: Outcome, mask: Tensor) -> Tensor:
    """|| x_0-hat - x_0 ||^2 / D.  x_0 is not detached: the embeddings learn from it too (DINOISER eq. 9)."""
    return over_passes(lambda estimate: (outcome.state.clean(estimate) - outcome.s_0).square().mean(-1), outcome)


@term("v_mse", "gaussian")
def v_mse(outcome: Outcome, mask: Tensor) -> Tensor:
    """|| v-hat - v ||^2 / D = || x_0-hat - x_0 ||^2 / (D sigma^2) at unit variance, v = alpha eps - sigma x_0 (Salimans
    and Ho 2022): an error counts more where there is less noise."""
    level = outcome.level.to(outcome.s_0)
    return mse(outcome, mask) * (1 + (level.alpha / level.sigma).square())


@term("snr_mse", "gaussian")
def snr_mse(outcome: Outcome, mask: Tensor) -> Tensor:
    """-1/2 (d SNR / d t) || x_0-hat - x_0 ||^2: in nats, the denoiser's part of the variational bound (Kingma et al.
    2021, eq. 17)."""
    rate = outcome.schedule.snr_rate(outcome.t).to(outcome.s_0)
    error = lambda estimate: (outcome.state.clean(estimate) - outcome.s_0).square().sum(-1)  # noqa: E731
    return rate / 2 * over_passes(error, outcome)


@term("reconstruction", "gaussian")
def reconstruction(outcome: Outcome, mask: Tensor) -> Tensor:
    """-log p(y | x_t) at t = 0, by Bayes' rule for one word by itself: in nats, the bound's part that keeps rows of one
    norm apart.  The noise is that of s_t."""
    levels = outcome.level, outcome.schedule.level(torch.zeros_like(outcome.t))
    now, first = (level.to(outcome.drawn) for level in levels)
    eps = (outcome.s_t - now.alpha[..., None] * outcome.drawn) / now.sigma[..., None]
    logits = (first.alpha / first.sigma.square())[..., None] * first.mix(outcome.drawn, eps)
    return outcome.state.nll(logits, outcome.tokens, mask=mask)


@term("rounding", "gaussian")
def rounding(outcome: Outcome, mask: Tensor) -> Tensor:
    """-log p(y | x_0) on the clean embedding: keeps rows apart, does not see the denoiser (Li et al. 2022, eq. 2)."""
    return outcome.state.clean_nll(outcome.tokens, outcome.drawn, mask, outcome.label_smoothing)


@term("anchor")
def anchor(outcome: Outcome, mask: Tensor) -> Tensor:
    """-log p(y | x_0-hat) on the estimate: keeps rows apart *and* trains the denoiser (Gao et al. 2024)."""
    return cross_entropy(outcome, mask)


@term("prior", "gaussian")
def prior(outcome: Outcome, mask: Tensor) -> Tensor:
    """|| alpha(1) x_0 ||^2 / D: zero for schedules that end in pure noise."""
    alpha = outcome.schedule.level(torch.ones_like(outcome.t)).to(outcome.s_0).alpha
    return (alpha[..., None] * outcome.s_0).square().mean(-1)


@term("center", "gaussian")
def center(outcome: Outcome, mask: Tensor) -> Tensor:
    """The norm of what noise is around (Gong et al. 2023b)."""
    return cast(Tensor, outcome.state.center).float().norm().expand(mask.shape)


@term("corrupted", "categorical")
def corrupted(outcome: Outcome, mask: Tensor) -> Tensor:
    """-log p(y | x_0-hat) of the words that were hidden or replaced, be it by themselves."""
    return cross_entropy(outcome, mask & outcome.noised)


@term("elbo", "categorical")
def elbo(outcome: Outcome, mask: Tensor) -> Tensor:
    """`corrupted` times the rate at which words are revealed.  Where they are only ever hidden, all at one rate, its
    mean over times is the negative evidence lower bound (Sahoo et al. 2024; in T steps Austin et al. 2021)."""
    return corrupted(outcome, mask) * outcome.schedule.reveal_rate(outcome.t, outcome.tokens).float()


@term("vlb", "categorical")
def vlb(outcome: Outcome, mask: Tensor) -> Tensor:
    """The variational bound of any kernel.  In T steps T KL(q(y_(t-1) | y_t, y_0) || p(y_(t-1) | y_t)), at the first
    -log p(y_0 | y_1); in continuous time its rate."""
    if not outcome.schedule.steps:
        return scores(outcome, mask, normalised=True)
    state, schedule = cast(Any, outcome.state), outcome.schedule
    kept, before = outcome.level.alpha.square(), schedule.kept_before(outcome.t, outcome.tokens)
    rows = Rows(*(x.expand(mask.shape).flatten() for x in (of_words(outcome.s_t), outcome.tokens, before, kept)))

    def loss(estimate: Tensor) -> Tensor:
        found = divergence(of_words(estimate).flatten(0, -2), state.readout(), rows, state.kernel)
        return schedule.steps * found.view(mask.shape).where(mask, 0.0)

    return over_passes(loss, outcome)


@term("score_entropy", "categorical")
def free_scores(outcome: Outcome, mask: Tensor) -> Tensor:
    """Score entropy (Lou et al. 2024): `vlb` in continuous time, with free weights in place of probabilities."""
    return scores(outcome, mask, normalised=False)


def scores(outcome: Outcome, mask: Tensor, normalised: bool) -> Tensor:
    """Score entropy [B, L] where `mask` is true, else 0."""
    state, schedule = cast(Any, outcome.state), outcome.schedule
    due, kept = mask.flatten(), outcome.level.alpha.square()
    moments = of_words(outcome.s_t), outcome.tokens, kept, schedule.slope(outcome.t, outcome.tokens)
    rows = Moments(*(x.expand(mask.shape).flatten()[due] for x in moments))

    def loss(estimate: Tensor) -> Tensor:
        found = score_entropy(of_words(estimate).flatten(0, -2)[due], state.readout(), rows, state.kernel, normalised)
        return found.new_zeros(len(due)).masked_scatter(due, found).view(mask.shape)

    return over_passes(loss, outcome)


@term("latents", "categorical")
def latents(outcome: Outcome, mask: Tensor) -> Tensor:
    """|| u_0-hat - u_0 ||^2 / D of latents beside the words, for each of these; in training 0 in the first stage."""
    state, u_0 = cast(Any, outcome.state), cast(Joint, outcome.s_0).latents.detach()
    error = lambda estimate: (estimate.latents - u_0).square().mean((1, 2))[:, None].expand(mask.shape)  # noqa: E731
    return over_passes(error, outcome) * (state.second_stage or not state.training)


@term("reweighted", "categorical")
def reweighted(outcome: Outcome, mask: Tensor) -> Tensor:
    """`corrupted` times 1 - t one step earlier (Zheng et al. 2024): sentences of which little is left count less."""
    steps = outcome.schedule.steps
    return corrupted(outcome, mask) * (1 - outcome.t + (1 / steps if steps else 0)).float()


def parse_terms(text: str, flag: str = "--objective") -> dict[str, float]:
    """ "mse=1,anchor=0.5" -> {"mse": 1.0, "anchor": 0.5}; a term without a weight has weight 1."""
    weights: dict[str, float] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, weight = item.partition("=")
        if name not in TERMS:
            raise UserError(f"{flag} has the unknown term {name!r}; choose from: {', '.join(TERMS)}")
        try:
            weights[name] = float(weight or 1)
            if not math.isfinite(weights[name]):
                raise ValueError(weight)
        except ValueError as error:
            raise UserError(f"{flag} has the term {item!r} without a number behind '='; write mse=1") from error
    if not weights:
        raise UserError(f"{flag} {text!r} names no term; choose from: {', '.join(TERMS)}")
    return weights


class Objective(Reduction):
    """Sum of weighted terms."""

    def __init__(self, terms: str, normaliser: str = "sentences"):
        super().__init__(normaliser)
        self.weights = parse_terms(terms)

    def terms(self, outcome: Outcome, mask: Tensor) -> dict[str, Tensor]:
        """Each term's share [B] of the batch's loss before weighting; mask [B, L] is true where a loss is due."""
        return {name: self.share(TERMS[name](outcome, mask), mask) for name in self.weights}

    def each(self, terms: dict[str, Tensor], mask: Tensor) -> Tensor:
        """The weighted sum of the shares in `terms`, for each sentence [B] as a mean over its positions in `mask`."""
        total = torch.stack([terms[name].detach() * weight for name, weight in self.weights.items()]).sum(0)
        return total if self.normaliser == "sentences" else total / mask.sum(-1).clamp(min=1)
