"""The backward process: one short rule a sampler, over two grids computed beforehand.  torch only."""
