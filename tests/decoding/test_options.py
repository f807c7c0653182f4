"""What decoding options refuse, and how flags of ours and fairseq's become one."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from fairseq_diffusion.decoding.options import STEPS, DecodeOptions, parse_steps
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.samplers.gaussian import SAMPLERS

TASK = SimpleNamespace(
    sampler=None,
    grid="sigma",
    early_stop=None,
    decode_noise_factor=None,
    told_start=None,
    told_end=0.9,
    final_time=0.01,
    eta=0.5,
    temperature=0.8,
    guidance=2.0,
    clamp=True,
    length_beam="offsets",
    noise_beam=3,
    prune_after="1,2",
    stop_stable=2,
    selection="mbr:2,rescore",
    mbr_utility="chrf",
    mbr_units="words",
    oracle_length=False,
    candidate_positions=512,
    execution="eager",
    decode_seed=7,
)
MODEL = SimpleNamespace(
    sampler="ddpm",
    grid="respaced",
    early_stop=0.25,
    length_beam="top_k",
    decode_noise_factor=1.5,
    noise_factor=4.0,
    prediction="x_0",
)


def test_flags_of_task_generation_and_model():
    generation = SimpleNamespace(
        iter_decode_max_iter=4,
        iter_decode_with_beam=5,
        nbest=2,
        retain_iter_history=True,
        iter_decode_with_external_reranker=True,
    )
    expected = {
        "steps": 4,
        "sampler": "ddpm",
        "grid": "sigma",
        "early_stop": 0.25,
        "decode_noise_factor": 1.5,
        "told": (None, 0.9),
        "final_time": 0.01,
        "eta": 0.5,
        "temperature": 0.8,
        "guidance": 2.0,
        "clamp": True,
        "length_beam": 5,
        "length_beam_kind": "offsets",
        "noise_beam": 3,
        "prune_after": (1, 2),
        "stop_stable": 2,
        "selection": "mbr:2,rescore",
        "mbr_utility": "chrf",
        "mbr_units": "words",
        "rescore": True,
        "nbest": 2,
        "oracle_length": False,
        "history": True,
        "candidate_positions": 512,
        "execution": "eager",
        "seed": 7,
    }
    assert asdict(DecodeOptions.from_flags(TASK, generation, MODEL)) == expected


def test_v_is_decoded_at_the_level_it_was_trained_on():
    with pytest.raises(UserError, match="--decode-noise-factor 4.0"):
        DecodeOptions.from_flags(TASK, None, SimpleNamespace(**{**vars(MODEL), "prediction": "v"}))
    same = SimpleNamespace(**{**vars(MODEL), "prediction": "v", "decode_noise_factor": 4.0})
    assert DecodeOptions.from_flags(TASK, None, same).decode_noise_factor == 4.0


def test_validation_has_no_generation_flags():
    options = DecodeOptions.from_flags(TASK, None, MODEL)
    assert (options.steps, options.length_beam, options.nbest, options.history) == (STEPS, 1, 1, False)


@pytest.mark.parametrize(
    "asked, sampler, told",
    [
        ((None, None), "ddim", None),
        ((None, None), "cedi", (1.0, 0.99)),
        ((0.9, None), "cedi", (0.9, 0.99)),
        ((None, 0.5), "cedi", (1.0, 0.5)),
        ((0.0, 0.0), "cedi", (0.0, 0.0)),
        ((None, None), "fixed_t", (0.99, 0.99)),
        ((0.8, None), "fixed_t", (0.8, 0.8)),
        ((None, 0.7), "fixed_t", (0.7, 0.7)),
    ],
)
def test_told_noise_fills_up_the_samplers_own(asked, sampler, told):
    assert DecodeOptions(told=asked, sampler=sampler).resolve_told(SAMPLERS[sampler]) == told


def test_told_noise_is_for_samplers_that_tell():
    with pytest.raises(UserError, match="--sampler cedi or fixed_t"):
        DecodeOptions(told=(None, 0.5), sampler="ddpm").resolve_told(SAMPLERS["ddpm"])


def test_one_level_is_told_by_one_flag():
    with pytest.raises(UserError, match="pass one of them"):
        DecodeOptions(told=(0.9, 0.5), sampler="fixed_t").resolve_told(SAMPLERS["fixed_t"])
    assert DecodeOptions(told=(0.9, 0.9), sampler="fixed_t").resolve_told(SAMPLERS["fixed_t"]) == (0.9, 0.9)


@pytest.mark.parametrize(
    "share, steps, left_out", [(0.25, 20, 5), (0.25, 10, 2), (0.25, 5, 1), (0.3, 10, 3), (0.9, 1, 0)]
)
def test_early_stop_is_a_share(share, steps, left_out):
    assert DecodeOptions(steps=steps, early_stop=share).left_out == left_out


def test_a_list_of_steps():
    assert parse_steps("") == () and parse_steps("5") == (5,) and parse_steps("5, 10") == (5, 10)
    with pytest.raises(UserError, match="--prune-after 'soon'"):
        parse_steps("soon")


@pytest.mark.parametrize(
    "options, flag",
    [
        ({"length_beam": 0}, "--iter-decode-with-beam"),
        ({"noise_beam": 0}, "--noise-beam"),
        ({"oracle_length": True, "length_beam": 2}, "--oracle-length"),
        ({"decode_noise_factor": 0.0}, "--decode-noise-factor is 0"),
        ({"stop_stable": -1}, "--stop-stable is -1"),
        ({"prune_after": (20,), "noise_beam": 2}, "steps 1 to 19 of the 20"),
        ({"prune_after": (3,)}, "there is only one"),
        ({"early_stop": 1.0}, "--early-stop is 1"),
        ({"early_stop": -0.1}, "--early-stop is -0.1"),
        ({"prune_after": (15,), "early_stop": 0.25, "noise_beam": 2}, "steps 1 to 14 of the 15"),
    ],
)
def test_senseless_options(options, flag):
    with pytest.raises(UserError, match=flag):
        DecodeOptions(**options)
