"""How does a page or an overlay become a picture that any viewer shows?

Sources: DICOM PS3.3 A.8.1 (Secondary Capture), C.8.6.1 (SC Equipment), C.7.6.1 (General Image).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from renalkit.domain.study import Side
from renalkit.writers.dicom_out.codes import Code
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, finished, general
from renalkit.writers.dicom_out.source import checked_source, compression, put

_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")


def secondary_capture(
    header: Dataset,
    picture: npt.NDArray[np.uint8],
    label: ResultLabel,
    *,
    burned_in: bool,
    frames: Sequence[int] = (),
    comment: str = "",
    side: Side | None = None,
) -> Dataset:
    """A picture made from an ultrasound still or cine: a figure page, an overlay.

    Args:
        header: of the source, see `readers.dicom_source`.
        picture: (H,W,3) RGB, stored without loss.
        burned_in: whether the picture shows text that names the patient, or may do so: pixels of
            the console outside all ultrasound regions.
        frames: of the source (from 0) that are shown; none means the source as a whole.
        comment: what is to be seen, for the viewer's text overlay. side: of the body.

    Raises:
        InputRefused: the source cannot be referred to, or a frame is not in it.
        ValueError: the picture has another form.
    """
    source = checked_source(header)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"picture {picture.shape} {picture.dtype}: expected (H,W,3) uint8 RGB")
    rows, cols = picture.shape[:2]
    if not (0 < rows < 65536 and 0 < cols < 65536):
        raise ValueError(f"picture of {rows} x {cols} pixels: expected 1 to 65535 each way")
    data = general(source, label, SecondaryCaptureImageStorage, "OT")
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.ConversionType = "WSD"
    data.Laterality = "" if side is None else side.value[0].upper()
    data.PatientOrientation = []
    data.BurnedInAnnotation = "YES" if burned_in else "NO"
    data.ImageComments = f"{comment} {WARNING.capitalize()}.".strip()
    data.DerivationDescription = "Drawn by renalkit from the source image"
    origin = source.reference(frames)
    origin.PurposeOfReferenceCodeSequence = [_PURPOSE.item]
    data.SourceImageSequence = [origin]
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "RGB"
    data.Rows, data.Columns = rows, cols
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    for keyword, value in compression(source).items():
        put(data, keyword, value)
    pixels = np.ascontiguousarray(picture).tobytes()
    data.PixelData = pixels + b"\0" * (len(pixels) % 2)
    data["PixelData"].VR = "OB"
    return finished(data, label, source)
