"""How does a CT case of NIfTI files become a study: volumes, label volume, instances, lesions?

The layouts (`kits`, `nnunet`) say which files are a case and what their labels mean; here they are
read. Labels that do not lie on their volume refuse the whole case: which of the two is wrong cannot
be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.study import Covariate, Defect, Lesion, Study
from renalkit.domain.volume import TUMOUR, LabelMap, PhaseSource, Volume
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.volume_lesions import Instances
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.ct_lesions import MarkedLesion, marked_lesions, phase_from_hu
from renalkit.readers.nifti import (
    NiftiVolume,
    label_defects,
    labels_on,
    read_nifti_ct,
    read_nifti_labels,
    volume_of,
)

CLASS_OF_VALUE = {TUMOUR: "tumour"}
"""What a lesion is called by its label alone; whatever is no tumour is a cyst."""

LesionFacts = Callable[[Sequence[MarkedLesion]], Sequence[Mapping[str, Any]]]
"""Fields of `Lesion` for each of the marked lesions of a case, in their order."""


def by_value(marked: Sequence[MarkedLesion]) -> list[Mapping[str, Any]]:
    """Tumour or cyst, as the label volume says."""
    return [{"label": CLASS_OF_VALUE.get(one.value, "cyst")} for one in marked]


@dataclass(frozen=True, slots=True)
class CtCase:
    """The files of one case.

    name: unique in the source. images: one volume per phase. instances: files that draw one lesion
    each, by instance; several files of one instance (annotators) are joined by majority. values:
    what the label file's values mean here; empty for 0 to 3 as they are.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    labels: Path | None = None
    instances: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])
    values: Mapping[int, int] = field(default_factory=dict[int, int])
    person: Mapping[str, Covariate] = field(default_factory=dict[str, Covariate])
    facts: LesionFacts = by_value
    defects: tuple[Defect, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        own = [*self.images, *([self.labels] if self.labels is not None else [])]
        return (*own, *(p for paths in self.instances.values() for p in paths))


def read_case(case: CtCase, context: ReadContext) -> ReadResult:
    """The study of a case, or its files refused."""
    finished = context.recall(case.files)
    if finished is not None:
        return finished
    try:
        study, noted = _study(case, context)
    except InputRefused as refused:
        remedy = f"; {refused.remedy}" if refused.remedy else ""
        where = f"{refused.where}: " if refused.where else ""
        why = (Defect(refused.reason, f"{where}{refused.found}{remedy}"),)
        return ReadResult(None, tuple(FileReport(p, Outcome.REFUSED, why) for p in case.files))
    reports = tuple(
        FileReport(p, Outcome.WARNED if noted.get(p) else Outcome.USED, tuple(noted.get(p, ())))
        for p in case.files
    )
    return ReadResult(study, reports)


def _study(case: CtCase, context: ReadContext) -> tuple[Study, dict[Path, list[Defect]]]:
    noted: dict[Path, list[Defect]] = {}
    volumes: list[Volume] = []
    for path in case.images:
        found = read_nifti_ct(path, context.options, context.decoder)
        noted[path] = list(found.defects)
        key = context.pseudonyms.path(Path(context.relative(path)))
        volumes.append(volume_of(found, path, key))
    patient = context.pseudonyms.patient(case.patient)
    key = context.pseudonyms.study(f"{patient}/{case.name}")
    lesions: list[Lesion] = []
    told: list[Defect] = list(case.defects)
    if case.labels is not None:
        file = read_nifti_labels(case.labels, context.options, context.decoder)
        noted[case.labels] = list(file.defects)
        labels = labels_on(volumes[0].grid, _renumbered(file, case), where=case.labels.name)
        instances = _instances(case, volumes[0], context)
        noted[case.labels] += label_defects(labels, volumes[0])
        for n, one in enumerate(volumes):
            if one.grid.shift_from(volumes[0].grid) < 0.1:
                volumes[n] = with_labels(one, labels)
        marked, odd = marked_lesions(volumes[0], 0, labels, instances)
        told += odd
        for one, facts in zip(marked, case.facts(marked), strict=True):
            name = context.pseudonyms.lesion(key, str(one.number))
            lesions.append(lesion_of(one, name, facts))
    by_clip = [
        replace(d, clip=n) for n, path in enumerate(case.images) for d in noted.get(path, ())
    ]
    of_labels = noted.get(case.labels, []) if case.labels is not None else []
    study = Study(
        key=key,
        patient=patient,
        clips=tuple(volumes),
        lesions=tuple(lesions),
        covariates=dict(case.person),
        defects=(*by_clip, *of_labels, *told),
    )
    return study, noted


def lesion_of(marked: MarkedLesion, key: str, facts: Mapping[str, Any]) -> Lesion:
    """The lesion as a study holds it."""
    plain: dict[str, Any] = {
        "side": marked.side,
        "size_mm": marked.axial_mm,
        "rois": marked.rois,
    }
    return Lesion(key=key, **{**plain, **facts})


def with_labels(volume: Volume, labels: LabelMap) -> Volume:
    """The volume with its labels, and the phase that its kidneys show where no header said one."""
    phase = volume.phase or phase_from_hu(volume, labels)
    source = volume.phase_source or (PhaseSource.HU if phase is not None else None)
    return replace(volume, labels=labels, phase=phase, phase_source=source)


def _renumbered(labels: NiftiVolume, case: CtCase) -> NiftiVolume:
    if not case.values:
        return labels
    table = np.full(256, 255, np.uint8)  # what has no meaning stays no label
    table[0] = 0
    for value, meaning in case.values.items():
        table[value] = meaning
    return replace(labels, pixels=table[labels.pixels])


def _instances(case: CtCase, volume: Volume, context: ReadContext) -> Instances | None:
    """The map of instances by majority of their files; the larger number where two meet."""
    if not case.instances:
        return None
    if len(case.instances) > 255:
        raise InputRefused(
            Reason.TOO_LARGE, f"{len(case.instances)} instances", expected="at most 255"
        )
    out = np.zeros(volume.grid.shape, np.uint8)
    for number, name in enumerate(sorted(case.instances), start=1):
        votes = np.zeros(out.shape, np.uint8)
        paths = case.instances[name]
        for path in paths:
            drawn = read_nifti_labels(path, context.options, context.decoder)
            marked = replace(drawn, pixels=(drawn.pixels > 0).astype(np.uint8))
            votes += np.asarray(labels_on(volume.grid, marked, where=path.name).pixels)
        out[2 * votes.astype(np.uint16) > len(paths)] = number
    return out
