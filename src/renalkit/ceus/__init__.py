"""From a contrast cine to aligned frames and perfusion figures: arrays and numbers only."""
