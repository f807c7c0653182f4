"""The folder of an exported model: the graph, what text needs, and what all of it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from fairseq_diffusion import __version__
from fairseq_diffusion.api import TranslationModel, generation_config
from fairseq_diffusion.decoding.generator import COUNTERS
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.export.check import agreement
from fairseq_diffusion.export.graph import Decoding, write_graph
from fairseq_diffusion.export.int8 import quantised
from fairseq_diffusion.files.checksum import sha256
from fairseq_diffusion.files.preparation import PREPROCESSING, Preparation
from fairseq_diffusion.runtime.dictionary import REPLACES, SPECIAL
from fairseq_diffusion.runtime.model import FORMAT, GRAPH, MANIFEST, session_of
from fairseq_diffusion.tasks.flags import AUTOREGRESSIVE


def export(model: TranslationModel, output: Path, flags: Sequence[str] = (), int8: bool = False) -> dict[str, Any]:
    """Write a model, decoded by `flags` of fairseq-generate, to a new folder; what its manifest says."""
    if model.kind == AUTOREGRESSIVE:
        raise UserError(f"{model.checkpoint} is autoregressive; CTranslate2 has a converter for fairseq's Transformer")
    cfg = generation_config(Path(model.cfg.task.data), model.preparation, [*flags])
    check_flags(cfg)
    _, models, generator = model.prepared(cfg)
    decoding = Decoding(
        models[0].translator.eval(), generator, len(model.task.source_dictionary), model.max_positions[0]
    )
    with new_folder(output) as folder:
        write_graph(decoding, folder / GRAPH)
        if int8:
            quantised(folder / GRAPH)
        write_preparation(model.preparation, folder)
        for language, words in (
            (model.preparation.source, model.task.source_dictionary),
            (model.preparation.target, model.task.target_dictionary),
        ):
            write_dictionary(words, folder / f"dict.{language}.txt")
        manifest = {
            "format": FORMAT,
            "precision": "int8" if int8 else "fp32",
            "longest_source": model.max_positions[0],
            "decoding": {name: value for name, value in generator.describe().items() if name not in COUNTERS},
            "agreement": agreement(decoding, session_of(folder / GRAPH, 1), exact=not int8),
            "versions": versions(),
            "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, default=str) + "\n", encoding="utf-8")
    return manifest


def versions() -> dict[str, str]:
    """Of what took part."""
    import onnxruntime

    return {
        "fairseq_diffusion": __version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def check_flags(cfg: Any) -> None:
    """Refuse flags that a graph has no part for, and those that are read when the model is loaded."""
    for asked, what in (
        (cfg.common.fp16 or cfg.common.bf16, "--fp16 and --bf16 are for torch; pass --int8 before --"),
        (cfg.task.use_ema, "--use-ema is read when the model is loaded; pass it before --"),
        (cfg.generation.nbest > 1, "--nbest is above 1, but a graph gives the best translation alone; drop it"),
        (cfg.generation.retain_iter_history, "--retain-iter-history is not made for export; drop it"),
    ):
        if asked:
            raise UserError(what)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `output` once it is complete."""
    if output.exists():
        raise UserError(f"the output {output} already exists; name another folder, or move it away")
    if not output.parent.is_dir():
        raise UserError(f"the output {output} cannot be written: there is no folder {output.parent}")
    folder = output.with_name(f".{output.name}.{uuid4().hex}.tmp")
    folder.mkdir()
    try:
        yield folder
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_preparation(preparation: Preparation, folder: Path) -> None:
    entries = {**preparation.describe(), "bpe": "none" if preparation.codes is None else "subword_nmt"}
    (folder / PREPROCESSING).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    if preparation.codes is not None:
        shutil.copyfile(preparation.codes, folder / "bpe.codes")


def write_dictionary(words: Any, path: Path) -> None:
    """As fairseq writes it, but for the mask symbol behind the words, which no text has."""
    entries = list(zip(words.symbols, words.count))
    entries = entries[words.nspecial : getattr(words, "mask_index", None)]
    lines = [f"{word} {count}{REPLACES if word in SPECIAL else ''}\n" for word, count in entries]
    path.write_text("".join(lines), encoding="utf-8")
