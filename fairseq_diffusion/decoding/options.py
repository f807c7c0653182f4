"""What a user asked of decoding, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairseq_diffusion.decoding.execution import EAGER
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.length import BEAMS
from fairseq_diffusion.samplers.gaussian import SAMPLERS, Sampler

STEPS = 20  # where fairseq's own default for --iter-decode-max-iter is not in force (validation)


@dataclass(frozen=True)
class CandidateOptions:
    """Candidates and their choice: what every kind of model understands."""

    length_beam: int = 1
    length_beam_kind: str = BEAMS[0]
    noise_beam: int = 1
    selection: str = "score"
    mbr_utility: str = "bleu"
    mbr_units: str = "tokens"
    rescore: bool = False
    nbest: int = 1
    oracle_length: bool = False
    history: bool = False
    candidate_positions: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.length_beam < 1:
            raise UserError(f"--iter-decode-with-beam is {self.length_beam}; at least one length must be tried")
        if self.noise_beam < 1:
            raise UserError(f"--noise-beam is {self.noise_beam}; at least one noise must be drawn for each length")
        if self.candidate_positions is not None and self.candidate_positions < 1:
            raise UserError(
                f"--candidate-positions is {self.candidate_positions}; pass how many positions of candidates are "
                "decoded at once, for example 1024, or drop it for the device's own"
            )
        if self.oracle_length and self.length_beam > 1:
            raise UserError("--oracle-length decodes the reference's length alone; drop it or --iter-decode-with-beam")


@dataclass(frozen=True)
class DecodeOptions(CandidateOptions):
    """Steps and sampler of a Gaussian model."""

    steps: int = STEPS
    sampler: str = "ddim"
    grid: str = "time"
    early_stop: float = 0.0
    decode_noise_factor: float = 1.0
    told: tuple[float | None, float | None] = (None, None)
    final_time: float | None = None
    eta: float | None = None
    temperature: float = 1.0
    guidance: float = 1.0
    clamp: bool = False
    prune_after: tuple[int, ...] = ()
    stop_stable: int = 0
    execution: str = EAGER

    @classmethod
    def from_flags(cls, task: Any, generation: Any, model: Any) -> DecodeOptions:
        """Ours from the task's config, fairseq's own (--iter-decode-..., --retain-iter-history) from `generation`, and
        what neither says from the model's."""
        factor = asked_or_systems(task, model, "decode_noise_factor")
        check_prediction(model, factor)
        return cls(
            **candidate_flags(task, generation, model),
            steps=getattr(generation, "iter_decode_max_iter", STEPS),
            sampler=str(asked_or_systems(task, model, "sampler")),
            grid=str(asked_or_systems(task, model, "grid")),
            early_stop=asked_or_systems(task, model, "early_stop"),
            decode_noise_factor=factor,
            told=(task.told_start, task.told_end),
            final_time=task.final_time,
            eta=task.eta,
            temperature=task.temperature,
            guidance=task.guidance,
            clamp=task.clamp,
            prune_after=parse_steps(task.prune_after),
            stop_stable=task.stop_stable,
            execution=str(task.execution),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decode_noise_factor <= 0:
            raise UserError(f"--decode-noise-factor is {self.decode_noise_factor}; pass a positive number, usually 1")
        if self.stop_stable < 0:
            raise UserError(f"--stop-stable is {self.stop_stable}; pass how many checks must agree, or 0 for no stop")
        if not 0 <= self.early_stop < 1:
            raise UserError(
                f"--early-stop is {self.early_stop}; pass the share of the steps to leave out, from 0 to below 1 "
                "(0.25: 15 of 20 are taken)"
            )
        if self.prune_after and self.length_beam * self.noise_beam == 1:
            raise UserError(
                "--prune-after drops candidates, and there is only one; raise --noise-beam or --iter-decode-with-beam"
            )
        taken = self.steps - self.left_out
        if late := [step for step in self.prune_after if not 0 < step < taken]:
            raise UserError(
                f"--prune-after names step {late[0]}, but candidates can be compared behind steps 1 to {taken - 1} of "
                f"the {taken} taken"
            )

    @property
    def left_out(self) -> int:
        """The steps that early stop leaves out, 5 of 20 for 0.25."""
        return int(self.early_stop * self.steps + 1e-9)

    def resolve_told(self, sampler: Sampler) -> tuple[float, float] | None:
        """The noise levels told to the network: what was asked for, else the sampler's own; None is the truth."""
        usual = sampler.told
        if self.told == (None, None):
            return usual
        if usual is None:
            raise UserError(
                f"the sampler {self.sampler} tells the network the true noise level, so --told-start and --told-end do "
                f"not apply; drop them or pass --sampler {' or '.join(s for s in SAMPLERS if SAMPLERS[s].told)}"
            )
        start, end = (asked if asked is not None else default for asked, default in zip(self.told, usual))
        if usual[0] != usual[1]:
            return start, end
        level, *more = {asked for asked in self.told if asked is not None}  # one level throughout: one flag says it
        if more:
            raise UserError(
                f"the sampler {self.sampler} tells the network one noise level throughout, but --told-start is {start} "
                f"and --told-end {end}; pass one of them"
            )
        return level, level


def asked_or_systems(task: Any, model: Any, name: str) -> Any:
    """What the task's flag `name` says, else the model's."""
    asked = getattr(task, name)
    return getattr(model, name) if asked is None else asked


def candidate_flags(task: Any, generation: Any, model: Any) -> dict[str, Any]:
    """The fields of CandidateOptions, from the same three places as the rest of a kind's options."""
    rescore = getattr(generation, "iter_decode_with_external_reranker", False)
    return {
        "length_beam": getattr(generation, "iter_decode_with_beam", 1),
        "length_beam_kind": str(asked_or_systems(task, model, "length_beam")),
        "noise_beam": task.noise_beam,
        "selection": task.selection or ("rescore" if rescore else "score"),
        "mbr_utility": str(task.mbr_utility),
        "mbr_units": str(task.mbr_units),
        "rescore": rescore,
        "nbest": getattr(generation, "nbest", 1),
        "oracle_length": task.oracle_length,
        "history": getattr(generation, "retain_iter_history", False),
        "candidate_positions": task.candidate_positions,
        "seed": task.decode_seed,
    }


def check_prediction(model: Any, factor: float) -> None:
    """v mixes state and noise by the level trained on, so the state must be at that level."""
    if str(model.prediction) == "v" and factor != model.noise_factor:
        raise UserError(
            f"this model predicts v under a noise factor of {model.noise_factor}, so it cannot decode with {factor}; "
            f"pass --decode-noise-factor {model.noise_factor}"
        )


def parse_steps(text: str) -> tuple[int, ...]:
    """ "5,10" -> (5, 10)."""
    try:
        return tuple(int(step) for step in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"--prune-after {text!r} is not a list of steps; write for example 5,10") from error
