"""From what was printed to the two forms that are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.wording import Wording


def output(*printed: str, detokenised: list[str] | None = None) -> Output:
    return Output("x", Path("x"), list(printed), detokenised)


@pytest.mark.parametrize(
    ("made", "text", "tokens", "how"),
    [
        (output("l&apos; eau , oui ."), "l'eau, oui.", "l' eau , oui .", "detokenised by sacremoses (fr)"),
        (output("l'eau, oui."), "l'eau, oui.", "l' eau , oui .", "as it stands"),
        (output("l' eau", detokenised=["L'EAU"]), "L'EAU", "l' eau", "detokenised by fairseq-generate"),
    ],
)
def test_forms(made: Output, text: str, tokens: str, how: str):
    wording = Wording("fr", [made])
    assert wording.text(made) == ([text], how) and wording.tokens(made) == [tokens.split()]
    assert wording.rule == "words by sacremoses (fr)"


def test_hyphens_are_split_for_all_where_one_system_splits_them():
    split, whole = output("a @-@ b , c"), output("a-b, c")
    assert Wording("en", [whole]).tokens(whole) == [["a-b", ",", "c"]]
    wording = Wording("en", [whole, split])
    assert wording.tokens(whole) == wording.tokens(split) == wording.split(["a-b, c"]) == [["a", "@-@", "b", ",", "c"]]
    assert wording.rule.endswith(", hyphens split")
    other = output("a-b , c")  # whose words are kept apart as its preprocessing did it
    assert wording.tokens(other) == [["a", "@-@", "b", ",", "c"]]
