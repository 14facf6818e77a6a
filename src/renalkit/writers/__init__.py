"""How results leave: the self-contained report."""
