"""Renal-tumour imaging research with ultrasound, contrast-enhanced ultrasound and CT.

Research software, not a medical device. Importing this package loads no deep-learning framework.
"""

__version__ = "0.1.0"

RESEARCH_ONLY = "Research use only. Not a medical device. Not for diagnosis or treatment decisions."
