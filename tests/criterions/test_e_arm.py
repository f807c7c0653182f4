"""The criterion of an autoregressive teacher with an energy, against its loss written out, sentence by sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.module_proxy_wrapper import ModuleProxyWrapper
from runs import MODEL
from support import TINY, TINY_BLOCKS, USER_DIR
from torch import Tensor

import fairseq_diffusion
from fairseq_diffusion.criterions.e_arm import NEVER_TOLD
from fairseq_diffusion.decoding.prefixes import sample_prefixes
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream

SEED, SMOOTHING = 7, 0.1
USUAL = f"--criterion e_arm --label-smoothing {SMOOTHING} --seed {SEED} --cpu --dropout 0 --energy-samples 3"


def parts(data: Path, flags: str = "", model: str = MODEL) -> tuple[Any, Any, Any]:
    """Task, model and criterion as fairseq-train makes them; later `flags` win over earlier ones."""
    fairseq_diffusion.load()
    torch.manual_seed(1)
    given = [str(data), *USER_DIR, *model.split(), *USUAL.split(), *flags.split()]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), given))
    task = tasks.setup_task(cfg.task)
    model_, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    criterion.set_num_updates(0)
    return task, model_, criterion


def batch_of(task: Any, indices: range = range(6)) -> dict[str, Any]:
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return dataset.collater([dataset[i] for i in indices])


def logits_behind(model: Any, source: Tensor, words: list[int], eos: int) -> Tensor:
    """Of the last position, by a pass over the whole prefix."""
    inputs = {"src_tokens": source[None], "src_lengths": torch.tensor([len(source)])}
    return model(**inputs, prev_output_tokens=torch.tensor([[eos, *words]]))[0][0, -1]


def sampled_words(model: Any, source: Tensor, key: Tensor, length: int, eos: int, pad: int) -> list[int]:
    """`length` words at most, or up to the </s> that is drawn, by the cumulated probabilities."""
    words: list[int] = []
    for u in noise.uniform(key, length).tolist():
        p = logits_behind(model, source, words, eos).index_fill(0, torch.tensor(pad), -math.inf).softmax(-1)
        total = p.double().cumsum(0)
        words.append(int((total < u * total[-1]).sum()))
        if words[-1] == eos:
            break
    return words


def sentence_loss(model: Any, source: Tensor, target: Tensor, key: Tensor, n: int, last: int) -> tuple[Any, Any, int]:
    """Sums over the positions of one sentence, of log Z_k - logit and of the gap, and how many positions have them."""
    eos, pad = model.decoder.dictionary.eos(), model.decoder.dictionary.pad()
    model.eval()
    samples = [sampled_words(model, source, noise.fold(key, j), len(target) - 1, eos, pad) for j in range(n)]
    model.train()
    kl, gap, there = torch.zeros(()), torch.zeros(()), 0
    for k in range(len(target))[-last:]:
        own = logits_behind(model, source, target[:k].tolist(), eos)
        whole = [words[:k] for words in samples if len(words) >= k and eos not in words[:k]]
        if whole:
            log_s = torch.stack([logits_behind(model, source, words, eos).logsumexp(0) for words in whole])
            kl = kl + log_s.exp().mean().log() - own[target[k]]
            gap, there = gap + own.logsumexp(0) - log_s.mean(), there + 1
    return kl, gap, there


def straight_line(model: Any, batch: dict[str, Any], update: int, n: int = 3, last: int = 0) -> list[Any]:
    pad, found = model.decoder.dictionary.pad(), []
    for source, target, i in zip(batch["net_input"]["src_tokens"], batch["target"], batch["id"]):
        key = noise.fold(noise.fold(i, SEED, update), Stream.PREFIXES)
        found.append(sentence_loss(model, source[source != pad], target[target != pad], key, n, last))
    return [sum(column) for column in zip(*found)]


def gradient(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


# -- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, n, last",
    [("", 3, 0), ("--energy-weight 0.5", 3, 0), ("--energy-samples 1", 1, 0), ("--energy-last-tokens 2", 3, 2)],
)
def test_the_loss_is_that_of_each_sentence_written_out(data: Path, flags: str, n: int, last: int):
    task, model, criterion = parts(data, flags)
    batch, weight = batch_of(task), 0.5 if "weight" in flags else 0.05
    model.train()
    criterion.set_num_updates(11)
    plain, size, usual = LabelSmoothedCrossEntropyCriterion(task, False, SMOOTHING)(model, batch)
    kl, gap, there = straight_line(model, batch, 11, n, last)
    wanted = gradient(model, plain + weight * kl)
    loss, own_size, log = criterion(model, batch)
    torch.testing.assert_close(log["_energy_kl"], kl.detach())
    torch.testing.assert_close(log["_energy_gap"], gap.detach(), rtol=1e-3, atol=1e-4)
    assert log["_energy_there"] == there and own_size == size
    assert 6 < there < (12 if last else batch["ntokens"])  # some samples end before the data do
    torch.testing.assert_close(loss, plain + weight * kl)
    torch.testing.assert_close(log["loss"], loss.detach())
    torch.testing.assert_close(log["nll_loss"], usual["nll_loss"])
    torch.testing.assert_close(gradient(model, loss), wanted, rtol=1e-3, atol=1e-5)


def test_before_the_start_the_loss_is_the_usual_one(data: Path):
    task, model, criterion = parts(data, "--energy-start 5")
    batch = batch_of(task)
    model.train()
    plain = LabelSmoothedCrossEntropyCriterion(task, False, SMOOTHING)(model, batch)[0]
    for update, same in ((0, True), (4, True), (5, False)):
        criterion.set_num_updates(update)
        loss, _, log = criterion(model, batch)
        assert torch.equal(loss, plain) is same and ("_energy_kl" in log) is not same


def test_validation_measures_always_and_with_the_same_prefixes(data: Path):
    task, model, criterion = parts(data, "--energy-start 1000")
    batch = batch_of(task)
    model.eval()
    kl, _, _ = straight_line(model, batch, -1)
    for update in (0, 2000):
        criterion.set_num_updates(update)
        with torch.no_grad():
            log = criterion(model.eval(), batch)[2]
        torch.testing.assert_close(log["_energy_kl"], kl.detach())


def test_each_update_samples_anew(data: Path):
    task, model, criterion = parts(data)
    batch, found = batch_of(task), []
    for update in (0, 1, 0):
        criterion.set_num_updates(update)
        found.append(float(criterion(model.train(), batch)[2]["_energy_kl"]))
    assert found[0] == found[2] != found[1]


def test_neighbours_and_padding_do_not_matter(data: Path):
    task, model, criterion = parts(data)
    together, alone = criterion(model.train(), batch_of(task))[2], [0.0, 0.0, 0]
    for i in range(6):
        log = criterion(model, batch_of(task, range(i, i + 1)))[2]
        alone = [total + float(log[f"_energy_{name}"]) for total, name in zip(alone, ("kl", "gap", "there"))]
    assert alone == pytest.approx([float(together[f"_energy_{name}"]) for name in ("kl", "gap", "there")], rel=1e-4)


# -- the samples -------------------------------------------------------------------------------------------------------


def test_sampling_leaves_the_generator_and_the_mode_alone(data: Path):
    """Without dropout, although the model trains with it."""
    task, model, _ = parts(data, "--dropout 0.3")
    batch = batch_of(task)
    keys = noise.fold(batch["id"][:, None], torch.arange(2))
    found = []
    for training in (True, False):
        model.train(training)
        before = torch.get_rng_state()
        found.append(sample_prefixes(model, batch["net_input"], keys, 9, task.target_dictionary.pad()))
        assert torch.equal(torch.get_rng_state(), before) and model.training is training
        torch.rand(1)
    assert torch.equal(*found) and found[0].shape == (6, 2, 9)
    assert found[0][..., 0].eq(task.target_dictionary.eos()).all()
    assert not found[0].requires_grad and len(found[0][:, :, 1:].unique()) > 5


def test_padding_is_never_sampled(data: Path):
    task, model, _ = parts(data)
    pad = task.target_dictionary.pad()
    with torch.no_grad():  # a model that finds it the most probable
        model.decoder.output_projection.weight[pad] = 9 * model.decoder.output_projection.weight.sum(0)
    batch = batch_of(task)
    keys = noise.fold(batch["id"][:, None], torch.arange(9))
    assert not sample_prefixes(model, batch["net_input"], keys, 9, pad).eq(pad).any()


# -- precision, ranks, kinds of models ---------------------------------------------------------------------------------


def test_half_precision_is_summed_in_full(data: Path):
    task, model, criterion = parts(data)
    batch = batch_of(task)
    exact = criterion(model.train(), batch)[2]
    loss, _, rough = criterion(model.bfloat16(), batch)
    assert loss.dtype == rough["_energy_kl"].dtype == torch.float32
    for name in ("kl", "there"):
        assert float(rough[f"_energy_{name}"]) == pytest.approx(float(exact[f"_energy_{name}"]), rel=0.1)
    assert math.isfinite(gradient(model, loss).norm())


class Wrapped(torch.nn.Module):
    """Stands around a model as torch's DistributedDataParallel does, and passes on no attributes."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, **batch: Any) -> Any:
        return self.module(**batch)


def test_a_model_of_several_ranks_has_the_same_loss(data: Path):
    task, model, criterion = parts(data)
    batch = batch_of(task)
    loss = criterion(model.train(), batch)[0]
    assert torch.equal(criterion(ModuleProxyWrapper(Wrapped(model)).train(), batch)[0], loss)


def test_another_model_that_translates_from_left_to_right(data: Path):
    small = "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-hidden-size 8 --decoder-hidden-size 8"
    task, model, criterion = parts(data, model=f"--arch lstm {small} --decoder-out-embed-dim 8")
    loss, _, log = criterion(model.train(), batch_of(task))
    assert math.isfinite(loss) and log["_energy_there"] > 6 and log["_energy_kl"] > 0


def test_a_task_that_tells_no_update(data: Path):
    task, model, criterion = parts(data)
    criterion.set_num_updates(NEVER_TOLD)
    assert criterion(model.eval(), batch_of(task))[2]["_energy_there"] > 6
    with pytest.raises(UserError, match="pass --task translation or diffusion_translation$"):
        criterion(model.train(), batch_of(task))


NAT = MODEL.replace("--arch transformer", "--arch nonautoregressive_transformer")


@pytest.mark.parametrize(
    "model, flags, words",
    [
        (f"--arch dinoiser_toy {' '.join(TINY)}", "", "--arch names another kind; pass --criterion diffusion_loss"),
        (f"--arch glat_toy {' '.join(TINY_BLOCKS)}", "", "--arch names another kind"),
        (NAT, "", "--arch names another kind"),
        (f"{MODEL} --adaptive-softmax-cutoff 5,10", "", "drop --adaptive-softmax-cutoff"),
        (MODEL, "--ignore-prefix-size 1", "--ignore-prefix-size is 1, .* drop it"),
        (MODEL, "--left-pad-target", "which --left-pad-target moves; drop it"),
        (MODEL, "--energy-samples 0", "--energy-samples is 0"),
        (MODEL, "--energy-weight -1", "--energy-weight is -1"),
        (MODEL, "--energy-weight nan", "--energy-weight is nan"),
        (MODEL, "--energy-start -1", "--energy-start is -1"),
        (MODEL, "--energy-last-tokens -1", "--energy-last-tokens is -1"),
    ],
)
def test_what_it_cannot_train(data: Path, model: str, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        task, built, criterion = parts(data, flags, model)
        criterion(built, batch_of(task))
