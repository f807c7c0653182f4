"""An autoregressive model's scores, against fairseq's own scorer."""

from __future__ import annotations

import random
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_architecture
from fairseq.models.nat import NATransformerModel
from fairseq.models.nat.nonautoregressive_transformer import base_architecture as nat_architecture
from fairseq.models.transformer import TransformerConfig, TransformerModel, TransformerModelBase
from fairseq.models.transformer.transformer_legacy import base_architecture
from fairseq.sequence_scorer import SequenceScorer

from fairseq_diffusion.decoding import rescore
from fairseq_diffusion.decoding.rescore import MEASURES, Teacher
from fairseq_diffusion.errors import UserError

WORDS, LONGEST = 50, 20
SIZES = {"embed_dim": 16, "ffn_embed_dim": 32, "layers": 2, "attention_heads": 2}


def dictionary() -> Dictionary:
    words = Dictionary()
    for i in range(WORDS):
        words.add_symbol(f"w{i}")
    return words


def task() -> Any:
    words = dictionary()
    return SimpleNamespace(source_dictionary=words, target_dictionary=words, src_dict=words, tgt_dict=words)


def arguments(**more: Any) -> Namespace:
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SIZES.items()}
    return Namespace(**sizes, max_source_positions=LONGEST, max_target_positions=LONGEST, **more)


def argparse_style(**more: Any) -> Any:
    args = arguments(dropout=0.3, **more)
    base_architecture(args)
    return TransformerModel.build_model(args, task())


def dataclass_style() -> Any:
    cfg = TransformerConfig(max_source_positions=LONGEST, max_target_positions=LONGEST)
    for side in (cfg.encoder, cfg.decoder):
        side.embed_dim, side.ffn_embed_dim, side.layers, side.attention_heads = SIZES.values()
    cfg.decoder.input_dim = cfg.decoder.output_dim = cfg.decoder.embed_dim
    return TransformerModelBase.build_model(cfg, task())


def lstm() -> Any:
    args = Namespace(
        criterion=None, encoder_embed_dim=8, decoder_embed_dim=8, decoder_out_embed_dim=8, max_target_positions=LONGEST
    )
    lstm_architecture(args)
    return LSTMModel.build_model(args, task())


MODELS = {
    "argparse": argparse_style,
    "dataclass": dataclass_style,
    "adaptive": lambda: argparse_style(adaptive_softmax_cutoff="10,30"),
    "lstm": lstm,
}


def make(kind: str = "argparse") -> Any:
    torch.manual_seed(1)
    return MODELS[kind]()


def net_input(sources: list[list[int]]) -> dict[str, torch.Tensor]:
    """Padded on the left, as fairseq's translation task does."""
    words, longest = dictionary(), max(map(len, sources))
    rows = [[words.pad()] * (longest - len(source)) + source for source in sources]
    return {"src_tokens": torch.tensor(rows), "src_lengths": torch.tensor([len(source) for source in sources])}


def batch(seed: int = 1) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Four sources, longest first, and their hypotheses: some empty, all without special symbols."""
    rng, eos = random.Random(seed), dictionary().eos()
    draw = lambda size: [rng.randrange(dictionary().nspecial, len(dictionary())) for _ in range(size)]  # noqa: E731
    sources = [[*draw(size), eos] for size in (9, 6, 6, 2)]
    hypotheses = [[draw(rng.choice([0, 1, 4, 11])) for _ in range(count)] for count in (3, 0, 5, 1)]
    hypotheses[0].append([])
    return sources, hypotheses


def loop(model: Any, source: list[int], tokens: list[int]) -> float:
    """fairseq's scorer on one sentence and one translation."""
    eos = dictionary().eos()
    inputs = {**net_input([source]), "prev_output_tokens": torch.tensor([[eos, *tokens]])}
    sample = {"net_input": inputs, "target": torch.tensor([[*tokens, eos]])}
    return float(SequenceScorer(dictionary()).generate([model], sample)[0][0]["score"])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("logits", [rescore.LOGITS, 500])
def test_scores_are_those_of_fairseqs_scorer(kind: str, logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is padded, and into how many parts the rows are cut."""
    monkeypatch.setattr(rescore, "LOGITS", logits)
    model, (sources, hypotheses) = make(kind), batch()
    found = Teacher(model, dictionary()).scores(net_input(sources), hypotheses)
    for source, own, scores in zip(sources, hypotheses, found):
        assert scores == pytest.approx([loop(model, source, tokens) for tokens in own], abs=1e-5)
    assert [len(scores) for scores in found] == [4, 0, 5, 1]


def test_a_score_is_the_mean_of_stepwise_log_probabilities() -> None:
    """Each token from those before it alone: one network call a token, on the prefix."""
    model, (sources, hypotheses) = make(), batch(2)
    teacher, eos = Teacher(model, dictionary()), dictionary().eos()
    inputs, tokens, log_p = net_input(sources[:1]), hypotheses[0][0] or [7, 8], []
    for t, token in enumerate([*tokens, eos]):
        with torch.no_grad():
            logits = model(**inputs, prev_output_tokens=torch.tensor([[eos, *tokens[:t]]]))[0][0, -1]
        log_p.append(float(logits.log_softmax(-1)[token]))
    assert teacher.scores(inputs, [[tokens]])[0] == pytest.approx([sum(log_p) / len(log_p)], abs=1e-5)


def test_an_energy_is_the_mean_of_stepwise_logits() -> None:
    """They are log-probabilities beside what all logits of a step have in common, which changes the best one."""
    model, (sources, _), rng, eos = make(), batch(2), random.Random(1), dictionary().eos()
    own = [[rng.randrange(dictionary().nspecial, len(dictionary())) for _ in range(1 + i % 7)] for i in range(40)]
    with torch.no_grad():
        model.decoder.output_projection.weight.mul_(20)
    found = {m: Teacher(model, dictionary(), m).scores(net_input(sources), [own, [], [], []])[0] for m in MEASURES}
    for i, tokens in enumerate(own):
        with torch.no_grad():
            logits = model(**net_input(sources[:1]), prev_output_tokens=torch.tensor([[eos, *tokens]]))[0][0]
        chosen = logits.gather(1, torch.tensor([*tokens, eos])[:, None])[:, 0]
        assert found["energy"][i] == pytest.approx(float(chosen.mean()), abs=1e-4)
        assert found["probability"][i] == pytest.approx(float((chosen - logits.logsumexp(-1)).mean()), abs=1e-4)
    best = {measure: max(range(len(own)), key=scores.__getitem__) for measure, scores in found.items()}
    assert best["energy"] != best["probability"]


def test_a_model_without_logits_of_all_words_has_no_energy() -> None:
    Teacher(make("adaptive"), dictionary())
    with pytest.raises(UserError, match="trained with --adaptive-softmax-cutoff; drop --rescore-by"):
        Teacher(make("adaptive"), dictionary(), "energy")


def test_order_and_neighbours_do_not_matter() -> None:
    teacher, (sources, hypotheses) = Teacher(make(), dictionary()), batch(3)
    together = teacher.scores(net_input(sources), hypotheses)
    for source, own, scores in zip(sources, hypotheses, together):
        assert teacher.scores(net_input([source]), [own[::-1]])[0] == pytest.approx(scores[::-1], abs=1e-5)


def test_each_row_is_decoded_once_and_each_sentence_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (sources, hypotheses) = make(), batch()
    decoded, encoded, logits = [], [], []
    model.encoder.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    model.decoder.register_forward_hook(lambda module, inputs, output: decoded.append(len(inputs[0])))
    model.decoder.register_forward_hook(lambda module, inputs, output: logits.append(output[0].numel()))
    monkeypatch.setattr(rescore, "LOGITS", 1500)
    Teacher(model, dictionary()).scores(net_input(sources), hypotheses)
    assert sum(decoded) == 10 and len(decoded) > 1 and encoded == [4]
    assert max(logits) <= 1500


def test_half_precision_models_are_summed_in_full() -> None:
    model, (sources, hypotheses) = make().bfloat16(), batch()
    found = Teacher(model, dictionary()).scores(net_input(sources[:1]), [hypotheses[0][:1]])
    eos, tokens = dictionary().eos(), hypotheses[0][0]
    with torch.no_grad():
        logits = model(**net_input(sources[:1]), prev_output_tokens=torch.tensor([[eos, *tokens]]))[0][0]
    log_p = logits.double().log_softmax(-1)[torch.arange(len(logits)), torch.tensor([*tokens, eos])]
    assert logits.dtype == torch.bfloat16 and found[0] == pytest.approx([float(log_p.mean())], abs=1e-5)


def test_no_hypotheses_at_all() -> None:
    assert Teacher(make(), dictionary()).scores(net_input(batch()[0]), [[], [], [], []]) == [[], [], [], []]


def test_a_candidate_that_is_too_long_is_explained() -> None:
    teacher, (sources, _) = Teacher(make(), dictionary()), batch()
    fits = [[9] * (LONGEST - 1)]
    assert len(teacher.scores(net_input(sources[:1]), [fits])[0]) == 1
    with pytest.raises(UserError, match=f"has {LONGEST + 1} tokens .* takes up to {LONGEST};"):
        teacher.scores(net_input(sources[:1]), [[[9] * LONGEST]])


def nat() -> Any:
    args = arguments(share_all_embeddings=False)
    nat_architecture(args)
    return NATransformerModel.build_model(args, task())


@pytest.mark.parametrize("other", [nat, lambda: torch.nn.Linear(2, 2)])
def test_a_model_that_is_not_left_to_right_is_refused(other: Any) -> None:
    model = other()
    with pytest.raises(UserError, match=f"this one holds a {type(model).__name__}; train one .* name it last"):
        Teacher(model, dictionary())


def test_a_model_prepared_for_inference_will_do() -> None:
    """fairseq leaves such a model an `eval` that returns nothing."""
    model, (sources, hypotheses) = make(), batch()
    model.make_generation_fast_()
    found = Teacher(model, dictionary()).scores(net_input(sources), hypotheses)
    wanted = loop(make(), sources[3], hypotheses[3][0])
    assert not model.training and found[3] == pytest.approx([wanted], abs=1e-5)
