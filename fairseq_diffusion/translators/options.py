"""The flags of decoding that every translator reads.  torch only."""

from __future__ import annotations

from dataclasses import dataclass

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.length import BEAMS
from fairseq_diffusion.ranges import FINITE, WEIGHT, check_ranges
from fairseq_diffusion.registry import option

RANGES = {  # of the options of all translators; most have closer checks of their own
    **dict.fromkeys(
        ("length_beam", "noise_beam", "steps", "passes", "beam", "top_k", "stop_stable", "latents_steps"), FINITE
    ),
    **dict.fromkeys(("early_stop", "draft", "eta", "final_time", "top_p", "temperature", "word_temperature"), FINITE),
    **dict.fromkeys(
        ("decode_noise_factor", "guidance", "latents_guidance", "length_penalty", "blank_penalty", "lookahead_weight"),
        FINITE,
    ),
    **dict.fromkeys(("conditioning_sigma_start", "conditioning_sigma_end"), WEIGHT),
}


@dataclass(frozen=True)
class Options:
    """Which candidates there are.  Subclasses add their own."""

    length_beam: int = option(1, generation="iter_decode_with_beam")
    length_beam_kind: str = option(
        BEAMS[0],
        "lengths to try: the most probable, or the most probable and its neighbours",
        choices=BEAMS,
        flag="length_beam",
        system=True,
    )
    noise_beam: int = option(1, "candidates with different noise to decode at each length")
    oracle_length: bool = option(False, "FOR ANALYSIS ONLY: decode at the reference's length")
    draft: float | None = option(
        None,
        "begin with the translation of the second checkpoint on --path: at this diffusion time, or in several passes "
        "with this share of its words hidden; from above 0 to 1",
    )
    drop_repeats: bool = option(False, "drop a word that repeats its neighbour (models without CTC or DAG may stutter)")
    latents_steps: int = option(
        10, "steps that latents of a translation are made in, before its words; 0: without them"
    )
    latents_guidance: float = option(
        1.0, "weight of classifier-free guidance for latents; needs a model trained with --latents-source-drop"
    )
    complete: bool = option(
        False,
        "fairseq-interactive: complete the template behind a tab in each line, such as ___ dog ___ snow ___, where ___ "
        "stands for any number of words",
    )

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, self.flag)
        if self.complete and (self.oracle_length or self.draft is not None or self.drop_repeats):
            raise UserError(
                "--complete looks for lengths and words that go with a template, which stays as it is, so it does not "
                "go with --oracle-length, --draft or --drop-repeats; drop them"
            )
        if self.length_beam < 1:
            raise UserError(f"--iter-decode-with-beam is {self.length_beam}; at least one length must be tried")
        if self.noise_beam < 1:
            raise UserError(f"--noise-beam is {self.noise_beam}; at least one noise must be drawn for each length")
        if self.oracle_length and self.length_beam > 1:
            raise UserError("--oracle-length decodes the reference's length alone; drop it or --iter-decode-with-beam")
        if self.draft is not None and not 0 < self.draft <= 1:
            raise UserError(f"--draft is {self.draft}; pass a number from above 0 to 1, for example 0.5")
        if self.draft is not None and (self.oracle_length or self.length_beam > 1):
            raise UserError(
                "--draft begins with one translation, so with its length; drop --iter-decode-with-beam and "
                "--oracle-length"
            )

        if self.latents_steps < 0:
            raise UserError(f"--latents-steps is {self.latents_steps}; pass 1 or more, or 0 to do without latents")

    def flag(self, name: str) -> str:
        """How users type an option."""
        own = self.__dataclass_fields__[name].metadata
        return spelt(own["generation"] or own["flag"] or name)


def check_no_latents(options: Options) -> None:
    """Refuse flags of latents for a model that has none."""
    for name in ("latents_steps", "latents_guidance"):
        if getattr(options, name) != Options.__dataclass_fields__[name].default:
            raise UserError(
                f"{spelt(name)} is {getattr(options, name)}, but this model makes no latents before its words; drop it"
            )
