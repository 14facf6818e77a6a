"""How well do readers agree on outlines? The ceiling of what a system can be asked for.

A run keeps the outlines it was given, with numbers in place of the names of files, lesions and
patients, so that evaluation and `verify` compute reader_ceiling.json again from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from renalkit.domain.cohort import Cohort
from renalkit.domain.readings import Outline, by_place
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.agreement import outline_dice, reader_dice
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.readings import OUTLINE_COLUMNS, read_outlines
from renalkit.store.cohorts import table_text
from renalkit.store.files import read_json, write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.usecases.results import Json, RunResults, estimate_json

_Name = TypeVar("_Name")


def keep_outlines(
    folder: RunFolder, outlines: Path, data: tuple[Cohort, Path], plan: BootstrapPlan
) -> Json:
    """Keep a table of readers' outlines in a run, in place of one it had; the Dice between them.

    data: the cohort and its folder; the key beside it finds the patients of files where the table
    has no column patient.
    Raises InputRefused: the table cannot be used, or a file is of no known patient;
    StatisticUndefined: no two readers outlined one lesion. Nothing is kept then.
    """
    found, _ = read_outlines(outlines)
    named = _numbered(_with_patients(found, data, outlines.name))
    ceiling = reader_ceiling(named, plan)
    write_text(folder.outlines, _outlines_csv(named))
    write_json(folder.reader_ceiling, ceiling)
    return ceiling


def write_reader_ceiling(results: RunResults) -> Json | None:
    """Compute reader_ceiling.json of a run again from its outlines; nothing where it keeps none."""
    folder = results.folder
    if not folder.outlines.exists():
        return None
    found, _ = read_outlines(folder.outlines)
    ceiling = reader_ceiling(found, results.plan)
    write_json(folder.reader_ceiling, ceiling)
    return ceiling


def reader_ceiling(outlines: Sequence[Outline], plan: BootstrapPlan) -> Json:
    """Dice between readers, of masks where every outline has one, else of boxes.

    Raises StatisticUndefined: no two readers outlined one lesion.
    """
    boxes = any(o.mask is None for o in outlines)
    dice, patients, names = outline_dice(outlines, boxes=boxes)
    between = reader_dice(dice, patients, plan)
    return {
        "what": "boxes" if boxes else "masks",
        "readers": list(names),
        "mean": estimate_json(between.mean),
        "lowest": between.lowest,
        "pairs": between.pairs,
        "empty": between.empty,
    }


def stored_ceiling(folder: RunFolder) -> Json | None:
    """The Dice between readers of a run, None without."""
    return read_json(folder.reader_ceiling) if folder.reader_ceiling.exists() else None


def _numbered(outlines: Sequence[Outline]) -> tuple[Outline, ...]:
    """The outlines in order of their places, without any name but the readers'."""
    ordered = [o for there in by_place(outlines).values() for _, o in sorted(there.items())]
    files, patients = _numbers(o.file for o in ordered), _numbers(o.patient for o in ordered)
    lesions = _numbers((o.file, o.lesion) for o in ordered)
    return tuple(
        replace(
            o,
            file=f"file-{files[o.file]:06d}",
            lesion=f"{lesions[o.file, o.lesion]:06d}",
            patient=f"patient-{patients[o.patient]:06d}",
        )
        for o in ordered
    )


def _numbers(names: Iterable[_Name]) -> dict[_Name, int]:
    """A number from 1 for every name, in the order they come."""
    return {name: k for k, name in enumerate(dict.fromkeys(names), start=1)}


def _outlines_csv(outlines: Sequence[Outline]) -> str:
    rows = [
        [
            o.reader,
            o.file,
            *(str(v) for v in (o.frame, o.box.x, o.box.y, o.box.width, o.box.height)),
            o.lesion,
            o.patient,
            "" if o.mask is None else o.mask.text,
        ]
        for o in outlines
    ]
    return table_text((*OUTLINE_COLUMNS, "patient", "mask"), rows)


def _with_patients(
    outlines: Sequence[Outline], data: tuple[Cohort, Path], name: str
) -> tuple[Outline, ...]:
    """The outlines, those without a patient with the pseudonym of the study their file is of."""
    cohort, where = data
    nameless = [o for o in outlines if not o.patient]
    if not nameless:
        return tuple(outlines)
    key = where.parent / f"{where.name}.keys" / "project.key"
    owner = {c.source.keyed_path: s.patient for s in cohort.studies for c in s.clips}
    known: dict[str, str] = {}
    if key.is_file():
        pseudonyms = Pseudonyms(key.read_bytes())
        known = {o.file: owner.get(pseudonyms.path(Path(o.file)), "") for o in nameless}
    lost = sum(not known.get(o.file) for o in nameless)
    if lost:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{lost} outlines of no known patient",
            where=name,
            expected="a column patient, or files as they lay below the import folder and the "
            "cohort's key beside it",
            remedy="add the column patient",
        )
    return tuple(o if o.patient else replace(o, patient=known[o.file]) for o in outlines)
