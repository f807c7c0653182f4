"""The page of emerging translations: what is on it without scripting, and what scripting makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from support import generate

from fairseq_diffusion.files import histories
from fairseq_diffusion.plotting.page import joined_to_next, write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HEADLESS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --virtual-time-budget=2000 --dump-dom"
)


@pytest.fixture(scope="module")
def sentences(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Histories of real decodings, two candidates each."""
    folder = tmp_path_factory.mktemp("histories")
    flags = "--retain-iter-history --iter-decode-with-beam 2 --nbest 2"
    generate(data, checkpoint, f"{flags} --results-path {folder}")
    return histories.read(folder / "generate-test.history.jsonl")


def cells(html: str) -> list[list[str]]:
    """The text of each table cell, a list for each row."""
    rows = re.findall(r"<tr[^>]*>(.*?)(?=<tr|</table|</tbody)", html, re.DOTALL)
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in re.split("<td[^>]*>", row)[1:]] for row in rows]


def test_without_scripting_every_step_is_there(sentences: list[dict[str, Any]], tmp_path: Path):
    write_page(sentences, tmp_path / "page.html", "Steps & <more>", "All there is.")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = [step["tokens"] for sentence in sentences for found in sentence["candidates"] for step in found["steps"]]
    assert cells(html) == [["\u00b7" if token == "<mask>" else token for token in tokens] for tokens in shown]
    assert len(shown) == sum(3 * len(sentence["candidates"]) for sentence in sentences) > 3 * len(sentences)
    for sentence in sentences:
        assert f"<dt>source<dd>{sentence['source']}<dt>reference<dd>{sentence['reference']}" in html
    assert "<h1>Steps &amp; &lt;more&gt;</h1>" in html and "All there is." in html


def test_the_page_needs_nothing_else(sentences: list[dict[str, Any]], tmp_path: Path):
    write_page(sentences, tmp_path / "page.html", "x")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link|<img|src=|url\(|@import|fetch\(", html)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def nasty() -> dict[str, Any]:
    """Text that is no HTML, pieces, a mask and an unknown probability."""
    steps = [
        {"tokens": ["<s>", "<mask>", "</script>", "</s>"], "p": [1.0, None, 0.04, 0.99]},
        {"tokens": ["<s>", "wo@@", '"r<d>&', "</s>"], "p": [1.0, 0.5, 0.31, 0.99]},
    ]
    found = {"text": 'wo"r<d>&', "score": -0.5, "calls": 1, "steps": steps}
    return {"id": "a b&<", "source": "<b>bold</b>", "candidates": [found]}


def test_text_is_text(tmp_path: Path):
    write_page([nasty()], tmp_path / "page.html", "x")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>bold" not in html and "&lt;b&gt;bold&lt;/b&gt;" in html
    assert html.count("</script>") == 1 and "<dt>reference" not in html
    assert cells(html) == [["<s>", "\u00b7", "</script>", "</s>"], ["<s>", "wo@@", '"r<d>&', "</s>"]]
    assert "1 network call<" in html
    assert re.findall("title=([0-9.]+)", html) == ["1.00", "0.04", "0.99", "1.00", "0.50", "0.31", "0.99"]


@pytest.mark.parametrize(
    ("tokens", "joined"),
    [
        ("a b@@ c d", [False, True, False, False]),
        ("<s> \u2581a b \u2581c </s>", [False, True, False, False, False]),
        ("a b c", [False, False, False]),
    ],
)
def test_pieces_of_a_word_are_joined(tokens: str, joined: list[bool]):
    assert joined_to_next(tokens.split()) == joined


# -- in a browser


def rendered(page: Path, fragment: str, profile: Path) -> str:
    """The document after its script has run."""
    command = [BROWSER, *HEADLESS.split(), f"--user-data-dir={profile}", f"{page.as_uri()}{fragment}"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_script_shows_the_step_that_was_asked_for(sentences: list[dict[str, Any]], tmp_path: Path):
    write_page([*sentences, nasty()], tmp_path / "page.html", "x")
    wanted = sentences[3]
    html = rendered(tmp_path / "page.html", f"#s={wanted['id']}&step=1", tmp_path / "profile")
    articles = re.findall(r"<article id=\"s-(.*?)\"(.*?)>(.*?)</article>", html, re.DOTALL)
    assert [name for name, more, _ in articles if "hidden" not in more] == [str(wanted["id"])]
    (text,) = [text for name, _, text in articles if name == str(wanted["id"])]
    for found, strip in zip(wanted["candidates"], re.findall(r'class="strip">(.*?)</div>', text, re.DOTALL)):
        on = re.findall(r'<span class="on">((?:<span class="q">.*?</span>|[^<])*)</span>', strip)
        assert [unescape(re.sub("<.*?>", "", token)) for token in on] == found["steps"][1]["tokens"]
    assert "step 1 of 2</output>" in html


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_script_begins_with_the_last_step_and_takes_any_text(tmp_path: Path):
    write_page([nasty()], tmp_path / "page.html", "x")
    html = rendered(tmp_path / "page.html", "", tmp_path / "profile")
    assert "step 1 of 1</output>" in html
    assert re.findall(r'class="on">(.*?)</span><', html)[2] == '"r&lt;d&gt;&amp;'


PLAYED = """<script>
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
press("n"); press("n"); press("p"); press("Home"); press("ArrowRight"); press("ArrowLeft"); press(" ");
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_keys_turn_pages_and_play_to_the_end(sentences: list[dict[str, Any]], tmp_path: Path):
    write_page(sentences, tmp_path / "page.html", "x")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(html.replace("</html>", f"{PLAYED}</html>"), encoding="utf-8")
    html = rendered(tmp_path / "page.html", "#s=4&step=1", tmp_path / "profile")
    shown = re.findall(r'<article id="s-(\d+)"(?![^>]*hidden)', html)
    assert shown == ["5"] and "step 2 of 2</output>" in html and ">Play</button>" in html
