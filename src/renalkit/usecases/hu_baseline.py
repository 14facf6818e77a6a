"""What do thresholds and connected parts find on the tested scans of a run? The peer that learns
nothing (`transforms.hu_masses`), on the same folds and stored like any system."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit import __version__
from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.experiment import settings_digest
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.splits import Split
from renalkit.domain.volume import Volume
from renalkit.store.files import sha256_bytes, write_json
from renalkit.store.runs import RunFolder
from renalkit.store.scans import SCANS, save_scan
from renalkit.transforms.hu_masses import HuMass, hu_masses
from renalkit.usecases.progress import Progress

HU_BASELINE = "hu-threshold"

_ALSO = {"cystic": ("cystic", "cyst"), "AML": ("AML", "tumour"), "solid": ("solid", "tumour")}
"""What a kind is called in tasks with other classes."""


def found_by_hu(
    key: SampleKey, volume: Volume, task: ClassTask, ref: SystemRef, fold: int | None = None
) -> FoundScan:
    """Kidneys and masses of a scan. A mass's class is certain; its confidence is its roundness."""
    labels, instances, masses = hu_masses(volume.pixels, volume.grid)
    return FoundScan(
        key=key,
        grid=volume.grid,
        labels=labels,
        instances=instances,
        lesions=tuple(
            FoundLesion(one.number, _scores(one, task), one.roundness, 1.0) for one in masses
        ),
        system=ref,
        fold=fold,
    )


def _scores(mass: HuMass, task: ClassTask) -> tuple[float, ...] | None:
    """None where the task has no class for this kind."""
    name = next((n for n in _ALSO[mass.kind] if n in task.classes), None)
    return None if name is None else tuple(float(c == name) for c in task.classes)


def write_hu_baseline(
    folder: RunFolder,
    data: tuple[Cohort, Split],
    scans: Sequence[SampleKey],
    progress: Progress,
) -> tuple[int, ...]:
    """Write what it finds on those of the scans that each fold tests; finished folds are kept.

    Raises:
        StoreError: a fold was finished on other scans or another split.
    """
    cohort, split = data
    ref = SystemRef(HU_BASELINE, HU_BASELINE, sha256_bytes(f"{HU_BASELINE} {__version__}".encode()))
    studies = {s.key: s for s in cohort.studies}
    for fold in split.folds:
        digest = settings_digest(
            {
                "system": HU_BASELINE,
                "cohort": cohort.digest,
                "split": split.digest,
                "fold": fold.index,
                "scans": [k.text for k in scans],
            }
        )
        own = folder.fold(HU_BASELINE, fold.index)
        if own.finished(digest):
            continue
        keys = [k for k in scans if k.patient in fold.test]
        progress.stage(f"{HU_BASELINE}: fold {fold.index}", len(keys))
        for key in keys:
            volume = studies[key.study].clips[key.clip]
            assert isinstance(volume, Volume)
            save_scan(own.path / SCANS, found_by_hu(key, volume, cohort.task, ref, fold.index))
            progress.advance()
        write_json(own.done, {"digest": digest, "weights_sha256": ref.weights_sha256})
    return tuple(f.index for f in split.folds)
