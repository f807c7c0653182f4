"""The Python API translates as fairseq-generate does, and finds what lies beside a checkpoint."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ENVIRONMENT
from runs import RERANKER
from support import TINY_BLOCKS, call, generate, training

import fairseq_diffusion
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import Sentence, sentences

CPU = {"device": "cpu"}
WHOLE = "--remove-bpe none"  # pieces as the dictionary has them


@pytest.fixture(scope="module")
def model(data: Path, checkpoint: Path) -> Any:
    return fairseq_diffusion.load(checkpoint, data=data, **CPU)


@pytest.fixture(scope="module")
def graph(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    """A one-pass system, with a mask symbol and a graph to search."""
    folder = tmp_path_factory.mktemp("graph")
    call("train", *training(data, folder, "--max-update 3", arch="diffglat_toy_dag", size=TINY_BLOCKS))
    return folder / "checkpoint_last.pt"


def printed(output: str) -> dict[int, Sentence]:
    return {sentence.number: sentence for sentence in sentences(output.splitlines())}


def check_same(translations: list[Any], output: str) -> None:
    """Texts, scores and their order are those that fairseq-generate printed, for every candidate."""
    expected = printed(output)
    assert sorted(expected) == list(range(len(translations)))
    for number, translation in enumerate(translations):
        hypotheses = expected[number].hypotheses
        assert [each.text for each in translation.candidates] == [each.text for each in hypotheses]
        assert [" ".join(each.tokens) for each in translation.candidates] == [each.text for each in hypotheses]
        scores = [each.score / math.log(2) for each in translation.candidates]
        assert scores == pytest.approx([each.score for each in hypotheses], abs=1e-4)


# -- the same as fairseq-generate


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_candidates_are_those_of_fairseq_generate(
    data: Path, checkpoint: Path, model: Any, sources: list[str], batch_size: int
):
    flags = f"{WHOLE} --iter-decode-with-beam 3 --noise-beam 2 --selection mbr --nbest 3 --seed 7 --sampler ddpm"
    output = generate(data, checkpoint, flags)
    asked = {"steps": 3, "length_beam": 3, "noise_beam": 2, "select": "mbr", "nbest": 3, "seed": 7, "sampler": "ddpm"}
    translations = model.translate(sources, **asked, batch_size=batch_size)
    check_same(translations, output)
    assert [each.source for each in translations] == sources
    assert all(each.calls == 3 for each in translations)


def test_nothing_asked_is_nothing_asked_there(data: Path, checkpoint: Path, model: Any, sources: list[str]):
    model.translate(sources[:2], steps=2, length_beam=2, temperature=0.5, seed=3)  # is forgotten
    check_same(model.translate(sources), generate(data, checkpoint, WHOLE, steps=""))


def test_averaged_weights(data: Path, checkpoint: Path, sources: list[str]):
    averaged = fairseq_diffusion.load(checkpoint, data=data, use_ema=True, **CPU).translate(sources, steps=3)
    check_same(averaged, generate(data, checkpoint, f"{WHOLE} --use-ema"))
    plain = fairseq_diffusion.load(checkpoint, data=data, **CPU).translate(sources, steps=3)
    assert [each.score for each in plain] != [each.score for each in averaged]


def test_a_teacher_rescores(data: Path, checkpoint: Path, teacher: Path, model: Any, sources: list[str]):
    loaded = fairseq_diffusion.load(checkpoint, data=data, teacher=teacher, **CPU)
    beam = {"steps": 3, "length_beam": 3, "noise_beam": 2, "nbest": 6}
    flags = f"{WHOLE} {RERANKER} --iter-decode-with-beam 3 --noise-beam 2 --nbest 6"
    translations = loaded.translate(sources, **beam)
    check_same(translations, generate(data, f"{checkpoint}:{teacher}", flags))
    assert [each.text for each in translations] != [each.text for each in model.translate(sources, **beam)]
    assert loaded.describe()["rescored"] and not model.describe()["rescored"]


def test_one_pass(data: Path, graph: Path, sources: list[str]):
    model = fairseq_diffusion.load(graph, data=data, **CPU)
    translations = model.translate(sources, path_search="beam", beam=3, lenpen=0.5, nbest=3)
    flags = f"{WHOLE} --path-search beam --beam 3 --lenpen 0.5 --nbest 3"
    check_same(translations, generate(data, graph, flags, steps=""))
    assert model.kind == "one-pass" and {each.calls for each in translations} == {1}


def test_a_draft_is_refined(data: Path, checkpoint: Path, graph: Path, teacher: Path, sources: list[str]):
    loaded = fairseq_diffusion.load(checkpoint, data=data, draft=graph, **CPU)
    translations = loaded.translate(sources, steps=3, draft=0.5)
    check_same(translations, generate(data, f"{checkpoint}:{graph}", f"{WHOLE} --draft 0.5"))
    check_same(loaded.translate(sources, steps=3), generate(data, checkpoint, WHOLE))  # the draft is left unused
    assert loaded.describe()["draft"] and not loaded.describe()["rescored"]
    with pytest.raises(UserError, match="is autoregressive"):
        fairseq_diffusion.load(teacher, data=data, draft=graph, **CPU)


def test_an_autoregressive_baseline(data: Path, teacher: Path, sources: list[str]):
    model = fairseq_diffusion.load(teacher, data=data, **CPU)
    translations = model.translate(sources, beam=3, nbest=2, lenpen=0.6)
    check_same(translations, generate(data, teacher, f"{WHOLE} --beam 3 --nbest 2 --lenpen 0.6", steps=""))
    assert model.kind == "autoregressive"
    assert all(each.calls == len(each.tokens) + 1 for each in translations)


def test_half_precision_is_fairseqs(data: Path, checkpoint: Path, model: Any, sources: list[str]):
    """Weights are rounded, as by fairseq-generate --fp16 and --bf16."""
    for precision, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        loaded = fairseq_diffusion.load(checkpoint, data=data, precision=precision, **CPU)
        weights = next(loaded.models[0].parameters())
        assert weights.dtype == dtype
        assert torch.equal(weights, next(model.models[0].parameters()).to(dtype))
    check_same(loaded.translate(sources, steps=3, batch_size=8), generate(data, checkpoint, f"{WHOLE} --bf16"))


# -- the shape of what comes back


def test_history(model: Any, sources: list[str]):
    """A row of each step, the last of which the translation was read from; in the form that pictures are drawn from."""
    plain, kept = (model.translate(sources[:3], steps=4, history=history) for history in (False, True))
    assert [each.text for each in plain] == [each.text for each in kept]
    for number, translation in enumerate(kept):
        (best,) = translation.candidates
        assert len(best.history) == 4 and all(len(step["tokens"]) == len(step["p"]) for step in best.history)
        assert [token for token in best.history[-1]["tokens"] if token in best.tokens] == best.tokens
        assert all(0 <= p <= 1 for p in best.history[-1]["p"])
        record = translation.record(number)
        assert record["id"] == number and record["source"] == sources[number]
        assert record["candidates"][0] == {
            "text": best.text,
            "score": best.score,
            "calls": 4,
            "steps": best.history,
        }
    assert plain[0].candidates[0].history == []


def test_sentences_may_come_from_a_file_or_a_generator(model: Any, sources: list[str]):
    assert model.translate(iter(sources[:2]), steps=2) == model.translate(sources[:2], steps=2)


def test_loading_leaves_the_log_as_it_is():
    code = "import logging, fairseq_diffusion as f; f.load(); log = logging.getLogger(); print(log.level, log.handlers)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "30 []\n"


def test_empty_sentences_keep_their_places(model: Any, sources: list[str]):
    mixed = model.translate(["", sources[0], "  ", sources[1]], steps=3)
    alone = model.translate(sources[:2], steps=3)
    assert [each.text for each in mixed] == ["", alone[0].text, "", alone[1].text]
    assert mixed[0].calls == 0 and mixed[0].tokens == []
    assert [each.text for each in model.translate([""])] == [""] and model.translate([]) == []


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"sentences": "w1 w2"}, r"a list of sentences; .* translate\(\[sentence\]\)"),
        ({"sentences": ["w1", "w1 " * 300]}, "sentence 1 .* has 301 tokens .* up to 256; split it"),
        ({"samples": 5}, "has no option 'samples'; .* steps, .*sampler"),
        ({"oracle_length": True}, "has no option 'oracle_length'"),
        ({"sampler": "euler"}, r"sampler is 'euler': .* \[ancestral, cedi, "),
        ({"noise_beam": "many"}, "noise_beam is 'many'"),
        ({"batch_size": 0}, "batch_size is 0; pass 1 or more"),
        ({"nbest": 0}, "nbest is 0; pass 1 or more"),
        ({"passes": 2}, "--passes is 2, but diffusion models do not use it"),
        ({"beam": -1}, "beam is -1; pass 1 or more"),
        ({"beam": 4}, "--beam is 4, but diffusion models do not use it"),
        ({"select": "rescore"}, "reranker"),
    ],
)
def test_what_is_refused(model: Any, asked: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        model.translate(**{"sentences": ["w1 w2"], **asked})


def test_what_another_kind_of_model_does_not_read(data: Path, teacher: Path, graph: Path, checkpoint: Path):
    left_to_right, one_pass = (fairseq_diffusion.load(path, data=data, **CPU) for path in (teacher, graph))
    for asked, flag in (
        ({"steps": 20}, "--iter-decode-max-iter"),
        ({"noise_beam": 2}, "--noise-beam"),
        ({"history": True}, "--retain-iter-history"),
        ({"sampler": "cedi"}, "--sampler"),
    ):
        with pytest.raises(UserError, match=f"{flag} is .*, but autoregressive models do not use it"):
            left_to_right.translate(["w1"], **asked)
    with pytest.raises(UserError, match="--iter-decode-max-iter is 20"):
        one_pass.translate(["w1"], steps=20)
    with pytest.raises(UserError, match="is autoregressive; drop it"):
        fairseq_diffusion.load(teacher, data=data, teacher=teacher, **CPU)
    with pytest.raises(UserError, match="the precision 'half' is none of fp32, fp16, bf16"):
        fairseq_diffusion.load(checkpoint, data=data, precision="half", **CPU)
    with pytest.raises(UserError, match="the device 'gpu' cannot be used here"):
        fairseq_diffusion.load(checkpoint, data=data, device="gpu")
