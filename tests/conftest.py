"""One small corpus and a few trained models for all tests; nothing is read from the network."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from configurations import composed
from fairseq.dataclass import utils
from runs import train_teacher
from support import call, generate, training

pytest_plugins = ["reliability_fixtures"]

WORDS = [f"w{i}" for i in range(12)] + [f"p{i}@@" for i in range(3)]
SIZES = {"train": 40, "valid": 10, "test": 11}  # 11: no multiple of 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where tests run that can run on a GPU (cpu)"
    )
    parser.addoption("--soak", action="store_true", help="inject many more faults, and try many more inputs")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    utils.compose = composed  # quickly
    if config.getoption("device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(
            f"--device cuda needs an NVIDIA GPU, and torch {torch.__version__} finds none; leave the option out"
        )


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """That of --device. A test that uses it makes its tensors and modules there, if it does not name another."""
    chosen = torch.device(request.config.getoption("device"))
    with nullcontext() if chosen.type == "cpu" else chosen:
        yield chosen


@pytest.fixture(scope="session")
def trains() -> None:
    """What fixtures that train ask for: a test that uses one of them is slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow is what trains, and the chain on the command line.

    Files with slow tests go first, so that workers that share the suite end at about the same time.
    """
    for item in items:
        if "trains" in getattr(item, "fixturenames", ()) or "integration" in item.path.parts:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def sentence(rng: random.Random, longest: int = 12) -> list[str]:
    """Some words; a piece that ends in @@ is never last."""
    return [rng.choice(WORDS) for _ in range(rng.randint(1, longest))] + [rng.choice(WORDS[:12])]


def write_pair(folder: Path, split: str, sources: list[list[str]]) -> None:
    """Sources in language a; language b says the same backwards, in capitals, between THE and a full stop."""
    targets = [["THE", *(word.upper() for word in reversed(words) if "@@" not in word), "."] for words in sources]
    for language, sentences in (("a", sources), ("b", targets)):
        (folder / f"{split}.{language}").write_text("".join(" ".join(words) + "\n" for words in sentences))


def binarise(text: Path, data: Path, *more: object) -> Path:
    splits = [f"--{name}pref={text / name}" for name in SIZES if (text / f"{name}.a").exists()]
    call("preprocess", "-s", "a", "-t", "b", *splits, "--destdir", data, *more)
    return data


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(1)
    for split, size in SIZES.items():
        write_pair(folder, split, [sentence(rng) for _ in range(size)])
    return folder


@pytest.fixture(scope="session")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, binarised."""
    return binarise(corpus, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def eight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training sentences of all lengths, binarised with the corpus' dictionaries."""
    text, rng = tmp_path_factory.mktemp("eight"), random.Random(2)
    write_pair(text, "train", [sentence(rng, 2 + 2 * i) for i in range(8)])
    write_pair(text, "valid", [sentence(rng)])  # fairseq 0.12.2 wants it even where validation is off
    more = ["--srcdict", data / "dict.a.txt", "--tgtdict", data / "dict.b.txt"]
    return binarise(text, tmp_path_factory.mktemp("eight-bin"), *more)


WATCHED = (
    "--max-epoch 4 --store-ema --ema-decay 0.5 --eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe "
    "--best-checkpoint-metric bleu --maximize-best-checkpoint-metric --keep-best-checkpoints 2 --schedule-update 3 "
    "--log-format json --log-interval 5 --tensorboard-logdir"
)


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    """The folder of a training with all that users watch turned on: BLEU, best checkpoints, EMA, curves."""
    folder = tmp_path_factory.mktemp("trained")
    call("train", *training(data, folder, f"{WATCHED} {folder / 'curves'}"))
    return folder


@pytest.fixture(scope="session")
def checkpoint(trained: Path) -> Path:
    return trained / "checkpoint_last.pt"


LEARNING = (
    "--max-update 60 --lr 1e-2 --objective mse,anchor --no-epoch-checkpoints --batch-size-valid 4 --log-format json "
    "--eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe --log-file"
)
DECODING = {"iter_decode_max_iter": 4, "iter_decode_with_beam": 2}


@pytest.fixture(scope="session")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    """The folder of a training that has learnt enough for a BLEU above zero, with its log."""
    folder = tmp_path_factory.mktemp("learned")
    arguments = training(data, folder, f"{LEARNING} {folder / 'log'} --eval-bleu-args")
    call("train", *arguments, json.dumps(DECODING))
    return folder


@pytest.fixture(scope="session")
def plain_output(data: Path, checkpoint: Path) -> str:
    """fairseq-generate's output with a small beam and several candidates."""
    return generate(data, checkpoint, BEAM)


@pytest.fixture(scope="session")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoregressive checkpoint."""
    return train_teacher(data, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def sources(corpus: Path) -> list[str]:
    return (corpus / "test.a").read_text().splitlines()


BEAM = "--iter-decode-with-beam 3 --noise-beam 2 --selection mbr --nbest 3"
