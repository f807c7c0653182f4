"""Ranking a sentence's candidates, best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from fairseq_diffusion.decoding.mbr import ranking, ranking_two_level
from fairseq_diffusion.registry import Registry


@dataclass(frozen=True)
class Candidate:
    """One finished translation: tokens without special symbols, and log-probabilities of them and of the end."""

    tokens: list[int]
    log_p: list[float]  # one more than there are tokens
    length_rank: int  # which length of the beam it was decoded at

    @property
    def score(self) -> float:
        """Mean log-probability, as fairseq normalises its own."""
        return sum(self.log_p) / len(self.log_p)


Selection = Callable[[list[Candidate]], list[int]]
SELECTIONS: Registry[Selection] = Registry("selection")


@SELECTIONS.register("score")
def by_score(candidates: list[Candidate]) -> list[int]:
    """The model's own mean log-probability."""
    return sorted(range(len(candidates)), key=lambda i: -candidates[i].score)


@SELECTIONS.register("mbr")
def by_mbr(candidates: list[Candidate]) -> list[int]:
    """Minimum Bayes risk under BLEU among all candidates."""
    return ranking([candidate.tokens for candidate in candidates])


@SELECTIONS.register("mbr_two_level")
def by_mbr_two_level(candidates: list[Candidate]) -> list[int]:
    """As in DINOISER: among the noises of each length first, then among the lengths' winners."""
    groups: dict[int, list[int]] = {}
    for i, candidate in enumerate(candidates):
        groups.setdefault(candidate.length_rank, []).append(i)
    order = ranking_two_level([[candidates[i].tokens for i in group] for group in groups.values()])
    members = list(groups.values())
    return [members[group][i] for group, i in order]
