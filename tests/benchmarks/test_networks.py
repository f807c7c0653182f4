"""What the benchmarks compare does the same work."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT

VOCABULARY = 60


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the benchmarks, as their scripts see them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def options():
    return SimpleNamespace(device="cpu", vocabulary=VOCABULARY, threads=1)


@pytest.fixture
def size(beside):
    import networks

    changes = {"hidden": 32, "inner": 64, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
    return networks.size_of("difformer_iwslt_de_en", **changes)


def texts(sizes, seed=0):
    import networks

    entries = networks.dictionary(VOCABULARY)
    return [" ".join(entries[i] for i in words.tolist()) for words in networks.random_words(sizes, VOCABULARY, seed)]


def test_lengths_are_shared_out_as_the_table_says():
    import networks

    sizes = networks.lengths(100)
    assert {size: sizes.count(size) / 100 for size in set(sizes)} == pytest.approx(networks.LENGTHS)
    assert networks.lengths(1) == [24]


def test_batches_are_fairseqs(beside):
    import networks
    import train
    from fairseq.data.language_pair_dataset import collate

    batch = train.batch_of(100, VOCABULARY, "cpu")
    both = (networks.random_words(networks.lengths(3), VOCABULARY, seed) for seed in (1, 2))
    ended = [[torch.cat([words, torch.tensor([2])]) for words in side] for side in both]
    samples = [{"id": i, "source": source, "target": target} for i, (source, target) in enumerate(zip(*ended))]
    theirs = collate(samples, pad_idx=1, eos_idx=2, left_pad_source=True, left_pad_target=False)
    order = theirs["id"]  # fairseq sorts by falling length
    for name in ("src_tokens", "src_lengths", "prev_output_tokens"):
        assert torch.equal(batch["net_input"][name][order], theirs["net_input"][name])
    assert torch.equal(batch["target"][order], theirs["target"]) and batch["ntokens"] == theirs["ntokens"]


@pytest.mark.parametrize("name", ["DINOISER", "Difformer"])
def test_the_naive_form_translates_as_ours_does(options, size, name):
    """Other than by chance, for it has all parts in another order: tokens alike, scores within float error."""
    import decoders
    import networks

    torch.manual_seed(random.Random(name).randrange(1000))
    model = networks.ours(decoders.DIFFUSION[name], VOCABULARY, **size)
    torch.nn.init.normal_(model.translator.state.weight)  # rows far apart, so that no rounding is close
    dictionary = networks.dictionary(VOCABULARY)
    plain, lean = (
        decoders.diffusion(name, model, dictionary, "fp32", 5, 6, options, naive=naive) for naive in (True, False)
    )
    sentences = texts([3, 7, 12, 24])
    theirs, ours = (system.generate(system.encode(sentences), 0) for system in (plain, lean))
    for (their,), (our, *_) in zip(theirs, ours):
        assert their["tokens"].tolist() == our["tokens"].tolist()
        assert len(set(their["tokens"].tolist())) > 2


def test_ctranslate2_translates_as_fairseq_does(options, size):
    pytest.importorskip("ctranslate2")
    import decoders

    torch.manual_seed(1)
    found = {(system.name, system.precision): system for system in decoders.word_by_word(size, options)}
    sentences = texts([9, 9, 9])
    for beam in ("greedy", "beam 5"):
        theirs, fairseqs = found[f"CTranslate2, {beam}", "float32"], found[f"AR, {beam}", "fp32"]
        assert theirs(sentences, 9) == fairseqs(sentences, 9)
        tokens = [hypotheses[0]["tokens"] for hypotheses in fairseqs.generate(fairseqs.encode(sentences), 9)]
        assert [len(sentence) for sentence in tokens] == [10, 10, 10]


def test_one_pass_writes_as_many_words_as_it_is_made_to(options):
    import networks
    import single_pass

    small = networks.size_of("difformer_iwslt_de_en", hidden=16, inner=32, heads=4, dropout=0.0)
    for system in single_pass.all_in_one_pass(small, "fp32", options):
        hypotheses = system.generate(system.encode(texts([5, 5])), 5)
        free = "CTC" in system.name or "5 lengths" in system.name
        assert free or [len(sentence[0]["tokens"]) for sentence in hypotheses] == [6, 6], system.name


def test_one_of_two_updates_has_a_first_pass(options, size):
    """In it the network is called once more, without gradients."""
    import networks
    import train
    from launches import launches_of

    from fairseq_diffusion.criterions.diffusion_loss import DiffusionLoss

    model = networks.ours("difformer_iwslt_de_en", VOCABULARY, **size)
    training = train.Training(model, DiffusionLoss(networks.task_of(VOCABULARY)), "--optimizer adam --lr 1e-4", options)
    batch = train.batch_of(60, VOCABULARY, "cpu")
    with_it, without = (training.update(batch, launches_of) for _ in range(2))
    assert with_it["forward"] > without["forward"] and with_it["backward"] == without["backward"]


def test_launches_are_operations_that_are_no_views(beside):
    from launches import launches_of

    x = torch.ones(4, 4)
    counts = [launches_of(call) for call in (lambda: x.t()[None, :2], lambda: x + x, lambda: x.add_(1) @ x)]
    assert counts == [0, 1, 2]
