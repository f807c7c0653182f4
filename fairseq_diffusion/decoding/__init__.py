"""From many candidates of a sentence to the one that is returned (Python and numpy; no fairseq in the mathematics)."""
