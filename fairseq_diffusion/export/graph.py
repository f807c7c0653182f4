"""All of a decoding as one ONNX graph: tokens of sources in, the best translation of each out.

The graph is what the decoder does with an example, in terms of any number of sentences and tokens; so its code is
written once, and its random numbers are the same.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.translators.base import Translator
from fairseq_diffusion.translators.execution import EAGER

INPUT, OUTPUTS = "sources", ("tokens", "scores", "calls")
BY = ("score", "joint")  # selections that are made in the graph
OPERATORS = 18  # version of ONNX' standard set, the first with what random numbers are made of
SHORTEST, LONGEST = 2, 2**16  # positions of a translation, the fewest <s> and </s>


class Decoding(nn.Module):
    """Encoder, lengths, decoder and selection as one function."""

    def __init__(self, translator: Translator, generator: Generator, words: int, longest: int):
        """`words` is the size of the source's dictionary, and `longest` the number of tokens that a source may have."""
        super().__init__()
        check_decoding(generator)
        self.translator, self.generator, self.words, self.longest = translator, generator, words, longest

    def forward(self, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sources [S, T], which end with </s>, padded on the right -> of the best translations tokens [S, L], -1 behind
        their end; scores [S]; network calls [S]."""
        translator, generator, o = self.translator, self.generator, self.generator.options
        with_bos = F.pad(sources, (1, 0), value=generator.bos)
        source = translator.encode(with_bos, with_bos.ne(generator.pad))
        lengths = translator.lengths(source, o.length_beam, o.length_beam_kind)
        if lengths.predicted:
            width: Any = lengths.positions.max().item()  # a number that the graph computes
            torch._check(width >= SHORTEST)
            torch._check(width <= LONGEST)
            lengths = lengths._replace(width=width)
        found = generator.decoder(source, lengths, generator.keys(sources, lengths))
        by = found.joint if generator.selection.chain == "joint" else found.scores
        best = by.argmax(-1, keepdim=True)
        tokens = found.tokens.gather(1, best[..., None].expand(-1, -1, found.tokens.shape[-1]))[:, 0]
        return tokens, by.gather(1, best)[:, 0].float(), found.calls.gather(1, best)[:, 0]

    def example(self, counts: Sequence[int]) -> Tensor:
        """Sources of so many random words, or as many as there may be, [S, T]."""
        made, first = torch.Generator().manual_seed(1), self.generator.eos + 2
        rows = [torch.randint(first, self.words, (min(count, self.longest - 1),), generator=made) for count in counts]
        ended = [F.pad(row, (0, 1), value=self.generator.eos) for row in rows]
        return pad_sequence(ended, batch_first=True, padding_value=self.generator.pad)


def check_decoding(generator: Generator) -> None:
    """Refuse a decoding whose course depends on what comes out, or on more than the source."""
    o, chain = generator.options, generator.selection.chain
    if chain not in BY:
        raise UserError(f"--selection {chain} is not made for export; pass {' or '.join(BY)}")
    for name, usual in (("prune_after", ""), ("stop_stable", 0), ("draft", None), ("oracle_length", False)):
        if (value := getattr(o, name, usual)) != usual:
            raise UserError(f"--{name.replace('_', '-')} is {value}, which is not made for export; drop it")
    if (execution := getattr(o, "execution", EAGER)) != EAGER:
        raise UserError(f"--execution {execution} is for torch, and a graph is run by others; drop it")


def write_graph(decoding: Decoding, output: Path) -> None:
    """The graph with its weights, as one file."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"export needs {error.name}, which is not installed; pip install 'fairseq-diffusion[export]'"
        ) from error
    any_number = torch.export.Dim.DYNAMIC
    with quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                decoding,
                (decoding.example([4, 9, 6]),),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: any_number, 1: any_number},),
                opset_version=OPERATORS,
                custom_translation_table=translations(),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise UserError(
                f"this decoding cannot be written as a graph ({reason}); try another sampler or search"
            ) from error
        forget(program.model)
        program.save(str(output), external_data=False)


def forget(model: Any) -> None:
    """Where in the code each node comes from: the same model gives the same file, and no paths of this machine."""
    for part in (model, model.graph, *model.graph.all_nodes(), *model.functions.values()):
        part.metadata_props.clear()
    for value in {value for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value}:
        value.metadata_props.clear()


def translations() -> dict[Any, Callable[..., Any]]:
    """In ONNX, what torch's exporter does not know."""
    from onnx import TensorProto
    from onnxscript import opset18

    op: Any = opset18

    def stable_sort(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        """ONNX defines that of equal values the first comes first."""
        size = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
        return op.TopK(self, size, axis=dim, largest=int(descending))

    def search(sorted_sequence: Any, self: Any, **usual: Any) -> Any:
        """How many of the sorted numbers are below each."""
        numbers, sought = op.Constant(value_ints=[-2]), op.Constant(value_ints=[-1])
        below = op.Less(op.Unsqueeze(sorted_sequence, numbers), op.Unsqueeze(self, sought))
        return op.ReduceSum(op.Cast(below, to=TensorProto.INT64), sought, keepdims=0)

    aten = torch.ops.aten
    return {aten.sort.stable: stable_sort, aten.searchsorted.Tensor: search}


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of its progress."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
