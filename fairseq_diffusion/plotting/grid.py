"""The tokens of one sentence at each decoding step: steps below each other, positions side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fairseq_diffusion.plotting.read import Trajectory
from fairseq_diffusion.plotting.style import FINAL, GREY, INK, Panel

ROW_HEIGHT, HEADER_HEIGHT = 0.165, 0.95
LINE_CHARACTERS = 142  # of the grid's type, across the page
LONGEST_TOKEN, MOST_ROWS = 16, 32


def trajectory_panels(trajectory: Trajectory) -> list[Panel]:
    """The grid of tokens, cut into panels of as many positions as fit across the page."""
    shown = chosen_steps(sorted(trajectory.steps))
    grid = [trajectory.steps[step] for step in shown]
    blocks = even_blocks(column_widths(grid))

    def draw(axis: Axes, index: int) -> None:
        draw_grid(axis, grid, blocks[index])
        style_grid(axis, shown, blocks[index])
        if index == 0:
            title_grid(axis, trajectory)
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
    """As few blocks as fit across the page, of similar widths, so that the last one is not a single position."""
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
                final = position < len(grid[-1]) and tokens[position] == grid[-1][position]
                draw_cell(axis, left, row, width, tokens[position], final)


def left_edges(block: dict[int, int]) -> list[int]:
    return [0, *np.cumsum(list(block.values())).tolist()][:-1]


def draw_cell(axis: Axes, left: float, row: int, width: float, token: str, final: bool) -> None:
    colour = FINAL if final else "white"
    axis.add_patch(Rectangle((left, row), width, 1, facecolor=colour, edgecolor="white", linewidth=1.0))
    axis.text(
        left + width / 2,
        row + 0.52,
        clipped(token, LONGEST_TOKEN),
        ha="center",
        va="center",
        fontsize=6.5,
        family="monospace",
        color=INK if final else GREY,
        parse_math=False,
    )


def style_grid(axis: Axes, steps: list[int], block: dict[int, int]) -> None:
    """Step numbers at the left, positions below."""
    axis.set_xlim(0, LINE_CHARACTERS)
    axis.set_ylim(len(steps), 0)
    centres = [left + width / 2 for left, width in zip(left_edges(block), block.values())]
    axis.set_xticks(centres, [str(position) for position in block])
    axis.set_yticks([row + 0.5 for row in range(len(steps))], [str(step) for step in steps])
    axis.tick_params(labelsize=6.5, colors=GREY, length=0)
    axis.set_ylabel("step", fontsize=9, color=INK)
    axis.spines[:].set_visible(False)


def title_grid(axis: Axes, trajectory: Trajectory) -> None:
    """The title: the sentence's number and its source."""
    title = f"Sentence {trajectory.sentence} over the decoding steps"
    axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=20)
    place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
    axis.annotate(clipped(trajectory.source, LINE_CHARACTERS), **place, fontsize=7.5, color=GREY, parse_math=False)
