"""How pixels are prepared and augmented: a sampler draws, a recorded operation applies."""
