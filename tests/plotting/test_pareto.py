"""BLEU against network calls: which rows are drawn, what the front is, and labels that can be read."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations
from pathlib import Path

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.plotting.points import Point, pareto_front, read_points

matplotlib = pytest.importorskip("matplotlib")


def table(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"rows": rows}))
    return path


def row(name: str, calls: object, bleu: object) -> dict[str, object]:
    return {"name": name, "calls": calls, "sacrebleu": bleu, "more": {}}


def test_a_row_is_a_point_of_the_series_before_its_last_comma(tmp_path: Path):
    rows = row("ours, 5 x 5, 20 steps", 20, 30.5), row("beam", 27.3, 31), row("a,b", 1, 2)
    assert read_points(table(tmp_path, *rows)) == (
        [Point("ours, 5 x 5", "20 steps", 20, 30.5), Point("beam", "", 27.3, 31), Point("a", "b", 1, 2)],
        [],
    )


def test_rows_that_cannot_be_drawn_are_named(tmp_path: Path):
    rows = (
        row("x", 1, 2),
        row("no calls", None, 3),
        row("no score", 3, None),
        row("dash", "-", 3),
        row("nan", 3, math.nan),
    )
    assert read_points(table(tmp_path, *rows))[1] == ["no calls", "no score", "dash", "nan"]


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"rows": 3}'])
def test_no_table(tmp_path: Path, text: str):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(UserError, match="is no table"):
        read_points(tmp_path / "table.json")


def test_nothing_to_draw(tmp_path: Path):
    with pytest.raises(UserError, match="no row of .* has both network calls and sacreBLEU"):
        read_points(table(tmp_path, row("x", None, 3)))
    with pytest.raises(UserError, match="cannot read"):
        read_points(tmp_path / "absent.json")


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_point_beats(seed: int):
    rng = random.Random(seed)
    points = [Point("s", str(i), rng.choice([1, 2, 5, 10]), rng.randint(20, 30)) for i in range(12)]
    cost = {(point.calls, point.bleu) for point in points}
    unbeaten = {
        (calls, bleu) for calls, bleu in cost if not any(c <= calls and b >= bleu for c, b in cost - {(calls, bleu)})
    }
    front = pareto_front(points)
    assert {(point.calls, point.bleu) for point in front} == unbeaten and len(front) == len(unbeaten)


def crowd() -> list[Point]:
    """Many systems of one call, some of which say almost the same, and others close to each other on the right."""
    single = [Point(f"one-pass system {i}", "", 1, 26 + 0.4 * i) for i in range(8)]
    steps = [Point("iterative", f"{n} steps", n, 29 + 0.1 * n**0.5) for n in (2, 4, 5, 10, 20)]
    return [*single, *steps, Point("autoregressive", "beam 5", 21.3, 29.5), Point("autoregressive", "greedy", 21, 29.4)]


def test_labels_are_inside_and_hide_neither_each_other_nor_a_point():
    from fairseq_diffusion.plotting.pareto import box_around, overlap, pareto_figure

    points = crowd()
    figure = pareto_figure(points)
    (axis,) = figure.axes
    boxes = [text.get_window_extent() for text in axis.texts]
    assert sorted(text.get_text() for text in axis.texts) == sorted(point.label or point.series for point in points)
    assert all(overlap(*pair) == 0 for pair in combinations(boxes, 2))
    centres = axis.transData.transform([(point.calls, point.bleu) for point in points])
    assert all(overlap(box, box_around(x, y, 8, 8)) == 0 for box in boxes for x, y in centres)
    assert all(axis.bbox.x0 <= b.x0 and b.x1 <= axis.bbox.x1 and axis.bbox.y0 <= b.y0 for b in boxes)


def test_beaten_points_are_hollow_and_series_are_told_apart():
    from fairseq_diffusion.plotting.pareto import pareto_figure

    points = crowd()
    (axis,) = pareto_figure(points).axes
    alone = [line for line in axis.lines if len(line.get_xdata()) == 1]
    faces = {(line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() for line in alone}
    front = {(point.calls, point.bleu) for point in pareto_front(points)}
    assert {where for where, face in faces.items() if face != "white"} == front
    assert len(faces) == len(points)
    looks = {(line.get_color(), line.get_marker()) for line in alone}
    assert len(looks) == len({point.series for point in points})
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["Pareto front", "iterative", "autoregressive", "hollow: beaten"]
    assert axis.get_xscale() == "log"
