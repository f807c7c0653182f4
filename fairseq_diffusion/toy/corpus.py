"""The files of a toy corpus: ``{train,valid,test}.{xx,yy}`` and ``language.json``, which rebuilds the language.

``{valid,test}.{formal,informal}.yy`` are all valid translations, for BLEU against several references.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import is_generated, read
from fairseq_diffusion.files.json_text import parsed
from fairseq_diffusion.files.texts import join_pieces
from fairseq_diffusion.files.writing import write_texts
from fairseq_diffusion.toy.language import Language

SOURCE, TARGET = "xx", "yy"
SPLITS = ("train", "valid", "test")
REGISTERS = {"formal": 0, "informal": -1}  # places among a sentence's translations, of which there are one or two
OPTIONS = "language.json"
DRAWS_PER_SENTENCE = 1000  # draws of known sentences until the language counts as used up


@dataclass(frozen=True)
class Split:
    """Parallel sentences."""

    sources: list[str]
    references: list[str]


def draw_corpus(language: Language, sizes: dict[str, int]) -> dict[str, Split]:
    """Draw each split, all its sources distinct and none in another split; a reference is any valid translation."""
    seen: set[str] = set()
    corpus = {}
    for name in reversed(SPLITS):  # train last: its size changes neither of the others
        rng = random.Random(f"{name} {language.options['seed']}")
        sources = [draw_new(language, rng, seen) for _ in range(sizes[name])]
        corpus[name] = Split(sources, [rng.choice(language.translations(source)) for source in sources])
    return corpus


def draw_new(language: Language, rng: random.Random, seen: set[str]) -> str:
    """Draw a sentence that is not in `seen`, and add it."""
    for _ in range(DRAWS_PER_SENTENCE):
        source = language.sample(rng)
        if source not in seen:
            seen.add(source)
            return source
    raise UserError(
        f"this toy language has too few sentences: no new one after {len(seen)}; ask for more words or fewer"
    )


def write_corpus(
    directory: str | Path,
    language: Language,
    size: int = 20000,
    valid_size: int = 200,
    test_size: int = 500,
    force: bool = False,
) -> dict[str, Split]:
    """Draw a corpus and write it; `force` overwrites the corpus files of a directory that is not empty."""
    sizes = {"train": size, "valid": valid_size, "test": test_size}
    check_sizes(sizes)
    directory = prepare_directory(Path(directory), force)
    corpus = draw_corpus(language, sizes)
    lines: dict[str, Iterable[str]] = {OPTIONS: [json.dumps(language.options, indent=2)]}
    for name, split in corpus.items():
        lines |= {f"{name}.{SOURCE}": split.sources, f"{name}.{TARGET}": split.references}
        for register, place in REGISTERS.items() if name != "train" else ():
            lines[f"{name}.{register}.{TARGET}"] = [language.translations(each)[place] for each in split.sources]
    write_texts({directory / name: "".join(f"{line}\n" for line in own) for name, own in lines.items()})
    return corpus


def check_sizes(sizes: dict[str, int]) -> None:
    for name, number in sizes.items():
        if number < 1:
            raise UserError(f"the {name} split needs at least 1 sentence, not {number}")


def prepare_directory(directory: Path, force: bool) -> Path:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; give a directory for the corpus")
    if directory.is_dir() and any(directory.iterdir()) and not force:
        raise UserError(f"{directory} is not empty; give another directory, or --force to overwrite a corpus in it")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def read_language(directory: str | Path) -> Language:
    """Rebuild the language of a corpus."""
    path = Path(directory) / OPTIONS
    try:
        return Language(**parsed("\n".join(read_lines(path))))
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} does not hold the options of a toy language ({error}); generate the corpus") from None


def read_split(directory: str | Path, name: str) -> Split:
    directory = Path(directory)
    split = Split(read_lines(directory / f"{name}.{SOURCE}"), read_lines(directory / f"{name}.{TARGET}"))
    if len(split.sources) != len(split.references):
        found = f"{len(split.sources)} source and {len(split.references)} target lines"
        raise UserError(f"the {name} split in {directory} has {found}; generate the corpus again")
    return split


def read_hypotheses(path: str | Path) -> list[str]:
    """The translations in a plain file (one a line) or in the output of fairseq-generate, BPE removed."""
    lines = read_lines(Path(path))
    if any(map(is_generated, lines)):
        lines = best_hypotheses(path)
    return [join_pieces(line, "subword_nmt").strip() for line in lines]


def best_hypotheses(path: str | Path) -> list[str]:
    """The first hypothesis of each sentence, in corpus order, detokenised if fairseq-generate has done that."""
    found = {number: sentence.hypotheses[0] for number, sentence in read(path).items() if sentence.hypotheses}
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
    if missing:
        raise UserError(f"{path} has no H- line for {len(missing)} sentences, such as {missing[0]}; translate all")
    best = [found[number] for number in sorted(found)]
    return [hypothesis.text if hypothesis.detokenised is None else hypothesis.detokenised for hypothesis in best]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, which must exist and not be empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there; check the path (fairseq-diffusion toy generate writes a corpus)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None
    if not text.strip():
        raise UserError(f"{path} is empty; it must have one sentence a line")
    return text.removesuffix("\n").split("\n")
