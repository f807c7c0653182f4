"""fairseq's hub interface: what from_pretrained gives back translates as fairseq-generate does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, ROOT
from runs import RERANKER
from support import TINY_BLOCKS, call, generate, hypotheses, training

import fairseq_diffusion

WHOLE = "--remove-bpe none"


@pytest.fixture(scope="module")
def model_class() -> Any:
    fairseq_diffusion.load()
    from fairseq_diffusion.models.diffusion import DiffusionModel

    return DiffusionModel


def best(output: str) -> list[str]:
    found = hypotheses(output)
    return [found[str(i)][0][0] for i in range(len(found))]


def test_translates_as_fairseq_generate_does(data: Path, checkpoint: Path, sources: list[str], model_class: Any):
    """Flags of our task are overrides when loading; fairseq's go to translate."""
    hub = model_class.from_pretrained(
        str(checkpoint.parent), checkpoint.name, str(data), noise_beam=2, selection="mbr", sampler="ddpm"
    )
    found = hub.translate(sources, iter_decode_max_iter=3, iter_decode_with_beam=3)
    flags = "--noise-beam 2 --selection mbr --sampler ddpm --iter-decode-with-beam 3"
    assert found == best(generate(data, checkpoint, f"{WHOLE} {flags}"))
    listed = hub.generate([hub.encode(sources[0])], iter_decode_max_iter=3, iter_decode_with_beam=3, nbest=3)
    assert len(listed[0]) == 3 and hub.decode(listed[0][0]["tokens"]) == found[0]


def test_a_teacher_rescores(
    data: Path, checkpoint: Path, sources: list[str], teacher: Path, model_class: Any, tmp_path: Path
):
    shutil.copy(teacher, tmp_path / "teacher.pt")
    shutil.copy(checkpoint, tmp_path / "ours.pt")
    hub = model_class.from_pretrained(str(tmp_path), "ours.pt:teacher.pt", str(data))
    asked = {"iter_decode_max_iter": 3, "iter_decode_with_beam": 5, "iter_decode_with_external_reranker": True}
    path = f"{tmp_path / 'ours.pt'}:{tmp_path / 'teacher.pt'}"
    expected = best(generate(data, path, f"{WHOLE} {RERANKER} --iter-decode-with-beam 5"))
    assert hub.translate(sources, **asked) == expected
    assert expected != best(generate(data, checkpoint, f"{WHOLE} --iter-decode-with-beam 5"))


def test_text_is_prepared(data: Path, checkpoint: Path, model_class: Any, tmp_path: Path):
    """Moses and BPE, with everything in one folder; by our own interface too."""
    for file in (checkpoint, data / "dict.a.txt", data / "dict.b.txt"):
        shutil.copy(file, tmp_path)
    (tmp_path / "bpe.codes").write_text("#version: 0.2\nw 1</w>\n")
    languages = {"source_lang": "a", "target_lang": "b"}
    preparing = {"tokenizer": "moses", "bpe": "subword_nmt", "bpe_codes": str(tmp_path / "bpe.codes")}
    hub = model_class.from_pretrained(str(tmp_path), checkpoint.name, **preparing, **languages)
    assert hub.apply_bpe(hub.tokenize("(w1 w2)")) == "( w1 w@@ 2 )"
    ours = fairseq_diffusion.load(tmp_path, data=data, device="cpu", tokenizer="moses")
    typed = ["(w1 w2)", "w3 w11, w5"]
    assert hub.translate(typed, iter_decode_max_iter=3) == [each.text for each in ours.translate(typed, steps=3)]


def test_one_pass(data: Path, sources: list[str], tmp_path: Path):
    from fairseq_diffusion.models.one_pass import OnePassModel

    call("train", *training(data, tmp_path, "--max-update 3", arch="diffglat_toy_ctc", size=TINY_BLOCKS))
    hub = OnePassModel.from_pretrained(str(tmp_path), "checkpoint_last.pt", str(data))
    expected = best(generate(data, tmp_path / "checkpoint_last.pt", WHOLE, steps=""))
    assert hub.translate(sources) == expected and any(expected)


def test_by_fairseqs_function_with_a_user_dir(data: Path, checkpoint: Path, sources: list[str]):
    from fairseq import hub_utils

    where = str(checkpoint.parent), checkpoint.name, str(data)
    found = hub_utils.from_pretrained(*where, user_dir=str(ROOT / "fairseq_diffusion"))
    hub = hub_utils.GeneratorHubInterface(found["args"], found["task"], found["models"])
    assert hub.translate(sources, iter_decode_max_iter=3) == best(generate(data, checkpoint, WHOLE))


def test_in_a_process_where_nothing_was_registered_by_hand(data: Path, checkpoint: Path):
    code = f"""
from fairseq_diffusion.models.diffusion import DiffusionModel
hub = DiffusionModel.from_pretrained({str(checkpoint.parent)!r}, {checkpoint.name!r}, {str(data)!r})
print(len(hub.translate(["w1 w2", "w3"])))
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1:] == ["2"], result.stderr
