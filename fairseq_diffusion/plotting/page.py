"""One page of HTML with the decoding steps of sentences: it needs no network, no server and no other file.

Without JavaScript, and in print, each candidate is a table of all its steps; with it, one line that is animated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fairseq_diffusion.files.texts import BEGINS, CONTINUES
from fairseq_diffusion.files.writing import write_text
from fairseq_diffusion.plotting.page_script import SCRIPT
from fairseq_diffusion.plotting.page_style import SHADES, STYLE

SPECIAL = re.compile(r"<(?!unk>)[^<>]+>")
LABEL_LENGTH = 60

RAMP = "".join(f"<span class=c{i}></span>" for i in range(SHADES))
LEGEND = f"""<div class=legend><span>unsure<span class=ramp>{RAMP}</span>sure (probability 0 to 1; under
the pointer, exact)</span><span><span class="cell u">\u00b7</span>masked or given: no probability</span>
<span><span class="cell c9 n">changed</span>since the step before</span></div>"""

BAR = """<form id=bar onsubmit="return false"><div class=time>
<button id=back type=button title="one step back (left arrow)" aria-label="one step back">\u2039</button>
<button id=play type=button title="space">Play</button>
<button id=on type=button title="one step on (right arrow)" aria-label="one step on">\u203a</button>
<input id=slider type=range min=0 step=1 aria-label=step><output id=where></output></div><div>
<button id=earlier type=button title="previous sentence (p)" aria-label="previous sentence">\u2191</button>
<select id=pick aria-label=sentence></select>
<button id=later type=button title="next sentence (n)" aria-label="next sentence">\u2193</button></div></form>"""


def write_page(sentences: Sequence[Mapping[str, Any]], path: Path, title: str, about: str = "") -> None:
    """Write the page of some sentences, each as :mod:`fairseq_diffusion.files.histories` describes it."""
    articles = "\n".join(map(article, sentences))
    text = (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><body><h1>{escape(title)}</h1>"
        f"<p class=about>{escape(about)}</p>{LEGEND}{BAR}<main>\n{articles}\n</main><script>{SCRIPT}</script></html>\n"
    )
    write_text(path, text)


def article(sentence: Mapping[str, Any]) -> str:
    """The HTML of one sentence."""
    number, source = escape(str(sentence["id"])), sentence["source"]
    label = escape(f"{sentence['id']}: {source}"[:LABEL_LENGTH])
    texts = f"<dt>source<dd>{escape(source)}"
    if sentence.get("reference") is not None:
        texts += f"<dt>reference<dd>{escape(sentence['reference'])}"
    candidates = "".join(candidate(rank, found) for rank, found in enumerate(sentence["candidates"], 1))
    return (
        f'<article id="s-{number}" data-label="{label}"><h2>Sentence {number}</h2><dl>{texts}</dl>'
        f"<div class=candidates>{candidates}</div></article>"
    )


def candidate(rank: int, found: Mapping[str, Any]) -> str:
    """The HTML of a candidate: its final text, and the table of its steps."""
    calls = f"{found['calls']} network call{'' if found['calls'] == 1 else 's'}"
    rows: list[str] = []
    before: Sequence[str] = []
    for number, step in enumerate(found["steps"]):
        rows.append(f"<tr><th>{number}{row(step['tokens'], step['p'], before)}")
        before = step["tokens"]
    return (
        f"<section class=candidate><h3><b>{rank}</b> \u00b7 score {found['score']:.3f} \u00b7 {calls}</h3>"
        f"<p class=text>{escape(found['text'])}<div class=strip></div><details open><summary>every step</summary>"
        f"<div class=steps><table><tbody>{''.join(rows)}</table></div></details></section>"
    )


def row(tokens: Sequence[str], p: Sequence[float | None], before: Sequence[str]) -> str:
    """The cells of one step; `before` are the tokens of the step before, none for the first."""
    joined = joined_to_next(tokens)
    cells = []
    for i, (token, probability) in enumerate(zip(tokens, p)):
        changed = bool(before) and (i >= len(before) or before[i] != token)
        marks = {"s": SPECIAL.fullmatch(token), "n": changed, "j": joined[i], "k": i > 0 and joined[i - 1]}
        shade = "u" if probability is None else f"c{min(SHADES - 1, int(probability * SHADES))}"
        classes = " ".join([shade, *(name for name, holds in marks.items() if holds)])
        exact = "" if probability is None else f" title={probability:.2f}"
        cells.append(f'<td class="{classes}"{exact}>{token_html(token)}')
    return "".join(cells)


def joined_to_next(tokens: Sequence[str]) -> list[bool]:
    """Whether each token and the next one are pieces of the same word."""
    sentencepiece = any(token.startswith(BEGINS) for token in tokens)
    following = [*tokens[1:], "</s>"]
    return [
        token.endswith(CONTINUES)
        or (sentencepiece and not (nearby.startswith(BEGINS) or SPECIAL.fullmatch(nearby) or SPECIAL.fullmatch(token)))
        for token, nearby in zip(tokens, following)
    ]


def token_html(token: str) -> str:
    """A token's text; marks of word pieces are small, and a mask is a dot."""
    if token == "<mask>":
        return "\u00b7"
    if token.endswith(CONTINUES):
        return f"{escape(token[: -len(CONTINUES)])}<span class=q>{CONTINUES}</span>"
    if token.startswith(BEGINS):
        return f"<span class=q>{BEGINS}</span>{escape(token[len(BEGINS) :])}"
    return escape(token)
