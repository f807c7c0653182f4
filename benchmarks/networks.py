"""The networks that are timed, of one size and with random weights, and the sentences they are given."""

from __future__ import annotations

import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import fairseq_diffusion

fairseq_diffusion.load()
warnings.filterwarnings("ignore", message=r"\s*(.config. is validated against|The strict flag in)")  # hydra's
warnings.filterwarnings("ignore", category=UserWarning, module="hydra")

from fairseq import options as fairseq_options  # noqa: E402
from fairseq.data import Dictionary  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.models.transformer import TransformerModel  # noqa: E402

from fairseq_diffusion.models.config import DiffusionConfig  # noqa: E402
from fairseq_diffusion.models.diffusion import DiffusionModel  # noqa: E402
from fairseq_diffusion.models.one_pass import OnePassModel  # noqa: E402
from fairseq_diffusion.models.one_pass_config import OnePassConfig  # noqa: E402
from fairseq_diffusion.systems.presets import PRESETS  # noqa: E402
from fairseq_diffusion.tasks.dictionary import TableDictionary  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Shares of sentences by their number of words: around the 22.7 tokens (with the end) that IWSLT14 De-En's test has.
LENGTHS = {22: 0.15, 23: 0.25, 24: 0.3, 25: 0.2, 26: 0.1}
LONGEST = {"max_source_positions": 256, "max_target_positions": 256}
PAD, EOS, FIRST = 1, 2, 4  # fairseq's numbers; the words begin at FIRST
AR = (
    "unused --arch transformer --encoder-embed-dim {hidden} --decoder-embed-dim {hidden} "
    "--encoder-ffn-embed-dim {inner} --decoder-ffn-embed-dim {inner} --encoder-attention-heads {heads} "
    "--decoder-attention-heads {heads} --encoder-layers {encoder_layers} --decoder-layers {decoder_layers} "
    "--dropout {dropout} --max-source-positions 256 --max-target-positions 256 --share-all-embeddings"
)


def lengths(count: int) -> list[int]:
    """Words of `count` sentences by the shares of LENGTHS, shortest first."""
    bounds = torch.tensor(list(LENGTHS.values()), dtype=torch.float64).cumsum(0)
    place = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return [list(LENGTHS)[i] for i in torch.searchsorted(bounds, place).clamp(max=len(LENGTHS) - 1).tolist()]


def padded(words: list[Tensor], left: bool = False) -> Tensor:
    """Sentences of `words`, each with its end, as a batch."""
    ended = [torch.cat([sentence, sentence.new_tensor([EOS])]) for sentence in words]
    rows = [sentence.flip(0) for sentence in ended] if left else ended
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return batch.flip(1) if left else batch


def random_words(sizes: list[int], vocabulary: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(FIRST, vocabulary, (size,), generator=generator) for size in sizes]


def dictionary(vocabulary: int, kind: type[Dictionary] = TableDictionary) -> Any:
    """`vocabulary` entries, every third of which ends a word."""
    filled = kind()
    for number in range(vocabulary - len(filled)):
        filled.add_symbol(f"w{number}" if number % 3 == 0 else f"w{number}@@")
    return filled


def task_of(vocabulary: int, mask: bool = False) -> Any:
    """What a model needs of a task: one dictionary for both sides, with a mask symbol where it needs one."""
    source, target = dictionary(vocabulary), dictionary(vocabulary)
    if mask:
        target.add_mask()
    return SimpleNamespace(source_dictionary=source, target_dictionary=target)


def size_of(arch: str, **changes: Any) -> dict[str, Any]:
    """The fields of a preset that an autoregressive Transformer of its size has, too."""
    fields = {**PRESETS[arch].fields, **changes}
    return {name: fields[name] for name in ("hidden", "inner", "heads", "encoder_layers", "decoder_layers", "dropout")}


@cache
def fairseq_config(flags: str) -> Any:
    """All of fairseq's configuration of a training with these flags."""
    return convert_namespace_to_omegaconf(ar_arguments(["unused", "--arch", "transformer", *flags.split()]))


def ar_arguments(command: list[str]) -> Any:
    return fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), command)


def autoregressive(size: dict[str, Any], vocabulary: int) -> Any:
    """fairseq's own Transformer."""
    return TransformerModel.build_model(ar_arguments(AR.format(**size).split()), task_of(vocabulary))


def ours(arch: str, vocabulary: int, **changes: Any) -> Any:
    """The model of one of our presets, but for `changes`."""
    preset = PRESETS[arch]
    one_pass = preset.model == "glancing"
    config, model = (OnePassConfig, OnePassModel) if one_pass else (DiffusionConfig, DiffusionModel)
    cfg = config(**{**preset.fields, **LONGEST, "seed": 1, **changes})
    return model.build_model(cfg, task_of(vocabulary, mask=model.needs_mask(cfg)))
