"""The task's flags: data as in fairseq's translation task, and the options of decoding."""

from dataclasses import Field, dataclass, field, fields, make_dataclass
from types import NoneType
from typing import Any, Iterator, Optional, get_args, get_type_hints

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_diffusion.compat.renamed import old_name
from fairseq_diffusion.decoding.options import SelectionOptions, flag_of
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.choice import MODES
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.translators import TRANSLATORS

OPTIONS = (*(translator.Options for translator in TRANSLATORS), SelectionOptions)


@dataclass
class DataConfig(TranslationConfig):
    """Flags of the task that are no options of decoding."""

    max_source_positions: int = flag(256, "longest source, in tokens with the end of sentence")
    max_target_positions: int = flag(256, "longest target, in tokens with the end of sentence")
    kernels: ChoiceEnum(MODES) = flag(
        "auto",
        "what works through the vocabulary, in training and decoding: Triton's kernels on a GPU that has them and "
        "portable ones elsewhere, or always the one or the other",
    )
    durations: Optional[str] = flag(
        None,
        "folder of files that fairseq-diffusion durations wrote (one for each folder of data, with : between), for a "
        "training with --length-target durations; a part of the data without one, except that trained on, is learnt "
        "from its lengths alone",
    )
    raw_reference: Optional[str] = flag(None, "file of untokenised references: what the report's sacreBLEU is against")
    use_ema: bool = flag(False, "load the averaged weights that --store-ema kept, where checkpoints are loaded")
    decode_seed: int = II("common.seed")


def task_options() -> dict[str, list[Field]]:
    """The options of decoding that are flags of the task, by the flags' names; several translators may read one."""
    found: dict[str, list[Field]] = {}
    for options in OPTIONS:
        for each in fields(options):
            section, name = flag_of(each)
            if section == "task":
                found.setdefault(name, []).append(each)
    return found


def derived() -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each of these flags, as fairseq's configuration has them."""
    hints = {name: hint for options in OPTIONS for name, hint in get_type_hints(options).items()}
    for name, options in task_options().items():
        first, texts = options[0], dict.fromkeys(each.metadata["help"] for each in options)
        unset = first.metadata["system"] or first.default is None
        help = "; ".join(texts) + (" (default: the system's)" if first.metadata["system"] else "")
        default = None if unset else first.default
        metadata = flag(default, help, old_name(name)).metadata
        yield name, type_of(hints[first.name], first, unset), field(default=default, metadata=metadata)


def type_of(hint: Any, option: Field, optional: bool) -> Any:
    """The type as omegaconf 2.0 can read it, too."""
    (plain,) = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    if option.metadata["choices"]:
        plain = ChoiceEnum(option.metadata["choices"])
    return Optional[plain] if optional else plain


DiffusionTranslationConfig = make_dataclass(
    "DiffusionTranslationConfig",
    [entry for entry in derived() if entry[0] not in DataConfig.__dataclass_fields__],
    bases=(DataConfig,),
    namespace={
        "__module__": __name__,
        "__doc__": "Steps, length beam, n-best, history and an AR reranker are fairseq's --iter-decode-max-iter, "
        "--iter-decode-with-beam, --nbest, --retain-iter-history and --iter-decode-with-external-reranker.",
    },
)


def converted(config: type, flag: str, name: str, value: Any) -> Any:
    """`value` converted to the type, or checked against the choices, of a flag in a configuration."""
    typed = OmegaConf.structured(config)
    try:
        typed[flag] = value
    except OmegaConfBaseException as error:
        raise UserError(f"{name} is {value!r}: {str(error).splitlines()[0]}") from error
    return typed[flag]
