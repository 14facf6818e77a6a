"""Do outlines, figures, intervals and curves come back as they were handed over?"""

import importlib
import sys
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Line

from renalkit.domain.study import Side
from renalkit.errors import InputRefused, Reason
from renalkit.writers.dicom_out.codes import (
    ECHO_POWER,
    FIRST_FRAME,
    FITTING,
    INJECTION,
    KIDNEY,
    LESION,
    LONG_AXIS,
    MM,
    POWER,
    PRIVATE,
    RATIO,
    SECOND,
    Algorithm,
    Code,
)
from renalkit.writers.dicom_out.perfusion import coded, compared
from renalkit.writers.dicom_out.report import (
    MOST_CURVE_POINTS,
    Curve,
    Finding,
    Quantity,
    measurement_report,
    single_outline,
)
from renalkit.writers.dicom_out.segmentation import Segment, us_segmentation

sys.path.insert(0, str(Path(__file__).parent))
made = importlib.import_module("sources")

TIME_TO_PEAK, RISE = (coded(name)[0] for name in ("TTP", "WiR"))
PEAK_RATIO = compared("PE", ratio=True)[0]
FIT = Algorithm("lognormal fit", "0.1.0", FITTING, {"interval": "95 % block bootstrap"})
TTP = Quantity(TIME_TO_PEAK, 17.11583333333333, SECOND, (16.0, 18.5))


def read_back(data):
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    return hd.sr.srread(buffer)


def report(*findings, header=None, segmentation=None):
    data = measurement_report(
        made.source() if header is None else header,
        findings,
        made.LABEL,
        segmentation=segmentation,
    )
    return read_back(data)


def inside(points, shape):
    """Pixels (H,W) whose centres the closed line goes round, by other people's code."""
    rows, cols = np.indices(shape)
    centres = np.column_stack((cols.ravel() + 0.5, rows.ravel() + 0.5))
    return Line(points, closed=True).contains_points(centres).reshape(shape)


def test_a_finding_comes_back_whole():
    grade = (Code("GROUP", PRIVATE, "Class"), Code("MALIGNANT", PRIVATE, "Malignant"))
    found = report(
        Finding(
            "Lesion 1",
            LESION,
            [TTP, Quantity(LONG_AXIS, 31.5, MM), Quantity(PEAK_RATIO, 0.9, RATIO)],
            [grade],
            frame=3,
            mask=made.block(),
            side=Side.LEFT,
            algorithm=FIT,
        )
    )
    (group,) = found.content.get_planar_roi_measurement_groups()
    assert group.tracking_identifier == "Lesion 1"
    assert group.finding_type.value == "52988006"
    assert group.finding_category.value == "49755003"
    (site,) = group.finding_sites
    assert site.value.value == "64033007"
    assert site.laterality.value == "7771000"
    time, size, ratio = group.get_measurements()
    assert (time.name.value, time.name.scheme_designator) == ("113069", "DCM")
    assert (time.value, time.unit.value) == (17.11583333333333, "s")
    assert (size.value, size.unit.value, size.unit.scheme_designator) == (31.5, "mm", "UCUM")
    assert (ratio.name.value, ratio.name.scheme_designator) == ("X-PE", PRIVATE)
    assert ratio.unit.value == "{ratio}"
    answer = next(x for x in group.get_qualitative_evaluations() if x.name.value == "GROUP")
    assert answer.value.value == "MALIGNANT"
    region = group.roi
    assert region.graphic_type.value == "POLYLINE"
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == ("2.25.3", 4)
    assert np.array_equal(inside(region.value, made.block().shape), made.block())
    (scheme,) = found.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == PRIVATE


def test_an_interval_is_two_distances_in_the_unit_of_the_figure():
    found = report(Finding("Lesion 1", LESION, [TTP, Quantity(LONG_AXIS, 31.5, MM)]))
    (group,) = found.content.get_image_measurement_groups()
    time, size = group.get_measurements()
    distances = {
        item.ConceptNameCodeSequence[0].CodeValue: item.MeasuredValueSequence[0]
        for item in time[0].ContentSequence
    }
    above, below = distances["371886008"], distances["371885007"]
    assert above.FloatingPointValue == pytest.approx(18.5 - TTP.value)
    assert below.FloatingPointValue == pytest.approx(TTP.value - 16.0)
    for one in (above, below):
        assert one.MeasurementUnitsCodeSequence[0].CodeValue == "s"
    assert "ContentSequence" not in size[0]


def test_a_curve_is_a_group_per_moment():
    curve = Curve(ECHO_POWER, POWER, [0.0, 0.1, 0.25], [1.0, 2.5, 1e-7], [0, 2, 5], INJECTION)
    found = report(Finding("Lesion 1", LESION, curve=curve, algorithm=FIT))
    whole, *groups = found.content.get_image_measurement_groups()
    assert whole.finding_type.value == "52988006"
    assert not whole.get_measurements()
    seen = []
    for group in groups:
        assert group.tracking_identifier == "Lesion 1"
        items = {i.ConceptNameCodeSequence[0].CodeValue: i for i in group[0].ContentSequence}
        offset = items["128740"]
        event = offset.ContentSequence[0].ConceptCodeSequence[0]
        assert event.CodeValue == "125234"
        value = items["POWER"].MeasuredValueSequence[0]
        assert value.MeasurementUnitsCodeSequence[0].CodeValue == "[arb'U]"
        seen.append(
            (
                offset.MeasuredValueSequence[0].FloatingPointValue,
                value.FloatingPointValue,
                items["121112"].ReferencedSOPSequence[0].ReferencedFrameNumber,
                items["126073"].MeasuredValueSequence[0].NumericValue,
            )
        )
    assert seen == [(0.0, 1.0, 1, 1), (0.1, 2.5, 3, 2), (0.25, 1e-7, 6, 3)]


def test_a_mask_with_parts_is_referred_to_where_it_is_stored():
    parts, plain = made.noise(3), made.block()
    segments = [
        Segment("Kidney", KIDNEY, {0: made.noise(8), 2: parts}),
        Segment("Lesion 1", LESION, {2: plain}),
    ]
    outlines = us_segmentation(made.source(), segments, made.LABEL)
    found = report(
        Finding("Lesion 1", LESION, frame=2, mask=plain),
        Finding("Kidney", KIDNEY, frame=2, mask=parts),
        segmentation=outlines,
    )
    lesion, kidney = found.content.get_planar_roi_measurement_groups()
    assert lesion.roi is not None
    assert kidney.roi is None
    place = kidney.referenced_segmentation_frame[0].ReferencedSOPSequence[0]
    assert place.ReferencedSOPInstanceUID == outlines.SOPInstanceUID
    assert place.ReferencedFrameNumber == 2
    assert kidney.tracking_uid == outlines.SegmentSequence[0].TrackingUID
    (evidence,) = found.CurrentRequestedProcedureEvidenceSequence
    referred = {
        (series.SeriesInstanceUID, series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
    }
    assert referred == {("2.25.2", "2.25.3"), (outlines.SeriesInstanceUID, outlines.SOPInstanceUID)}


@pytest.mark.parametrize("stored", [None, "other label", "other frame", "other mask"])
def test_a_mask_with_parts_that_is_not_stored_is_refused(stored):
    mask = made.noise(3)
    there = {
        None: None,
        "other label": Segment("Mass", KIDNEY, {2: mask}),
        "other frame": Segment("Kidney", KIDNEY, {1: mask}),
        "other mask": Segment("Kidney", KIDNEY, {2: ~mask}),
    }[stored]
    outlines = there and us_segmentation(made.source(), [there], made.LABEL)
    with pytest.raises(InputRefused, match="several parts, with holes") as refused:
        report(Finding("Kidney", KIDNEY, frame=2, mask=mask), segmentation=outlines)
    assert refused.value.reason is Reason.MASK_MISMATCH


def test_an_outline_too_long_for_its_element_is_referred_to():
    rows, cols = np.indices((100, 200))
    comb = (rows == 0) | (cols % 4 == 0) | (cols % 4 == 1) & (rows % 2 == 1)  # barbed teeth
    header = made.source(Rows=100, Columns=200)
    line = single_outline(comb)
    assert line is not None
    assert len(line) > 8000
    outlines = us_segmentation(header, [Segment("Kidney", KIDNEY, {0: comb})], made.LABEL)
    finding = Finding("Kidney", KIDNEY, frame=0, mask=comb)
    (group,) = report(
        finding, header=header, segmentation=outlines
    ).content.get_planar_roi_measurement_groups()
    assert group.roi is None
    with pytest.raises(InputRefused, match="too long an outline"):
        report(finding, header=header)


def test_a_segmentation_of_another_source_is_refused():
    other = us_segmentation(
        made.source(SOPInstanceUID="2.25.9"), [Segment("Kidney", KIDNEY, {0: made.block()})], made.LABEL
    )  # fmt: skip
    with pytest.raises(ValueError, match="not one of the same source"):
        report(Finding("Kidney", KIDNEY, frame=0, mask=made.block()), segmentation=other)
    with pytest.raises(ValueError, match="not one of the same source"):
        report(Finding("K", KIDNEY, frame=0, mask=made.block()), segmentation=made.source())


@settings(max_examples=60)
@given(
    x=st.floats(2, 28),
    y=st.floats(2, 18),
    a=st.floats(0.6, 20),
    b=st.floats(0.6, 20),
    turn=st.floats(0, 3.2),
    seed=st.integers(0, 9),
)
def test_outlines_hold_exactly_the_pixels_of_the_mask(x, y, a, b, turn, seed):
    """Ellipses cut by the border, with bites; thin ones break up and have no single outline."""
    rows, cols = np.indices((20, 30))
    u = (cols - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    v = (rows - y) * np.cos(turn) - (cols - x) * np.sin(turn)
    mask = (u / a) ** 2 + (v / b) ** 2 <= 1
    mask &= np.random.default_rng(seed).random(mask.shape) < (1.0 if seed < 5 else 0.97)
    line = single_outline(mask)
    if line is None:
        import cv2

        parts, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        holes, _ = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)  # fmt: skip
        assert (parts, holes) != (2, 2)
        return
    assert np.array_equal(line[0], line[-1])
    assert np.array_equal(inside(line, mask.shape), mask)


@pytest.mark.parametrize(
    "mask",
    [
        [[1]],
        [[1, 1, 1]],
        [[1], [1]],
        [[1, 0], [0, 1]],
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[1, 1, 1], [1, 0, 0], [1, 1, 1]],
    ],
)
def test_outlines_of_few_pixels(mask):
    mask = np.array(mask, bool)
    line = single_outline(mask)
    assert line is not None
    assert np.array_equal(inside(line, mask.shape), mask)


@pytest.mark.parametrize("mask", [[[1, 0, 1]], [[1, 1, 1], [1, 0, 1], [1, 1, 1]], [[0]]])
def test_parts_holes_and_nothing_have_no_single_outline(mask):
    assert single_outline(np.array(mask, bool)) is None


def test_the_document_claims_no_more_than_it_is():
    data = report(Finding("Lesion 1", LESION, [TTP]))
    assert (data.CompletionFlag, data.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert data.PreliminaryFlag == "PRELIMINARY"
    assert data.ContentSequence[-1].TextValue == "Research use only, not for diagnosis."
    assert data.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (observer,) = data.content.get_observer_contexts()
    assert observer.observer_identifying_attributes.name == "renalkit"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Quantity(RISE, float("nan"), POWER), "not finite"),
        (lambda: Quantity(RISE, 1.0, POWER, (0.0, float("inf"))), "not finite"),
        (lambda: Quantity(RISE, 1.0, POWER, (2.0, 3.0)), "outside its interval"),
        (lambda: Curve(ECHO_POWER, POWER, [0.0], [1.0, 2.0], [0]), "equal numbers"),
        (lambda: Curve(ECHO_POWER, POWER, [], [], []), "of 0 points"),
        (lambda: Curve(ECHO_POWER, POWER, *[range(MOST_CURVE_POINTS + 1)] * 3), "thin it"),
        (lambda: Curve(ECHO_POWER, POWER, [0.0, float("nan")], [1.0, 2.0], [0, 1]), "finite"),
        (lambda: Curve(ECHO_POWER, POWER, [0.0, 0.0], [1.0, 2.0], [0, 1]), "increase"),
        (lambda: Finding("Lesion 1", LESION), "says nothing"),
        (lambda: Finding("Lesion 1", LESION, [TTP], frame=1), "needs its frame"),
        (lambda: Finding("Lesion 1", LESION, mask=made.block()), "needs its frame"),
        (lambda: Finding(" ", LESION, [TTP]), "label"),
        (lambda: Algorithm("", "1", FITTING), "name of an algorithm"),
        (lambda: Algorithm("a", "1", FITTING, {"a": "1,5"}), "parameter 'a'"),
        (lambda: Algorithm("a", "1", FITTING, {"a=b": "1"}), "parameter 'a=b'"),
        (lambda: Code("x" * 17, PRIVATE, "m"), "code value"),
        (lambda: report(), "at least one"),
        (lambda: report(Finding("A", LESION, [TTP]), Finding("A", KIDNEY, [TTP])), "of its own"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "finding",
    [
        Finding("A", LESION, frame=6, mask=made.block()),
        Finding("A", LESION, curve=Curve(ECHO_POWER, POWER, [0.0], [1.0], [6], FIRST_FRAME)),
    ],
)
def test_a_frame_the_source_has_not_is_refused(finding):
    with pytest.raises(InputRefused) as refused:
        report(finding)
    assert refused.value.reason is Reason.BAD_FRAMES
