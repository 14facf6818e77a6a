"""How does a whole simulated cohort look as the folder a user would bring?

    folder/images/p0001_1.png   the picture, 8-bit grey
    folder/masks/p0001_1.png    the mass, 0 or 255; none for a normal kidney
    folder/labels.csv           patient,image,mask,label,side,size_mm,
                                spacing_mm,manufacturer,model,site

Patients have one mass (or none) and several frames of it, which differ in probe pose, section,
gain and speckle. Scanner and site are drawn without looking at the class, so neither is a
shortcut.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.phantom.anatomy import (
    Anatomy,
    Label,
    Side,
    View,
    draw_anatomy,
    draw_view,
)
from renalkit.phantom.lesion import draw_features, malignancy_log_ratio
from renalkit.phantom.ultrasound import SCANNERS, PhantomImage, Scanner, render
from renalkit.store.files import fsync_folder, make_folder, write_bytes, write_text

COLUMNS = (
    "patient",
    "image",
    "mask",
    "label",
    "side",
    "size_mm",
    "spacing_mm",
    "manufacturer",
    "model",
    "site",
)
_SITES = ("site-1", "site-2")
_SCANNER_SHARES = {"site-1": (0.5, 0.35, 0.15), "site-2": (0.15, 0.35, 0.5)}


@dataclass(frozen=True, slots=True)
class CohortPlan:
    """What cohort to simulate.

    n_patients: how many. images_per_patient: fewest and most frames. size: side of a picture in
    px. seed: the same seed gives the same bytes. malignant_share: of the patients with a mass.
    normal_share: of all patients, without a mass.
    """

    n_patients: int
    images_per_patient: tuple[int, int] = (1, 4)
    size: int = 256
    seed: int = 0
    malignant_share: float = 0.6
    normal_share: float = 0.0

    def __post_init__(self) -> None:
        fewest, most = self.images_per_patient
        problems: list[str] = []
        if not 1 <= self.n_patients <= 9999:
            problems.append(f"n_patients: {self.n_patients} is not within 1 to 9999")
        if not 1 <= fewest <= most <= 9:
            problems.append(
                f"images_per_patient: ({fewest}, {most}) is not 1 <= fewest <= most <= 9"
            )
        if not 32 <= self.size <= 1024:
            problems.append(f"size: {self.size} px is not within 32 to 1024")
        if self.seed < 0:
            problems.append(f"seed: {self.seed} is negative")
        for name in ("malignant_share", "normal_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                problems.append(f"{name}: {value} is not within 0 to 1")
        if problems:
            raise ConfigError(problems, where="phantom cohort")


@dataclass(frozen=True, slots=True)
class PhantomPatient:
    """One simulated patient: who it is, what is there, and from where it is seen."""

    patient: str
    label: Label
    anatomy: Anatomy
    views: tuple[View, ...]
    scanner: Scanner
    site: str

    def frames(self, size: int) -> Iterator[PhantomImage]:
        """The pictures of this patient, S x S px, one per view."""
        for view in self.views:
            yield render((self.anatomy, self.label), view, self.scanner, size)


@dataclass(frozen=True, slots=True)
class CohortSummary:
    """What was written. ideal_auc: AUC of the ideal observer on these very patients, who knows
    the features behind the pictures; None unless both classes occur."""

    n_patients: int
    n_images: int
    patients_by_label: dict[str, int]
    images_by_label: dict[str, int]
    images_by_scanner: dict[str, int]
    ideal_auc: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def draw_patients(plan: CohortPlan) -> list[PhantomPatient]:
    """The patients of a plan; quick, for pictures are made by `PhantomPatient.frames`.

    Each patient has a generator of their own: the frames of one do not depend on the others.
    """
    patients: list[PhantomPatient] = []
    for index, label in enumerate(_labels(plan)):
        rng = np.random.default_rng([plan.seed, 1, index])
        lesion = None if label == "normal" else draw_features(label, rng)
        side: Side = "right" if rng.random() < 0.5 else "left"
        anatomy = draw_anatomy(lesion, side, rng)
        site = _SITES[int(rng.integers(len(_SITES)))]
        scanner = SCANNERS[int(rng.choice(len(SCANNERS), p=_SCANNER_SHARES[site]))]
        fewest, most = plan.images_per_patient
        count = int(rng.integers(fewest, most + 1))
        views = tuple(draw_view(anatomy, rng) for _ in range(count))
        patients.append(PhantomPatient(f"p{index + 1:04d}", label, anatomy, views, scanner, site))
    return patients


def write_image_cohort(
    folder: Path,
    n_patients: int,
    *,
    images_per_patient: tuple[int, int] = (1, 4),
    size: int = 256,
    seed: int = 0,
    malignant_share: float = 0.6,
    normal_share: float = 0.0,
) -> CohortSummary:
    """Write a simulated cohort as an image folder; the options are those of `CohortPlan`.

    The cohort is built in a hidden folder beside the target and renamed when it is whole, so an
    interrupted call leaves no half cohort and the next one starts afresh.

    Returns:
        What was written, with the AUC of the ideal observer as the bound for any classifier.

    Raises:
        ConfigError: an option is impossible.
        InputRefused: the target exists and is not an empty folder.
        StoreError: the disk refused.
    """
    plan = CohortPlan(n_patients, images_per_patient, size, seed, malignant_share, normal_share)
    folder = Path(folder)
    _refuse_occupied(folder)
    partial = folder.parent / f".{folder.name}.phantom-partial"
    if partial.exists():
        shutil.rmtree(partial)
    make_folder(partial / "images")
    make_folder(partial / "masks")
    patients = draw_patients(plan)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for patient in patients:
        rows.writerows(_write_patient(partial, patient, plan.size))
    write_text(partial / "labels.csv", table.getvalue())
    partial.replace(folder)
    fsync_folder(folder.parent)
    return _summary(patients)


def _write_patient(folder: Path, patient: PhantomPatient, size: int) -> Iterator[list[str]]:
    """Write the files of one patient; one table row each."""
    lesion = patient.anatomy.lesion
    for number, frame in enumerate(patient.frames(size), start=1):
        name = f"{patient.patient}_{number}.png"
        write_bytes(folder / "images" / name, _png(frame.pixels))
        if lesion is not None:
            write_bytes(folder / "masks" / name, _png(frame.lesion_mask.astype(np.uint8) * 255))
        yield [
            patient.patient,
            f"images/{name}",
            "" if lesion is None else f"masks/{name}",
            patient.label,
            patient.anatomy.side,
            "" if lesion is None else f"{lesion.size_mm:.1f}",
            f"{frame.mm_per_px:.6f}",
            "phantom",
            patient.scanner.name,
            patient.site,
        ]


def _summary(patients: list[PhantomPatient]) -> CohortSummary:
    images_by_label: Counter[str] = Counter()
    images_by_scanner: Counter[str] = Counter()
    scores: dict[str, list[float]] = {"benign": [], "malignant": []}
    for patient in patients:
        images_by_label[patient.label] += len(patient.views)
        images_by_scanner[patient.scanner.name] += len(patient.views)
        if patient.anatomy.lesion is not None:
            scores[patient.label].append(malignancy_log_ratio(patient.anatomy.lesion))
    return CohortSummary(
        n_patients=len(patients),
        n_images=images_by_label.total(),
        patients_by_label=dict(sorted(Counter(p.label for p in patients).items())),
        images_by_label=dict(sorted(images_by_label.items())),
        images_by_scanner=dict(sorted(images_by_scanner.items())),
        ideal_auc=_auc(scores["malignant"], scores["benign"]),
    )


def _labels(plan: CohortPlan) -> list[Label]:
    """The classes in random order; the shares are met to the nearest patient."""
    normal = round(plan.n_patients * plan.normal_share)
    malignant = round((plan.n_patients - normal) * plan.malignant_share)
    order = np.random.default_rng([plan.seed, 0]).permutation(plan.n_patients)

    def label(place: int) -> Label:
        if place < normal:
            return "normal"
        return "malignant" if place < normal + malignant else "benign"

    return [label(int(place)) for place in order]


def _auc(positive: list[float], negative: list[float]) -> float | None:
    if not positive or not negative:
        return None
    difference = np.subtract.outer(np.array(positive), np.array(negative))
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def _refuse_occupied(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    found = "a folder with files in it" if folder.is_dir() else "a file of that name"
    raise InputRefused(
        Reason.EXTRA_FILE,
        found,
        where=folder.name,
        expected="a new or empty folder",
        remedy="name another folder or remove this one first",
    )


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    # Explicit settings: the bytes must not follow a library's changing defaults.
    done, data = cv2.imencode(
        ".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, 0]
    )
    assert done, "PNG encoding of an 8-bit grey picture cannot fail"
    return data.tobytes()
