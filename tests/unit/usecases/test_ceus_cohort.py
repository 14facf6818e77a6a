"""Dual cines become paired frames: same instant, same lesion, every file accounted for."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.image import Mode
from renalkit.domain.pairs import frame_pairs, panes, perfusion_features
from renalkit.domain.study import RoiOrigin
from renalkit.errors import InputRefused
from renalkit.store.cohorts import load_cohort
from renalkit.usecases.ceus_cohort import ContrastOptions
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.ingest import IngestRequest, request_of, run_ingest

sys.path.insert(0, str(Path(__file__).parent))
from predicting import contrast_study

csv.field_size_limit(10**9)
GIVEN = ["dynamic_range_db=50", "fit.resamples=0", "frames.per_phase=4", "maps=false"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with cines of 60 frames in 45 s; the lesion is outlined on one frame."""
    return contrast_study(tmp_path_factory.mktemp("cohort") / "phantom", 3)


def request(source: Path, output: Path, **more: object) -> IngestRequest:
    words = {"labels": source / "labels.csv", "annotations": source / "one.csv"}
    return request_of(
        source=source / "dicom",
        output=output,
        layout="dicom",
        classes="benign,malignant",
        contrast=ContrastOptions(ceus_settings(None, GIVEN)),
        **{**words, **more},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="session")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "cohort"
    report = run_ingest(request(source, output))
    assert report.refused == 0
    return output


def test_every_study_has_two_panes_of_the_same_instants(made: Path) -> None:
    cohort = load_cohort(made)
    assert len(cohort.studies) == 3
    for study in cohort.studies:
        assert panes(study) == ((0, 1),)
        bmode, contrast = study.clips
        assert (bmode.mode, contrast.mode) == (Mode.B, Mode.CEUS)
        assert bmode.source_frames == contrast.source_frames
        assert bmode.times_s == contrast.times_s
        assert bmode.pixels.shape == contrast.pixels.shape
        assert bmode.offset != contrast.offset
        assert bmode.n_frames <= 8


def test_pairs_are_cut_out_of_both_panes_and_say_where_the_box_is_from(made: Path) -> None:
    pairs = frame_pairs(load_cohort(made))
    assert len(pairs) >= 6
    assert {p.label for p in pairs} <= {0, 1}
    origins = {p.roi_origin for p in pairs}
    assert RoiOrigin.PROPAGATED in origins
    assert origins <= {RoiOrigin.PROPAGATED, RoiOrigin.REFERENCE}
    for pair in pairs:
        bmode = pair.study.clips[pair.key.clip].frame(pair.key.frame)
        contrast = pair.study.clips[pair.contrast].frame(pair.contrast_frame)
        here = bmode.pixels[pair.bmode_box.slices]
        assert here.shape == contrast.pixels[pair.contrast_box.slices].shape
        assert np.asarray(here).std() > 1
        assert bmode.time_s == contrast.time_s is not None


def test_figures_of_curves_are_features_and_no_facts(made: Path) -> None:
    study = load_cohort(made).studies[0]
    found = perfusion_features(study)
    assert {"perfusion_lesion_pe", "perfusion_lesion_ttp"} <= set(found)
    assert all(np.isfinite(list(found.values())))
    assert not [name for name in study.facts if name.startswith("perfusion_")]


def test_every_frame_is_logged_beside_the_studies(made: Path) -> None:
    folders = sorted(p.name for p in (made / "ceus").iterdir())
    assert folders == sorted(f"{s.key}.0" for s in load_cohort(made).studies)
    for name in folders:
        files = {p.name for p in (made / "ceus" / name).iterdir()}
        assert files == {"analysis.json", "frames.csv", "curves.csv", "figures.csv"}
        assert "P000" not in (made / "ceus" / name / "analysis.json").read_text()


def test_the_same_command_again_changes_nothing(made: Path, source: Path) -> None:
    def state() -> dict[str, bytes]:
        files = (p for p in made.rglob("*") if p.is_file())
        return {p.relative_to(made).as_posix(): p.read_bytes() for p in files}

    before = state()
    report = run_ingest(request(source, made))
    assert report.recalled == 3
    assert not report.warnings
    assert state() == before


def test_a_patient_who_is_not_listed_is_excluded_and_the_rest_used(
    source: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    rows = (source / "labels.csv").read_text().splitlines()
    labels.write_text("\n".join(rows[:3]) + "\n")
    report = run_ingest(replace(request(source, tmp_path / "b"), labels=labels))
    assert len(report.cohort.studies) == 2
    assert [e.reason for e in report.cohort.exclusions] == ["not in the label table"]


class BrightHalf:
    """Outlines a square in the middle of the picture; of a made-up system."""

    identity = ("weights",)

    def __call__(self, pixels: np.ndarray) -> np.ndarray | None:
        mask = np.zeros(pixels.shape[:2], np.bool_)
        rows, cols = mask.shape
        mask[rows // 3 : rows // 2, cols // 3 : cols // 2] = True
        return mask


class Blind(BrightHalf):
    """Sees nothing."""

    identity = ("others",)

    def __call__(self, pixels: np.ndarray) -> np.ndarray | None:
        return None


def test_L14_with_a_system_no_outline_of_a_person_reaches_the_samples(
    source: Path, tmp_path: Path
) -> None:
    options = ContrastOptions(ceus_settings(None, GIVEN), outliner=BrightHalf())
    report = run_ingest(replace(request(source, tmp_path / "a"), contrast=options))
    pairs = frame_pairs(report.cohort)
    assert pairs
    assert {p.roi_origin for p in pairs} == {RoiOrigin.PREDICTED}
    blind = ContrastOptions(ceus_settings(None, GIVEN), outliner=Blind())
    assert blind.fingerprint != options.fingerprint
    with pytest.raises(InputRefused, match="outlines no lesion"):
        run_ingest(replace(request(source, tmp_path / "b"), contrast=blind))
