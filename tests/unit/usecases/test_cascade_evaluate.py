"""Figures of runs with CT scans: right for what is right, the same as their tables, and refused
where scans are not the run's own."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.domain.experiment import RunRecord, Status
from renalkit.domain.scan import FoundScan
from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.cohorts import load_cohort
from renalkit.store.runs import RunFolder, save_record, write_manifest
from renalkit.store.scans import load_scan, save_scan, saved_scans
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.evaluate import evaluate_run, metrics_words
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import read_results
from renalkit.usecases.scan_cases import read_scans, scan_case
from renalkit.usecases.scan_lesions import Size
from renalkit.usecases.scan_truth import scan_truth
from renalkit.usecases.verify import verify_run

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, TASK, ct_cohort, scan_run

SYSTEMS = (("ct-cascade", None), ("worse", 0.4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of six patients, two of them without a mass, and its figures."""
    cohort = ct_cohort(6, replace(PLAN, matrix=64), normal=2)
    run = scan_run(tmp_path_factory.mktemp("scans"), cohort, SYSTEMS)
    return run.path, evaluate_scans(run.path, Silent())


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_what_is_right_scores_one(made: tuple[Path, dict[str, Any]]) -> None:
    exact = made[1]["systems"][0]
    assert (exact["label"], exact["complete"], exact["scans"], exact["missing"]) == (
        *("ct-cascade", True),
        *(6, 0),
    )
    for one in exact["segmentation"]["classes"]:
        assert one["dice"]["value"] == one["surface_dice"]["value"] == 1
        assert one["fold_mean"]["folds"] == [1, 1]
    assert [c["without"] for c in exact["segmentation"]["classes"]][:2] == [0, 2]
    for found in exact["lesions"]["criteria"].values():
        assert found["recall"]["value"] == found["precision"]["value"] == 1
        assert found["false_per_normal"]["value"] == 0
    for table in exact["confusion"]["counts"].values():
        assert np.trace(np.array(table)[:, :3]) == np.sum(table)
    cover = exact["coverage"]
    assert cover["kidney"]["value"] == cover["mass"]["value"] == cover["least_mass"] == 1
    assert 0 < cover["searched"] < 1


def test_figures_are_those_of_the_tables(made: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = made
    worse = metrics["systems"][1]
    scans = [r for r in rows(path / "cases.csv") if r["label"] == "worse"]
    assert len(scans) == 6
    dice = np.mean([float(r["dice_mass"]) for r in scans])
    assert worse["segmentation"]["classes"][1]["dice"]["value"] == pytest.approx(dice, rel=1e-5)
    lesions = [r for r in rows(path / "scan_lesions.csv") if r["label"] == "worse"]
    marks = [r for r in rows(path / "scan_marks.csv") if r["label"] == "worse"]
    for name, slug in (("any voxel", "any_voxel"), ("IoU 0.1", "iou_0_1")):
        found = worse["lesions"]["criteria"][name]
        hit = [bool(r[f"mark_{slug}"]) for r in lesions]
        assert (found["lesions"], found["marks"]) == (len(lesions), len(marks))
        assert found["recall"]["value"] == pytest.approx(np.mean(hit))
        good = np.mean([bool(r[f"lesion_{slug}"]) for r in marks])
        assert found["precision"]["value"] == pytest.approx(good)
        right = [r[f"called_{slug}"] == r["class"] for r in lesions]
        whole = found["classes"][0]["sizes"][0]
        assert whole["size"] == "all"
        assert whole["accuracy_all"]["value"] == pytest.approx(np.mean(right))
        table = np.array(worse["confusion"]["counts"][name])
        assert np.trace(table[:, :3]) == sum(right)
        assert table[:, -1].sum() == hit.count(False)
    assert worse["lesions"]["criteria"]["any voxel"]["false_per_normal"]["value"] == 1
    froc = worse["lesions"]["criteria"]["IoU 0.1"]["froc"]
    assert len(froc["points"]) == len(marks)


def test_sizes_are_told_in_every_way(made: tuple[Path, dict[str, Any]]) -> None:
    worse = made[1]["systems"][1]
    assert worse["lesions"]["size"] == "equivalent diameter"
    assert sorted(worse["sizes"]) == ["axial diameter", "largest diameter in space"]
    for row in rows(made[0] / "scan_lesions.csv"):
        assert 0 < float(row["axial_diameter_mm"]) <= float(row["largest_diameter_in_space_mm"])


def test_systems_stand_beside_one_another(made: tuple[Path, dict[str, Any]]) -> None:
    found = json.loads((made[0] / "comparisons.json").read_text())
    assert found["reference"] == "ct-cascade"
    by_metric = {row["metric"]: row for row in found["rows"]}
    worse = made[1]["systems"][1]["segmentation"]["classes"]
    for one in worse:
        row = by_metric[f"Dice, {one['name']}"]
        assert row["value"] == pytest.approx(one["dice"]["value"])
        assert row["difference"]["value"] == pytest.approx(1 - one["dice"]["value"])
        assert row["difference"]["n"] == 6


def test_another_way_of_measuring_is_kept(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(made[0].parents[1], tmp_path / "all")
    found = evaluate_scans(tmp_path / "all/runs/ct", Silent(), size=Size.AXIAL)
    assert found["statistics"]["size"] == "axial diameter"
    first, again = (m["systems"][1] for m in (made[1], found))
    axial = first["sizes"]["axial diameter"]["any voxel"]
    assert axial["large"] == again["lesions"]["criteria"]["any voxel"]["large"]


def changed(folder: Path, change: Callable[[FoundScan], FoundScan]) -> Path:
    """The run with one scan of the first system changed."""
    own = RunFolder(folder / "runs/ct").fold("ct-cascade", 0).path / "scans"
    path = saved_scans(own)[0]
    scan = change(load_scan(path))
    path.unlink()
    path.with_suffix(".npz").unlink()
    save_scan(own, scan)
    return folder / "runs/ct"


def moved(scan: FoundScan) -> FoundScan:
    matrix = np.asarray(scan.grid.affine_lps_mm)
    matrix[2, 3] += 3.0
    return replace(scan, grid=VolumeGrid(scan.grid.shape, affine_of(matrix)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved, "results on a grid"),
        (lambda s: replace(s, fold=1), "results of ct-cascade, fold 1"),
        (lambda s: replace(s, key=replace(s.key, clip=4)), "does not have"),
    ],
)
def test_scans_that_are_not_the_runs_own_are_refused(
    made: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    change: Callable[[FoundScan], FoundScan],
    words: str,
) -> None:
    shutil.copytree(made[0].parents[1], tmp_path / "all")
    run = changed(tmp_path / "all", change)
    with pytest.raises((InputRefused, StoreError), match=words) as refused:
        evaluate_scans(run, Silent())
    assert refused.value.where
    if change is moved:
        assert isinstance(refused.value, InputRefused)
        assert refused.value.reason is Reason.MASK_MISMATCH


def test_a_scan_tested_twice_or_by_the_wrong_fold_is_refused(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(made[0].parents[1], tmp_path / "all")
    run = RunFolder(tmp_path / "all/runs/ct")
    path = saved_scans(run.fold("ct-cascade", 0).path / "scans")[0]
    save_scan(run.fold("ct-cascade", 1).path / "scans", replace(load_scan(path), fold=1))
    with pytest.raises(StoreError, match="this fold does not test"):
        evaluate_scans(run.path, Silent())


def test_a_folder_without_scans_or_another_cohort_is_refused(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"experiment\.json"):
        evaluate_scans(tmp_path, Silent())
    other = scan_run(tmp_path / "b", ct_cohort(2, replace(PLAN, matrix=64), normal=0))
    with pytest.raises(StoreError, match="not the cohort"):
        evaluate_scans(made[0], Silent(), tmp_path / "b/cohort")
    shutil.rmtree(other.system("ct-cascade"))
    with pytest.raises(StoreError, match="no scans"):
        evaluate_scans(other.path, Silent())


def test_coverage_counts_voxels_and_whole_lesions(made: tuple[Path, dict[str, Any]]) -> None:
    """A box that ends in the middle of the first lesion."""
    cohort = load_cohort(made[0].parents[1] / "cohort")
    study = next(s for s in cohort.studies if s.lesions)
    truth = scan_truth(study, 0)
    own = next(iter(truth.lesions))
    at = truth.volume.grid.to_lps(np.argwhere(truth.instances == own))
    middle = float(np.median(at[:, 2]))
    folds = made[0] / "ct-cascade"
    path = next(folds.glob(f"fold-*/scans/{truth.key.text}.json"))
    box = ((-1e3, -1e3, -1e3), (1e3, 1e3, middle))
    scan = replace(load_scan(path), boxes_mm=(box, box))
    cover = scan_case("ct-cascade", scan, truth, TASK, Size.EQUIVALENT).covered
    assert cover is not None
    z = truth.volume.grid.to_lps(np.argwhere(truth.labels > 1))[:, 2]
    assert cover.mass == (int((z <= middle + 1e-6).sum()), len(z))
    whole = sum(
        truth.volume.grid.to_lps(np.argwhere(truth.instances == n))[:, 2].max() <= middle + 1e-6
        for n in truth.lesions
    )
    assert cover.lesions == (whole, len(truth.lesions))


def test_uneven_slices_are_scored_on_even_ones(made: tuple[Path, dict[str, Any]]) -> None:
    cohort = load_cohort(made[0].parents[1] / "cohort")
    study = cohort.studies[0]
    volume: Any = study.clips[0]
    places = tuple(k + 0.4 * (k % 2) for k in range(volume.n_frames))
    grid = replace(volume.grid, slice_at=places)
    study = replace(study, clips=(replace(volume, grid=grid),))
    truth = scan_truth(study, 0)
    path = next((made[0] / "ct-cascade").glob(f"fold-*/scans/{truth.key.text}.json"))
    scan = replace(load_scan(path), grid=grid)
    case = scan_case("ct-cascade", scan, truth, TASK, Size.EQUIVALENT)
    assert case.evened
    assert {s.dice for s in case.scores.values()} == {1.0}


def test_a_changed_scan_is_found(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """What was evaluated agrees; a mark taken out of a stored scan does not."""
    shutil.copytree(made[0].parents[1], tmp_path / "all")
    run = RunFolder(tmp_path / "all/runs/ct")
    digests = {n: made[1][n] for n in ("cohort_digest", "split_digest")}
    settings = json.loads(run.experiment_json.read_text())["digest"]
    save_record(run, RunRecord("ct", Status.COMPLETE, settings, **digests, versions={}, machine={}))
    write_manifest(run.path)
    found = verify_run(run.path, Silent())
    assert (found["ok"], found["differences"]) == (True, [])
    assert found["checked"]["prediction"] == 12
    assert found["checked"]["figure"] > 1000
    own = run.fold("worse", 1).path / "scans"
    scan = next(s for s in map(load_scan, saved_scans(own)) if len(s.lesions) > 1)
    gone = scan.lesions[0].number
    kept = np.where(scan.instances == gone, 0, scan.instances).astype(np.uint8)
    save_scan(own, replace(scan, instances=kept, lesions=scan.lesions[1:]))
    found = verify_run(run.path, Silent())
    told = {(d["kind"], d["where"].partition(":")[0]) for d in found["differences"]}
    assert ("figure", "metrics.json") in told
    assert ("figure", "scan_marks.csv") in told
    assert any(kind == "file" for kind, _ in told)


def test_the_commands_know_such_a_run(made: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = made
    assert evaluate_run(path, Silent()) == metrics
    words = metrics_words(metrics)
    assert "Dice, kidney and mass       1.000" in words
    with pytest.raises(StoreError, match="a run with CT scans"):
        read_results(path, Silent())


def test_the_system_of_the_run_comes_first_whatever_its_name(tmp_path: Path) -> None:
    """The first is compared with the others, and the one a card is written of."""
    cohort = ct_cohort(4, replace(PLAN, matrix=64))
    run = scan_run(tmp_path, cohort, (("z-mine", None), ("a-other", None), ("m-other", None)))
    found = read_scans(run.path, Silent())
    assert [one.label for one in found.systems] == ["z-mine", "a-other", "m-other"]
