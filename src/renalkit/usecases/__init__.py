"""The verbs of the toolkit; the command line only parses and calls one of them."""
