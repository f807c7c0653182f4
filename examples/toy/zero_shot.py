"""One model for three languages, trained on pairs with xx alone, translates between the two others, too.

    make zero-shot       (or: .venv/bin/python examples/toy/zero_shot.py --help)

Everything is written to runs/zero-shot: corpus, data-bin, checkpoint, log and the table. A second call continues what
is not complete, and makes again what its flags change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from chain import checkpoint, main, run, step, train, training_of, working_in
from systems import OURS

from fairseq_diffusion import load
from fairseq_diffusion.reporting.table import table
from fairseq_diffusion.toy.corpus import SOURCE, read_lines
from fairseq_diffusion.toy.multilingual import Direction, directions, tag
from fairseq_diffusion.toy.score import corpus_bleu

NAME = "zero-shot"
SMALL = "--hidden 64 --inner 128 --encoder-layers 2 --decoder-layers 2"
WAYS = directions(3)
HEAD = ["direction", "", "BLEU", "exact", "language", "through xx", "other sentence", "copied"]
LEGEND = """
exact: translations without a fault. language: words of the output that are of the target language.
through xx: BLEU of two translations, first into xx. other sentence: BLEU of another sentence's reference.
copied: BLEU of the source. {sentences} sentences a direction, {steps} steps, sacreBLEU {signature}
"""


class Score(NamedTuple):
    """Of the translations in one direction."""

    bleu: float
    exact: float
    language: float


def zero_shot() -> None:
    options = arguments()
    with working_in(options.out):
        prepare(options)
        flags = f"{OURS} {options.arch} {SMALL} --clip-norm 1"
        train([training_of(NAME, flags, options.updates, options.lr, options.seed)])
        text = report(options)
        Path("table.txt").write_text(text)
        print(f"\n{text}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/zero-shot"), help="folder to write to (runs/zero-shot)")
    parser.add_argument("--no-copies", action="store_true", help="train on translations alone, on no copies")
    parser.add_argument("--arch", default="ddpm_nmt_toy", help="system, with words as its states (ddpm_nmt_toy)")
    parser.add_argument("--size", type=int, default=20_000, help="sentences to train on (20000)")
    parser.add_argument("--test-size", type=int, default=100, help="sentences to test on (100)")
    parser.add_argument("--updates", type=int, default=3000, help="updates (3000)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (0.003)")
    parser.add_argument("--steps", type=int, default=20, help="decoding steps (20)")
    parser.add_argument("--seed", type=int, default=1, help="seed of language and training (1)")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """A corpus of few words, and a data-bin of it with one dictionary."""
    words = "--nouns 8 --verbs 6 --adjectives 6 --adverbs 3"
    sizes = f"--size {options.size} --valid-size 100 --test-size {options.test_size} --seed {options.seed}"
    copies = "" if options.no_copies else "--copies"
    generate = f"fairseq-diffusion toy generate --languages 3 {copies} --out corpus {words} {sizes}"
    run(step("corpus", [], "corpus", generate))
    flags = "-s src -t tgt --joined-dictionary --trainpref corpus/train --validpref corpus/valid --destdir data-bin"
    forget = "rm -f data-bin/preprocess.log # its times would make equal data differ"
    run(step("binarise", ["corpus"], "data-bin", f"fairseq-preprocess {flags}\n{forget}"))


def report(options: argparse.Namespace) -> str:
    """One line a direction; those that were not trained on last."""
    model, found = load(checkpoint(NAME)), {}
    for way in WAYS:
        found[way] = translated(model, texts(way, "src"), options)
    rows = []
    for way in WAYS:
        score, references = scored(found[way], way), texts(way, "tgt")
        through = "-"
        if way.zero_shot:
            middle = (f"{tag(way.target)} {text}" for text in found[Direction(way.source, SOURCE)])
            through = f"{scored(translated(model, middle, options), way).bleu:.1f}"
        other = corpus_bleu(references[1:] + references[:1], [[reference] for reference in references])[0]
        copied = scored([source.split(maxsplit=1)[1] for source in texts(way, "src")], way).bleu
        kind = "zero-shot" if way.zero_shot else "trained on"
        shares = f"{score.exact:.0%}", f"{score.language:.0%}"
        rows.append((str(way), kind, f"{score.bleu:.1f}", *shares, through, f"{other:.1f}", f"{copied:.1f}"))
    signature = corpus_bleu(references, [[reference] for reference in references])[1]
    return (
        table(HEAD, rows, left=HEAD[:2])
        + "\n"
        + LEGEND.format(sentences=options.test_size, steps=options.steps, signature=signature)
    )


def translated(model: Any, sources: Iterable[str], options: argparse.Namespace) -> list[str]:
    """Sources with their tags, translated."""
    found = model.translate(sources, steps=options.steps, word_temperature=0.3, seed=options.seed)
    return [translation.text for translation in found]


def scored(hypotheses: list[str], way: Direction) -> Score:
    references = texts(way, "tgt")
    words = {word for reference in references for word in reference.split()}
    output = [word for hypothesis in hypotheses for word in hypothesis.split()]
    return Score(
        bleu=corpus_bleu(hypotheses, [[reference] for reference in references])[0],
        exact=sum(map(str.__eq__, hypotheses, references)) / len(references),
        language=sum(word in words for word in output) / max(1, len(output)),
    )


def texts(way: Direction, side: str) -> list[str]:
    return read_lines(Path("corpus") / f"test.{way}.{side}")


if __name__ == "__main__":
    raise SystemExit(main("zero_shot", zero_shot))
