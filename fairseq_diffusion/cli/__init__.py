"""``fairseq-diffusion``: one module a sub-command, each with ``add_arguments(parser)`` and ``run(args)``."""
