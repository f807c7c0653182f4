"""The registered task: fairseq's translation, with diffusion decoding and errors that explain themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import register_task
from fairseq.tasks.fairseq_task import FairseqTask
from fairseq.tasks.translation import TranslationTask

from fairseq_diffusion import compat
from fairseq_diffusion.compat.batches import EpochBatches
from fairseq_diffusion.compat.renamed import note_old_names, with_new_names
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions, read_options
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.templates import GAP_WORD, template_row
from fairseq_diffusion.kernels import choice as kernels
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.tasks.bleu import bleu_counts, log_bleu
from fairseq_diffusion.tasks.checks import (
    check_data,
    check_dictionary,
    check_direction,
    check_split,
    check_whole,
    fingerprint,
)
from fairseq_diffusion.tasks.config import DataConfig, DiffusionTranslationConfig
from fairseq_diffusion.tasks.data import check_files
from fairseq_diffusion.tasks.dictionary import TableDictionary
from fairseq_diffusion.tasks.durations import check_learnt, check_not_decoding, with_durations
from fairseq_diffusion.tasks.flags import check_autoregressive_flags, check_flags
from fairseq_diffusion.tasks.interactive import Lines
from fairseq_diffusion.tasks.starting import starting_state
from fairseq_diffusion.tasks.teacher import check_alone, check_count, check_embeddings, check_when_loaded
from fairseq_diffusion.tasks.updates import FiniteUpdates
from fairseq_diffusion.translators.latents import GAIN, LEAST_GAIN, MADE_GAIN

logger = logging.getLogger(__name__)


@register_task("diffusion_translation", dataclass=DiffusionTranslationConfig)
class DiffusionTranslationTask(FiniteUpdates, TranslationTask):
    """Data are those of fairseq's translation task, from the same data-bin."""

    cfg: DataConfig
    tgt_dict: TableDictionary

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.begin_update()
        self.flags_are_given = True  # on a command line; those of a checkpoint are its own model's
        self._lines: Lines | None = None  # of fairseq-interactive

    @classmethod
    def setup_task(cls, cfg: DataConfig, **kwargs: Any) -> DiffusionTranslationTask:
        check_data(cfg)
        note_old_names()
        compat.prefer_ema(cfg.use_ema)
        compat.read_every_line()
        if not kwargs.get("from_checkpoint"):  # another machine's choice is not this one's
            kernels.use(cfg.kernels)
        task = super().setup_task(cfg, **kwargs)
        task.flags_are_given = not kwargs.get("from_checkpoint")
        return task

    @classmethod
    def load_dictionary(cls, filename: str) -> TableDictionary:
        return TableDictionary.load(filename)

    # -- what a checkpoint remembers of its data --------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Saved in every checkpoint as fairseq's `task_state`; a mask symbol is a model's, and not the data's."""
        sides = {"source": fingerprint(self.src_dict), "target": fingerprint(self.tgt_dict.of_data())}
        return {**sides, "languages": [self.cfg.source_lang, self.cfg.target_lang]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = self.state_dict()
        check_direction(own.pop("languages"), state.get("languages"))
        for side, ours in own.items():
            if side in state:
                check_dictionary(side, ours, state[side])

    def starting_state(self, state: dict[str, Any], model: Any, path: str, finetunes: bool) -> dict[str, Any]:
        """The checkpoint that a training of `model` starts from or goes on with."""
        dictionaries = {"source": self.src_dict, "target": self.tgt_dict.of_data()}
        return starting_state(state, model, path, finetunes, self.cfg, dictionaries)

    # -- data -------------------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        paths = utils.split_paths(self.cfg.data)
        directory = paths[(epoch - 1) % len(paths)] if split == self.cfg.train_subset else paths[0]
        if self.completes:
            raise UserError(
                "--complete reads a template with each sentence, which this command has none of; pass it to "
                "fairseq-interactive, or write TranslationModel.complete() in Python"
            )
        check_split(directory, split, self.cfg.source_lang, self.cfg.target_lang)
        sides = {self.cfg.source_lang: self.src_dict, self.cfg.target_lang: self.tgt_dict.of_data()}
        check_files(Path(directory), split, sides)
        super().load_dataset(split, epoch, combine, **kwargs)
        if getattr(self.cfg, "durations", None):  # a checkpoint of an earlier version has no such flag
            self.datasets[split] = with_durations(self.datasets[split], self.cfg, split, epoch, combine)

    def filter_indices_by_size(
        self, indices: np.ndarray, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> np.ndarray:
        kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
        for index in ignored if not ignore_invalid_inputs else ():
            sentence = (
                f"has {tuple(map(int, dataset.size(index)))} tokens (source, target), but this model takes up to "
                f"{max_positions}; leave it out with --skip-invalid-size-inputs-valid-test, or split it"
            )
            if self._lines is None:
                raise UserError(f"sentence {index} {sentence}")
            self._lines.refuse(index, sentence)
        if self._lines is not None:
            return self._lines.kept(kept)
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    @property
    def completes(self) -> bool:
        """Whether translations are made of templates; a checkpoint of an earlier version has no such flag."""
        return getattr(self.cfg, "complete", False)

    def get_interactive_tokens_and_lengths(self, lines: list[str], encode_fn: Any) -> Any:
        """With --complete, templates behind a tab are kept for the data that is made next."""

        def parse(line: str) -> tuple[str, Any]:
            source, _, template = line.partition("\t") if self.completes else (line, "", "")
            return source, self.completes and template_row(template or GAP_WORD, encode_fn, self.tgt_dict)

        self._lines = self._lines or Lines()
        sources, self._templates = zip(*self._lines.read(lines, parse))
        tokens, lengths = super().get_interactive_tokens_and_lengths(sources, encode_fn)
        if self.completes:
            self._lines.check(zip(self._templates, tokens), lambda line: self._generator.check_template(*line))
        return tokens, lengths

    def build_dataset_for_inference(self, src_tokens: Any, src_lengths: Any, constraints: Any = None) -> Any:
        if self.completes and constraints is None:
            constraints = list(self._templates)
        return super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)

    def can_reuse_epoch_itr(self, dataset: Any) -> bool:
        """Never: fairseq after 0.12.2 keeps the batches of the epoch it started in, so a resumed training, started in a
        later epoch, would see other batches than the uninterrupted one.  Iterators that are not reused must end their
        workers: see `EpochBatches`."""
        return False

    def get_batch_iterator(
        self, dataset: Any, *args: Any, required_batch_size_multiple: int = 1, **kwargs: Any
    ) -> EpochBatches:
        """Batches of any size: after 0.12.2, fairseq drops a last batch that is no multiple, even in generate."""
        batches = super().get_batch_iterator(dataset, *args, required_batch_size_multiple=1, **kwargs)
        self._last_batches = EpochBatches(batches)
        return self._last_batches

    # -- models and decoding ------------------------------------------------------------------------------------------

    def build_model(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """A model that wants a mask symbol finds it in the target dictionary, to which others here have a reference
        already; to any other model the dictionary is the data's."""
        found = class_of(cfg)
        if not issubclass(found, TranslatorModel):
            return self._build_other(cfg, *args, **kwargs)
        with_new_names(cfg)
        if found.needs_mask(cfg):
            self.tgt_dict.add_mask()
            return super().build_model(cfg, *args, **kwargs)
        with self._data_dictionary():
            return super().build_model(cfg, *args, **kwargs)

    def _build_other(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """An AR model: a baseline, or one that rescores."""
        with self._data_dictionary():
            check_embeddings(cfg, self.src_dict, self.tgt_dict)
            model = super().build_model(cfg, *args, **kwargs)
            return check_when_loaded(model, {"source": len(self.src_dict), "target": len(self.tgt_dict)})

    @contextmanager
    def _data_dictionary(self) -> Iterator[None]:
        """Within it, the target dictionary has no mask symbol."""
        own, self.tgt_dict = self.tgt_dict, self.tgt_dict.of_data()
        try:
            yield
        finally:
            self.tgt_dict = own

    def begin_epoch(self, epoch: int, model: Any) -> None:
        super().begin_epoch(epoch, model)
        check_whole(model)
        check_learnt(self.cfg, model)

    def build_generator(self, models: list[Any], args: Any, **kwargs: Any) -> Any:
        model = models[0]
        if self.flags_are_given:
            check_not_decoding(self.cfg)
        if not isinstance(model, TranslatorModel):  # an AR baseline, decoded with our batches and our report
            check_alone(models, self.completes)
            if self.flags_are_given:
                check_autoregressive_flags(self.cfg, args)
            return super().build_generator(models, args, **kwargs)
        check_flags(self.cfg, args, model.translator)
        options = read_options(model.translator.Options, self.cfg, args, model.cfg)
        selection = read_options(SelectionOptions, self.cfg, args, model.cfg)
        check_count(models, selection.rescore, options.draft is not None)
        teacher = Teacher(models[-1], self.tgt_dict, selection.rescore_by) if selection.rescore else None
        drafts = self._drafts_by(models[1], selection) if options.draft is not None else None
        generator = Generator(model.translator, options, selection, self.tgt_dict, teacher, drafts)
        selection.check_read(generator.decoder.candidates)
        self._generator = generator
        return generator

    def _drafts_by(self, model: TranslatorModel, selection: SelectionOptions) -> Generator:
        """What makes drafts: it decodes as its own system does."""
        options = read_options(model.translator.Options, None, None, model.cfg)
        # by another seed: the noise that is added to a draft must not be the noise that it was made from
        plain = SelectionOptions(candidate_positions=selection.candidate_positions, seed=selection.seed + 1)
        return Generator(model.translator, options, plain, self.tgt_dict)

    # -- validation -------------------------------------------------------------------------------------------------

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Called by fairseq after each validation subset, whose iterator is the last one that was made."""
        self._last_batches.close()
        if MADE_GAIN in stats and (gain := stats[GAIN]) < LEAST_GAIN:
            logger.warning(
                f"latents, even those of the targets themselves, lower the loss of a word by {gain:.4f} in validation, "
                "so words do without them; train with another --seed, or with --latents-contrast"
            )

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        loss, sample_size, log = FairseqTask.valid_step(self, sample, model, criterion)
        if self.cfg.eval_bleu:
            log.update(self._bleu_of(self.sequence_generator, sample, model))
        return loss, sample_size, log

    def _bleu_of(self, generator: Generator, sample: Any, model: Any) -> dict[str, int]:
        best = [hypotheses[0]["tokens"] for hypotheses in self.inference_step(generator, [model], sample)]
        targets = [utils.strip_pad(target, self.tgt_dict.pad()) for target in sample["target"]]
        hypotheses = [self._text(tokens, "UNKNOWNTOKENINHYP") for tokens in best]
        references = [self._text(tokens, "UNKNOWNTOKENINREF") for tokens in targets]
        if self.cfg.eval_bleu_print_samples:
            print(f"hypothesis: {hypotheses[0]}\nreference:  {references[0]}")
        return bleu_counts(hypotheses, references, "none" if self.cfg.eval_tokenized_bleu else "13a")

    def _text(self, tokens: torch.Tensor, unknown: str) -> str:
        """Words joined; unknown words on the two sides must not match."""
        text = self.tgt_dict.string(tokens.int().cpu(), self.cfg.eval_bleu_remove_bpe, unk_string=unknown)
        return self.tokenizer.decode(text) if self.tokenizer else text

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        FairseqTask.reduce_metrics(self, logging_outputs, criterion)
        if self.cfg.eval_bleu:
            log_bleu(logging_outputs)


def class_of(cfg: Any) -> Any:
    """The class of the model that fairseq builds from `cfg`, found as fairseq does by the name of an architecture or a
    model (hydra may nest it)."""
    name = getattr(cfg, "_name", None) or getattr(cfg, "arch", None) or next(iter(cfg), None)
    found = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    if found is None:
        raise UserError(
            f"the model is of the architecture {name!r}, which is not registered here; pass the --user-dir that it was "
            "trained with"
        )
    return found
