"""Raw identifiers cannot be stored, lesions say what they are, the flow chart always adds up."""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.cohort import ClassTask, Cohort, Exclusion, study_digest, study_label
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.study import Findings, GradeSystem, Lesion, Roi, RoiOrigin, Study, checked_key

TASK = ClassTask(("benign", "malignant"), "malignant")
BOX = Box(0, 0, 2, 2)


def key(prefix: str, number: int) -> str:
    return f"{prefix}-{number:020x}"


def clip(value: int = 1, frames: int = 1) -> Clip:
    pixels = np.full((frames, 4, 5), value, np.uint8)
    return Clip(pixels, pixel_sha256(pixels), Mode.B, Source("0" * 64, "f-0", "png"))


def study(number: int, patient: int | None = None, **more: object) -> Study:
    base: dict[str, object] = {"clips": (clip(number % 250),), **more}
    return Study(key("s", number), key("p", number if patient is None else patient), **base)  # type: ignore[arg-type]


def lesion(number: int = 0, **more: object) -> Lesion:
    return Lesion(key("l", number), **more)  # type: ignore[arg-type]


@given(text=st.text(max_size=30), prefix=st.sampled_from("psl"))
def test_no_raw_identifier_is_a_key(text: str, prefix: str) -> None:
    with pytest.raises(ValueError, match="not a pseudonym") as error:
        checked_key(text, prefix)
    with pytest.raises(ValueError) as other:
        checked_key("", prefix)
    assert str(error.value) == str(other.value), "whatever was given, it is not repeated"


@pytest.mark.parametrize(
    "raw", ["007", "Mueller^Anna", "p-1", "s-" + "0" * 20, "p-" + "g" * 20, "p-" + "0" * 21]
)
def test_a_study_cannot_hold_a_raw_patient(raw: str) -> None:
    with pytest.raises(ValueError, match="pseudonym"):
        Study(key("s", 1), raw, (clip(),))
    with pytest.raises(ValueError, match="pseudonym"):
        Exclusion(key("s", 1), raw, "why")


@given(grade=st.none() | st.integers(-1, 6), system=st.none() | st.sampled_from(GradeSystem))
def test_T08_a_grade_needs_its_system(grade: int | None, system: GradeSystem | None) -> None:
    usable = (grade is None and system is None) or (grade in (1, 2, 3, 4) and system is not None)
    if usable:
        assert lesion(grade=grade, grade_system=system).grade == grade
    else:
        with pytest.raises(ValueError, match="grade"):
            lesion(grade=grade, grade_system=system)


@pytest.mark.parametrize("size", [0.0, -3.0, 1000.0, float("inf"), float("nan")])
def test_sizes_that_cannot_be_are_refused(size: float) -> None:
    with pytest.raises(ValueError, match="not plausible"):
        lesion(size_mm=size)


def test_regions_belong_to_frames_that_exist() -> None:
    with pytest.raises(ValueError, match="mask or a box"):
        Roi(0, 0)
    with pytest.raises(ValueError, match="count from 0"):
        Roi(-1, 0, box=BOX)
    with pytest.raises(ValueError, match="same frame"):
        lesion(rois=(Roi(0, 0, box=BOX), Roi(0, 0, box=BOX)))
    with pytest.raises(ValueError, match="flow grade"):
        Findings(flow_grade=4)
    for roi, words in (
        (Roi(1, 0, box=BOX), "no such"),
        (Roi(0, 1, box=BOX), "no such"),
        (Roi(0, 0, MaskRLE(5, 4, (20,))), "mask of 5 x 4"),
        (Roi(0, 0, box=Box(0, 0, 6, 1)), "leaves the image"),
    ):
        with pytest.raises(ValueError, match=words):
            study(1, lesions=(lesion(rois=(roi,)),))


def test_what_a_study_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        study(1, clips=())
    with pytest.raises(ValueError, match="share a key"):
        study(1, lesions=(lesion(1), lesion(1)))
    with pytest.raises(ValueError, match="labelled by its lesions"):
        study(1, lesions=(lesion(1),), label="normal")


def test_covariates_cannot_be_changed_from_outside() -> None:
    given_: dict[str, float] = {"age": 50}
    made = study(1, covariates=given_)
    given_["age"] = 60
    assert made.covariates["age"] == 50
    with pytest.raises(TypeError):
        made.covariates["age"] = 70  # type: ignore[index]


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a")])
def test_a_task_has_two_different_classes(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        ClassTask(classes)
    with pytest.raises(ValueError, match="not among"):
        ClassTask(("a", "b"), "c")
    with pytest.raises(ValueError, match="not one of a, b"):
        ClassTask(("a", "b")).index("c")


def test_only_three_or_more_classes_without_a_positive_one_are_ordered() -> None:
    grades = ClassTask(("G1", "G2", "G3"), ordered=True)
    assert grades.plain == {"classes": ["G1", "G2", "G3"], "positive": None, "ordered": True}
    assert TASK.plain == {"classes": ["benign", "malignant"], "positive": "malignant"}
    for classes, positive in ((("low", "high"), None), (("G1", "G2", "G3"), "G3")):
        with pytest.raises(ValueError, match="ordered classes are three or more"):
            ClassTask(classes, positive, ordered=True)


def test_the_digest_of_a_cohort_without_order_is_that_of_earlier_versions() -> None:
    three = ClassTask(("a", "b", "c"))
    assert (
        Cohort("c", TASK, ()).digest
        == sha256(repr((TASK.classes, "malignant")).encode()).hexdigest()
    )
    assert (
        Cohort("c", three, ()).digest == sha256(repr((("a", "b", "c"), None)).encode()).hexdigest()
    )
    assert Cohort("c", replace(three, ordered=True), ()).digest != Cohort("c", three, ()).digest


STUDIES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 6)), unique_by=lambda t: t[0], max_size=10
)


@given(included=STUDIES, gone=st.sets(st.integers(0, 30)), seed=st.integers())
def test_screened_is_included_plus_excluded(
    included: list[tuple[int, int]], gone: set[int], seed: int
) -> None:
    whole = Cohort("c", TASK, tuple(study(n, p) for n, p in included))
    reasons = {
        s.key: f"why {int(s.key[2:], 16) % 2}" for s in whole.studies if int(s.key[2:], 16) in gone
    }
    left = whole.without(reasons)
    flow = left.flow
    assert flow.screened_studies == len(included) == flow.included_studies + len(left.exclusions)
    assert sum(n for _, n in flow.excluded) == len(left.exclusions) == len(reasons)
    assert flow.screened_patients == len({p for _, p in included})
    assert flow.included_patients == len(left.patients) <= flow.screened_patients
    turned = list(left.studies)
    random.Random(seed).shuffle(turned)
    again = Cohort("c", TASK, tuple(turned), left.exclusions[::-1])
    assert again == left
    assert again.digest == left.digest
    assert (left.digest == whole.digest) == (not reasons)


def test_a_study_is_screened_once() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        Cohort("c", TASK, (study(1), study(1)))
    with pytest.raises(ValueError, match="listed twice"):
        Cohort("c", TASK, (study(1),), (Exclusion(key("s", 1), key("p", 1), "why"),))
    with pytest.raises(ValueError, match="not included"):
        Cohort("c", TASK, ()).without({key("s", 1): "why"})
    with pytest.raises(ValueError, match="needs its reason"):
        Exclusion(key("s", 1), key("p", 1), " ")


def test_the_digest_sees_labels_pixels_and_regions_but_not_the_name() -> None:
    base = study(1, lesions=(lesion(label="benign", rois=(Roi(0, 0, box=BOX),)),))
    others = [
        replace(base, clips=(clip(9),)),
        replace(base, patient=key("p", 2)),
        replace(base, site="x"),
        replace(base, covariates={"age": 1}),
        replace(base, lesions=(replace(base.lesions[0], label="malignant"),)),
        replace(base, lesions=(replace(base.lesions[0], rois=()),)),
    ]
    assert len({study_digest(s) for s in [base, *others]}) == len(others) + 1
    assert Cohort("a", TASK, (base,)).digest == Cohort("b", TASK, (base,)).digest
    assert (
        Cohort("a", TASK, (base,)).digest
        != Cohort("a", ClassTask(TASK.classes, "benign"), (base,)).digest
    )


def test_a_study_has_one_class_or_none() -> None:
    assert study_label(study(1, label="normal")) == "normal"
    assert study_label(study(1)) is None
    two = (lesion(1, label="benign"), lesion(2, label="malignant"))
    assert study_label(study(1, lesions=two)) is None
    assert study_label(study(1, lesions=two[:1])) == "benign"


def test_samples_are_the_frames_with_a_truth() -> None:
    mask_a, mask_b = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    mask_a[0, 0], mask_b[3, 4] = True, True
    outlined = study(
        1,
        clips=(clip(1, 3),),
        lesions=(
            lesion(1, label="benign", rois=(Roi(0, 1, MaskRLE.encode(mask_a)),)),
            lesion(
                2,
                label="malignant",
                rois=(Roi(0, 1, MaskRLE.encode(mask_b), origin=RoiOrigin.PROPAGATED),),
            ),
        ),
    )
    boxed = study(2, lesions=(lesion(3, label="malignant", rois=(Roi(0, 0, box=BOX),)),))
    plain = study(3, lesions=(lesion(4, label="benign"),))
    normal = study(4, label="benign", clips=(clip(4, 2),))
    nothing = study(5)
    dual = study(6, label="benign", clips=(replace(clip(6), mode=Mode.CEUS),))
    samples = b_mode_samples(Cohort("c", TASK, (nothing, dual, normal, plain, boxed, outlined)))
    assert list(samples) == sorted(samples, key=lambda s: s.key)
    by_study = {s.study.key: [x for x in samples if x.study.key == s.study.key] for s in samples}
    assert {int(k[2:], 16): len(v) for k, v in by_study.items()} == {1: 1, 2: 1, 3: 1, 4: 2}
    both = by_study[key("s", 1)][0]
    assert both.label is None
    assert both.mask is not None
    assert np.array_equal(both.mask.decode(), mask_a | mask_b)
    assert (both.key.frame, both.roi_origin) == (1, RoiOrigin.PROPAGATED)
    assert [s.mask for s in by_study[key("s", 2)]] == [None]
    assert [s.label for s in by_study[key("s", 2)]] == [1]
    assert [s.mask for s in by_study[key("s", 3)]] == [None]
    assert all(s.mask is not None and s.mask.area_px == 0 for s in by_study[key("s", 4)])
    assert np.array_equal(both.load().pixels, outlined.clips[0].pixels[1])
