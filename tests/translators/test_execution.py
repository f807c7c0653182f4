"""However a step is executed, it gives the same; and what preparing it took is counted apart."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from gaussians import DICTIONARY, Model, build, encode, sources

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.translators import execution
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.execution import PREPARATIONS, Prepared, Recording, at_rest

ONE, SAME_SHAPE, LONGER = (9, 2, 14), (12, 11, 13, 3), (9, 2, 30)
GUIDED = {"guidance": 1.5, "noise_beam": 2, "sampler": "dpmpp_2m", "length_beam": 2}


def generator(translator: Any, **options: Any) -> Generator:
    return Generator(translator, DiffusionOptions(steps=4, **options), SelectionOptions(nbest=9), DICTIONARY)


def decode(made: Generator, translator: Any, lengths: tuple[int, ...]) -> list[list[dict[str, Any]]]:
    return made.generate([Model(translator)], {"net_input": {"src_tokens": sources(lengths)}})


def assert_same(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    pairs = [(a, b) for own, its in zip(found, expected) for a, b in zip(own, its)]
    assert [len(own) for own in found] == [len(own) for own in expected] and pairs
    for one, other in pairs:
        assert one["tokens"].tolist() == other["tokens"].tolist()
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


class Played:
    """Stands for CUDA's recording: playing computes anew from the same inputs, into the same output."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, call: Any, device: Any) -> Any:
        self.recorded += 1
        output = call().clone()
        output.zero_()  # what a recording leaves there is not to be relied on

        def play() -> None:
            self.played += 1
            output.copy_(call())

        return output, play


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Recordings on a CPU."""
    stand_in = Played()
    monkeypatch.setattr(execution, "record", stand_in)
    monkeypatch.setitem(PREPARATIONS, "cuda_graph", Recording)
    return stand_in


@pytest.mark.parametrize("options", [{}, GUIDED, {"stop_stable": 1, "noise_beam": 3}])
def test_a_recording_is_played_for_every_batch_of_its_shape(options: dict[str, Any], played: Played):
    translator = build(source_drop=0.1)
    eager, graph = (generator(translator, execution=name, **options) for name in ("eager", "cuda_graph"))
    recorded = []
    for lengths in (ONE, SAME_SHAPE, ONE, LONGER):
        assert_same(decode(graph, translator, lengths), decode(eager, translator, lengths))
        recorded.append(played.recorded)
    assert 0 < recorded[0] <= recorded[1] == recorded[2] < recorded[3]
    if not options:
        # four steps a batch, and calls that warm up each shape
        assert played.played == 4 * 4 + execution.WARM_UPS * recorded[3]


@torch.no_grad()
def test_a_recording_keeps_nothing_of_the_call_before(played: Played):
    """Neither in its output, which is not overwritten, nor in its inputs, nor of the sources before."""
    translator = build()
    calls = []
    for lengths in (ONE, ONE[::-1], ONE):
        source = encode(translator, sources(lengths))
        x = torch.randn(3, 8, 6)
        calls.append((x, torch.rand(1), x.flip(0), torch.arange(8) < torch.tensor([[8], [3], [5]]), source))
    calls.append((*(-x for x in calls[-1][:3]), *calls[-1][3:]))  # the same source once more
    recording = Recording(translator.denoise, *calls[0])
    found = [recording(*call) for call in calls]
    for output, call in zip(found, calls):
        torch.testing.assert_close(output, translator.denoise(*call))


def test_a_copy_lies_as_its_original():
    """The rows of a bias begin at multiples of 16 entries."""
    bias = attention_bias(torch.arange(5) < torch.tensor([[5], [2]]), torch.float32)
    assert torch.equal(at_rest(bias), bias) and at_rest(bias).stride() == bias.stride()


# -- compiling; torch's own code generator is tried by fairseq-generate


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Counts what torch.compile traces, which is then run as it is."""
    from torch._dynamo.testing import CompileCounter

    counter, compile_ = CompileCounter(), torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda f, dynamic, mode: compile_(f, dynamic=dynamic, backend=counter))
    yield counter
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_shape_is_compiled_once(graphs: Any, caplog: pytest.LogCaptureFixture):
    """And whole, without a break; more shapes than torch would compile by itself, whose limit stays what it is."""
    caplog.set_level("INFO")
    translator = build()
    eager, made = (generator(translator, execution=name, noise_beam=2) for name in ("eager", "compile"))
    counted = []
    for lengths in (ONE, SAME_SHAPE, LONGER, (5,), ONE):
        with torch._dynamo.config.patch(cache_size_limit=1):
            assert_same(decode(made, translator, lengths), decode(eager, translator, lengths))
            assert torch._dynamo.config.cache_size_limit == 1
        counted.append(graphs.frame_count)
    assert counted == [1, 1, 2, 3, 3]
    logged = [record.message for record in caplog.records if record.message.startswith("--execution compile: ")]
    assert len(logged) == 3 and "for 4 sentences x 2 candidates x 8 positions, sources of 16" in logged[0]


def test_preparing_is_counted_apart(graphs: Any):
    translator = build()
    made = generator(translator, execution="compile")
    decode(made, translator, ONE)
    first = made.describe()
    decode(made, translator, SAME_SHAPE)
    second = made.describe()
    assert first["compile_seconds"] == second["compile_seconds"] > first["model_seconds"] > 0
    assert second["model_seconds"] > first["model_seconds"]
    assert generator(translator).describe()["compile_seconds"] == 0


def test_the_model_is_left_as_it_was(graphs: Any):
    translator = build()
    before = {name: list(vars(module)) for name, module in translator.named_modules()}
    state = {name: tensor.clone() for name, tensor in translator.state_dict().items()}
    decode(generator(translator, execution="compile"), translator, ONE)
    assert {name: list(vars(module)) for name, module in translator.named_modules()} == before
    after = translator.state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[name], tensor) for name, tensor in state.items())


# -- what cannot be done


def test_a_graph_needs_a_gpu():
    translator = build()
    with pytest.raises(UserError, match="--execution cuda_graph needs an NVIDIA GPU.*pass eager or compile"):
        decode(generator(translator, execution="cuda_graph"), translator, ONE)


def test_what_cannot_be_compiled_is_explained(monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", fail)
    translator = build()
    with pytest.raises(
        UserError, match=r"compile fails here \(No working C\+\+ compiler found\); pass --execution eag"
    ):
        decode(generator(translator, execution="compile"), translator, ONE)


@pytest.mark.parametrize("name", ["cuda_graph", "compile"])
@pytest.mark.parametrize("options", [{}, GUIDED, {"stop_stable": 1, "noise_beam": 3}])
def test_on_a_gpu(name: str, options: dict[str, Any], request: pytest.FixtureRequest):
    if request.config.getoption("device") == "cpu":
        pytest.skip("only with --device cuda")
    translator = build(source_drop=0.1).cuda()
    eager, made = (generator(translator, execution=how, **options) for how in ("eager", name))
    for lengths in (ONE, SAME_SHAPE, ONE, LONGER):
        batch = {"net_input": {"src_tokens": sources(lengths).cuda()}}
        assert_same(*(each.generate([Model(translator)], batch) for each in (made, eager)))
    assert made.decoder.compile_seconds > 0 and isinstance(made.decoder.network, Prepared)


def test_prepared_calls_of_several_threads_take_turns(monkeypatch: pytest.MonkeyPatch):
    """Compilers and recordings are not made for two threads at once."""
    running: list[int] = []

    def alone(denoise: Any, *arguments: Any) -> Any:
        def call(*arguments: Any) -> Any:
            running.append(len(running))
            time.sleep(1e-3)
            assert running == [0]
            output = denoise(*arguments)
            running.clear()
            return output

        return call

    monkeypatch.setitem(PREPARATIONS, "compile", alone)
    translator = build()
    expected = decode(generator(translator), translator, ONE)
    made = [generator(translator, execution="compile") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda each: decode(each, translator, ONE), made):
            assert_same(found, expected)
