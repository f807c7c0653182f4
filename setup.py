"""Packaging.  ``make setup`` makes a complete environment; ``pip install -e .`` adds this package to yours."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Read from the source text: importing the package here would run it before its requirements are installed."""
    text = (HERE / "fairseq_diffusion" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def readme() -> str:
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="fairseq-diffusion",
    version=version(),
    description="Diffusion-based, non-autoregressive translation for fairseq",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["fairseq_diffusion", "fairseq_diffusion.*"]),
    package_data={"fairseq_diffusion": ["py.typed"]},
    # fairseq is required, but not by name: two distributions provide the same module (fairseq, fairseq-fixed), a
    # requirement of either would install a second copy over the one a user has, and neither builds without care
    # (pip < 24.1, or torch and no isolation).  fairseq_diffusion.compat checks at import and gives the install lines.
    # torch (2.1 or newer) comes with it; models that were exported run without both.
    install_requires=["sacrebleu>=2.4", "sacremoses", "subword-nmt", "numpy"],
    extras_require={
        "dev": [
            "hypothesis",
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            'triton; platform_system == "Linux" and platform_machine == "x86_64"',
        ],
        "plot": ["matplotlib", "tensorboardX"],
        "gpu": ["triton"],
        "bench": ["ctranslate2"],
        "export": ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "runtime": ["onnxruntime>=1.20"],
    },
    entry_points={"console_scripts": ["fairseq-diffusion=fairseq_diffusion.cli.main:main"]},
)
