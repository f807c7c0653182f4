"""An autoregressive teacher beside ours on the command line: it orders candidates, and only if it fits the data."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES, binarise
from runs import RERANKER, train_teacher
from support import USER_DIR, call, decoding, generate, hypotheses, process, same_hypotheses

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting import read

LIST = "--iter-decode-with-beam 3 --noise-beam 2 --nbest 6"
PIECES = "--remove-bpe none"  # show what was scored, with its @@
DICTIONARIES = {"a": "--srcdict", "b": "--tgtdict"}


def rescored(data: Path, ours: Path, teacher: Path, flags: str = f"--selection rescore {LIST}") -> str:
    return generate(data, f"{ours}:{teacher}", f"{RERANKER} {flags}")


def of_the_teacher(data: Path, corpus: Path, teacher: Path, found: dict[str, list[str]], folder: Path) -> Any:
    """fairseq's own score of each of the texts `found` for a test sentence: --score-reference on a data-bin of them."""
    sources = (corpus / "test.a").read_text().splitlines()
    pairs = [(i, text) for i, texts in found.items() for text in texts]
    (folder / "test.a").write_text("".join(f"{sources[int(i)]}\n" for i, _ in pairs))
    (folder / "test.b").write_text("".join(f"{text}\n" for _, text in pairs))
    same = [part for side, flag in DICTIONARIES.items() for part in (flag, data / f"dict.{side}.txt")]
    scored = binarise(folder, folder / "bin", *same)
    usual = f"--gen-subset test --batch-size 8 --cpu --num-workers 0 --required-batch-size-multiple 1 --path {teacher}"
    output = call("generate", scored, "--task", "translation", "--score-reference", *usual.split())
    scores = hypotheses(output)
    assert len(scores) == len(pairs)
    return {pair: scores[str(row)][0][1] for row, pair in enumerate(pairs)}


def texts(output: str) -> dict[str, list[str]]:
    return {i: [text for text, _ in found] for i, found in hypotheses(output).items()}


def falling(scores: list[float]) -> bool:
    """Up to the rounding of sums in another order."""
    return all(one > other - 1e-4 for one, other in zip(scores, scores[1:]))


# -- the order


def test_nbest_are_in_the_order_of_the_teachers_scores(
    data: Path, corpus: Path, learned: Path, teacher: Path, tmp_path: Path
):
    ours = learned / "checkpoint_last.pt"
    found = texts(rescored(data, ours, teacher, f"--selection rescore {LIST} {PIECES}"))
    scores = of_the_teacher(data, corpus, teacher, found, tmp_path)
    assert all(falling([scores[i, text] for text in listed]) for i, listed in found.items())
    by_model = texts(generate(data, ours, f"{LIST} {PIECES}"))
    assert {i: set(listed) for i, listed in found.items()} == {i: set(listed) for i, listed in by_model.items()}
    assert not all(falling([scores[i, text] for text in listed]) for i, listed in by_model.items())


def test_a_reranker_on_the_path_rescores_unless_told_otherwise(data: Path, learned: Path, teacher: Path):
    ours = learned / "checkpoint_last.pt"
    assert same_hypotheses(rescored(data, ours, teacher, LIST), rescored(data, ours, teacher), 1e-9)


def test_a_chain_rescores_what_mbr_keeps(data: Path, corpus: Path, learned: Path, teacher: Path, tmp_path: Path):
    ours = learned / "checkpoint_last.pt"
    found = texts(rescored(data, ours, teacher, f"--selection mbr:3,rescore {LIST} {PIECES}"))
    by_mbr = texts(generate(data, ours, f"--selection mbr {LIST} {PIECES}"))
    scores = of_the_teacher(data, corpus, teacher, found, tmp_path)
    assert found.keys() == by_mbr.keys() and found != by_mbr
    for i, listed in found.items():
        assert set(listed[:3]) == set(by_mbr[i][:3]) and listed[3:] == by_mbr[i][3:]
        assert falling([scores[i, text] for text in listed[:3]])


def test_scores_stay_the_models_own(data: Path, checkpoint: Path, teacher: Path):
    """The teacher orders the list; what is printed beside each text is as without it."""
    with_it, without = (
        {i: sorted(found) for i, found in hypotheses(output).items()}
        for output in (rescored(data, checkpoint, teacher), generate(data, checkpoint, LIST))
    )
    assert with_it == without


# -- what the report says


def test_report_names_the_teacher(data: Path, checkpoint: Path, teacher: Path, tmp_path: Path):
    rescored(data, checkpoint, teacher, f"--selection rescore {LIST} --results-path {tmp_path}")
    report = read(tmp_path / "generate-test.json")
    assert report["decoding"]["rescored"] is True and report["decoding"]["selection"] == "rescore"
    assert report["decoding"]["rescored_by"] == "probability"
    assert [each["path"] for each in report["checkpoints"]] == [str(checkpoint), str(teacher)]
    assert [each["task"] for each in report["checkpoints"]] == ["diffusion_translation", "translation"]
    block = (tmp_path / "generate-test.txt").read_text()
    assert re.search(rf"^\| AR rescoring +yes, by the probability of {re.escape(str(teacher))}$", block, re.MULTILINE)


def test_report_says_that_there_is_none(plain_output: str):
    assert re.search(r"^\| AR rescoring +no$", plain_output, re.MULTILINE)


# -- the teacher alone


def test_teacher_alone_is_decoded_with_beam_search(data: Path, teacher: Path):
    """By our task, whose batches leave no sentence out, as by fairseq's."""
    own = f"--gen-subset test --batch-size 4 --remove-bpe --cpu --num-workers 0 --beam 3 --nbest 3 --path {teacher}"
    output = call("generate", data, *USER_DIR, *own.split())
    fairseqs = call("generate", data, "--task", "translation", "--required-batch-size-multiple", 1, *own.split())
    assert len(hypotheses(output)) == SIZES["test"] and hypotheses(output) == hypotheses(fairseqs)
    assert "SequenceGenerator" in output and "network calls" not in output


# -- what is refused


@pytest.fixture(scope="module", params=["source", "target"])
def stranger(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A side, and a teacher trained where that side's dictionary has one word instead of many."""
    folder, words = (
        tmp_path_factory.mktemp(request.param),
        {"source": ("a", r"w\d+", "w"), "target": ("b", r"W\d+", "W")},
    )
    language, old, new = words[request.param]
    for file in corpus.glob("*.[ab]"):
        change = file.suffix[1:] == language
        (folder / file.name).write_text(re.sub(old, new, file.read_text()) if change else file.read_text())
    return request.param, train_teacher(binarise(folder, folder / "bin"), folder)


def entries(data: Path, language: str) -> int:
    """Of a dictionary: its lines and fairseq's four special symbols."""
    return len((data / f"dict.{language}.txt").read_text().splitlines()) + 4


def test_teacher_of_another_dictionary(data: Path, checkpoint: Path, stranger: tuple[str, Path]):
    side, teacher = stranger
    language = {"source": "a", "target": "b"}[side]
    theirs, ours = entries(teacher.parent / "bin", language), entries(data, language)
    with pytest.raises(UserError, match=f"a {side} dictionary of {theirs} entries, but this data has {ours};"):
        rescored(data, checkpoint, teacher)


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """What a process that was refused says last, without a traceback."""
    assert result.returncode != 0 and "Traceback" not in result.stderr, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("fairseq-diffusion: error: "), last
    return last


def test_teacher_with_joined_embeddings(data: Path, corpus: Path, checkpoint: Path, tmp_path: Path):
    """It cannot even be built for data whose dictionaries are apart."""
    joined = binarise(corpus, tmp_path / "joined", "--joined-dictionary")
    teacher = train_teacher(joined, tmp_path, "--share-all-embeddings")
    flags = f"{RERANKER} --selection rescore"
    last = one_sentence(process("generate", *decoding(data, f"{checkpoint}:{teacher}", flags)))
    assert "--share-all-embeddings" in last and "--joined-dictionary" in last


@pytest.mark.parametrize(
    "path, flags, words",
    [
        ("{ours}:{teacher}", "", "names 2 checkpoints.*--iter-decode-with-external-reranker"),
        ("{ours}:{teacher}", "--selection rescore", "names 2 checkpoints.*--iter-decode-with-external-reranker"),
        ("{ours}:{teacher}", f"{RERANKER} --selection score", "does not use it; pass --selection rescore"),
        ("{ours}", f"{RERANKER} --selection rescore", "asks for --path OURS.pt:AR.pt, but there are 1"),
        (
            "{ours}:{teacher}:{teacher}",
            f"{RERANKER} --selection rescore",
            "asks for --path OURS.pt:AR.pt, but there are 3",
        ),
        ("{ours}", "--noise-beam 2 --rescore-by energy", "'score' does not use it; .*--selection rescore reads it"),
        ("{ours}:{ours}", f"{RERANKER} --selection rescore", "this one holds a DiffusionModel; .* name it last"),
        pytest.param("{teacher}:{ours}", f"{RERANKER} --selection rescore", "name the diffusion model first"),
    ],
)
def test_paths_and_flags_that_do_not_agree(
    data: Path, checkpoint: Path, teacher: Path, path: str, flags: str, words: str
):
    with pytest.raises(UserError, match=words):
        generate(data, path.format(ours=checkpoint, teacher=teacher), flags)
