"""What decoding options refuse, and how flags of ours, of fairseq's and of the model become options."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_diffusion.decoding.options import SelectionOptions, read_options
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions, check_prediction
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

TASK: dict[str, Any] = {
    "sampler": None,
    "grid": "sigma",
    "early_stop": None,
    "decode_noise_factor": None,
    "conditioning_sigma_start": None,
    "conditioning_sigma_end": 0.9,
    "final_time": 0.01,
    "eta": 0.5,
    "temperature": 0.8,
    "word_temperature": 0.7,
    "top_k": 9,
    "top_p": 0.9,
    "guidance": 2.0,
    "clamp": True,
    "length_beam": "offsets",
    "noise_beam": 3,
    "prune_after": "1,2",
    "stop_stable": 2,
    "oracle_length": False,
    "draft": None,
    "execution": "eager",
    "complete": False,
    "path_search": None,
    "passes": 2,
    "exit_block": None,
    "keep_schedule": "none",
    "lookahead_weight": 0.5,
    "vertex_tokens": 3,
    "drop_repeats": True,
    "blank_penalty": 0.25,
    "selection": "mbr:2,rescore",
    "mbr_utility": "chrf",
    "mbr_units": "words",
    "rescore_by": "energy",
    "likelihood_samples": 5,
    "candidate_positions": 512,
    "decode_seed": 7,
    "latents_steps": 3,
    "latents_guidance": 2.5,
}
GENERATION = {
    "iter_decode_max_iter": 4,
    "iter_decode_with_beam": 5,
    "nbest": 2,
    "retain_iter_history": True,
    "iter_decode_with_external_reranker": True,
    "beam": 8,
    "lenpen": 0.5,
}
MODEL = {
    "sampler": "ddpm",
    "grid": "respaced",
    "early_stop": 0.25,
    "length_beam": "top_k",
    "decode_noise_factor": 1.5,
    "passes": 1,
    "keep_schedule": "cosine",
    "path_search": "joint_viterbi",
}


def read(kind: type, task: dict[str, Any] = TASK, generation: dict[str, Any] = GENERATION) -> dict[str, Any]:
    return asdict(read_options(kind, SimpleNamespace(**task), SimpleNamespace(**generation), SimpleNamespace(**MODEL)))


CANDIDATES = {
    "complete": False,
    "drop_repeats": True,
    "length_beam": 5,
    "length_beam_kind": "offsets",
    "noise_beam": 3,
    "oracle_length": False,
    "draft": None,
    "latents_steps": 3,
    "latents_guidance": 2.5,
}


def test_options_of_diffusion():
    same = ("conditioning_sigma_start", "conditioning_sigma_end", "final_time", "eta", "temperature", "guidance")
    same += ("word_temperature", "top_k", "top_p", "clamp", "prune_after", "stop_stable", "execution")
    assert read(DiffusionOptions) == {
        **CANDIDATES,
        **{"steps": 4, "sampler": "ddpm", "grid": "sigma", "early_stop": 0.25, "decode_noise_factor": 1.5},
        **{name: TASK[name] for name in same},
    }


def test_options_of_one_pass():
    same = ("exit_block", "passes", "lookahead_weight", "vertex_tokens", "blank_penalty", "temperature")
    assert read(OnePassOptions) == {
        **CANDIDATES,
        **{"path_search": "joint_viterbi", "beam": 8, "length_penalty": 0.5, "keep_schedule": "none"},
        **{name: TASK[name] for name in same},
    }


def test_options_of_selection():
    same = ("selection", "mbr_utility", "mbr_units", "rescore_by", "likelihood_samples", "candidate_positions")
    assert read(SelectionOptions) == {
        **{name: TASK[name] for name in same},
        **{"rescore": True, "nbest": 2, "history": True, "seed": 7},
    }


def test_validation_has_no_generation_flags():
    options, selection = read(DiffusionOptions, generation={}), read(SelectionOptions, generation={})
    assert (options["steps"], options["length_beam"], selection["nbest"], selection["history"]) == (20, 1, 1, False)


def test_the_usual_choice_is_by_score_or_by_the_ar_model():
    assert SelectionOptions().chain == "score" and SelectionOptions(rescore=True).chain == "rescore"
    assert SelectionOptions("mbr", rescore=True).chain == "mbr"


def test_v_is_decoded_at_the_level_it_was_trained_on():
    with pytest.raises(UserError, match="--decode-noise-factor 4.0"):
        check_prediction("v", trained=4.0, factor=1.5)
    check_prediction("v", trained=4.0, factor=4.0)
    check_prediction("x_0", trained=4.0, factor=1.5)
    with pytest.raises(UserError, match="posterior. was trained under a noise factor of 4.0"):
        check_prediction("posterior", trained=4.0, factor=1.0)
    with pytest.raises(UserError, match="needs to know the sample's own noise"):
        check_prediction("posterior", trained=1.0, factor=1.0, conditioned=True)


def conditioning(sampler: str, start: float | None, end: float | None) -> tuple[float, float] | None:
    options = DiffusionOptions(sampler=sampler, conditioning_sigma_start=start, conditioning_sigma_end=end)
    return options.conditioning(SAMPLERS[sampler])


@pytest.mark.parametrize(
    "asked, sampler, expected",
    [
        ((None, None), "ddim", None),
        ((None, None), "cedi", (1.0, 0.99)),
        ((0.9, None), "cedi", (0.9, 0.99)),
        ((None, 0.5), "cedi", (1.0, 0.5)),
        ((0.0, 0.0), "cedi", (0.0, 0.0)),
        ((None, None), "fixed_t", (0.99, 0.99)),
        ((0.8, None), "fixed_t", (0.8, 0.8)),
        ((None, 0.7), "fixed_t", (0.7, 0.7)),
        ((0.9, 0.9), "fixed_t", (0.9, 0.9)),
    ],
)
def test_noise_to_condition_on_fills_up_the_samplers_own(asked, sampler, expected):
    assert conditioning(sampler, *asked) == expected


def test_noise_to_condition_on_is_for_samplers_that_set_it():
    with pytest.raises(UserError, match="--sampler cedi or fixed_t"):
        conditioning("ddpm", None, 0.5)


def test_one_level_is_given_by_one_flag():
    with pytest.raises(UserError, match="pass one of them"):
        conditioning("fixed_t", 0.9, 0.5)


@pytest.mark.parametrize(
    "share, steps, left_out", [(0.25, 20, 5), (0.25, 10, 2), (0.25, 5, 1), (0.3, 10, 3), (0.9, 1, 0)]
)
def test_early_stop_is_a_share(share, steps, left_out):
    assert DiffusionOptions(steps=steps, early_stop=share).left_out == left_out


@pytest.mark.parametrize("text, steps", [("", ()), ("5", (5,)), ("5, 10", (5, 10))])
def test_a_list_of_steps(text, steps):
    assert DiffusionOptions(noise_beam=2, prune_after=text).prune_steps == steps


@pytest.mark.parametrize(
    "kind, options, flag",
    [
        *((kind, {"length_beam": 0}, "--iter-decode-with-beam") for kind in (DiffusionOptions, OnePassOptions)),
        *((kind, {"noise_beam": 0}, "--noise-beam") for kind in (DiffusionOptions, OnePassOptions)),
        *((kind, {"oracle_length": True, "length_beam": 2}, "--oracle") for kind in (DiffusionOptions, OnePassOptions)),
        *((kind, {"draft": 0.0}, "--draft is 0.0") for kind in (DiffusionOptions, OnePassOptions)),
        *((kind, {"draft": 1.1}, "--draft is 1.1") for kind in (DiffusionOptions, OnePassOptions)),
        (DiffusionOptions, {"draft": 0.5, "length_beam": 2}, "--draft begins with one translation"),
        (OnePassOptions, {"draft": 0.5, "oracle_length": True}, "--draft begins with one translation"),
        (DiffusionOptions, {"decode_noise_factor": 0.0}, "--decode-noise-factor is 0"),
        (DiffusionOptions, {"stop_stable": -1}, "--stop-stable is -1"),
        (DiffusionOptions, {"prune_after": "soon", "noise_beam": 2}, "--prune-after 'soon'"),
        (DiffusionOptions, {"prune_after": "20", "noise_beam": 2}, "steps 1 to 19 of the 20"),
        (DiffusionOptions, {"prune_after": "3"}, "there is only one"),
        (DiffusionOptions, {"early_stop": 1.0}, "--early-stop is 1"),
        (DiffusionOptions, {"early_stop": -0.1}, "--early-stop is -0.1"),
        (DiffusionOptions, {"prune_after": "15", "early_stop": 0.25, "noise_beam": 2}, "steps 1 to 14 of the 15"),
        (OnePassOptions, {"passes": 0}, "--passes is 0"),
        (OnePassOptions, {"vertex_tokens": 0}, "--vertex-tokens is 0"),
        (OnePassOptions, {"beam": 0}, "--beam is 0"),
        (OnePassOptions, {"temperature": 0.0}, "--temperature is 0"),
        (SelectionOptions, {"candidate_positions": 0}, "--candidate-positions is 0"),
    ],
)
def test_senseless_options(kind, options, flag):
    with pytest.raises(UserError, match=flag):
        kind(**options)
