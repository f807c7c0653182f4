"""The fairseq skin of optimisers."""
