"""Operations that never hold all logits at once.  torch only."""
