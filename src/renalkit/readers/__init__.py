"""How files from outside become studies, each file used or refused with its reason."""
