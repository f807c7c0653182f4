"""Translating with some words fixed: in Python and by fairseq-interactive, with a stored model of every kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import stored_models
from support import TINY_WORDS, USER_DIR, call, generate, hypotheses, process, training

import fairseq_diffusion
from fairseq_diffusion.errors import UserError

SOURCES = ["a b c d", "e f", "g h a b c", "d", "b b e"]
TEMPLATES = ["___ C ___ A ___", "B E ___", "___ A H .", "___", "F F ."]
LINES = [f"{source}\t{template}" for source, template in zip(SOURCES, TEMPLATES)]
KINDS = {
    "dinoiser": "--sampler ddpm --noise-beam 3 --selection mbr --iter-decode-max-iter 4 --iter-decode-with-beam 2",
    "difformer": "--iter-decode-max-iter 5",
    "guided": "--guidance 1.5 --iter-decode-max-iter 4",
    "velocity": "--iter-decode-max-iter 4",
    "nat": "",
    "glat": "--iter-decode-with-beam 3",
    "dslp": "",
    "cmlm": "--passes 3",
    "diffglat": "",
    "diffglat_gated": "--keep-schedule linear",
    "diffglat_ctc": "",
    "diffglat_dag": "",
    "da_transformer": "--path-search viterbi",
}
IN_PYTHON: dict[str, dict[str, Any]] = {
    "dinoiser": {"sampler": "ddpm", "noise_beam": 3, "select": "mbr", "steps": 4, "length_beam": 2},
    "diffglat": {},
    "diffglat_ctc": {},
    "diffglat_dag": {},
}


def interactive(data: Path, checkpoint: Path, lines: list[str], folder: Path, flags: str) -> list[str]:
    """What is printed for each line, in their order."""
    (folder / "lines").write_text("".join(f"{line}\n" for line in lines))
    usual = f"-s a -t b --cpu --input {folder / 'lines'} --path {checkpoint} {flags}"
    found = hypotheses(call("interactive", data, *USER_DIR, *usual.split()))
    return [found[str(i)][0][0] for i in range(len(lines))]


def matches(text: str, template: str) -> bool:
    """Whether the words of a text are those of a template, with any others in its gaps."""
    words = (r"(?:\S+ )*" if word == "___" else f"{re.escape(word)} " for word in template.split())
    return re.fullmatch("".join(words), text + " " * bool(text)) is not None


def test_the_test_knows_a_template():
    for text, template, does in (
        ("a b c", "___ b ___", True),
        ("a b c", "b ___", False),
        ("a b c", "a ___ c", True),
        ("a b", "a ___ b c", False),
        ("a b c", "a b c", True),
        ("a b c", "a b", False),
        ("a b", "___ b ___ b", False),
    ):
        assert matches(text, template) == does, (text, template)


@pytest.mark.parametrize("name", KINDS)
def test_interactive_completes_templates_in_any_batch(name: str, tmp_path: Path):
    data, checkpoint = stored_models.DATA, stored_models.checkpoint(name)
    found = interactive(data, checkpoint, LINES, tmp_path, f"--complete {KINDS[name]}")
    assert all(map(matches, found, TEMPLATES)), found
    batched = "--buffer-size 5 --batch-size 5"
    assert interactive(data, checkpoint, LINES, tmp_path, f"--complete {KINDS[name]} {batched}") == found
    plain = interactive(data, checkpoint, SOURCES, tmp_path, KINDS[name])
    assert not all(map(matches, plain, TEMPLATES))
    assert plain[3] == found[3]
    assert interactive(data, checkpoint, SOURCES, tmp_path, f"--complete {KINDS[name]}") == plain  # no tab: all free


@pytest.mark.parametrize("name", IN_PYTHON)
def test_python_completes_as_interactive_does(name: str, tmp_path: Path):
    data, checkpoint = stored_models.DATA, stored_models.checkpoint(name)
    printed = interactive(data, checkpoint, LINES, tmp_path, f"--complete {KINDS[name]} --buffer-size 5 --batch-size 2")
    model = fairseq_diffusion.load(checkpoint, data=data, device="cpu")
    asked = IN_PYTHON[name]
    found = model.complete(SOURCES, TEMPLATES, **asked)
    assert [" ".join(each.tokens) for each in found] == printed
    assert [each.source for each in found] == SOURCES
    again = model.complete(SOURCES, TEMPLATES, batch_size=2, **asked)
    assert [each.tokens for each in again] == [each.tokens for each in found]
    assert [each.score for each in again] == pytest.approx([each.score for each in found], abs=1e-5)
    assert model.complete([], [], **asked) == []
    plain = model.translate(SOURCES, **asked)
    assert [each.text for each in plain] != [each.text for each in found]
    assert model.complete(["a\tb", ""], ["___"] * 2, **asked)[1].text == ""
    assert model.translate(["a\tb"], **asked)[0].text == model.translate(["a b"], **asked)[0].text


def test_a_model_of_words(data: Path, tmp_path: Path):
    """Trained here, as none is stored; words are only hidden in one, and replaced in the other."""
    flags = "--max-update 30 --lr 1e-2 --no-epoch-checkpoints --disable-validation"
    sources, templates = ["w1 w2 w3 w4", "w5 w6", "w3"], ["___ W3 ___ W1 ___", "THE W5 ___", "___ W4 W4 ."]
    lines = [f"{source}\t{template}" for source, template in zip(sources, templates)]
    for arch in ("mdlm_toy", "sundae_toy"):
        call("train", *training(data, tmp_path / arch, flags, arch, size=TINY_WORDS))
        checkpoint = tmp_path / arch / "checkpoint_last.pt"
        model = fairseq_diffusion.load(checkpoint, data=data, device="cpu")
        found = model.complete(sources, templates, steps=6, noise_beam=2, nbest=2, history=True)
        for translation, template in zip(found, templates):
            assert all(matches(" ".join(each.tokens), template) for each in translation.candidates)
            assert len(translation.candidates[0].history) == 6
        printed = interactive(
            data, checkpoint, lines, tmp_path, "--complete --iter-decode-max-iter 6 --noise-beam 2 --buffer-size 5"
        )
        assert [" ".join(each.tokens) for each in found] == printed


@pytest.mark.parametrize("name, flags", [("diffglat_ctc", ""), ("dinoiser", "--iter-decode-with-beam 2")])
@pytest.mark.parametrize("buffer", ["", "--buffer-size 8 --batch-size 8"])
def test_a_template_without_room_loses_no_other_line(name: str, flags: str, buffer: str, tmp_path: Path):
    """Nor does one that is not in the dictionary; a line whose source is too long as well has one error."""
    data, checkpoint = stored_models.DATA, stored_models.checkpoint(name)
    long = "a " * 400
    lines = [LINES[0], f"a\t{long.upper()}", "a b\t___ never", *LINES[1:], f"{long}\t{long.upper()}"]
    usual = f"-s a -t b --cpu --path {checkpoint} --complete {flags} {buffer}"
    result = process("interactive", data, *USER_DIR, *usual.split(), stdin="".join(f"{line}\n" for line in lines))
    found = hypotheses(result.stdout)
    assert [*found] == ["0", "3", "4", "5", "6"] and result.returncode == 1, result.stderr
    assert [found[i][0][0] for i in found] == interactive(data, checkpoint, LINES, tmp_path, f"--complete {flags}")
    assert re.search(r"line 1 \(counted from 0\) is refused: a template takes \d+ positions .* for \d", result.stderr)
    assert "line 2 (counted from 0) is refused: a template has 'never'" in result.stderr
    assert result.stderr.count("error: line 7") == 1 and "3 of 8 lines have no translation" in result.stderr


def test_what_is_refused(data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored = stored_models.DATA, stored_models.checkpoint("diffglat_ctc")
    for line, words in (
        (
            "A\t___ never ___",
            "line 0 (counted from 0) is refused: a template has 'never', but its piece 'never' is not in the target",
        ),
        ("A\t___ </s>", "'</s>' is a special symbol"),
    ):
        with pytest.raises(UserError, match="1 of 1 lines have no translation"):
            interactive(*stored, [line], tmp_path, "--complete")
        assert words in capsys.readouterr().err
    for line, flags, words in (
        ("A\ta", "--constraints", "--constraints is ordered, .* pass --complete"),
        ("A\ta", "--complete --constraints", "--constraints is ordered"),
        ("A\ta", "--complete --path-search beam", "looks for several"),
    ):
        with pytest.raises(UserError, match=words):
            interactive(*stored, [line], tmp_path, flags)
    with pytest.raises(UserError, match="--complete reads a template with each sentence"):
        generate(data, teacher, "--complete")
    with pytest.raises(UserError, match="autoregressive; drop it, and use fairseq's --constraints ordered"):
        interactive(data, teacher, ["w1\tW1"], tmp_path, "--complete")
    model = fairseq_diffusion.load(stored[1], data=stored[0], device="cpu")
    for sources, templates, words in (
        (["A"], "___ a", "a list of sources and a list of as many templates"),
        ("A", ["___ a"], "a list of sources"),
        (["A", "B"], ["___ a"], "2 sources and 1 templates"),
        (["A"], [" "], "a template is empty; write ___"),
        (["A", ""], ["___", "___ a"], r"source 1 \(counted from 0\) is empty, but has a template"),
    ):
        with pytest.raises(UserError, match=words):
            model.complete(sources, templates)
    with pytest.raises(UserError, match="has no option 'complete'"):
        model.translate(["A"], complete=True)
    with pytest.raises(UserError, match="for models of this package"):
        fairseq_diffusion.load(teacher, data=data, device="cpu").complete(["w1"], ["W1"])
