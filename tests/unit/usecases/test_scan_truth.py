"""The reference of a CT scan, drawn again from what a cohort holds of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.volume import CYST, Phase, VolumeGrid, affine_of
from renalkit.errors import InputRefused, Reason
from renalkit.phantom.ct.anatomy import draw_case
from renalkit.phantom.ct.volume import render_phases
from renalkit.usecases.scan_truth import labelled_scans, scan_truth

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, ct_cohort, ct_study

TWO = replace(PLAN, phases=(Phase.NON_CONTRAST, Phase.NEPHROGRAPHIC), matrix=64)


def test_it_is_what_was_drawn() -> None:
    study, drawn = ct_study(1, TWO), render_phases(draw_case(TWO, 1))
    for clip in (0, 1):
        truth = scan_truth(study, clip)
        assert (truth.key.patient, truth.key.clip) == (study.patient, clip)
        np.testing.assert_array_equal(truth.labels, drawn.labels)
        # Numbers run through the lesions that have a voxel.
        np.testing.assert_array_equal(truth.instances > 0, drawn.instances > 0)
        assert sorted(truth.lesions) == sorted(set(np.unique(truth.instances).tolist()) - {0})
        for number, name in truth.classes.items():
            own = drawn.instances[truth.instances == number]
            assert len(set(own.tolist())) == 1
            assert drawn.lesions[int(own[0]) - 1].lesion_class == name
        assert int(truth.labels[truth.instances > 0].min()) > 1
        assert int(truth.labels.max()) <= CYST


def test_outlines_of_a_phase_on_another_grid_are_not_taken() -> None:
    study = ct_study(1, TWO)
    grid = study.clips[1].grid  # type: ignore[attr-defined]
    moved = np.asarray(grid.affine_lps_mm)
    moved[0, 3] += 5
    other = VolumeGrid(grid.shape, affine_of(moved))
    shifted = replace(study, clips=(study.clips[0], replace(study.clips[1], grid=other)))  # type: ignore[call-arg]
    assert scan_truth(shifted, 0).lesions
    assert not scan_truth(shifted, 1).lesions


def test_only_labelled_scans_have_one() -> None:
    cohort = ct_cohort(2, replace(PLAN, matrix=64))
    assert [k.patient for k in labelled_scans(cohort)] == list(cohort.patients)
    study = cohort.studies[0]
    bare = replace(study, clips=(replace(study.clips[0], labels=None),))  # type: ignore[call-arg]
    assert labelled_scans(replace(cohort, studies=(bare,))) == ()
    with pytest.raises(InputRefused, match="without labels") as refused:
        scan_truth(bare, 0)
    assert refused.value.reason is Reason.BAD_ANNOTATION
