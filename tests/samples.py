"""Sentences as people write them, worse versions of them, and both as fairseq-generate would print them."""

from __future__ import annotations

import random
from pathlib import Path

from sacremoses import MosesTokenizer

WORDS = "dog cats mr. Smith don't well-known state-of-the-art said that 3.5 % it's re-read & go".split()


def sentence(rng: random.Random) -> str:
    words = [rng.choice(WORDS) + "," * (rng.random() < 0.1) for _ in range(rng.randint(6, 16))]
    return " ".join(words).capitalize() + rng.choice([".", ".", "?", '".'])


def raw(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def worse(lines: list[str], rate: float, seed: int) -> list[str]:
    """Some words left out, some replaced, some said twice."""
    rng = random.Random(seed)

    def said(word: str) -> list[str]:
        draw = rng.random() / rate
        return [[], [rng.choice(WORDS)], [word, word]][int(draw * 3)] if draw < 1 else [word]

    return [" ".join(new for word in line.split() for new in said(word)) for line in lines]


def tokenised(lines: list[str], **options: bool) -> list[str]:
    """As preprocessing scripts do: with Moses' escapes."""
    return [MosesTokenizer("en").tokenize(line, return_str=True, **options) for line in lines]


def in_pieces(words: str) -> str:
    return " ".join(f"{word[:2]}@@ {word[2:]}" if len(word) > 3 and word.isalpha() else word for word in words.split())


def log_of(hypotheses: list[str], detokenised: list[str] | None = None) -> str:
    """fairseq-generate's output: not in the order of the data, and with a worse hypothesis behind each best one."""
    found = ["2026-01-01 00:00:00 | INFO | fairseq_cli.generate | loading model(s)"]
    joined = detokenised or hypotheses
    for i in sorted(range(len(hypotheses)), key=lambda i: (i * 7) % len(hypotheses)):
        found += [f"S-{i}\tsource {i}", f"T-{i}\treference {i}"]
        for score, text, words in ((-0.5, hypotheses[i], joined[i]), (-0.9, "much worse", "much worse")):
            scores = " ".join(["-0.1"] * (len(text.split()) + 1))
            found += [f"H-{i}\t{score}\t{text}", f"D-{i}\t{score}\t{words}", f"P-{i}\t{scores}"]
    return "\n".join([*found, "Generate test with beam=5: BLEU4 = 0.00\n"])


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
