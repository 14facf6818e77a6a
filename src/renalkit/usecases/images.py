"""What kind of images were studied? File types, sizes, known scale, truth, and what was amiss."""

from __future__ import annotations

from collections import Counter
from statistics import median

from renalkit.domain.cohort import Cohort
from renalkit.domain.sample import b_mode_samples
from renalkit.store.files import write_json
from renalkit.store.runs import RunFolder
from renalkit.usecases.results import Json


def images_of(cohort: Cohort) -> Json:
    """Counts over the images with a usable truth, which are those that are trained and tested on.

    kinds: type of the source file. rows, columns: smallest, median and largest, in px. defects:
    studies with a reading problem that did not prevent their use, by reason.
    """
    samples = b_mode_samples(cohort)
    clips = {(s.key.study, s.key.clip): s.study.clips[s.key.clip] for s in samples}
    kinds = Counter(s.study.clips[s.key.clip].source.kind for s in samples)
    defects = Counter(d for s in cohort.studies for d in {d.reason.value for d in s.defects})
    return {
        "schema": 1,
        "images": len(samples),
        "clips": len(clips),
        "cines": sum(c.n_frames > 1 for c in clips.values()),
        "kinds": [{"kind": k, "images": n} for k, n in sorted(kinds.items())],
        "rows": _range([c.rows for c in clips.values()]),
        "columns": _range([c.cols for c in clips.values()]),
        "with_scale": sum(s.spacing_mm is not None for s in samples),
        "with_class": sum(s.label is not None for s in samples),
        "with_outline": sum(s.mask is not None for s in samples),
        "outlines_from": [
            {"origin": o, "images": n}
            for o, n in sorted(
                Counter(s.roi_origin.value for s in samples if s.mask is not None).items()
            )
        ],
        "defects": [{"reason": r, "studies": n} for r, n in sorted(defects.items())],
    }


def _range(sizes: list[int]) -> Json | None:
    if not sizes:
        return None
    return {"least": min(sizes), "median": median(sizes), "most": max(sizes)}


def write_images(folder: RunFolder, cohort: Cohort) -> None:
    """Write images.json."""
    write_json(folder.images, images_of(cohort))
