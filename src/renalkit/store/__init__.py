"""How cohorts, pixels, predictions and runs lie on disk, whole or not at all."""
