"""A candidate is a function of its source, the seed, its length and its number: nothing beside it changes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SIZES
from runs import RERANKER
from support import TINY_WORDS, USER_DIR, call, generate, hypotheses, lines, same_hypotheses, training

from fairseq_diffusion.decoding.selection import Selector
from fairseq_diffusion.translators.batch import Candidates

BEAMS = "--iter-decode-with-beam 3 --noise-beam 2 --nbest 6"
WAYS = {
    "pruned": f"{BEAMS} --prune-after 1,3 --iter-decode-max-iter 5 --clamp --temperature 0.8 --grid sigma",
    "stopped and pruned": f"{BEAMS} --stop-stable 1 --prune-after 2,6 --iter-decode-max-iter 11 --sampler ddpm",
    "second order": f"{BEAMS} --sampler dpmpp_2m --grid log_snr --iter-decode-max-iter 6 --prune-after 3",
    "rescored": f"{BEAMS} --selection mbr:3,rescore {RERANKER} --stop-stable 1 --iter-decode-max-iter 9",
    "guided": f"{BEAMS} --guidance 2 --sampler ddpm --eta 0.5",
    "words": f"{BEAMS} --prune-after 2,6 --iter-decode-max-iter 11 --sampler ancestral",
    "words hidden again": f"{BEAMS} --sampler mask_predict --word-temperature 0.7 --iter-decode-max-iter 5",
}


@pytest.fixture(scope="module")
def guided(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained to do without its source now and then."""
    folder = tmp_path_factory.mktemp("guided")
    call("train", *training(data, folder, "--source-drop 0.3 --max-update 40 --lr 1e-2 --no-epoch-checkpoints"))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def words(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose states are words."""
    folder = tmp_path_factory.mktemp("words")
    flags = "--max-update 40 --lr 1e-2 --no-epoch-checkpoints"
    call("train", *training(data, folder, flags, "mdlm_toy", size=TINY_WORDS))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, data: Path, guided: Path, words: Path, teacher: Path) -> tuple[str, str, str]:
    """Flags, checkpoints, and what comes out in batches of eight."""
    flags = WAYS[request.param]
    path = str(words if request.param.startswith("words") else guided)
    if RERANKER in flags:
        path += f":{teacher}"
    return flags, path, generate(data, path, flags)


# -- neighbours


@pytest.mark.parametrize("batching", ["--batch-size 1", "--batch-size 3", "--max-tokens 40"])
def test_batching_does_not_change_the_output(data: Path, way: tuple[str, str, str], batching: str):
    flags, path, output = way
    assert len(hypotheses(output)) == SIZES["test"]
    assert same_hypotheses(generate(data, path, f"{flags} {batching}"), output)


def test_ranks_share_the_work_and_change_nothing(data: Path, way: tuple[str, str, str]):
    flags, path, output = way
    shards = [generate(data, path, f"{flags} --distributed-world-size 2 --distributed-rank {r}") for r in (0, 1)]
    one, other = (set(hypotheses(shard)) for shard in shards)
    assert one and other and not one & other
    assert same_hypotheses("\n".join(shards), output)


def test_interactive_equals_generate(data: Path, corpus: Path, way: tuple[str, str, str]):
    """And the same flags with another seed say something else."""
    flags, path, output = way

    def interactive(more: str) -> str:
        usual = f"-s a -t b --remove-bpe --iter-decode-max-iter 3 --cpu --buffer-size 5 --batch-size 2 --path {path}"
        return call("interactive", data, *USER_DIR, *f"{usual} {flags} {more}".split(), "--input", corpus / "test.a")

    assert same_hypotheses(interactive(""), output)
    assert not same_hypotheses(interactive("--seed 2"), output)


def test_history_does_not_see_the_batch_either(data: Path, guided: Path):
    """Whoever has finished shows what it ended with, as long as its neighbours go on."""
    flags = "--stop-stable 1 --iter-decode-max-iter 11 --noise-beam 2 --nbest 2 --sampler ddpm"
    together, alone = (generate(data, guided, f"{flags} --retain-iter-history --batch-size {n}") for n in (11, 1))
    for i, steps in history(alone).items():
        longer = history(together)[i]
        assert longer[: len(steps)] == steps and all(step == steps[-1] for step in longer[len(steps) :])


def history(output: str) -> dict[str, list[Any]]:
    """For each sentence, what its candidates said at each step."""
    found: dict[str, dict[int, Any]] = {}
    for name, shown in lines(output, "E").items():
        sentence, step = name.split("_")
        found.setdefault(sentence, {})[int(step)] = shown
    return {i: [steps[step] for step in sorted(steps)] for i, steps in found.items()}


# -- more candidates


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Candidates]]:
    """The candidates of each batch that was decoded, before any choice."""
    found: list[Candidates] = []
    choose = Selector.__call__

    def watched(self: Selector, candidates: Candidates, *args: Any) -> Any:
        found.append(candidates)
        return choose(self, candidates, *args)

    monkeypatch.setattr(Selector, "__call__", watched)
    yield found


def candidates(seen: list[Candidates], noises: int) -> list[dict[tuple[int, int], tuple[list[int], float]]]:
    """Words and score of each sentence's candidates, by the rank of their length and the number of their noise."""
    sentences = []
    for batch in seen:
        for tokens, scores in zip(batch.tokens, batch.scores):
            words = [row[row >= 0].tolist() for row in tokens]
            sentences.append({divmod(k, noises): (words[k], float(scores[k])) for k in range(len(scores))})
    seen.clear()
    return sentences


@pytest.mark.parametrize(
    "sampler, small, large",
    [("cedi", (2, 2), (2, 4)), ("ddpm", (2, 2), (3, 2)), ("dpmpp_2m", (1, 1), (3, 3)), ("ddpm", (2, 2), (2, 4))],
)
def test_a_larger_beam_only_adds(
    data: Path, guided: Path, seen: list[Candidates], sampler: str, small: tuple[int, int], large: tuple[int, int]
):
    """The first lengths and noises are the same, to the rounding of a network that sees more rows."""
    found = []
    for lengths, noises in (small, large):
        generate(data, guided, f"--sampler {sampler} --iter-decode-with-beam {lengths} --noise-beam {noises}")
        found.append(candidates(seen, noises))
    few, many = found
    assert len(few) == len(many) == SIZES["test"]
    for few_here, many_here in zip(few, many):
        assert len(few_here) == np.prod(small) and len(many_here) == np.prod(large)
        for number, (words, score) in few_here.items():
            assert many_here[number][0] == words
            assert many_here[number][1] == pytest.approx(score, abs=1e-4)


def test_noises_and_lengths_are_different(data: Path, guided: Path, seen: list[Candidates]):
    generate(data, guided, "--sampler ddpm --iter-decode-with-beam 2 --noise-beam 3")
    scores = np.array([[score for _, score in sentence.values()] for sentence in candidates(seen, 3)])
    assert all(len(set(row)) == 6 for row in scores)
