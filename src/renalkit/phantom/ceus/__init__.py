"""Contrast clips of simulated kidneys: perfusion, bubbles, breathing, the console's screen."""
