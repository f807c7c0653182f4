"""From the translations of all shards to a data-bin: filters pairs, and counts what is kept and dropped."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fairseq.scoring.bleu import BleuConfig, Scorer
from torch import Tensor

from fairseq_diffusion.distillation.data import DataBin, Writer
from fairseq_diffusion.distillation.shards import Shards
from fairseq_diffusion.errors import UserError

SHORT = 5  # a side counts as at least so many tokens when lengths are compared: one word may well become five
LISTED = 5  # sentences that an error lists


@dataclass
class Filter:
    """Decides which pairs are kept, and counts them."""

    max_ratio: float
    unk: int
    counts: Counter[str]

    def keeps(self, source: Tensor, translation: Tensor) -> bool:
        """Source [S] and translation [T], their ends included."""
        lengths = (len(source) - 1, len(translation) - 1)
        if not all(lengths):
            self.counts["empty"] += 1
        elif max(lengths) > self.max_ratio * max(SHORT, min(lengths)):
            self.counts["wild_ratio"] += 1
        else:
            self.counts["kept"] += 1
            self.counts["unknown_words"] += int((translation == self.unk).sum())
            return True
        return False


def by_number(found: Iterable[tuple[int, str]], size: int) -> Iterator[tuple[int, str | None]]:
    """Each of `size` sentences and its translation, or None; `found` is in the order of the numbers."""
    expected = 0
    for number, text in found:
        if not expected <= number < size:
            raise UserError(
                f"sentence {number} has a second translation, or is not one of the {size} to train on; remove the work "
                "folder and decode again"
            )
        yield from ((missing, None) for missing in range(expected, number))
        yield number, text
        expected = number + 1
    yield from ((missing, None) for missing in range(expected, size))


def check_skipped(numbers: list[int], sides: tuple[Any, Any], shards: Shards) -> None:
    """Sentences without a translation are those that are longer than the teacher takes."""
    limits = shards.limits() or () if numbers else ()
    lost = [number for number in numbers if not any(side.sizes[number] > most for side, most in zip(sides, limits))]
    if lost:
        named = ", ".join(map(str, lost[:LISTED]))
        raise UserError(
            f"{len(lost)} sentences of train have no translation, though they are not too long, among them {named}; "
            f"see the logs in {shards.work}, remove that folder and decode again"
        )


def gather(data: DataBin, shards: Shards, folder: Path, max_ratio: float, mixed: bool) -> dict[str, Any]:
    """Write a data-bin to an empty folder, its dictionaries and other splits unchanged; returns the counts."""
    data.copy_all_but_train(folder)
    new, sides = replace(data, folder=folder), data.sides("train")
    chosen = Filter(max_ratio, data.dictionaries()[1].unk(), Counter(sentences=len(sides[0])))
    with Writer(new) as writer:
        if mixed:
            for pair in zip(*sides):
                writer.write(pair)
        missing, bleu = write_translations(writer, sides, shards, chosen)
    check_skipped(missing, sides, shards)
    if not chosen.counts["kept"]:
        raise UserError(f"no translation could be kept: {dict(chosen.counts)}; look at those in {shards.work}")
    if (found := len(new.sides("train")[0])) != writer.pairs:
        raise UserError(f"{folder} holds {found} of {writer.pairs} pairs; is the disk full?")
    # every sentence of the training set is counted in one of skipped, empty, wild_ratio and kept
    counts = {name: chosen.counts[name] for name in ("sentences", "empty", "wild_ratio", "kept", "unknown_words")}
    return {**counts, "skipped": len(missing), "pairs": writer.pairs, "bleu_of_pieces": bleu.score()}


def write_translations(
    writer: Writer, sides: tuple[Any, Any], shards: Shards, chosen: Filter
) -> tuple[list[int], Scorer]:
    """Each kept translation with its source; the numbers of sentences that have none, and BLEU's counts of the kept."""
    sources, references = sides
    missing, bleu = [], Scorer(BleuConfig())
    merged = heapq.merge(*(shards.translations(shard) for shard in range(shards.count)))
    for number, text in by_number(merged, len(sources)):
        if text is None:
            missing.append(number)
            continue
        translation = encoded(text, writer.dictionaries[1])
        if chosen.keeps(sources[number], translation):
            writer.write((sources[number], translation))
            bleu.add(references[number].int(), translation)
    return missing, bleu


def encoded(text: str, dictionary: Any) -> Tensor:
    """As fairseq's encode_line, which fills its tensor word by word and is five times slower."""
    return torch.tensor([*map(dictionary.index, text.split()), dictionary.eos()], dtype=torch.int32)
