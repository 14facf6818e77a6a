"""Whose is a result, how is it told apart, and does nothing else of the source come along?"""

import importlib
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from renalkit import __version__
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.writers.dicom_out.capture import secondary_capture
from renalkit.writers.dicom_out.codes import AREA, CORTEX, MM2
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, save
from renalkit.writers.dicom_out.report import Finding, Quantity, measurement_report
from renalkit.writers.dicom_out.segmentation import Segment, us_segmentation
from renalkit.writers.dicom_out.source import checked_source, compression, full_mask
from renalkit.writers.dicom_uid import derived_uid

sys.path.insert(0, str(Path(__file__).parent))
made = importlib.import_module("sources")


def segmentation(header, label=made.LABEL):
    return us_segmentation(header, [Segment("Cortex", CORTEX, {0: made.block()})], label)


def capture(header, label=made.LABEL):
    return secondary_capture(header, np.zeros((5, 7, 3), np.uint8), label, burned_in=False)


def report(header, label=made.LABEL):
    figures = [Quantity(AREA, 3.5, MM2)]
    finding = Finding("Cortex", CORTEX, figures, frame=0, mask=made.block())
    return measurement_report(header, [finding], label)


KINDS = pytest.mark.parametrize("make", [segmentation, capture, report])


def raw(data):
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


@KINDS
def test_the_patient_and_the_study_are_those_of_the_source(make):
    header = made.source(IssuerOfPatientID="CLINIC")
    found = make(header)
    for keyword in (
        *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    ):
        assert found[keyword].value == header[keyword].value
    assert found.SeriesInstanceUID != header.SeriesInstanceUID
    assert found.SOPInstanceUID != header.SOPInstanceUID


@KINDS
def test_nothing_else_of_the_source_comes_along(make):
    text = raw(make(made.source()))
    assert b"Doe^Jane" in text
    assert b"SECRET" not in text


@KINDS
def test_missing_identity_stays_missing(make):
    empty = dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "StudyTime"), "")
    found = make(made.source(**empty, PatientSex=None, StudyID=None))
    assert all(not found[keyword].value for keyword in (*empty, "PatientSex", "StudyID"))
    assert "IssuerOfPatientID" not in found
    assert "PatientIdentityRemoved" not in found


@KINDS
def test_what_was_deidentified_says_so(make):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    header = made.source(
        PatientIdentityRemoved="YES",
        DeidentificationMethod=["profile", "pixels"],
        DeidentificationMethodCodeSequence=[code],
    )
    found = pydicom.dcmread(BytesIO(raw(make(header))))
    assert found.PatientIdentityRemoved == "YES"
    assert list(found.DeidentificationMethod) == ["profile", "pixels"]
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    header.PatientName = "changed^later"
    assert found.PatientName != header.PatientName


@KINDS
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Gößl^Zoë"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_in_any_script_stay_the_same(make, charset, name):
    written = made.source(SpecificCharacterSet=charset, PatientName=name)
    header = pydicom.dcmread(BytesIO(raw(written)))
    found = pydicom.dcmread(BytesIO(raw(make(header))))
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == str(header.PatientName) == name


@pytest.mark.filterwarnings("ignore:Failed to decode:UserWarning")
def test_a_name_that_cannot_be_read_is_not_guessed():
    written = raw(made.source(SpecificCharacterSet="ISO_IR 192", PatientName="Gößl^Z"))
    header = pydicom.dcmread(BytesIO(written.replace("ß".encode(), b"\xff\xfe")))
    with pytest.raises(InputRefused, match="PatientName is not in its declared character set") as e:
        segmentation(header)
    assert e.value.reason is Reason.CHARSET
    assert "G" not in str(e.value).replace("PatientName", "")[:40]


@KINDS
def test_what_made_it_and_what_it_is_for(make):
    found = make(made.source())
    assert found.Manufacturer == found.ManufacturerModelName == "renalkit"
    assert found.SoftwareVersions == __version__
    assert found.SeriesDescription == f"Renal masses: {WARNING}"
    assert (found.SeriesNumber, found.InstanceNumber) == (901, 1)


@KINDS
def test_times_are_utc_unless_the_source_has_a_zone(make):
    found = make(made.source())
    assert (found.SeriesDate, found.ContentTime) == ("20260304", "233005.250000")
    assert "TimezoneOffsetFromUTC" not in found
    found = make(made.source(TimezoneOffsetFromUTC="+0830"))
    assert (found.SeriesDate, found.SeriesTime) == ("20260305", "080005.250000")
    assert found.TimezoneOffsetFromUTC == "+0830"
    found = make(made.source(TimezoneOffsetFromUTC="+9900"))
    assert found.ContentTime == "233005.250000"
    assert "TimezoneOffsetFromUTC" not in found
    local = replace(made.LABEL, written=made.WRITTEN.astimezone(timezone(timedelta(hours=-5))))
    found = make(made.source(), local)
    assert raw(found) == raw(make(made.source()))


@KINDS
def test_the_same_call_gives_the_same_bytes_when_asked(make):
    assert raw(make(made.source())) == raw(make(made.source()))
    later = replace(made.LABEL, written=made.WRITTEN + timedelta(seconds=1))
    first, second = make(made.source()), make(made.source(), later)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    other = make(made.source(SOPInstanceUID="2.25.4"))
    assert other.SOPInstanceUID != first.SOPInstanceUID


@KINDS
def test_uids_are_fresh_otherwise(make):
    label = replace(made.LABEL, repeatable=False)
    first, second = make(made.source(), label), make(made.source(), label)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    for found in (first, second):
        assert found.SOPInstanceUID.startswith("2.25.")
        assert found.SOPInstanceUID.is_valid


def test_pictures_of_one_label_share_a_series():
    first = capture(made.source())
    second = capture(made.source(), replace(made.LABEL, instance_number=2))
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert segmentation(made.source()).SeriesInstanceUID != first.SeriesInstanceUID


@KINDS
def test_a_byte_round_trip_changes_nothing(make, tmp_path):
    save(make(made.source()), tmp_path / "a.dcm")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.walk(lambda _, element: element)  # decodes all
    pydicom.dcmwrite(tmp_path / "b.dcm", data, enforce_file_format=True)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.dcm", "b.dcm"]


def test_a_refused_write_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        save(capture(made.source()), tmp_path / "file" / "a.dcm")


@KINDS
def test_what_was_lost_once_stays_lost(make):
    if make is report:
        return  # has no pixels
    assert make(made.source()).LossyImageCompression == "00"
    # The syntax counts, also where the header keeps silent.
    assert make(made.source(lossy=True)).LossyImageCompression == "01"
    said = made.source(
        LossyImageCompression="01",
        LossyImageCompressionRatio=[10.5],
        LossyImageCompressionMethod="ISO_10918_1",
    )
    found = make(said)
    assert found.LossyImageCompression == "01"
    assert found.LossyImageCompressionRatio == 10.5
    assert found.LossyImageCompressionMethod == "ISO_10918_1"


def test_compression_of_a_bare_header():
    header = made.source()
    del header.file_meta
    assert compression(checked_source(header)) == {"LossyImageCompression": "00"}


@KINDS
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}, Reason.NOT_ULTRASOUND),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, Reason.NOT_ULTRASOUND),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}, Reason.NOT_ULTRASOUND),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}, Reason.NOT_ULTRASOUND),
        ({"SOPClassUID": None}, Reason.NOT_ULTRASOUND),
        ({"StudyInstanceUID": None}, Reason.BAD_UID),
        ({"SOPInstanceUID": ""}, Reason.BAD_UID),
        ({"Rows": None}, Reason.BAD_PIXEL_DESCRIPTION),
        ({"Columns": 0}, Reason.BAD_PIXEL_DESCRIPTION),
        ({"NumberOfFrames": -1}, Reason.BAD_FRAMES),
        ({"NumberOfFrames": [3, 4]}, Reason.BAD_FRAMES),
    ],
)
def test_a_source_that_cannot_be_referred_to_is_refused(make, changes, reason):
    with pytest.raises(InputRefused) as refused:
        make(made.source(**changes))
    assert refused.value.reason is reason
    assert refused.value.expected
    assert refused.value.remedy


@KINDS
@pytest.mark.parametrize("uid", ["1.2.0345.6", "999.1.2"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_uids_of_a_wrong_form_are_referred_to_as_they_are(make, uid):
    header = made.source(still=True)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        header[keyword]._value = pydicom.uid.UID(uid)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6"  # retired
    found = pydicom.dcmread(BytesIO(raw(make(header))))
    references = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in _items(found)
        if "ReferencedSOPInstanceUID" in item
    ]
    assert references
    assert set(references) == {("1.2.840.10008.5.1.4.1.1.6", uid)}


def _items(data):
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


@pytest.mark.parametrize(
    ("mask", "reason", "words"),
    [
        (np.ones((9, 12), bool), Reason.MASK_MISMATCH, "9 x 12.*expected: 9 x 13"),
        (np.ones((13, 9), bool), Reason.MASK_MISMATCH, "13 x 9"),
        (np.ones((9, 13, 1), bool), Reason.MASK_MISMATCH, "9 x 13 x 1"),
        (np.ones((9, 13), np.float32), Reason.MASK_MISMATCH, "float32"),
        (np.ones((9, 13), np.uint8), Reason.MASK_MISMATCH, "uint8"),
        (np.zeros((9, 13), bool), Reason.EMPTY_MASK, "without a pixel"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, reason, words):
    with pytest.raises(InputRefused, match=words) as refused:
        full_mask(mask, checked_source(made.source()), "Lesion 1, frame 0")
    assert refused.value.reason is reason
    assert refused.value.where == "Lesion 1, frame 0"


@pytest.mark.parametrize("frame", [-1, made.FRAMES])
def test_a_frame_the_source_has_not_is_refused(frame):
    with pytest.raises(InputRefused, match="0 to 5") as refused:
        us_segmentation(
            made.source(), [Segment("Cortex", CORTEX, {frame: made.block()})], made.LABEL
        )
    assert refused.value.reason is Reason.BAD_FRAMES


@pytest.mark.parametrize(
    "change",
    [
        {"description": ""},
        {"description": "x" * 27},
        {"description": "a\\b"},
        {"description": "a\nb"},
        {"series_number": 0},
        {"instance_number": 2**31},
        {"written": datetime(2026, 1, 1)},  # noqa: DTZ001
    ],
)
def test_labels_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"expected|zone|count from 1"):
        replace(made.LABEL, **change)


def test_the_longest_label_fits_its_element():
    label = ResultLabel("x" * 26, 1, made.WRITTEN)
    assert len(label.series) == 64


def test_derived_uids_depend_on_their_parts_only():
    assert derived_uid("a", 1) == derived_uid("a", 1) != derived_uid("a", 2)
    assert derived_uid("a", 1).is_valid
    assert len(derived_uid("a", 1)) <= 64
