"""``fairseq-diffusion``: a module for each sub-command, with ``run(args)`` and maybe ``add_arguments(parser)``."""
