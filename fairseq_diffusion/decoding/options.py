"""What a user asked of decoding, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.length import BEAMS
from fairseq_diffusion.sampler.rules import SAMPLERS

STEPS = 20  # where fairseq's own default for --iter-decode-max-iter is not in force (validation)


@dataclass(frozen=True)
class DecodeOptions:
    """Steps, sampler, candidates and their choice."""

    steps: int = STEPS
    sampler: str | None = None
    told: tuple[float | None, float | None] = (None, None)
    final_time: float = 1e-3
    length_beam: int = 1
    length_beam_kind: str = BEAMS[0]
    noise_beam: int = 1
    selection: str = "score"
    nbest: int = 1
    oracle_length: bool = False
    history: bool = False
    seed: int = 1

    @classmethod
    def from_flags(cls, task: Any, generation: Any) -> DecodeOptions:
        """Ours from the task's config, fairseq's own (--iter-decode-..., --retain-iter-history) from `generation`."""
        return cls(
            steps=getattr(generation, "iter_decode_max_iter", STEPS),
            sampler=task.sampler and str(task.sampler),
            told=(task.told_start, task.told_end),
            final_time=task.final_time,
            length_beam=getattr(generation, "iter_decode_with_beam", 1),
            length_beam_kind=str(task.length_beam),
            noise_beam=task.noise_beam,
            selection=str(task.selection),
            nbest=getattr(generation, "nbest", 1),
            oracle_length=task.oracle_length,
            history=getattr(generation, "retain_iter_history", False),
            seed=task.decode_seed,
        )

    def __post_init__(self) -> None:
        if self.length_beam < 1:
            raise UserError(f"--iter-decode-with-beam is {self.length_beam}; at least one length must be tried")
        if self.noise_beam < 1:
            raise UserError(f"--noise-beam is {self.noise_beam}; at least one noise must be drawn for each length")
        if self.oracle_length and self.length_beam > 1:
            raise UserError("--oracle-length decodes the reference's length alone; drop it or --iter-decode-with-beam")

    def resolve_told(self, sampler: str) -> tuple[float, float] | None:
        """The noise levels told to the network: what was asked for, else the sampler's own; None is the truth."""
        usual = SAMPLERS[sampler].told
        if self.told == (None, None):
            return usual
        if usual is None:
            raise UserError(
                f"the sampler {sampler} tells the network the true noise level, so --told-start and --told-end do not "
                f"apply; drop them or pass --sampler {' or '.join(s for s in SAMPLERS if SAMPLERS[s].told)}"
            )
        start, end = (asked if asked is not None else default for asked, default in zip(self.told, usual))
        return start, end
