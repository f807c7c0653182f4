"""BLEU against network calls: a point for each system, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from fairseq_diffusion.plotting.points import Point, pareto_front
from fairseq_diffusion.plotting.style import GREY, INK, RUNS, legend_beside, new_figure, style_axis

HEIGHT = 5.6
MARKERS = "osD^vPX*"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MARGIN = 1.35  # left and right of the points, as a factor
DIRECTIONS = ((1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (-1, 0))
DISTANCES = (7, 15, 26, 40, 58)  # points from a marker to its label, nearest first


def draw_pareto(points: Sequence[Point], output: Path) -> None:
    """The picture, as a PNG."""
    pareto_figure(points).savefig(output, format="png")


def pareto_figure(points: Sequence[Point]) -> Figure:
    figure, (axis,) = new_figure([HEIGHT])
    front = pareto_front(points)
    draw_front(axis, front)
    colours = {}
    for index, series in enumerate(dict.fromkeys(point.series for point in points)):
        colours[series] = RUNS[index % len(RUNS)]
        marker = MARKERS[(index + index // len(RUNS)) % len(MARKERS)]  # beyond eight, another one with each colour
        draw_series(axis, [p for p in points if p.series == series], front, colours[series], marker)
    axis.plot([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="none", label="hollow: beaten")
    style_pareto(axis, points)
    figure.draw_without_rendering()  # labels are placed in the final layout
    write_labels(figure, axis, points, colours)
    return figure


def draw_front(axis: Axes, front: list[Point]) -> None:
    """The best BLEU for a number of calls: constant from one point of the front to the next."""
    calls = [*(point.calls for point in front), front[-1].calls * 100]
    bleu = [*(point.bleu for point in front), front[-1].bleu]
    style: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 3)), "drawstyle": "steps-post"}
    axis.plot(calls, bleu, label="Pareto front", **style)


def draw_series(axis: Axes, points: list[Point], front: list[Point], colour: str, marker: str) -> None:
    """A system's points in the order of their calls; hollow where another point beats them."""
    points = sorted(points, key=lambda point: (point.calls, point.bleu))
    if len(points) > 1:
        path = zip(*((point.calls, point.bleu) for point in points))
        axis.plot(*path, color=colour, linewidth=1.2, alpha=0.45, zorder=2)
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "linestyle": "none", "zorder": 3}
    for point in points:
        axis.plot([point.calls], [point.bleu], markerfacecolor=colour if point in front else "white", **style)
    if any(point.label for point in points):  # others carry their name themselves
        axis.plot([], [], color=colour, marker=marker, linewidth=1.2, label=points[0].series)


def style_pareto(axis: Axes, points: Sequence[Point]) -> None:
    xlabel = "network calls of the decoder per candidate (logarithmic)"
    style_axis(axis, "BLEU against network calls", xlabel, "sacreBLEU")
    calls, bleu = [point.calls for point in points], [point.bleu for point in points]
    axis.set_xscale("log")
    axis.set_xlim(min(calls) / MARGIN, max(calls) * MARGIN)
    shown = [tick for tick in TICKS if min(calls) / MARGIN <= tick <= max(calls) * MARGIN]
    axis.set_xticks(shown, [f"{tick:,}" for tick in shown])
    axis.set_xticks([], minor=True)
    margin = 0.1 * (max(bleu) - min(bleu)) + 0.5
    axis.set_ylim(min(bleu) - margin, max(bleu) + margin)
    legend_beside(axis)


def write_labels(figure: Figure, axis: Axes, points: Sequence[Point], colours: dict[str, str]) -> None:
    """Each point's label beside it, where it overlaps least; a thin line to those that are far."""
    scale = figure.dpi / 72
    centres = [tuple(axis.transData.transform((point.calls, point.bleu))) for point in points]
    taken = [box_around(x, y, 10 * scale, 10 * scale) for x, y in centres] + boxes_along_lines(axis)
    for (x, y), point in zip(centres, points):
        text = axis.annotate(
            point.label or point.series,
            (point.calls, point.bleu),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=colours[point.series] if point.label else INK,
            ha="center",
            va="center",
            parse_math=False,
            in_layout=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        size = text.get_window_extent()
        right, up = free_offset(x, y, size.width + 4, size.height + 2, taken, axis.bbox, scale)
        text.set_position((right / scale, up / scale))
        taken.append(box_around(x + right, y + up, size.width + 4, size.height + 2))
        if max(abs(right) - size.width / 2, abs(up) - size.height / 2) > 2 * DISTANCES[0] * scale:
            end = axis.transData.inverted().transform((x + right, y + up))
            axis.plot(*zip((point.calls, point.bleu), end), color=GREY, linewidth=0.5, alpha=0.6, zorder=1)


def boxes_along_lines(axis: Axes) -> list[Bbox]:
    """Small boxes along every line that is drawn, which labels avoid."""
    boxes = []
    for line in axis.lines:
        corners = np.asarray(line.get_path().transformed(axis.transData).vertices)
        for (x, y), (x2, y2) in zip(corners[:-1], corners[1:]):
            count = int(min(max(abs(x2 - x), abs(y2 - y)) // 4, 1000))
            shares = [i / max(1, count) for i in range(count + 1)]
            boxes += [box_around(x + share * (x2 - x), y + share * (y2 - y), 2, 2) for share in shares]
    return [box for box in boxes if axis.bbox.overlaps(box)]


def free_offset(
    x: float, y: float, width: float, height: float, taken: Sequence[Bbox], inside: Bbox, scale: float
) -> tuple[float, float]:
    """From a point at (x, y) to the centre of its label: the nearest free place, or the one with the least overlap."""
    best, least = (0.0, 0.0), float("inf")
    for distance, (right, up) in product(DISTANCES, DIRECTIONS):
        gap = distance * scale
        offset = right * (gap + width / 2), up * (gap + height / 2)
        box = box_around(x + offset[0], y + offset[1], width, height)
        outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
        crowd = sum(overlap(box, other) for other in taken) + outside * width * height
        if crowd < least:
            best, least = offset, crowd
        if crowd == 0:
            break
    return best


def box_around(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def overlap(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else shared.width * shared.height
