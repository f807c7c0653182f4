"""From what was printed to the two forms that are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.text_forms import TextForms


def output(*printed: str, detokenised: list[str] | None = None) -> Output:
    return Output("x", Path("x"), list(printed), detokenised)


@pytest.mark.parametrize(
    ("made", "text", "tokens", "how"),
    [
        (output("l&apos; eau , oui ."), "l'eau, oui.", "l' eau , oui .", "detokenised by sacremoses (fr)"),
        (output("l'eau, oui."), "l'eau, oui.", "l' eau , oui .", "as given"),
        (output("l' eau", detokenised=["L'EAU"]), "L'EAU", "l' eau", "detokenised by fairseq-generate"),
    ],
)
def test_forms(made: Output, text: str, tokens: str, how: str):
    text_forms = TextForms("fr", [made])
    assert text_forms.detokenised(made) == ([text], how) and text_forms.tokens(made) == [tokens.split()]
    assert text_forms.tokenizer == "words by sacremoses (fr)"


def test_hyphens_are_split_for_all_where_one_system_splits_them():
    split, whole = output("a @-@ b , c"), output("a-b, c")
    assert TextForms("en", [whole]).tokens(whole) == [["a-b", ",", "c"]]
    text_forms = TextForms("en", [whole, split])
    assert (
        text_forms.tokens(whole)
        == text_forms.tokens(split)
        == text_forms.tokenise(["a-b, c"])
        == [["a", "@-@", "b", ",", "c"]]
    )
    assert text_forms.tokenizer.endswith(", hyphens split")
    other = output("a-b , c")  # whose words are kept apart as its preprocessing did it
    assert text_forms.tokens(other) == [["a", "@-@", "b", ",", "c"]]
