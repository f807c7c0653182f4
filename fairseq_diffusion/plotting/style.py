"""Colours, sizes and axes that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, GREY, RULE = "#1f2933", "#7b8794", "#e4e7eb"
RUNS = ("#2a6f97", "#c8553d", "#588157", "#8d6a9f", "#b08900", "#3d9a9a", "#b5478f", "#5b6b7a")
NOISE = ("#9ecae1", "#3b6ea8", "#7f1d4f")  # low to high noise
FINAL = "#cfe3ee"

WIDTH, DPI = 10.0, 120  # inches, so 1200 pixels


class Panel(NamedTuple):
    """A part of a figure: its height in inches, and the function that draws it."""

    height: float
    draw: Callable[[Axes], None]


def new_figure(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """An empty figure 1200 pixels wide, and its axes, one below the other."""
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.15)
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])


def draw_panels(panels: Sequence[Panel], output: Path) -> None:
    """One below the other, as a PNG."""
    figure, axes = new_figure([panel.height for panel in panels])
    for panel, axis in zip(panels, axes):
        panel.draw(axis)
    figure.savefig(output, format="png")


def style_axis(axis: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Titles, a light grid, and no other lines."""
    axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", parse_math=False)
    axis.set_xlabel(xlabel, fontsize=9, color=INK)
    axis.set_ylabel(ylabel, fontsize=9, color=INK)
    axis.tick_params(which="both", labelsize=8, colors=GREY, length=0)
    axis.grid(axis="y", color=RULE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(GREY)


def legend_beside(axis: Axes, title: str | None = None) -> None:
    """A legend right of the axes."""
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.03)}
    legend = axis.legend(title=title, frameon=False, fontsize=8, title_fontsize=8, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)
