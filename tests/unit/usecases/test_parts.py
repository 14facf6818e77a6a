"""Data of an experiment: external cohorts that overlap, folds without their truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Fold
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import CheckFailed, ConfigError, InputRefused
from renalkit.store.cohorts import save_cohort
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.parts import load_data, part_indices, require_truth

TASK = ClassTask(("benign", "malignant"), "malignant")


def _study(index: int) -> Study:
    pixels = np.random.default_rng(index).integers(0, 255, (1, 20, 24), np.uint8)
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:15] = True
    source = Source(f"{index:064x}", "f-0", "png")
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, source)
    lesion = Lesion(
        f"l-{index:020x}", TASK.classes[index % 2], rois=(Roi(0, 0, MaskRLE.encode(mask)),)
    )
    return Study(f"s-{index:020x}", f"p-{index:020x}", (clip,), (lesion,))


def _saved(folder: Path, studies: list[Study], task: ClassTask = TASK) -> Path:
    save_cohort(folder, Cohort(folder.name, task, tuple(studies)))
    return folder


def _experiment(cohort: Path, outside: Path) -> Experiment:
    split = {"plan": "external", "external": str(outside)}
    systems = [{"name": "multitask-us"}]
    return Experiment.model_validate(
        {"name": "e", "cohort": str(cohort), "split": split, "systems": systems}
    )


def test_cohorts_are_joined_and_the_external_patients_named(tmp_path: Path) -> None:
    own = _saved(tmp_path / "own", [_study(i) for i in range(4)])
    outside = _saved(tmp_path / "outside", [_study(i) for i in range(10, 13)])
    cohort, external = load_data(_experiment(own, outside))
    assert len(cohort.studies) == 7
    assert external == {f"p-{i:020x}" for i in range(10, 13)}


@pytest.mark.parametrize("what", ["patient", "picture"])
def test_l12_an_overlap_is_refused(tmp_path: Path, what: str) -> None:
    own = _saved(tmp_path / "own", [_study(i) for i in range(4)])
    stranger = _study(10)
    if what == "patient":
        shared = replace(stranger, patient=_study(1).patient)
    else:
        shared = replace(stranger, clips=_study(1).clips)
    outside = _saved(tmp_path / "outside", [shared, _study(11)])
    with pytest.raises(CheckFailed, match=r"are in both cohorts \(L12\)"):
        load_data(_experiment(own, outside))


def test_cohorts_of_different_questions_are_refused(tmp_path: Path) -> None:
    own = _saved(tmp_path / "own", [_study(i) for i in range(4)])
    other = ClassTask(("benign", "malignant", "normal"))
    outside = _saved(tmp_path / "outside", [_study(10)], other)
    with pytest.raises(ConfigError, match="same --classes"):
        load_data(_experiment(own, outside))


def test_the_plan_and_its_key_go_together() -> None:
    systems = [{"name": "unet"}]
    for split in ({"plan": "external"}, {"plan": "kfold", "external": "x"}):
        with pytest.raises(ValueError, match="go together"):
            Experiment.model_validate(
                {"name": "e", "cohort": "c", "split": split, "systems": systems}
            )


def _fold(train: list[int], validation: list[int]) -> Fold:
    keys = [[f"p-{i:020x}" for i in part] for part in (train, validation, [99])]
    return Fold(0, *map(frozenset, keys))


def test_parts_hold_the_patients_of_their_fold() -> None:
    samples = b_mode_samples(Cohort("c", TASK, tuple(_study(i) for i in range(6))))
    found = part_indices(samples, _fold([0, 1, 2], [3, 4]))
    assert {k: v.tolist() for k, v in found.items()} == {
        "train": [0, 1, 2],
        "validation": [3, 4],
        "test": [],
    }


@pytest.mark.parametrize(
    ("train", "validation", "words"),
    [
        ([0, 1], [], "validation part has no images"),
        ([0, 2], [1, 3], "train part has fewer than two classes"),
        ([0, 1], [3], "validation part has fewer than two classes"),
    ],
)
def test_a_fold_without_its_truth_is_refused(
    train: list[int], validation: list[int], words: str
) -> None:
    samples = b_mode_samples(Cohort("c", TASK, tuple(_study(i) for i in range(6))))
    jobs = jobs_of(_experiment(Path("c"), Path("d")))
    with pytest.raises(InputRefused, match=words):
        require_truth(samples, [_fold(train, validation)], jobs)
    require_truth(samples, [_fold([0, 1], [2, 3])], jobs)


def test_segmentation_needs_a_mask() -> None:
    bare = tuple(
        replace(s, lesions=(replace(s.lesions[0], rois=()),)) for s in map(_study, range(6))
    )
    samples = b_mode_samples(Cohort("c", TASK, bare))
    jobs = jobs_of(_experiment(Path("c"), Path("d")))
    with pytest.raises(InputRefused, match="no image of the train part has a lesion mask"):
        require_truth(samples, [_fold([0, 1], [2, 3])], jobs)


def test_a_fused_network_needs_contrast_beside_b_mode() -> None:
    samples = b_mode_samples(Cohort("c", TASK, tuple(_study(i) for i in range(6))))
    found = {"name": "e", "cohort": "c", "systems": [{"name": "mufnet-2022"}]}
    jobs = jobs_of(Experiment.model_validate(found))
    with pytest.raises(InputRefused, match="no image of the train part has a contrast frame"):
        require_truth(samples, [_fold([0, 1], [2, 3])], jobs)
