"""The registered model `diffusion`: a DiffusionTranslator, built from flags, that fairseq can train and save."""

from __future__ import annotations

from typing import Any, cast

from fairseq.models import register_model

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import BOS, TranslatorModel, enter_architectures, length_head, size_of
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.models.diffusion_checks import PARTS, check, parse_freeze
from fairseq_diffusion.models.latents import add_latents, check_latents, latents_of
from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.denoiser import DENOISERS, Denoiser
from fairseq_diffusion.network.encoder import Encoder, SharedWords, own_words
from fairseq_diffusion.network.transformer import entry_scale
from fairseq_diffusion.objective.terms import Objective
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.samplers.loop import sampler_for
from fairseq_diffusion.states.base import STATES, State
from fairseq_diffusion.translators.diffusion import DiffusionTranslator


def build_diffusion(cfg: Any, source_words: int, target_words: int, symbols: Symbols) -> DiffusionTranslator:
    """The parts that `cfg` names, for dictionaries of the given sizes; the target's ends with the mask where the state
    needs one."""
    check(cfg)
    state = STATES[str(cfg.state)].build(target_words, symbols, cfg)
    sampler_for(state, str(cfg.sampler))
    schedule = schedule_of(cfg)
    if state.paired:
        check_latents(cfg)
        add_latents(cfg, state, schedule)
    translator = DiffusionTranslator(
        encoder=encoder_of(cfg, state, source_words),
        denoiser=denoiser_of(cfg, state, symbols),
        state=state,
        schedule=schedule,
        length=length_head(cfg),
        prediction=PREDICTIONS[str(cfg.prediction)],
        objective=Objective(cfg.objective, str(cfg.loss_normaliser)),
        time_sampler=TIME_SAMPLERS[str(cfg.time_sampler)](cfg.time_mean, cfg.time_spread),
        self_conditioning=str(cfg.self_conditioning),
        self_conditioning_probability=cfg.self_conditioning_probability,
        self_conditioning_on=str(cfg.self_conditioning_on),
        self_conditioning_gap=cfg.self_conditioning_gap,
        word_time_spread=cfg.word_time_spread,
        label_smoothing=cfg.label_smoothing,
        source_drop=cfg.source_drop,
        length_loss=cfg.length_loss,
        length_training=str(cfg.length_training),
        adapt_every=cfg.schedule_update,
        unroll=cfg.unroll,
        seed=cfg.seed,
        special_ids=[number for number in (*symbols[:4], *symbols.tags) if number >= 0],
        filled_canvas=canvas_of(cfg, symbols),
        latents=latents_of(cfg, lambda: SharedWords(state, cfg.hidden)),
    )
    freeze(translator, str(cfg.length_training), parse_freeze(cfg.freeze))
    return translator


def canvas_of(cfg: Any, symbols: Symbols) -> FilledCanvas | None:
    """Room that may be larger than targets, where --length-target says so."""
    longest = cfg.max_target_positions + BOS
    if cfg.length_target == "canvas":
        size = cfg.canvas_positions, cfg.canvas_scale
        return FilledCanvas(symbols.eos, symbols.pad, longest, *size, blank=symbols.mask, blanks=cfg.canvas_blanks)
    return FilledCanvas(symbols.eos, symbols.pad, longest, unit=2) if cfg.length_target == "half" else None


def encoder_of(cfg: Any, state: State, source_words: int) -> Encoder:
    words = SharedWords(state, cfg.hidden) if cfg.share_embeddings else own_words(source_words, cfg.hidden)
    positions = cfg.max_source_positions + BOS
    how = entry_scale(cfg), not cfg.no_encoder_norm, cfg.encode_length
    return Encoder(words, size_of(cfg), cfg.encoder_layers, positions, *how)


def denoiser_of(cfg: Any, state: State, symbols: Symbols) -> Denoiser:
    return DENOISERS[str(cfg.conditioning)](
        state,
        size_of(cfg),
        cfg.decoder_layers,
        cfg.max_target_positions + BOS,
        cfg.self_conditioning != "none",
        str(cfg.time_features),
        str(cfg.time_activation),
        str(cfg.time_conditioning),
        symbols.mask if cfg.hide_masked else None,
        not cfg.no_entry_norm,
    )


def schedule_of(cfg: Any) -> Schedule:
    return Schedule(str(cfg.schedule), str(cfg.schedule_modifier), cfg.noise_factor, cfg.diffusion_steps, cfg.time_min)


def freeze(translator: DiffusionTranslator, length_training: str, parts: list[str]) -> None:
    """Frozen parameters stay out of the optimiser, so that weight decay cannot shrink them either."""
    if length_training == "only":
        translator.requires_grad_(False)
    if translator.length is not None:
        translator.length.requires_grad_(length_training != "off")
    state = cast(Any, translator.state)
    own = set(state.encoder.parameters()) if state.paired else set()  # which are no embeddings
    for part in parts:
        for parameter in set(getattr(translator, PARTS[part]).parameters()) - own:
            parameter.requires_grad_(parameter is translator.state.reader and length_training != "only")
    if not any(parameter.requires_grad for parameter in translator.parameters()):
        raise UserError(
            f"--freeze {','.join(parts)} and --length-training {length_training} leave nothing to train; name fewer "
            "parts"
        )


@register_model("diffusion", dataclass=DiffusionConfig)
class DiffusionModel(TranslatorModel):
    """Denoises step by step."""

    Config = DiffusionConfig
    build_translator = staticmethod(build_diffusion)

    @staticmethod
    def needs_mask(cfg: Any) -> bool:
        return STATES[str(getattr(cfg, "state", DiffusionConfig.state))].needs_mask(cfg)


enter_architectures("diffusion")
