"""Samplers, grids and their dials by the flags of fairseq-generate."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from conftest import SIZES
from runs import reported
from support import call, generate, hypotheses, lines, same_hypotheses, training

from fairseq_diffusion.samplers.gaussian import SAMPLERS
from fairseq_diffusion.samplers.grid import GRIDS

DISCRETE = (  # everything that decoding takes from the model
    "--diffusion-steps 50 --grid respaced --schedule sqrt_offset --schedule-modifier factor --noise-factor 4 "
    "--early-stop 0.2 --decode-noise-factor 1 --sampler ddpm"
)
ITS_OWN = "--grid respaced --early-stop 0.2 --decode-noise-factor 1 --sampler ddpm"
FIVE = "--iter-decode-max-iter 5 --noise-beam 2 --nbest 2"


def trained_with(data: Path, folder: Path, flags: str) -> Path:
    call("train", *training(data, folder, f"{flags} --max-update 40 --lr 1e-2 --no-epoch-checkpoints"))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def discrete(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_with(data, tmp_path_factory.mktemp("discrete"), DISCRETE)


@pytest.fixture(scope="module")
def curved(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In continuous time, where every grid has room; its sigma is not its time."""
    return trained_with(data, tmp_path_factory.mktemp("curved"), "--schedule sqrt_offset")


@pytest.fixture(scope="module")
def guided(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_with(data, tmp_path_factory.mktemp("guided"), "--source-drop 0.3")


def calls(output: str) -> set[str]:
    """What --print-step says of the hypotheses."""
    return {fields[0] for found in lines(output, "I").values() for fields in found}


def history(output: str) -> dict[str, list[list[str]]]:
    """Texts of every hypothesis by ``sentence_step``."""
    return lines(output, "E")


# -- every pair


def test_every_sampler_decodes_on_every_grid(data: Path, curved: Path):
    scores = {}
    for sampler in (name for name in SAMPLERS if SAMPLERS[name].family == "gaussian"):
        for grid in GRIDS:
            found = hypotheses(generate(data, curved, f"--iter-decode-max-iter 5 --sampler {sampler} --grid {grid}"))
            assert set(found) == {str(i) for i in range(SIZES["test"])}
            scores[sampler, grid] = [score for listed in found.values() for _, score in listed]
    assert len(scores) == 5 * len(GRIDS) == 30
    same = [pair for pair in combinations(scores, 2) if scores[pair[0]] == scores[pair[1]]]
    assert not same


def test_no_fresh_noise_makes_ddpm_ddim(data: Path, checkpoint: Path):
    ddim, ddpm, still = (
        generate(data, checkpoint, f"{FIVE} {flags}")
        for flags in ("--sampler ddim", "--sampler ddpm", "--sampler ddpm --eta 0")
    )
    assert same_hypotheses(still, ddim, 1e-9) and not same_hypotheses(ddpm, ddim)
    full = generate(data, checkpoint, f"{FIVE} --sampler ddim --eta 1")
    assert same_hypotheses(full, ddpm, 1e-9)
    assert not same_hypotheses(generate(data, checkpoint, f"{FIVE} --sampler ddim --eta 0.5"), full)


# -- dials


@pytest.mark.parametrize("flags", ["--decode-noise-factor 2", "--temperature 0.5", "--clamp", "--final-time 0.2"])
def test_a_dial_changes_the_output(data: Path, checkpoint: Path, flags: str):
    plain = generate(data, checkpoint, f"{FIVE} --sampler ddim")
    assert not same_hypotheses(generate(data, checkpoint, f"{FIVE} --sampler ddim {flags}"), plain)


def test_a_dial_at_rest_changes_nothing(data: Path, checkpoint: Path):
    rest = "--decode-noise-factor 1 --temperature 1 --guidance 1 --early-stop 0 --final-time 0.001 --stop-stable 0"
    assert same_hypotheses(generate(data, checkpoint, f"{FIVE} {rest}"), generate(data, checkpoint, FIVE), 1e-12)


@pytest.mark.parametrize("sampler, left_out", [("ddpm", 1), ("cedi", 3), ("dpmpp_2m", 2)])
def test_early_stop_is_the_beginning_of_the_whole_run(
    data: Path, checkpoint: Path, tmp_path: Path, sampler: str, left_out: int
):
    """Fewer calls on the same grid, not a coarser grid; so what it says is what the whole run says at that step."""
    flags = f"--sampler {sampler} --retain-iter-history --print-step --iter-decode-max-iter 5"
    whole = generate(data, checkpoint, flags)
    output, report = reported(data, checkpoint, tmp_path, f"{flags} --early-stop {left_out / 5}")
    assert calls(whole) == {"5"} and calls(output) == {str(5 - left_out)}
    decoding = report["decoding"]
    assert (decoding["steps"], decoding["steps_left_out"], decoding["calls"]) == (5, left_out, 5 - left_out)
    begun = history(output)
    assert len(begun) == SIZES["test"] * (5 - left_out)
    assert begun == {step: shown for step, shown in history(whole).items() if step in begun}


# -- guidance


def test_guidance_asks_the_network_twice(data: Path, guided: Path, tmp_path: Path):
    plain = generate(data, guided, f"{FIVE} --print-step")
    assert same_hypotheses(generate(data, guided, f"{FIVE} --print-step --guidance 1"), plain, 1e-12)
    output, report = reported(data, guided, tmp_path, f"{FIVE} --print-step --guidance 2")
    assert calls(plain) == {"5"} and calls(output) == {"10"}
    assert report["decoding"]["calls"] == 10 and report["decoding"]["guidance"] == 2
    assert not same_hypotheses(output, plain)


# -- what the model says, and what the task says instead


def test_a_model_decodes_as_it_was_trained_to(data: Path, discrete: Path, tmp_path: Path):
    output, report = reported(data, discrete, tmp_path, f"{FIVE} --print-step")
    said = report["decoding"]
    found = {key: said[key] for key in ("sampler", "grid", "steps_left_out", "decode_noise_factor", "calls", "eta")}
    assert found == {
        **{"sampler": "ddpm", "grid": "respaced", "steps_left_out": 1},
        **{"decode_noise_factor": 1.0, "calls": 4, "eta": 1.0},
    }
    assert calls(output) == {"4"}
    assert same_hypotheses(generate(data, discrete, f"{FIVE} {ITS_OWN}"), output, 1e-12)


@pytest.mark.parametrize(
    "flag, value",
    [("--sampler ddim", "ddim"), ("--grid time", "time"), ("--early-stop 0", 0), ("--decode-noise-factor 4", 4.0)],
)
def test_a_flag_of_the_task_wins(data: Path, discrete: Path, tmp_path: Path, flag: str, value: object):
    key = flag.split()[0].strip("-").replace("-", "_").replace("early_stop", "steps_left_out")
    output, report = reported(data, discrete, tmp_path, f"{FIVE} {flag}")
    assert report["decoding"][key] == value
    assert not same_hypotheses(output, generate(data, discrete, FIVE))


def test_a_model_of_few_steps_is_not_asked_for_more(data: Path, discrete: Path):
    """As many as it has are the most."""
    assert len(hypotheses(generate(data, discrete, "--iter-decode-max-iter 50"))) == SIZES["test"]
