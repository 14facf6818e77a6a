"""The account of images: what is counted, and what an empty cohort gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from renalkit.domain.cohort import Cohort
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.study import Defect
from renalkit.errors import Reason
from renalkit.usecases.images import images_of


def test_images_are_counted_by_kind_size_scale_and_truth(
    tmp_path: Path, made_run: ModuleType
) -> None:
    cohort: Cohort = made_run.make_cohort(tmp_path / "c", 8, 64, ("benign", "malignant"))
    first, *others = cohort.studies
    flawed = replace(
        first,
        defects=(Defect(Reason.NO_SCALE, "a"), Defect(Reason.NO_SCALE, "b")),
        clips=tuple(replace(c, spacing_mm=None) for c in first.clips),
    )
    found = images_of(replace(cohort, studies=(flawed, *others)))
    n = len(b_mode_samples(cohort))
    assert found["images"] == found["clips"] == found["with_class"] == n
    assert found["cines"] == 0
    assert found["kinds"] == [{"kind": "still", "images": n}]
    assert found["rows"] == found["columns"] == {"least": 64, "median": 64, "most": 64}
    assert found["with_scale"] == n - len(first.clips)
    assert found["defects"] == [{"reason": "no-scale", "studies": 1}]
    assert found["outlines_from"] == [{"origin": "reference", "images": found["with_outline"]}]


def test_a_cohort_without_images_has_no_sizes(tmp_path: Path, made_run: ModuleType) -> None:
    cohort: Cohort = made_run.make_cohort(tmp_path / "c", 2, 64, ("benign", "malignant"))
    found = images_of(replace(cohort, studies=()))
    assert found["images"] == 0
    assert found["kinds"] == []
    assert found["rows"] is None
