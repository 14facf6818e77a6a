"""How do CT series and the label volumes drawn on them lie in one folder?

DICOM slices lie as they came. A NIfTI file called segmentation.nii.gz (or NAME_seg.nii.gz) is drawn
on the series in its own folder or below that lie on its grid: every phase of a scan may share it.
instances.nii.gz (or NAME_instances.nii.gz) beside it numbers the lesions; without it, parts that
hang together are the lesions. Labels that lie on no series are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from renalkit.domain.study import Defect, Lesion, Study
from renalkit.domain.volume import Volume
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.volume_lesions import Instances
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.ct_cases import by_value, lesion_of, with_labels
from renalkit.readers.ct_lesions import marked_lesions
from renalkit.readers.dicom_ct import read_dicom_ct
from renalkit.readers.nifti import is_nifti, label_defects, labels_on, read_nifti_labels

_SUFFIXES = (".nii.gz", ".nii")
_LABELS, _INSTANCES = ("segmentation", "_seg"), ("instances", "_instances")


def read_ct_folder(
    files: Sequence[Path],
    context: ReadContext,
    patient_of: Callable[[Path], str | None] | None = None,
) -> Iterator[ReadResult]:
    """A study per patient and study UID, with the lesions of its label volume."""
    labels = [p for p in files if _named(p, _LABELS)]
    instances = {p.parent: p for p in files if _named(p, _INSTANCES)}
    beside = [*labels, *instances.values()]
    met: set[Path] = set()

    def of(paths: Sequence[Path]) -> list[Path]:
        """Label files over the folders of these slices, and their maps of instances."""
        folders = {parent for path in paths for parent in path.parents}
        found = [p for p in labels if p.parent in folders]
        return [*found, *(instances[p.parent] for p in found if p.parent in instances)]

    rest = [p for p in files if p not in set(beside)]
    for path in [p for p in rest if is_nifti(p)]:
        words = "a NIfTI volume; put NIfTI scans in the layout of KiTS or nnU-Net"
        reason = (Defect(Reason.NOT_RECOGNISED, words),)
        yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, reason),))
    results = read_dicom_ct(
        [p for p in rest if not is_nifti(p)],
        context.root,
        context.pseudonyms,
        context.options,
        context.decoder,
        patient_of=patient_of,
        recall=lambda paths: context.recall([*paths, *of(paths)]),
    )
    for result in results:
        read = {f.path for f in result.files}
        own = [] if result.study is None else of([f.path for f in result.files])
        if result.study is not None and not read & set(own):
            result = _labelled(result, result.study, own, context)
        met.update(own)
        yield result
    for path in sorted(set(beside) - met):
        reason = (Defect(Reason.MASK_MISMATCH, "labels of no series: none lies there or below"),)
        yield ReadResult(None, (FileReport(path, Outcome.REFUSED, reason),))


def _named(path: Path, names: tuple[str, str]) -> bool:
    stem = next((path.name[: -len(s)] for s in _SUFFIXES if path.name.endswith(s)), "")
    return stem == names[0] or stem.endswith(names[1])


def _labelled(
    result: ReadResult, study: Study, own: Sequence[Path], context: ReadContext
) -> ReadResult:
    """The study with the labels that lie on its volumes; one label volume per volume."""
    reports: list[FileReport] = []
    for path in [p for p in own if _named(p, _LABELS)]:
        numbering = next(
            (p for p in own if _named(p, _INSTANCES) and p.parent == path.parent), None
        )
        files = [path, *([numbering] if numbering is not None else [])]
        if any(r.path in files for r in reports):
            continue
        try:
            study, noted = _drawn(study, path, numbering, context)
        except InputRefused as refused:
            remedy = f"; {refused.remedy}" if refused.remedy else ""
            why = (Defect(refused.reason, f"{refused.found}{remedy}"),)
            reports += [FileReport(p, Outcome.REFUSED, why) for p in files]
            study = replace(study, defects=(*study.defects, *why))
        else:
            outcome = Outcome.WARNED if noted else Outcome.USED
            reports += [FileReport(p, outcome, tuple(noted)) for p in files]
    return replace(result, study=study, files=(*result.files, *reports))


def _drawn(
    study: Study, path: Path, numbering: Path | None, context: ReadContext
) -> tuple[Study, list[Defect]]:
    """The study with labels on every volume of their grid, and lesions where it had none."""
    file = read_nifti_labels(path, context.options, context.decoder)
    volumes = [c for c in study.clips if isinstance(c, Volume)]
    near = min(volumes, key=lambda v: file.grid.shift_from(v.grid))
    if near.labels is not None:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            "a second label volume for one series",
            expected="one",
            remedy="leave one of them out",
        )
    labels = labels_on(near.grid, file)
    instances = None if numbering is None else _numbered(numbering, near, context)
    clips = list(study.clips)
    noted = list(file.defects)
    first = -1
    for n, one in enumerate(clips):
        if isinstance(one, Volume) and one.grid.shift_from(near.grid) < 0.1:
            first = n if first < 0 else first
            noted += label_defects(labels, one) if n == first else []
            clips[n] = with_labels(one, labels)
    drawn = clips[first]
    assert isinstance(drawn, Volume)
    marked, odd = marked_lesions(drawn, first, labels, instances)
    lesions: list[Lesion] = list(study.lesions)
    if not lesions:
        for one, facts in zip(marked, by_value(marked), strict=True):
            key = context.pseudonyms.lesion(study.key, str(one.number))
            lesions.append(lesion_of(one, key, facts))
    noted += odd
    defects = (*study.defects, *noted)
    return replace(study, clips=tuple(clips), lesions=tuple(lesions), defects=defects), noted


def _numbered(path: Path, volume: Volume, context: ReadContext) -> Instances:
    """The map of lesions as it was numbered."""
    found = read_nifti_labels(path, context.options, context.decoder)
    marked = replace(found, pixels=(found.pixels > 0).astype(np.uint8))
    labels_on(volume.grid, marked, where=path.name)
    return found.pixels
