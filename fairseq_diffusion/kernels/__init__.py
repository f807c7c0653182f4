"""Operations that never hold all logits at once.  torch only; choice.py says where Triton takes over."""
