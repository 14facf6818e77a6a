"""Phantoms of given masks on disk: found, checked, painted, and read again where the masks lie."""

import csv
import json
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from renalkit.cli import main
from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import ConfigError, Exit, InputRefused
from renalkit.usecases.ct_lesions import LesionsRequest, run_lesions
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_case import plan_settings
from renalkit.usecases.phantom_plans import People, only_drawn, only_painted, painted_plan
from renalkit.usecases.phantom_shapes import check_masks, find_masks, read_shapes
from renalkit.usecases.progress import Silent
from renalkit.writers.nifti import write_nifti

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = DATA / "kits23_labels"

SHAPE, SPACING = (20, 40, 72), (8.0, 4.0, 4.0)


def grid_of(turn_deg=0.0, spacing=SPACING, shape=SHAPE):
    z, y, x = spacing
    a = np.radians(turn_deg)
    turn = np.array([[1.0, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[0, 0, x], [0, y, 0], [z, 0, 0.0]])
    matrix[:3, 3] = (-140.0, -60.0, -310.0)
    return VolumeGrid(shape, affine_of(matrix))


def masks():
    z, y, x = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij"
    )
    out = np.zeros(SHAPE, np.uint8)
    for column in (78, 206):
        out[((z - 76) / 50) ** 2 + ((y - 84) / 28) ** 2 + ((x - column) / 26) ** 2 < 1] = 1
    out[((z - 50) ** 2 + (y - 90) ** 2 + (x - 66) ** 2) < 22**2] = 2
    out[((z - 96) ** 2 + (y - 70) ** 2 + (x - 222) ** 2) < 15**2] = 3
    return out


def plan_of(source, patients=None, **changes):
    files = find_masks(source)
    people = People(len(files) if patients is None else patients, seed=2)
    return painted_plan(people, files, **{"phases": ["nephrographic"]} | changes)


def make(source, out, **changes):
    return make_phantom(plan_of(source, **changes), out, Silent(), 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Masks of three orientations, one of them oblique, and the scans painted into them."""
    base = tmp_path_factory.mktemp("shapes")
    source = base / "masks"
    for name, axes, turn in (("c", "IPL", 0.0), ("a", "RAS", 0.0), ("b", "ASR", 11.0)):
        write_nifti(source / f"{name}.nii.gz", masks(), grid_of(turn), axes)
    return source, base / "out", make(source, base / "out")


def test_the_given_file_is_the_truth_voxel_by_voxel(made):
    source, out, summary = made
    assert (summary["n_patients"], summary["n_slices"]) == (3, 3 * SHAPE[0])
    for patient, name in (("P0001", "a"), ("P0002", "b"), ("P0003", "c")):
        given = nibabel.load(source / f"{name}.nii.gz")
        drawn = nibabel.load(out / "dicom" / patient / "segmentation.nii.gz")
        np.testing.assert_array_equal(np.asarray(drawn.dataobj), np.asarray(given.dataobj))
        np.testing.assert_allclose(drawn.affine, given.affine, atol=1e-4)


def test_scans_lie_on_their_labels_and_show_them(made, tmp_path):
    """Read from DICOM and NIfTI as a hospital's: labels fit the series, tissues their HU."""
    _, out, _ = made
    table = run_lesions(LesionsRequest(out / "dicom", tmp_path / "table"), Silent())
    assert table["left_out"] == []
    assert len(table["scans"]) == 3
    for scan in table["scans"]:
        tumour, cyst = scan["lesions"]
        assert (tumour["label"], tumour["side"]) == ("tumour", "right")
        assert (cyst["label"], cyst["side"]) == ("cyst", "left")
    with (out / "lesions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["patient"], r["lesion"]) for r in rows] == [
        (p, n) for p in ("P0001", "P0002", "P0003") for n in ("1", "2")
    ]
    assert {r["label"] for r in rows[1::2]} == {"cystic"}


def test_no_name_of_a_file_is_written(made):
    source, out, _ = made
    words = json.dumps(plan_settings(plan_of(source)))
    assert str(source) not in words
    for path in out.rglob("*"):
        if path.suffix in (".json", ".csv", ".txt"):
            assert str(source.parent) not in path.read_text()
            assert "nii" not in path.read_text()


def test_the_same_masks_elsewhere_give_the_same_cohort(made, tmp_path):
    source, out, _ = made
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a", "b"):
        (moved / f"{name}.nii.gz").write_bytes((source / f"{name}.nii.gz").read_bytes())
    make(moved, tmp_path / "first", patients=1)
    again = tmp_path / "first" / "truth" / "P0001" / "masks.npz"
    assert again.read_bytes() == (out / "truth" / "P0001" / "masks.npz").read_bytes()
    make(moved, tmp_path / "first", patients=1)  # left as it is
    with pytest.raises(InputRefused, match="another plan"):
        make(moved, tmp_path / "first", patients=2)


def test_masks_are_brought_to_a_spacing_and_given_room(made):
    source, _, _ = made
    plan = plan_of(source, patients=1, spacing="4,5,5", around="0,40,20")
    found = read_shapes(plan.shapes.files[0], plan.shapes)
    assert found.source_axes == "LPS"
    assert found.shapes.grid.spacing_mm == pytest.approx((4.0, 5.0, 5.0))
    assert found.shapes.labels.shape == (40, 32 + 16, 58 + 8)
    volume = (found.shapes.labels == 1).sum() * 100.0
    assert volume == pytest.approx((masks() == 1).sum() * 128.0, rel=0.03)
    plain = plan_of(source, patients=1, around="0,40,20")
    wider = read_shapes(plain.shapes.files[0], plain.shapes).shapes
    assert wider.labels.shape == (SHAPE[0], SHAPE[1] + 20, SHAPE[2] + 10)
    np.testing.assert_array_equal(wider.labels[:, 10:-10, 5:-5], masks())
    np.testing.assert_allclose(
        wider.grid.to_lps([(0, 10, 5)]), grid_of().to_lps([(0, 0, 0)]), atol=1e-4
    )


def test_a_kits_folder_holds_more_than_masks(tmp_path):
    for name in (
        "case_00001/imaging.nii.gz",
        "case_00001/segmentation.nii.gz",
        "case_00001/instances/tumor_instance-1_annotation-1.nii.gz",
        "case_00002/aggregated_MAJ_seg.nii.gz",
        "case_00002/aggregated_OR_seg.nii.gz",
        "case_00003_seg.nii.gz",
        "case_00003_instances.nii.gz",
        "imagesTr/case_4_0000.nii.gz",
        "labelsTr/case_4.nii.gz",
        "kits23.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    found = [Path(f.path).relative_to(tmp_path.resolve()).as_posix() for f in find_masks(tmp_path)]
    assert found == [
        "case_00001/segmentation.nii.gz",
        "case_00002/aggregated_MAJ_seg.nii.gz",
        "case_00003_seg.nii.gz",
        "labelsTr/case_4.nii.gz",
    ]


@pytest.mark.parametrize("name", ["", "absent", "text.txt"])
def test_nothing_to_paint_into(tmp_path, name):
    (tmp_path / "text.txt").write_text("no mask")
    with pytest.raises(InputRefused, match="no masks|not there or no folder"):
        find_masks(tmp_path / name)


def test_every_bad_mask_is_named_before_anything_is_made(tmp_path):
    grid, good = grid_of(), masks()
    source = tmp_path / "masks"
    write_nifti(source / "good.nii.gz", good, grid)
    write_nifti(source / "no-kidney.nii.gz", np.where(good == 1, 0, good), grid)
    write_nifti(source / "empty.nii.gz", good * 0, grid)
    write_nifti(source / "strange.nii.gz", np.where(good == 3, 9, good), grid)
    write_nifti(source / "scan.nii.gz", good.astype(np.int16) * 100 - 50, grid)
    write_nifti(source / "metres.nii.gz", good, grid_of(spacing=(0.008, 0.004, 0.004)))
    write_nifti(source / "slice.nii.gz", good[10:11], grid_of(shape=(1, *SHAPE[1:])))
    whole = (source / "good.nii.gz").read_bytes()
    (source / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError) as caught:
        make(source, tmp_path / "out")
    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7
    for name, words in (
        ("no-kidney", "masks without a kidney"),
        ("empty", "marks nothing"),
        ("strange", "label values 9"),
        ("scan", "values -50"),
        ("metres", "voxels of 0.008 x 0.004 x 0.004 mm"),
        ("slice", "1 x 40 x 72 voxels"),
        ("cut", "cut.nii.gz"),
    ):
        assert any(f"{name}.nii.gz" in p and words in p for p in caught.value.problems), told
    assert not (tmp_path / "out").exists()


def test_a_mask_that_changed_meanwhile(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", masks(), grid_of())
    plan = plan_of(tmp_path)
    check_masks(plan.shapes, Silent())
    write_nifti(tmp_path / "a.nii.gz", masks()[:, ::-1], grid_of())
    with pytest.raises(InputRefused, match="changed meanwhile"):
        read_shapes(plan.shapes.files[0], plan.shapes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"phases": ["arterial"]}, "--phases"),
        ({"spacing": "1,2"}, "--spacing"),
        ({"spacing": "0.1,1,1"}, "--spacing"),
        ({"around": "a,b,c"}, "--around"),
        ({"around": "0,0,301"}, "--around"),
        ({"aml_share": 1.0}, "--aml-share"),
        ({"patients": 2}, "--patients"),
    ],
)
def test_options_that_are_impossible(tmp_path, changes, named):
    write_nifti(tmp_path / "a.nii.gz", masks(), grid_of())
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, **changes)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [named]


def test_options_of_drawn_scans_and_of_masks_do_not_mix():
    with pytest.raises(ConfigError, match="--matrix: the masks"):
        only_drawn({"matrix": 512, "kidneys": None})
    with pytest.raises(ConfigError, match="--around: only of --shapes"):
        only_painted({"spacing": None, "around": "1,1,1"})
    only_drawn({"matrix": None})
    only_painted({"spacing": None})


def command(monkeypatch, *words):
    """Exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["renalkit", "phantom", "ct", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_the_command(tmp_path, monkeypatch, capsys):
    """All masks unless a number is given; options that do not belong are refused."""
    source, out = tmp_path / "masks", tmp_path / "out"
    for name in ("a", "b"):
        write_nifti(source / f"{name}.nii.gz", masks(), grid_of())
    given = ("--shapes", source, "--workers", "1", "-o", out)
    assert command(monkeypatch, *given, "--matrix", "512", "--kidneys", "both") == Exit.USAGE
    told = capsys.readouterr().err
    assert "--matrix: the masks of --shapes decide that" in told
    assert "--kidneys: the masks" in told
    assert command(monkeypatch, "-o", out, "--around", "1,1,1") == Exit.USAGE
    assert command(monkeypatch, "--shapes", tmp_path / "no", "-o", out) == Exit.REFUSED
    assert not out.exists()
    assert command(monkeypatch, *given, "--spacing", "8,6,6", "--json") == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["n_patients"], found["n_slices"]) == (2, 2 * SHAPE[0])


@pytest.mark.skipif(
    not REAL.is_dir(), reason="NO REAL MASKS (set RENALKIT_DATA): painting into them is NOT tested"
)
def test_real_masks_become_scans_with_their_lesions(tmp_path):
    """Tumour and cyst of a real mask keep their volume; sizes and places are measured."""
    with (REAL / "manifest.csv").open() as file:
        rows = {r["case_id"]: r for r in csv.DictReader(file)}
    case = "case_00483"
    (tmp_path / "masks").mkdir()
    real = (REAL / "volumes" / f"{case}_seg.nii.gz").read_bytes()
    (tmp_path / "masks" / f"{case}_seg.nii.gz").write_bytes(real)
    make(tmp_path / "masks", tmp_path / "out", spacing="5,3,3")
    table = run_lesions(LesionsRequest(tmp_path / "out" / "dicom", tmp_path / "table"), Silent())
    (scan,) = table["scans"]
    sums = {"tumour": 0.0, "cyst": 0.0}
    for lesion in scan["lesions"]:
        sums[lesion["label"]] += lesion["volume_mm3"] / 1000
        assert lesion["renal"] or lesion["notes"]
    assert sums["tumour"] == pytest.approx(float(rows[case]["tumor_ml"]), rel=0.03)
    assert sums["cyst"] == pytest.approx(float(rows[case]["cyst_ml"]), rel=0.05)
