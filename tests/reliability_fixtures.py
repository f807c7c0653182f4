"""Faults and inputs by the number: few in ``make test``, many in ``make soak``, which prints how many there were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, settings
from runs import train_teacher
from stored_models import DATA, checkpoint
from support import call, decoding, lines

COUNTED = "reliability"


def pytest_configure(config: pytest.Config) -> None:
    """Inputs are the same in each run of the quick form; the long one tries new ones."""
    unhurried = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("quick", max_examples=20, derandomize=True, **unhurried)
    settings.register_profile("soak", max_examples=1000, **unhurried)
    settings.load_profile("soak" if config.getoption("soak") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The quick form leaves out what is marked."""
    left_out = [item for item in items if item.get_closest_marker("soak") and not config.getoption("soak")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def with_quick(each: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """Parameters of a test, of which the quick form has some; they are named by themselves."""
    return [
        pytest.param(one, marks=() if one in quick else pytest.mark.soak, id=str(getattr(one, "__name__", one)))
        for one in each
    ]


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("soak"))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Called with what a test has injected or tried, and how often."""
    counts: dict[str, int] = {}
    request.node.user_properties.append((COUNTED, counts))

    def add(what: str, number: int = 1) -> None:
        counts[what] = counts.get(what, 0) + int(number)

    return add


@pytest.fixture(scope="session")
def stored_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results of fairseq-generate, 1 and 2, and their references."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (1, 2):
        call("generate", *decoding(DATA, checkpoint("dinoiser"), f"--seed {seed} --results-path {folder / str(seed)}"))
    references = lines((folder / "1/generate-test.txt").read_text(), "T")
    (folder / "references").write_text(
        "".join(f"{references[str(i)][0][0]}\n".replace(" .", ".") for i in range(len(references)))
    )
    return folder


@pytest.fixture(scope="session")
def stored_teacher(tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    return train_teacher(DATA, tmp_path_factory.mktemp("teacher"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The sums over all tests that passed."""
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, counts in report.user_properties:
            if name == COUNTED:
                totals.update(counts)
    for what, number in sorted(totals.items()):
        terminalreporter.write_line(f"{number:9,}  {what}")
