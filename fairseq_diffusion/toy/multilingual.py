"""A toy corpus of three languages or more, with tags that say into which one to translate.

``{train,valid}.{src,tgt}`` have sentences of xx with each of the other languages, in both directions; each sentence is
in one of these pairs only.  With copies, the other language's is also its own translation: else a model needs no tag to
know that xx is meant whenever the source is not xx.  ``test.A-B.{src,tgt}`` have the same sentences in every direction;
those without xx are zero-shot.  Every source begins with a tag such as ``<2yy>``.  All is formal, so there is one valid
translation.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import write_texts
from fairseq_diffusion.toy.corpus import (
    SOURCE,
    SPLITS,
    TARGET,
    check_sizes,
    draw_new,
    prepare_directory,
)
from fairseq_diffusion.toy.grammar import parse
from fairseq_diffusion.toy.language import Language
from fairseq_diffusion.toy.lexicon import OTHER_TARGETS

LANGUAGES = (SOURCE, TARGET, "zz", "ww")
AMBIGUITY = 1.0  # of the toy language: no sentence has a particle for its register

Texts = dict[str, str]  # a sentence in each language


class Direction(NamedTuple):
    """From one language into another."""

    source: str
    target: str

    @property
    def zero_shot(self) -> bool:
        return SOURCE not in self

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


def tag(language: str) -> str:
    return f"<2{language}>"


def directions(languages: int) -> list[Direction]:
    """All of them; those that are trained on come first."""
    found = [Direction(*pair) for pair in permutations(LANGUAGES[:languages], 2)]
    return sorted(found, key=lambda direction: direction.zero_shot)


def trained(other: str, copies: bool) -> list[Direction]:
    """Directions that a sentence of xx and another language is trained on in."""
    both = [Direction(SOURCE, other), Direction(other, SOURCE)]
    return both + [Direction(other, other)] * copies


def draw_texts(language: Language, languages: int, sizes: dict[str, int]) -> dict[str, list[Texts]]:
    """Draw the sentences of each split, all different, and say each in every language."""
    seed, seen = language.options["seed"], set[str]()
    lexicons = {TARGET: language.lexicon}
    for name, parts in zip(LANGUAGES[2:languages], OTHER_TARGETS):
        lexicons[name] = language.lexicon.retold(parts, random.Random(f"lexicon {name} {seed}"))
    texts = {}
    for split in reversed(SPLITS):  # train last: its size changes neither of the others
        rng = random.Random(f"{split} {seed}")
        sources = [draw_new(language, rng, seen) for _ in range(sizes[split])]
        texts[split] = [
            {SOURCE: text, **{name: parse(text, lexicon).translations()[0] for name, lexicon in lexicons.items()}}
            for text in sources
        ]
    return texts


def write_languages(
    directory: str | Path,
    language: Language,
    languages: int,
    sizes: dict[str, int],
    copies: bool = False,
    force: bool = False,
) -> dict[str, list[Texts]]:
    """Draw a corpus and write it; `force` overwrites the corpus files of a directory that is not empty."""
    if not 2 < languages <= len(LANGUAGES):
        raise UserError(f"a corpus with tags has 3 to {len(LANGUAGES)} languages, not {languages}")
    check_sizes(sizes)
    directory = prepare_directory(Path(directory), force)
    texts, others = draw_texts(language, languages, sizes), LANGUAGES[1:languages]
    files = dict[Path, str]()
    for split in ("train", "valid"):
        pairs = [(others[i % len(others)], text) for i, text in enumerate(texts[split])]
        files |= both_sides(directory / split, [(way, text) for other, text in pairs for way in trained(other, copies)])
    for direction in directions(languages):
        files |= both_sides(directory / f"test.{direction}", ((direction, text) for text in texts["test"]))
    write_texts(files)
    return texts


def both_sides(prefix: Path, rows: Iterable[tuple[Direction, Texts]]) -> dict[Path, str]:
    """The texts of PREFIX.src, with tags, and PREFIX.tgt."""
    sentences = [(f"{tag(way.target)} {text[way.source]}", text[way.target]) for way, text in rows]
    sides = zip(("src", "tgt"), zip(*sentences))
    return {Path(f"{prefix}.{side}"): "".join(f"{line}\n" for line in lines) for side, lines in sides}
