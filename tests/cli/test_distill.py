"""The command around decoding, with canned translations: what is kept, resumed, refused, replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES, binarise, write_pair
from fairseq.data import data_utils

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.distillation import shards
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting import progress

SENTENCES = SIZES["train"]


class Canned:
    """Stands for fairseq-generate: sentence i becomes `texts[i]`, in shard i modulo their number, last one first."""

    def __init__(self) -> None:
        self.texts = {i: f"THE W{i % 12} ." for i in range(SENTENCES)}
        self.decoded: list[int] = []
        self.flags: list[str] = []
        self.says = ""

    def __call__(self, command: list[str], place: dict[str, str], log: Any) -> Iterator[str]:
        options = dict(zip(command, command[1:]))
        count, shard = int(options["--distributed-world-size"]), int(options["--distributed-rank"])
        self.decoded.append(shard)
        self.flags = command
        log.write(self.says)
        for i in sorted((i for i in self.texts if i % count == shard), reverse=True):
            yield from (f"S-{i}\tsomething\n", f"H-{i}\t-0.5\t{self.texts[i]}\n", f"H-{i}\t-0.7\tTHE second\n")
        yield "Generate train with beam=5\n"


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Canned:
    monkeypatch.setattr(shards, "process_lines", fake := Canned())
    return fake


@pytest.fixture
def distil(data: Path, checkpoint: Path, tmp_path: Path) -> Any:
    """Runs the command with further words, later ones winning; its status."""

    def run(*words: Any, behind: str = "") -> int:
        own = [data, "--path", checkpoint, "--output", tmp_path / "new", *words, "--", *behind.split()]
        return main(["distill", *map(str, own)])

    return run


def lines(new: Path, language: str) -> list[str]:
    return (new / "text" / f"train.{language}").read_text().splitlines()


def record(new: Path) -> dict[str, Any]:
    return json.loads((new / "distilled.json").read_text())


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refusal(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 2
    return capsys.readouterr().err


def test_progress_is_that_of_the_shards_that_are_missing(
    canned: Canned, distil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert distil("--shards", 4, "--shard", 0) == 0
    assert "sentences/s" not in capsys.readouterr().err
    assert distil("--shards", 4, "--jobs", 2) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "sentences/s" in line]
    assert [line.split(" sentences")[0] for line in said] == [f"translated {i} of 30" for i in range(1, 30)]


# -- what is written


def test_best_hypotheses_in_the_order_of_the_sentences(
    canned: Canned, distil: Any, corpus: Path, data: Path, tmp_path: Path
):
    assert distil("--shards", 3, "--jobs", 2) == 0
    new = tmp_path / "new"
    assert lines(new, "a") == (corpus / "train.a").read_text().splitlines()
    assert lines(new, "b") == [canned.texts[i] for i in range(SENTENCES)]
    kept = [file for file in content(data) if file.startswith(("dict", "valid", "test"))]
    assert len(kept) == 10 and all(content(new)[file] == content(data)[file] for file in kept)
    assert record(new)["counts"]["kept"] == SENTENCES and record(new)["plan"]["shards"] == 3
    assert sorted(canned.decoded) == [0, 1, 2]


def test_what_is_dropped_is_counted(
    canned: Canned, distil: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sources = [line.split() for line in (corpus / "train.a").read_text().splitlines()]
    canned.texts[3] = ""
    canned.texts[4] = " ".join(["W1"] * (2 * max(len(sources[4]), 5) + 1))
    canned.texts[5] = " ".join(["W1"] * (2 * max(len(sources[5]), 5)))
    canned.texts[6] = "THE <unk> NOVEL ."
    assert distil("--max-ratio", 2) == 0
    wild = [i for i, words in enumerate(sources) if i != 5 and len(words) > 2 * max(5, len(canned.texts[i].split()))]
    counts = record(tmp_path / "new")["counts"]
    assert counts["empty"] == 1 and counts["wild_ratio"] == len({4, *wild}) and counts["unknown_words"] == 2
    assert counts["kept"] == SENTENCES - 1 - counts["wild_ratio"] == len(lines(tmp_path / "new", "b"))
    assert (
        lines(tmp_path / "new", "b")[[i for i in range(SENTENCES) if i not in (3, 4, *wild)].index(5)]
        == canned.texts[5]
    )
    printed = capsys.readouterr().out
    assert f"{counts['kept']:>12}  kept" in printed and "           1  dropped: nothing on one side" in printed


def test_bleu_tells_a_teacher_that_fits_from_one_that_does_not(
    canned: Canned, distil: Any, corpus: Path, tmp_path: Path
):
    canned.texts = dict(enumerate((corpus / "train.b").read_text().splitlines()))
    assert distil() == 0
    assert record(tmp_path / "new")["counts"]["bleu_of_pieces"] == 100


def test_mixed_keeps_the_real_pairs_first_and_decodes_nothing_again(
    canned: Canned, distil: Any, corpus: Path, tmp_path: Path
):
    canned.texts[7] = ""
    assert distil() == 0
    mixed = tmp_path / "mixed"
    assert distil("--mixed", "--work", tmp_path / "new.work", "--output", mixed) == 0
    assert canned.decoded == [0]
    real, distilled = (corpus / "train.b").read_text().splitlines(), lines(tmp_path / "new", "b")
    assert lines(mixed, "b") == real + distilled and len(distilled) == SENTENCES - 1
    assert lines(mixed, "a")[:SENTENCES] == (corpus / "train.a").read_text().splitlines()
    assert record(mixed)["counts"]["pairs"] == 2 * SENTENCES - 1 and record(mixed)["mixed"]


def test_unknown_words_of_the_real_pairs_stay_unknown(canned: Canned, data: Path, checkpoint: Path, tmp_path: Path):
    (text := tmp_path / "text").mkdir()
    write_pair(text, "train", [["w1", "never-seen", "w2"], ["w3"]])
    write_pair(text, "valid", [["w3"]])
    other = binarise(text, tmp_path / "bin", "--srcdict", data / "dict.a.txt", "--tgtdict", data / "dict.b.txt")
    canned.texts = {0: "THE W2 .", 1: "THE ."}
    new = tmp_path / "new"
    assert main(["distill", str(other), "--path", str(checkpoint), "--output", str(new), "--mixed"]) == 0
    for language in "ab":
        raw, mixed = (data_utils.load_indexed_dataset(str(bin_ / f"train.a-b.{language}")) for bin_ in (other, new))
        assert [mixed[i].tolist() for i in range(2)] == [raw[i].tolist() for i in range(2)]
        assert 3 in raw[0].tolist()


# -- going on, and starting anew


def test_parts_of_a_cluster_job_and_a_last_run(
    canned: Canned, distil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert distil("--shards", 3, "--shard", 2) == 0
    assert "2 of 3 shards are missing: 0, 1" in capsys.readouterr().out and not (tmp_path / "new").exists()
    assert distil("--shards", 3, "--shard", 0) == distil("--shards", 3, "--shard", 1) == 0
    assert "all shards are complete" in capsys.readouterr().out
    assert distil("--shards", 3) == 0
    assert canned.decoded == [2, 0, 1] and len(lines(tmp_path / "new", "b")) == SENTENCES


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace("W1", "W2", 1), lambda text: ""])
def test_a_damaged_shard_is_decoded_again_and_the_others_are_not(
    canned: Canned, distil: Any, tmp_path: Path, damage: Any
):
    assert distil("--shards", 2) == 0
    whole, file = content(tmp_path / "new"), tmp_path / "new.work" / "shard-1-of-2.tsv"
    file.write_text(damage(file.read_text()))
    assert distil("--shards", 2, "--force") == 0
    assert canned.decoded[2:] == [1] and content(tmp_path / "new") == whole


def test_another_plan_is_refused_with_what_differs(
    canned: Canned, distil: Any, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert distil("--shards", 2, "--shard", 0) == 0
    error = refusal(capsys, distil("--shards", 3, behind="--lenpen 0.6"))
    assert "flags then --beam 5 --seed 1, now --beam 5 --seed 1 --lenpen 0.6; shards then 2, now 3" in error
    error = refusal(capsys, distil("--shards", 2, "--path", trained / "checkpoint_best.pt"))
    assert "--path then held other weights" in error and canned.decoded == [0]
    assert distil("--shards", 2, "--force", behind="--lenpen 0.6") == 0
    assert "decoding again: flags then" in capsys.readouterr().out
    assert canned.decoded == [0, 0, 1] and record(tmp_path / "new")["plan"]["flags"][-2:] == ["--lenpen", "0.6"]


def test_flags_of_a_decoding_that_failed_may_be_mended(canned: Canned, distil: Any, tmp_path: Path):
    def failing(*_: Any) -> Iterator[str]:
        raise UserError("fairseq-generate ended with status 1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "process_lines", failing)
        assert distil(behind="--lenpen 60") == 2
    assert distil(behind="--lenpen 0.6") == 0 and record(tmp_path / "new")["plan"]["flags"][-1] == "0.6"


def test_an_existing_output_is_replaced_only_when_told_so_and_only_whole(
    canned: Canned, distil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert distil() == 0
    before = content(tmp_path / "new")
    assert "already exists" in refusal(capsys, distil("--max-ratio", 1.2))
    (tmp_path / "new.work" / "shard-0-of-1.tsv").unlink()
    del canned.texts[8]
    assert "no translation" in refusal(capsys, distil("--force"))
    assert content(tmp_path / "new") == before
    canned.texts[8] = "W8"
    (tmp_path / "new.work" / "shard-0-of-1.tsv").unlink()
    assert distil("--force") == 0 and lines(tmp_path / "new", "b")[8] == "W8"
    assert {file.name for file in tmp_path.iterdir()} == {"new", "new.work"}


def test_a_folder_that_is_not_ours_is_never_replaced(
    canned: Canned, distil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").write_text("precious")
    assert "we did not write it" in refusal(capsys, distil("--force"))
    assert content(tmp_path / "new") == {"thesis.tex": b"precious"} and not canned.decoded


# -- translations that are not there


def test_missing_hypotheses_are_an_error_that_names_them(
    canned: Canned, distil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    del canned.texts[5], canned.texts[11]
    error = refusal(capsys, distil("--shards", 2))
    assert "2 sentences of train have no translation" in error and "among them 5, 11" in error
    assert not (tmp_path / "new").exists()


def test_long_sentences_that_fairseq_skipped_are_counted(
    canned: Canned, distil: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    long = [i for i, line in enumerate((corpus / "train.a").read_text().splitlines()) if len(line.split()) > 11]
    canned.texts = {i: text for i, text in canned.texts.items() if i not in long}
    canned.says = f"{len(long)} samples have invalid sizes and will be skipped, max_positions=(12, 1024), first few\n"
    assert long and distil("--shards", 2) == 0
    assert record(tmp_path / "new")["counts"]["skipped"] == len(long)
    del canned.texts[short := min(canned.texts)]
    error = refusal(capsys, distil("--work", tmp_path / "again", "--output", tmp_path / "other"))
    assert f"1 sentences of train have no translation, though they are not too long, among them {short};" in error


def test_nothing_kept_is_an_error(canned: Canned, distil: Any, capsys: pytest.CaptureFixture[str]):
    canned.texts = dict.fromkeys(canned.texts, "")
    assert "no translation could be kept" in refusal(capsys, distil())


# -- refused before anything is decoded


@pytest.mark.parametrize(
    ("words", "behind", "sentence"),
    [
        (["--shards", 0], "", "at least 1"),
        (["--max-ratio", 0.5], "", "at least 1"),
        (["--max-ratio", "nan"], "", "at least 1"),
        (["--shards", 2, "--shard", 2], "", "counted from 0"),
        (["--shards", 2, "--shard", 1, "--jobs", 2], "", "--jobs is for several"),
        (["--output", "/nowhere/at/all"], "", "there is no folder"),
        (["--path", "nowhere.pt"], "", "no such checkpoint: nowhere.pt"),
        ([], "--remove-bpe", "--post-process to subword_nmt"),
        ([], "--gen-subset test", "--gen-subset to test, but distillation needs train"),
        ([], "--quiet", "drop that flag"),
        ([], "--beem 4", "does not take the flags after --: unrecognized arguments: --beem 4"),
    ],
)
def test_refusals(
    canned: Canned, distil: Any, capsys: pytest.CaptureFixture[str], words: list[Any], behind: str, sentence: str
):
    assert sentence in refusal(capsys, distil(*words, behind=behind))
    assert not canned.decoded


def test_the_work_folder_is_not_inside_the_output(canned: Canned, distil: Any, tmp_path: Path, capsys: Any):
    assert "holds the --work folder" in refusal(capsys, distil("--work", tmp_path / "new" / "work"))


def test_users_flags_come_behind_ours_and_shards_last(canned: Canned, distil: Any):
    assert distil(behind="--beam 4 --fp16") == 0
    shard = ["--distributed-world-size", "1", "--distributed-rank", "0"]
    assert canned.flags[-11:] == [*"--beam 5 --seed 1 --beam 4 --fp16".split(), *shard]
