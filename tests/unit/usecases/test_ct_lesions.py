"""Tables of masses: right numbers with units from files, folders and cohorts; bad input in words."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from renalkit.cli import main
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.volume import Phase, VolumeGrid, affine_of
from renalkit.errors import ConfigError, Exit, InputRefused, Reason, RenalkitError
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.ct_pictures import read_ct_picture
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.store.files import read_json
from renalkit.usecases import ct_lesions
from renalkit.usecases.ct_lesions import (
    LesionsRequest,
    lesions_words,
    pair_of,
    run_lesions,
    scans_of,
)
from renalkit.usecases.ingest import request_of, run_ingest
from renalkit.usecases.lesion_table import LabelledScan, found_scan, measured, table_json
from renalkit.usecases.progress import Silent
from renalkit.writers.lesion_page import lesions_csv, lesions_html, lesions_pdf
from renalkit.writers.nifti import write_nifti

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_ct")
GRID: VolumeGrid = corpus.GRID
DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits()) as found:
        yield found


@pytest.fixture(autouse=True)
def one_worker(worker: DecodeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker process for all tests: starting it takes longer than its work here."""
    monkeypatch.setattr(ct_lesions, "DecodeWorker", lambda limits: nullcontext(worker))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels, instances (numbered 4 and 9), two phases as NIfTI; the same as a study folder."""
    root = tmp_path_factory.mktemp("ct")
    labels = corpus.drawn()
    write_nifti(root / "labels.nii.gz", labels, GRID)
    numbers = (4 * (labels == 2) + 9 * (labels == 3)).astype(np.uint8)
    write_nifti(root / "instances.nii.gz", numbers, GRID)
    write_nifti(root / "plain.nii.gz", corpus.scene(60), GRID)
    write_nifti(root / "late.nii.gz", corpus.scene(180), GRID)
    corpus.write(root / "study" / "P1" / "venous")
    write_nifti(root / "study" / "P1" / "segmentation.nii.gz", labels, GRID)
    return root


def run(source: Path, output: Path, *scans: str, instances: Path | None = None) -> dict[str, Any]:
    return run_lesions(LesionsRequest(source, output, scans_of(scans), instances), Silent())


def test_every_number_of_a_label_file(files: Path, tmp_path: Path) -> None:
    """Sizes, HU of both phases and enhancement as voxels and arithmetic give them."""
    found = run(
        files / "labels.nii.gz",
        tmp_path / "out",
        f"non-contrast={files / 'plain.nii.gz'}",
        f"nephrographic={files / 'late.nii.gz'}",
    )
    (scan,) = found["scans"]
    tumour, cyst = scan["lesions"]
    labels, voxel = corpus.drawn(), 2.0 * 1.9 * 3.0
    for row, value in ((tumour, 2), (cyst, 3)):
        volume = np.count_nonzero(labels == value) * voxel
        assert row["volume_mm3"] == pytest.approx(volume)
        assert row["equivalent_diameter_mm"] == pytest.approx((6 * volume / math.pi) ** (1 / 3))
        for phase, hu in (("non-contrast", 60), ("nephrographic", 180)):
            mean = corpus.scene(hu)[labels == value].mean()
            assert row["mean_hu"][phase] == pytest.approx(mean)
    assert tumour["enhancement_hu"] == {"non-contrast to nephrographic": pytest.approx(120)}
    assert cyst["enhancement_hu"]["non-contrast to nephrographic"] == pytest.approx(0)
    assert (tumour["label"], cyst["label"]) == ("tumour", "cyst")
    assert tumour["centre_lps_mm"] == pytest.approx(corpus.CENTRE, abs=0.7)
    lines = list(csv.DictReader((tmp_path / "out" / "lesions.csv").read_text().splitlines()))
    assert [line["lesion"] for line in lines] == ["1", "2"]
    assert float(lines[0]["volume_mm3"]) == pytest.approx(tumour["volume_mm3"])
    assert float(lines[0]["enhancement_non_contrast_to_nephrographic_hu"]) == pytest.approx(120)
    assert read_json(tmp_path / "out" / "lesions.json") == json.loads(json.dumps(found))
    page = (tmp_path / "out" / "lesions.html").read_text()
    assert page.count("<image href=") == 2
    assert "https:" not in page


def test_numbers_have_units_in_their_names(files: Path, tmp_path: Path) -> None:
    run(files / "labels.nii.gz", tmp_path / "out", str(files / "late.nii.gz"))
    units = ("_mm", "_mm3", "_hu", "_share", "_points", "_ratio", "_probability")
    words = ("scan", "label", "side", "class", "polarity", "uncertain", "notes", "lesion")
    with (tmp_path / "out" / "lesions.csv").open() as file:
        for name in csv.DictReader(file).fieldnames or ():
            named = name.endswith((*units, "_text", "_group")) or name in words
            assert named, name


def test_without_a_scan_there_are_sizes_and_no_pictures(files: Path, tmp_path: Path) -> None:
    found = run(files / "labels.nii.gz", tmp_path / "out")
    assert [row["mean_hu"] for row in found["scans"][0]["lesions"]] == [{}, {}]
    assert "<image" not in (tmp_path / "out" / "lesions.html").read_text()


def test_an_unknown_phase_is_measured_and_called_so(files: Path, tmp_path: Path) -> None:
    found = run(files / "labels.nii.gz", tmp_path / "out", f"unknown={files / 'late.nii.gz'}")
    (row, _) = found["scans"][0]["lesions"]
    assert row["mean_hu"] == {"unknown-phase": pytest.approx(180)}
    assert "mean_unknown_phase_hu" in (tmp_path / "out" / "lesions.csv").read_text()


def test_lesions_keep_the_numbers_of_their_map(files: Path, tmp_path: Path) -> None:
    found = run(files / "labels.nii.gz", tmp_path / "out", instances=files / "instances.nii.gz")
    assert [row["lesion"] for row in found["scans"][0]["lesions"]] == [4, 9]


def test_a_study_folder_and_its_cohort_give_the_same_rows(files: Path, tmp_path: Path) -> None:
    alone = run(files / "labels.nii.gz", tmp_path / "a", str(files / "study" / "P1" / "venous"))
    folder = run(files / "study", tmp_path / "b")
    run_ingest(request_of(source=files / "study", output=tmp_path / "cohort"))
    cohort = run(tmp_path / "cohort", tmp_path / "c")
    tables = [found["scans"][0]["lesions"] for found in (alone, folder, cohort)]
    for one, other, third in zip(*tables, strict=True):
        assert other == third
        assert other["class"] == one["label"]
        # A NIfTI file holds its place in single precision.
        for name in ("volume_mm3", "axial_diameter_mm", "largest_diameter_mm"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)
        assert one["mean_hu"] == pytest.approx(other["mean_hu"])
    assert list(tables[0][0]["mean_hu"]) == ["nephrographic"]
    assert folder["scans"][0]["scan"] == "P1"


def test_a_kits_case_without_scan_and_one_with_shifted_labels_are_left_out(
    files: Path, tmp_path: Path
) -> None:
    root = tmp_path / "kits"
    for n in (1, 2):
        case = root / f"case_0000{n}"
        write_nifti(case / "imaging.nii.gz", corpus.scene(), GRID)
        moved = np.asarray(GRID.affine_lps_mm) + (n - 1) * np.eye(4, k=3)
        grid = VolumeGrid(GRID.shape, affine_of(moved))
        write_nifti(case / "segmentation.nii.gz", corpus.drawn(), grid)
    found = run(root, tmp_path / "out")
    assert [scan["scan"] for scan in found["scans"]] == ["case_00001"]
    assert {one["reason"] for one in found["left_out"]} == {"mask-mismatch"}
    assert "left out case_00002" in lesions_words(found)


# ---- what a system found -------------------------------------------------------------------


def system_scan() -> FoundScan:
    labels = corpus.drawn()
    instances = np.where(labels > 1, labels - 1, 0).astype(np.uint8)
    return FoundScan(
        SampleKey("p" + "0" * 16, "s" + "0" * 16, "", 0, 0),
        GRID,
        labels,
        instances,
        (FoundLesion(1, (0.1, 0.2, 0.7), 0.9, 0.8), FoundLesion(2, None, 0.6, 1.0)),
        SystemRef("ct-cascade", "ct-cascade", "0" * 64),
    )


def test_what_a_system_said_stands_beside_the_measures() -> None:
    found = measured(found_scan(system_scan(), (), ("AML", "cystic", "solid"), "A"))
    one, other = found.as_json()["lesions"]
    assert (one["class"], other["class"]) == ("solid", None)
    assert one["probability"] == {"AML": 0.1, "cystic": 0.2, "solid": 0.7}
    assert other["probability"] is None
    assert (one["confidence_probability"], one["agreement_share"]) == (0.9, 0.8)
    table = table_json([found.as_json()])
    lines = list(csv.DictReader(lesions_csv(table).splitlines()))
    assert [line["probability_solid"] for line in lines] == ["0.7", ""]
    assert [line["agreement_share"] for line in lines] == ["0.8", "1"]
    with pytest.raises(ValueError, match="3 scores of classes"):
        found_scan(system_scan(), (), ("a", "b"))


def test_pages_are_the_same_bytes_and_hold_what_is_foreign_as_words() -> None:
    table = table_json([measured(found_scan(system_scan(), (), "abc", "<b>\x1b")).as_json()])
    page, pdf = lesions_html(table, {}, "<i>"), lesions_pdf(table, {}, "$x$ \x00")
    assert "&lt;b&gt;" in page
    assert "\x1b" not in page
    assert pdf == lesions_pdf(table, {}, "$x$ \x00")
    assert pdf.startswith(b"%PDF-")


def test_a_scan_without_masses_has_a_row_of_none_and_a_page() -> None:
    empty = np.minimum(corpus.drawn(), 1)
    scan = FoundScan(
        SampleKey("p" + "0" * 16, "s" + "0" * 16, "", 0, 0),
        *(GRID, empty, np.zeros_like(empty), ()),
        SystemRef("ct-cascade", "ct-cascade", "0" * 64),
    )
    table = table_json([measured(found_scan(scan, (), ())).as_json()])
    assert len(lesions_csv(table).splitlines()) == 1
    assert "No mass is labelled" in lesions_html(table, {}, "a")
    assert lesions_pdf(table, {}, "a").startswith(b"%PDF-")


# ---- bad input -----------------------------------------------------------------------------


def shifted(files: Path, tmp_path: Path) -> list[str]:
    moved = VolumeGrid(GRID.shape, affine_of(np.asarray(GRID.affine_lps_mm) + 3 * np.eye(4, k=3)))
    write_nifti(tmp_path / "moved.nii.gz", corpus.scene(), moved)
    return [str(files / "labels.nii.gz"), "--scan", str(tmp_path / "moved.nii.gz")]


def smaller(files: Path, tmp_path: Path) -> list[str]:
    grid = VolumeGrid((23, 40, 44), GRID.affine_lps_mm)
    write_nifti(tmp_path / "less.nii.gz", corpus.scene()[1:], grid)
    return [str(files / "labels.nii.gz"), "--scan", f"nephrographic={tmp_path / 'less.nii.gz'}"]


def unknown_label(files: Path, tmp_path: Path) -> list[str]:
    labels = corpus.drawn()
    labels[0, 0, 0] = 7
    write_nifti(tmp_path / "odd.nii.gz", labels, GRID)
    return [str(tmp_path / "odd.nii.gz")]


def saved(tmp_path: Path, values: np.ndarray) -> Path:
    path = tmp_path / "values.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.9, 3.0, 1.0])), path)
    return path


def not_a_number(files: Path, tmp_path: Path) -> list[str]:
    values = np.zeros((40, 40, 20), np.float32)
    values[0, 0, 0] = np.nan
    return [str(saved(tmp_path, values))]


def empty_labels(files: Path, tmp_path: Path) -> list[str]:
    return [str(saved(tmp_path, np.zeros((40, 40, 20), np.uint8)))]


def scan_of_nan(files: Path, tmp_path: Path) -> list[str]:
    path = saved(tmp_path, np.full((44, 40, 24), np.nan, np.float32))
    return [str(files / "labels.nii.gz"), "--scan", str(path)]


def empty_file(files: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "a.nii").write_bytes(b"")
    return [str(tmp_path / "a.nii")]


def empty_folder(files: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return [str(tmp_path / "empty")]


def empty_scan_folder(files: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return [str(files / "labels.nii.gz"), "--scan", str(tmp_path / "empty")]


def another_file(files: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    return [str(tmp_path / "a.dcm")]


def scan_without_labels(files: Path, tmp_path: Path) -> list[str]:
    return [str(files / "study" / "P1" / "venous")]


def wrong_numbers(files: Path, tmp_path: Path) -> list[str]:
    numbers = np.where(corpus.drawn() == 1, 3, 0).astype(np.uint8)
    write_nifti(tmp_path / "numbers.nii.gz", numbers, GRID)
    return [str(files / "labels.nii.gz"), "--instances", str(tmp_path / "numbers.nii.gz")]


def no_numbers(files: Path, tmp_path: Path) -> list[str]:
    write_nifti(tmp_path / "numbers.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    return [str(files / "labels.nii.gz"), "--instances", str(tmp_path / "numbers.nii.gz")]


@pytest.mark.parametrize(
    ("words", "reason", "said"),
    [
        (shifted, Reason.MASK_MISMATCH, "a scan whose voxels lie up to 1.5"),
        (smaller, Reason.MASK_MISMATCH, "a scan of (23, 40, 44) voxels"),
        (unknown_label, Reason.UNKNOWN_LABEL, "label values 7"),
        (not_a_number, Reason.BAD_ANNOTATION, "NaN"),
        (empty_labels, Reason.EMPTY_MASK, "labels that mark nothing"),
        (scan_of_nan, Reason.NON_FINITE, "NaN"),
        (empty_file, Reason.EMPTY, "0 bytes"),
        (empty_folder, Reason.MISSING_FILE, "no labelled scan"),
        (empty_scan_folder, Reason.EMPTY, "no CT series"),
        (another_file, Reason.FORMAT_REFUSED, "neither a NIfTI file nor a picture"),
        (scan_without_labels, Reason.MISSING_FILE, "no label volume"),
        (wrong_numbers, Reason.MASK_MISMATCH, "instance 3 without a voxel labelled tumour"),
        (no_numbers, Reason.MASK_MISMATCH, "instances that number nothing"),
    ],
)
def test_bad_input_is_refused_in_words(
    files: Path,
    tmp_path: Path,
    words: Callable[[Path, Path], list[str]],
    reason: Reason,
    said: str,
) -> None:
    given = words(files, tmp_path)
    named = dict(zip(given[1::2], given[2::2], strict=True))
    request = LesionsRequest(
        Path(given[0]),
        tmp_path / "out",
        scans_of([named["--scan"]] if "--scan" in named else []),
        Path(named["--instances"]) if "--instances" in named else None,
    )
    with pytest.raises(InputRefused, match=re.escape(said)) as refused:
        run_lesions(request, Silent())
    assert refused.value.reason is reason
    assert not (tmp_path / "out").exists()


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["renalkit", "ct", "lesions", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_ends_with_the_codes_of_all_others(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert command(monkeypatch, str(files / "labels.nii.gz"), "--json", *out) == Exit.OK
    said = capsys.readouterr()
    assert len(json.loads(said.out)["scans"][0]["lesions"]) == 2
    assert command(monkeypatch, *shifted(files, tmp_path), *out) == Exit.REFUSED
    assert "moved.nii.gz" in capsys.readouterr().err
    assert command(monkeypatch, str(files / "labels.nii.gz"), "--scan", "x=y", *out) == Exit.USAGE
    assert "no phase 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["late={}", "nephrographic={}.nii.gz", "nothing.nii.gz"])
def test_scans_that_are_not_there_or_of_no_phase(files: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="--scan"):
        scans_of([text.format(files / "late.nii.gz")])


def test_a_file_whose_name_holds_an_equals_sign_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "te=80.nii.gz"
    path.write_bytes(b"")
    assert scans_of([str(path)]) == [("", path)]
    assert scans_of([f"{Phase.EXCRETORY}={path}"]) == [("excretory", path)]


def test_a_folder_takes_no_scans_and_no_output_inside_it(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder holds its own"):
        run(files / "study", tmp_path / "out", str(files / "late.nii.gz"))
    with pytest.raises(ConfigError, match="inside the folder"):
        run(files / "study", files / "study" / "out")


def test_a_damaged_cohort_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "cohort.toml").write_text("name = 3")
    with pytest.raises(RenalkitError):
        run(tmp_path / "cohort", tmp_path / "out")


# ---- single slices -------------------------------------------------------------------------

SLICE = 10
"""The slice of the corpus that both balls cross."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slice of the corpus as pictures (HU -200 to 300 in 8 bit) and as NIfTI."""
    root = tmp_path_factory.mktemp("slice")
    labels, hu = corpus.drawn()[SLICE], corpus.scene(150)[SLICE]
    grey = np.clip(np.rint((hu + 200.0) * 255 / 500), 0, 255).astype(np.uint8)
    Image.fromarray(labels).save(root / "labels.png")
    Image.fromarray(np.where(labels > 1, labels * 20, 0).astype(np.uint8)).save(root / "many.png")
    Image.fromarray(grey).save(root / "slice.png")
    Image.fromarray(np.stack([grey, grey, 255 - grey], -1)).save(root / "colour.png")
    Image.fromarray(np.stack([grey, grey, grey], -1)).save(root / "grey.png")
    Image.fromarray(grey[:-1]).save(root / "smaller.png")
    flat = VolumeGrid((1, *GRID.shape[1:]), GRID.affine_lps_mm)
    write_nifti(root / "labels.nii.gz", labels[None], flat)
    write_nifti(root / "slice.nii.gz", hu[None], flat)
    return root


def one_slice(
    pictures: Path, output: Path, *scans: str, source: str = "labels.png", **options: Any
) -> dict[str, Any]:
    given = [s.format(pictures) for s in scans]
    request = LesionsRequest(pictures / source, output, scans_of(given), **options)
    return run_lesions(request, Silent())


def test_a_picture_of_known_scale_and_window_is_measured_in_its_plane(
    pictures: Path, tmp_path: Path
) -> None:
    """As the same slice from NIfTI, whose HU are exact; nothing is said of what takes space."""
    scale: dict[str, Any] = {"spacing_mm": (1.9, 2.0), "window_hu": (-200.0, 300.0)}
    drawn = one_slice(pictures, tmp_path / "a", "nephrographic={}/grey.png", **scale)
    scan = "nephrographic={}/slice.nii.gz"
    exact = one_slice(pictures, tmp_path / "b", scan, source="labels.nii.gz")
    for one, other in zip(*(f["scans"][0]["lesions"] for f in (drawn, exact)), strict=True):
        assert one["axial_diameter_mm"] == pytest.approx(other["axial_diameter_mm"], rel=1e-6)
        assert one["mean_hu"]["nephrographic"] == pytest.approx(
            other["mean_hu"]["nephrographic"], abs=1.5
        )
        for name in ("volume_mm3", "equivalent_diameter_mm", "largest_diameter_mm", "renal"):
            assert one[name] is other[name] is None
        assert one["side"] == other["side"]
    assert [row["side"] for row in drawn["scans"][0]["lesions"]] == ["left", "right"]
    assert any("one slice" in note for note in drawn["scans"][0]["notes"])
    assert (tmp_path / "a" / "lesions.html").read_text().count("<image href=") == 2
    assert "mm" in lesions_words(drawn)


def test_grey_values_of_an_unknown_window_are_shown_and_not_measured(
    pictures: Path, tmp_path: Path
) -> None:
    scan = "nephrographic={}/slice.png"
    found = one_slice(pictures, tmp_path / "out", scan, spacing_mm=(1.9, 2.0))
    assert [row["mean_hu"] for row in found["scans"][0]["lesions"]] == [{}, {}]
    assert any("no HU" in note for note in found["scans"][0]["notes"])
    assert (tmp_path / "out" / "lesions.html").read_text().count("<image href=") == 2


def test_lesions_of_a_picture_keep_their_numbers(pictures: Path, tmp_path: Path) -> None:
    numbers = pictures / "many.png"
    found = one_slice(pictures, tmp_path / "out", spacing_mm=(2, 2), instances=numbers)
    assert [row["lesion"] for row in found["scans"][0]["lesions"]] == [40, 60]


@pytest.mark.parametrize(
    ("scans", "options", "reason", "said"),
    [
        ((), {}, Reason.NO_SCALE, "--spacing"),
        (("{}/smaller.png",), {}, Reason.MASK_MISMATCH, "(1, 39, 44)"),
        (("{}/colour.png",), {}, Reason.NOT_HU, "a picture in colour"),
        (("{}/slice.nii.gz",), {}, Reason.FORMAT_REFUSED, "gzip"),
        ((), {"source": "slice.png"}, Reason.UNKNOWN_LABEL, "label values"),
        ((), {"instances": "smaller.png"}, Reason.MASK_MISMATCH, "instances of (1, 39, 44)"),
        ((), {"instances": "slice.png"}, Reason.MASK_MISMATCH, "without a voxel labelled"),
    ],
)
def test_pictures_that_cannot_be_used(
    pictures: Path,
    tmp_path: Path,
    scans: tuple[str, ...],
    options: dict[str, Any],
    reason: Reason,
    said: str,
) -> None:
    scale = {} if reason is Reason.NO_SCALE else {"spacing_mm": (1.9, 2.0)}
    if "instances" in options:
        options = {"instances": pictures / options["instances"]}
    with pytest.raises(InputRefused, match=re.escape(said)) as refused:
        one_slice(pictures, tmp_path / "out", *scans, **scale, **options)
    assert refused.value.reason is reason


def test_a_picture_without_scale_is_a_volume_of_which_nothing_is_said_in_mm(
    pictures: Path, worker: DecodeWorker
) -> None:
    path = pictures / "slice.png"
    volume = read_ct_picture(path, (-200.0, 300.0), None, ReadOptions(), worker)
    assert volume.spacing_mm is None
    assert np.abs(np.asarray(volume.pixels[0])[corpus.drawn()[SLICE] == 2] - 150).max() <= 2
    scan = LabelledScan("a", volume.grid, corpus.drawn()[SLICE][None], volumes=[volume])
    with pytest.raises(InputRefused, match="spacing is unknown") as refused:
        measured(scan)
    assert refused.value.reason is Reason.NO_SCALE


@pytest.mark.parametrize(
    "options",
    [
        {"spacing_mm": (0.0, 1.0)},
        {"spacing_mm": (1.0, 1.0), "window_hu": (300.0, -200.0)},
        {"source": "labels.nii.gz", "spacing_mm": (1.0, 1.0)},
    ],
)
def test_scales_that_are_none(pictures: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        one_slice(pictures, tmp_path / "out", **options)


@pytest.mark.parametrize("text", ["a", "1,2,3", "nan", "inf,1", ""])
def test_pairs_of_numbers_are_two_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="--spacing"):
        pair_of(text, "--spacing")


REAL = DATA / "kits19_ct_slices"


@pytest.mark.skipif(
    not REAL.is_dir(), reason="NO REAL CT SLICES (set RENALKIT_DATA): pictures of them are NOT read"
)
def test_real_slices_are_measured_in_their_plane(tmp_path: Path) -> None:
    with (REAL / "manifest.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if int(r["tumor_px"]) > 2000][::30]
    assert len(rows) >= 2
    for row in rows:
        y, x = float(row["spacing_y_mm"]), float(row["spacing_x_mm"])
        scan = scans_of([f"nephrographic={REAL / row['image']}"])
        request = LesionsRequest(
            REAL / row["mask"], tmp_path / row["case_id"], scan, spacing_mm=(y, x)
        )
        (found,) = run_lesions(request, Silent())["scans"]
        largest = found["lesions"][0]
        # A disc of the tumour's area is not wider than the tumour.
        disc = 2 * math.sqrt(int(row["tumor_px"]) * y * x / math.pi)
        assert len(found["lesions"]) > 1 or largest["axial_diameter_mm"] > 0.95 * disc
        assert largest["axial_diameter_mm"] < 250
