"""Reading a data-bin of fairseq-preprocess, and writing one with another training set."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fairseq.data import data_utils, indexed_dataset
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.binarised import check_parallel
from fairseq_diffusion.tasks.checks import check_data, check_split
from fairseq_diffusion.tasks.dictionary import TableDictionary


@dataclass
class DataBin:
    """The folder, the languages in the direction to translate, and `pair` as the file names spell it ("de-en")."""

    folder: Path
    source: str
    target: str
    pair: str

    @property
    def languages(self) -> tuple[str, str]:
        return self.source, self.target

    def dictionaries(self) -> tuple[TableDictionary, TableDictionary]:
        source, target = (TableDictionary.load(str(self.folder / f"dict.{name}.txt")) for name in self.languages)
        return source, target

    def prefix(self, split: str, language: str) -> str:
        """The path without .bin and .idx, as fairseq takes it."""
        return str(self.folder / f"{split}.{self.pair}.{language}")

    def sides(self, split: str) -> tuple[Any, Any]:
        """Source and target sentences, as fairseq reads them."""
        dictionaries = self.dictionaries()
        check_parallel(self.folder, split, {name: len(words) for name, words in zip(self.languages, dictionaries)})
        found = [
            data_utils.load_indexed_dataset(self.prefix(split, language), dictionary)
            for language, dictionary in zip(self.languages, dictionaries)
        ]
        sizes = [0 if side is None else len(side) for side in found]
        if not sizes[0] or sizes[0] != sizes[1]:
            raise UserError(
                f"{self.folder} has {sizes[0]} {self.source} and {sizes[1]} {self.target} sentences in {split}; "
                "binarise both sides of the same text with fairseq-preprocess"
            )
        return found[0], found[1]

    def files(self) -> list[Path]:
        """Dictionaries and the binarised sides of every split, which is what fairseq reads."""
        split = re.compile(rf"[^.]+\.{re.escape(self.pair)}\.({'|'.join(map(re.escape, self.languages))})(\..+)?")
        known = {f"dict.{language}.txt" for language in self.languages}
        return sorted(file for file in self.folder.iterdir() if file.name in known or split.fullmatch(file.name))

    def copy_all_but_train(self, folder: Path) -> None:
        """Dictionaries and the other splits, which are not distilled."""
        for file in self.files():
            if file.name.split(".")[0] != "train":
                shutil.copy(file, folder)


def open_data(folder: Path, wanted: tuple[str | None, str | None]) -> DataBin:
    """The data-bin, in the direction `wanted` (the teacher's) if it has that, else in the one of its file names."""
    check_data(SimpleNamespace(data=str(folder), source_lang=None, target_lang=None))
    source, target = data_utils.infer_language_pair(str(folder))
    if source is None or target is None:
        raise UserError(f"{folder} has no files named SPLIT.SOURCE-TARGET.*; pass the --destdir of fairseq-preprocess")
    pair = f"{source}-{target}"
    if wanted == (target, source):
        source, target = target, source
    check_split(str(folder), "train", source, target)
    if list(folder.glob("train1.*-*.*")):
        raise UserError(
            f"{folder} has its training set in parts (train, train1, ...), of which fairseq-generate decodes the first "
            "alone; binarise them as one split"
        )
    return DataBin(folder, source, target, pair)


class Writer:
    """Sentence pairs, binarised as fairseq-preprocess does, and the same as text under text/."""

    def __init__(self, data: DataBin):
        self.dictionaries, self.pairs = data.dictionaries(), 0
        self._prefixes = [data.prefix("train", language) for language in data.languages]
        self._builders = [
            indexed_dataset.make_builder(f"{prefix}.bin", "mmap", len(dictionary))
            for prefix, dictionary in zip(self._prefixes, self.dictionaries)
        ]
        text = data.folder / "text"
        text.mkdir()
        self._texts = [
            (text / f"train.{language}").open("w", encoding="utf-8", newline="\n") for language in data.languages
        ]

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for prefix, builder, text in zip(self._prefixes, self._builders, self._texts):
            builder.finalize(f"{prefix}.idx")
            text.close()

    def write(self, sides: Iterable[Tensor]) -> None:
        """One pair of sentences [L], their ends included."""
        for tokens, builder, text, dictionary in zip(sides, self._builders, self._texts, self.dictionaries):
            builder.add_item(tokens)
            text.write(dictionary.string(tokens) + "\n")
        self.pairs += 1
