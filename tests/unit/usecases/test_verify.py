"""A finished run is believed when everything agrees; one changed score, figure or file is found."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.cohort import Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.sample import b_mode_samples
from renalkit.errors import StoreError
from renalkit.store.cohorts import load_cohort
from renalkit.store.predictions import load_predictions, save_predictions
from renalkit.store.runs import MANIFEST, RunFolder, write_manifest
from renalkit.store.splits import load_split, save_split
from renalkit.usecases.compare import CompareRequest, run_compare
from renalkit.usecases.evaluate import evaluate_run
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import write_report
from renalkit.usecases.verify import verify_run, verify_words


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> Path:
    root = tmp_path_factory.mktemp("made")
    made = made_run.make_run(root, n_patients=18, facts=True)
    outlines = root / "outlines.csv"
    outlines.write_text(outline_table(load_cohort(made.cohort)))
    evaluate_run(made.run, Silent(), outlines=outlines)
    write_manifest(made.run)
    return made.run


def without_reason(found: Any, place: str) -> list[str]:
    """Figures without a value or an interval, and without a note that says why."""
    if isinstance(found, list):
        return [p for k, one in enumerate(found) for p in without_reason(one, f"{place}[{k}]")]
    if not isinstance(found, dict):
        return []
    silent = {"value", "low", "high"} <= set(found) and None in (found["value"], found["low"])
    here = [place] if silent and not found.get("note") else []
    return here + [p for k, one in found.items() for p in without_reason(one, f"{place}.{k}")]


def test_every_missing_figure_of_a_run_says_why(original: Path) -> None:
    files = sorted(original.glob("*.json"))
    assert {"metrics.json", "comparisons.json", "subgroups.json"} <= {f.name for f in files}
    assert [p for f in files for p in without_reason(json.loads(f.read_text()), f.name)] == []


def outline_table(cohort: Cohort) -> str:
    """What two readers drew: the reference, and the reference one column to the right."""
    lines = ["reader,file,frame,x,y,width,height,lesion,mask,patient"]
    for sample in b_mode_samples(cohort):
        if sample.mask is None or not sample.mask.area_px:
            continue
        for reader, by in (("r1", 0), ("r2", 1)):
            mask = MaskRLE.encode(np.roll(sample.mask.decode(), by, axis=1))
            place = f"{sample.key.text}.png,0,1,1,9,9,1"
            lines.append(f"{reader},{place},{mask.text},{sample.key.patient}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(original: Path, tmp_path: Path) -> RunFolder:
    """A copy of the made run with its cohort."""
    shutil.copytree(original.parents[1], tmp_path / "work")
    return RunFolder(tmp_path / "work" / "runs" / "made-run")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def verified(run: RunFolder) -> dict[str, Any]:
    found = verify_run(run.path, Silent())
    assert found["ok"] is (found["n_differences"] == 0)
    json.dumps(found, allow_nan=False)
    return found


def told(found: dict[str, Any] | RunFolder, kind: str) -> list[tuple[str, str]]:
    """Where and what differs, of one kind."""
    if isinstance(found, RunFolder):
        found = verified(found)
    return [(d["where"], d["words"]) for d in found["differences"] if d["kind"] == kind]


def kinds(found: dict[str, Any] | RunFolder) -> set[str]:
    if isinstance(found, RunFolder):
        found = verified(found)
    return {d["kind"] for d in found["differences"]}


def files_of(run: RunFolder) -> dict[str, bytes]:
    return {
        p.relative_to(run.path).as_posix(): p.read_bytes()
        for p in run.path.rglob("*")
        if p.is_file()
    }


def test_an_untouched_run_agrees_and_stays_untouched(run: RunFolder) -> None:
    before = files_of(run)
    found = verify_run(run.path, Silent())
    assert found["differences"] == []
    assert found["ok"] is True
    n_folds = 4 * len(load_split(run.folds).folds)
    assert found["checked"]["weights"] == n_folds
    assert found["checked"]["file"] == len(before) - 1
    tables = [load_predictions(p) for p in run.path.rglob("*.parquet")]
    assert found["checked"]["prediction"] <= sum(len(t) for t in tables)
    assert found["checked"]["figure"] > 1000
    assert files_of(run) == before
    assert verify_words(found).endswith("everything agrees")


WRITTEN = (
    "metrics.json",
    "comparisons.json",
    "images.json",
    "characteristics.json",
    "subgroups.json",
    "usefulness.json",
    "lesions.json",
    "reader_ceiling.json",
    "clinical/coefficients.json",
    "cases.csv",
    "characteristics.csv",
    "subgroups.csv",
    "lesions.csv",
)
"""Every file of figures that evaluation writes here."""


def test_one_changed_digit_is_found_in_every_file_of_figures(run: RunFolder) -> None:
    """The manifest is mended too, so only figures computed again can tell."""
    places = {name: tampered(run.path / name) for name in WRITTEN}
    write_manifest(run.path)
    found = verified(run)
    assert kinds(found) == {"figure"}
    told_of = {where.partition(":")[0] for where, _ in told(found, "figure")}
    assert told_of == {Path(name).name for name in WRITTEN}
    assert found["n_differences"] == len(WRITTEN), "and nothing else"
    for name, place in places.items():
        assert any(where == f"{Path(name).name}: {place}" for where, _ in told(found, "figure")), (
            name,
            place,
        )


def test_evaluation_writes_no_file_that_is_not_verified(run: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    evaluate_run(run.path, Silent())
    after = {
        p for p in run.path.rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns
    }
    written = {p.relative_to(run.path).as_posix() for p in after} - {MANIFEST}
    assert written == {*WRITTEN, "clinical/model.json"}


def tampered(path: Path) -> str:
    """Change one digit of the last figure with a fraction; the place as verify names it."""
    if path.suffix == ".csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        line, column = next(
            (i, k)
            for i in range(len(rows) - 1, 0, -1)
            for k, cell in enumerate(rows[i])
            if re.fullmatch(r"0\.\d{3,}", cell)
        )
        digits = rows[line][column]
        rows[line][column] = digits[:3] + str((int(digits[3]) + 5) % 10) + digits[4:]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return f"line {line + 1}, {rows[0][column]}"
    value = json.loads(path.read_text())
    numbers = [p for p in leaves(value) if isinstance(at(value, p), int | float)]
    fractions = [p for p in numbers if at(value, p) % 1]
    last = (fractions or numbers)[-1]
    inner = at(value, last[:-1])
    inner[last[-1]] = inner[last[-1]] * (1 + 1e-7) if fractions else inner[last[-1]] + 1
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return ".".join(map(str, last))


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k in sorted(value) for p in leaves(value[k], (*place, k))]
    if isinstance(value, list):
        return [p for k, v in enumerate(value) for p in leaves(v, (*place, k))]
    return [place]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def test_a_changed_outline_of_a_reader_changes_the_ceiling(run: RunFolder) -> None:
    text = run.outlines.read_text().splitlines()
    run.outlines.write_text("\n".join([*text[:2], *text[4:]]) + "\n")
    found = verified(run)
    assert ("outlines.csv", "has changed since the run wrote it") in told(found, "file")
    names = {where.partition(":")[0] for where, _ in told(found, "figure")}
    assert names == {"reader_ceiling.json", "lesions.json"}


def test_one_changed_score_changes_its_file_and_its_figures(run: RunFolder) -> None:
    path = run.fold("resnet18", 0).test
    first, *rest = load_predictions(path)
    assert first.scores is not None
    save_predictions(path, [replace(first, scores=first.scores[::-1]), *rest])
    found = verified(run)
    assert told(found, "file") == [
        ("resnet18/fold-0/test.parquet", "has changed since the run wrote it")
    ]
    places = [where for where, _ in told(found, "figure")]
    assert any(p.startswith("metrics.json: systems.2.classification") for p in places)
    assert not any(p.startswith("metrics.json: systems.0") for p in places)
    assert not any("unet" in p for p in places)


def test_one_changed_figure_is_found_with_both_values(run: RunFolder) -> None:
    auc: dict[str, Any] = {}

    def nicer(metrics: Any) -> None:
        auc.update(metrics["systems"][0]["classification"]["patient"]["auc"])
        metrics["systems"][0]["classification"]["patient"]["auc"]["value"] = 0.999

    edit(run.metrics, nicer)
    found = verify_run(run.path, Silent())
    (figure,) = [d for d in found["differences"] if d["kind"] == "figure"]
    assert figure["where"] == "metrics.json: systems.0.classification.patient.auc.value"
    assert (figure["stored"], figure["found"]) == (0.999, auc["value"])
    # Whoever also mends the manifest is still found.
    write_manifest(run.path)
    assert kinds(run) == {"figure"}


def test_a_figure_within_rounding_agrees(run: RunFolder) -> None:
    def shaken(metrics: Any) -> None:
        metrics["systems"][0]["classification"]["patient"]["auc"]["value"] += 1e-13

    edit(run.metrics, shaken)
    write_manifest(run.path)
    assert verify_run(run.path, Silent())["ok"] is True


@pytest.mark.parametrize("name", ["cases.csv", "comparisons.json", "subgroups.csv"])
def test_every_file_of_figures_is_computed_again(run: RunFolder, name: str) -> None:
    path = run.path / name
    text = path.read_text()
    if name == "cases.csv":
        head, first, *rest = text.splitlines()
        cells = first.split(",")
        cells[head.split(",").index("dice")] = "0.999"
        path.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")
        where = "cases.csv: line 2, dice"
    elif name == "comparisons.json":
        edit(path, lambda found: found["rows"][0].update(p=0.0001))
        where = "comparisons.json: rows.0.p"
    else:
        path.write_text(text + text.splitlines()[-1] + "\n")
        where = "subgroups.csv: lines"
    write_manifest(run.path)
    assert [w for w, _ in told(run, "figure")] == [where]


def test_a_patient_moved_between_folds_is_found(run: RunFolder) -> None:
    moved: list[str] = []

    def move(folds: Any) -> None:
        moved.append(folds["folds"][0]["test"].pop())
        folds["folds"][0]["train"].append(moved[0])

    edit(run.folds, move)
    assert told(run, "split") == [
        ("folds.json", "the folds do not match their digest: the file was changed by hand")
    ]


def test_a_patient_in_two_parts_is_found(run: RunFolder) -> None:
    edit(run.folds, lambda f: f["folds"][0]["train"].append(f["folds"][0]["test"][0]))
    ((where, words),) = told(run, "split")
    assert where == "folds.json"
    assert "1 patients in train and in test" in words


def test_folds_divided_anew_do_not_fit_the_predictions(run: RunFolder) -> None:
    """The digest mended as well: predictions and finished folds still know better."""
    split = load_split(run.folds)
    first = split.folds[0]
    patient = min(first.test)
    fold = replace(first, test=first.test - {patient}, train=first.train | {patient})
    save_split(run.folds, replace(split, folds=(fold, *split.folds[1:])))
    write_manifest(run.path)
    found = verified(run)
    words = [w for _, w in told(found, "prediction")]
    assert any("not in the test part of fold 0" in w for w in words)
    assert ("record.json", "split digest") in told(found, "digest")


def test_duplicates_in_two_parts_are_found(run: RunFolder) -> None:
    fold = load_split(run.folds).folds[0]
    pair = {min(fold.train): "g1", min(fold.test): "g1"}
    edit(run.check, lambda check: check.update(groups=pair))
    write_manifest(run.path)
    assert ("folds.json, fold 0", "1 groups of duplicates are in two parts") in told(run, "split")


def test_missing_changed_and_foreign_files_are_found(run: RunFolder) -> None:
    run.fold("unet", 1).history.unlink()
    run.check.write_text("{}\n")
    (run.path / "unet" / "note.txt").write_text("mine")
    assert told(run, "file") == [
        ("check.json", "has changed since the run wrote it"),
        ("unet/fold-1/history.csv", "is missing"),
        ("unet/note.txt", "is not of this run: the manifest does not list it"),
    ]


def test_missing_predictions_or_weights_are_told_and_the_rest_is_checked(run: RunFolder) -> None:
    run.fold("unet", 0).test.unlink()
    run.fold("unet", 1).weights.unlink()
    found = verify_run(run.path, Silent())
    places = {(d["kind"], d["where"]) for d in found["differences"]}
    assert ("prediction", "unet/fold-0/test.parquet") in places
    assert ("weights", "unet/fold-1/weights.safetensors") in places
    assert any(k == "figure" for k, _ in places), "that they could not be computed again"
    assert found["checked"]["prediction"] > 0


def test_a_file_that_older_versions_did_not_write_is_no_difference(run: RunFolder) -> None:
    run.subgroups.unlink()
    found = verified(run)
    assert told(found, "file") == [("subgroups.json", "is missing")]
    assert found["not_written_yet"] == []
    write_manifest(run.path)
    found = verified(run)
    assert found["ok"] is True
    assert found["not_written_yet"] == ["subgroups.json"]
    assert "did not write subgroups.json" in verify_words(found)


def test_exchanged_weights_are_found(run: RunFolder) -> None:
    one, two = run.fold("unet", 0).weights, run.fold("unet", 1).weights
    one.write_bytes(two.read_bytes())
    write_manifest(run.path)
    ((where, _),) = told(run, "weights")
    assert where == "unet/fold-0/weights.safetensors"


def test_predictions_of_another_fold_are_found(run: RunFolder) -> None:
    path = run.fold("unet", 0).test
    first, *rest = load_predictions(path)
    save_predictions(path, [replace(first, fold=1), *rest])
    write_manifest(run.path)
    assert ("unet/fold-0/test.parquet", "1 predictions of another system, fold or weights") in told(
        run, "prediction"
    )
    save_predictions(path, [*rest, rest[0]])
    words = [w for _, w in told(run, "prediction")]
    assert words == ["1 frames predicted twice", "1 frames of test patients not predicted"]


def test_changed_settings_and_truths_are_found(run: RunFolder) -> None:
    path = run.fold("resnet18", 0).validation
    first, *rest = load_predictions(path)
    save_predictions(path, [replace(first, target=1 - (first.target or 0)), *rest])
    edit(run.experiment_json, lambda e: e["settings"]["statistics"].update(level=0.9))
    found = verified(run)
    assert told(found, "prediction") == [
        (
            "resnet18/fold-0/validation.parquet",
            "1 predictions with another truth than the cohort's",
        )
    ]
    assert ("experiment.json", "digest of the settings") in told(found, "digest")


def test_an_unfinished_run_or_another_cohort_is_no_agreement(run: RunFolder) -> None:
    (run.path / MANIFEST).unlink()
    run.fold("unet", 2).done.unlink()
    assert told(run, "file") == [
        (MANIFEST, f"no {MANIFEST}: the run is not finished"),
        ("unet/fold-2/done.json", "is missing: the fold is unfinished"),
    ]
    shutil.rmtree(run.path.parents[1] / "cohorts")
    with pytest.raises(StoreError):
        verify_run(run.path, Silent())


def test_figures_and_report_written_again_still_agree(run: RunFolder) -> None:
    write_report(run.path, None, Silent())
    evaluate_run(run.path, Silent())
    run_compare(CompareRequest(run.path, (), None, "unet", run.path.parent), Silent())
    assert json.loads(run.comparisons.read_text())["reference"] == "unet"
    assert verified(run)["ok"] is True
    # What was changed by hand in between is not taken into the manifest.
    run.check.write_text("{}\n")
    evaluate_run(run.path, Silent())
    assert ("check.json", "has changed since the run wrote it") in told(run, "file")


def test_the_command_ends_with_6_when_something_differs(run: RunFolder) -> None:
    done = CliRunner().invoke(app, ["verify", str(run.path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ok"] is True
    edit(run.metrics, lambda m: m["systems"][0].update(label="other"))
    done = CliRunner().invoke(app, ["verify", str(run.path)])
    assert done.exit_code == 6
    assert "metrics.json: systems.0.label: differs when computed again" in done.stdout
    assert "stored other, found multitask-us" in done.stdout
    assert done.stdout.strip().endswith("2 differences")


def test_it_needs_no_torch(run: RunFolder, without_torch: Callable[..., str]) -> None:
    without_torch(
        "from pathlib import Path\n"
        "from renalkit.usecases.verify import verify_run\n"
        "from renalkit.usecases.progress import Silent\n"
        "assert verify_run(Path(sys.argv[1]), Silent())['ok']\n",
        run.path,
    )
