"""--kernels on the command line, and in a checkpoint that comes from another machine."""

import pytest
import torch
from fairseq import checkpoint_utils
from support import call, decoding, generate, read, same_hypotheses, training

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import choice


@pytest.fixture(autouse=True)
def _as_found(monkeypatch):
    """A computer without a GPU, and nothing chosen, before and after."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice.why_no_triton.cache_clear()
    yield choice.use("auto")
    choice.use("auto")
    choice.why_no_triton.cache_clear()


@pytest.fixture(scope="module")
def portable(data, tmp_path_factory, trains):
    """A checkpoint of a training with portable kernels."""
    folder = tmp_path_factory.mktemp("portable")
    call("train", *training(data, folder, "--max-update 1 --kernels portable"))
    return folder / "checkpoint_last.pt"


def test_training_and_decoding_take_the_kernels_that_are_asked_for(data, portable):
    plain = generate(data, portable)
    assert choice._chosen == "auto"  # not what the checkpoint was trained with
    assert same_hypotheses(plain, generate(data, portable, "--kernels portable")) and choice._chosen == "portable"


@pytest.mark.parametrize("command", ["train", "generate"])
def test_triton_is_refused_without_a_gpu(data, portable, tmp_path, command):
    usual = {"train": lambda: training(data, tmp_path), "generate": lambda: decoding(data, portable)}[command]()
    with pytest.raises(UserError, match="--kernels is triton, but .*--kernels auto"):
        call(command, *usual, "--kernels", "triton")


def test_a_checkpoint_does_not_bind_another_machine(portable, tmp_path):
    state = read(portable)
    assert state["cfg"]["task"]["kernels"] == "portable"
    state["cfg"]["task"]["kernels"] = "triton"
    torch.save(state, tmp_path / "elsewhere.pt")
    models, *_ = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "elsewhere.pt")])
    assert len(models) == 1 and choice._chosen == "auto"
