"""The plain form of step-by-step decoding, which what the package does is compared with.

The encoded source is copied for every candidate, its keys and values are computed at every step, queries, keys and
values are three products, all candidates' logits are held at the end, hypotheses are made one by one, and candidates
are chosen by a loop of sacreBLEU.  It translates as the package does: with the same weights, noise, steps and lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sacrebleu.metrics import BLEU
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.loop import sample


@dataclass(frozen=True)
class NaiveRows:
    """S K candidates, each with its own copy of the source; what the sampling loop needs."""

    translator: Any
    states: Tensor  # [S K, T, h]
    source_mask: Tensor  # [S K, T]
    keys: Tensor  # [M, S, K]
    mask: Tensor  # [S, K, L]

    @property
    def state(self) -> Any:
        return self.translator.state

    def settle(self, estimate: Tensor) -> Tensor:
        return estimate

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        parts, mask, x = self.translator, self.mask.flatten(0, 1), x_t.flatten(0, 1)
        net, times = parts.denoiser, t.expand(len(x))
        condition = None if parts.self_conditioning == "none" else c.flatten(0, 1)
        h = net.enter(x, condition) + net.time(times)[:, None]
        h = net.norm(h + net.positions(mask))
        for layer in net.layers:
            h = plain_layer(layer, h, mask, self.states, self.source_mask)
        output = net.leave(net.last_norm(h))
        return parts.prediction(output, x, parts.schedule.level(times[:, None])).view(x_t.shape)


def plain_layer(layer: Any, x: Tensor, mask: Tensor, states: Tensor, source_mask: Tensor) -> Tensor:
    """x [N, L, h] after self-attention, attention to the source's states [N, T, h], and feed-forward."""
    first, second, last = layer.residuals
    own, other = layer.self_attention, layer.cross_attention
    weights, biases = (part.chunk(3) for part in (own.query_key_value.weight, own.query_key_value.bias))
    inner = first.enter(x)
    x = first.leave(x, attend(inner, inner, mask, weights, biases, own))
    weights, biases = (
        (getattr(other.query, kind), *getattr(other.key_value, kind).chunk(2)) for kind in ("weight", "bias")
    )
    x = second.leave(x, attend(second.enter(x), states, source_mask, weights, biases, other))
    return last.leave(x, layer.feed_forward(last.enter(x)))


def attend(x: Tensor, memory: Tensor, mask: Tensor, weights: Any, biases: Any, attention: Any) -> Tensor:
    """From x [N, L, h] to memory [N, T, h], of which mask [N, T] is real."""
    inputs = (x, memory, memory)
    split = [
        F.linear(part, weight, bias).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for part, weight, bias in zip(inputs, weights, biases)
    ]
    seen = F.scaled_dot_product_attention(*split, attn_mask=mask[:, None, None])
    return attention.out(seen.transpose(1, 2).flatten(2))


class NaiveGenerator:
    """Decodes with the options of `generator`, one of ours."""

    compile_seconds = 0.0

    def __init__(self, generator: Any, dictionary: Any):
        self.decoder, self.seed, self.dictionary = generator.decoder, generator.selection.seed, dictionary
        self.metric = BLEU(effective_order=True, tokenize="none")

    @torch.no_grad()
    def generate(self, models: list[Any], batch: dict[str, Any]) -> list[list[dict[str, Any]]]:
        (model,) = models
        rows = self.rows(model, batch["net_input"]["src_tokens"])
        x_0 = sample(rows, self.decoder.grid, self.decoder.steps).estimate
        log_p, tokens = (x_0 @ model.translator.state.readout().T).log_softmax(-1).max(-1)
        return [[self.chosen(*sentence)] for sentence in zip(tokens, log_p, rows.mask)]

    def rows(self, model: Any, src_tokens: Tensor) -> NaiveRows:
        parts, K = model.translator, self.decoder.options.noise_beam
        tokens = F.pad(src_tokens, (1, 0), value=self.dictionary.bos())
        mask = tokens.ne(self.dictionary.pad())
        states = parts.encoder(tokens, mask)
        lengths = parts.length.candidates(parts.length(states, mask), mask.sum(-1), 1)
        keys = noise.sentence_keys(self.seed, src_tokens, src_tokens.ne(self.dictionary.pad()))
        keys = noise.fold(keys[:, None], lengths, torch.arange(K, device=lengths.device))
        keys = noise.fold(keys, torch.arange(self.decoder.grid.steps, device=keys.device)[:, None, None])
        real = torch.arange(int(lengths.max()), device=lengths.device) < lengths[..., None]
        copied = states.repeat_interleave(K, 0), mask.repeat_interleave(K, 0)
        return NaiveRows(parts, *copied, keys, real.expand(-1, K, -1))

    def chosen(self, tokens: Tensor, log_p: Tensor, mask: Tensor) -> dict[str, Any]:
        """Of a sentence's candidates [K, L], the one most like the others."""
        hypotheses = [self.hypothesis(*candidate) for candidate in zip(tokens, log_p, mask)]
        texts = [self.dictionary.string(hypothesis["tokens"]) for hypothesis in hypotheses]
        return hypotheses[int(np.argmax([self.utility(k, texts) for k in range(len(texts))]))]

    def hypothesis(self, tokens: Tensor, log_p: Tensor, mask: Tensor) -> dict[str, Any]:
        special = torch.isin(tokens, self.decoder.translator.special_ids)
        end = self.dictionary.eos()
        words, score = tokens[mask & ~special], log_p[mask].mean().item()
        return {"tokens": torch.cat([words, words.new_tensor([end])]).cpu(), "score": score}

    def utility(self, k: int, texts: list[str]) -> float:
        others = [text for j, text in enumerate(texts) if j != k]
        return float(np.mean([self.metric.sentence_score(texts[k], [text]).score for text in others] or [0.0]))
