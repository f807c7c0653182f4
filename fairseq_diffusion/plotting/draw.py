"""The PNGs of ``fairseq-diffusion plot``; nothing else imports matplotlib."""

from __future__ import annotations

from pathlib import Path

from fairseq_diffusion.plotting.curves import curve_panels
from fairseq_diffusion.plotting.grid import trajectory_panels
from fairseq_diffusion.plotting.pareto import draw_pareto
from fairseq_diffusion.plotting.read import Training, Trajectory
from fairseq_diffusion.plotting.style import draw_panels

__all__ = ["draw_figure", "draw_pareto"]


def draw_figure(trainings: list[Training], trajectory: Trajectory | None, output: Path) -> None:
    """The panels for which there are data."""
    draw_panels(curve_panels(trainings) + (trajectory_panels(trajectory) if trajectory else []), output)
