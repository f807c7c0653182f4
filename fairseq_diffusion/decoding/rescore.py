"""Scoring finished translations with an autoregressive model (noisy parallel decoding, Gu et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from fairseq.models import FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from fairseq.models.nat import FairseqNATModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_diffusion.errors import UserError

LOGITS = 2**24  # held at once: 64 MB, and as much for their softmax


def probability(model: Any, output: Any, target: Tensor) -> Tensor:
    """log p of each word of target [B, L], from the decoder's output."""
    log_p = model.get_normalized_probs(output, log_probs=True, sample={"target": target})
    return log_p.gather(2, target[..., None])[..., 0]


def energy(model: Any, output: Any, target: Tensor) -> Tensor:
    """The same for the logit, which is minus the energy: log p, and log sum exp of all logits there."""
    return output[0].gather(2, target[..., None])[..., 0]


MEASURES = {"probability": probability, "energy": energy}


class Teacher:
    """A left-to-right translation model of fairseq, which scores translations by one of the MEASURES of a word."""

    def __init__(self, model: Any, dictionary: Any, measure: str = "probability"):
        check_left_to_right(model)
        if measure == "energy" and model.decoder.adaptive_softmax is not None:
            raise UserError(
                "--rescore-by energy reads the logits of all words, which the autoregressive model that rescores does "
                "not have: it was trained with --adaptive-softmax-cutoff; drop --rescore-by"
            )
        model.eval()  # returns nothing once fairseq has prepared a model for inference
        self.model, self.measure = model, MEASURES[measure]
        self.eos, self.pad, self.words = dictionary.eos(), dictionary.pad(), len(dictionary)

    @torch.no_grad()
    def scores(self, net_input: dict[str, Any], hypotheses: list[list[list[int]]]) -> list[list[float]]:
        """1/(T+1) sum_t log p(y_t | y_<t, x), or of the logits, over the T tokens of each hypothesis and the end of
        sentence.

        `net_input` has fairseq's src_tokens [S, L] and src_lengths [S]; `hypotheses` a list of token lists for each of
        the S sentences. The encoder runs once, and rows of similar length are scored together, with little padding.
        """
        owners = [owner for owner, own in enumerate(hypotheses) for _ in own]
        rows = [[*tokens, self.eos] for own in hypotheses for tokens in own]
        if not rows:
            return [[] for _ in hypotheses]
        self._check_lengths(rows)
        encoded = self.model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        scored = [
            self._score(encoded, torch.tensor([owners[i] for i in part]), [rows[i] for i in part])
            for part in self._parts(order, rows)
        ]
        by_row = dict(zip(order, torch.cat(scored).tolist()))
        scores = iter(by_row[i] for i in range(len(rows)))
        return [[next(scores) for _ in own] for own in hypotheses]

    def _parts(self, order: list[int], rows: list[list[int]]) -> Iterator[list[int]]:
        """Rows in `order`, longest first, in parts whose logits are bounded."""
        first = 0
        while first < len(order):
            count = max(1, LOGITS // (len(rows[order[first]]) * self.words))
            yield order[first : first + count]
            first += count

    def _score(self, encoded: Any, owners: Tensor, rows: list[list[int]]) -> Tensor:
        """Mean measures [B] of rows that end in </s>, of the sentences owners [B] of the encoder's output."""
        device = next(self.model.parameters()).device
        sizes = torch.tensor([len(row) for row in rows], device=device)
        target = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=self.pad).to(device)
        previous = target.roll(1, dims=1)
        previous[:, 0] = self.eos  # where fairseq's translation task starts
        mine = self.model.encoder.reorder_encoder_out(encoded, owners.to(device))
        output = self.model.decoder(previous, encoder_out=mine)
        chosen = self.measure(self.model, output, target).double()
        real = torch.arange(target.shape[1], device=device) < sizes[:, None]
        return chosen.masked_fill(~real, 0.0).sum(dim=1) / sizes

    def _check_lengths(self, rows: list[list[int]]) -> None:
        longest, most = max(map(len, rows)), self.model.max_decoder_positions()
        if longest > most:
            raise UserError(
                f"a candidate has {longest} tokens with its end of sentence, and the autoregressive model that "
                f"rescores takes up to {most}; train one with a larger --max-target-positions, or drop rescore"
            )


def check_left_to_right(model: Any) -> None:
    """The model is an encoder and a decoder that predicts each token from those before it."""
    left_to_right = (
        isinstance(model, FairseqEncoderDecoderModel)
        and isinstance(model.decoder, FairseqIncrementalDecoder)
        and not isinstance(model, FairseqNATModel)
    )
    if not left_to_right:
        raise UserError(
            "--iter-decode-with-external-reranker takes the last checkpoint of --path for an autoregressive model, and "
            f"this one holds a {type(model).__name__}; train one with fairseq's own --task translation "
            "(--arch transformer) on this data, and name it last"
        )
