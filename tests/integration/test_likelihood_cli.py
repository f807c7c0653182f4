"""The command and the Python call that give likelihoods of translations, and the choice among candidates by them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT
from conftest import SIZES, binarise
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, generate, hypotheses, training

import fairseq_diffusion
from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError

N = SIZES["test"]
SYSTEMS = {"dinoiser_toy": TINY, "mdlm_toy": TINY_WORDS, "d3pm_toy_uniform": TINY_WORDS}
EXACT = {"diffglat_toy": TINY_BLOCKS, "diffglat_toy_ctc": TINY_BLOCKS, "diffglat_toy_dag": TINY_BLOCKS}
FLAGS = "--max-update 3 --no-epoch-checkpoints --disable-validation"

Row = tuple[int, float, float, int]


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for arch, size in {**SYSTEMS, **EXACT}.items():
        own = " --diffusion-steps 20" if arch == "d3pm_toy_uniform" else ""
        folder = tmp_path_factory.mktemp(arch)
        call("train", *training(data, folder, FLAGS + own, arch=arch, size=size))
        found[arch] = folder / "checkpoint_last.pt"
    return found


def words(data: Path, path: Path, *more: Any) -> list[str]:
    return list(map(str, ["likelihood", data, "--path", path, "--cpu", "--samples", 4, *more]))


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[list[Row], list[str]]:
    """The sentences' rows, and the lines of the summary."""
    capsys.readouterr()
    assert main(arguments) == 0
    return parsed(capsys.readouterr().out)


def parsed(text: str) -> tuple[list[Row], list[str]]:
    rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
    summary = [line for line in text.splitlines() if "\t" not in line]
    return [(int(i), float(nats), float(error), int(count)) for i, nats, error, count in rows], summary


def same(one: list[Row], other: list[Row]) -> bool:
    """The same sentences with the same numbers, but for rounding."""
    return len(one) == len(other) and all(a == pytest.approx(b, rel=1e-4, abs=2e-4) for a, b in zip(one, other))


@pytest.mark.parametrize("arch", [*SYSTEMS, *EXACT])
def test_every_sentence_has_its_line(
    data: Path, corpus: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str], arch: str
):
    """In the order of the corpus, at any batch size, by the noise of the seed; and the means are their means."""
    rows, summary = printed(capsys, words(data, models[arch]))
    targets = (corpus / "test.b").read_text().splitlines()
    assert [(row[0], row[3]) for row in rows] == [(i, len(text.split()) + 1) for i, text in enumerate(targets)]
    finite = [row for row in rows if math.isfinite(row[1])]
    assert len(finite) == N or "ctc" in arch
    total, tokens = sum(row[1] for row in finite), sum(row[3] for row in finite)
    kind = "exact" if arch in EXACT else "upper bound, by 4 samples"
    assert summary[0] == f"{len(finite)} sentences, {tokens} tokens with the ends of sentences ({kind})"
    means = {line.split(" ", 3)[3]: (float(line.split()[0]), float(line.split()[2])) for line in summary[-3:]}
    spread = math.hypot(*(row[2] for row in finite))
    assert (spread == 0) == (arch in EXACT)
    assert means["nats per sentence"] == pytest.approx((total / len(finite), spread / len(finite)), abs=1e-3)
    assert means["nats per token"] == pytest.approx((total / tokens, spread / tokens), abs=1e-3)
    p = math.exp(total / tokens)
    assert means["perplexity per token"] == pytest.approx((p, p * spread / tokens), rel=1e-3, abs=1e-3)
    assert same(rows, printed(capsys, words(data, models[arch], "--batch-size", 1))[0])
    assert same(rows, printed(capsys, words(data, models[arch], "--max-tokens", 40))[0])
    assert same(rows, printed(capsys, words(data, models[arch], "--seed", 2))[0]) == (arch in EXACT)


def test_python_has_the_same(
    data: Path, corpus: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str], sources: list[str]
):
    translations = (corpus / "test.b").read_text().splitlines()
    for arch in ("mdlm_toy", "diffglat_toy"):
        rows, _ = printed(capsys, words(data, models[arch], "--seed", 5))
        model = fairseq_diffusion.load(models[arch], data=data, device="cpu")
        found = model.likelihood(sources, translations, samples=4, seed=5, batch_size=3)
        assert same(rows, [(i, each.nats, each.error, each.tokens) for i, each in enumerate(found)])
        assert all(each.exact == (arch in EXACT) for each in found)
        assert found[0].per_token == found[0].nats / found[0].tokens
    (empty,) = model.likelihood(sources[:1], [""])
    assert empty.tokens == 1 and math.isfinite(empty.nats)
    assert model.likelihood([], []) == []


def test_what_python_refuses(data: Path, models: dict[str, Path], teacher: Path):
    model = fairseq_diffusion.load(models["mdlm_toy"], data=data, device="cpu")
    asked: list[tuple[tuple[Any, Any], dict[str, Any], str]] = [
        (("w1", ["W1"]), {}, "takes a list of sources and a list of as many translations"),
        ((["w1"], []), {}, "takes a list of sources and a list of as many translations"),
        ((["w1", ""], ["W1", "W2"]), {}, "source 1 .* is empty"),
        ((["w1"], ["W1 " * 300]), {}, "translation 0 .* has 301 tokens"),
        ((["w1 " * 300], ["W1"]), {}, "sentence 0 .* has 301 tokens"),
        ((["w1"], ["W1"]), {"samples": 1}, "pass 2 or more"),
        ((["w1"], ["W1"]), {"steps": 0}, "a chain of 0 steps"),
        ((["w1"], ["W1"]), {"batch_size": 0}, "batch_size is 0; pass 1 or more"),
    ]
    for pair, more, said in asked:
        with pytest.raises(UserError, match=said):
            model.likelihood(*pair, **more)
    with pytest.raises(UserError, match="--score-reference"):
        fairseq_diffusion.load(teacher, data=data, device="cpu").likelihood(["w1"], ["W1"])


def test_lines_may_go_to_a_file(
    data: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows, summary = printed(capsys, words(data, models["diffglat_toy"]))
    file = tmp_path / "rows.tsv"
    assert printed(capsys, words(data, models["diffglat_toy"], "--output", file)) == ([], summary)
    assert parsed(file.read_text()) == (rows, [])
    assert main(words(data, models["diffglat_toy"], "--output", file)) == 2
    assert "pass --force" in capsys.readouterr().err
    assert main(words(data, models["diffglat_toy"], "--output", file, "--force", "--gen-subset", "valid")) == 0
    assert len(parsed(file.read_text())[0]) == SIZES["valid"]


def test_a_target_that_ctc_has_no_room_for_is_infinite(
    corpus: Path, data: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "test.a").write_text("w1 w2\nw3\n")
    (tmp_path / "test.b").write_text("THE W1 .\n" + "THE W3 W4 " * 10 + ".\n")
    dictionaries = ["--srcdict", data / "dict.a.txt", "--tgtdict", data / "dict.b.txt"]
    binarise(tmp_path, new := tmp_path / "bin", *dictionaries)
    rows, summary = printed(capsys, words(new, models["diffglat_toy_ctc"]))
    assert math.isfinite(rows[0][1]) and rows[1][1] == math.inf and rows[1][2] == 0
    assert summary[0].startswith("1 sentences, 4 tokens")
    assert summary[1] == "1 that the model cannot make (infinite), left out of the means"
    assert summary[2].endswith(" +- 0 nats per sentence")
    assert float(summary[2].split()[0]) == pytest.approx(rows[0][1], abs=1e-3)


def test_what_the_command_refuses(
    data: Path, models: dict[str, Path], teacher: Path, capsys: pytest.CaptureFixture[str]
):
    asked = [
        (words(data, teacher), "is autoregressive; fairseq-generate --score-reference"),
        (words(data, models["d3pm_toy_uniform"], "--steps", 8), "has 20 of its own (--diffusion-steps); drop --steps"),
        (words(data, models["diffglat_toy"], "--steps", 8), "a one-pass model has no chain of them; drop --steps"),
        (words(data, models["mdlm_toy"], "--samples", 1), "pass 2 or more"),
        (words(data, models["mdlm_toy"], "--batch-size", 0), "--batch-size is 0; pass 1 or more"),
        (words(data, models["mdlm_toy"], "--gen-subset", "dev"), "dev"),
    ]
    for arguments, said in asked:
        assert main(arguments) == 2, said
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error


def test_more_steps_and_samples_are_read(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    path = models["mdlm_toy"]
    few, usual, many = (printed(capsys, words(data, path, *more)) for more in (("--steps", 2), (), ("--samples", 64)))
    assert not same(few[0], usual[0])
    assert sum(row[2] for row in many[0]) < sum(row[2] for row in usual[0]) / 2
    assert "by 64 samples" in many[1][0]


def test_as_a_user_starts_it(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    arguments = words(data, models["mdlm_toy"])
    start = [sys.executable, "-m", "fairseq_diffusion.cli.main", *arguments]
    done = subprocess.run(start, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert same(parsed(done.stdout)[0], printed(capsys, arguments)[0])


@pytest.mark.parametrize("arch", ["mdlm_toy", "dinoiser_toy", "diffglat_toy"])
def test_candidates_are_chosen_by_likelihood(data: Path, models: dict[str, Path], sources: list[str], arch: str):
    """In the order of what Python says of the texts that are printed; the candidates are the same."""
    steps = "" if arch in EXACT else "--iter-decode-max-iter 3 --noise-beam 2"
    flags = "--iter-decode-with-beam 3 --nbest 9 --remove-bpe none --seed 4"
    chosen, usual = (
        {i: [text for text, _ in own] for i, own in hypotheses(generate(data, models[arch], more, steps)).items()}
        for more in (f"{flags} --selection likelihood", flags)
    )
    assert chosen != usual and len(chosen) == N
    assert {i: sorted(own) for i, own in chosen.items()} == {i: sorted(own) for i, own in usual.items()}
    model = fairseq_diffusion.load(models[arch], data=data, device="cpu")
    for i, texts in chosen.items():
        found = model.likelihood([sources[int(i)]] * len(texts), texts, samples=8, seed=4)
        costs = [each.per_token for each in found]
        assert all(one < other + 1e-4 for one, other in zip(costs, costs[1:]))
