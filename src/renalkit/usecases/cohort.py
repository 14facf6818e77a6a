"""What is in a cohort: who was screened and left out, how many of each class, what was wrong?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from renalkit.domain.cohort import Cohort, Flow, study_label
from renalkit.domain.study import Study
from renalkit.store.cohorts import AccountLine, load_account, load_cohort

MIXED = "(lesions of several classes)"
UNLABELLED = "(no class)"


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How much of one class is included; a patient with two classes counts in both."""

    label: str
    patients: int
    studies: int
    lesions: int
    images: int
    outlined_images: int


@dataclass(frozen=True, slots=True)
class CohortSummary:
    """The figures of a cohort; every mapping is ordered, the most frequent first.

    sizes_px: (rows, columns) of clips. lesion_size_mm: (least, median, greatest), None if unknown.
    """

    name: str
    digest: str
    flow: Flow
    classes: tuple[ClassCount, ...]
    scanners: Mapping[str, int]
    sites: Mapping[str, int]
    sizes_px: Mapping[str, int]
    with_scale: int
    lesion_size_mm: tuple[float, float, float] | None
    defects: Mapping[str, int]
    account: Mapping[str, int]
    account_reasons: Mapping[str, int]
    patients_known: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values; screened = included + excluded."""
        found = asdict(self)
        found["flow"]["excluded"] = dict(self.flow.excluded)
        return found


def _counted(values: Iterable[str]) -> dict[str, int]:
    counts = Counter(values)
    return {k: counts[k] for k in sorted(counts, key=lambda k: (-counts[k], k))}


def _label(study: Study) -> str:
    label = study_label(study)
    if label is not None:
        return label
    return MIXED if any(le.label for le in study.lesions) else UNLABELLED


def _class_count(label: str, studies: list[Study]) -> ClassCount:
    outlined = {(s.key, r.clip, r.frame) for s in studies for le in s.lesions for r in le.rois}
    return ClassCount(
        label,
        len({s.patient for s in studies}),
        len(studies),
        sum(len(s.lesions) for s in studies),
        sum(c.n_frames for s in studies for c in s.clips),
        len(outlined),
    )


def summarise(cohort: Cohort, account: Iterable[AccountLine] = ()) -> CohortSummary:
    """The figures of a cohort that is already loaded."""
    lines = tuple(account)
    groups: dict[str, list[Study]] = {label: [] for label in cohort.task.classes}
    for study in cohort.studies:
        groups.setdefault(_label(study), []).append(study)
    clips = [c for s in cohort.studies for c in s.clips]
    sizes = sorted(le.size_mm for s in cohort.studies for le in s.lesions if le.size_mm is not None)
    middle = len(sizes) // 2
    return CohortSummary(
        name=cohort.name,
        digest=cohort.digest,
        flow=cohort.flow,
        classes=tuple(_class_count(label, found) for label, found in groups.items()),
        scanners=_counted(s.scanner.name for s in cohort.studies),
        sites=_counted(s.site or "unknown" for s in cohort.studies),
        sizes_px=_counted(f"{c.rows} x {c.cols}" for c in clips),
        with_scale=sum(c.spacing_mm is not None for c in clips),
        lesion_size_mm=None
        if not sizes
        else (sizes[0], (sizes[middle] + sizes[~middle]) / 2, sizes[-1]),
        defects=_counted(d.reason.value for s in cohort.studies for d in s.defects),
        account=_counted(a.outcome for a in lines),
        account_reasons=_counted(f"{a.outcome}: {r}" for a in lines for r in a.reasons),
        patients_known=all(s.patient_known for s in cohort.studies),
    )


def show(folder: Path) -> CohortSummary:
    """The figures of a cohort folder. Raises StoreError when it is no whole cohort."""
    return summarise(load_cohort(folder), load_account(folder))


def _list(title: str, counts: Mapping[str, int], most: int = 8) -> list[str]:
    if not counts:
        return []
    items = [f"{name} {n}" for name, n in list(counts.items())[:most]]
    rest = len(counts) - most
    return [f"{title}: {', '.join(items)}" + (f" and {rest} more" if rest > 0 else "")]


def show_words(summary: CohortSummary) -> str:
    """The figures for a person."""
    flow = summary.flow
    lines = [
        f"Cohort '{summary.name}'  digest {summary.digest[:16]}",
        f"Screened: {flow.screened_studies} studies of {flow.screened_patients} patients",
        *(f"  excluded: {n} studies: {words}" for words, n in flow.excluded),
        f"Included: {flow.included_studies} studies of {flow.included_patients} patients, "
        f"{flow.included_images} images",
        "",
        f"{'class':30}{'patients':>9}{'studies':>9}{'lesions':>9}{'images':>9}{'outlined':>9}",
    ]
    lines += [
        f"{c.label:30}{c.patients:9}{c.studies:9}{c.lesions:9}{c.images:9}{c.outlined_images:9}"
        for c in summary.classes
    ]
    lines.append("")
    if not summary.patients_known:
        lines.append("Some patients are unknown: every such study counts as its own patient")
    lines += _list("Scanners (studies)", summary.scanners)
    lines += _list("Sites (studies)", summary.sites)
    lines += _list("Sizes in pixels (clips)", summary.sizes_px)
    lines.append(f"Clips with a scale in mm: {summary.with_scale}")
    if summary.lesion_size_mm is not None:
        low, median, high = summary.lesion_size_mm
        lines.append(f"Lesion size: median {median:.0f} mm, {low:.0f} to {high:.0f} mm")
    lines += _list("Defects (by reason)", summary.defects)
    lines += _list("Files", summary.account)
    lines += _list("Reasons", summary.account_reasons)
    return "\n".join(lines)
