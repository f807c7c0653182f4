"""The figure of ``fairseq-diffusion plot``: three kinds of panels, one below the other, 1200 pixels wide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from fairseq_diffusion.plotting.read import Series, Training, Trajectory

INK, GREY, RULE = "#1f2933", "#7b8794", "#e4e7eb"
RUNS = ("#2a6f97", "#c8553d", "#588157", "#8d6a9f", "#b08900")
QUIET, MIDDLE, NOISY = "#9ecae1", "#3b6ea8", "#7f1d4f"  # low to high noise
SETTLED = "#cfe3ee"

WIDTH, DPI = 10.0, 120  # inches, so 1200 pixels
CURVE_HEIGHT, ROW_HEIGHT, HEADER_HEIGHT = 3.0, 0.165, 0.95
LINE_CHARACTERS = 142  # of the grid's type, across the page
LONGEST_TOKEN, MOST_ROWS = 16, 32
SMOOTHED_ABOVE = 80  # points; shorter curves are drawn as they are


class Panel(NamedTuple):
    """A part of the page: its height in inches, and what draws it."""

    height: float
    draw: Callable[[Axes], None]


def draw_figure(trainings: list[Training], trajectory: Trajectory | None, output: Path) -> None:
    """Draw the panels for which there is something to show, and write them to `output` as PNG."""
    panels = curve_panels(trainings) + (trajectory_panels(trajectory) if trajectory else [])
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.15)
    figure = Figure(figsize=(WIDTH, sum(panel.height for panel in panels)), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[panel.height for panel in panels])
    for panel, axis in zip(panels, axes[:, 0]):
        panel.draw(axis)
    figure.savefig(output, format="png")


def curve_panels(trainings: list[Training]) -> list[Panel]:
    """The noise scale of all trainings in one panel, the loss by noise level in a panel for each."""
    panels = []
    if any(training.sigma_min for training in trainings):
        panels.append(Panel(CURVE_HEIGHT, partial(draw_noise_scale, trainings=trainings)))
    for training in trainings:
        if training.noise_losses:
            name = f" ({training.name})" if len(trainings) > 1 else ""
            panels.append(Panel(CURVE_HEIGHT, partial(draw_noise_losses, training=training, name=name)))
    return panels


def draw_noise_scale(axis: Axes, trainings: list[Training]) -> None:
    """sigma_min over updates, a line for each training."""
    for index, training in enumerate(trainings):
        if training.sigma_min:
            draw_curve(axis, training.sigma_min, RUNS[index % len(RUNS)], training.name)
    dress(axis, "Smallest noise scale in training", r"$\sigma_{\min}$")
    if len(trainings) > 1:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False, fontsize=8)


def draw_noise_losses(axis: Axes, training: Training, name: str) -> None:
    """Mean squared error over updates, a line for each tenth of the noise range."""
    longest = max(len(updates) for updates, _ in training.noise_losses.values())
    window = longest // 40 if longest > SMOOTHED_ABOVE else 1
    for bucket, curve in sorted(training.noise_losses.items(), reverse=True):
        label = f"{bucket / 100:.1f}\u2013{(bucket + 10) / 100:.1f}"
        draw_curve(axis, smoothed(curve, window), noise_colour(bucket / 90), label)
    note = f", mean of {window} points" if window > 1 else ""
    dress(axis, f"Loss by noise level{name}", f"squared error{note}")
    legend = axis.legend(
        title=r"noise $\sigma$", loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False, fontsize=8
    )
    legend.get_title().set_fontsize(8)


def draw_curve(axis: Axes, curve: Series, colour: str | tuple[float, float, float], label: str) -> None:
    """A line; a single point, which no line would show, as a dot."""
    axis.plot(*curve, color=colour, linewidth=1.6, marker="o" if len(curve[0]) == 1 else None, label=label)


def smoothed(curve: Series, window: int) -> Series:
    """The curve averaged over `window` neighbouring points: shorter by window - 1, never extrapolated."""
    window = min(window, len(curve[0]))
    kernel = np.full(window, 1.0 / window)
    updates, values = (np.convolve(axis, kernel, mode="valid").tolist() for axis in curve)
    return updates, values


def noise_colour(share: float) -> tuple[float, float, float]:
    """A colour between quiet (0) and noisy (1)."""
    stops = np.array([to_rgb(colour) for colour in (QUIET, MIDDLE, NOISY)])
    red, green, blue = (float(np.interp(share, (0.0, 0.5, 1.0), stops[:, channel])) for channel in range(3))
    return red, green, blue


def dress(axis: Axes, title: str, ylabel: str) -> None:
    """Titles, and as few lines as the eye needs."""
    axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", parse_math=False)
    axis.set_xlabel("updates", fontsize=9, color=INK)
    axis.set_ylabel(ylabel, fontsize=9, color=INK)
    axis.set_xlim(left=0.0)
    axis.set_ylim(bottom=0.0)
    axis.tick_params(labelsize=8, colors=GREY, length=0)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.grid(axis="y", color=RULE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(GREY)


def trajectory_panels(trajectory: Trajectory) -> list[Panel]:
    """The grid of tokens, cut into panels of as many positions as fit across the page."""
    shown = chosen_steps(sorted(trajectory.steps))
    grid = [trajectory.steps[step] for step in shown]
    blocks = even_blocks(column_widths(grid))

    def draw(axis: Axes, index: int) -> None:
        draw_grid(axis, grid, blocks[index])
        dress_grid(axis, shown, blocks[index])
        if index == 0:
            head_grid(axis, trajectory)
        if index == len(blocks) - 1:
            axis.set_xlabel("position (shaded: the token of the last step)", fontsize=9, color=INK, loc="left")

    height = HEADER_HEIGHT + ROW_HEIGHT * len(shown)
    return [Panel(height, partial(draw, index=index)) for index in range(len(blocks))]


def chosen_steps(steps: list[int]) -> list[int]:
    """All steps, or evenly spaced ones with the first and the last if they are too many to read."""
    places = np.linspace(0, len(steps) - 1, min(len(steps), MOST_ROWS)).round().astype(int)
    return [steps[place] for place in places]


def column_widths(grid: list[list[str]]) -> list[int]:
    """Characters each position needs: its longest token and the space between cells."""
    columns = max(map(len, grid))
    return [max(len(clipped(row[c], LONGEST_TOKEN)) for row in grid if c < len(row)) + 2 for c in range(columns)]


def fitting_blocks(widths: list[int], limit: int = LINE_CHARACTERS) -> list[dict[int, int]]:
    """Cut positions into blocks no wider than the limit: for each, position -> width."""
    blocks: list[dict[int, int]] = [{}]
    for position, width in enumerate(widths):
        if sum(blocks[-1].values()) + width > limit:
            blocks.append({})
        blocks[-1][position] = width
    return blocks


def even_blocks(widths: list[int]) -> list[dict[int, int]]:
    """As few blocks as the page allows, and those of like width, so that no stray position is left for the last."""
    fewest = len(fitting_blocks(widths))
    limits = range(max(widths, default=0), LINE_CHARACTERS + 1)
    return next(blocks for limit in limits if len(blocks := fitting_blocks(widths, limit)) == fewest)


def clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def draw_grid(axis: Axes, grid: list[list[str]], block: dict[int, int]) -> None:
    """Rows are steps, columns positions; a cell is shaded where its token is the one of the last step."""
    for left, (position, width) in zip(left_edges(block), block.items()):
        for row, tokens in enumerate(grid):
            if position < len(tokens):
                settled = position < len(grid[-1]) and tokens[position] == grid[-1][position]
                draw_cell(axis, left, row, width, tokens[position], settled)


def left_edges(block: dict[int, int]) -> list[int]:
    return [0, *np.cumsum(list(block.values())).tolist()][:-1]


def draw_cell(axis: Axes, left: float, row: int, width: float, token: str, settled: bool) -> None:
    colour = SETTLED if settled else "white"
    axis.add_patch(Rectangle((left, row), width, 1, facecolor=colour, edgecolor="white", linewidth=1.0))
    axis.text(
        left + width / 2,
        row + 0.52,
        clipped(token, LONGEST_TOKEN),
        ha="center",
        va="center",
        fontsize=6.5,
        family="monospace",
        color=INK if settled else GREY,
        parse_math=False,
    )


def dress_grid(axis: Axes, steps: list[int], block: dict[int, int]) -> None:
    """Step numbers at the left, positions below."""
    axis.set_xlim(0, LINE_CHARACTERS)
    axis.set_ylim(len(steps), 0)
    centres = [left + width / 2 for left, width in zip(left_edges(block), block.values())]
    axis.set_xticks(centres, [str(position) for position in block])
    axis.set_yticks([row + 0.5 for row in range(len(steps))], [str(step) for step in steps])
    axis.tick_params(labelsize=6.5, colors=GREY, length=0)
    axis.set_ylabel("step", fontsize=9, color=INK)
    axis.spines[:].set_visible(False)


def head_grid(axis: Axes, trajectory: Trajectory) -> None:
    """Which sentence it is, and its source."""
    title = f"Sentence {trajectory.sentence} over the decoding steps"
    axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=20)
    place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
    axis.annotate(clipped(trajectory.source, LINE_CHARACTERS), **place, fontsize=7.5, color=GREY, parse_math=False)
