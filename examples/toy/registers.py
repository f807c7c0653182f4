"""First the register, then the words: several translations of each ambiguous sentence, with and without latents.

    .venv/bin/python examples/toy/registers.py       (after `make tokens`; --help)

Takes MDLM and LDDM (SEQ) of runs/tokens, and decodes each test sentence with two valid translations from several seeds.
In one step the surest words are taken, so translations of one sentence can differ by their latents alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chain import checkpoint, main, slug
from systems import LDDM_SEQ, MDLM

from fairseq_diffusion import load
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.table import table
from fairseq_diffusion.toy.corpus import SOURCE, read_language, read_lines
from fairseq_diffusion.toy.language import Language

SUREST = {"sampler": "confidence", "steps": 1}
WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (MDLM, "1 step", SUREST),
    (MDLM, "20 steps, words drawn", {"sampler": "ancestral", "steps": 20}),
    (LDDM_SEQ, "2 of latents, 1 step", {**SUREST, "latents_steps": 2}),
    (LDDM_SEQ, "10 of latents, 1 step", {**SUREST, "latents_steps": 10}),
)
HEAD = ["system", "decoding", "formal", "informal", "mixed or wrong", "one register", "both"]
LEGEND = """
formal, informal: valid translations. one register, both: sentences whose valid translations are all of one, or of both.
{sentences} sentences, {seeds} translations of each
"""


def registers() -> None:
    options = arguments()
    language = read_language(options.run / "corpus")
    texts, split = (read_lines(options.run / folder / f"test.{SOURCE}") for folder in ("corpus", "corpus-bpe"))
    pairs = [pair for pair in zip(texts, split) if language.is_ambiguous(pair[0])]
    if not pairs:
        raise UserError(f"no test sentence of {options.run} has two translations; make a run with more of them")
    rows = []
    models = {system: load(options.run / checkpoint(system), data=options.run / "data-bin") for system, _, _ in WAYS}
    for system, name, own in WAYS:
        found = [translated(models[system], pairs, seed, **own) for seed in range(1, options.seeds + 1)]
        rows.append((system, name, *counted(language, pairs, list(zip(*found)))))
    print(table(HEAD, rows, left=HEAD[:2]) + LEGEND.format(sentences=len(pairs), seeds=options.seeds))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = " ".join(map(slug, (MDLM, LDDM_SEQ)))
    parser.add_argument("--run", type=Path, default=Path("runs/tokens"), help=f"run of tokens.py with {names}")
    parser.add_argument("--seeds", type=int, default=8, help="translations of each sentence (8)")
    return parser.parse_args()


def translated(model: Any, pairs: Sequence[tuple[str, str]], seed: int, **options: Any) -> list[str]:
    """Of sentences and the same split by BPE, whose translations are joined again."""
    found = model.translate([split for _, split in pairs], seed=seed, **options)
    return [translation.text.replace("@@ ", "") for translation in found]


def counted(language: Language, pairs: Sequence[tuple[str, str]], found: Sequence[Sequence[str]]) -> list[str]:
    """The cells of a row, for the translations of each source."""
    valid = [language.translations(text) for text, _ in pairs]  # formal, informal
    kinds = [[own.index(text) if text in own else None for text in texts] for own, texts in zip(valid, found)]
    drawn = [kind for own in kinds for kind in own]
    right = [set(own) - {None} for own in kinds]
    shares = [drawn.count(kind) / len(drawn) for kind in (0, 1, None)]
    shares += [sum(len(own) == number for own in right) / len(right) for number in (1, 2)]
    return [f"{share:.0%}" for share in shares]


if __name__ == "__main__":
    raise SystemExit(main("registers", registers))
