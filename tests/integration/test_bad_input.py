"""What a user can do wrong: a sentence that says so, a non-zero exit, no traceback, and nothing overwritten."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from conftest import binarise
from support import USER_DIR, call, command, decoding, generate, hypotheses, lines, process, training

from fairseq_diffusion.errors import UserError


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """The last thing on stderr is our sentence, and there is no traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("fairseq-diffusion: error: ")
    assert all(word in last for word in words), last


@pytest.fixture(scope="module")
def renamed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin whose target dictionary has the same size but another word."""
    text = tmp_path_factory.mktemp("renamed")
    for file in corpus.iterdir():
        (text / file.name).write_text(file.read_text().replace("W3", "X3"))
    return binarise(text, tmp_path_factory.mktemp("renamed-bin"))


@pytest.fixture(scope="module")
def smaller(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin whose target dictionary has one word for all."""
    text = tmp_path_factory.mktemp("smaller")
    for file in corpus.iterdir():
        (text / file.name).write_text(re.sub(r"W\d+", "W", file.read_text()))
    return binarise(text, tmp_path_factory.mktemp("smaller-bin"))


# -- data and checkpoints


def test_dictionary_of_another_size(smaller: Path, checkpoint: Path):
    with pytest.raises(UserError, match=r"the target dictionary .* entries against \d+; .*--tgtdict"):
        generate(smaller, checkpoint)


def test_dictionary_of_other_words(renamed: Path, checkpoint: Path):
    assert_one_sentence(process("generate", *decoding(renamed, checkpoint)), "target dictionary", "other words")


def test_training_does_not_go_on_with_another_dictionary(renamed: Path, checkpoint: Path, tmp_path: Path):
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    with pytest.raises(UserError, match="target dictionary"):
        call("train", *training(renamed, tmp_path, "--max-update 100"))
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == checkpoint.read_bytes()


def test_missing_data(checkpoint: Path, tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        generate(tmp_path / "nowhere", checkpoint)
    with pytest.raises(UserError, match="fairseq-preprocess"):
        generate(tmp_path, checkpoint)


def test_missing_split_or_language(data: Path, checkpoint: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no split 'heldout' .* it holds test, train, valid"):
        generate(data, checkpoint, "--gen-subset heldout")
    with pytest.raises(UserError, match="no dictionary for fr; it holds a, b"):
        generate(data, checkpoint, "-s a -t fr")
    with pytest.raises(UserError, match="no split 'late'"):
        call("train", *training(data, tmp_path, "--valid-subset late"))


def test_truncated_checkpoint(data: Path, checkpoint: Path, tmp_path: Path):
    """Neither decoded nor, when training goes on, replaced."""
    damaged = tmp_path / "checkpoint_last.pt"
    damaged.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(UserError, match="5000 bytes"):
        generate(data, damaged)
    assert_one_sentence(process("train", *training(data, tmp_path, "--max-update 3")), str(damaged), "5000 bytes")
    assert damaged.stat().st_size == 5000 and len(list(tmp_path.iterdir())) == 1


# -- flags


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--iter-decode-max-iter 0", "--iter-decode-max-iter"),
        ("--iter-decode-with-beam 0", "--iter-decode-with-beam"),
        ("--iter-decode-with-beam 1000", "--iter-decode-with-beam 128 or less"),
        ("--noise-beam 0", "--noise-beam"),
        ("--sampler ddim --conditioning-sigma-end 0.99", "--conditioning-sigma-end.*--sampler cedi"),
        ("--conditioning-sigma-start 0.5 --conditioning-sigma-end 0.9", "0 < end <= start"),
        ("--final-time 0", "--final-time"),
        ("--oracle-length --iter-decode-with-beam 2", "--oracle-length"),
        ("--early-stop 1", "--early-stop is 1.0; pass the share"),
        ("--decode-noise-factor 0", "--decode-noise-factor is 0"),
        ("--eta 2", "--eta is 2"),
        ("--sampler dpmpp_2m --eta 1", "--sampler ddpm"),
        ("--temperature 0", "--temperature is 0"),
        ("--guidance 2", "--source-drop"),
        ("--prune-after 3 --noise-beam 2", "steps 1 to 2 of the 3"),
        ("--prune-after 1", "there is only one; raise --noise-beam"),
        ("--sampler fixed_t --conditioning-sigma-start 0.9 --conditioning-sigma-end 0.5", "one noise level throughout"),
        ("--prune-after soon", "--prune-after 'soon'"),
        ("--stop-stable -1", "--stop-stable is -1"),
        ("--selection best", "unknown selection 'best'; choose one of: joint, likelihood, .*, rescore, score"),
        ("--selection mbr,score", "mbr:5"),
        ("--selection rescore", "--iter-decode-with-external-reranker"),
        ("--iter-decode-with-external-reranker", "asks for --path OURS.pt:AR.pt, but there are 1 checkpoints"),
        ("--prefix-size 2", "--prefix-size is 2, but diffusion models do not use it"),
        ("--print-alignment", "autoregressive models read it"),
        ("--nbest 50 --selection mbr", "--nbest is 50, but each sentence has one candidate; drop it, or raise"),
        ("--selection mbr", "the selection is 'mbr', but each sentence has one candidate"),
        ("--noise-beam 2 --mbr-utility chrf", "--mbr-utility is chrf, but the selection 'score'"),
        ("--noise-beam 2 --selection mbr --likelihood-samples 9", "--likelihood-samples is 9"),
        ("--task translation", "--task diffusion_translation"),
    ],
)
def test_decoding_flags(data: Path, checkpoint: Path, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        generate(data, checkpoint, flags)


def test_ensembles_are_refused(data: Path, checkpoint: Path):
    with pytest.raises(UserError, match="2 checkpoints.*--iter-decode-with-external-reranker"):
        generate(data, f"{checkpoint}:{checkpoint}")


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--schedule-modifier clip --embedding-norm none", "--embedding-norm l2"),
        ("--schedule-modifier none --embedding-norm none --objective mse=1", "add rounding=1 or anchor=1"),
        ("--objective mse=1,anchor=0", "add rounding=1 or anchor=1"),
        ("--length-loss 0", "--length-training off"),
        ("--criterion cross_entropy", "--criterion diffusion_loss"),
        ("--hidden 16 --heads 3", "--heads 3"),
        ("--schedule-update 0", "--schedule-update"),
        ("--self-conditioning-probability 1.5", "--self-conditioning-probability"),
        ("--label-smoothing 1.5", "--label-smoothing is 1.5"),
        ("--objective mse=1,hinge=2", "--objective has the unknown term 'hinge'; choose from: anchor"),
        ("--objective mse=much", "without a number"),
        ("--max-target-positions 10", "tokens.*--skip-invalid-size-inputs-valid-test"),
    ],
)
def test_training_flags(data: Path, tmp_path: Path, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        call("train", *training(data, tmp_path, f"{flags} --max-update 1"))


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--temperature 0", "--temperature is 0"),
        ("--guidance 2", "--source-drop"),
        ("--final-time 0", "--final-time"),
        ("--sampler cedi --conditioning-sigma-end 2", "0 < end <= start"),
        ("--early-stop 1.5", "--early-stop is 1.5"),
    ],
)
def test_validation_that_cannot_decode_is_refused_before_training(data: Path, tmp_path: Path, flags: str, words: str):
    """fairseq validates before it saves, so an epoch would be lost."""
    with pytest.raises(UserError, match=words):
        call("train", *training(data, tmp_path, f"{flags} --eval-bleu --max-update 1"))
    assert not list(tmp_path.iterdir())


def test_mistaken_flag_ends_a_process_with_a_sentence(data: Path, tmp_path: Path):
    result = process("train", *training(data, tmp_path / "save", "--hidden 16 --heads 3"))
    assert_one_sentence(result, "--hidden 16", "--heads 3")


@pytest.mark.parametrize(
    "flags", ["--sampler euler", "--grid even", "--mbr-utility ter", "--mbr-units letters", "--length-beam wide"]
)
def test_unknown_choices_are_listed(data: Path, checkpoint: Path, flags: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        generate(data, checkpoint, flags)
    assert exit_.value.code == 2
    assert "choose from" in capsys.readouterr().err


# -- interactive input


def translate(data: Path, checkpoint: Path, text: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    usual = f"-s a -t b --path {checkpoint} --cpu --iter-decode-max-iter 3 --remove-bpe {flags}"
    return process("interactive", data, *USER_DIR, *usual.split(), stdin=text)


def test_a_language_model_is_not_ignored(data: Path, checkpoint: Path):
    assert_one_sentence(translate(data, checkpoint, "w1\n", "--lm-path nowhere.pt"), "--lm-path is nowhere.pt")


def test_empty_and_unknown_lines_are_translated(data: Path, checkpoint: Path):
    result = translate(data, checkpoint, "w1 w2\n\nnever seen\nw3\n", "--buffer-size 4 --batch-size 4")
    assert result.returncode == 0, result.stderr
    assert set(hypotheses(result.stdout)) == {"0", "1", "2", "3"}


@pytest.mark.parametrize("flags", ["", "--buffer-size 5 --batch-size 5"])
def test_a_line_that_cannot_be_translated_loses_no_other(data: Path, checkpoint: Path, tmp_path: Path, flags: str):
    """An invalid byte, and a line that is too long: each has its error, and the buffer's other lines their answers."""
    file = tmp_path / "input"
    file.write_bytes(b"w1 w2\nw\xff2\n" + b"w1 " * 5000 + b"\nw3\n\n")
    result = translate(data, checkpoint, "", f"{flags} --input {file}")
    assert set(hypotheses(result.stdout)) == {"0", "3", "4"}
    assert_one_sentence(result, "2 of 5 lines have no translation; their errors are above")
    assert "line 1 (counted from 0) is refused: it is not UTF-8" in result.stderr
    assert re.search(r"line 2 \(counted from 0\) has \(5001, \d+\) tokens", result.stderr)
    plain = translate(data, checkpoint, "w1 w2\nw3\n\n", flags)
    assert [*hypotheses(result.stdout).values()] == [*hypotheses(plain.stdout).values()]


def test_invalid_bytes_on_stdin_and_a_byte_order_mark(data: Path, checkpoint: Path):
    usual = f"-s a -t b --path {checkpoint} --cpu --iter-decode-max-iter 3 --remove-bpe"
    whole = subprocess.run(
        command("interactive", data, *USER_DIR, *usual.split()),
        input=b"\xef\xbb\xbfw1 w2\n\xff\xfe\nw3\n",
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    result = subprocess.CompletedProcess([], whole.returncode, whole.stdout.decode(), whole.stderr.decode())
    assert_one_sentence(result, "1 of 3 lines")
    assert [*lines(result.stdout, "S").items()] == [("0", [["w1 w2"]]), ("2", [["w3"]])]


def test_a_very_long_line_may_be_left_out(data: Path, checkpoint: Path):
    text = "w1 w2\n" + "w1 " * 5000 + "\nw3\n"
    result = translate(data, checkpoint, text, "--skip-invalid-size-inputs-valid-test")
    assert result.returncode == 0, result.stderr
    assert set(hypotheses(result.stdout)) == {"0", "2"}


# -- an installation that will not do


@pytest.mark.parametrize(
    "missing, words", [("fairseq", "fairseq is not installed"), ("fairseq.data.data_utils_fast", "data_utils_fast")]
)
def test_missing_fairseq_is_answered_with_install_lines(missing: str, words: str):
    code = f"import sys; sys.modules[{missing!r}] = None; import fairseq_diffusion.tasks"
    result = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert words in result.stderr and "pip install" in result.stderr
