"""Lesions found by a system: who counts as found, sizes, FROC, comparisons, readers as ceiling."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import InputRefused, StatisticUndefined, StoreError
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.detection import region_scores
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.store.runs import RunFolder
from renalkit.store.splits import save_split
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.lesions import lesions_csv, lesions_of_run
from renalkit.usecases.progress import Silent
from renalkit.usecases.reader_ceiling import keep_outlines, write_reader_ceiling
from renalkit.usecases.results import RunResults, pool, system_results

KEY = bytes(range(32))
TASK = ClassTask(("benign", "malignant"), "malignant")
WITH_NORMAL = ClassTask(("benign", "malignant", "normal"))


def box(left: int, width: int, top: int = 4, height: int = 10) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def study(n: int, scale: float | None = 1.0, label: str | None = None) -> Study:
    """One picture with a large lesion and, every other one, a small second; or none at all."""
    pixels = np.full((1, 40, 60), n, np.uint8)
    path = Pseudonyms(KEY).path(Path(f"images/{n}.png"))
    spacing = None if scale is None else (scale, scale)
    clip = Clip(pixels, f"{n:064x}", Mode.B, Source(f"{n:064x}", path, "png"), spacing_mm=spacing)
    if label is not None:
        return Study(f"s-{n:020x}", f"p-{n:020x}", (clip,), label=label)
    masks = [box(5, 20)] + ([box(40, 4, height=4)] if n % 2 else [])
    lesions = tuple(
        Lesion(f"l-{10 * n + k:020x}", TASK.classes[n % 2], rois=(Roi(0, 0, MaskRLE.encode(m)),))
        for k, m in enumerate(masks)
    )
    return Study(f"s-{n:020x}", f"p-{n:020x}", (clip,), lesions)


def results(
    folder: Path,
    cohort: Cohort,
    drawn: list[dict[str, np.ndarray]],
    scores: bool = False,
    probability: np.ndarray | None = None,
) -> RunResults:
    """drawn: per system the mask of every patient; scores: P(normal) falls with the patient.

    probability: of the pixels, of which regions get their scores.
    """
    labels = ["one", "two"][: len(drawn)]
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "systems": [{"name": "multitask-us", "label": x} for x in labels],
            "statistics": {"bootstrap": 200},
        }
    )
    samples = {s.key: s for s in b_mode_samples(cohort)}
    systems = []
    for job, masks in zip(jobs_of(experiment), drawn, strict=True):
        said = []
        for k, s in enumerate(samples.values()):
            none = 1 / (k + 2)
            given = (*((1 - none) / 2,) * 2, none) if scores else None
            ref = SystemRef("multitask-us", job.label, "0" * 64)
            mask = MaskRLE.encode(masks[s.key.patient])
            said.append(
                Prediction(
                    Unit.FRAME,
                    s.key,
                    given,
                    s.label,
                    ref,
                    0,
                    mask=mask,
                    mark_scores=None
                    if probability is None
                    else region_scores(masks[s.key.patient], probability),
                )
            )
        how = (experiment.statistics, cohort.task)
        systems.append(system_results((job, (0,), tuple(said), ()), samples, how, Silent()))
    return RunResults(RunFolder(folder), experiment, cohort, tuple(systems))


def cohort(n: int = 12, scale: float | None = 1.0) -> Cohort:
    return Cohort("c", TASK, tuple(study(k, scale) for k in range(n)))


def test_large_lesions_found_small_ones_missed_and_specks_are_no_marks(tmp_path: Path) -> None:
    found = cohort()
    speck = np.zeros((40, 60), bool)
    speck[30, 50:58] = True
    masks = {p: box(5, 16) | speck for p in found.patients}
    (system,) = lesions_of_run(results(tmp_path, found, [masks]))["systems"]
    assert (system["pictures"], system["patients"]) == (12, 12)
    assert (system["lesions"], system["marks"]) == (18, 12), "eight pixels are below the least size"
    assert system["recall"]["value"] == pytest.approx(12 / 18)
    assert system["recall_well"]["value"] == pytest.approx(12 / 18), "IoU 0.8"
    assert system["precision"]["value"] == 1
    assert system["f1"]["value"] == pytest.approx(24 / 30)
    assert system["false_per_picture"]["value"] == 0
    assert system["clean"] is None, "every picture has a lesion"
    sizes = {b["size"]: b for b in system["by_size"]}
    # A box of 4 x 4 mm is as a circle of 4.5 mm, one of 10 x 20 mm as one of 16 mm.
    assert list(sizes) == ["under 5 mm", "10 to 20 mm"]
    assert sizes["10 to 20 mm"]["recall"]["value"] == 1
    assert sizes["under 5 mm"]["lesions"] == 6
    assert sizes["under 5 mm"]["recall"]["note"] == "6 patients, fewer than 10"
    assert system["froc"] is None, "no class says that there is no lesion"
    assert system["score"] == "no score per candidate: one operating point"
    assert [m["size_mm"] for m in system["missed"]] == pytest.approx([4.513517] * 6)
    assert [m["patient"] for m in system["missed"]] == list(found.patients[1::2])
    assert {m["lesion"] for m in system["missed"]} == {1}


def test_without_a_scale_there_are_no_sizes(tmp_path: Path) -> None:
    found = cohort(scale=None)
    masks = {p: box(5, 16) for p in found.patients}
    (system,) = lesions_of_run(results(tmp_path, found, [masks]))["systems"]
    assert system["by_size"] == []
    assert system["size_unknown"] == 18


def test_pictures_without_lesion_give_clean_share_and_a_froc_curve(tmp_path: Path) -> None:
    studies = [study(k) for k in range(10)] + [study(20 + k, label="normal") for k in range(10)]
    found = Cohort("c", WITH_NORMAL, tuple(studies))
    marked = set(found.patients[:10]) | set(found.patients[10:13])
    empty = np.zeros((40, 60), bool)
    masks = {p: box(5, 16) if p in marked else empty for p in found.patients}
    (system,) = lesions_of_run(results(tmp_path, found, [masks], scores=True))["systems"]
    assert system["clean"]["value"] == pytest.approx(0.7)
    assert system["false_per_picture"]["value"] == pytest.approx(3 / 20)
    assert system["score"] == "1 minus the probability of 'normal' of the picture"
    curve = system["froc"]
    assert [a["rate"] for a in curve["at"]] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    last = curve["points"][-1]
    assert last["sensitivity"] == pytest.approx(10 / 15)
    assert last["false_per_picture"] == pytest.approx(3 / 20)
    # Scores rise with the patient, so the three false marks come first.
    assert curve["at"][0]["threshold"] > last["threshold"]
    assert curve["at"][0]["sensitivity"]["value"] == 0
    assert curve["at"][1]["sensitivity"]["value"] == pytest.approx(10 / 15)
    large = curve["at"][1]["by_size"][1]
    assert (large["size"], large["lesions"]) == ("10 to 20 mm", 10)
    assert large["sensitivity"]["value"] == 1


def test_the_probability_of_its_region_is_the_score_of_a_mark(tmp_path: Path) -> None:
    """Every picture: the large lesion found at 0.9, and a false mark at 0.6."""
    found = cohort()
    probability = np.full((40, 60), 0.9)
    probability[30:] = 0.6
    masks = {p: box(5, 16) | box(30, 10, top=30, height=4) for p in found.patients}
    run = results(tmp_path, found, [masks], probability=probability)
    (system,) = lesions_of_run(run)["systems"]
    assert system["score"] == "mean probability of the region"
    first, last = system["froc"]["points"]
    assert first == pytest.approx(
        {"threshold": 0.9, "sensitivity": 12 / 18, "false_per_picture": 0}
    )
    assert last == pytest.approx({"threshold": 0.6, "sensitivity": 12 / 18, "false_per_picture": 1})
    one = run.systems[0].pooled[0]
    lost = replace(run.systems[0], pooled=(replace(one, mark_scores=one.mark_scores[:1]),))
    with pytest.raises(StoreError, match="1 scores for 2 regions"):
        lesions_of_run(replace(run, systems=(lost,)))
    # As runs were before regions had scores.
    bare = tuple(replace(p, mark_scores=None) for p in run.systems[0].pooled)
    older = replace(run, systems=(replace(run.systems[0], pooled=bare),))
    assert lesions_of_run(older)["systems"][0]["froc"] is None


def test_scores_of_several_folds_are_their_mean_where_they_marked(tmp_path: Path) -> None:
    found = cohort()
    large, both = box(5, 20), box(5, 20) | box(40, 4, height=4)
    probability = np.full((40, 60), 0.8)
    one, two, three = (
        results(tmp_path, found, [dict.fromkeys(found.patients, m)], probability=probability * f)
        .systems[0]
        .test[0]
        for m, f in ((large, 1.0), (both, 0.5), (both, 0.75))
    )
    (mean,) = pool([replace(p, fold=k) for k, p in enumerate((one, two, three))])
    assert mean.mask == MaskRLE.encode(both)
    assert mean.mark_scores == pytest.approx((0.8 * 0.75, 0.8 * (0 + 0.5 + 0.75) / 3))
    (without,) = pool([replace(one, fold=0), replace(two, fold=1, mark_scores=None)])
    assert without.mark_scores is None


def test_two_systems_are_compared_in_overlap_distance_and_recall(tmp_path: Path) -> None:
    found = cohort()
    good = {p: box(5, 20) | box(40, 4, height=4) for p in found.patients}
    poor = {p: box(5, 12 + k % 3) for k, p in enumerate(found.patients)}
    rows = compared(results(tmp_path, found, [good, poor]))
    assert set(rows) >= {"dice", "iou", "hd95", "assd", "nsd", "recall"}
    assert rows["dice"]["difference"]["value"] > 0
    assert rows["dice"]["better"] == "higher"
    assert rows["hd95"]["difference"]["value"] < 0
    assert (rows["hd95"]["better"], rows["hd95"]["length_unit"]) == ("lower", "mm")
    assert rows["dice"]["wilcoxon"]["p"] == pytest.approx(2 / 2**12), "better for all twelve"
    assert rows["recall"]["n_lesions"] == 18
    assert rows["recall"]["difference"]["value"] == pytest.approx(6 / 18)


def test_an_empty_prediction_has_no_distance_and_is_counted(tmp_path: Path) -> None:
    found = cohort()
    good = {p: box(5, 20) for p in found.patients}
    gone = {p: box(5, 12) if k else np.zeros((40, 60), bool) for k, p in enumerate(good)}
    rows = compared(results(tmp_path, found, [good, gone]))
    assert (rows["hd95"]["n_frames"], rows["hd95"]["left_out"]) == (11, 1)
    assert rows["dice"]["n_frames"] == 12


def compared(run: RunResults) -> dict[str, Any]:
    """The paired comparisons of a run of two systems, by measure."""
    facts = patient_facts(run.cohort, {})
    save_split(run.folder.folds, make_split(facts, Plan.KFOLD, 0, SplitOptions(folds=3)))
    return {r["metric"]: r for r in comparisons_of(run, None)["rows"]}


def test_a_run_without_masks_has_no_lesions(tmp_path: Path) -> None:
    drawn = {p: box(5, 16) for p in cohort().patients}
    found = replace(results(tmp_path, cohort(), [drawn]), systems=())
    assert lesions_of_run(found) == {
        "schema": 1,
        "rule": "one to one, IoU >= 0.1, regions of at least 10 pixels",
        "well": 0.5,
        "least_patients": 10,
        "systems": [],
        "readers": None,
    }


def test_every_figure_has_a_line(tmp_path: Path) -> None:
    found = cohort()
    masks = {p: box(5, 16) for p in found.patients}
    whole = lesions_of_run(results(tmp_path, found, [masks]))
    lines = list(csv.DictReader(io.StringIO(lesions_csv(whole))))
    assert [(r["size"], r["figure"]) for r in lines] == [
        *(("all", n) for n in ("recall", "recall_well", "precision", "f1", "false_per_picture")),
        *(("under 5 mm", n) for n in ("recall", "precision")),
        *(("10 to 20 mm", n) for n in ("recall", "precision")),
    ]
    assert float(lines[0]["value"]) == pytest.approx(12 / 18, abs=1e-5)


# ------------------------------------------------------------------ readers


def outline_table(path: Path, patients: bool, masks: bool = True) -> Path:
    """Two readers on four pictures; the second draws 15 of 20 columns: Dice 30 / 35."""
    rows = ["reader,file,frame,x,y,width,height,lesion,mask" + (",patient" if patients else "")]
    for n in range(4):
        for reader, width in (("r1", 20), ("r2", 15)):
            text = MaskRLE.encode(box(5, width)).text if masks else ""
            more = f",P{n}" if patients else ""
            rows.append(f"{reader},images/{n}.png,0,5,4,{width},10,1,{text}{more}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("masks", [True, False])
def test_dice_between_readers_is_kept_as_ceiling(tmp_path: Path, masks: bool) -> None:
    found = cohort()
    folder = RunFolder(tmp_path)
    table = outline_table(tmp_path / "o.csv", patients=True, masks=masks)
    keep_outlines(folder, table, (found, tmp_path / "c"), BootstrapPlan(200))
    drawn = {p: box(5, 16) for p in found.patients}
    readers = lesions_of_run(results(tmp_path, found, [drawn]))["readers"]
    assert readers["what"] == ("masks" if masks else "boxes")
    assert readers["readers"] == ["r1", "r2"]
    assert readers["mean"]["value"] == pytest.approx(30 / 35)
    assert readers["mean"]["n"] == 4


def test_the_key_beside_the_cohort_finds_the_patients_of_files(tmp_path: Path) -> None:
    found = cohort()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    table = outline_table(tmp_path / "o.csv", patients=False)
    with pytest.raises(InputRefused, match="8 outlines of no known patient"):
        keep_outlines(folder, table, (found, tmp_path / "c"), BootstrapPlan(200))
    (tmp_path / "c.keys").mkdir()
    (tmp_path / "c.keys" / "project.key").write_bytes(KEY)
    kept = keep_outlines(folder, table, (found, tmp_path / "c"), BootstrapPlan(200))
    assert kept["mean"]["n"] == 4
    assert json.loads(folder.reader_ceiling.read_text()) == kept


def test_outlines_are_kept_without_names_and_give_the_same_figure_again(tmp_path: Path) -> None:
    found = cohort()
    table = outline_table(tmp_path / "o.csv", patients=True)
    text = table.read_text().replace(",P", ",MUELLER 1950-").replace("images/", "mueller/")
    table.write_text(text)
    run = results(tmp_path, found, [{p: box(5, 16) for p in found.patients}])
    kept = keep_outlines(run.folder, table, (found, tmp_path / "c"), run.plan)
    stored = run.folder.outlines.read_text()
    assert "mueller" not in stored.lower()
    assert len(stored.splitlines()) == 9
    assert {"r1", "r2"} == {line.split(",")[0] for line in stored.splitlines()[1:]}
    run.folder.reader_ceiling.unlink()
    assert write_reader_ceiling(run) == kept
    assert json.loads(run.folder.reader_ceiling.read_text()) == kept


def test_outlines_of_one_reader_are_refused_and_not_kept(tmp_path: Path) -> None:
    found = cohort()
    table = outline_table(tmp_path / "o.csv", patients=True)
    lines = [line for line in table.read_text().splitlines() if not line.startswith("r2")]
    table.write_text("\n".join(lines) + "\n")
    folder = RunFolder(tmp_path)
    with pytest.raises(StatisticUndefined, match="no two outlines"):
        keep_outlines(folder, table, (found, tmp_path / "c"), BootstrapPlan(200))
    assert not folder.outlines.exists()
