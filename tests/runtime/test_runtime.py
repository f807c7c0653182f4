"""An exported model translates as the model itself, in a Python without torch and fairseq."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, ROOT
from support import TINY_BLOCKS, call, training

import fairseq_diffusion
from fairseq_diffusion import runtime
from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.export.folder import export
from fairseq_diffusion.files.checksum import sha256

WITHOUT_TORCH = """
import json, sys
for blocked in ("torch", "fairseq", "hydra", "omegaconf", "onnx", "onnxscript", "sacrebleu"):
    sys.modules[blocked] = None
from fairseq_diffusion import runtime
model = runtime.load(sys.argv[1])
found = model.translate(json.load(sys.stdin), batch_size=3)
print(json.dumps([[each.text, each.tokens, each.score, each.calls] for each in found]))
"""
FLAGS = "--keep-schedule none --blank-penalty 5".split()  # few updates, so blanks are likely everywhere
ODD = ["", "w1", "never seen", "  w2   w3 ", " ".join(["w1"] * 29), "w5\u2028w6", "p1@@ w7", "w1"]


@pytest.fixture(scope="module")
def trained_ctc(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    """A CTC model that has learnt a little, with what its text needs beside it."""
    folder = tmp_path_factory.mktemp("ctc")
    flags = "--max-update 40 --lr 1e-2 --max-source-positions 30 --no-epoch-checkpoints"
    call("train", *training(data, folder, flags, arch="diffglat_toy_ctc", size=TINY_BLOCKS))
    for language in "ab":
        shutil.copy(data / f"dict.{language}.txt", folder)
    (folder / "bpe.codes").write_text("#version: 0.2\nw 1</w>\n")
    (folder / "preprocessing.json").write_text(json.dumps({"source": "a", "target": "b", "bpe": "subword_nmt"}))
    (folder / "checkpoint_last.pt").rename(folder / "average.pt")
    (folder / "checkpoint_best.pt").unlink()
    return folder


@pytest.fixture(scope="module")
def exported(trained_ctc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", str(trained_ctc), "--output", str(output), "--", *FLAGS]) == 0
    return output


def told(translation: Any) -> list[Any]:
    return [translation.text, translation.tokens, pytest.approx(translation.score, abs=1e-4), translation.calls]


def test_translations_are_the_models(trained_ctc: Path, exported: Path, sources: list[str]):
    """Odd lines, too, in batches of any size, without torch."""
    sentences = [*ODD, *sources]
    model = fairseq_diffusion.load(trained_ctc, device="cpu")
    wanted = [told(each) for each in model.translate(sentences, keep_schedule="none", blank_penalty=5.0)]
    assert any(text for text, *_ in wanted) and wanted[0] == ["", [], 0.0, 0]
    command = [sys.executable, "-c", WITHOUT_TORCH, exported]
    asked = json.dumps(sentences)
    done = subprocess.run(command, input=asked, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
    again = runtime.load(exported, threads=2).translate(iter(sentences), batch_size=1)
    assert [told(each) for each in again] == wanted


def test_the_manifest_says_what_it_is(exported: Path):
    model = runtime.load(exported)
    said = model.describe()
    assert said["precision"] == "fp32" and said["agreement"] == 1 and said["longest_source"] == 30
    assert said["decoding"]["keep_schedule"] == "none" and said["source"] == "a" and said["target"] == "b"
    assert str(ROOT).encode() not in (exported / "translation.onnx").read_bytes()  # nor other paths of this machine
    assert set(said["files"]) == {file.name for file in exported.iterdir()} - {"manifest.json"}


def test_in_int8_it_is_smaller_and_mostly_the_same(trained_ctc: Path, exported: Path, tmp_path: Path, capsys: Any):
    output = tmp_path / "int8"
    assert main(["export", str(trained_ctc), "--output", str(output), "--int8"]) == 0
    assert "int8" in capsys.readouterr().out
    sizes = [(folder / "translation.onnx").stat().st_size for folder in (output, exported)]
    assert sizes[0] < sizes[1]
    model = runtime.load(output)
    assert model.manifest["precision"] == "int8" and 0 < model.manifest["agreement"] <= 1
    assert [each.text for each in model.translate(["", "w1 w2 w3"])][0] == ""


@pytest.mark.parametrize(
    "sentences, options, words",
    [
        ("w1 w2", {}, "takes a list of sentences"),
        (["w1", 2], {}, "sentence 1 .counted from 0. is of type int"),
        (["w1", "w1 " * 40], {}, "sentence 1 .* has 41 tokens with its end, but this model takes up to 30; split it"),
        (["w1"], {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_translated_is_said(exported: Path, sentences: Any, options: Any, words: str):
    with pytest.raises(UserError, match=words):
        runtime.load(exported).translate(sentences, **options)


def test_a_folder_that_is_not_as_it_was_exported_is_refused(exported: Path, tmp_path: Path):
    for name, words in (
        ("translation.onnx", "is missing or not as it was exported"),
        ("manifest.json", "holds no exported"),
    ):
        copy = tmp_path / name
        shutil.copytree(exported, copy)
        (copy / name).unlink()
        with pytest.raises(UserError, match=words):
            runtime.load(copy)
    changed = tmp_path / "changed"
    shutil.copytree(exported, changed)
    with open(changed / "dict.b.txt", "a") as file:
        file.write("more 1\n")
    with pytest.raises(UserError, match="dict.b.txt is missing or not as it was exported"):
        runtime.load(changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UserError, match="is not of the format that this version reads"):
        runtime.load(changed)
    (changed / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    with pytest.raises(UserError, match="is not of the format that this version reads"):
        runtime.load(changed)
    (changed / "translation.onnx").write_bytes(b"no graph")
    sums = {**manifest["files"], "translation.onnx": sha256(changed / "translation.onnx")}
    sums["dict.b.txt"] = sha256(changed / "dict.b.txt")
    (changed / "manifest.json").write_text(json.dumps({**manifest, "files": sums}))
    with pytest.raises(UserError, match="ONNX Runtime .* cannot run .*translation.onnx"):
        runtime.load(changed)
    with pytest.raises(UserError, match="threads is 0"):
        runtime.load(exported, threads=0)


def test_nothing_is_replaced_and_nothing_half_written_is_left(
    trained_ctc: Path, exported: Path, tmp_path: Path, capsys: Any
):
    model = str(trained_ctc)
    assert main(["export", model, "--output", str(exported)]) == 2
    assert "already exists; name another folder" in capsys.readouterr().err
    assert main(["export", model, "--output", str(tmp_path / "no" / "folder")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["export", model, "--output", str(tmp_path / "new"), "--", "--path-search", "beam", "--beam", "2"]) == 2
    assert "this decoding cannot be written as a graph" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--fp16", "pass --int8 before --"),
        ("--use-ema", "pass it before --"),
        ("--nbest 2", "a graph gives the best translation alone"),
        ("--retain-iter-history", "--retain-iter-history is not made for export"),
        ("--sampler cedi", "--sampler"),
    ],
)
def test_flags_without_a_part_in_a_graph_are_refused(trained_ctc: Path, tmp_path: Path, flags: str, words: str):
    model = fairseq_diffusion.load(trained_ctc, device="cpu")
    with pytest.raises(UserError, match=words):
        export(model, tmp_path / "new", flags.split())
    assert not list(tmp_path.iterdir())


def test_an_ar_model_is_refused(teacher: Path, data: Path, tmp_path: Path, capsys: Any):
    assert main(["export", str(teacher), "--data", str(data), "--output", str(tmp_path / "new")]) == 2
    assert "is autoregressive; CTranslate2" in capsys.readouterr().err
