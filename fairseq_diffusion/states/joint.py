"""Words and latents of them as one state, for a network that steps both at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.kernels.rounding import ALL, Truncation
from fairseq_diffusion.network.joint import Joint, JointEntrance, JointExit, of_words
from fairseq_diffusion.network.target_encoder import TargetEncoder
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.states.base import STATES
from fairseq_diffusion.states.tokens import TokenState
from fairseq_diffusion.states.vectors import LatentState

NOISE, TIME, DROP, HIDE = range(4)  # streams of a key


@STATES.register("joint")
class JointState(TokenState):
    """s_t = (y_t, u_t): words as a state of tokens has them, and latents u_t = alpha u_0 + sigma eps, u_0 = Enc(y).

    Latents are corrupted at the time of the words, in training with `own_time` at one of their own; and with
    probability `drop` they are noise alone.  A sampler's steps have one time for both.
    """

    paired = True
    encoder: TargetEncoder
    latents: LatentState
    schedule: Schedule  # of the latents

    def with_latents(
        self,
        encoder: TargetEncoder,
        dim: int,
        schedule: Schedule,
        word_schedule: Schedule,
        own_time: bool = False,
        drop: float = 0.0,
        start: int = 0,
    ) -> JointState:
        """The same with what makes latents of targets; `encoder` reads the words' vectors, so it comes later."""
        self.encoder, self.latents, self.schedule = encoder, LatentState(dim), schedule
        self.word_schedule = (word_schedule,)  # out of sight in a tuple: it is saved with the translator
        self.own_time, self.drop, self.start, self.second_stage = own_time, drop, start, True
        return self

    def begin(self, update: int) -> None:
        """Up to update `start` the encoder of targets is learnt, by words that read its latents; from then on it stays,
        and latents are learnt: learnt at the same time, they would become the same for all targets."""
        self.second_stage = update >= self.start

    # -- noise --------------------------------------------------------------------------------------------------------

    def encode(self, clean: Tensor) -> Joint:  # type: ignore[override]
        return Joint(clean, self.encoder(clean, clean != self.pad))

    def draw(self, clean: Tensor, keys: Tensor) -> Joint:  # type: ignore[override]
        mask = clean != self.pad
        latents = self.encoder(clean, mask, self.encoder.seen(mask, noise.fold(keys, Stream.LATENTS, HIDE)))
        if self.second_stage:  # gradients of 0, as all ranks expect some
            latents = torch.lerp(latents.detach(), latents, 0.0)
        return Joint(clean, latents)

    def corrupt(self, s_0: Joint, level: Level, keys: Tensor, mask: Tensor) -> Joint:  # type: ignore[override]
        words, own = super().corrupt(s_0.words, level, keys, mask), noise.fold(keys, Stream.LATENTS)
        t = self._time(level).expand(len(keys), 1)[:, 0]
        if self.training and self.own_time:
            t = noise.uniform(noise.fold(own, TIME), 1)[:, 0]
        if self.training and self.drop:
            t = torch.where(noise.uniform(noise.fold(own, DROP), 1)[:, 0] < self.drop, 1.0, t)
        noisy = self.schedule.level(t[:, None])
        return Joint(words, self.latents.corrupt(s_0.latents, noisy, noise.fold(own, NOISE), mask), t)

    def prior(self, keys: Tensor, mask: Tensor, level: Level) -> Joint:  # type: ignore[override]
        t = self._time(level)
        own = torch.ones(*mask.shape[:-1], len(self.encoder.queries), dtype=torch.bool, device=mask.device)
        noisy = self.schedule.level(t)
        latents = self.latents.prior(noise.fold(keys, Stream.LATENTS, NOISE), own, Level(noisy.alpha, noisy.sigma))
        return Joint(super().prior(keys, mask, level), latents, t.to(keys.device).expand(keys.shape))

    def _time(self, level: Level) -> Tensor:
        """The time of words that are at this level."""
        return self.word_schedule[0].time(level.sigma)

    def clean(self, estimate: Joint) -> Joint:  # type: ignore[override]
        return Joint(estimate.words, self.encoder.normalised(estimate.latents))

    def blank(self, s_t: Joint) -> Joint:  # type: ignore[override]
        return Joint(super().blank(s_t.words), torch.zeros_like(s_t.latents))

    def entrance(self, size: Size, self_conditioned: bool) -> nn.Module:
        latents = self.latents.entrance(size, self_conditioned)
        return JointEntrance(super().entrance(size, self_conditioned), latents, len(self.encoder.queries), size)

    def exit(self, size: Size) -> nn.Module:
        return JointExit(super().exit(size), self.latents.exit(size), len(self.encoder.queries))

    # -- words are read as ever ---------------------------------------------------------------------------------------

    def carried(self, s_t: Joint, estimate: Joint, previous: Joint) -> Joint:  # type: ignore[override]
        return estimate._replace(words=super().carried(s_t.words, estimate.words, previous.words))

    def nll(self, estimate: Any, tokens: Tensor, label_smoothing: float = 0.0, mask: Tensor | None = None) -> Tensor:
        return super().nll(of_words(estimate), tokens, label_smoothing, mask)

    def round(self, estimate: Any) -> tuple[Tensor, Tensor]:
        return super().round(of_words(estimate))

    def read(self, s_t: Any, estimate: Any) -> tuple[Tensor, Tensor]:
        return super().read(of_words(s_t), of_words(estimate))

    def sample(
        self, estimate: Any, keys: Tensor, mask: Tensor, temperature: float = 1.0, truncation: Truncation = ALL
    ) -> Tensor:
        return super().sample(of_words(estimate), keys, mask, temperature, truncation)
