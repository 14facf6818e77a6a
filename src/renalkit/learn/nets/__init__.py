"""Which networks exist: blocks, U-Nets, residual nets and the joint network of P1."""
