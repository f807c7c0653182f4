"""The benchmarks of what surrounds the network, of kernels, of scale, and of steps."""

from __future__ import annotations

import json
import runpy
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from commands import ROOT
from support import call, lines, training
from test_benchmarks import ABOUT, beside, run  # noqa: F401  the second is a fixture

OWN_LOSS = hasattr(torch.nn, "LinearCrossEntropyOptions")  # this torch has a chunked loss, which is timed too
TABLE = {  # flags beside --quick, and rows
    "post": ("--candidates 2 4 --sentences 1 --batch 3", 6),
    "kernels": ("--vocabularies 70 --dims 8 16 --tokens 8", 27 if OWN_LOSS else 25),
    "scale": ("--arch dinoiser_toy", 10),
}
VERSUS = {"ms", "iqr_ms", "baseline_ms", "ratio", "repeats"}


@pytest.fixture(scope="module")
def record(beside, tmp_path_factory):  # noqa: F811
    """What each benchmark writes; it runs when it is first asked for."""
    folder, found = tmp_path_factory.mktemp("records"), {}

    def of(name: str) -> dict:
        if name not in found:
            found[name] = run(name, folder / f"{name}.json", TABLE[name][0])
        return found[name]

    return of


def refusal(name: str, folder: Path) -> str:
    """What a benchmark ends with instead of a table."""
    arguments = [f"{name}.py", "--quick", "--output", str(folder / "none.json")]
    with patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "benchmarks" / arguments[0]), run_name="__main__")
    assert not list(folder.iterdir())
    return str(end.value)


@pytest.mark.parametrize("name", TABLE)
def test_a_benchmark_says_what_it_measured_and_on_what(record, name):
    written = record(name)
    assert set(written) >= ABOUT and written["device"] == "cpu"
    assert len(written["rows"]) == TABLE[name][1]
    assert all(row["ms"] > 0 and row["iqr_ms"] >= 0 and row["repeats"] == 2 for row in written["rows"])


@pytest.mark.parametrize("name", ["post", "kernels"])
def test_ratios_are_of_medians(record, name):
    for row in record(name)["rows"]:
        assert set(row) >= VERSUS and row["ratio"] == pytest.approx(row["baseline_ms"] / row["ms"])


# -- post -----------------------------------------------------------------------------------------------------------


def test_merits_are_held_against_sacrebleus_before_they_are_timed(record, tmp_path):
    from fairseq_diffusion.decoding import mbr, selection

    merits = [row for row in record("post")["rows"] if row["what"].startswith("BLEU-MBR")]
    assert len(merits) == 2 and all(0 < row["difference"] < 1e-9 for row in merits)
    wrong = {"bleu": lambda sequences: mbr.bleu(sequences) + 1e-6}
    with patch.dict(selection.UTILITIES, wrong):
        assert refusal("post", tmp_path) == "not timed: utilities differ by 1.0e-06, and may by 1e-09"


def test_hypotheses_that_are_not_fairseqs_are_not_timed(beside):  # noqa: F811
    import post

    one, other = ([{"tokens": torch.tensor(tokens), "score": -0.5}] for tokens in ([4, 2], [5, 2]))
    assert post.compared(one, one) == 0 and post.compared(one, other) == float("inf")
    lower = [{**one[0], "score": torch.tensor(-0.75)}]
    assert post.compared(one, lower) == 0.25


# -- kernels --------------------------------------------------------------------------------------------------------


def test_forms_of_a_kernel_share_their_first_as_baseline(record):
    written = record("kernels")
    copy = float(written["copy"].split()[0])
    for row in written["rows"]:
        like = {key: row[key] for key in ("what", "D") if key in row}
        first = next(other for other in written["rows"] if like.items() <= other.items())
        assert row["baseline_ms"] == first["ms"]
        if "gb_per_second" in row:
            assert row["of_copy"] == pytest.approx(row["gb_per_second"] / copy, rel=0.1)  # printed with a decimal
    rounding, _ = (row for row in written["rows"] if row["what"] == "rounding" and row["form"] == "portable")
    N, V, D = (rounding[name] for name in "NVD")
    assert rounding["gb_per_second"] * rounding["ms"] * 1e6 == pytest.approx(4 * (2 * N * V + (N + V) * D))
    assert rounding["ns_per_token"] == pytest.approx(1e6 * rounding["ms"] / N)


def test_forms_that_this_machine_lacks_are_left_out_with_a_notice(record, tmp_path):
    notices = " ".join(record("kernels")["notices"])
    assert "no rows of Triton's kernels: " in notices and "no rows of apex: it " in notices
    forms = {row["form"] for row in record("kernels")["rows"]}
    assert forms == {
        *(["torch, chunked"] if OWN_LOSS else []),
        *("torch", "portable", "all tokens", "each word once", "all distances", "chunked"),
        *("loop", "ours", "fairseq's loop", "torch, fused"),
    }


@pytest.mark.parametrize(
    ("kernel", "wrong", "message"),
    [
        ("rounding.best_rows", lambda x, table: torch.zeros(len(x)).long(), "words"),
        ("rounding.round_to_rows", lambda x, table: ((x @ table.T).argmax(-1), -torch.ones(len(x))), "log-prob"),
        ("log_probs.linear_cross_entropy", lambda x, table, *_: (x @ table.T).sum(-1), "gradients"),
        ("ctc.ctc_log_likelihood", lambda x, *_: (x.sum((1, 2)), None), "CTC"),
    ],
)
def test_a_kernel_that_says_something_else_is_not_timed(tmp_path, kernel, wrong, message):
    with patch(f"fairseq_diffusion.kernels.{kernel}", wrong), patch.dict(sys.modules):
        sys.modules.pop("alignments", None)  # to be imported anew, as the script is
        assert refusal("kernels", tmp_path).startswith(f"not timed: {message}")


def test_a_smoothed_loss_can_be_had_of_torchs_own(beside):  # noqa: F811
    import torch.nn.functional as F

    if not OWN_LOSS:
        pytest.skip("this torch has no linear_cross_entropy")
    import kernels

    x, table, words = kernels.drawn(30, 11, 4, "cpu")
    truth = F.cross_entropy(x @ table.T, words, reduction="sum", label_smoothing=kernels.SMOOTHING)
    assert kernels.torchs_chunked(x, table, words).item() == pytest.approx(truth.item(), rel=1e-5)


# -- scale ----------------------------------------------------------------------------------------------------------


def test_parts_of_a_decoding_are_timed_and_left_as_they_were(beside):  # noqa: F811
    import scale

    point = {"words": 3, "sentences": 2, "candidates": 2, "steps": 4, "dictionary": 60}
    decoder = scale.Decoder(scale.model_of("difformer_toy", 60, "cpu"), point, "cpu")
    spent = decoder()
    assert all(spent[part] > 0 for part in ("encoder", "loop", "rounding"))
    assert spent["encoder"] + spent["loop"] + spent["rounding"] < spent["whole"]
    assert not any(name in vars(owner) for owner, name in decoder.parts.values())
    assert decoder.generator.describe()["calls"] == 4


def test_an_axis_has_its_line_and_its_share_of_work(record):
    written = record("scale")
    rows = [row for row in written["rows"] if row["axis"] == "steps"]
    point = {**written["start"]}
    for row in rows:
        work = row["value"] * point["candidates"] * point["sentences"] * point["words"]
        assert row["us"] == pytest.approx(1000 * row["loop_ms"] / work)
        line = row["slope_ms"] * row["value"] + row["constant_ms"]
        assert row["fit"] == pytest.approx(line / row["ms"] - 1)
    flat = max(row["us"] for row in rows) / min(row["us"] for row in rows)
    assert written["constant"][0] == {"what": "us, over the steps", "measured": pytest.approx(flat)}


# -- steps ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory, trains) -> Path:
    """A run such as the demo leaves, of both diffusion systems, hardly trained."""
    from fairseq_diffusion.toy.corpus import write_corpus
    from fairseq_diffusion.toy.language import Language

    folder = tmp_path_factory.mktemp("runs") / "demo"
    write_corpus(folder / "corpus", Language(1, 4, 3, 2, 2, 0.5), 24, 4, 5, False)
    splits = [f"--{split}pref={folder / 'corpus' / split}" for split in ("train", "valid", "test")]
    call("preprocess", "-s", "xx", "-t", "yy", *splits, "--destdir", folder / "data-bin")
    for system in ("dinoiser", "difformer"):
        flags = "--max-update 1 --no-epoch-checkpoints --disable-validation"
        call("train", *training(folder / "data-bin", folder / "checkpoints" / system, flags, f"{system}_toy"))
    recipe = {"size": 24, "test_size": 5, "seed": 1, "systems": {name: {} for name in ("DINOISER", "Difformer")}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def decodings(demo, record, tmp_path_factory) -> dict:  # noqa: F811
    """With a student of two steps, which here is its teacher."""
    students = tmp_path_factory.mktemp("progressive")
    student = students / "checkpoints/dinoiser-student-of-2/checkpoint_last.pt"
    student.parent.mkdir(parents=True)
    shutil.copy(demo / "checkpoints/dinoiser/checkpoint_last.pt", student)
    return run(
        "steps", tmp_path_factory.mktemp("steps") / "steps.json", f"--run {demo} --steps 2,4 --students {students}"
    )


def test_calls_and_quality_are_told_against_the_baseline(decodings):
    rows = decodings["rows"]
    solvers, early_exit = rows[: 2 * 7 + 1], rows[2 * 7 + 1 :]
    assert early_exit and not decodings["notices"]
    for table, own in ((solvers, {"DINOISER": "cedi", "Difformer": "ddpm"}), (early_exit, {})):
        for row in table:
            how = own.get(row["system"], "all steps")
            (base,) = (b for b in table if (b["system"], b["how"], b["steps"]) == (row["system"], how, 4))
            assert row["saved"] == pytest.approx(1 - row["calls"] / base["calls"])
            assert row["change"] == pytest.approx(row["bleu"] - base["bleu"])
            assert row["ratio"] == pytest.approx(base["seconds"] / row["seconds"])
    calls = {row["how"]: row["calls"] for row in early_exit if row["system"] == "DINOISER"}
    assert calls["all steps"] == 4 and calls["--prune-after 1,2"] == 1 + 0.5 + 0.25 * 2
    (student,) = (row for row in solvers if row["how"] == "student")
    assert student["steps"] == student["calls"] == 2


def test_texts_are_those_of_fairseq_generate(demo, beside):  # noqa: F811
    import steps

    job = steps.chain.Job("Difformer", "ddim", "--sampler ddim --noise-beam 3 --selection mbr", 4)
    decoder = steps.Decoder(demo, 1, SimpleNamespace(device="cpu", repeats=1))
    cfg = steps.configuration(f"{job.arguments(demo)} {decoder.usual}")
    task, models, batches = decoder.load(cfg)
    task.cfg, texts = cfg.task, {}
    steps.decode(task, task.build_generator(models, cfg.generation), models, batches, texts)
    flags = f"{job.arguments(demo)} --user-dir {ROOT / 'fairseq_diffusion'} {decoder.usual} --remove-bpe --cpu"
    printed = lines(call("generate", *shlex.split(flags)), "D")
    assert texts == {int(i): found[0][1] for i, found in printed.items()} and len(set(texts.values())) > 1


def test_without_a_run_it_says_how_little_was_learnt(demo, decodings, tmp_path, beside, monkeypatch, capsys):  # noqa: F811
    import steps

    made: dict = {}
    monkeypatch.setattr(steps.chain, "build", lambda recipe: made.update(asdict(recipe)))
    monkeypatch.setattr(steps.chain, "recipe_of", lambda run: steps.Recipe(**made))
    monkeypatch.setattr(steps, "measured", lambda run, recipe, options: decodings["rows"])
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "steps.json"
    with patch.object(sys, "argv", ["steps.py", "--quick", "--output", str(output)]):
        assert steps.main() == 0
    (notice,) = json.loads(output.read_text())["notices"]
    assert "trained for 1 updates only" in notice and notice in capsys.readouterr().out
    assert {system["updates"] for system in made["systems"].values()} == {1}


def test_what_is_no_run_and_holds_no_students_is_refused(demo, tmp_path, beside, capsys):  # noqa: F811
    import steps

    for flags, message in (
        (f"--run {tmp_path}", "is no complete run of `make demo-full`"),
        (f"--run {demo} --students {tmp_path}", "holds no student"),
    ):
        with patch.object(sys, "argv", ["steps.py", *flags.split()]):
            assert steps.main() == 1
        assert message in capsys.readouterr().err
