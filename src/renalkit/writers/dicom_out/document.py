"""How does a page of figures become a document beside its images that archives keep?

Sources: DICOM PS3.3 A.45.1 (Encapsulated PDF), C.24 (Encapsulated Document).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from renalkit.writers.dicom_out.codes import checked_text
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, finished, general
from renalkit.writers.dicom_out.source import Source


def encapsulated_pdf(
    sources: Sequence[Source], pdf: bytes, label: ResultLabel, title: str, *, burned_in: bool
) -> Dataset:
    """A PDF made from images.

    Args:
        sources: see `source.checked_source` and `source.checked_slices`; of one series.
        title: 1 to 64 characters. burned_in: whether it shows words that name the patient.

    Raises:
        ValueError: no PDF, or a title that does not fit.
    """
    if not pdf.startswith(b"%PDF-"):
        raise ValueError("not a PDF")
    data = general(sources[0], label, EncapsulatedPDFStorage, "DOC")
    data.ConversionType = "WSD"
    data.AcquisitionDateTime = None
    data.BurnedInAnnotation = "YES" if burned_in else "NO"
    data.DocumentTitle = checked_text(f"{title}: {WARNING}"[:64].strip(), "title", 64)
    data.ConceptNameCodeSequence = []
    data.SourceInstanceSequence = [source.reference() for source in sources]
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data.EncapsulatedDocumentLength = len(pdf)
    data.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return finished(data, label, sources[0])
