"""Any text at all has its translation, whatever stands beside it, or is refused in a sentence."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from stored_models import DATA, checkpoint
from support import USER_DIR, call, hypotheses

import fairseq_diffusion
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.templates import GAP_WORD

MODELS = {"dinoiser": {"steps": 2}, "cmlm": {"passes": 2}, "diffglat_ctc": {}}
FLAGS = {"dinoiser": "--iter-decode-max-iter 2", "cmlm": "--passes 2", "diffglat_ctc": ""}  # the same
SPECIAL = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "madeupword0000",
    "p1@@",
    "@@",
    "@-@",
    "&amp;",
    "&#124;",
    "\ufeff",
]
words = st.sampled_from([*(f"w{i}" for i in range(12)), *SPECIAL])
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
odd = st.text("\t\x00\x0b\x0c\x1c\x85\u00a0\u200b\u2028\ufeff\u202e\U0001f3d6 a@&<|", max_size=10)
texts = st.one_of(anything, odd, st.lists(words, max_size=15).map(" ".join))
sentences = texts.filter(lambda text: text.split())  # hypothesis takes `str.split` to be [] for an empty text alone
templates = st.one_of(texts, st.lists(words, max_size=6).map(f" {GAP_WORD} ".join))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[Any, dict[str, int]]:
    return fairseq_diffusion.load(checkpoint(request.param), data=DATA, device="cpu"), MODELS[request.param]


@given(sentences=st.lists(texts, max_size=6))
@example(sentences=["", " ", "\u2028", "w1"])
@example(sentences=["<pad>", "</s> </s>", "<s> w1"])
def test_python_translates_any_text(model: Any, count: Callable[..., None], sentences: list[str]):
    translator, flags = model
    together, alone = (translator.translate(sentences, batch_size=size, **flags) for size in (6, 1))
    count("texts translated in Python", len(sentences))
    assert [each.source for each in together] == sentences
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert [each.score for each in together] == pytest.approx([each.score for each in alone], abs=1e-4)
    for text, found in zip(sentences, together):
        assert text.split() or not found.text


@given(source=sentences, template=templates)
@example(source="w1", template="")
@example(source="w1", template=GAP_WORD * 2)
def test_a_completion_has_the_words_of_any_template(model: Any, count: Callable[..., None], source: str, template: str):
    translator, flags = model
    count("templates completed, or refused")
    try:
        (found,) = translator.complete([source], [template], **flags)
    except UserError:
        return
    dictionary, rest = translator.task.target_dictionary, iter(found.tokens)
    wanted = [dictionary[dictionary.index(word)] for word in template.split() if word != GAP_WORD]
    assert all(word in rest for word in wanted)


@pytest.mark.parametrize("name", MODELS)
def test_interactive_says_of_any_line_what_python_says(
    name: str, soak: bool, tmp_path_factory: pytest.TempPathFactory, count: Callable[..., None]
):
    model = fairseq_diffusion.load(checkpoint(name), data=DATA, device="cpu")
    number = 100 if soak else 20
    usual = f"-s a -t b --cpu --buffer-size 7 --batch-size 3 --path {checkpoint(name)} {FLAGS[name]}"

    @settings(max_examples=20 if soak else 1, phases=[Phase.generate])
    @given(st.lists(sentences, min_size=number, max_size=number))
    def same(found: list[str]) -> None:
        lines = ["w1", *(" ".join(line.split()) for line in found)]  # the first loses a byte-order mark
        file = tmp_path_factory.mktemp("lines") / "lines"
        file.write_text("".join(f"{line}\n" for line in lines))
        printed = hypotheses(call("interactive", DATA, *USER_DIR, *usual.split(), "--input", file))
        assert [printed[str(i)][0][0].split() for i in range(len(lines))] == [
            each.tokens for each in model.translate(lines, **MODELS[name])
        ]
        count("lines of fairseq-interactive", number)

    same()
