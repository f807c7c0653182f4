"""The model's flags: which part, and how large.  A field's help is its documentation."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_diffusion.network.denoiser import DENOISERS, TIME_CONDITIONING
from fairseq_diffusion.network.latent_maps import LATENT_MAPS
from fairseq_diffusion.network.length import BEAMS, LENGTH_MAPS, TARGETS
from fairseq_diffusion.network.time_features import TIME_FEATURES
from fairseq_diffusion.network.transformer import ACTIVATIONS
from fairseq_diffusion.objective.reduction import NORMALISERS
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.samplers.gaussian import SAMPLERS
from fairseq_diffusion.samplers.grid import GRIDS
from fairseq_diffusion.states.base import STATES
from fairseq_diffusion.states.embedding import NORMS
from fairseq_diffusion.translators.chain import CONDITIONS
from fairseq_diffusion.translators.diffusion import LENGTH_TRAINING, SELF_CONDITIONING


def flag(default: Any, help: str, alias: Optional[str] = None) -> Any:
    """`alias`: what the flag was called before, as users typed it."""
    return field(default=default, metadata={"help": help, **({"argparse_alias": alias} if alias else {})})


@dataclass
class NetworkConfig(FairseqDataclass):
    """What every kind of model has.  Defaults are neutral; what a paper chose is in its presets, named by --arch."""

    # network
    hidden: int = flag(512, "width of encoder and decoder")
    inner: int = flag(2048, "width inside the feed-forward layers")
    heads: int = flag(8, "attention heads")
    encoder_layers: int = flag(6, "layers of the encoder")
    decoder_layers: int = flag(6, "layers of the decoder (a diffusion model's denoiser)")
    dropout: float = flag(0.1, "dropout on embeddings and residuals")
    attention_dropout: Optional[float] = flag(None, "dropout on attention weights (default: as --dropout)")
    activation_dropout: Optional[float] = flag(None, "dropout inside the feed-forward layers (default: as --dropout)")
    activation: ChoiceEnum(list(ACTIVATIONS)) = flag("gelu", "activation of the feed-forward layers")
    pre_norm: bool = flag(False, "LayerNorm before each sub-layer instead of after it")
    share_embeddings: bool = flag(False, "the encoder reads the target's embeddings too (joined dictionary)")
    scale_embeddings: bool = flag(
        False,
        "multiply the embeddings of words that encoder and decoder read by sqrt(--hidden), as fairseq's models do; the "
        "vectors of --state embedding are not scaled",
    )
    no_encoder_norm: bool = flag(False, "no LayerNorm behind the last layer of the encoder")
    no_entry_norm: bool = flag(False, "no LayerNorm before the first layer of the decoder")
    init_parts: str = flag(
        "",
        "what to take of an AR model that --finetune-from-model names (without effect where it names none), as in "
        "encoder,embeddings; encoder, embeddings or decoder (default: all that this model has a like for; of vectors "
        "the encoder, or embeddings if these are frozen)",
    )
    tags: str = flag(
        "",
        "entries of the dictionary that stand in front of sources and say into which language to translate, as in "
        "'<2de>,<2fr>' or, with * for any characters, '<2*>'; never drawn as noise, never part of a translation",
    )
    # latents
    latents: int = flag(
        0,
        "latent vectors of a target that its words are read from beside the source; in decoding a chain of their own "
        "makes them first (0: none, and the flags below have no effect)",
    )
    latents_dim: int = flag(64, "width of a latent")
    latents_layers: int = flag(2, "layers of the encoder of targets, and of the latents' denoiser")
    latents_loss: float = flag(1.0, "weight of the latents' own loss")
    latents_start: int = flag(
        0,
        "update from which on the latents are learnt; before it their encoder and the words alone (joint: the encoder "
        "only before it)",
    )
    latents_objective: str = flag("mse=1", "loss terms and weights of the latents' chain: mse, v_mse, snr_mse")
    latents_prediction: ChoiceEnum(("x_0", "v")) = flag("x_0", "what the latents' denoiser predicts")
    latents_schedule: ChoiceEnum(list(CURVES)) = flag("cosine", "noise curve of the latents")
    latents_noise_factor: float = flag(
        1.0, "divide the signal-to-noise ratio of the latents' curve by the square of this (10: nearly all is noise)"
    )
    latents_source_drop: float = flag(0.0, "train the latents' denoiser without its source this often")
    latents_drop: float = flag(0.15, "train the words without latents this often")
    latents_hide: float = flag(0.0, "share of a target's words that the encoder of targets does not see in training")
    latents_noise: float = flag(0.0, "standard deviation of noise on the latents that words are trained with")
    latents_penalty: float = flag(
        0.0, "weight of half the square of the latents, which then have any norm (0: all have the norm of sqrt(D))"
    )
    latents_contrast: float = flag(
        0.0, "weight of telling latents by another view of their target, with other words hidden by --latents-hide"
    )
    # loss
    label_smoothing: float = flag(0.0, "label smoothing where words are predicted (rounding and anchor terms too)")
    loss_normaliser: ChoiceEnum(NORMALISERS) = flag(
        "sentences",
        "what counts alike in a batch's loss: sentences; tokens, so that a sentence's length weighs all its losses; or "
        "words, so that each loss is a mean over what it is of, the words that it counts or the lengths",
    )
    frequency_contrast: float = flag(
        0.0,
        "weight of a contrast that keeps the states of different words apart, those of rare words more (FCL as we read "
        "it; 0: none, and the two flags below have no effect)",
    )
    contrast_temperature: float = flag(0.1, "temperature of the contrast, 0.03 or more")
    contrast_dropout: float = flag(0.1, "dropout of a state that makes a second view of it, for the contrast")
    # length
    length_target: ChoiceEnum((*TARGETS, "durations", "canvas")) = flag(
        "difference",
        "predict the difference to the source's length, the length, or half of it, rounded up; how many words stand "
        "for each token of the source, whose sum is the length (durations); or nothing: a canvas of "
        "--canvas-positions, where other flags of the length have no effect. A half or a canvas is filled with </s> "
        "behind the target's end, which is predicted as words are (both are for diffusion)",
    )
    length_classes: int = flag(256, "classes of the length predictor")
    duration_classes: int = flag(
        8, "durations: classes of each token's, 0, 1, ... words; for further ones there are words of no token"
    )
    length_map: ChoiceEnum(list(LENGTH_MAPS)) = flag(
        "mlp", "map from the mean encoder state to the length's classes, or from each state to its token's durations"
    )
    length_grad: bool = flag(False, "let the length loss train the encoder too")
    length_loss: float = flag(0.1, "weight of the length loss")
    length_beam: ChoiceEnum(BEAMS) = flag("top_k", "lengths to try: the likeliest, or the likeliest and its neighbours")
    # taken from elsewhere
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")
    seed: int = II("common.seed")


@dataclass
class DiffusionConfig(NetworkConfig):
    """What a diffusion model has besides."""

    # state
    state: ChoiceEnum(list(STATES)) = flag(
        "embedding",
        "what is corrupted: vectors of words, words themselves, or words and --latents of them at once (joint)",
    )
    mask_share: float = flag(
        1.0,
        "tokens: share of the corrupted words that are hidden; the others are replaced by random words",
    )
    latent_dim: int = flag(16, "width D of the diffused target embeddings")
    embedding_norm: ChoiceEnum(list(NORMS)) = flag(
        "l2", "embeddings as they are, times sqrt(D) (scaled), of norm sqrt(D) (l2), or behind a LayerNorm"
    )
    embedding_init_std: float = flag(1e-3, "standard deviation of the embeddings at the start")
    embedding_noise: float = flag(
        0.0, "standard deviation of the noise that a word's vector has in training before it is corrupted"
    )
    own_readout: bool = flag(
        False,
        "words are read by a table of its own, which starts as their vectors; needs --freeze embeddings",
    )
    soft_absorb: float = flag(
        0.0,
        "embeddings are corrupted around a learned vector, and by it: this times the noise's share is the probability "
        "that it stands in a word's place (0: there is none)",
    )
    latents_own_time: bool = flag(
        False, "joint: in training latents are corrupted at a time of their own, not that of the words"
    )
    # schedule
    schedule: ChoiceEnum(list(CURVES)) = flag("sigma_t", "base noise curve sigma(t)")
    schedule_modifier: ChoiceEnum(list(MODIFIERS)) = flag("none", "what changes the base curve")
    schedule_update: int = flag(50, "adapt the schedule every so many updates")
    noise_factor: float = flag(1.0, "noise factor F of the modifiers factor and factor_vp")
    diffusion_steps: int = flag(0, "train on a table of so many steps; 0: continuous time")
    time_min: float = flag(0.0, "smallest diffusion time to train on")
    # prediction, objective, time sampling
    prediction: ChoiceEnum(list(PREDICTIONS)) = flag(
        "x_0",
        "what the network's output means: x_0, v = alpha eps - sigma x_0, or how probable words are, where x_0 is the "
        "mean of their vectors (expected; posterior: beside what x_t says of each word by itself)",
    )
    objective: str = flag(
        "mse=1,rounding=1",
        "loss terms and weights: mse, v_mse (times 1 + SNR), rounding (on x_0), anchor (on x_0-hat), prior, center "
        "(--soft-absorb's vector), snr_mse and reconstruction (the bound in nats); with --state tokens elbo, vlb, "
        "score_entropy, corrupted, reweighted, anchor; with --state joint also latents",
    )
    time_sampler: ChoiceEnum(list(TIME_SAMPLERS)) = flag(
        "uniform",
        "how training times are drawn: uniform; one in each part of time, of as many as a batch has sentences "
        "(stratified); with normal log-odds (logit_normal); or more often where losses are large (second_moment)",
    )
    time_mean: float = flag(0.0, "logit_normal: mean of the log-odds of the time; above 0 there is more noise")
    time_spread: float = flag(1.0, "logit_normal: standard deviation of the log-odds of the time")
    word_time_spread: float = flag(
        0.0,
        "each word is corrupted at a time of its own, in an interval of this width around its sentence's, which the "
        "network sees",
    )
    # conditioning
    self_conditioning: ChoiceEnum((*SELF_CONDITIONING, "coin")) = flag(
        "both",
        "none; random, behind a first pass without gradient in a share of the updates; or both passes trained (coin: "
        "the old name of random)",
    )
    self_conditioning_probability: float = flag(
        0.5, "share of the updates in which random self-conditioning has a first pass", "--self-conditioning-p"
    )
    self_conditioning_on: ChoiceEnum(list(CONDITIONS)) = flag(
        "estimate",
        "what of the earlier estimate is read: the vector itself, the mean of the words' vectors by their "
        "probabilities (expected), or the vector of the likeliest word (best)",
    )
    self_conditioning_gap: float = flag(
        0.0,
        "the first pass sees the target at a time that is later by this, as in decoding with steps of this size: 0.1 "
        "for ten",
    )
    unroll: int = flag(
        1, "tokens: passes of a training step; each behind the first sees words drawn from the estimate before it"
    )
    source_drop: float = flag(0.0, "train the denoiser without its source this often, for --guidance")
    # network and length
    latent_map: ChoiceEnum(list(LATENT_MAPS)) = flag("tanh", "maps between embeddings and hidden states")
    time_features: ChoiceEnum(list(TIME_FEATURES)) = flag("fourier", "features of the diffusion time")
    time_activation: ChoiceEnum(list(ACTIVATIONS)) = flag("silu", "activation between the two maps of these features")
    time_conditioning: ChoiceEnum(TIME_CONDITIONING) = flag(
        "input", "the time is added to the denoiser's input, or sets scale and offset of each of its LayerNorms (norm)"
    )
    conditioning: ChoiceEnum(list(DENOISERS)) = flag(
        "attention",
        "how the denoiser reads the source: its layers attend to it, or it stands before the target in one stack "
        "(prefix; then --encoder-layers may be 0)",
    )
    hide_masked: bool = flag(False, "tokens: positions behind the mask symbol are attended to by themselves alone")
    encode_length: bool = flag(False, "the encoder adds a learned vector of the source's length to each of its words")
    canvas_positions: int = flag(64, "canvas: its number of positions, both ends included")
    canvas_scale: float = flag(
        0.0, "canvas: this times the source's number of tokens, both ends included, is added to its positions"
    )
    canvas_blanks: float = flag(
        0.0,
        "canvas: probability that in training a word has a blank before it, a symbol that is left out of translations, "
        "so that words need not stand side by side",
    )
    length_training: ChoiceEnum(LENGTH_TRAINING) = flag(
        "joint", "train the length predictor along, not at all, or alone (the rest is frozen; two-stage training)"
    )
    freeze: str = flag("", "parts not to train, as in encoder,embeddings; encoder, embeddings, denoiser or length")
    # decoding
    sampler: ChoiceEnum(list(SAMPLERS)) = flag("ddim", "sampler, unless the task's --sampler names another")
    decode_noise_factor: float = flag(1.0, "noise factor of decoding, in place of --noise-factor")
    grid: ChoiceEnum(list(GRIDS)) = flag("time", "how the decoding steps are spaced")
    early_stop: float = flag(0.0, "share of the decoding steps, the last and least noisy, that is left out")
