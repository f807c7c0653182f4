"""An exported model: text in, translations out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_diffusion.decoding.translations import Candidate, Translation
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.checksum import sha256
from fairseq_diffusion.files.json_text import fits, is_count, is_text, read_json
from fairseq_diffusion.files.preparation import PREPROCESSING, Preparation, codes_beside, encoded, read_preprocessing
from fairseq_diffusion.runtime.dictionary import Dictionary

MANIFEST, GRAPH, FORMAT = "manifest.json", "translation.onnx", 1
SHAPE = {
    "format": lambda found: found == FORMAT,
    "longest_source": is_count,
    "files": {GRAPH: is_text, PREPROCESSING: is_text},
}


def load(folder: str | Path, threads: int = 1) -> ExportedModel:
    """The model in a folder that `fairseq-diffusion export` wrote, to be run by so many threads."""
    if threads < 1:
        raise UserError(f"threads is {threads}; pass 1 or more")
    folder = Path(folder)
    manifest = read_manifest(folder)
    return ExportedModel(folder, manifest, session_of(folder / GRAPH, threads))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder is, once its files have the sums that it says."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} holds no exported model ({MANIFEST} is missing); make one with fairseq-diffusion export"
        )
    manifest = read_json(path, "a JSON object", "export the model again")
    if not fits(manifest, SHAPE):
        raise UserError(
            f"{path} is not of the format that this version reads, which is {FORMAT}; export the model again, or "
            "install the version that exported it"
        )
    for name, wanted in manifest["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != wanted:
            raise UserError(f"{folder / name} is missing or not as it was exported; copy the whole folder again")
    return manifest


def session_of(graph: Path, threads: int) -> Any:
    """ONNX Runtime's, of one graph, on a CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "onnxruntime is not installed, which runs exported models; pip install 'fairseq-diffusion[runtime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes differ from version to version
        raise UserError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {graph} ({str(error).strip()[:200]}); install a newer "
            "one, or the one that it was exported with"
        ) from error


class ExportedModel:
    """Threads may share it: no call changes it."""

    def __init__(self, folder: Path, manifest: dict[str, Any], session: Any):
        self.folder, self.manifest, self._session = folder, manifest, session
        self.preparation = preparation_in(folder)
        self.source, self.target = (
            Dictionary.read(folder / f"dict.{language}.txt")
            for language in (self.preparation.source, self.preparation.target)
        )
        self.longest = manifest["longest_source"]

    def describe(self) -> dict[str, Any]:
        """What was loaded, and the preparation of its text."""
        return {"folder": str(self.folder), **self.manifest, **self.preparation.describe()}

    def translate(self, sentences: Iterable[str], *, batch_size: int = 32) -> list[Translation]:
        """A translation of each sentence, in their order; an empty sentence has an empty one."""
        if isinstance(sentences, str) or not isinstance(sentences, Iterable):
            raise UserError("translate() takes a list of sentences; for one, write translate([sentence])")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; pass 1 or more")
        sentences = list(sentences)
        rows = encoded(sentences, self._encode, self.longest)
        found = [Candidate("", [], 0.0, 0)] * len(sentences)
        for numbers in batches(rows, batch_size):
            for number, candidate in zip(numbers, self._translated([rows[i] for i in numbers])):
                found[number] = candidate
        return [Translation(text, [replace(candidate)]) for text, candidate in zip(sentences, found)]

    def _encode(self, text: str) -> list[int]:
        return self.source.encode(self.preparation.encode(text))

    def _translated(self, rows: list[list[int]]) -> list[Candidate]:
        sources = np.full((len(rows), max(map(len, rows))), self.source.pad, dtype=np.int64)
        for source, row in zip(sources, rows):
            source[: len(row)] = row
        (name,) = (each.name for each in self._session.get_inputs())
        outputs = self._session.run(None, {name: sources})
        return [self._candidate(*parts) for parts in zip(*outputs)]

    def _candidate(self, tokens: np.ndarray, score: np.ndarray, calls: np.ndarray) -> Candidate:
        words = [self.target.words[token] for token in tokens[tokens >= 0]]
        return Candidate(self.preparation.decode(" ".join(words)), words, float(score), int(calls))


def preparation_in(folder: Path) -> Preparation:
    """Of the text that the model in the folder takes."""
    entries = read_preprocessing(folder / PREPROCESSING)
    own = {name: value for name, value in entries.items() if name != "bpe"}
    return Preparation(**own, codes=None if entries["bpe"] == "none" else codes_beside(folder, entries["source"]))


def batches(rows: list[list[int]], size: int) -> Iterator[list[int]]:
    """Numbers of rows of similar length; without those that have an end alone."""
    order = sorted((number for number, row in enumerate(rows) if len(row) > 1), key=lambda number: len(rows[number]))
    for first in range(0, len(order), size):
        yield order[first : first + size]
