"""Contrast cines in panes: strangers stay apart, copies, crops and mirrored copies are found."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.cohort_checks.burned_in import find_marks
from renalkit.cohort_checks.duplicates import find_likenesses, groups
from renalkit.cohort_checks.scan import PRINT_SIDE, Look, Scan, scan_cohort, shown
from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Study

FRAMES, ROWS, COLS, PATIENTS = 4, 144, 192, 40
Cine = npt.NDArray[np.uint8]


def fan() -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:ROWS, :COLS] - np.array([-20.0, COLS / 2])[:, None, None]
    radius = np.hypot(x, y)
    return (radius > 30) & (radius < 156) & (np.abs(np.arctan2(x, y)) < 0.6)


def cine(seed: int) -> Cine:
    """Frames (T,H,W) of a fan of speckle that moves a little, with a scale and a word beside it."""
    rng = np.random.default_rng(seed)
    wide = (ROWS + 16, COLS + 16)
    coarse = cv2.GaussianBlur(rng.normal(size=wide).astype(np.float32), (0, 0), 6)
    fine = cv2.GaussianBlur(rng.normal(size=wide).astype(np.float32), (0, 0), 1.2)
    tissue = np.clip(110 + 30 * coarse / coarse.std() + 22 * fine / fine.std(), 12, 235)
    frames = np.zeros((FRAMES, ROWS, COLS), np.uint8)
    for frame in frames:
        dy, dx = rng.integers(0, 16, 2)
        frame[fan()] = tissue[dy : dy + ROWS, dx : dx + COLS][fan()]
        frame[10:20, 4 : 20 + int(rng.integers(0, 16))] = 220
        frame[20:140:20, 186:190] = 200
    return frames


def key(prefix: str, name: str) -> str:
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def study(name: str, pixels: Cine) -> Study:
    source = Source("0" * 64, "0" * 16, "synthetic")
    clip = Clip(pixels, pixel_sha256(pixels), Mode.CEUS, source)
    return Study(key("s", name), key("p", name), (clip,), (), "benign")


def joined(extra: dict[str, Cine]) -> list[list[str]]:
    """Names of each group of more than one patient among the strangers and `extra`."""
    cines = {str(i): cine(i) for i in range(PATIENTS)} | extra
    cohort = Cohort(
        "panes",
        ClassTask(("benign", "malignant"), "malignant"),
        tuple(study(name, pixels) for name, pixels in cines.items()),
    )
    scan = scan_cohort(cohort)
    group_of = groups(scan, find_likenesses(scan))
    members: dict[str, list[str]] = {}
    for name in cines:
        members.setdefault(group_of[key("p", name)], []).append(name)
    return [names for names in members.values() if len(names) > 1]


def test_copies_crops_and_mirrored_copies_are_found_and_strangers_are_not() -> None:
    extra = {
        "brighter": np.clip(cine(0) * 0.9 + 12 * (cine(0) > 6), 0, 255).astype(np.uint8),
        "crop": np.ascontiguousarray(cine(1)[:, 6:-6, 8:-8]),
        "mirrored": np.ascontiguousarray(cine(2)[..., ::-1]),
    }
    assert joined({}) == []
    assert joined(extra) == [["0", "brighter"], ["1", "crop"], ["2", "mirrored"]]


def test_what_stands_in_the_black_beside_the_fan_is_not_shown() -> None:
    seen = shown(cine(0)[0].astype(np.float32)) > 0
    assert np.array_equal(seen, fan())


def alike_pair_is_linked(strangers: float) -> bool:
    """Are two looks of likeness 0.6 linked where all others have the likeness `strangers`?"""
    rng = np.random.default_rng(0)
    own = np.linalg.qr(rng.normal(size=(PRINT_SIDE**2, PATIENTS + 1)))[0].T
    wanted = np.full((PATIENTS, PATIENTS), strangers)
    np.fill_diagonal(wanted, 1.0)
    wanted[0, 1] = wanted[1, 0] = 0.6
    prints = np.linalg.cholesky(wanted) @ own[:PATIENTS]
    # Pictures of different sizes share no common mode that would be taken away.
    studies = tuple(study(str(i), np.zeros((1, 20 + i, 20), np.uint8)) for i in range(PATIENTS))
    looks = tuple(
        Look(
            s.patient,
            s.key,
            "benign",
            0,
            0,
            str(i),
            np.asarray(p.reshape(PRINT_SIDE, PRINT_SIDE), np.float32),
            cine(i)[0, 20:116, 40:136],
            (0.0,) * 20,
            find_marks(cine(i)[0]),
        )
        for i, (s, p) in enumerate(zip(studies, prints, strict=True))
    )
    task = ClassTask(("benign", "malignant"), "malignant")
    found = find_likenesses(Scan(Cohort("looks", task, studies), looks))
    assert {(x.first, x.second) for x in found} <= {(0, 1)}
    return bool(found)


def test_likenesses_of_some_patients_are_those_of_all_that_concern_them() -> None:
    cines = {str(i): cine(i) for i in range(PATIENTS)}
    cines |= {"same as 0": cines["0"], "same as 1": cines["1"]}
    task = ClassTask(("benign", "malignant"), "malignant")
    scan = scan_cohort(
        Cohort("panes", task, tuple(study(n, p) for n, p in cines.items())), marks=False
    )
    every = {(x.first, x.second) for x in find_likenesses(scan)}
    wanted = key("p", "same as 0")
    some = {(x.first, x.second) for x in find_likenesses(scan, [wanted])}
    assert some
    assert some == {p for p in every if wanted in {scan.looks[k].patient for k in p}}
    assert some < every


def test_two_frames_of_one_lesion_are_told_by_how_alike_strangers_are() -> None:
    assert alike_pair_is_linked(0.29)
    assert not alike_pair_is_linked(0.40)
