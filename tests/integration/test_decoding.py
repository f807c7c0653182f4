"""fairseq-generate and fairseq-interactive: what changes the output, and what must not."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from commands import ENVIRONMENT
from conftest import BEAM, SIZES
from support import USER_DIR, call, generate, hypotheses, lines, process, read, same_hypotheses

import fairseq_diffusion
from fairseq_diffusion.cli.main import main
from fairseq_diffusion.decoding.buckets import Buckets
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.translators.batch import Lengths
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder


def interactive(data: Path, checkpoint: Path, source: Path, flags: str) -> str:
    usual = f"-s a -t b --remove-bpe --iter-decode-max-iter 3 --cpu --input {source} {flags}"
    return call("interactive", data, *USER_DIR, "--path", checkpoint, *usual.split())


# -- what must not change the output


def test_every_sentence_comes_out(plain_output: str):
    assert set(hypotheses(plain_output)) == {str(i) for i in range(SIZES["test"])}


@pytest.mark.parametrize("batching", ["--batch-size 1", "--batch-size 3", "--max-tokens 40"])
def test_batching_does_not_change_the_output(data: Path, checkpoint: Path, plain_output: str, batching: str):
    assert same_hypotheses(generate(data, checkpoint, f"{BEAM} {batching}"), plain_output)


def test_stochastic_sampler_does_not_see_the_batch(data: Path, checkpoint: Path):
    one, other = (generate(data, checkpoint, f"{BEAM} --sampler ddpm --batch-size {size}") for size in (8, 3))
    assert same_hypotheses(one, other)


def test_side_of_padding_does_not_change_the_output(data: Path, checkpoint: Path, plain_output: str):
    assert same_hypotheses(generate(data, checkpoint, f"{BEAM} --left-pad-source"), plain_output)


def test_torchs_random_state_does_not_change_the_output(data: Path, checkpoint: Path, plain_output: str):
    torch.manual_seed(7)
    assert same_hypotheses(generate(data, checkpoint, BEAM), plain_output, 1e-12)


@pytest.mark.parametrize("buffering", ["--buffer-size 1", "--buffer-size 100 --batch-size 4"])
def test_interactive_equals_generate(data: Path, corpus: Path, checkpoint: Path, plain_output: str, buffering: str):
    output = interactive(data, checkpoint, corpus / "test.a", f"{BEAM} {buffering}")
    assert same_hypotheses(output, plain_output)


# -- what must


def test_another_seed_gives_another_output(data: Path, checkpoint: Path, plain_output: str):
    assert not same_hypotheses(generate(data, checkpoint, f"{BEAM} --seed 2"), plain_output)


def test_samplers_and_their_grids_differ(data: Path, checkpoint: Path):
    flags = ["--sampler ddim", "--sampler ddpm", "--sampler cedi", "--conditioning-sigma-end 0.8"]
    flags += ["--conditioning-sigma-start 0.9 --conditioning-sigma-end 0.9", "--final-time 0.3"]
    flags += ["--iter-decode-max-iter 4"]
    outputs = [generate(data, checkpoint, flag) for flag in flags]
    scores = [tuple(score for found in hypotheses(output).values() for _, score in found) for output in outputs]
    assert len(set(scores)) == len(flags)


def test_the_system_names_the_sampler(data: Path, checkpoint: Path):
    assert same_hypotheses(generate(data, checkpoint), generate(data, checkpoint, "--sampler cedi"), 1e-9)


@pytest.mark.parametrize("selection", ["score", "joint", "mbr", "mbr_two_level"])
@pytest.mark.parametrize("lengths", ["top_k", "offsets"])
def test_nbest_lists_different_candidates_in_order(data: Path, checkpoint: Path, selection: str, lengths: str):
    flags = f"--iter-decode-with-beam 3 --noise-beam 2 --nbest 6 --selection {selection} --length-beam {lengths}"
    for found in hypotheses(generate(data, checkpoint, flags)).values():
        texts = [text for text, _ in found]
        assert 1 <= len(found) <= 6 and len(set(texts)) == len(texts)
        if selection == "score":
            assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_score_is_the_mean_log_probability(plain_output: str):
    """In base 2, as fairseq prints it; over all positions, so over more than the words that are left."""
    for scored, positions in zip(hypotheses(plain_output).values(), lines(plain_output, "P").values()):
        for (_, score), (listed,) in zip(scored, positions):
            log_p = [float(value) for value in listed.split()]
            assert score == pytest.approx(sum(log_p) / len(log_p), abs=1e-3)


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """The lengths that were tried for each sentence since the test began or cleared them."""
    tried: dict[int, list[int]] = {}
    generate = Generator.generate

    def watched(self: Generator, models: Any, batch: Any, **more: Any) -> Any:
        def cut_up(source: Any, lengths: Lengths, *rest: Any) -> Buckets:
            tried.update(zip(batch["id"].tolist(), lengths.positions.tolist()))
            return Buckets(source, lengths, *rest)

        with patch("fairseq_diffusion.decoding.generator.Buckets", cut_up):
            return generate(self, models, batch, **more)

    monkeypatch.setattr(Generator, "generate", watched)
    return tried


def test_offsets_surround_the_likeliest_length(data: Path, checkpoint: Path, lengths: dict[int, list[int]]):
    generate(data, checkpoint, "--iter-decode-with-beam 1")
    likeliest = dict(lengths)
    generate(data, checkpoint, "--iter-decode-with-beam 3 --length-beam offsets")
    assert len(likeliest) == SIZES["test"]
    for i, (best,) in likeliest.items():
        assert set(lengths[i]) == ({best - 1, best, best + 1} if best > 2 else {2, 3, 4})


def test_oracle_takes_the_length_of_the_reference(
    data: Path, corpus: Path, checkpoint: Path, lengths: dict[int, list[int]]
):
    assert len(hypotheses(generate(data, checkpoint, "--oracle-length --noise-beam 2"))) == SIZES["test"]
    references = (corpus / "test.b").read_text().splitlines()
    assert lengths == {i: [len(line.split()) + 2] for i, line in enumerate(references)}  # with <s> and </s>


def test_steps_are_network_calls_and_history_has_them_all(data: Path, checkpoint: Path, monkeypatch):
    calls = []
    decode = DiffusionDecoder.__call__

    def counted(self: DiffusionDecoder, *given: Any) -> Any:
        hook = self.translator.denoiser.register_forward_hook(lambda *_: calls.append(1))
        try:
            return decode(self, *given)
        finally:
            hook.remove()

    monkeypatch.setattr(DiffusionDecoder, "__call__", counted)
    flags = "--iter-decode-max-iter 5 --print-step --retain-iter-history --batch-size 100 --nbest 2 --noise-beam 2"
    flags += " --candidate-positions 100000"
    output = generate(data, checkpoint, flags)
    assert len(calls) == 5
    assert {fields[0] for found in lines(output, "I").values() for fields in found} == {"5"}
    assert set(lines(output, "E")) == {f"{i}_{step}" for i in range(SIZES["test"]) for step in range(5)}
    for i, found in hypotheses(output).items():
        last = [line.split() for (line,) in lines(output, "E")[f"{i}_4"]]
        for (text, _), words in zip(found, last):
            shown = " ".join(word for word in words if word not in ("<s>", "</s>", "<pad>"))
            assert text == re.sub(r"@@( |$)", "", shown).strip()


def test_results_can_go_to_a_folder(data: Path, checkpoint: Path, plain_output: str, tmp_path: Path):
    assert generate(data, checkpoint, f"{BEAM} --results-path {tmp_path}") == ""
    assert same_hypotheses((tmp_path / "generate-test.txt").read_text(), plain_output)


# -- the other commands


def test_validate_reports_loss_and_length_accuracy(data: Path, checkpoint: Path):
    flags = f"--path {checkpoint} --valid-subset test --batch-size 4 --cpu --num-workers 0".split()
    result = process("validate", data, *USER_DIR, *flags)
    assert re.search(r"loss \d+\.\d+.*length_accuracy \d", result.stdout + result.stderr), result.stderr


def test_output_is_scored_by_fairseq_score(data: Path, corpus: Path, checkpoint: Path, tmp_path: Path):
    found = hypotheses(generate(data, checkpoint))
    (tmp_path / "sys").write_text("".join(f"{found[str(i)][0][0]}\n" for i in range(len(found))))
    output = call("score", "--sys", tmp_path / "sys", "--ref", corpus / "test.b")
    assert math.isfinite(float(re.search(r"BLEU4 = ([\d.]+)", output)[1]))


@pytest.mark.parametrize("choice", ["--last 2", "--best 2"])
def test_averaged_checkpoints_decode(data: Path, trained: Path, tmp_path: Path, choice: str):
    output = tmp_path / "mean.pt"
    assert main(["average", "--inputs", str(trained), *choice.split(), "--output", str(output)]) == 0
    assert len(hypotheses(generate(data, output))) == SIZES["test"]
    key = "translator.state.weight"
    if choice == "--last 2":
        mean = sum(read(trained / f"checkpoint{i}.pt")["model"][key].double() for i in (3, 4)) / 2
        torch.testing.assert_close(read(output)["model"][key].double(), mean, rtol=0, atol=1e-7)


def test_ema_is_decoded_as_it_is_exported(data: Path, checkpoint: Path, plain_output: str, tmp_path: Path):
    averaged = generate(data, checkpoint, f"{BEAM} --use-ema")
    export = tmp_path / "ema.pt"
    assert main(["average", "--inputs", str(checkpoint), "--ema", "--output", str(export)]) == 0
    assert same_hypotheses(generate(data, export, BEAM), averaged, 1e-9)
    assert not same_hypotheses(averaged, plain_output)
    with pytest.raises(UserError, match="holds no averaged"):
        generate(data, export, "--use-ema")


def test_ema_keeps_the_schedule_in_force(data: Path, checkpoint: Path):
    from fairseq import checkpoint_utils

    from fairseq_diffusion import compat

    compat.prefer_ema(True)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    compat.prefer_ema(False)
    state, key = read(checkpoint), "translator.schedule.modifier.sigma_min"
    assert state["extra_state"]["ema"][key] != state["model"][key]  # fairseq averages it
    assert model.state_dict()[key] == state["model"][key]
    assert torch.equal(model.translator.state.weight, state["extra_state"]["ema"]["translator.state.weight"])


def test_a_checkpoint_from_before_a_flag_decodes_as_it_did(
    data: Path, checkpoint: Path, plain_output: str, tmp_path: Path
):
    state = read(checkpoint)
    for name in ("grid", "early_stop", "decode_noise_factor", "noise_factor", "share_embeddings", "latent_map"):
        del state["cfg"]["model"][name]
    torch.save(state, tmp_path / "old.pt")
    assert same_hypotheses(generate(data, tmp_path / "old.pt", BEAM), plain_output, 1e-12)


def test_python_interface(data: Path, checkpoint: Path):
    """In a process of its own, the package imported first and registered later, twice."""
    code = f"""
import fairseq_diffusion, fairseq
fairseq_diffusion.load(); fairseq_diffusion.load()
from fairseq import checkpoint_utils
(model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([{str(checkpoint)!r}])
task.load_dataset("test")
batch = task.dataset("test").collater([task.dataset("test")[i] for i in range(3)])
generator = task.build_generator([model], cfg.generation)
hypotheses = task.inference_step(generator, [model], batch)
print(len(hypotheses), model.translator.state.dim)
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["3", "4"], result.stderr


def test_averaged_weights_through_the_python_interface(checkpoint: Path):
    """The flag as an override is in force for this load, and for this load only."""
    from fairseq import checkpoint_utils

    fairseq_diffusion.load()

    def weights(**overrides: Any) -> torch.Tensor:
        models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], arg_overrides=overrides)
        return models[0].state_dict()["translator.state.weight"]

    saved = read(checkpoint)
    ema, last = (state["translator.state.weight"] for state in (saved["extra_state"]["ema"], saved["model"]))
    assert not torch.equal(ema, last)
    assert torch.equal(weights(use_ema=True), ema)
    assert torch.equal(weights(use_ema=False), last)
