"""How results leave: the self-contained report, and DICOM beside the source."""
