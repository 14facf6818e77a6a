"""Small synthetic cohorts with one planted leak each, and their clean twins.

Pictures are speckle (filtered complex noise) over a slowly varying, patient-specific pattern of
layers and blobs; nothing in them goes with the class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask, Cohort, Exclusion
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Lesion, Roi, Scanner, Side, Study

TASK = ClassTask(("benign", "malignant"), "malignant")
PATIENTS = 48
ROWS, COLS = 120, 160

Picture = npt.NDArray[np.uint8]
Links = tuple[tuple[str, str], ...]


def key(prefix: str, name: str) -> str:
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def picture(seed: int, rows: int = ROWS, cols: int = COLS) -> Picture:
    """One speckle picture, log-compressed to 8 bit."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, rows, cols)).astype(np.float32)
    speckle = np.hypot(*(cv2.GaussianBlur(n, (0, 0), 1.2, None, 0.8) for n in noise))
    coarse = cv2.resize(
        rng.normal(size=(7, 5)).astype(np.float32), (cols, rows), interpolation=cv2.INTER_CUBIC
    )
    blobs = cv2.GaussianBlur(rng.normal(size=(rows, cols)).astype(np.float32), (0, 0), 5)
    level = 100 + 20 * coarse + 20 * blobs / blobs.std()
    grey = level + 18 * np.log(speckle / speckle.mean() + 1e-2)
    return np.clip(grey, 12, 235).astype(np.uint8)


def clip(
    pixels: npt.NDArray[np.generic], spacing_mm: tuple[float, float] | None = (0.3, 0.3)
) -> Clip:
    stack = (
        pixels if pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[2] != 3) else pixels[None]
    )
    source = Source("0" * 64, "0" * 16, "synthetic")
    return Clip(stack, pixel_sha256(stack), Mode.B, source, spacing_mm=spacing_mm)


def ellipse(rows: int = ROWS, cols: int = COLS, share: float = 0.05, *, seed: int = 0) -> MaskRLE:
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, cols), np.uint8)
    radius = (share * rng.uniform(0.7, 1.4) * rows * cols / np.pi) ** 0.5
    cv2.ellipse(
        mask, (cols // 2, rows // 2), (int(radius * 1.2), int(radius / 1.2)), 0, 0, 360, 1, -1
    )
    return MaskRLE.encode(mask)


def study(
    i: int, pixels: npt.NDArray[np.generic] | None = None, label: str | None = None, name: str = ""
) -> Study:
    """Study of patient i: class by turns, one lesion with an outline."""
    shown = picture(i) if pixels is None else pixels
    mask = ellipse(*shown.shape[:2], seed=i) if shown.ndim == 2 or shown.shape[-1] == 3 else None
    rois = (Roi(0, 0, mask),) if mask is not None else ()
    lesion = Lesion(key("l", f"{i}{name}"), label or TASK.classes[i % 2], rois=rois, side=Side.LEFT)
    return Study(
        key("s", f"{i}{name}"),
        key("p", str(i)),
        (clip(shown),),
        (lesion,),
        site="AB"[i // 2 % 2],
        scanner=Scanner("Maker", "One" if i // 4 % 2 else "Two"),
    )


_BASE = tuple(study(i) for i in range(PATIENTS))


def cohort(studies: Sequence[Study] = _BASE, exclusions: tuple[Exclusion, ...] = ()) -> Cohort:
    return Cohort("planted", TASK, tuple(studies), exclusions)


def mapped(change: Callable[[int, Study], Study]) -> Cohort:
    return cohort([change(i, s) for i, s in enumerate(_BASE)])


def repainted(paint: Callable[[int, Picture], npt.NDArray[np.generic]]) -> Cohort:
    """Every picture repainted; lesions keep class but lose outlines when the size changes."""
    return cohort([study(i, paint(i, picture(i))) for i in range(PATIENTS)])


def with_copy(
    change: Callable[[Picture], npt.NDArray[np.generic]], label: str = "malignant"
) -> Cohort:
    """A new patient whose picture is patient 0's (benign), changed."""
    return cohort([*_BASE, study(PATIENTS, change(picture(0)), label)])


def jpeg(image: Picture) -> Picture:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def cross(image: Picture) -> Picture:
    """Two caliper crosses and the dotted line between them."""
    out = image.copy()
    for x, y in ((60, 50), (100, 70)):
        out[y - 4 : y + 5, x] = 255
        out[y, x - 4 : x + 5] = 255
    for step in np.linspace(0, 1, 9)[1:-1]:
        out[round(50 + 20 * step), round(60 + 40 * step)] = 255
    return out


def coloured(image: Picture) -> npt.NDArray[np.uint8]:
    out = np.repeat(image[..., None], 3, axis=2)
    out[40:42, 50:80] = (250, 230, 20)
    return out


def rim(image: Picture, level: int) -> Picture:
    out = image.copy()
    out[:6] = np.clip(out[:6].astype(int) + level, 0, 255).astype(np.uint8)
    return out


def cine(seed: int, frames: int) -> npt.NDArray[np.uint8]:
    """A slowly drifting cine (T,H,W)."""
    wide = picture(seed, ROWS, COLS + frames)
    return np.stack([wide[:, t : t + COLS] for t in range(frames)])


def with_rois(s: Study, mask: MaskRLE) -> Study:
    return replace(s, lesions=(replace(s.lesions[0], rois=(Roi(0, 0, mask),)),))


def second_lesion(s: Study, label: str, side: Side, *, same_frame: bool = False) -> Study:
    rois = (Roi(0, 0, ellipse(share=0.02)),) if same_frame else ()
    extra = Lesion(key("l", s.key + "second"), label, side=side, rois=rois)
    return replace(s, lesions=(*s.lesions, extra))


def excluded(number_of: dict[str, int]) -> tuple[Exclusion, ...]:
    return tuple(
        Exclusion(key("s", f"x{label}{i}"), key("p", f"x{label}{i}"), "poor quality", label)
        for label, n in number_of.items()
        for i in range(n)
    )


@dataclass(frozen=True)
class Plant:
    """A leak that must be caught by `guard` (as block or review) and a twin that must pass it."""

    guard: str
    name: str
    planted: Callable[[], Cohort]
    clean: Callable[[], Cohort] = cohort
    links: Links = ()


def _turn(turn: int) -> Callable[[Picture], Picture]:
    return lambda image: np.ascontiguousarray(
        np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4)
    )


def _everyone(i: int, s: Study, *, scanner: str) -> Study:
    del i
    return replace(s, scanner=Scanner("Maker", scanner))


def _same_patient_other_class() -> Cohort:
    bare = replace(_BASE[0], lesions=(), label="benign")
    other = replace(
        study(0, picture(900), name="again"), lesions=(), label="malignant", patient=bare.patient
    )
    return cohort([bare, *_BASE[1:], other])


def _same_patient_same_class() -> Cohort:
    return cohort([*_BASE, study(0, picture(900), name="again")])


def _framed(mask: npt.NDArray[np.uint8]) -> Cohort:
    return cohort([with_rois(_BASE[0], MaskRLE.encode(mask)), *_BASE[1:]])


def _frame_mask() -> npt.NDArray[np.uint8]:
    mask = np.zeros((ROWS, COLS), np.uint8)
    mask[[0, -1]] = 1
    mask[:, [0, -1]] = 1
    return mask


def _no_scale(i: int, s: Study, *, wanted: bool) -> Study:
    return replace(s, clips=(clip(picture(i), None),)) if wanted else s


_LINK: Links = ((_BASE[0].patient, _BASE[1].patient),)

PLANTS: tuple[Plant, ...] = (
    Plant("L01", "a link table joins two patients", cohort, links=_LINK),
    Plant(
        "L01",
        "a picture copied to a patient of the same class",
        lambda: with_copy(lambda x: x, "benign"),
    ),
    Plant(
        "L02", "a picture copied to a patient of the other class", lambda: with_copy(lambda x: x)
    ),
    *(Plant("L03", f"copy, turn {t}", lambda t=t: with_copy(_turn(t))) for t in range(1, 8)),
    Plant(
        "L03",
        "copy, brighter",
        lambda: with_copy(lambda x: np.clip(x * 1.15 + 8, 0, 255).astype(np.uint8)),
    ),
    Plant("L03", "copy, JPEG 60", lambda: with_copy(jpeg)),
    Plant("L03", "copy, 4 pixels cropped", lambda: with_copy(lambda x: x[4:-4, 4:-4])),
    Plant(
        "L03",
        "copy, half size",
        lambda: with_copy(
            lambda x: cv2.resize(x, (COLS // 2, ROWS // 2), interpolation=cv2.INTER_AREA)
        ),
    ),
    Plant("L03", "copy, calipers drawn", lambda: with_copy(cross)),
    Plant(
        "L03",
        "a later frame of another patient's cine",
        lambda: cohort(
            [study(0, cine(700, 8)), *_BASE[1:], study(PATIENTS, cine(700, 8)[7], "malignant")]
        ),
        lambda: cohort(
            [study(0, cine(700, 8)), *_BASE[1:], study(PATIENTS, cine(701, 8)[7], "malignant")]
        ),
    ),
    Plant(
        "L04",
        "mirrored copies of the same patient",
        lambda: cohort([*_BASE, study(0, _turn(4)(picture(0)), name="m")]),
        _same_patient_same_class,
    ),
    Plant(
        "L04",
        "a folder augmented before the split",
        lambda: cohort(
            [
                *_BASE,
                *(study(100 + i, _turn(1 + i)(picture(i)), TASK.classes[i % 2]) for i in range(7)),
            ]
        ),
    ),
    Plant(
        "L07",
        "calipers in the malignant pictures",
        lambda: repainted(lambda i, x: cross(x) if i % 2 else x),
    ),
    Plant("L07", "a coloured stroke", lambda: with_copy(lambda _: coloured(picture(800)))),
    Plant(
        "L07",
        "a brighter margin in malignant pictures",
        lambda: repainted(lambda i, x: rim(x, 25 if i % 2 else 0)),
        lambda: repainted(lambda i, x: rim(x, 25 if i // 2 % 2 else 0)),
    ),
    Plant(
        "L08",
        "malignant pictures have more rows",
        lambda: repainted(lambda i, x: picture(i, ROWS + 8 * (i % 2))),
        lambda: repainted(lambda i, x: picture(i, ROWS + 8 * (i // 2 % 2))),
    ),
    Plant(
        "L09",
        "one scanner per class",
        lambda: mapped(lambda i, s: _everyone(i, s, scanner="XY"[i % 2])),
    ),
    Plant("L09", "one site per class", lambda: mapped(lambda i, s: replace(s, site="AB"[i % 2]))),
    Plant(
        "L10",
        "one patient gives a third of the pictures",
        lambda: cohort([study(0, cine(700, 24)), *_BASE[1:]]),
    ),
    Plant(
        "L11",
        "lesions in both kidneys",
        lambda: cohort([second_lesion(_BASE[0], "benign", Side.RIGHT), *_BASE[1:]]),
    ),
    Plant(
        "L15",
        "malignant studies left out",
        lambda: cohort(exclusions=excluded({"malignant": 12, "benign": 1})),
        lambda: cohort(exclusions=excluded({"malignant": 6, "benign": 7})),
    ),
    Plant("Q01", "one patient in two classes", _same_patient_other_class, _same_patient_same_class),
    Plant(
        "Q02",
        "one frame with two classes",
        lambda: cohort(
            [second_lesion(_BASE[0], "malignant", Side.LEFT, same_frame=True), *_BASE[1:]]
        ),
        lambda: cohort([second_lesion(_BASE[0], "benign", Side.LEFT, same_frame=True), *_BASE[1:]]),
    ),
    Plant("Q03", "an empty outline", lambda: _framed(np.zeros((ROWS, COLS), np.uint8))),
    Plant("Q03", "the frame as outline", lambda: _framed(_frame_mask())),
    Plant("Q03", "everything as outline", lambda: _framed(np.ones((ROWS, COLS), np.uint8))),
    Plant(
        "Q03",
        "a speck as outline",
        lambda: _framed(np.eye(ROWS, COLS, dtype=np.uint8) * (np.arange(ROWS)[:, None] < 3)),
    ),
    Plant(
        "Q04",
        "no scale in malignant pictures",
        lambda: mapped(lambda i, s: _no_scale(i, s, wanted=i % 2 == 1)),
        lambda: mapped(lambda i, s: _no_scale(i, s, wanted=i // 2 % 2 == 1)),
    ),
)
"""Every planted leak with its clean twin."""
