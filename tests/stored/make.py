"""Trains, decodes and stores the models of plan.py, once.  See README.md: what is there is never made anew.

    PYTHONPATH=.:tests python tests/stored/make.py [MODEL ...]

Run from the root of the repository; what is stored already is left as it is.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stored_models as stored
import torch
from plan import DECODING, SIZE, TRAINING, UPDATES
from support import call, read

SIZES = {"train": 240, "valid": 8, "test": 8}
TASK = "--user-dir fairseq_diffusion --task diffusion_translation --cpu --num-workers 0"
QUIET = "--no-epoch-checkpoints --disable-validation --no-progress-bar --log-interval 1000"
KEPT = ("args", "cfg", "model", "task_state", "optimizer_history")


# -- data -------------------------------------------------------------------------------------------------------------


def pair(rng: random.Random) -> tuple[list[str], list[str]]:
    """Some letters, and the same in capitals in one of two registers, which the source does not tell; h is in two
    pieces."""
    words, polite = [rng.choice("abcdefgh") for _ in range(rng.randint(2, 8))], rng.random() < 0.5
    said = {word: f"{word.upper()}{word if polite else ''}" for word in words} | {"h": "H@@ H"}
    return words, [*(said[word] for word in words), *(["SIR"] if polite else []), "."]


def make_data(folder: Path) -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as text:
        for split, size in SIZES.items():
            for language, sentences in zip("ab", zip(*(pair(rng) for _ in range(size)))):
                lines = "".join(" ".join(words) + "\n" for words in sentences)
                Path(text, f"{split}.{language}").write_text(lines)
        splits = [f"--{split}pref={text}/{split}" for split in SIZES]
        call("preprocess", "-s", "a", "-t", "b", *splits, "--joined-dictionary", "--destdir", folder)
    (folder / "preprocess.log").unlink()  # it names the folders of the machine


# -- models -----------------------------------------------------------------------------------------------------------


def train(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{TASK} {QUIET} {SIZE} {UPDATES} {TRAINING[name]} --save-dir {folder}"
        call("train", stored.DATA, *flags.split())
        state = stripped(read(Path(folder, "checkpoint_last.pt")))
    stored.checkpoint(name).parent.mkdir(exist_ok=True)
    torch.save(state, stored.checkpoint(name))


def stripped(state: dict[str, Any]) -> dict[str, Any]:
    """What decoding reads of a checkpoint."""
    ema = state["extra_state"].get("ema")
    state["cfg"]["checkpoint"]["save_dir"], state["cfg"]["task"]["data"] = "checkpoints", "tests/stored/data-bin"
    kept = {key: state[key] for key in KEPT} | {"model": together(state["model"])}
    return {**kept, "extra_state": {"ema": together(ema)} if ema else {}}


def together(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights as parts of one long vector of each type: a file a third smaller than with one entry each."""
    found = {}
    for dtype in {value.dtype for value in weights.values()}:
        these = {key: value for key, value in weights.items() if value.dtype == dtype}
        parts = torch.cat([value.flatten() for value in these.values()]).split([v.numel() for v in these.values()])
        found |= {key: part.view(value.shape) for (key, value), part in zip(these.items(), parts)}
    return {key: found[key] for key in weights}


def shaken(state: dict[str, Any], seed: int) -> dict[str, Any]:
    """`state` with its weights moved by a millionth of themselves, about, which is more than sums differ by elsewhere;
    but not the noise schedule, nor a denoiser's embeddings, which a student shares with its teacher."""
    generator = torch.Generator().manual_seed(seed)

    def move(value: torch.Tensor) -> torch.Tensor:
        moved = value * (1 + 1e-6 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
        return moved.to(value.dtype)

    def moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        stay = (".schedule.", ".state.")
        return {key: value if any(part in key for part in stay) else move(value) for key, value in weights.items()}

    extra = {key: moved(weights) for key, weights in state["extra_state"].items()}
    return {**state, "model": moved(state["model"]), "extra_state": extra}


# -- translations and losses ------------------------------------------------------------------------------------------


@contextmanager
def shaken_copies(name: str) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{seed}.pt") for seed in range(3)]
        for seed, path in enumerate(paths):
            torch.save(shaken(read(stored.checkpoint(name)), seed), path)
        yield paths


def near(one: stored.Hypotheses, other: stored.Hypotheses) -> bool:
    """The same texts in the same order, with scores that agree ten times as well as the test asks."""
    return stored.texts(one) == stored.texts(other) and all(
        abs(a - b) <= 1e-4 for i in one for (_, a), (_, b) in zip(one[i], other[i])
    )


def decode(name: str) -> list[dict[str, Any]]:
    """Hypotheses of each way to decode whose words do not hang on the last digits of a sum."""
    kept = []
    with shaken_copies(name) as copies:
        for flags in DECODING[name]:
            hypotheses = stored.decode(stored.checkpoint(name), flags)
            if all(near(stored.decode(copy, flags), hypotheses) for copy in copies):
                kept.append({"flags": flags, "hypotheses": hypotheses})
            else:
                print(f"{name}: a near tie, left out: {flags}")
    return kept


def losses(name: str) -> list[dict[str, Any]]:
    """Losses at each moment at which no choice within the training step hangs on the last digits."""
    found, loss = stored.training_losses(stored.checkpoint(name)), lambda row: row["losses"]["loss"]
    with shaken_copies(name) as copies:
        others = [stored.training_losses(copy) for copy in copies]
    stable = [all(abs(loss(o) / loss(row) - 1) < 1e-4 for o in other) for row, *other in zip(found, *others)]
    print(f"{name}: {stable.count(False)} moments left out")
    return [row for row, is_stable in zip(found, stable) if is_stable]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def main() -> None:
    if not stored.DATA.exists():
        make_data(stored.DATA)
    for name in sys.argv[1:] or TRAINING:
        if not stored.checkpoint(name).exists():
            train(name)
        if not stored.decodings(name).exists():
            write(stored.decodings(name), decode(name))
        if not stored.losses(name).exists():
            write(stored.losses(name), losses(name))


if __name__ == "__main__":
    main()
