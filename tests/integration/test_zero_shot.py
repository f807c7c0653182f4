"""Translation between two languages that were no pair in training, learned to a threshold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import call, decoding, hypotheses, lines, training

SIZE = "--hidden 64 --inner 128 --heads 4 --encoder-layers 2 --decoder-layers 2".split()
UPDATES = "--max-update 800 --total-num-update 800 --warmup-updates 80 --lr 3e-3 --lr-scheduler polynomial_decay"
STEPS = "--iter-decode-max-iter 20 --word-temperature 0.3"
ALPHABETS = {"x": "abcdef", "y": "ABCDEF", "z": "123456"}
TRAINED = ("xy", "yx", "xz", "zx", "yy", "zz")  # translations between x and the others, and copies of these
ZERO_SHOT = ("yz", "zy")


def said(letters: list[int], language: str) -> str:
    """In x all is said from the last to the first."""
    return " ".join(ALPHABETS[language][i] for i in (letters[::-1] if language == "x" else letters))


def write(prefix: Path, ways: tuple[str, ...], size: int, rng: random.Random) -> None:
    """Sentences, each in one of these directions, with a tag in front of its source."""
    rows = [(rng.choice(ways), [rng.randrange(6) for _ in range(rng.randint(2, 5))]) for _ in range(size)]
    Path(f"{prefix}.src").write_text("".join(f"<2{to}> {said(letters, of)}\n" for (of, to), letters in rows))
    Path(f"{prefix}.tgt").write_text("".join(f"{said(letters, to)}\n" for (_, to), letters in rows))


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of them, binarised; `test` has directions that were trained on, `test1` the others."""
    folder, rng = tmp_path_factory.mktemp("languages"), random.Random(1)
    write(folder / "train", TRAINED, 8000, rng)
    for name, ways, size in (("valid", TRAINED, 50), ("known", TRAINED, 100), ("new", ZERO_SHOT, 100)):
        write(folder / name, ways, size, rng)
    splits = [f"--trainpref={folder / 'train'}", f"--validpref={folder / 'valid'}"]
    tests = f"--testpref={folder / 'known'},{folder / 'new'}"
    call("preprocess", "-s", "src", "-t", "tgt", *splits, tests, "--joined-dictionary", "--destdir", folder / "bin")
    return folder / "bin"


def test_a_pair_of_languages_that_was_not_trained_on_is_translated(languages: Path, tmp_path: Path):
    """Of a model that ignores the tag, which has seen x or a copy behind such a source, nothing is right."""
    flags = f"{UPDATES} --clip-norm 1 --no-epoch-checkpoints --disable-validation"
    call("train", *training(languages, tmp_path, flags, "ddpm_nmt_toy", 64, SIZE))
    for split in ("test", "test1"):
        how = f"--batch-size 50 --gen-subset {split}"
        printed = call("generate", *decoding(languages, tmp_path / "checkpoint_last.pt", how, STEPS))
        found, meant = hypotheses(printed), lines(printed, "T")
        assert len(meant) == 100
        assert sum(found[i][0][0] == meant[i][0][0] for i in meant) >= 90
