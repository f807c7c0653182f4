"""Names of the first edition still work: flags as users typed them, and checkpoints that were written with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY, TINY_BLOCKS, call, decoding, different, generate, process, read, same_hypotheses, training

import fairseq_diffusion

FEW = "--max-update 3 --lr 1e-2 --disable-validation --no-epoch-checkpoints"
# architecture and its size; flags as they are spelt now, and as they were
TRAININGS = {
    "diffusion": (
        ("difformer_toy", TINY),
        "--self-conditioning random --self-conditioning-probability 0.25",
        "--self-conditioning coin --self-conditioning-p 0.25",
    ),
    "one-pass": (("diffglat_toy", TINY_BLOCKS), "--upsample 3 --alignment dag", "--upsample 3 --back-end=dag"),
}
LOGGED = {
    "diffusion": [
        "--self-conditioning-p is now called --self-conditioning-probability",
        "--self-conditioning coin is now called --self-conditioning random",
    ],
    "one-pass": ["--back-end is now called --alignment"],
}
STEPS = {"diffusion": "--iter-decode-max-iter 3", "one-pass": ""}


def train(data: Path, folder: Path, kind: str, flags: str) -> Path:
    (arch, size), _, _ = TRAININGS[kind]
    call("train", *training(data, folder, f"{FEW} {flags}", arch, size=size))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def kinds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of each kind, trained when it is first asked for, with the names of now."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = train(data, tmp_path_factory.mktemp(kind), kind, TRAININGS[kind][1])
        return made[kind]

    return make


# -- flags


@pytest.mark.parametrize("kind", TRAININGS)
def test_old_flags_train_the_same_model(
    data: Path, kinds: Callable[[str], Path], tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
):
    expected = read(kinds(kind))["model"]
    caplog.clear()
    found = read(train(data, tmp_path, kind, TRAININGS[kind][2]))["model"]
    assert different(found, expected) == []
    logged = [record.message.split(";")[0] for record in caplog.records if "is now called" in record.message]
    assert logged == LOGGED[kind]


def test_old_flags_decode_the_same(data: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture):
    expected = generate(data, checkpoint, "--conditioning-sigma-start 0.95 --conditioning-sigma-end 0.8")
    assert not [message for message in caplog.messages if "is now called" in message]
    found = generate(data, checkpoint, "--told-start 0.95 --told-end 0.8")
    assert same_hypotheses(found, expected, 1e-12) and not same_hypotheses(found, generate(data, checkpoint))
    logged = [message.split(";")[0] for message in caplog.messages if "is now called" in message]
    assert logged == [
        "--told-start is now called --conditioning-sigma-start",
        "--told-end is now called --conditioning-sigma-end",
    ]


def test_a_user_reads_the_new_name(data: Path, checkpoint: Path):
    done = process("generate", *decoding(data, checkpoint, "--told-end 0.8"))
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("--told-end is now called --conditioning-sigma-end") == 1


# -- checkpoints


OLD = {
    "self_conditioning_probability": "self_conditioning_p",
    "alignment": "back_end",
    "conditioning_sigma_start": "told_start",
    "conditioning_sigma_end": "told_end",
}


def old_keys(weights: dict[str, Any]) -> dict[str, Any]:
    for new, former in ((".alignment.", ".back_end."), (".merge.2.", ".merge.3.")):
        weights = {name.replace(new, former): value for name, value in weights.items()}
    return weights


def as_it_was(path: Path, folder: Path) -> Path:
    """A checkpoint as the first edition wrote it."""
    state = read(path)
    for section in (state["cfg"]["model"], state["cfg"]["task"]):
        for new in OLD.keys() & section.keys():
            section[OLD[new]] = section.pop(new)
    if state["cfg"]["model"].get("self_conditioning") == "random":
        state["cfg"]["model"]["self_conditioning"] = "coin"
    state["cfg"]["model"].pop("state", None)
    state["model"] = old_keys(state["model"])
    for averages in ("ema", "ema_fp32_params"):
        if averages in state["extra_state"]:
            state["extra_state"][averages] = old_keys(state["extra_state"][averages])
    torch.save(state, folder / "checkpoint_last.pt")
    return folder / "checkpoint_last.pt"


@pytest.fixture
def old(kinds: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: as_it_was(kinds(kind), tmp_path)


def test_an_old_checkpoint_has_old_names(old: Callable[[str], Path]):
    """Else the tests below would have nothing to show."""
    state = read(old("diffusion"))
    assert state["cfg"]["model"]["self_conditioning"] == "coin" and "told_start" in state["cfg"]["task"]
    state = read(old("one-pass"))
    assert state["cfg"]["model"]["back_end"] == "dag" and "alignment" not in state["cfg"]["model"]
    assert any(name.startswith("translator.back_end.") for name in state["model"])


@pytest.mark.parametrize("kind", TRAININGS)
def test_an_old_checkpoint_decodes_the_same(
    data: Path, kinds: Callable[[str], Path], old: Callable[[str], Path], kind: str
):
    expected = generate(data, kinds(kind), steps=STEPS[kind])
    assert same_hypotheses(generate(data, old(kind), steps=STEPS[kind]), expected, 1e-12)


@pytest.mark.parametrize("kind", TRAININGS)
def test_an_old_checkpoint_loads_with_its_task(
    data: Path, kinds: Callable[[str], Path], old: Callable[[str], Path], kind: str
):
    from fairseq import checkpoint_utils

    def weights(path: Path) -> Any:
        (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)], {"data": str(data)})
        return model.state_dict()

    assert different(weights(old(kind)), weights(kinds(kind))) == []
    sentence = fairseq_diffusion.load(old(kind), data=data, device="cpu").translate(["w1 w2"])
    assert sentence == fairseq_diffusion.load(kinds(kind), data=data, device="cpu").translate(["w1 w2"])


def test_translate_takes_old_names(data: Path, checkpoint: Path):
    model = fairseq_diffusion.load(checkpoint, data=data, device="cpu")
    expected = model.translate(["w1 w2 w3"], conditioning_sigma_start=0.9, conditioning_sigma_end=0.5)
    assert model.translate(["w1 w2 w3"], told_start=0.9, told_end=0.5) == expected != model.translate(["w1 w2 w3"])


def test_old_flags_of_the_task_are_kept(data: Path, tmp_path: Path):
    """A checkpoint remembers how its validation decoded."""
    from fairseq import checkpoint_utils

    new = train(data, tmp_path, "diffusion", "--sampler cedi --conditioning-sigma-start 0.95")
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(as_it_was(new, tmp_path))], {"data": str(data)})
    assert (task.cfg.conditioning_sigma_start, task.cfg.conditioning_sigma_end) == (0.95, None)


@pytest.mark.parametrize("kind", TRAININGS)
def test_averages_go_on_with_an_old_checkpoint(data: Path, tmp_path: Path, kind: str):
    """Also those that are kept in fp32, which fairseq restores by their names."""
    flags = f"{TRAININGS[kind][1]} --store-ema --ema-decay 0.5 --ema-fp32"
    (tmp_path / "old").mkdir()
    as_it_was(train(data, tmp_path, kind, flags), tmp_path / "old")
    more = f"{flags} --max-update 4"
    new, old = (read(train(data, folder, kind, more))["extra_state"] for folder in (tmp_path, tmp_path / "old"))
    for averages in ("ema", "ema_fp32_params"):
        assert new[averages] and different(new[averages], old[averages]) == []


@pytest.mark.parametrize("kind", TRAININGS)
def test_training_goes_on_with_an_old_checkpoint(
    data: Path, kinds: Callable[[str], Path], old: Callable[[str], Path], tmp_path: Path, kind: str
):
    before = read(kinds(kind))["model"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new/checkpoint_last.pt").write_bytes(kinds(kind).read_bytes())
    flags = f"{TRAININGS[kind][1]} --max-update 4"
    gone_on = [read(train(data, folder, kind, flags))["model"] for folder in (old(kind).parent, tmp_path / "new")]
    assert different(*gone_on) == [] and different(gone_on[0], before) != []
