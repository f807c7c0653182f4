"""The flags of decoding with a diffusion translator, and what of them makes no sense together.  torch only."""

from __future__ import annotations

from dataclasses import dataclass

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.rounding import Truncation
from fairseq_diffusion.registry import option
from fairseq_diffusion.samplers.grid import GRIDS
from fairseq_diffusion.samplers.loop import SAMPLERS, Drawing, Sampler
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.base import Options
from fairseq_diffusion.translators.execution import EAGER, EXECUTIONS


@dataclass(frozen=True)
class DiffusionOptions(Options):
    """Steps and sampler."""

    steps: int = option(20, generation="iter_decode_max_iter")
    sampler: str = option("ddim", "sampler", choices=SAMPLERS, system=True)
    grid: str = option(
        "time",
        "steps even in time, in sigma, in log SNR, in what training draws evenly, by a cosine, or taken from the "
        "model's own",
        choices=GRIDS,
        system=True,
    )
    early_stop: float = option(0.0, "share of the steps, the last ones, to leave out; 0.25 takes 15 of 20", system=True)
    decode_noise_factor: float = option(1.0, "noise factor F in decoding", system=True)
    conditioning_sigma_start: float | None = option(
        None, "cedi, fixed_t: noise level sigma that the network is conditioned on at the first step"
    )
    conditioning_sigma_end: float | None = option(None, "cedi: the same behind the last step")
    final_time: float | None = option(None, "diffusion time at which sampling ends (default: 0.001)")
    eta: float | None = option(
        None,
        "share of fresh noise, from 0 (ddim) to 1 (ddpm); remasking: probability that a shown word is hidden again, at "
        "most; resample: share of the words, the least probable, that a step draws anew (default: the sampler's)",
    )
    temperature: float = option(1.0, "diffusion: divide the score by it; below 1 the model is trusted more")
    word_temperature: float | None = option(
        None, "tokens: temperature that words are drawn at; 0 takes the most probable (default: the sampler's)"
    )
    top_k: int = option(0, "tokens: draw among the k most probable (0: all)")
    top_p: float = option(1.0, "tokens: draw among the most probable until their probabilities add up to p (1: all)")
    guidance: float = option(1.0, "weight of classifier-free guidance; needs a model trained with --source-drop")
    clamp: bool = option(False, "move each estimate to the embedding of its most probable token")
    prune_after: str = option("", "steps behind which the worse half of a sentence's candidates is dropped, as in 5,10")
    stop_stable: int = option(0, "a candidate is finished once its tokens stayed the same so many steps (0: never)")
    execution: str = option(
        EAGER,
        "how a step is run: as it is, by torch.compile, or as a CUDA graph; the last two are made once for each shape "
        "of a batch",
        choices=EXECUTIONS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decode_noise_factor <= 0:
            raise UserError(f"--decode-noise-factor is {self.decode_noise_factor}; pass a positive number, usually 1")
        if self.stop_stable < 0:
            raise UserError(f"--stop-stable is {self.stop_stable}; pass how many checks must agree, or 0 for no stop")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"--top-k is {self.top_k} and --top-p {self.top_p}; pass a number of words, or 0 for all, and a share "
                "above 0, 1 for all"
            )
        if not 0 <= self.early_stop < 1:
            raise UserError(
                f"--early-stop is {self.early_stop}; pass the share of the steps to leave out, from 0 to below 1 "
                "(0.25: 15 of 20 are taken)"
            )
        if self.prune_steps and self.length_beam * self.noise_beam == 1:
            raise UserError(
                "--prune-after drops candidates, and there is only one; raise --noise-beam or --iter-decode-with-beam"
            )
        taken = self.steps - self.left_out
        if late := [step for step in self.prune_steps if not 0 < step < taken]:
            raise UserError(
                f"--prune-after names step {late[0]}, but candidates can be compared behind steps 1 to {taken - 1} of "
                f"the {taken} taken"
            )

    @property
    def drawing(self) -> Drawing:
        """How words are drawn."""
        return Drawing(self.word_temperature, Truncation(self.top_k, self.top_p))

    @property
    def left_out(self) -> int:
        """The steps that early stop leaves out, 5 of 20 for 0.25."""
        return int(self.early_stop * self.steps + 1e-9)

    @property
    def prune_steps(self) -> tuple[int, ...]:
        """ "5,10" -> (5, 10)."""
        try:
            return tuple(int(step) for step in self.prune_after.split(",")) if self.prune_after else ()
        except ValueError as error:
            raise UserError(
                f"--prune-after {self.prune_after!r} is not a list of steps; write for example 5,10"
            ) from error

    def conditioning(self, sampler: Sampler) -> tuple[float, float] | None:
        """Noise levels to condition the network on: those asked for, else the sampler's; None for the sample's own."""
        usual, asked = sampler.conditioning, (self.conditioning_sigma_start, self.conditioning_sigma_end)
        if asked == (None, None):
            return usual
        if usual is None:
            able = " or ".join(name for name in SAMPLERS if SAMPLERS[name].conditioning)
            raise UserError(
                f"the sampler {self.sampler} conditions the network on the sample's own noise level, so "
                "--conditioning-sigma-start and --conditioning-sigma-end do not apply; drop them or pass --sampler "
                f"{able}"
            )
        start, end = (value if value is not None else default for value, default in zip(asked, usual))
        if usual[0] != usual[1]:
            return start, end
        level, *more = {value for value in asked if value is not None}  # one level throughout: one flag says it
        if more:
            raise UserError(
                f"the sampler {self.sampler} conditions the network on one noise level throughout, but "
                f"--conditioning-sigma-start is {start} and --conditioning-sigma-end {end}; pass one of them"
            )
        return level, level


def check_words(options: DiffusionOptions, state: State) -> None:
    """Refuse what has no meaning where states are words."""
    if state.paired:
        check_pairs(options)
    if options.clamp:
        raise UserError("--clamp moves vectors to those of words, but this model's states are words; drop it")
    if options.decode_noise_factor != 1:
        raise UserError(
            f"--decode-noise-factor {options.decode_noise_factor} multiplies Gaussian noise, but this model's states "
            "are words; drop it"
        )
    if options.stop_stable and not state.replaces:
        raise UserError(
            f"--stop-stable {options.stop_stable} would end with words that are still hidden; drop it, or use a model "
            "whose words are replaced (--mask-share below 1)"
        )


def check_pairs(options: DiffusionOptions) -> None:
    """Refuse what is not made for words that have latents beside them."""
    for flag, asked in (("--draft", options.draft is not None), ("--complete", options.complete)):
        if asked:
            raise UserError(
                f"{flag} begins with words, and this model's have latents beside them (--state joint); drop it"
            )
    if options.execution != EAGER:
        raise UserError(f"--execution {options.execution} is not made for --state joint; pass --execution eager")


def check_draws(options: DiffusionOptions, state: State, draws: bool) -> None:
    """Several candidates of a length differ: they begin with different words, or `draws` on the way."""
    if options.noise_beam > 1 and options.draft is None and not (draws or state.replaces):
        raise UserError(
            f"--noise-beam is {options.noise_beam}, but --sampler {options.sampler} draws nothing, so that candidates "
            "of a length would be the same; pass --word-temperature above 0, or drop it"
        )


def check_prediction(prediction: str, trained: float, factor: float, conditioned: bool = False) -> None:
    """v and posterior read the state by the level trained on, so the state must be at that level; the latter also by
    the time that the network is conditioned on, which must be the sample's own."""
    if prediction in ("v", "posterior") and factor != trained:
        raise UserError(
            f"this model (--prediction {prediction}) was trained under a noise factor of {trained}, so it cannot "
            f"decode with {factor}; pass --decode-noise-factor {trained}"
        )
    if prediction == "posterior" and conditioned:
        raise UserError(
            "this model (--prediction posterior) needs to know the sample's own noise; pass a --sampler that "
            "conditions the network on it, as ddim or ddpm, and no --conditioning-sigma-start, --conditioning-sigma-end"
        )
