"""The model's flags: which part, and how large.  A field's help is its documentation."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_diffusion.network.length import TARGETS
from fairseq_diffusion.network.transformer import ACTIVATIONS
from fairseq_diffusion.objective.objective import NORMALISERS
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.embedding import NORMS
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.sampler.rules import SAMPLERS
from fairseq_diffusion.translator import SELF_CONDITIONING

LENGTH_TRAINING = ("joint", "off", "only")


def flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DiffusionConfig(FairseqDataclass):
    """Defaults are neutral; what a paper chose is in its presets, named by --arch."""

    # state
    latent_dim: int = flag(16, "width D of the diffused target embeddings")
    embedding_norm: ChoiceEnum(NORMS) = flag("l2", "norm of each embedding row: none, or l2 (sqrt(D))")
    embedding_init_std: float = flag(1e-3, "standard deviation of the embeddings at the start")
    # schedule
    schedule: ChoiceEnum(list(CURVES)) = flag("sigma_t", "base noise curve sigma(t)")
    schedule_modifier: ChoiceEnum(list(MODIFIERS)) = flag("none", "what adapts the base curve during training")
    schedule_update: int = flag(50, "adapt the schedule every so many updates")
    # prediction, objective, time sampling
    prediction: ChoiceEnum(list(PREDICTIONS)) = flag("x_0", "what the network's output means")
    objective: str = flag(
        "mse=1,rounding=1", "loss terms and weights: mse, rounding (on x_0), anchor (on x_0-hat), prior"
    )
    loss_normaliser: ChoiceEnum(NORMALISERS) = flag("sentences", "what counts alike in a batch's loss")
    label_smoothing: float = flag(0.0, "label smoothing of the rounding and anchor terms")
    time_sampler: ChoiceEnum(list(TIME_SAMPLERS)) = flag("uniform", "how training times are drawn")
    # conditioning
    self_conditioning: ChoiceEnum(SELF_CONDITIONING) = flag(
        "both", "no self-condition; a coin (with a no-gradient first pass); or both passes trained"
    )
    self_conditioning_p: float = flag(0.5, "probability of the coin")
    # network
    hidden: int = flag(512, "width of encoder and denoiser")
    inner: int = flag(2048, "width inside the feed-forward layers")
    heads: int = flag(8, "attention heads")
    encoder_layers: int = flag(6, "layers of the encoder")
    decoder_layers: int = flag(6, "layers of the denoiser")
    dropout: float = flag(0.1, "dropout on embeddings, attention weights, feed-forward activations and residuals")
    activation: ChoiceEnum(list(ACTIVATIONS)) = flag("gelu", "activation of the feed-forward layers")
    pre_norm: bool = flag(False, "LayerNorm before each sub-layer instead of after it")
    # length
    length_target: ChoiceEnum(TARGETS) = flag(
        "difference", "predict the difference to the source's length, or the length"
    )
    length_classes: int = flag(256, "classes of the length predictor")
    length_grad: bool = flag(False, "let the length loss train the encoder too")
    length_loss: float = flag(0.1, "weight of the length loss")
    length_training: ChoiceEnum(LENGTH_TRAINING) = flag(
        "joint", "train the length predictor along, not at all, or alone (the rest is frozen; two-stage training)"
    )
    # decoding
    sampler: ChoiceEnum(list(SAMPLERS)) = flag("ddim", "sampler used unless the task's --sampler says otherwise")
    # taken from elsewhere
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")
    seed: int = II("common.seed")
