"""What decoding options refuse, and how flags of ours and fairseq's become one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fairseq_diffusion.decoding.options import STEPS, DecodeOptions
from fairseq_diffusion.errors import UserError

TASK = SimpleNamespace(
    sampler=None,
    told_start=None,
    told_end=0.9,
    final_time=0.01,
    length_beam="offsets",
    noise_beam=3,
    selection="mbr",
    oracle_length=False,
    decode_seed=7,
)


def test_flags_of_task_and_generation():
    generation = SimpleNamespace(iter_decode_max_iter=4, iter_decode_with_beam=5, nbest=2, retain_iter_history=True)
    options = DecodeOptions.from_flags(TASK, generation)
    expected = DecodeOptions(4, None, (None, 0.9), 0.01, 5, "offsets", 3, "mbr", 2, False, True, 7)
    assert options == expected


def test_validation_has_no_generation_flags():
    options = DecodeOptions.from_flags(TASK, None)
    assert (options.steps, options.length_beam, options.nbest, options.history) == (STEPS, 1, 1, False)


@pytest.mark.parametrize(
    "asked, sampler, told",
    [
        ((None, None), "ddim", None),
        ((None, None), "cedi", (1.0, 0.99)),
        ((0.9, None), "cedi", (0.9, 0.99)),
        ((None, 0.5), "cedi", (1.0, 0.5)),
        ((0.0, 0.0), "cedi", (0.0, 0.0)),
    ],
)
def test_told_noise_fills_up_the_samplers_own(asked, sampler, told):
    assert DecodeOptions(told=asked).resolve_told(sampler) == told


def test_told_noise_is_for_samplers_that_tell():
    with pytest.raises(UserError, match="--sampler cedi"):
        DecodeOptions(told=(None, 0.5)).resolve_told("ddpm")


@pytest.mark.parametrize(
    "options, flag",
    [
        ({"length_beam": 0}, "--iter-decode-with-beam"),
        ({"noise_beam": 0}, "--noise-beam"),
        ({"oracle_length": True, "length_beam": 2}, "--oracle-length"),
    ],
)
def test_senseless_options(options, flag):
    with pytest.raises(UserError, match=flag):
        DecodeOptions(**options)
