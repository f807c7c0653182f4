"""Reading of training logs and decodings, the figure that comes of them, and every refusal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.plotting.read import read_training, read_trajectory


def log_line(tag: str, **record: Any) -> str:
    return f"2026-01-01 00:00:00 | INFO | {tag} | {json.dumps(record)}"


def inner(update: int, **record: Any) -> str:
    return log_line("train_inner", epoch=1, num_updates=str(update), **record)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two logged intervals, an epoch's summary, a validation, and lines that only look like JSON."""
    lines = [
        "2026-01-01 00:00:00 | INFO | fairseq_cli.train | {'_name': None}",
        inner(100, sigma_min="0.05", mse_noise_00="0.9", mse_noise_50="nan", mse_noise_90="0.5"),
        inner(200, sigma_min="0.30", mse_noise_50="nan", mse_noise_90="0.4"),
        log_line("train", epoch=1, train_sigma_min="0.2", train_mse_noise_90="0.45", train_num_updates="200"),
        log_line("valid", epoch=1, valid_loss="3.0", valid_bleu="12.5", valid_sigma_min="0.3", valid_num_updates="200"),
    ]
    path = tmp_path / "run.log"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def generate(tmp_path: Path) -> Path:
    """Two sentences; the first with two hypotheses (--nbest 2), the second without history."""
    path = tmp_path / "generate.txt"
    lines = ["2026 | INFO | loaded", "S-1\tein ha@@ us", "T-1\ta house", "H-1\t-0.2\ta hou@@ se", "D-1\t-0.2\ta house"]
    lines += ["E-1_0\tthe $x^ the", "E-1_1\ta hou@@ se", "H-1\t-0.9\tno", "E-1_0\tno", "E-1_1\tno no"]
    lines += ["S-11\tx", "H-11\t-0.1\ty"]
    path.write_text("\n".join(lines))
    return path


def plot(tmp_path: Path, *options: Any) -> int:
    return main(["plot", "--output", str(tmp_path / "out.png"), *map(str, options)])


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *options: Any) -> str:
    before = sorted(tmp_path.iterdir())
    assert plot(tmp_path, *options) == 2
    assert sorted(tmp_path.iterdir()) == before
    return capsys.readouterr().err


def test_curves_come_from_the_intervals_without_missing_values(log: Path) -> None:
    training = read_training(log)
    assert training.name == "run"
    assert training.sigma_min == ([100.0, 200.0], [0.05, 0.3])
    assert training.train_loss is None
    assert (training.valid_loss, training.valid_bleu) == (([200.0], [3.0]), ([200.0], [12.5]))
    assert training.noise_losses == {0: ([100.0], [0.9]), 90: ([100.0, 200.0], [0.5, 0.4])}


def test_curves_come_from_epochs_where_no_interval_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "short.log"
    path.write_text(log_line("train", train_mse_noise_40="0.45", train_num_updates="7"))
    assert read_training(path).noise_losses == {40: ([7.0], [0.45])}
    assert read_training(path).sigma_min is None


def test_a_resumed_training_overwrites_what_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "resumed.log"
    lines = [inner(u, sigma_min=s) for u, s in ((100, "0.1"), (200, "0.9"), (300, "0.9"), (200, "0.2"), (300, "0.3"))]
    path.write_text("\n".join(lines))
    assert read_training(path).sigma_min == ([100.0, 200.0, 300.0], [0.1, 0.2, 0.3])


def test_trajectory_is_that_of_the_first_hypothesis(generate: Path) -> None:
    trajectory = read_trajectory(generate, "1")
    assert trajectory.source == "ein ha@@ us"
    assert trajectory.steps == {0: ["the", "$x^", "the"], 1: ["a", "hou@@", "se"]}


def test_special_tokens_between_words_keep_their_places(
    generate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a model with blanks writes them: fairseq's E- lines lack them, the file beside has them."""
    text = generate.read_text().replace("E-1_0\tthe $x^ the", "E-1_0\tthe the")
    generate.write_text(text)
    sentence = refusal(capsys, tmp_path, "--generate", generate, "--sentence", 1)
    assert "differ in length" in sentence and "--results-path DIR" in sentence
    rows = [["the", "<s>", "the"], ["a", "hou@@", "se"]]
    found = {"text": "", "score": -1, "calls": 2, "steps": [{"tokens": row, "p": [None] * 3} for row in rows]}
    record = {"id": 1, "source": "", "candidates": [found, {**found, "steps": []}]}
    generate.with_suffix(".history.jsonl").write_text(json.dumps(record))
    assert read_trajectory(generate, "1").steps == {0: rows[0], 1: rows[1]}


def test_figure_of_everything_is_a_png_1200_pixels_wide(tmp_path: Path, log: Path, generate: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot(tmp_path, "--log", log, log, "--generate", generate, "--sentence", 1) == 0
    png = (tmp_path / "out.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20], "big") == 1200
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_long_decoding_keeps_its_first_and_last_step() -> None:
    pytest.importorskip("matplotlib")
    from fairseq_diffusion.plotting.grid import MOST_ROWS, chosen_steps

    steps = chosen_steps(list(range(100)))
    assert len(set(steps)) == MOST_ROWS and (steps[0], steps[-1]) == (0, 99)
    assert chosen_steps([0, 1, 2]) == [0, 1, 2]


def test_positions_are_spread_evenly_over_blocks_that_fit() -> None:
    pytest.importorskip("matplotlib")
    from fairseq_diffusion.plotting.grid import LINE_CHARACTERS, even_blocks

    blocks = even_blocks([10] * (LINE_CHARACTERS // 10 + 2))
    assert [position for block in blocks for position in block] == list(range(LINE_CHARACTERS // 10 + 2))
    assert [len(block) for block in blocks] == [8, 8]
    assert even_blocks([]) == [{}]


def test_smoothing_averages_neighbours_and_invents_no_ends() -> None:
    pytest.importorskip("matplotlib")
    from fairseq_diffusion.plotting.curves import smoothed

    updates, values = smoothed(([1.0, 2.0, 3.0, 4.0], [0.0, 3.0, 6.0, 0.0]), 3)
    assert updates == pytest.approx([2.0, 3.0]) and values == pytest.approx([3.0, 3.0])
    assert smoothed(([1.0], [5.0]), 3) == ([1.0], [5.0])


def test_an_existing_output_needs_force(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "out.png").write_text("precious")
    assert "already exists" in refusal(capsys, tmp_path, "--log", log)
    assert (tmp_path / "out.png").read_text() == "precious"
    assert plot(tmp_path, "--log", log, "--force") == 0


def said_of(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["plot", *map(str, args)]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_plotted_is_said(
    tmp_path: Path, log: Path, generate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.log"
    other.write_text(inner(100, wps="3.0"))
    assert "one figure is drawn per call" in refusal(capsys, tmp_path)
    assert "one figure is drawn per call" in refusal(capsys, tmp_path, "--log", log, "--pareto", log)
    assert "one figure is drawn per call" in refusal(capsys, tmp_path, "--history", log, "--pareto", log)
    assert "--sentence belongs to" in refusal(capsys, tmp_path, "--log", log, "--sentence", 1)
    assert "belong together" in refusal(capsys, tmp_path, "--generate", generate)
    assert "belong together" in refusal(capsys, tmp_path, "--generate", generate, "--sentence", 1, 11)
    assert "cannot read" in refusal(capsys, tmp_path, "--log", tmp_path / "absent.log")
    assert "holds no JSON lines" in refusal(capsys, tmp_path, "--log", generate)
    assert "neither loss nor BLEU" in refusal(capsys, tmp_path, "--log", other)
    sentence = refusal(capsys, tmp_path, "--generate", generate, "--sentence", 2)
    assert "holds no sentence '2'" in sentence and "it has 2, among them 1, 11" in sentence
    assert "--retain-iter-history" in refusal(capsys, tmp_path, "--generate", generate, "--sentence", 11)
    assert "the figure is a PNG" in said_of(capsys, "--log", log, "--output", tmp_path / "out.pdf")
    assert "has no S- lines" in refusal(capsys, tmp_path, "--generate", log, "--sentence", 1)


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_bleu_against_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"name": "a, 5 steps", "sacrebleu": 20.5, "calls": 5}, {"name": "b", "sacrebleu": 30.0, "calls": None}]
    (tmp_path / "table.json").write_text(json.dumps({"rows": rows}))
    assert plot(tmp_path, "--pareto", tmp_path / "table.json") == 0
    assert is_png(tmp_path / "out.png") and "left out, without network calls" in (said := capsys.readouterr().out)
    assert "sacreBLEU: b\n" in said


def test_event_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.importorskip("tensorboardX").SummaryWriter(str(tmp_path / "tb" / "train")) as writer:
        writer.add_scalar("loss", 1.5, 10)
    assert plot(tmp_path, "--tensorboard", tmp_path / "tb") == 0
    assert is_png(tmp_path / "out.png")


def test_a_page_of_histories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = {"tokens": ["<s>", "a"], "p": [1.0, 0.5]}
    found = {"text": "a", "score": -0.1, "calls": 1, "steps": [step]}
    histories = [{"id": i, "source": f"source {i}", "candidates": [found]} for i in range(60)]
    file, page = tmp_path / "test.history.jsonl", tmp_path / "page.html"
    file.write_text("".join(map("{}\n".format, map(json.dumps, histories))))
    assert "name it something.html" in refusal(capsys, tmp_path, "--history", file)
    assert main(["plot", "--history", str(file), "--output", str(page)]) == 0
    assert "50 of 60 sentences of test.history.jsonl" in capsys.readouterr().out
    assert page.read_text().count("<article") == 50 and "50 of 60 sentences" in page.read_text()
    asked = ["plot", "--history", str(file), "--sentence", "59", "3", "--output", str(page)]
    assert main(asked) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*asked, "--force"]) == 0
    assert page.read_text().count("<article") == 2 and page.read_text().index("s-59") < page.read_text().index('"s-3"')


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("draw", "curves", "grid", "look", "pareto"):
        monkeypatch.delitem(sys.modules, f"fairseq_diffusion.plotting.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'fairseq-diffusion[plot]'" in refusal(capsys, tmp_path, "--log", log)
