"""Which networks exist: blocks, U-Nets, residual nets, joint and fused networks, and 3-D ones."""
