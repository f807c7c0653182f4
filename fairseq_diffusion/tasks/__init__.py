"""The fairseq skin of the task; fairseq's --user-dir imports it."""

from fairseq_diffusion import compat
from fairseq_diffusion.errors import exit_with_a_sentence

exit_with_a_sentence()
compat.require_fairseq()
compat.patch()

from fairseq_diffusion.criterions import diffusion_loss  # noqa: E402, F401  fairseq imports tasks/ and models/ only
from fairseq_diffusion.optim import fused_adam  # noqa: E402, F401
from fairseq_diffusion.reporting.results import open_text  # noqa: E402
from fairseq_diffusion.reporting.run import run  # noqa: E402
from fairseq_diffusion.tasks import diffusion_translation  # noqa: E402, F401
from fairseq_diffusion.tasks.alone import alone_in_save_dir  # noqa: E402

compat.around_generation(run, open_text)
compat.around_resuming(alone_in_save_dir)
