"""The one-pass translator: a decoder in blocks predicts all words at once, or in a few passes.  torch only."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.alignment.base import Alignment, Canvas
from fairseq_diffusion.alignment.glancing import Glance
from fairseq_diffusion.alignment.template import Template, check_room
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.network.block_decoder import BlockDecoder
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.source_copy import nearest
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.objective.reduction import Reduction
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.translators.base import Translator
from fairseq_diffusion.translators.batch import Lengths, Losses, Source
from fairseq_diffusion.translators.latents import Latents
from fairseq_diffusion.translators.one_pass_decoding import OnePassDecoder, OnePassOptions
from fairseq_diffusion.translators.one_pass_training import Block, TrainingPass

FEEDS = ("mask", "self")

# Weights of the T blocks' losses, which add up to 1; s from 1.
BLOCK_WEIGHTS: Registry[Callable[[int, int], float]] = Registry("block weights")
BLOCK_WEIGHTS.register("uniform")(lambda s, blocks: 1 / blocks)
BLOCK_WEIGHTS.register("increasing")(lambda s, blocks: 2 * s / (blocks * (blocks + 1)))


class OnePassTranslator(Translator):
    """Encoder, a decoder in T blocks, an alignment, and what glancing reveals; whatever the paper."""

    name = "one-pass"
    Options = OnePassOptions

    def __init__(
        self,
        encoder: Encoder,
        decoder: BlockDecoder,
        alignment: Alignment,
        copy: nn.Module,
        glance: Glance,
        length: LengthHead | None,
        reduction: Reduction,
        block_weights: str = "uniform",
        feed: str = "mask",
        length_loss: float = 0.1,
        path_search: str = "lookahead",
        latents: Latents | None = None,
    ):
        """
        Args:
            encoder, decoder, alignment, length: the parts that have weights.
            copy: what an empty canvas copies of the source.
            glance: what is revealed in training.
            reduction: what counts alike in a batch.
            block_weights: a name in BLOCK_WEIGHTS.
            feed: what a block is fed where nothing is revealed: the mask, or what the block before predicts ("self").
            length_loss: weight of the length predictor's loss.
            path_search: the system's own; refused where the alignment has no such search.
            latents: of targets, if there are any, for the decoder to read beside the source.
        """
        super().__init__()
        self.latents = latents
        self.encoder, self.decoder, self.alignment, self.copy = encoder, decoder, alignment, copy
        self.glance, self.length, self.reduction = glance, length, reduction
        blocks = decoder.blocks
        self.weights = {f"block_{s}": BLOCK_WEIGHTS[block_weights](s, blocks) for s in range(1, blocks + 1)}
        self.weights["length"] = length_loss
        self.feed, self.path_search = feed, path_search

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        states = self.encoder(tokens, mask)
        return Source(mask, states, self.decoder.memory(states, mask), self.encoder.embedding(tokens))

    def remember(self, states: Tensor, mask: Tensor) -> list[Memory]:
        return self.decoder.memory(states, mask)

    # -- training -----------------------------------------------------------------------------------------------------

    def losses(
        self,
        source: Tensor,
        source_mask: Tensor,
        target: Tensor,
        mask: Tensor,
        keys: Tensor,
        update: int,
        durations: Tensor | None = None,
    ) -> Losses:
        """What is revealed depends on `keys` and `update`, and is nothing in validation."""
        encoded = self.encode(source, source_mask)
        latent = self.latent_step(encoded, target, mask, keys, update)
        run = TrainingPass(self, latent.source, target, mask, self.canvas(encoded, self._target_lengths(mask)))
        blocks = run.glanced(keys, update) if self.training else run.blocks()
        terms = {
            f"block_{s}": self.reduction.share_of_words(block.scored.nll, block.scored.count, mask)
            for s, block in enumerate(blocks, 1)
        }
        length, accuracy = self.length_loss(encoded, mask, durations=durations)
        contrast, weight = self._contrast(run, blocks[-1], keys)
        cost = lambda source: replace(run, source=source).cost()  # noqa: E731
        return Losses.of(
            {
                **terms,
                **{name: self.reduction.share(loss, mask) for name, loss in latent.losses.items()},
                **contrast,
                **length,
            },
            {**self.weights, **latent.weights, **weight},
            sample_size=self.reduction.sample_size(mask),
            means={
                **run.means(blocks[-1]),
                **accuracy,
                **self.latent_gains(encoded, latent, keys, cost, update, mask.sum(-1)),
            },
            state={"glance_ratio": self.glance.ratio(update)} if self.glance.count == "adaptive" else {},
        )

    def _contrast(self, run: TrainingPass, last: Block, keys: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Of the last block's states, each with the word that the best alignment gives it, where none is revealed."""
        if self.contrast is None:
            return {}, {}
        return self.contrast_loss([last.states], *run.aligned(last), keys, run.mask)

    def _target_lengths(self, mask: Tensor) -> Lengths | None:
        """The targets' own lengths, where a length is predicted in decoding; mask [B, M]."""
        if not self.alignment.predicts_length:
            return None
        lengths = mask.sum(-1, keepdim=True)
        return Lengths(lengths, torch.zeros_like(lengths, dtype=torch.float), mask.shape[1])

    # -- in training and decoding -------------------------------------------------------------------------------------

    def lengths(self, source: Source, beam: int, how: str, template: Template | None = None) -> Lengths:
        if self.alignment.predicts_length:
            return super().lengths(source, beam, how, template)
        if template is not None:
            check_room(*self.template_room(template, source.mask, beam))
        sizes, width = self.alignment.sizes(source.mask)
        log_p = torch.zeros_like(sizes, dtype=torch.float)
        return Lengths(sizes, log_p, width, predicted=False, template=template)

    def template_room(self, template: Template, source_mask: Tensor, beam: int) -> tuple[Tensor, Tensor]:
        if self.alignment.predicts_length:
            return super().template_room(template, source_mask, beam)
        return self.alignment.room_for(template), self.alignment.sizes(source_mask)[0][:, 0]

    def canvas(self, source: Source, lengths: Lengths | None) -> Canvas:
        """Empty canvases of `lengths`, or in the alignment's proportion to the source."""
        if lengths is None:
            return self.alignment.canvas(*self.alignment.sizes(source.mask))
        template = lengths.template and lengths.template.each(lengths.positions.shape[1])
        return self.alignment.canvas(lengths.positions, lengths.width)._replace(template=template)

    def copied(self, source: Source, canvas: Canvas) -> Tensor | None:
        """What the canvas' positions copy from the source, [S K, L, h]."""
        assert source.words is not None
        candidates = canvas.mask.shape[0] // source.mask.shape[0]
        words, mask = (part.repeat_interleave(candidates, 0) for part in (source.words, source.mask))
        return self.copy(words, mask, canvas.mask)

    def block(
        self, s: int, h: Tensor | None, z: Tensor, canvas: Canvas, source: Source, copied: Tensor | None
    ) -> Tensor:
        """h_s [N, L, h] from that of the block before, None for the first, and what is fed, z [N, L]."""
        h = self.decoder.enter(z, canvas.mask, copied) if h is None else self.decoder.fuse(s, h, z)
        return self.decoder.block(s, h, canvas.mask, source.memory)

    @torch.no_grad()
    def likelihood(
        self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, samples: int, steps: int | None = None
    ) -> Likelihood:
        """Exact: that of the length, and by the last block all alignments' of the words, with nothing revealed."""
        if steps is not None:
            raise UserError(f"{steps} steps were asked for, but a {self.name} model has no chain of them; drop --steps")
        run = TrainingPass(self, source, target, mask, self.canvas(source, self._target_lengths(mask)))
        scored = run.blocks(skip_scores=True)[-1].scored
        return Likelihood.known(self.length_nll(source, mask) - scored.log_p())

    @torch.no_grad()
    def durations(self, source: Source, target: Tensor, mask: Tensor) -> Tensor:
        """How many words of targets [B, M], of which mask is real, stand for each token of their sources, on the last
        block's best alignment: [B, T] by the tokens' numbers, -1 of targets that do not fit on the canvas.

        A word stands for the token that the first of its positions is nearest to.
        """
        run = TrainingPass(self, source, target, mask, self.canvas(source, None))
        scored = run.blocks(skip_scores=True)[-1].scored
        index = scored.align()
        words = (index > 0) & (index < mask.sum(-1, keepdim=True) - 1)
        first = words & (index != F.pad(index, (1, -1), value=-1))
        count = torch.zeros_like(source.mask, dtype=torch.long)
        count = count.scatter_add(1, nearest(source.mask, run.canvas.mask), first.long())
        return count.masked_fill(scored.impossible[:, None], -1)

    def decoder_for(self, options: OnePassOptions) -> OnePassDecoder:
        return OnePassDecoder(self, options)
