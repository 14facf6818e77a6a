"""A package of a CT cascade finds on new scans what the run finds, where torch cannot be imported;
whatever is not as it was made, or no CT scan, is refused in words."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.volume import Phase
from renalkit.errors import ConfigError, Exit, InputRefused, ModelRefused, RenalkitError, StoreError
from renalkit.phantom.ct.anatomy import draw_case
from renalkit.phantom.ct.geometry import Geometry, scanned
from renalkit.phantom.ct.volume import CtVolume, render_phases
from renalkit.runtime.abilities import Precision
from renalkit.runtime.cascade_package import load_cascade_package
from renalkit.runtime.engines import EngineOptions
from renalkit.runtime.package import load_package
from renalkit.store.files import read_json, write_json
from renalkit.store.runs import REPORTING, RunFolder, write_manifest
from renalkit.store.splits import load_split
from renalkit.usecases.cascade_kind import holds_cascade
from renalkit.usecases.cascade_model import trained_cascade
from renalkit.usecases.cascade_package_model import cascade_of_package
from renalkit.usecases.cascade_predict import ScanOptions, cascade_words, run_cascade_predict
from renalkit.usecases.cascade_run_model import cascade_of_run
from renalkit.usecases.cascade_scan import mean_mask, mean_name
from renalkit.usecases.export_cascade import (
    CascadeExport,
    cascade_export_words,
    export_cascade,
    made_up,
)
from renalkit.usecases.package_model import load_package_model
from renalkit.usecases.predict import run_predict
from renalkit.usecases.progress import Silent
from renalkit.usecases.run_model import load_run_model
from renalkit.writers.dicom_phantom import CtScan, write_ct_slices
from renalkit.writers.nifti import write_nifti

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
from cascading import LABEL, PARAMS, cascade_run
from predicting import PLAIN, untrained_run
from scanning import PLAN

corpus: Any = importlib.import_module("make_ct")

ONE = EngineOptions(threads=1)
TOGETHER = Phase.CORTICOMEDULLARY, Phase.NEPHROGRAPHIC
PREDICTS = """
from renalkit.cli import main
main()
"""


def called(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return cascade_run(tmp_path_factory.mktemp("cascade"))


@pytest.fixture(scope="module")
def exported(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both folds."""
    made = called("export", run.path, "-o", tmp_path_factory.mktemp("models"), "--json")
    assert made.exit_code == 0, made.output
    return json.loads(made.stdout)


@pytest.fixture
def graphs(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are those of the package, since translating takes seconds: weights decide them."""

    def copied(form: object, shape: object, n: int, path: Path) -> None:
        shutil.copy(package / path.parent.parent.name / path.parent.name / path.name, path)

    monkeypatch.setattr("renalkit.usecases.export_cascade.write_onnx", copied)


@pytest.fixture(scope="module")
def package(exported: dict[str, Any]) -> Path:
    return Path(exported["package"])


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "copy"))


@pytest.fixture(scope="module")
def drawn() -> CtVolume:
    """A patient nobody was trained on, in two phases."""
    return render_phases(draw_case(replace(PLAN, matrix=64, slice_spacing_mm=9.0), 77), TOGETHER)


@pytest.fixture(scope="module")
def study(drawn: CtVolume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both phases as DICOM series of one study."""
    folder = tmp_path_factory.mktemp("study")
    for number, (phase, hu) in enumerate(drawn.hu.items(), start=1):
        scan = CtScan(drawn.grid.spacing_mm, number, Phase(phase).value, "Iodine")
        slices = scanned(Geometry.PLAIN, drawn.grid, [hu])
        write_ct_slices(folder / Phase(phase).value, slices, corpus.WHO, scan)
    return folder


@pytest.fixture(scope="module")
def nifti(drawn: CtVolume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nephrographic phase as KiTS has it."""
    folder = tmp_path_factory.mktemp("kits") / "case_00077"
    folder.mkdir()
    hu = drawn.hu[Phase.NEPHROGRAPHIC]
    write_nifti(folder / "imaging.nii.gz", hu, drawn.grid, "IPL")
    write_nifti(folder / "segmentation.nii.gz", drawn.labels, drawn.grid, "IPL")
    return folder


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * int((one & other).sum()) / max(1, int(one.sum()) + int(other.sum()))


def labels_in(folder: Path) -> np.ndarray:
    return np.asarray(nibabel.load(folder / "labels.nii.gz").dataobj)  # type: ignore[attr-defined]


# ---- the package -------------------------------------------------------------------------------


def test_a_package_is_whole_and_says_what_it_is(
    exported: dict[str, Any], package: Path, run: RunFolder
) -> None:
    found = load_cascade_package(package)
    assert found.spec.classes == ("AML", "cystic", "solid")
    assert found.spec.phases == ("nephrographic",)
    assert [fold.fold for fold in found.spec.folds] == [0, 1]
    for fold in found.spec.folds:
        assert list(fold.networks) == ["kidney", "mass-0", "lesion"]
        assert fold.networks == read_json(run.fold(LABEL, fold.fold).done)["networks"]
    assert "tested on no scan" in found.card["package"]["words"]
    assert found.card["performance"]["segmentation"]["classes"]
    lesions = found.card["performance"]["lesions"]
    assert found.card["model"]["label"] == LABEL
    assert all("missed" not in one for one in lesions["criteria"].values())
    assert any("tested on no scan" in words for words in found.card["cautions"])
    page = (package / "README.md").read_text()
    for words in ("Research use only", "Simulated.", "nephrographic", "| openvino | fp32 |"):
        assert words in page
    assert "CC-BY-4.0" in (package / "LICENSE.txt").read_text()
    assert "6 networks of 2 folds" in cascade_export_words(exported)


def test_every_network_says_what_the_trained_one_says(exported: dict[str, Any]) -> None:
    forms = {(form["engine"], form["mode"]): form for form in exported["parity"]}
    assert set(forms) == {("openvino", "fp32"), ("onnxruntime", "fp32")}
    for form in forms.values():
        assert len(form["networks"]) == 6
        for network in form["networks"]:
            ((name, difference),) = network["difference"].items()
            assert difference <= 1e-4 * max(1.0, network["largest"][name])
            assert network["largest"][name] > 0.01
    scans = forms["openvino", "fp32"]["scans"]
    assert [scan["fold"] for scan in scans] == [0, 1]
    for scan in scans:
        assert min(scan["dice_kidney_and_mass"], scan["dice_mass"]) > 0.999
        assert scan["masses"][0] == scan["masses"][1] > 0
        assert scan["score"] < 1e-4


def test_nothing_in_it_names_a_patient_or_a_place(package: Path, run: RunFolder) -> None:
    everyone = frozenset[str]().union(
        *(f.train | f.validation for f in load_split(run.folds).folds)
    )
    assert len(everyone) == 4
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not [name for name in everyone if name.encode() in content], path.name
        assert str(run.path.parents[1]).encode() not in content, path.name
    found = load_cascade_package(package)
    assert found.seen([*everyone, "p-" + "f" * 20]) == everyone
    assert found.seen(["p-" + "f" * 20]) == frozenset()


def test_several_networks_count_by_their_mean_probability() -> None:
    image = np.zeros((1, 1, 2, 2, 2), np.float32)
    sure, unsure = (lambda x: x + 4.0), (lambda x: x - 1.0)
    said = 1 / (1 + np.exp(-mean_mask([sure, unsure])(image)))
    assert said == pytest.approx((1 / (1 + np.exp(-4.0)) + 1 / (1 + np.exp(1.0))) / 2, abs=1e-6)
    assert mean_mask([sure]) is sure
    assert np.isfinite(mean_mask([lambda x: x + 500.0, lambda x: x + 900.0])(image)).all()
    rows = [np.array([[0.0, 3.0]]), np.array([[2.0, 0.0]])]
    names = mean_name([lambda x: rows[0], lambda x: rows[1]])(image)
    shares = [np.exp(r) / np.exp(r).sum() for r in rows]
    assert np.exp(names) == pytest.approx(np.mean(shares, axis=0))


def test_the_scan_of_the_golden_pair_is_the_same_for_everyone() -> None:
    from renalkit.systems.ct_cascade import CascadeParams

    params = CascadeParams.model_validate(PARAMS)
    one, other = made_up(params), made_up(params)
    assert all(np.array_equal(one[stage], other[stage]) for stage in one)
    assert one["mass"].shape == (1, 1, 16, 24, 24)
    assert one["lesion"].shape == (1, 2, 16, 16, 16)
    assert set(np.unique(one["lesion"][0, 1])) == {0, 1}
    assert all(np.ptp(image) > 0.5 for image in one.values())


# ---- what it says of new scans -----------------------------------------------------------------


def test_a_package_finds_what_the_run_finds_and_needs_no_torch(
    run: RunFolder,
    package: Path,
    study: Path,
    tmp_path: Path,
    with_runtime_alone: Callable[..., str],
) -> None:
    words = ["predict", str(package), str(study), "-o", str(tmp_path / "out"), "--json"]
    found = json.loads(with_runtime_alone(PREDICTS, *words))
    wanted = run_cascade_predict(
        cascade_of_run(run.path), study, tmp_path / "wanted", ScanOptions(), Silent()
    )
    assert wanted["engine"] == "torch fp32"
    assert found["engine"].endswith("fp32")
    assert found["weights_sha256"] == wanted["weights_sha256"]
    assert found["use"].startswith("Research use only")
    assert found["refused"] == []
    # The other phase lies on the same voxels: it is measured, and not looked at, as it was never
    # trained on.
    (scan,), (same,) = found["scans"], wanted["scans"]
    assert scan["scan"] == same["scan"] == "nephrographic"
    assert scan["phases_beside"] == ["corticomedullary"]
    assert [other["scan"] for other in found["measured_only"]] == ["corticomedullary"]
    assert len(scan["lesions"]) == len(same["lesions"]) > 0
    for row, other in zip(scan["lesions"], same["lesions"], strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-3)
        assert row["confidence_probability"] == pytest.approx(
            other["confidence_probability"], abs=1e-3
        )
        assert set(row["mean_hu"]) == {"corticomedullary", "nephrographic"}
    one, two = (
        labels_in(p / "scans" / "nephrographic") for p in (tmp_path / "out", tmp_path / "wanted")
    )
    assert one.shape == two.shape
    for least in (1, 2):
        assert (two >= least).any()
        assert dice(one >= least, two >= least) > 0.999
    for name in ("segmentation.dcm", "report.dcm", "table.dcm"):
        assert (tmp_path / "out" / "scans" / "nephrographic" / "dicom" / name).exists()
    page = (tmp_path / "out/scans/nephrographic/lesions.html").read_text()
    assert "Not for diagnosis or treatment decisions" in page
    assert {f["outcome"] for f in found["files"]} <= {"used", "used-with-warning"}
    assert len(found["files"]) == len(list(study.rglob("*.dcm")))


@pytest.fixture(scope="module")
def cascade(package: Path) -> Any:
    return cascade_of_package(package, ONE)


def predicted(cascade: Any, source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return run_cascade_predict(cascade, source, output, ScanOptions(**options), Silent())


def test_a_nifti_scan_gets_results_on_its_own_axes(
    cascade: Any, nifti: Path, drawn: CtVolume, tmp_path: Path
) -> None:
    found = predicted(cascade, nifti, tmp_path / "out")
    (scan,) = found["scans"]
    assert scan["scan"] == "case_00077"
    outcomes = {f["file"]: f["outcome"] for f in found["files"]}
    assert outcomes == {"imaging.nii.gz": "used", "segmentation.nii.gz": "skipped"}
    labels = nibabel.load(tmp_path / "out/scans/case_00077/labels.nii.gz")  # type: ignore[attr-defined]
    own = nibabel.load(nifti / "imaging.nii.gz")  # type: ignore[attr-defined]
    assert labels.shape == own.shape
    assert np.allclose(labels.affine, own.affine)
    reference = nibabel.load(nifti / "segmentation.nii.gz")  # type: ignore[attr-defined]
    said, truth = np.asarray(labels.dataobj) > 0, np.asarray(reference.dataobj) > 0
    assert all(dice(said, truth) > dice(np.flip(said, axis), truth) for axis in range(3))
    table = (tmp_path / "out" / "lesions.csv").read_text().splitlines()
    assert len(table) == 1 + len(scan["lesions"])
    assert "case_00077" in cascade_words(found)


def test_the_phase_is_stated_read_from_the_kidneys_or_unknown(
    cascade: Any, nifti: Path, tmp_path: Path
) -> None:
    scan = nifti / "imaging.nii.gz"
    read = predicted(cascade, scan, tmp_path / "a")["scans"][0]
    assert read["phase"] is None or read["phase_from"] == "hu"
    stated = predicted(cascade, scan, tmp_path / "b", phase="nephrographic")["scans"][0]
    assert (stated["phase"], stated["phase_from"]) == ("nephrographic", "header")
    hidden = predicted(cascade, scan, tmp_path / "c", phase="unknown")["scans"][0]
    assert hidden["phase"] is None
    with pytest.raises(ConfigError, match="--phase venous: expected non-contrast"):
        predicted(cascade, scan, tmp_path / "d", phase="venous")


def test_a_phase_it_was_not_trained_on_is_refused_unless_asked_for(
    cascade: Any, study: Path, tmp_path: Path
) -> None:
    early = study / "corticomedullary"
    found = predicted(cascade, early, tmp_path / "a")
    assert found["scans"] == []
    assert {r["file"] for r in found["refused"]} == {p.name for p in early.glob("*.dcm")}
    assert "never trained; expected: nephrographic" in found["refused"][0]["words"]
    assert "--any-phase" in found["refused"][0]["words"]
    (scan,) = predicted(cascade, early, tmp_path / "b", any_phase=True)["scans"]
    assert "the system was trained on nephrographic" in " ".join(scan["notes"])


def test_a_further_scan_is_measured_where_it_lies_on_the_same_voxels(
    cascade: Any, nifti: Path, study: Path, drawn: CtVolume, tmp_path: Path
) -> None:
    scan = nifti / "imaging.nii.gz"
    beside = tmp_path / "early.nii.gz"
    write_nifti(beside, drawn.hu[Phase.CORTICOMEDULLARY], drawn.grid)
    further = [("corticomedullary", beside)]
    (found,) = predicted(cascade, scan, tmp_path / "a", phase="nephrographic", further=further)[
        "scans"
    ]
    assert found["phases_beside"] == ["corticomedullary"]
    assert found["lesions"][0]["enhancement_hu"]
    small = tmp_path / "small.nii.gz"
    write_nifti(small, corpus.scene(), corpus.GRID)
    with pytest.raises(InputRefused, match="small.nii.gz: a scan of"):
        predicted(cascade, scan, tmp_path / "b", further=[("", small)])
    with pytest.raises(InputRefused, match="2 scans"):
        predicted(cascade, scan, tmp_path / "c", further=[("", study)])
    with pytest.raises(ConfigError, match="--scan: of one scan, and the source holds 2"):
        predicted(cascade, study, tmp_path / "d", further=further)


def test_every_file_that_is_no_scan_says_why(
    cascade: Any, nifti: Path, drawn: CtVolume, tmp_path: Path
) -> None:
    source = tmp_path / "mixed"
    source.mkdir()
    shutil.copy(nifti / "imaging.nii.gz", source / "good.nii.gz")
    (source / "broken.nii.gz").write_bytes((nifti / "imaging.nii.gz").read_bytes()[:4000])
    write_nifti(source / "grey.nii.gz", drawn.labels, drawn.grid)
    write_nifti(source / "thin.nii.gz", drawn.hu[Phase.NEPHROGRAPHIC][:1], one_slice(drawn))
    assert cv2.imwrite(str(source / "slice.png"), np.zeros((64, 64), np.uint8))
    (source / "notes.txt").write_text("none")
    found = predicted(cascade, source, tmp_path / "out")
    assert [scan["scan"] for scan in found["scans"]] == ["good"]
    refused = {r["file"]: r["words"] for r in found["refused"]}
    assert set(refused) == {"broken.nii.gz", "grey.nii.gz", "thin.nii.gz", "slice.png"}
    assert "none below 0; expected: Hounsfield units" in refused["grey.nii.gz"]
    assert "one slice" in refused["thin.nii.gz"]
    assert "looks at CT scans" in refused["slice.png"]
    outcomes = {f["file"]: f["outcome"] for f in found["files"]}
    assert outcomes["notes.txt"] == "skipped"
    assert len(outcomes) == 6
    assert "refused slice.png" in cascade_words(found)


def one_slice(drawn: CtVolume) -> Any:
    grid = drawn.grid
    return replace(grid, shape=(1, *grid.shape[1:]))


def test_an_archive_is_looked_into_and_two_scans_of_one_name_kept_apart(
    cascade: Any, nifti: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in" / "all"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        shutil.copy(nifti / "imaging.nii.gz", source / name / "ct scan.nii.gz")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source.parent))
    found = predicted(cascade, packed, tmp_path / "out")
    assert [scan["folder"] for scan in found["scans"]] == ["scans/ct_scan", "scans/ct_scan-2"]
    assert found["scans"][0]["lesions"] == found["scans"][1]["lesions"]


def test_nothing_to_look_at_and_results_inside_the_source_are_refused(
    cascade: Any, nifti: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputRefused, match="no scan; expected: DICOM CT series or NIfTI"):
        predicted(cascade, nifti / "segmentation.nii.gz", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRefused, match="no file; expected: DICOM CT"):
        predicted(cascade, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="inside the folder that is read"):
        predicted(cascade, nifti, nifti / "out")
    assert not (tmp_path / "out").exists()


# ---- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["fold-0/lesion/model.onnx", "fold-1/kidney/weights.safetensors", "spec.json"]
)
def test_a_changed_or_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelRefused, match=f"{name} changed"):
        cascade_of_package(copy, ONE)
    path.unlink()
    with pytest.raises(ModelRefused, match=f"{name} missing" if "spec" not in name else "not a"):
        cascade_of_package(copy, ONE)


def test_networks_in_each_others_place_are_refused(copy: Path) -> None:
    """Whole by its manifest, yet another network than the golden pair was made with."""
    shutil.copy(copy / "fold-0/kidney/model.onnx", copy / "fold-1/kidney/model.onnx")
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="mask_logits differs by") as error:
        cascade_of_package(copy, ONE)
    assert "fold-1/kidney" in error.value.where


def test_an_incomplete_golden_pair_is_refused(copy: Path) -> None:
    golden = copy / "golden.safetensors"
    arrays = load_file(golden)
    save_file({k: v for k, v in arrays.items() if k != "fold-1/lesion"}, golden)
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="incomplete golden pair"):
        cascade_of_package(copy, ONE)
    save_file(arrays | {"fold-1/lesion": arrays["fold-1/kidney"]}, golden)
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="other results than its golden pair"):
        cascade_of_package(copy, ONE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "settings that cannot be read"),
        ({"kind": "another"}, "settings that cannot be read"),
        ({"classes": ["one"]}, "settings that cannot be read"),
        ({"folds": []}, "settings that cannot be read"),
        ({"params": {"mass": {"members": 2}}}, "settings of another version"),
        ({"params": {"mas": {}}}, "settings of another version"),
        ({"code": "os.system"}, "settings that cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_settings_of_another_kind_are_refused(
    copy: Path, change: dict[str, Any], words: str
) -> None:
    write_json(copy / "spec.json", read_json(copy / "spec.json") | change)
    write_manifest(copy)
    with pytest.raises(ModelRefused, match=words):
        cascade_of_package(copy, ONE)


def test_a_fold_without_a_stage_is_refused(copy: Path) -> None:
    spec = read_json(copy / "spec.json")
    del spec["folds"][0]["networks"]["lesion"]
    write_json(copy / "spec.json", spec)
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="expected kidney, mass-0"):
        cascade_of_package(copy, ONE)


def test_modes_it_was_not_made_with_are_refused(package: Path) -> None:
    with pytest.raises(ModelRefused, match="mode bf16, which this package was not made with"):
        cascade_of_package(package, EngineOptions(precision=Precision.BF16))


def test_packages_of_the_two_kinds_are_told_apart(package: Path, run: RunFolder) -> None:
    assert holds_cascade(package)
    assert holds_cascade(run.path)
    assert holds_cascade(run.fold(LABEL, 0).path)
    assert not holds_cascade(package.parent)
    with pytest.raises(ModelRefused, match="looks at CT scans; expected: one that looks at ultra"):
        load_package(package)
    with pytest.raises(ModelRefused, match="looks at CT scans"):
        load_package_model(package, ONE)


def test_ct_given_to_a_system_of_pictures_is_refused_file_by_file(
    study: Path, nifti: Path, tmp_path: Path
) -> None:
    systems = [{"name": "unet", "params": {"width": 0.125}}]
    model = load_run_model(untrained_run(tmp_path, systems, "frame").path / "unet")
    for source, words in ((study / "nephrographic", "ultrasound"), (nifti, "")):
        found = run_predict(model, source, tmp_path / source.name, PLAIN, Silent())
        assert found["frames"] == []
        left = [f for f in found["files"] if f["outcome"] in ("refused", "skipped")]
        assert len(left) == len(found["files"]) > 0
        assert all(words in f["reasons"][0]["words"].lower() for f in left)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"formats": ("monai-bundle",)}, "--format 'monai-bundle'"),
        ({"fast": (Precision.INT8,)}, "--fast 'int8': expected bf16"),
        ({"version": "../a"}, "--version"),
        ({"scans": -1}, "--scans -1"),
    ],
    ids=["format", "fast", "version", "scans"],
)
def test_wrong_wishes_for_a_package_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CascadeExport(Path("run"), **settings)


def test_runs_that_cannot_be_exported_are_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path.parents[1], tmp_path / "copy")
    other = RunFolder(tmp_path / "copy" / "runs" / "ct")

    def refused(kind: type[RenalkitError], words: str, path: Path = other.path) -> None:
        with pytest.raises(kind, match=words):
            export_cascade(CascadeExport(path, tmp_path / "models"), Silent())

    refused(ModelRefused, "no such fold or system", other.path / "figures")
    refused(ModelRefused, "a rule by HU", other.path / "hu-threshold")
    refused(ModelRefused, "no run of a CT cascade", tmp_path)
    (other.path / REPORTING).unlink()
    refused(ConfigError, "card.intended_use: empty")
    shutil.copy(run.path / REPORTING, other.path)
    weights = other.fold(LABEL, 0).path / "kidney" / "weights.safetensors"
    weights.write_bytes((other.fold(LABEL, 1).path / "kidney" / weights.name).read_bytes())
    refused(ModelRefused, "digest")
    weights.unlink()
    assert trained_cascade(other.path).folds == (1,)
    (other.fold(LABEL, 1).path / "lesion" / weights.name).unlink()
    refused(ModelRefused, "no finished fold with weights of all stages")
    assert not list((tmp_path / "models").rglob("*.onnx"))


@pytest.mark.usefixtures("graphs")
def test_what_a_fold_finds_must_be_what_the_run_stored(run: RunFolder, tmp_path: Path) -> None:
    """Here the settings changed after the scans were stored."""
    shutil.copytree(run.path.parents[1], tmp_path / "copy")
    other = RunFolder(tmp_path / "copy" / "runs" / "ct")
    settings = read_json(other.experiment_json)
    settings["settings"]["params"]["mass"]["least_mm"] = 300.0
    write_json(other.experiment_json, settings)
    with pytest.raises(ModelRefused, match="other labels than the run stored"):
        export_cascade(CascadeExport(other.fold(LABEL, 0).path, tmp_path / "models"), Silent())
    elsewhere = CascadeExport(other.path, tmp_path / "models", cohort=tmp_path)
    with pytest.raises(StoreError):
        export_cascade(elsewhere, Silent())
    assert not [p for p in (tmp_path / "models").rglob("*") if p.is_file()]


# ---- the command line --------------------------------------------------------------------------


@pytest.mark.usefixtures("graphs")
def test_one_fold_from_run_to_results_on_the_command_line(
    run: RunFolder, nifti: Path, tmp_path: Path
) -> None:
    fold = run.fold(LABEL, 1)
    made = called("export", fold.path, "-o", tmp_path, "--version", "a1", "--scans", 0, "--json")
    assert made.exit_code == 0, made.output
    package = Path(json.loads(made.stdout)["package"])
    assert package == tmp_path / LABEL / "a1"
    again = called("export", fold.path, "-o", tmp_path, "--version", "a1")
    assert "--version a1" in str(again.exception)
    spec = load_cascade_package(package).spec
    assert [one.folder for one in spec.folds] == ["fold-1"]
    assert spec.weights_sha256 == read_json(fold.done)["weights_sha256"]
    words = read_json(package / "card.json")["package"]["words"]
    assert words.startswith("The cascade of fold 1 alone")
    assert read_json(package / "parity.json")["compared_on"]["scans"] == 0
    scan = nifti / "imaging.nii.gz"
    done = called("predict", package, scan, "-o", tmp_path / "out", "--phase", "nephrographic")
    assert done.exit_code == 0, done.output
    assert "case_00077 (nephrographic)" in done.stdout
    assert "Research use only" in done.stdout
    stored = read_json(tmp_path / "out" / "predictions.json")
    assert stored["label"] == LABEL
    picture = tmp_path / "slice.png"
    assert cv2.imwrite(str(picture), np.zeros((64, 64), np.uint8))
    other = called("predict", package, picture, "-o", tmp_path / "other")
    assert other.exit_code == Exit.PARTIAL
    assert "this system looks at CT scans" in other.stdout


def test_options_of_the_other_kind_are_refused(run: RunFolder, nifti: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    many = called("predict", run.path, nifti, *out, "--one-patient", "--set", "maps=true")
    assert isinstance(many.exception, ConfigError)
    assert "--one-patient" in str(many.exception)
    assert "--set" in str(many.exception)
    fast = called("predict", run.path, nifti, *out, "--fast", "bf16")
    assert "--fast: for model packages" in str(fast.exception)
    assert "--frames" in str(called("export", run.path, *out, "--frames", 3).exception)
    systems = [{"name": "unet", "params": {"width": 0.125}}]
    pictures = untrained_run(tmp_path, systems, "frame").path / "unet"
    given = called("predict", pictures, nifti, *out, "--phase", "nephrographic")
    assert "--phase: for CT cascades" in str(given.exception)
    assert "--scans" in str(called("export", pictures, *out, "--scans", 3).exception)
