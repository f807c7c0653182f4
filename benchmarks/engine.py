"""CTranslate2, converted from the very checkpoint of fairseq's Transformer that it is compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MISSING = "ctranslate2 is not installed, so its rows are left out (pip install ctranslate2)"
PAIR = ("xx", "yy")


def installed() -> bool:
    try:
        import ctranslate2  # noqa: F401
    except ImportError:
        return False
    return True


def converted(model: Any, args: Any, dictionary: Any, folder: Path) -> Path:
    """The engine's form of `model`, by way of a checkpoint as fairseq writes it."""
    from ctranslate2.converters import FairseqConverter

    source, target = PAIR
    for side in PAIR:
        dictionary.save(str(folder / f"dict.{side}.txt"))
    args.task, args.source_lang, args.target_lang = "translation", source, target
    checkpoint = folder / "checkpoint.pt"
    torch.save({"args": args, "model": model.float().state_dict()}, checkpoint)
    converter = FairseqConverter(str(checkpoint), str(folder), unsafe_deserialization=True)  # it is our own
    return Path(converter.convert(str(folder / "engine")))


def translators(
    model: Any, args: Any, dictionary: Any, device: str, types: list[str], threads: int
) -> dict[str, Callable[[list[list[str]], int, int], list[list[str]]]]:
    """A decoder for each of the engine's types of numbers: sentences of symbols, words to write and beam in, symbols
    out."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        path = converted(model, args, dictionary, Path(folder))
        engines = {
            kind: ctranslate2.Translator(str(path), device=device, compute_type=kind, intra_threads=threads)
            for kind in types
        }

    def decoder(engine: Any) -> Callable[[list[list[str]], int, int], list[list[str]]]:
        def decode(sentences: list[list[str]], words: int, beam: int) -> list[list[str]]:
            results = engine.translate_batch(
                sentences, beam_size=beam, min_decoding_length=words, max_decoding_length=words, max_batch_size=0
            )
            return [result.hypotheses[0] for result in results]

        return decode

    return {kind: decoder(engine) for kind, engine in engines.items()}
