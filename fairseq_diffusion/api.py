"""Translation from Python, ``fairseq_diffusion.load(path).translate([...])``, by the code of fairseq-generate."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_diffusion import compat
from fairseq_diffusion.compat.renamed import RENAMED_FLAGS
from fairseq_diffusion.decoding.hypotheses import readable
from fairseq_diffusion.decoding.likelihood import LikelihoodScorer, SentenceLikelihood, pairs, scored_batches
from fairseq_diffusion.decoding.options import flag_of
from fairseq_diffusion.decoding.translations import Candidate, Translation
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.checkpoint import checkpoint_at, dictionaries_for, preparation_of
from fairseq_diffusion.files.preparation import Preparation, encoded
from fairseq_diffusion.files.templates import template_row
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.tasks.config import OPTIONS, DiffusionTranslationConfig, converted
from fairseq_diffusion.tasks.flags import AUTOREGRESSIVE

PRECISIONS = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"]}
RERANKER = "--iter-decode-with-external-reranker"
CONFIGS = {"task": DiffusionTranslationConfig, "generation": GenerationConfig}
OTHER_NAMES = {"selection": "select", "length_penalty": "lenpen"}  # of translate's parameters
NOT_HERE = ("oracle_length", "rescore", "complete")  # takes references; given when loading; has a method

BATCHING = Lock()  # fairseq seeds numpy's generator, which all threads have in common, while it makes batches

# What `translate` takes: where fairseq-generate's configuration has it, its section and name.
WHERE = {
    OTHER_NAMES.get(each.name, each.name): flag_of(each)
    for options in OPTIONS
    for each in fields(options)
    if each.name not in NOT_HERE
}


def load_model(
    path: str | Path,
    data: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    precision: str = "fp32",
    use_ema: bool = False,
    tokenizer: str | None = None,
    draft: str | Path | None = None,
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
        others = [str(checkpoint_at(Path(other))) for other in (draft, teacher) if other is not None]
        if others and not isinstance(models[0], TranslatorModel):
            raise UserError(
                f"a draft or a teacher is for a model of this package, but {checkpoint} is autoregressive; drop it, or "
                "name that model first"
            )
        models += checkpoint_utils.load_model_ensemble(others, task=task)[0] if others else []
    finally:
        compat.prefer_ema(False)  # for this load only
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    for model in models:  # as fairseq-generate does
        (model.half() if precision == "fp16" else model).to(device).prepare_for_inference_(cfg)
    return TranslationModel(cfg, task, models, preparation, checkpoint, has_draft=draft is not None)


def generation_config(folder: Path, preparation: Preparation, flags: list[str]) -> Any:
    """The configuration of fairseq-generate with the same on its command line."""
    languages = ["--source-lang", preparation.source, "--target-lang", preparation.target]
    given = [str(folder), "--task", compat.OUR_TASK, *languages, *flags]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra's deprecations
        return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_generation_parser(), given))


def check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


class TranslationModel:
    """A loaded checkpoint, and those of a draft and a teacher.  Threads may share it: no call changes it."""

    def __init__(
        self, cfg: Any, task: Any, models: list[Any], preparation: Preparation, checkpoint: Path, has_draft: bool
    ):
        self.cfg, self.task, self.models = cfg, task, models
        self.preparation, self.checkpoint, self.has_draft = preparation, checkpoint, has_draft
        self.kind = models[0].translator.name if isinstance(models[0], TranslatorModel) else AUTOREGRESSIVE
        self.max_positions = utils.resolve_max_positions(*(model.max_positions() for model in models))

    @property
    def device(self) -> torch.device:
        return next(self.models[0].parameters()).device

    def describe(self) -> dict[str, Any]:
        """What was loaded, and the preparation of its text."""
        return {
            "checkpoint": str(self.checkpoint),
            "kind": self.kind,
            "rescored": bool(self.cfg.generation.iter_decode_with_external_reranker),
            "draft": self.has_draft,
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
        their tokens at every step if `history` is set.
        """
        asked = {"steps": steps, "length_beam": length_beam, "noise_beam": noise_beam, "select": select, "nbest": nbest}
        return self._translated(sentences, None, batch_size, {**asked, "seed": seed, "history": history, **flags})

    def complete(
        self,
        sources: Iterable[str],
        templates: Iterable[str],
        *,
        batch_size: int = 32,
        seed: int = 1,
        **options: Any,
    ) -> list[Translation]:
        """A translation of each source that has the words of its template, in their order.

        In a template such as "___ dog ___ snow ___" a ``___`` stands for any number of words, also none; words without
        one between them stand side by side.  `options` are the other arguments of `translate`.
        """
        if isinstance(sources, str) or isinstance(templates, str):
            raise UserError("complete() takes a list of sources and a list of as many templates")
        encode, dictionary = self.preparation.of_target.encode, self.task.target_dictionary
        rows = [template_row(text, encode, dictionary) for text in templates]
        return self._translated(sources, rows, batch_size, {"seed": seed, **options})

    def _translated(
        self, sentences: Iterable[str], rows: list[torch.Tensor] | None, batch_size: int, asked: dict[str, Any]
    ) -> list[Translation]:
        """Translations of sentences with the options `asked`, and with rows of templates that they contain."""
        if isinstance(sentences, str) or not isinstance(sentences, Iterable):
            raise UserError("translate() takes a list of sentences; for one, write translate([sentence])")
        sentences = list(sentences)  # a file or a generator can be read only once
        if rows is not None and len(rows) != len(sentences):
            raise UserError(f"there are {len(sentences)} sources and {len(rows)} templates; pass one for each source")
        for name in ("nbest", "beam"):
            if (number := asked.get(name)) is not None and number < 1:
                raise UserError(f"{name} is {number}; pass 1 or more")
        cfg = self.configured(asked)
        cfg.task.complete = rows is not None
        tokens = self._prepared(sentences)
        if rows is not None and (lost := [i for i, row in enumerate(rows) if i not in tokens and (row > 0).sum() > 1]):
            raise UserError(f"source {lost[0]} (counted from 0) is empty, but has a template; pass its source, or ___")
        task, models, generator = self.prepared(cfg)
        found: dict[int, list[Candidate]] = {}
        dataset = task.build_dataset_for_inference(
            [*tokens.values()], [*map(len, tokens.values())], constraints=rows and [rows[i] for i in tokens]
        )
        for batch in self.batches(dataset, batch_size):
            hypotheses = task.inference_step(generator, models, batch, constraints=batch.get("constraints"))
            best = ([self._candidate(h) for h in own[: asked.get("nbest", 1)]] for own in hypotheses)
            found.update(zip(batch["id"].tolist(), best))
        candidates = {index: found[i] for i, index in enumerate(tokens)}
        return [Translation(text, candidates.get(i, [Candidate("", [], 0.0, 0)])) for i, text in enumerate(sentences)]

    def prepared(self, cfg: Any) -> tuple[Any, list[Any], Any]:
        """Task, models and generator of a decoding that is configured so."""
        task = copy.copy(self.task)  # another thread's call has other options
        task.cfg = cfg.task
        models = [*self.models[:1], *self.models[2:]] if self.has_draft and cfg.task.draft is None else self.models
        return task, models, task.build_generator(models, cfg.generation)

    def configured(self, asked: dict[str, Any]) -> Any:
        """fairseq-generate's configuration with the options `asked`; the task refuses one that the model does not
        read."""
        asked = {RENAMED_FLAGS.get(name, name): value for name, value in asked.items()}
        if unknown := sorted(asked.keys() - WHERE.keys()):
            raise UserError(
                f"a translation has no option {unknown[0]!r}; besides its texts and batch_size it takes "
                f"{', '.join(WHERE)}"
            )
        cfg = copy.deepcopy(self.cfg)
        for name, value in asked.items():
            flag = WHERE[name][1]
            for section in [section for section in CONFIGS if flag in cfg[section]]:  # a few flags are in both
                if value is not None and value != cfg[section][flag]:
                    cfg[section][flag] = converted(CONFIGS[section], flag, name, value)
        return cfg

    def likelihood(
        self,
        sources: Iterable[str],
        translations: Iterable[str],
        *,
        samples: int = 32,
        steps: int | None = None,
        batch_size: int = 32,
        seed: int = 1,
    ) -> list[SentenceLikelihood]:
        """-log p(translation | source) of each pair in nats, or an estimate of an upper bound on it, in their order.

        A bound is estimated from `samples` of noise; in continuous time it is that of a chain of `steps` (1000).
        """
        lists = [list(side) for side in (sources, translations) if not isinstance(side, str)]
        if len(lists) != 2 or len(lists[0]) != len(lists[1]):
            raise UserError("likelihood() takes a list of sources and a list of as many translations")
        scorer = self.likelihood_scorer(samples, steps, seed)
        targets = list(map(self.preparation.of_target.encode, lists[1]))
        dataset = pairs(self.task, self._encoded(lists[0]), targets, self.max_positions[1])
        found = dict(scored_batches(scorer, self.batches(dataset, batch_size)))
        return [found[index] for index in range(len(targets))]

    def likelihood_scorer(self, samples: int, steps: int | None, seed: int) -> LikelihoodScorer:
        if self.kind == AUTOREGRESSIVE:
            raise UserError(
                f"{self.checkpoint} is autoregressive; fairseq-generate --score-reference gives the likelihood of "
                "references by such a model"
            )
        return LikelihoodScorer(self.models[0].translator, self.task.target_dictionary, samples, steps, seed)

    def _prepared(self, sentences: Sequence[str]) -> dict[int, torch.Tensor]:
        """Tokens by the index of each sentence that is not empty."""
        return {index: tokens for index, tokens in enumerate(self._encoded(sentences)) if len(tokens) > 1}

    def _encoded(self, sentences: Sequence[str]) -> list[torch.Tensor]:
        """Tokens of each sentence; one that is no text or too long is refused."""
        words = self.task.source_dictionary
        encode = lambda text: words.encode_line(self.preparation.encode(text), add_if_not_exist=False).long()  # noqa: E731
        return encoded(sentences, encode, self.max_positions[0])

    def batches(self, dataset: Any, batch_size: int | None, **other: Any) -> Iterator[dict[str, Any]]:
        """fairseq's batches, of sentences of similar length; `other` as of fairseq's get_batch_iterator."""
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; pass 1 or more")
        if not len(dataset):
            return
        sizes = {"max_sentences": batch_size, "max_positions": self.max_positions, **other}
        with BATCHING:
            batches = copy.copy(self.task).get_batch_iterator(dataset=dataset, disable_iterator_cache=True, **sizes)
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
