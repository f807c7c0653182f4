"""Curves of trainings over updates: loss, BLEU, the noise scale, and the loss by noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from fairseq_diffusion.plotting.read import Series, Training
from fairseq_diffusion.plotting.style import NOISE, RUNS, Panel, legend_beside, style_axis

CURVE_HEIGHT = 3.0
SMOOTHED_ABOVE = 80  # points; shorter curves are drawn as they are
RUN_CURVES = (  # of all trainings in a panel: the name in `Training`, title and label
    ("valid_bleu", "BLEU in validation", "BLEU"),
    ("sigma_min", "Smallest noise scale in training", r"$\sigma_{\min}$"),
)
NOISE_COLOURS = LinearSegmentedColormap.from_list("noise", NOISE)

Colour = str | tuple[float, float, float, float]


def curve_panels(trainings: list[Training]) -> list[Panel]:
    """Loss, BLEU and noise scale of all trainings in a panel each; the loss by noise level in one a training."""
    draws = []
    if any(training.train_loss or training.valid_loss for training in trainings):
        draws.append(partial(draw_losses, trainings))
    for name, title, label in RUN_CURVES:
        if any(getattr(training, name) for training in trainings):
            draws.append(partial(draw_runs, trainings, name, title, label))
    for training in trainings:
        if training.noise_losses:
            name = f" ({training.name})" if len(trainings) > 1 else ""
            draws.append(partial(draw_noise_losses, training, name))
    return [Panel(CURVE_HEIGHT, draw) for draw in draws]


def draw_losses(trainings: list[Training], axis: Axes) -> None:
    """Training in a pale line, validation in a strong one; trainings with other loss terms are on other scales."""
    for index, training in enumerate(trainings):
        if training.train_loss:
            curve = smoothed(training.train_loss, window_for(training.train_loss))
            label = None if training.valid_loss else training.name
            draw_curve(axis, curve, run_colour(index), label, strong=False)
        if training.valid_loss:
            draw_curve(axis, training.valid_loss, run_colour(index), training.name)
    style_curves(axis, "Loss (pale: in training, strong: in validation)", "loss")
    axis.set_ylim(top=top_of([curve for t in trainings for curve in (t.train_loss, t.valid_loss) if curve]))
    if len(trainings) > 1:
        axis.legend(loc="upper right", frameon=False, fontsize=8)  # inside: losses fall, so that corner is free


def top_of(losses: Sequence[Series]) -> float:
    """The upper end of the axis: losses of the first updates are cut off, else the rest would look flat."""
    late = [np.quantile(values[len(values) // 20 :], 0.95) for _, values in losses]
    return 1.25 * float(max(late)) or 1.0


def draw_runs(trainings: list[Training], name: str, title: str, label: str, axis: Axes) -> None:
    """The curve called `name` of each training that has it."""
    for index, training in enumerate(trainings):
        if curve := getattr(training, name):
            draw_curve(axis, curve, run_colour(index), training.name)
    style_curves(axis, title, label)
    if len(trainings) > 1:
        legend_beside(axis)


def draw_noise_losses(training: Training, name: str, axis: Axes) -> None:
    """Mean squared error over updates, a line for each tenth of the noise range."""
    window = max(map(window_for, training.noise_losses.values()))
    for bucket, curve in sorted(training.noise_losses.items(), reverse=True):
        label = f"{bucket / 100:.1f}\u2013{(bucket + 10) / 100:.1f}"
        draw_curve(axis, smoothed(curve, window), NOISE_COLOURS(bucket / 90), label)
    note = f", mean of {window} points" if window > 1 else ""
    style_curves(axis, f"Loss by noise level{name}", f"squared error{note}")
    legend_beside(axis, title=r"noise $\sigma$")


def draw_curve(axis: Axes, curve: Series, colour: Colour, label: str | None, strong: bool = True) -> None:
    """A line; a single point, which no line would show, as a dot."""
    width, alpha = (1.6, 1.0) if strong else (1.1, 0.5)
    marker = "o" if len(curve[0]) == 1 else None
    axis.plot(*curve, color=colour, linewidth=width, alpha=alpha, marker=marker, label=label)


def window_for(curve: Series) -> int:
    """How many neighbouring points of a curve make one of a readable line."""
    return len(curve[0]) // 40 if len(curve[0]) > SMOOTHED_ABOVE else 1


def smoothed(curve: Series, window: int) -> Series:
    """The curve averaged over `window` neighbouring points: shorter by window - 1, never extrapolated."""
    window = min(window, len(curve[0]))
    kernel = np.full(window, 1.0 / window)
    updates, values = (np.convolve(axis, kernel, mode="valid").tolist() for axis in curve)
    return updates, values


def run_colour(index: int) -> Colour:
    return RUNS[index % len(RUNS)]


def style_curves(axis: Axes, title: str, ylabel: str) -> None:
    """Both axes begin at zero, and updates are whole numbers."""
    style_axis(axis, title, "updates", ylabel)
    axis.set_xlim(left=0.0)
    axis.set_ylim(bottom=0.0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
