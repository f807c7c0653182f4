"""Figures of trainings, decodings and tables; only `draw`, and what it imports, needs matplotlib."""
