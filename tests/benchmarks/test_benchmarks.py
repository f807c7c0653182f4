"""The benchmarks run, in tiny shapes, and what they write is what they say it is."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import util
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import pytest
from commands import ENVIRONMENT, ROOT

BENCHMARKS = ROOT / "benchmarks"
ABOUT = {"versions", "device", "cpu", "threads", "options", "rows"}
VERSUS = {"ms", "iqr_ms", "baseline_ms", "baseline_iqr_ms", "ratio"}
ENGINE = util.find_spec("ctranslate2") is not None  # whose four rows are left out where it is not installed
# flags beside --quick, rows, and what each of them measures
TABLE: dict[str, tuple[str, int, set[str]]] = {
    "train": (
        "--precisions bf16 --optimizers adam fused_adam "
        "--pair toy --vocabulary 70 --max-tokens 90 --spread-vocabulary 150",
        12,
        {"ms", "tokens_per_second", "forward_ms", "backward_ms", "optimizer_ms", "forward_launches", "ratio"},
    ),
    "decode": (
        "--batches 1 2",
        37 + 4 * ENGINE,
        {"p50_ms", "p95_ms", "rate", "generator_rate", "ratio", "latency_ratio", "batch"},
    ),
}
Record = dict[str, Any]


def run(name: str, output: Path, flags: str = "") -> Record:
    """A benchmark as a script of its own, in tiny shapes: what it writes."""
    arguments = [f"{name}.py", "--quick", "--output", str(output), *flags.split()]
    with patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    return json.loads(output.read_text())


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    """The modules of the benchmarks, as their scripts see them."""
    with patch.object(sys, "path", [str(BENCHMARKS), *sys.path]):
        yield


@pytest.fixture(scope="module")
def records(beside: None, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Callable[[str], Record]:
    """Each benchmark's record; it runs when it is first asked for."""
    folder = tmp_path_factory.mktemp("records")
    return cache(lambda name: run(name, folder / f"{name}.json", TABLE[name][0]))


@pytest.mark.parametrize("name", TABLE)
def test_a_benchmark_says_what_it_measured_and_on_what(records, name):
    _, count, measures = TABLE[name]
    record = records(name)
    assert set(record) >= ABOUT and record["options"]["quick"]
    assert "output" not in record["options"] and not any("/" in str(value) for value in record["options"].values())
    assert {"python", "torch", "fairseq_diffusion"} < set(record["versions"]) and record["device"] == "cpu"
    assert len(record["rows"]) == count
    assert all(row[measure] > 0 for row in record["rows"] for measure in measures)


@pytest.mark.parametrize("name", ["train", "decode"])
def test_every_row_has_its_spread(records, name):
    assert all(row["repeats"] >= 2 and row["iqr_ms"] >= 0 for row in records(name)["rows"])


def test_ratios_in_training_are_of_the_same_batch_and_precision(records):
    rows = records("train")["rows"]
    for row in rows:
        like = {key: row[key] for key in ("precision", "optimizer", "max_tokens")}
        (base,) = (other for other in rows if other["system"] == "AR" and like.items() <= other.items())
        assert row["ratio"] == pytest.approx(row["tokens_per_second"] / base["tokens_per_second"])
        assert row["tokens_per_second"] == pytest.approx(1000 * row["tokens"] / row["ms"])
        assert 0.8 * 90 < row["tokens"] <= row["max_tokens"] == 90


def test_sigma_min_is_a_share_of_the_updates_it_is_kept_for(records):
    cost = records("train")["sigma_min"]
    assert cost["what"].startswith("150 embeddings of 64, every 50 updates of ")
    assert cost["share"] == pytest.approx(cost["ms"] / cost["baseline_ms"] / 50)


def test_ratios_in_decoding_are_of_medians_in_the_best_batch(records):
    rows = records("decode")["rows"]
    base = next(row for row in rows if (row["system"], row["precision"]) == ("AR, beam 5", "fp32"))
    for row in rows:
        assert row["ratio"] == pytest.approx(row["generator_rate"] / base["generator_rate"])
        assert row["latency_ratio"] == pytest.approx(base["p50_ms"] / row["p50_ms"])
        rates = {int(size): 1000 * int(size) / median(times["generator_ms"]) for size, times in row["times"].items()}
        assert len(rates) == 2 and row["generator_rate"] == pytest.approx(max(rates.values()))
        assert row["generator_rate"] == pytest.approx(rates[row["batch"]])
        assert row["rate"] < row["generator_rate"]


def test_the_largest_decoding_is_held_against_its_naive_form(records):
    rows = records("decode")["rows"]
    naive = {row["system"].removesuffix(", naive"): row for row in rows if row["system"].endswith(", naive")}
    held = [row for row in rows if row["naive_ratio"] is not None]
    assert {(row["system"], row["precision"], row["candidates"], row["steps"]) for row in held} == {
        (name, precision, 5, 4)
        for system in naive
        for name, precision in ((system, "fp32"), (system, "bf16"), (f"{system}, naive", "fp32"))
    }
    for row in held:
        assert row["naive_ratio"] == pytest.approx(row["generator_rate"] / naive[row["preset"]]["generator_rate"])


@pytest.mark.slow
def test_compiling_is_told_and_in_no_other_figure(tmp_path):
    """A step that takes half a second to be prepared, in every shape."""
    from fairseq_diffusion.translators.execution import PREPARATIONS

    def slow(denoise: Any, *arguments: Any) -> Any:
        time.sleep(0.5)
        return denoise

    flags = "--families steps --steps 2 --latency 1 --executions compile --hidden 24 --vocabulary 70"
    with patch.dict(PREPARATIONS, {"compile": slow}):
        record = run("decode", tmp_path / "decode.json", flags)
    assert (record["options"]["hidden"], record["options"]["vocabulary"]) == (24, 70)
    rows = [row for row in record["rows"] if row["system"].endswith(", compile")]
    assert {row["precision"] for row in rows} == {"bf16"} and len(rows) == 4
    assert all(row["compile_seconds"] > 0.5 and row["p50_ms"] < 500 and row["ms"] < 500 for row in rows)


@pytest.mark.slow
def test_without_ctranslate2_its_rows_are_left_out_with_a_notice(tmp_path, capsys):
    with patch.dict(sys.modules, {"ctranslate2": None}):
        rows = run("decode", tmp_path / "decode.json", "--families words")["rows"]
    assert {row["system"] for row in rows} == {"AR, beam 5", "AR, greedy"}
    assert "ctranslate2 is not installed, so its rows are left out" in capsys.readouterr().err


def test_what_cannot_be_measured_or_written_is_refused(tmp_path, capsys):
    import common

    there = tmp_path / "there.json"
    there.touch()
    for flags, message in {f"--output {there}": "already exists", "--device cuda": "torch finds no GPU"}.items():
        with patch("torch.cuda.is_available", lambda: False), pytest.raises(SystemExit):
            common.flags("", 1).parse_args(flags.split())
        assert message in capsys.readouterr().err
    assert common.flags("", 1).parse_args(["--force", "--output", str(there)]).output == there


def test_calls_take_turns_behind_a_round_that_is_not_counted():
    import common

    made: list[str] = []
    times = common.interleaved({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, "cpu", 2)
    assert made == list("ababab") and [len(found) for found in times.values()] == [2, 2]
    with patch("torch.set_num_threads") as set_threads:
        options = common.flags("", 4).parse_args(["--threads", "3"])
    set_threads.assert_called_once_with(3)
    row = common.versus("what", lambda: None, lambda: None, options)
    assert set(row) > VERSUS and row["ratio"] == row["baseline_ms"] / row["ms"] and row["repeats"] == 4
    assert common.iqr([1, 2, 3, 4, 5]) == 2


@pytest.mark.slow
def test_a_run_writes_files_named_after_the_device_and_replaces_none(tmp_path, capsys):
    command = [sys.executable, BENCHMARKS / "run.py", "--quick", "--results", tmp_path / "results", "post"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "results").iterdir()
    assert written.name.startswith("post.cpu-") and json.loads(written.read_text())["rows"]
    for more, status, message in (("train", 1, f"{written} exists already"), ("no-such", 2, "no benchmark no-such")):
        arguments = [*map(str, command[1:]), more]
        with patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as end:
            runpy.run_path(arguments[0], run_name="__main__")
        assert end.value.code == status and message in capsys.readouterr().err


def test_each_run_has_a_folder_of_its_own(tmp_path):
    new_folder = runpy.run_path(str(BENCHMARKS / "run.py"))["new_folder"]
    assert new_folder(tmp_path).name == "bench-1"
    (tmp_path / "bench-1").mkdir()
    assert new_folder(tmp_path).name == "bench-2"
