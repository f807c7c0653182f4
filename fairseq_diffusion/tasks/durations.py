"""Durations of the source's tokens, read from files (--durations), as a part of the batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.durations import Durations, data_sha256, file_of, read_durations
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.network.durations import DurationHead

logger = logging.getLogger(__name__)


class WithDurations(BaseWrapperDataset):
    """Pairs of sentences whose batches also have "durations" [B, S + 1]: those of <s> and of the source's tokens in
    their order, padded on the right with -1; a sentence without any has -1 alone."""

    def __init__(self, dataset: Any, durations: Durations):
        super().__init__(dataset)
        self.durations = durations

    def collater(self, samples: list[Any]) -> Any:
        batch = super().collater(samples)
        if batch:
            ids, tokens = batch["id"].tolist(), batch["net_input"]["src_tokens"]
            batch["durations"] = torch.full((len(ids), tokens.shape[1] + 1), -1)
            for row, sentence in zip(batch["durations"], ids):
                own = torch.tensor(self.durations[sentence])
                row[: len(own)] = own
        return batch


def with_durations(dataset: Any, cfg: Any, split: str, epoch: int, combine: bool) -> Any:
    """The data set of a split with the durations that --durations has of it."""
    data, folders = utils.split_paths(cfg.data), utils.split_paths(cfg.durations)
    if len(folders) != len(data):
        raise UserError(
            f"--durations names {len(folders)} folders, but there are {len(data)} of data; pass one for each, with : "
            "between"
        )
    number = (epoch - 1) % len(data) if split == cfg.train_subset else 0
    path = file_of(Path(folders[number]), split)
    if not path.is_file():
        if split == cfg.train_subset:
            raise UserError(
                f"--durations {cfg.durations}: there is no file {path}; make it with fairseq-diffusion durations, or "
                "drop the flag"
            )
        logger.info(f"there is no file {path}, so the loss of the length on {split} is that of the length alone")
        return dataset
    languages = cfg.source_lang, cfg.target_lang
    durations = read_durations(path, data_sha256(Path(data[number]), split, languages, combine))
    sources = dataset.src_sizes
    if cfg.truncate_source:  # fairseq's sizes are other ones then; that the data are the same is known from their sum
        sources = durations.counts - 1
        durations = durations.without(sources > cfg.max_source_positions)
    durations.check(path, sources, dataset.tgt_sizes)
    return WithDurations(dataset, durations)


def check_learnt(cfg: Any, model: Any) -> None:
    """Where there are durations, the model in training learns them."""
    length = model.translator.length if isinstance(model, TranslatorModel) else None
    learns = isinstance(length, DurationHead) and all(p.requires_grad for p in length.parameters())
    if getattr(cfg, "durations", None) and not learns:
        raise UserError(
            f"--durations is {cfg.durations}, but this model does not learn durations; add --length-target durations "
            "(and no --length-training off), or drop the flag"
        )


def check_not_decoding(cfg: Any) -> None:
    """Durations are for training, which decodes for --eval-bleu alone."""
    if cfg.durations and not cfg.eval_bleu:
        raise UserError(f"--durations is {cfg.durations}, but a translation's durations are predicted; drop it")
