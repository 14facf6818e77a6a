"""How pixels are prepared and augmented: a sampler draws, a deterministic recorded operation applies."""
