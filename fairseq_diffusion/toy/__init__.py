"""A generated bilingual language (``xx`` to ``yy``) whose every valid translation is known.

:class:`fairseq_diffusion.toy.language.Language` makes and translates sentences, :mod:`fairseq_diffusion.toy.corpus`
writes and reads the files, :mod:`fairseq_diffusion.toy.score` scores translations.
"""
