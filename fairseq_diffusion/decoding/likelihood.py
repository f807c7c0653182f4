"""The likelihood of given translations: of a data set's, of a user's, or of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.data import LanguagePairDataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.translators.base import Translator

POSITIONS = 2048  # of candidates that are scored at once


@dataclass(frozen=True)
class SentenceLikelihood:
    """-log p(translation | source) in nats, or an estimate of an upper bound on it."""

    nats: float  # inf for a translation that the model cannot make
    error: float  # standard error by the noise drawn; 0 where exact
    exact: bool
    tokens: int  # of the translation with its end

    @property
    def per_token(self) -> float:
        return self.nats / self.tokens


class LikelihoodScorer:
    """A translator's likelihoods.  Noise depends on seed and source, so that translations of a source are compared
    under the same noise, in any batch."""

    def __init__(self, translator: Translator, dictionary: Any, samples: int, steps: int | None = None, seed: int = 1):
        translator.check_likelihood(samples, steps)
        self.translator, self.samples, self.steps, self.seed = translator, samples, steps, seed
        self.bos, self.pad, self.eos = dictionary.bos(), dictionary.pad(), dictionary.eos()

    def of_batch(self, batch: dict[str, Any]) -> list[SentenceLikelihood]:
        """Of the targets of a fairseq batch."""
        target = batch["target"]
        owners = torch.arange(len(target), device=target.device)
        nats, error, exact = self._of(batch["net_input"]["src_tokens"], target, [owners])
        sizes = target.ne(self.pad).sum(-1)
        rows = zip(nats.tolist(), error.tolist(), sizes.tolist())
        return [SentenceLikelihood(*row[:2], exact, row[2]) for row in rows]

    def scores(self, net_input: dict[str, Any], hypotheses: list[list[list[int]]]) -> list[list[float]]:
        """log p(y | x) / (T + 1) of T tokens and the end of sentence, or its bound, for lists of tokens of each
        sentence."""
        rows = [torch.tensor([*tokens, self.eos]) for own in hypotheses for tokens in own]
        if not rows:
            return [[] for _ in hypotheses]
        tokens = net_input["src_tokens"]
        target = pad_sequence(rows, batch_first=True, padding_value=self.pad).to(tokens.device)
        owners = torch.tensor([owner for owner, own in enumerate(hypotheses) for _ in own], device=tokens.device)
        parts = owners.split(max(1, POSITIONS // target.shape[1]))
        nats = self._of(tokens, target, parts).nats / target.ne(self.pad).sum(-1)
        merit = iter((-nats).tolist())
        return [[next(merit) for _ in own] for own in hypotheses]

    @torch.no_grad()
    def _of(self, tokens: Tensor, target: Tensor, parts: Any) -> Likelihood:
        """Of targets [N, L] that end in </s>, whose sources are those of `tokens` [S, T] numbered in `parts`, which
        cut the N."""
        self.translator.eval()
        with_bos, first = (F.pad(x, (1, 0), value=self.bos) for x in (tokens, target))
        encoded = self.translator.encode(with_bos, with_bos.ne(self.pad))
        keys = noise.sentence_keys(self.seed, tokens, tokens.ne(self.pad))
        found: list[Likelihood] = []
        for own, rows in zip(parts, first.split([len(own) for own in parts])):
            about = encoded.select(own), rows, rows.ne(self.pad), keys[own]
            found.append(self.translator.likelihood(*about, self.samples, self.steps))
        nats, error = (torch.cat([getattr(each, name) for each in found]) for name in ("nats", "error"))
        return Likelihood(nats, error, found[0].exact)


def scored_batches(
    scorer: LikelihoodScorer, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[int, SentenceLikelihood]]:
    """Each sentence's number in its data set, and its likelihood."""
    for batch in batches:
        yield from zip(batch["id"].tolist(), scorer.of_batch(batch))


def pairs(task: Any, sources: list[Tensor], translations: list[str], longest: int) -> LanguagePairDataset:
    """A data set of sources and of the word pieces of their translations.

    A translation of more than `longest` tokens, or a source that is empty, is refused.
    """
    encode = partial(task.target_dictionary.encode_line, add_if_not_exist=False)
    targets = [encode(text).long() for text in translations]
    for index, (source, target) in enumerate(zip(sources, targets)):
        if len(source) < 2:
            raise UserError(f"source {index} (counted from 0) is empty, so it has no translation; leave the pair out")
        if len(target) > longest:
            raise UserError(
                f"translation {index} (counted from 0) has {len(target)} tokens with its end, but this model makes up "
                f"to {longest}; split the pair"
            )
    return LanguagePairDataset(
        sources,
        list(map(len, sources)),
        task.source_dictionary,
        targets,
        list(map(len, targets)),
        task.target_dictionary,
        left_pad_source=task.cfg.left_pad_source,
        left_pad_target=False,
        shuffle=False,
    )
