"""Choosing among the candidates of a batch: a chain of stages, each of which ranks what the one before it kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Callable, Protocol

import numpy as np

from fairseq_diffusion.decoding import mbr
from fairseq_diffusion.decoding.ngrams import unpadded
from fairseq_diffusion.decoding.words import Pieces
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.translators.batch import Candidates

if TYPE_CHECKING:
    from fairseq_diffusion.decoding.rescore import Teacher

UTILITIES = {"bleu": mbr.bleu, "chrf": mbr.chrf}
UNITS = ("tokens", "words")
ENTRIES = 2**18  # n-gram counts held at once, about: what a cache takes


@dataclass(frozen=True)
class Pool:
    """The U different translations that are left of a sentence; where it has fewer, the rest have no votes."""

    tokens: np.ndarray  # [S, U, L]
    sizes: np.ndarray  # [S, U]
    scores: np.ndarray  # [S, U] of the best copy
    votes: np.ndarray  # [S, U, R] copies at each length of the beam
    index: np.ndarray  # [S, U] the best copy's index among the candidates; -1 where there is none
    joint: np.ndarray  # [S, U] of the copy for which it is highest

    @classmethod
    def of(cls, candidates: Candidates) -> Pool:
        """Different translations by falling model score: where a stage finds two equal, the order of the
        stage before it stays, at first that of the scores.  Candidates that were dropped have no vote."""
        scores = np.where(candidates.alive, candidates.scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        c, scores = candidates, take(scores, order)
        tokens, sizes, length, joint, alive = (
            take(part.numpy(), order) for part in (c.tokens, c.sizes, c.length_rank, c.joint, c.alive)
        )
        number = np.array([first_seen(sentence) for sentence in tokens])
        votes = np.zeros((len(tokens), number.max() + 1, length.max() + 1), dtype=np.int64)
        np.add.at(votes, (np.arange(len(tokens))[:, None], number, length), alive)
        exists = votes.any(axis=2)
        first = (number[:, None, :] == np.arange(votes.shape[1])[:, None]).argmax(axis=2)
        index = np.where(exists, take(order, first), -1)
        highest = np.full(exists.shape, -np.inf)
        np.maximum.at(highest, (np.arange(len(tokens))[:, None], number), np.where(alive, joint, -np.inf))
        sizes = np.where(exists, take(sizes, first), 0)
        return cls(take(tokens, first), sizes, take(scores, first), votes, index, highest)

    @property
    def exists(self) -> np.ndarray:
        """[S, U] whether there is such a translation."""
        return self.index >= 0

    def keep(self, order: np.ndarray) -> Pool:
        """The translations of order [S, U'] alone."""
        return Pool(*(take(getattr(self, field.name), order) for field in fields(self)))


def take(part: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Entries of `part` [S, U, ...] in the order [S, U']."""
    return part[np.arange(len(part))[:, None], order]


def first_seen(rows: np.ndarray) -> list[int]:
    """For each row of [K, L]: how many different rows come before its first copy."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]


class Scorer(Protocol):
    """Scores finished translations."""

    def scores(self, net_input: dict[str, Any], hypotheses: list[list[list[int]]]) -> list[list[float]]:
        """One for each list of tokens, high is good; `net_input` is fairseq's, `hypotheses` are lists for each of its
        sentences."""


# pool, the selector with what stages compare by, the batch's net_input -> merit [S, U], high is good
Stage = Callable[[Pool, "Selector", Any], np.ndarray]
SELECTIONS: Registry[Stage] = Registry("selection")


@SELECTIONS.register("score")
def by_score(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """The model's own mean log-probability."""
    return pool.scores


@SELECTIONS.register("joint")
def by_joint_score(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """The model's own log-probability of length and words together, per token."""
    return pool.joint


@SELECTIONS.register("mbr")
def by_mbr(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """Minimum Bayes risk among all candidates."""
    return mbr.expected_utility(selector.utility(pool), pool.votes.sum(axis=2))


@SELECTIONS.register("mbr_two_level")
def by_mbr_two_level(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """Minimum Bayes risk among the noises of each length first, then among the lengths' winners."""
    return mbr.two_level_merit(selector.utility(pool), pool.votes)


@SELECTIONS.register("rescore")
def by_teacher(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """An autoregressive model's mean log-probability (noisy parallel decoding, Gu et al. 2018), or logit."""
    return scored(pool, selector.teacher, net_input)


@SELECTIONS.register("likelihood")
def by_likelihood(pool: Pool, selector: Selector, net_input: Any) -> np.ndarray:
    """The model's own likelihood of the finished translation, or its bound, per token."""
    return scored(pool, selector.likelihoods, net_input)


def scored(pool: Pool, scorer: Scorer, net_input: Any) -> np.ndarray:
    """What `scorer` says of each translation, [S, U]."""
    hypotheses = [
        [row[:size].tolist() for row, size in zip(tokens[exists], sizes[exists])]
        for tokens, sizes, exists in zip(pool.tokens, pool.sizes, pool.exists)
    ]
    merit = np.full(pool.sizes.shape, -np.inf)
    merit[pool.exists] = [p for sentence in scorer.scores(net_input, hypotheses) for p in sentence]
    return merit


def parse(spec: str) -> list[tuple[str, int | None]]:
    """The stages of `STAGE[:KEEP],STAGE[:KEEP],...`, and how many different translations each keeps; None: all."""
    chain = [parse_stage(text.strip()) for text in spec.split(",")]
    for stage, keep in chain[:-1]:
        if keep is None:
            raise UserError(
                f"the selection {spec!r} does not give the number of candidates that its stage {stage} passes on; "
                f"write {stage}:5 for five"
            )
    return chain


def parse_stage(text: str) -> tuple[str, int | None]:
    stage, colon, keep = text.partition(":")
    SELECTIONS[stage]  # an unknown name lists the choices
    if colon and not (keep.isascii() and keep.isdigit() and int(keep) > 0):
        raise UserError(f"the selection {text!r} keeps {keep!r} candidates; write a number from 1 on, as in {stage}:5")
    return stage, int(keep) if colon else None


class Selector:
    """Ranks a batch's candidates by a chain of stages such as ``score:10,mbr:3,rescore``.

    What a stage does not keep comes behind all that it keeps, in that stage's order. BLEU is of tokens or of words;
    chrF is always of the characters of words.
    """

    def __init__(
        self,
        spec: str,
        utility: str = "bleu",
        units: str = "tokens",
        dictionary: Any = None,
        teacher: Teacher | None = None,
        likelihoods: Scorer | None = None,
    ):
        self.chain = parse(spec)
        check_teacher(spec, [stage for stage, _ in self.chain], teacher)
        self.teacher: Any = teacher  # read by `rescore` alone, which has one
        self.likelihoods: Any = likelihoods  # the generator's; read by `likelihood` alone
        self._compare, self._read = UTILITIES[utility], unpadded
        if utility == "chrf" or units == "words":
            pieces = Pieces(dictionary)
            self._read = pieces.characters if utility == "chrf" else pieces.words

    def utility(self, pool: Pool) -> np.ndarray:
        """Utilities of all pairs of a pool's translations, [S, U, U]; in slices of the batch, to bound memory."""
        count = max(1, ENTRIES // max(1, pool.tokens.size // len(pool.tokens) * pool.sizes.shape[1]))
        slices = [slice(first, first + count) for first in range(0, len(pool.tokens), count)]
        return np.concatenate([self._compare(self._read(pool.tokens[part], pool.sizes[part])) for part in slices])

    def __call__(self, candidates: Candidates, net_input: dict[str, Any] | None = None) -> list[list[int]]:
        """For every sentence the indices of its different candidates, best first; of copies, that of the best one."""
        pool = Pool.of(candidates)
        dropped: list[np.ndarray] = []
        for stage, keep in self.chain:
            merit = np.where(pool.exists, SELECTIONS[stage](pool, self, net_input), -np.inf)
            order = np.argsort(-merit, axis=1, kind="stable")
            keep = keep or order.shape[1]
            dropped.insert(0, take(pool.index, order[:, keep:]))
            pool = pool.keep(order[:, :keep])
        ranked = np.concatenate([pool.index, *dropped], axis=1)
        return [[index for index in sentence if index >= 0] for sentence in ranked.tolist()]


def check_teacher(spec: str, stages: list[str], teacher: Teacher | None) -> None:
    wanted = "rescore" in stages
    if wanted and teacher is None:
        raise UserError(
            f"the selection {spec!r} rescores candidates with an autoregressive model, and there is none: give its "
            "checkpoint last on --path (MODEL.pt:TEACHER.pt) together with --iter-decode-with-external-reranker"
        )
    if teacher is not None and not wanted:
        raise UserError(
            f"--iter-decode-with-external-reranker gives a model that rescores candidates, and the selection {spec!r} "
            f"does not use it; pass --selection rescore or {stages[-1]}:5,rescore, or drop the flag"
        )
