"""Durations by the alignments of one model, learnt by another: the command, the flag, and each sentence's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, different, generate, hypotheses, read, training

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel

BRIEF = "--no-epoch-checkpoints --max-update"
LEARNS = "--length-target durations --duration-classes 5 --durations"


@pytest.fixture(scope="module")
def aligners(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for kind in ("ctc", "dag"):
        folder = tmp_path_factory.mktemp(kind)
        flags = f"{BRIEF} 3 --disable-validation --upsample 1.5"
        call("train", *training(data, folder, flags, arch=f"diffglat_toy_{kind}", size=TINY_BLOCKS))
        found[kind] = folder / "checkpoint_last.pt"
    return found


def words(data: Path, path: Path, folder: Path, *more: Any) -> list[str]:
    return ["durations", *map(str, [data, "--path", path, "--output", folder, "--cpu", *more])]


@pytest.fixture(scope="module")
def folder(data: Path, aligners: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the training set, by CTC."""
    made = tmp_path_factory.mktemp("durations")
    assert main(words(data, aligners["ctc"], made)) == 0
    return made


def rows(file: Path) -> list[list[int]]:
    return [list(map(int, line.split())) for line in file.read_text().splitlines()[1:]]


def sizes(corpus: Path) -> list[tuple[int, int]]:
    """Tokens of each training source with both ends, and words of its target."""
    sides = ((corpus / f"train.{language}").read_text().splitlines() for language in "ab")
    return [(len(source.split()) + 2, len(target.split())) for source, target in zip(*sides)]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "dag"])
def test_durations_add_up_to_the_targets_words(
    data: Path, corpus: Path, aligners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    """In the order of the data, at any batch size; what does not fit on the canvas has an empty line."""
    for number, batching in enumerate((["--batch-size", 1], ["--max-tokens", 40], [])):
        assert main(words(data, aligners[kind], tmp_path / str(number), *batching)) == 0
    found = rows(tmp_path / "0" / "train.durations")
    assert found == rows(tmp_path / "1" / "train.durations") == rows(tmp_path / "2" / "train.durations")
    for row, (tokens, count) in zip(found, sizes(corpus), strict=True):
        assert (len(row), sum(row)) == (tokens, count) or (not row and count > 1.5 * tokens - 2)
    said, known = capsys.readouterr().out, len([row for row in found if row])
    assert f"durations of {known} of {SIZES['train']} sentences" in said
    assert ("do not fit" in said) == (known < SIZES["train"]) and "words for a token of the source" in said


def test_what_the_command_refuses(
    data: Path, aligners: dict[str, Path], checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    for given, said in (
        (words(data, aligners["ctc"], folder), "pass --force"),
        (words(data, checkpoint, folder), "no alignments to count; .* --alignment ctc or dag"),
        (words(data, aligners["ctc"], folder, "--batch-size", 0), "--batch-size is 0"),
        (words(data, aligners["ctc"], folder, "--gen-subset", "none"), "no split 'none'"),
    ):
        before = (folder / "train.durations").read_bytes()
        assert main(given) == 2
        error = capsys.readouterr().err
        assert re.search(said, error), error
        assert (folder / "train.durations").read_bytes() == before
    assert main(words(data, aligners["ctc"], folder, "--force")) == 0
    assert (folder / "train.durations").read_bytes() == before


def test_sentences_that_are_too_long_are_left_out(
    data: Path, corpus: Path, aligners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """By a model that takes up to nine tokens."""
    flags = (
        f"{BRIEF} 1 --disable-validation --max-source-positions 9 --skip-invalid-size-inputs-valid-test --upsample 3"
    )
    call("train", *training(data, tmp_path, flags, arch="diffglat_toy_ctc", size=TINY_BLOCKS))
    assert main(words(data, tmp_path / "checkpoint_last.pt", tmp_path / "new")) == 0
    known = [bool(row) for row in rows(tmp_path / "new" / "train.durations")]
    assert known == [tokens <= 10 for tokens, _ in sizes(corpus)]
    assert f"{known.count(False)} do not fit" in capsys.readouterr().out


# -- training on them -------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """The number of each sentence that a model is trained on, and the durations that it gets."""
    found: list[tuple[int, list[int]]] = []
    forward = TranslatorModel.forward

    def watched(model: Any, src_tokens: Any, target: Any = None, ids: Any = None, durations: Any = None) -> Any:
        if model.training:
            for i, row, tokens in zip(ids.tolist(), durations.tolist(), src_tokens.ne(model.pad).sum(-1).tolist()):
                assert set(row[tokens + 1 :]) <= {-1}
                found.append((i, [] if row[0] < 0 else row[: tokens + 1]))
        return forward(model, src_tokens, target, ids, durations)

    monkeypatch.setattr(TranslatorModel, "forward", watched)
    return found


@pytest.mark.parametrize(
    "flags",
    [
        "--batch-size 3",
        "--max-tokens 60 --update-freq 2 --left-pad-source",
        "--max-source-positions 9 --skip-invalid-size-inputs-valid-test",
        "--max-source-positions 9 --truncate-source",
        "--num-workers 1 --curriculum 1",
    ],
)
def test_each_sentence_has_its_own(data: Path, corpus: Path, folder: Path, tmp_path: Path, seen: list[Any], flags: str):
    """Over two epochs, in whatever batches; none where the source is cut off."""
    call("train", *training(data, tmp_path, f"--max-epoch 2 {LEARNS} {folder} {flags}", "mdlm_toy", size=TINY_WORDS))
    own = rows(folder / "train.durations")
    if "truncate" in flags:
        own = [row if len(row) <= 10 else [] for row in own]
    wanted = [i for i, (tokens, _) in enumerate(sizes(corpus)) if tokens <= 10 or "skip" not in flags]
    assert sorted(seen) == sorted([(i, own[i]) for i in wanted] * 2)
    assert [i for i, _ in seen] != sorted(i for i, _ in seen)


def test_each_shard_and_each_part_has_its_own(
    data: Path, eight: Path, aligners: dict[str, Path], folder: Path, tmp_path: Path, seen: list[Any]
):
    """A second folder of data in the second epoch, whose training set has a further part."""
    both = shutil.copytree(eight, tmp_path / "both")
    for path in data.glob("test.*"):
        shutil.copy(path, both / path.name.replace("test", "train1"))
    assert main(words(both, aligners["ctc"], tmp_path / "more")) == 0
    own, others = rows(folder / "train.durations"), rows(tmp_path / "more" / "train.durations")
    assert len(others) == 8 + SIZES["test"] and others[8:] != others[:8]
    flags = f"--max-epoch 2 {LEARNS} {folder}:{tmp_path / 'more'} --upsample-primary"
    arguments = training(data, tmp_path / "run", flags, "mdlm_toy", size=TINY_WORDS)[1:]
    call("train", f"{data}:{both}", *arguments, 1)
    assert sorted(seen[: len(own)]) == list(enumerate(own))
    assert sorted(seen[len(own) :]) == list(enumerate(others))
    arguments = [str(word).replace(f"{folder}:", "") for word in arguments]
    with pytest.raises(UserError, match="is of 19 sentences, but there are 27 here"):
        call("train", both, *arguments, 2)


def test_training_on_them_goes_on_and_decodes(data: Path, folder: Path, tmp_path: Path):
    """As the uninterrupted one, and not as without them; several lengths are tried in decoding."""
    whole, cut, without = (tmp_path / name for name in ("whole", "cut", "without"))
    flags = f"--dropout 0.1 --disable-validation {LEARNS} {folder} {BRIEF}"
    for place, updates in ((whole, 12), (cut, 7), (cut, 12)):
        torch.manual_seed(99)
        call("train", *training(data, place, f"{flags} {updates}", "mdlm_toy", size=TINY_WORDS))
    call(
        "train",
        *training(data, without, f"{flags.replace(f'--durations {folder}', '')} 12", "mdlm_toy", size=TINY_WORDS),
    )
    states = [read(place / "checkpoint_last.pt")["model"] for place in (whole, cut, without)]
    assert different(states[0], states[1]) == []
    assert all("/translator.length" in f"/{name.lstrip('/')}" for name in different(states[0], states[2]))
    assert different(states[0], states[2]) != []
    assert states[0]["translator.length.map.2.weight"].shape[0] == 5
    found = hypotheses(generate(data, whole / "checkpoint_last.pt", "--iter-decode-with-beam 3 --nbest 3"))
    assert {len(texts) for texts in found.values()} == {3}


@pytest.mark.parametrize("arch, size", [("dinoiser_toy", TINY), ("cmlm_toy", TINY_WORDS)])
def test_other_systems_learn_them(
    data: Path, folder: Path, tmp_path: Path, seen: list[Any], arch: str, size: list[str]
):
    call("train", *training(data, tmp_path, f"{BRIEF} 2 {LEARNS} {folder}", arch, size=size))
    steps = "" if arch == "cmlm_toy" else "--iter-decode-max-iter 2"
    assert (
        len(seen) == 16 and len(hypotheses(generate(data, tmp_path / "checkpoint_last.pt", "", steps))) == SIZES["test"]
    )


def test_validation_has_them_where_there_is_a_file(
    data: Path, aligners: dict[str, Path], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Else its loss is that of the length alone."""
    both = shutil.copytree(folder, tmp_path / "both")
    assert main(words(data, aligners["ctc"], both, "--gen-subset", "valid")) == 0
    found = []
    for place in (folder, both):
        caplog.clear()
        log = tmp_path / f"{place.name}.log"
        flags = f"{BRIEF} 2 {LEARNS} {place} --log-format json --log-file {log}"
        call("train", *training(data, tmp_path / f"of {place.name}", flags, "mdlm_toy", size=TINY_WORDS))
        text = log.read_text()
        assert ("valid.durations, so the loss of the length" in caplog.text) == (place == folder)
        assert '"valid_length_off": "' in text and '"valid_length_exact": "' in text and "train_length_off" not in text
        found.append(text.split('"valid_length": "')[1].split('"')[0])
    assert found[0] != found[1]


def test_what_the_flag_refuses(data: Path, eight: Path, folder: Path, checkpoint: Path, tmp_path: Path):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "train.durations").write_text((other / "train.durations").read_text().replace("sha256 ", "sha256 0")[:-1])
    for where, flags, said in (
        (data, f"--durations {folder}", "does not learn durations; add --length-target durations"),
        (data, f"{LEARNS} {folder} --length-training off", "does not learn durations"),
        (data, f"{LEARNS} {folder} --freeze length", "does not learn durations"),
        (data, f"{LEARNS} {tmp_path}", "there is no file .*train.durations"),
        (data, f"{LEARNS} {folder}:{folder}", "names 2 folders, but there are 1"),
        (eight, f"{LEARNS} {folder}", "is of other data"),
        (data, f"{LEARNS} {other}", "does not begin as a file of durations does"),
    ):
        with pytest.raises(UserError, match=said):
            call("train", *training(where, tmp_path / "run", f"{BRIEF} 1 {flags}", "mdlm_toy", size=TINY_WORDS))
    with pytest.raises(UserError, match="a translation's durations are predicted"):
        generate(data, checkpoint, f"--durations {folder}")
