"""Faults of files, disks and flags that would end in a traceback, or pass: a sentence, and nothing left half."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT
from fairseq.data.indexed_dataset import IndexedDatasetBuilder, MMapIndexedDataset
from support import call, command, decoding, generate, hypotheses, process, training

import fairseq_diffusion
from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import writing
from fairseq_diffusion.reporting import run

SPLIT = "test.a-b.a"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A data-bin to damage."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0 and "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1].removeprefix("fairseq-diffusion: error: ")


def limited(limit: int, tool: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """A command that can write no file above `limit` bytes, as on a full disk."""

    def limits() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        command(tool, *args), env=ENVIRONMENT, preexec_fn=limits, capture_output=True, text=True, check=False
    )


# -- data


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("end", ["bin", "idx"])
def test_a_binarised_file_that_is_cut_off_is_named(copy: Path, checkpoint: Path, end: str, share: float):
    file = copy / f"{SPLIT}.{end}"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(UserError, match=rf"{file} .*bytes.*fairseq-preprocess"):
        generate(copy, checkpoint)


@pytest.mark.parametrize("magic", [b"HUFFIDX\x00", b"TNTIDX\x00\x00"])
def test_an_index_that_says_to_be_of_another_format_is_named(copy: Path, checkpoint: Path, magic: bytes):
    (copy / "test.a-b.a.idx").write_bytes(magic + b"abc")
    with pytest.raises(UserError, match=r"test\.a-b\.a\.idx"):
        generate(copy, checkpoint)


def test_data_of_another_format_are_read(data: Path, copy: Path, checkpoint: Path):
    for side in "ab":
        prefix = str(copy / f"test.a-b.{side}")
        dataset, builder = MMapIndexedDataset(str(data / f"test.a-b.{side}")), IndexedDatasetBuilder(f"{prefix}.bin")
        for i in range(len(dataset)):
            builder.add_item(dataset[i])
        builder.finalize(f"{prefix}.idx")
    assert hypotheses(generate(copy, checkpoint)) == hypotheses(generate(data, checkpoint))


def test_a_missing_binarised_file_is_named(copy: Path, checkpoint: Path):
    (copy / f"{SPLIT}.bin").unlink()
    with pytest.raises(UserError, match=rf"{copy / SPLIT}.bin has 0 bytes"):
        generate(copy, checkpoint)


def test_a_dictionary_without_counts_is_named(copy: Path, checkpoint: Path):
    dictionary = copy / "dict.a.txt"
    dictionary.write_text("".join(f"{line.split()[0]}\n" for line in dictionary.read_text().splitlines()))
    with pytest.raises(UserError, match=f"the dictionary {dictionary} cannot be read .* a word and its count"):
        generate(copy, checkpoint)


@pytest.mark.parametrize("language", ["a", "b"])
def test_tokens_beyond_the_dictionary_are_found_before_training(copy: Path, tmp_path: Path, language: str):
    dictionary = copy / f"dict.{language}.txt"
    dictionary.write_text("".join(dictionary.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(UserError, match=rf"a-b.{language}.bin has a token of number \d+, .* dictionary has 9 entries"):
        call("train", *training(copy, tmp_path / "save", "--max-update 1"))


# -- flags and arguments


def test_a_missing_checkpoint_leaves_no_empty_result(data: Path, tmp_path: Path):
    missing, results = tmp_path / "nowhere.pt", tmp_path / "results"
    result = process("generate", *decoding(data, missing, f"--results-path {results}"))
    assert last_line(result) == f"the checkpoint {missing} is not there; check --path"
    assert not list(results.iterdir())


def test_no_checkpoint_at_all(data: Path):
    arguments = [str(argument) for argument in decoding(data, "x")]
    at = arguments.index("--path")
    result = process("generate", *arguments[:at], *arguments[at + 2 :])
    assert last_line(result) == "--path required for generation; correct these flags"


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--beam 0", "--beam is 0; pass 1 or more"),
        ("--nbest 0", "--nbest is 0; pass 1 or more"),
        ("--retain-iter-history", "--retain-iter-history is True, but autoregressive models do not use it"),
        ("--print-step", "--print-step is True, but autoregressive models do not use it"),
    ],
)
def test_flags_that_break_fairseqs_beam_search(data: Path, teacher: Path, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        generate(data, teacher, flags, steps="")


def test_nbest_0(data: Path, checkpoint: Path):
    with pytest.raises(UserError, match="--nbest is 0; pass how many"):
        generate(data, checkpoint, "--nbest 0")


def test_sampling_without_its_flags_ends_with_a_sentence(data: Path, teacher: Path):
    result = process("generate", *decoding(data, teacher, "--sampling", steps=""))
    assert last_line(result) == "--sampling requires --nbest to be equal to --beam; correct these flags"


@pytest.mark.parametrize("asked", [[None], ["w1", 3], [b"w1"], None, 7])
def test_what_is_no_text_is_refused_by_the_api(data: Path, checkpoint: Path, asked: Any):
    model = fairseq_diffusion.load(checkpoint, data=data, device="cpu")
    assert model is not None
    with pytest.raises(UserError, match=r"sentence \d .* is of type (NoneType|int|bytes)|takes a list of sentences"):
        model.translate(asked, steps=1)


@pytest.mark.parametrize(
    "flags, words",
    [("--hidden 32", "is of another model than --arch.*size mismatch"), ("--optimizer sgd", "FairseqAdam vs SGD")],
)
def test_resuming_with_other_flags(data: Path, checkpoint: Path, tmp_path: Path, flags: str, words: str):
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    with pytest.raises(UserError, match=f"{words}.*another --save-dir"):
        call("train", *training(data, tmp_path, f"--store-ema --max-update 99 {flags}"))
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == checkpoint.read_bytes()


# -- no room


def test_a_full_disk_keeps_the_checkpoints_before(data: Path, checkpoint: Path, tmp_path: Path):
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    result = limited(checkpoint.stat().st_size // 2, "train", *training(data, tmp_path, "--store-ema --max-update 25"))
    assert last_line(result).startswith(f"there is no room for a checkpoint in {tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.pt"]
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == checkpoint.read_bytes()


def test_a_full_disk_while_generating(data: Path, checkpoint: Path, tmp_path: Path):
    """Within the translations: those before are kept, and what an earlier run has written is as it was."""
    flags = f"--batch-size 1 --results-path {tmp_path}"
    generate(data, checkpoint, flags)
    earlier = {path.name: path.read_text() for path in tmp_path.iterdir()}
    first = earlier["generate-test.txt"].index("\nH-")
    result = limited(first + 600, "generate", *decoding(data, checkpoint, flags))
    part = tmp_path / "generate-test.txt.partial"
    assert f"there is no room for the translations in {part}" in last_line(result)
    assert 0 < len(hypotheses(part.read_text())) < 11
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {**earlier, part.name: part.read_text()}


def test_a_report_that_finds_no_room_is_an_error(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def write_text(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    fairseq_diffusion.load()
    monkeypatch.setattr(run, "write_text", write_text)
    with pytest.raises(UserError, match="translations are complete, but there is no report of them: .*No space left"):
        generate(data, checkpoint, f"--results-path {tmp_path}")
    part = tmp_path / "generate-test.txt.partial"
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == [part]
    assert len(hypotheses(part.read_text())) == 11


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path):
    nowhere = tmp_path / "missing" / "b"
    with pytest.raises(FileNotFoundError):
        writing.write_texts({tmp_path / "a": "a", nowhere: "b"})
    assert not list(tmp_path.iterdir())
    writing.write_texts({tmp_path / "a": "a", tmp_path / "b": "b"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": "b"}


def test_toy_generate_leaves_no_half_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        status = main(["toy", "generate", "--out", str(tmp_path / "toy"), "--size", "500"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert status == 2 and "there is no room for" in capsys.readouterr().err
    assert not list((tmp_path / "toy").iterdir())
