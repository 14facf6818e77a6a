"""Results of CT scans as DICOM and NIfTI: on the slices, rows and columns of the files, in all ten
ways a series lies, as other people's programs see them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest

from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.volume import Phase, Volume, from_canonical
from renalkit.errors import InputRefused, Reason
from renalkit.phantom.ct.geometry import Geometry, source_grid
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_ct import CtSeries, read_ct_series, slices_of
from renalkit.readers.dicom_source import read_ct_header
from renalkit.readers.nifti import read_nifti_ct, read_nifti_labels, volume_of
from renalkit.transforms.volumes import nearest
from renalkit.usecases.scan_results import ResultOptions, ScanFiles, write_scan_results
from renalkit.writers.dicom_out import codes
from renalkit.writers.dicom_out.codes import of_class
from renalkit.writers.dicom_out.ct import VolumeSegment, ct_report, ct_segmentation
from renalkit.writers.dicom_out.document import encapsulated_pdf
from renalkit.writers.dicom_out.general import ResultLabel, save
from renalkit.writers.dicom_out.report import Finding, Quantity
from renalkit.writers.dicom_out.source import checked_slices
from renalkit.writers.nifti import write_nifti

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
sys.path.insert(0, str(Path(__file__).parent))
corpus: Any = importlib.import_module("make_ct")
others: Any = importlib.import_module("other_programs")

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LABEL = ResultLabel("Renal masses", 901, NOW, repeatable=True)
archive = others.archive
CLASSES = ("AML", "cystic", "solid")
UNEVEN = (Geometry.UNEVEN, Geometry.MISSING_SLICE)


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits()) as found:
        yield found


def found_on(volume: Volume) -> FoundScan:
    """The drawn balls on the volume's grid."""
    labels = np.stack(list(nearest(corpus.drawn(), corpus.GRID, volume.grid)))
    instances = np.where(labels > 1, labels - 1, 0).astype(np.uint8)
    lesions = (FoundLesion(1, (0.1, 0.2, 0.7), 0.9, 0.8), FoundLesion(2, None, 0.6, 1.0))
    return FoundScan(
        SampleKey("p" + "0" * 16, "s" + "0" * 16, "", 0, 0),
        *(volume.grid, labels, instances, lesions),
        SystemRef("ct-cascade", "ct-cascade", "ab" * 32),
    )


class Made:
    """One geometry: the series as read, what was found on it, and the results."""

    def __init__(self, folder: Path, geometry: Geometry, worker: DecodeWorker) -> None:
        self.geometry = geometry
        self.files = sorted(corpus.write(folder / "ct", geometry).glob("*.dcm"))
        self.series: CtSeries = read_ct_series(self.files, ReadOptions(), worker).series[-1]
        self.volume = self.series.volume
        self.found = found_on(self.volume)
        self.out = folder / "out"
        self.result = write_scan_results(
            self.found,
            ScanFiles(self.volume, self.files),
            self.out,
            ResultOptions("scan", CLASSES, written=NOW),
        )

    @property
    def headers(self) -> list[pydicom.Dataset]:
        return [read_ct_header(path) for path in self.series.paths]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, worker: DecodeWorker
) -> Callable[[Geometry], Made]:
    known: dict[Geometry, Made] = {}

    def of(geometry: Geometry) -> Made:
        if geometry not in known:
            known[geometry] = Made(tmp_path_factory.mktemp(geometry.value), geometry, worker)
        return known[geometry]

    return of


Of = Callable[[Geometry], Made]
every = pytest.mark.parametrize("geometry", Geometry)


@every
def test_the_validator_finds_nothing(made: Of, geometry: Geometry) -> None:
    for name in ("segmentation", "report", "table"):
        assert others.validated(made(geometry).out / "dicom" / f"{name}.dcm") == []


@every
def test_segments_lie_on_the_pixels_of_the_files(made: Of, geometry: Geometry) -> None:
    """highdicom finds every mask by its source slice, equal to the truth drawn on the file itself,
    and each stored frame at the place the file says."""
    one = made(geometry)
    segmentation = hd.seg.segread(one.out / "dicom" / "segmentation.dcm")
    files = [pydicom.dcmread(path) for path in one.series.paths]
    uids = [file.SOPInstanceUID for file in files]
    masks = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for k, file in enumerate(files):
        row, column = np.reshape([float(v) for v in file.ImageOrientationPatient], (2, 3))
        dy, dx = (float(v) for v in file.PixelSpacing)
        y, x = np.indices((file.Rows, file.Columns)).reshape(2, -1)
        position = np.asarray([float(v) for v in file.ImagePositionPatient])
        at = position + x[:, None] * dx * row + y[:, None] * dy * column
        exact = corpus.GRID.to_index(at)
        index = np.clip(np.rint(exact), 0, np.subtract(corpus.GRID.shape, 1))
        apart = np.abs(exact - index).max(axis=1)
        truth = corpus.drawn()[tuple(index.astype(int).T)] * (apart <= 0.5)
        sure = np.abs(apart - 0.5) > 1e-3  # halfway between two voxels either is the nearest
        for segment in (1, 2, 3):
            shown = masks[k, :, :, segment - 1].ravel()
            assert np.array_equal(shown[sure], (truth == segment)[sure])
    own = from_canonical(one.found.labels, one.volume.source_axes)
    assert np.array_equal(masks @ np.array((1, 2, 3)), own)
    places = {file.SOPInstanceUID: file.ImagePositionPatient for file in files}
    stored = pydicom.dcmread(one.out / "dicom" / "segmentation.dcm")
    assert stored.FrameOfReferenceUID == files[0].FrameOfReferenceUID
    for groups in stored.PerFrameFunctionalGroupsSequence:
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        assert position == places[image.ReferencedSOPInstanceUID]


@every
def test_nifti_lies_where_the_slices_lie(
    made: Of, worker: DecodeWorker, geometry: Geometry
) -> None:
    """On columns, rows and slices of the files; none where one affine cannot place the slices."""
    one = made(geometry)
    if geometry in UNEVEN:
        assert "uneven distances" in one.result["not_written"]["nifti"]
        assert not (one.out / "labels.nii.gz").exists()
        return
    image = nibabel.load(one.out / "labels.nii.gz")
    data = np.asarray(image.dataobj).transpose(2, 1, 0)
    assert np.array_equal(data, from_canonical(one.found.labels, one.volume.source_axes))
    first = pydicom.dcmread(one.series.paths[0])
    position = np.asarray([float(v) for v in first.ImagePositionPatient]) * (-1, -1, 1)
    assert image.affine[:3, 3] == pytest.approx(position, abs=1e-3)
    back = read_nifti_labels(one.out / "instances.nii.gz", ReadOptions(), worker)
    assert back.grid.shift_from(one.volume.grid) < 0.01
    assert np.array_equal(back.pixels, one.found.instances)


def numbers_of(report: Any) -> dict[str, dict[str, tuple[float, str]]]:
    """Value and unit by finding and concept, as highdicom reads the report."""
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for group in report.content.get_volumetric_roi_measurement_groups():
        found[group.tracking_identifier] = {
            m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()
        }
    return found


def test_the_report_holds_each_figure_with_its_unit(made: Of) -> None:
    one = made(Geometry.SHEARED)
    report = hd.sr.srread(one.out / "dicom" / "report.dcm")
    told = numbers_of(report)
    assert list(told) == ["Kidney", "Lesion 1", "Lesion 2"]
    rows = {f"Lesion {r['lesion']}": r for r in one.result["table"]["scans"][0]["lesions"]}
    for name, row in rows.items():
        assert told[name]["Volume"] == (pytest.approx(row["volume_mm3"]), "mm3")
        assert told[name]["Long axis"] == (pytest.approx(row["axial_diameter_mm"]), "mm")
        mean = told[name]["Mean Attenuation Coefficient"]
        assert mean == (pytest.approx(row["mean_hu"]["nephrographic"]), "[hnsf'U]")
    assert told["Lesion 1"]["Probability of solid"] == (0.7, "1")
    assert "Probability of solid" not in told["Lesion 2"]
    assert told["Lesion 1"]["Share of a region on which all networks agree"] == (0.8, "1")
    segmentation = pydicom.dcmread(one.out / "dicom" / "segmentation.dcm")
    numbers = {s.SegmentLabel: s.SegmentNumber for s in segmentation.SegmentSequence}
    for group in report.content.get_volumetric_roi_measurement_groups():
        referred = group.referenced_segment
        assert referred.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert referred.referenced_segment_numbers[0] == numbers[group.tracking_identifier]
    kinds = {s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in segmentation.SegmentSequence}  # fmt: skip
    assert kinds == {"Kidney": "64033007", "Lesion 1": "108369006", "Lesion 2": "367643001"}
    group = report.content.get_volumetric_roi_measurement_groups()[1]
    answers = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    assert answers["Class by a model"] == "solid"


def test_other_readers_take_the_report_and_the_document(made: Of) -> None:
    folder = made(Geometry.PLAIN).out / "dicom"
    done = others.run(others.program("dsrdump", package="dcmtk"), folder / "report.dcm")
    assert done.returncode == 0
    assert "Imaging Measurement Report" in done.stdout
    document = pydicom.dcmread(folder / "table.dcm")
    assert bytes(document.EncapsulatedDocument)[: document.EncapsulatedDocumentLength].startswith(
        b"%PDF-"
    )
    for name in ("segmentation", "report", "table"):
        data = pydicom.dcmread(folder / f"{name}.dcm")
        assert "research use only" in data.SeriesDescription
        assert (data.PatientID, data.StudyInstanceUID) == (
            "P0001",
            pydicom.dcmread(made(Geometry.PLAIN).files[0]).StudyInstanceUID,
        )


def test_results_agree_with_their_source(made: Of) -> None:
    one = made(Geometry.PLAIN)
    results = [one.out / "dicom" / f"{name}.dcm" for name in ("segmentation", "report", "table")]
    program = others.program("dcentvfy", package="dicom3tools")
    said = others.run(program, *one.files, *results).stderr
    left_out = ("StudyDescription", "PatientAge")
    known = ("Different information entities for attribute - Element=<AccessionNumber>",)
    assert [
        x
        for x in said.splitlines()
        if not any(f"Element=<{name}>" in x and "not the other" in x for name in left_out)
        and not any(k in x for k in known)
    ] == []


def test_the_same_call_gives_the_same_bytes(made: Of, tmp_path: Path) -> None:
    one = made(Geometry.OBLIQUE)
    options = ResultOptions("scan", CLASSES, written=NOW)
    again = write_scan_results(one.found, ScanFiles(one.volume, one.files), tmp_path, options)
    assert len(again["files"]) == 9
    for name in again["files"].values():
        assert (tmp_path / name).read_bytes() == (one.out / name).read_bytes(), name


def test_each_of_two_scans_in_one_series_has_its_own_slices(made: Of, worker: DecodeWorker) -> None:
    one = made(Geometry.TWO_PHASES)
    first = read_ct_series(one.files, ReadOptions(), worker)
    found = [slices_of(s.volume, one.files, ReadOptions()) for s in first.series]
    assert [[s.path for s in f] for f in found] == [list(s.paths) for s in first.series]
    assert not {s.path for s in found[0]} & {s.path for s in found[1]}


def test_damaged_slices_that_were_left_out_are_left_out(
    tmp_path: Path, worker: DecodeWorker
) -> None:
    files = sorted(corpus.write(tmp_path / "ct").glob("*.dcm"))
    data = pydicom.dcmread(files[5])
    data.PixelData = data.PixelData[:100]
    data.save_as(files[5])
    (series,) = read_ct_series(files, ReadOptions(), worker).series
    assert series.volume.n_frames == 23
    found = slices_of(series.volume, files, ReadOptions())
    assert tuple(s.path for s in found) == series.paths


def test_slices_that_are_gone_are_missed(made: Of, tmp_path: Path) -> None:
    one = made(Geometry.PLAIN)
    for files in (one.files[:-1], one.files[1:], []):
        with pytest.raises(InputRefused) as refused:
            slices_of(one.volume, files, ReadOptions())
        assert refused.value.reason is Reason.MISSING_FILE


def test_a_label_map_reads_back_too(made: Of, tmp_path: Path) -> None:
    one = made(Geometry.BOTH_FLIPPED)
    options = ResultOptions("scan", CLASSES, labelmap=True, written=NOW)
    write_scan_results(one.found, ScanFiles(one.volume, one.files), tmp_path, options)
    read = hd.seg.segread(tmp_path / "dicom" / "segmentation.dcm")
    assert read.segmentation_type.value == "LABELMAP"
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in one.series.paths]
    masks = read.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(masks, from_canonical(one.found.labels, one.volume.source_axes))


def test_a_scan_from_nifti_returns_to_its_own_file(tmp_path: Path, worker: DecodeWorker) -> None:
    """As KiTS files lie: slices first, from the head down."""
    write_nifti(tmp_path / "scan.nii.gz", corpus.scene(), corpus.GRID, "IPL")
    path = tmp_path / "scan.nii.gz"
    volume = volume_of(read_nifti_ct(path, ReadOptions(), worker), path, "a")
    result = write_scan_results(
        found_on(volume), ScanFiles(volume, [path]), tmp_path / "out", ResultOptions("a", CLASSES)
    )
    scan, labels = nibabel.load(path), nibabel.load(tmp_path / "out" / "labels.nii.gz")
    assert nibabel.aff2axcodes(labels.affine) == ("I", "P", "L")
    assert np.allclose(labels.affine, scan.affine)
    assert np.array_equal(np.asarray(labels.dataobj) == 2, np.asarray(scan.dataobj) == 300)
    assert "segmentation" not in result["files"]
    assert not (tmp_path / "out" / "dicom").exists()


def test_frames_of_one_object_get_everything_but_dicom(
    made: Of, tmp_path: Path, worker: DecodeWorker
) -> None:
    files = made(Geometry.REVERSED).files
    frames = hd.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in files], "1.2.3", 5, "1.2.3.4", 1
    )
    frames.save_as(tmp_path / "frames.dcm")
    (series,) = read_ct_series([tmp_path / "frames.dcm"], ReadOptions(), worker).series
    scan = ScanFiles(series.volume, [tmp_path / "frames.dcm"])
    options = ResultOptions("a", CLASSES, written=NOW)
    result = write_scan_results(found_on(series.volume), scan, tmp_path / "out", options)
    assert list(result["not_written"]) == ["dicom"]
    image = nibabel.load(tmp_path / "out" / "labels.nii.gz")
    assert np.array_equal(
        np.asarray(image.dataobj).transpose(2, 1, 0), made(Geometry.REVERSED).found.labels
    )


def test_nothing_found_is_said_and_leaves_no_segmentation(made: Of, tmp_path: Path) -> None:
    one = made(Geometry.PLAIN)
    none = np.zeros(one.volume.grid.shape, np.uint8)
    empty = replace(one.found, labels=none, instances=none, lesions=())
    scan = ScanFiles(one.volume, one.files)
    result = write_scan_results(empty, scan, tmp_path, ResultOptions("a", CLASSES, written=NOW))
    assert result["not_written"] == {"dicom": "neither kidney nor mass was found"}
    assert result["table"]["scans"][0]["lesions"] == []
    assert (tmp_path / "lesions.pdf").exists()


def test_a_second_phase_gives_enhancement(made: Of, tmp_path: Path) -> None:
    one = made(Geometry.PLAIN)
    plain = replace(one.volume, phase=Phase.NON_CONTRAST, pixels=corpus.scene(60))
    scan = ScanFiles(one.volume, (), (plain,))
    result = write_scan_results(one.found, scan, tmp_path, ResultOptions("a", CLASSES))
    (row, _) = result["table"]["scans"][0]["lesions"]
    assert row["enhancement_hu"] == {"non-contrast to nephrographic": pytest.approx(240)}


# ---- sources as the field has them, and wrong ones -----------------------------------------


def written(headers: list[pydicom.Dataset], tmp_path: Path) -> Path:
    """A segmentation of one pixel per slice."""
    marked = np.zeros((len(headers), headers[0].Rows, headers[0].Columns), np.uint8)
    marked[:, 3, 4] = 1
    path = tmp_path / "seg.dcm"
    save(ct_segmentation(headers, marked, [VolumeSegment("a", codes.KIDNEY)], LABEL), path)
    return path


def test_sources_without_thickness_or_with_odd_uids_are_carried_over(
    made: Of, tmp_path: Path
) -> None:
    headers = made(Geometry.PLAIN).headers
    for header in headers:
        del header.SliceThickness
        header["SeriesInstanceUID"]._value = "1.2.03.4"
    path = written(headers, tmp_path)
    (series,) = pydicom.dcmread(path).ReferencedSeriesSequence
    with pytest.warns(UserWarning, match=r"Invalid value for VR UI: '1\.2\.03\.4'"):
        kept = series.SeriesInstanceUID
    assert kept == "1.2.03.4"
    assert len(series.ReferencedInstanceSequence) == 24


def test_lossy_sources_stay_lossy_and_names_keep_their_letters(made: Of, tmp_path: Path) -> None:
    headers = made(Geometry.PLAIN).headers
    for header in headers:
        header.LossyImageCompression = "01"
        header.PatientName = "Müller^Ōe"
    data = pydicom.dcmread(written(headers, tmp_path))
    assert (data.LossyImageCompression, str(data.PatientName)) == ("01", "Müller^Ōe")


def test_bad_sources_and_masks_are_refused(made: Of) -> None:
    headers = made(Geometry.PLAIN).headers
    shape = (24, 40, 44)
    full = np.ones(shape, np.uint8)
    one = [VolumeSegment("a", codes.KIDNEY)]

    def refused(given: list[pydicom.Dataset], marked: np.ndarray) -> Reason:
        with pytest.raises(InputRefused) as error:
            ct_segmentation(given, marked, one, LABEL)
        return error.value.reason

    assert refused(headers, full[1:]) is Reason.MASK_MISMATCH
    assert refused(headers, np.zeros(shape, np.uint8)) is Reason.EMPTY_MASK
    with pytest.raises(ValueError, match="segment 2, described are 1"):
        ct_segmentation(headers, 2 * full, one, LABEL)
    with pytest.raises(ValueError, match="no slice"):
        ct_segmentation([], full, one, LABEL)
    with pytest.raises(ValueError, match="one label"):
        ct_segmentation(headers, full, one * 2, LABEL)
    other = read_ct_header(made(Geometry.PLAIN).files[0])
    other.SeriesInstanceUID = "1.2.3"
    assert refused([*headers[1:], other], full) is Reason.BAD_GEOMETRY
    nowhere = read_ct_header(made(Geometry.PLAIN).files[0])
    del nowhere.ImagePositionPatient
    assert refused([nowhere, *headers[1:]], full) is Reason.BAD_GEOMETRY
    enhanced = read_ct_header(made(Geometry.PLAIN).files[0])
    enhanced.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    assert refused([enhanced], full[:1]) is Reason.NOT_CT


def test_reports_and_documents_refuse_what_does_not_belong(made: Of) -> None:
    one = made(Geometry.PLAIN)
    segmentation = pydicom.dcmread(one.out / "dicom" / "segmentation.dcm")
    size = [Quantity(codes.VOLUME, 1.0, codes.MM3)]
    with pytest.raises(ValueError, match="expected a segment"):
        ct_report(one.headers, [Finding("b", codes.CYST, size)], LABEL, segmentation)
    foreign = made(Geometry.UNEVEN).headers
    for number, header in enumerate(foreign):
        header.SOPInstanceUID = f"1.2.3.{number}"
    with pytest.raises(ValueError, match="not one of the same slices"):
        ct_report(foreign, [Finding("Kidney", codes.KIDNEY, size)], LABEL, segmentation)
    with pytest.raises(ValueError, match="not a PDF"):
        encapsulated_pdf(checked_slices(one.headers), b"x", LABEL, "a", burned_in=False)


def test_the_grid_of_the_files_is_that_of_the_phantom(made: Of) -> None:
    """What these tests rest on: the series was read where the phantom put it."""
    one = made(Geometry.REVERSED)
    files = source_grid(Geometry.REVERSED, corpus.GRID)
    first = pydicom.dcmread(one.files[0])
    assert [float(v) for v in first.ImagePositionPatient] == pytest.approx(
        files.to_lps([(0, 0, 0)])[0], abs=1e-3
    )


@pytest.mark.parametrize("name", ["AML", "clear cell RCC", "übergroß" * 20, "a\\b\n"])
def test_any_class_has_codes_that_fit(name: str) -> None:
    answer, probability = of_class(name, codes.CLASS), of_class(name, codes.PROBABILITY)
    assert answer.value != probability.value
    assert of_class(name + "x", codes.CLASS).value != answer.value


def test_an_archive_keeps_them_beside_their_source(made: Of, archive: Any) -> None:
    one = made(Geometry.SHEARED)
    archive.send(one.files)
    series = archive.get(f"instances/{archive.instance(one.headers[0].SOPInstanceUID)}/study")
    for name in ("segmentation", "report", "table"):
        path = one.out / "dicom" / f"{name}.dcm"
        archive.store(path)
        known = archive.instance(pydicom.dcmread(path).SOPInstanceUID)
        assert archive.bytes_of(f"instances/{known}/file") == path.read_bytes()
        assert archive.get(f"instances/{known}/study")["ID"] == series["ID"]
