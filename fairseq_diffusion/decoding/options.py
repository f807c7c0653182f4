"""How a translation is chosen among candidates, and where decoding's options come from."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.decoding.rescore import MEASURES
from fairseq_diffusion.decoding.selection import UNITS, UTILITIES
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.registry import option

Own = TypeVar("Own")


@dataclass(frozen=True)
class SelectionOptions:
    """What the generator reads beside the translator's own options."""

    selection: str | None = option(
        None,
        "how to choose: score (the model's), joint (the same with the length's), mbr, mbr_two_level (within each "
        "length, then among them), likelihood (of the finished translation, by the model), rescore (an AR model's "
        "score), or a chain such as mbr:5,rescore (default: rescore where there is an AR model, else score)",
    )
    mbr_utility: str = option("bleu", "what MBR compares candidates by", choices=UTILITIES)
    mbr_units: str = option("tokens", "what MBR counts n-grams of: subword tokens, or whole words", choices=UNITS)
    rescore_by: str = option(
        "probability",
        "what rescore takes of the AR model: the mean log-probability of a translation's tokens, or their mean logit "
        "(energy: for a model trained with --criterion e_arm alone; of others it means nothing)",
        choices=MEASURES,
    )
    likelihood_samples: int = option(8, "samples of noise that --selection likelihood estimates a bound from")
    rescore: bool = option(False, generation="iter_decode_with_external_reranker")
    nbest: int = option(1, generation="nbest")
    history: bool = option(False, generation="retain_iter_history")
    candidate_positions: int | None = option(
        None,
        "decode a batch in buckets of so many positions at most: sentences x candidates x longest candidate (default: "
        "on a CPU 1024, in one pass 2048; on a GPU 32768)",
    )
    seed: int = option(1, flag="decode_seed")

    def __post_init__(self) -> None:
        if self.nbest < 1:
            raise UserError(f"--nbest is {self.nbest}; pass how many translations of a sentence are kept, 1 or more")
        if self.likelihood_samples < 2:
            raise UserError(f"--likelihood-samples is {self.likelihood_samples}; pass 2 or more, for example 8")
        if self.candidate_positions is not None and self.candidate_positions < 1:
            raise UserError(
                f"--candidate-positions is {self.candidate_positions}; pass how many positions of candidates are "
                "decoded at once, for example 1024, or drop it for the device's own"
            )

    def check_read(self, candidates: int) -> None:
        """Refuse what has no effect with this chain, or where each sentence has so many candidates."""
        by_mbr, by_likelihood = "mbr" in self.chain, "likelihood" in self.chain
        readers = {
            "mbr_utility": (by_mbr, "mbr"),
            "mbr_units": (by_mbr and self.mbr_utility != "chrf", "mbr with --mbr-utility bleu"),
            "likelihood_samples": (by_likelihood, "likelihood"),
            "rescore_by": ("rescore" in self.chain, "rescore"),
        }
        for name, (is_read, reader) in readers.items():
            if not is_read and (value := getattr(self, name)) != getattr(SelectionOptions, name):
                raise UserError(
                    f"{spelt(name)} is {value}, but the selection {self.chain!r} does not use it; drop it (--selection "
                    f"{reader} reads it)"
                )
        if candidates == 1 and (self.nbest > 1 or self.chain != "score"):
            asked = f"--nbest is {self.nbest}" if self.nbest > 1 else f"the selection is {self.chain!r}"
            raise UserError(
                f"{asked}, but each sentence has one candidate; drop it, or raise --iter-decode-with-beam or "
                "--noise-beam, or pass --path-search beam where words are searched for"
            )

    @property
    def chain(self) -> str:
        """The selection asked for, or the usual one."""
        return self.selection or ("rescore" if self.rescore else "score")


def flag_of(field: Field) -> tuple[str, str]:
    """Where fairseq's configuration has an option, its section and name: ("task", "noise_beam")."""
    generation = field.metadata["generation"]
    return ("generation", generation) if generation else ("task", field.metadata["flag"] or field.name)


def read_options(kind: type[Own], task: Any, generation: Any, model: Any) -> Own:
    """Options of a `kind`, from the task's and fairseq's generation flags; what neither sets is taken from
    the model's."""
    sections, found = {"task": task, "generation": generation}, {}
    for field in fields(kind):  # type: ignore[arg-type]
        section, name = flag_of(field)
        value = getattr(sections[section], name, None if field.metadata["system"] else field.default)
        if value is None and field.metadata["system"]:
            value = getattr(model, name)
        found[field.name] = str(value) if field.metadata["choices"] else value
    return kind(**found)
