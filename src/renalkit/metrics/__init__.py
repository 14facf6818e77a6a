"""How good a prediction is: pure NumPy/SciPy functions on masks and scores, never on images."""
