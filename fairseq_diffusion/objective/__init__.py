"""Loss terms and their one reduction.  torch only."""
