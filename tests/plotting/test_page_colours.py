"""The colours of the page of emerging translations: text can be read, and shades are in order, by day and by night."""

from __future__ import annotations

import re

import pytest

from fairseq_diffusion.plotting.page import LEGEND
from fairseq_diffusion.plotting.page_style import DARK_SHADES, LIGHT_SHADES, SHADES, STYLE

MEDIA = re.compile(r"@media([^{]*)\{((?:[^{}]*\{[^{}]*\})*)\}")
UNCHANGED = ("inherit", "transparent")
MARKS = ("", ".s", ".n", ".j", ".k")
CELLS = [["td", shade, mark] for shade in (".u", *(f".c{i}" for i in range(SHADES))) for mark in MARKS]
LATER = [[*cell, ".live tr.later td"] for cell in CELLS]
OTHERS = "body,h1,h2,h3,h3 b,.about,.legend,dt,dd,.text,summary,th,.live tr.now th,#where,button,select".split(",")


def lightness(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(lightness, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def rules(night: bool) -> list[tuple[str, dict[str, str]]]:
    """Selectors and declarations that hold on a screen, in their order."""

    def holds(block: re.Match[str]) -> str:
        return "" if "print" in block[1] or ("dark" in block[1] and not night) else block[2]

    pairs = re.findall(r"([^{}]+)\{([^{}]*)\}", MEDIA.sub(holds, STYLE))
    declared = [(names, dict(re.findall(r"([\w-]+):([^;]+)", body))) for names, body in pairs]
    return [(name.strip(), own) for names, own in declared for name in names.split(",")]


def colours(night: bool, *nested: list[str]) -> tuple[str, str]:
    """Text and background of an element in others, outermost first, each with the selectors that match it."""
    values = {name: value for selector, own in rules(night) if selector == ":root" for name, value in own.items()}
    found = {}
    for matching in (["body"], *nested):
        for own in (own for selector, own in rules(night) if selector in matching):
            found |= {name: value for name, value in own.items() if value not in UNCHANGED}
    text, background = (re.sub(r"var\((.*)\)", lambda name: values[name[1]], found[n]) for n in ("color", "background"))
    return text, background


@pytest.mark.parametrize("night", [False, True], ids=["day", "night"])
def test_all_text_can_be_read(night: bool):
    """With WCAG's contrast of 4.5: cells of every shade, marks of word pieces in them, the legend and the rest."""
    in_legend = [[f".{name}" for name in names.split()] for names in re.findall('class="(cell .*?)"', LEGEND)]
    legend = [[[".legend"], [*cell, ".legend .cell"]] for cell in in_legend]
    places = [
        *([cell] for cell in CELLS + LATER),
        *([cell, [".q"]] for cell in CELLS),
        *([[o]] for o in OTHERS),
        *legend,
    ]
    low = {str(place): found for place in places if (found := contrast(*colours(night, *place))) < 4.5}
    assert not low


def test_nothing_else_makes_text_pale():
    """What the test above does not see: opacity, of which hidden tokens have 0, and colours that it cannot read."""
    assert set(re.findall(r"opacity:([\d.]+)", STYLE)) == {"0", "1"}
    used = {own["color"] for night in (False, True) for _, own in rules(night) if "color" in own}
    assert used == {"var(--ink)", "var(--quiet)", "var(--accent)", "inherit", "#1b1206"}


@pytest.mark.parametrize("ramp", [LIGHT_SHADES, DARK_SHADES[::-1]])
def test_surer_is_lighter_by_day_and_darker_by_night(ramp: list[str]):
    """One way only, so that the order can be seen without telling hues apart."""
    found = [lightness(colour) for colour in ramp]
    assert len(found) == 10 and found == sorted(found) and len(set(found)) == 10
