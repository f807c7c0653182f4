"""Diffusion-based, non-autoregressive translation for fairseq.

Importing this package is cheap and needs neither torch nor fairseq.  ``fairseq-train --user-dir`` imports it and then
every module of ``tasks/`` and ``models/``; the Python API calls :func:`load`, which does the same.
"""

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load() -> None:
    """Register our tasks, criterions and models with fairseq (what ``--user-dir`` does, for the Python API)."""
    from importlib import import_module

    for room in ("tasks", "models"):
        import_module(f"{__name__}.{room}")
