"""Translate from Python: ``fairseq_diffusion.load(path).translate([...])``, by the code behind fairseq-generate."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_diffusion import compat
from fairseq_diffusion.decoding.hypotheses import readable
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.preparation import Preparation, checkpoint_at, dictionaries_for, preparation_of
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig

PRECISIONS = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"]}
RERANKER = "--iter-decode-with-external-reranker"
AUTOREGRESSIVE = "autoregressive"
SEARCH = ("beam", "lenpen")  # fairseq's flags of beam search, also of that in a graph of words
NOT_HERE = {"use_ema", "raw_reference", "oracle_length"}  # said when loading, or about references
RENAMED = {"length_beam": "length_beam_kind", "selection": "select", "decode_seed": "seed"}
CONFIGS = {"task": DiffusionTranslationConfig, "generation": GenerationConfig}
FAIRSEQS = {"steps": "iter_decode_max_iter", "length_beam": "iter_decode_with_beam", "history": "retain_iter_history"}
OURS = {each.name for each in fields(DiffusionTranslationConfig)} - {each.name for each in fields(TranslationConfig)}

# What `translate` takes: where fairseq-generate's configuration has it, and under which name.
WHERE = {
    **{name: ("generation", flag) for name, flag in FAIRSEQS.items()},
    **{name: ("generation", name) for name in ("nbest", *SEARCH)},
    **{RENAMED.get(name, name): ("task", name) for name in sorted(OURS - NOT_HERE)},
}


@dataclass
class Candidate:
    """A translation of a sentence.  `tokens` are as in the dictionary, without the end of the sentence; `score` is the
    mean natural log-probability of tokens and end (fairseq-generate prints it to base 2)."""

    text: str
    tokens: list[str]
    score: float
    calls: int  # of the decoder; for an autoregressive model, one a token and one for the end
    history: list[dict[str, list[Any]]] = field(default_factory=list, repr=False)  # "tokens" and "p" of each step


@dataclass
class Translation:
    """What a sentence was translated to: its `candidates`, the best first; it is itself spoken of as the best one."""

    source: str
    candidates: list[Candidate]

    @property
    def text(self) -> str:
        return self.candidates[0].text

    @property
    def tokens(self) -> list[str]:
        return self.candidates[0].tokens

    @property
    def score(self) -> float:
        return self.candidates[0].score

    @property
    def calls(self) -> int:
        return self.candidates[0].calls

    def record(self, number: int) -> dict[str, Any]:
        """As a line of generate-SUBSET.history.jsonl has it, and as `plotting` draws it."""
        candidates = [
            {"text": each.text, "score": each.score, "calls": each.calls, "steps": each.history}
            for each in self.candidates
        ]
        return {"id": number, "source": self.source, "candidates": candidates}


def load_model(
    path: str | Path,
    data: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    precision: str = "fp32",
    use_ema: bool = False,
    tokenizer: str | None = None,
) -> TranslationModel:
    """See :func:`fairseq_diffusion.load`."""
    if precision not in PRECISIONS:
        raise UserError(f"the precision {precision!r} is none of {', '.join(PRECISIONS)}")
    checkpoint = checkpoint_at(Path(path))
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint), {"use_ema": use_ema})
        saved = state["cfg"].task if state.get("cfg") else state["args"]
        folder = dictionaries_for(checkpoint, Path(data) if data else None, getattr(saved, "data", None))
        preparation = preparation_of(checkpoint, folder, saved, tokenizer)
        flags = [*PRECISIONS[precision], *["--use-ema"] * use_ema, *[RERANKER] * (teacher is not None)]
        cfg = generation_config(folder, preparation, flags)
        task = tasks.setup_task(cfg.task)
        models = checkpoint_utils.load_model_ensemble([str(checkpoint)], task=task, state=state)[0]
        if teacher is not None:
            check_rescorable(models[0], checkpoint)
            models += checkpoint_utils.load_model_ensemble([str(checkpoint_at(Path(teacher)))], task=task)[0]
    finally:
        compat.prefer_ema(False)  # of this load, and of no later one
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    for model in models:  # as fairseq-generate does
        (model.half() if precision == "fp16" else model).to(device).prepare_for_inference_(cfg)
    return TranslationModel(cfg, task, models, preparation, checkpoint)


def generation_config(folder: Path, preparation: Preparation, flags: list[str]) -> Any:
    """What fairseq-generate would work with, had it been given the same on its command line."""
    languages = ["--source-lang", preparation.source, "--target-lang", preparation.target]
    given = [str(folder), "--task", compat.OUR_TASK, *languages, *flags]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra has much to say of its own past
        return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_generation_parser(), given))


def check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def check_rescorable(model: Any, checkpoint: Path) -> None:
    if not hasattr(model, "translator"):
        raise UserError(
            f"a teacher chooses among a diffusion model's candidates, but {checkpoint} is autoregressive itself; drop "
            "teacher, or name the diffusion model first"
        )


class TranslationModel:
    """A loaded checkpoint, and with a teacher a second one."""

    def __init__(self, cfg: Any, task: Any, models: list[Any], preparation: Preparation, checkpoint: Path):
        self.cfg, self.task, self.models = cfg, task, models
        self.preparation, self.checkpoint = preparation, checkpoint
        self.kind = getattr(models[0], "kind", AUTOREGRESSIVE)
        self.max_positions = utils.resolve_max_positions(*(model.max_positions() for model in models))

    @property
    def device(self) -> torch.device:
        return next(self.models[0].parameters()).device

    def describe(self) -> dict[str, Any]:
        """What was loaded, and how text is prepared for it."""
        return {
            "checkpoint": str(self.checkpoint),
            "kind": self.kind,
            "rescored": len(self.models) > 1,
            "longest_source": self.max_positions[0],
            "device": str(self.device),
            **self.preparation.describe(),
        }

    def translate(
        self,
        sentences: Iterable[str],
        *,
        steps: int | None = None,
        length_beam: int = 1,
        noise_beam: int = 1,
        select: str | None = None,
        nbest: int = 1,
        batch_size: int = 32,
        seed: int = 1,
        history: bool = False,
        **flags: Any,
    ) -> list[Translation]:
        """A translation of each sentence, in their order; an empty sentence has an empty one.

        `steps` is fairseq-generate's --iter-decode-max-iter (10 unless given), `length_beam` its
        --iter-decode-with-beam, `select` our --selection.  `flags` are the other flags of our task by their names, as
        in ``sampler="cedi"``, and `beam` and `lenpen` of a beam search.  The best `nbest` candidates are kept, with
        what they said at every step if `history` is asked for.
        """
        check_at_least_one(batch_size=batch_size, nbest=nbest, beam=flags.get("beam") or 1)
        if isinstance(sentences, str):
            raise UserError("translate() takes a list of sentences; for one, write translate([sentence])")
        sentences = list(sentences)  # of a file or a generator, which can be read once
        asked = {"steps": steps, "length_beam": length_beam, "noise_beam": noise_beam, "select": select, "nbest": nbest}
        cfg = self._configured({**asked, "seed": seed, "history": history, **flags})
        tokens = self._prepared(sentences)
        self.task.cfg = cfg.task
        generator = self.task.build_generator(self.models, cfg.generation)
        found: dict[int, list[Candidate]] = {}
        for batch in self._batches(list(tokens.values()), batch_size):
            hypotheses = self.task.inference_step(generator, self.models, batch)
            found.update(zip(batch["id"].tolist(), ([self._candidate(h) for h in own[:nbest]] for own in hypotheses)))
        candidates = {place: found[number] for number, place in enumerate(tokens)}
        return [Translation(text, candidates.get(i, [Candidate("", [], 0.0, 0)])) for i, text in enumerate(sentences)]

    def _configured(self, asked: dict[str, Any]) -> Any:
        """fairseq-generate's configuration with what was `asked`, all of which this model reads."""
        if unknown := sorted(asked.keys() - WHERE.keys()):
            raise UserError(
                f"translate() knows no {unknown[0]!r}; besides sentences and batch_size it takes {', '.join(WHERE)}"
            )
        cfg = copy.deepcopy(self.cfg)
        for name, value in asked.items():
            part, flag = WHERE[name]
            if value is not None and value != cfg[part][flag]:
                self._check_read(name)
                cfg[part][flag] = converted(CONFIGS[part], flag, name, value)
        return cfg

    def _check_read(self, name: str) -> None:
        """fairseq-generate passes over what beam search does not read; nobody is to believe that it did something."""
        of_search = (*SEARCH, "nbest", "seed")
        if self.kind == AUTOREGRESSIVE and name not in of_search:
            raise UserError(
                f"this model is autoregressive and does not read {name!r}; drop it ({', '.join(of_search)})"
            )
        if self.kind == "diffusion" and name in SEARCH:
            raise UserError(f"a Gaussian model has no beam search and does not read {name!r}; drop it")

    def _prepared(self, sentences: Sequence[str]) -> dict[int, torch.Tensor]:
        """Tokens by the places of the sentences that are not empty, none of them longer than the model takes."""
        encoded, _ = self.task.get_interactive_tokens_and_lengths(sentences, self.preparation.encode)
        longest = self.max_positions[0]
        for place, tokens in enumerate(encoded):
            if len(tokens) > longest:
                raise UserError(
                    f"sentence {place} (counted from 0) has {len(tokens)} tokens with its end, but this model takes up "
                    f"to {longest}; split it"
                )
        return {place: tokens for place, tokens in enumerate(encoded) if len(tokens) > 1}

    def _batches(self, tokens: list[torch.Tensor], batch_size: int) -> Iterator[dict[str, Any]]:
        """fairseq's batches, of sentences alike in length."""
        if not tokens:
            return
        dataset = self.task.build_dataset_for_inference(tokens, [len(row) for row in tokens])
        batches = self.task.get_batch_iterator(
            dataset=dataset, max_sentences=batch_size, max_positions=self.max_positions, disable_iterator_cache=True
        )
        for batch in batches.next_epoch_itr(shuffle=False):
            yield utils.apply_to_sample(lambda tensor: tensor.to(self.device), batch)

    def _candidate(self, hypothesis: dict[str, Any]) -> Candidate:
        dictionary = self.task.target_dictionary
        tokens = hypothesis["tokens"].int().cpu()
        return Candidate(
            text=self.preparation.decode(dictionary.string(tokens)),
            tokens=[dictionary[token] for token in tokens.tolist() if token != dictionary.eos()],
            score=float(hypothesis["score"]),
            calls=hypothesis.get("steps", len(tokens)),
            history=readable(hypothesis.get("history", ()), dictionary),
        )


def converted(config: type, flag: str, name: str, value: Any) -> Any:
    """`value` as the type, or one of the choices, that a configuration has for a flag."""
    typed = OmegaConf.structured(config)
    try:
        typed[flag] = value
    except OmegaConfBaseException as error:
        raise UserError(f"{name} is {value!r}: {str(error).splitlines()[0]}") from error
    return typed[flag]


def check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} is {number}; pass 1 or more")
