"""What is in the public breast ultrasound set (BUSI), in either of the layouts it is passed on in?

Original: `Dataset_BUSI_with_GT/{benign,malignant,normal}/name (N).png` with `name (N)_mask.png`,
`name (N)_mask_1.png` ... beside it. Packed: `images/CLASS_NNNN.png`, `masks/CLASS_NNNN.png` and
`manifest.csv`. The set names no patients: every picture is its own patient, unless the manifest's
duplicate groups are asked for. Normal pictures have a label and no lesion.

Source: Al-Dhabyani et al., Data in Brief 28 (2020) 104863.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotations import MaskValues
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.pictures import (
    ANY_LESION,
    LesionFacts,
    PatientFiles,
    Picture,
    file_sha256,
    identity,
    placeholder_lesion,
    read_patient,
    refused_file,
)
from renalkit.readers.tables import bad_table, read_table

CLASSES = ("benign", "malignant", "normal")
MIXED_LABELS = "its duplicate group holds contradictory labels"

_CLASS = "|".join(CLASSES)
_ORIGINAL = re.compile(rf"^(?:.*/)?({_CLASS})/(\1 \([0-9]+\))(_mask(?:_[0-9]+)?)?\.png$")
_PACKED = re.compile(rf"^(?:.*/)?(images|masks)/(({_CLASS})_[0-9]+)\.png$")


@dataclass(frozen=True, slots=True)
class _Named:
    """A file of the set: which picture it belongs to, its class, and whether it is a mask."""

    picture: str
    label: str
    mask: bool


def _named(relative: str) -> _Named | None:
    found = _ORIGINAL.match(relative)
    if found:
        return _Named(found.group(2), found.group(1), found.group(3) is not None)
    found = _PACKED.match(relative)
    if found:
        return _Named(found.group(2), found.group(3), found.group(1) == "masks")
    return None


def is_busi(files: Iterable[Path], root: Path) -> bool:
    """Whether the file names are those of the set, in one of its two layouts."""
    named = [_named(f.relative_to(root).as_posix()) for f in files]
    return any(n is not None and n.mask for n in named) and any(
        n is not None and not n.mask for n in named
    )


def read_busi(
    files: Iterable[Path],
    context: ReadContext,
    groups: Literal["none", "manifest"] = "none",
) -> Iterator[ReadResult]:
    """One study per picture, in the order of their names.

    groups = "manifest" (packed layout): pictures of one duplicate group share a patient, and
    groups with contradictory labels come as studies to be excluded. Otherwise the manifest is
    not read at all. patient_known is False in both cases.

    Raises InputRefused: MISSING_FILE without the manifest that was asked for, BAD_TABLE.
    """
    pictures: dict[str, tuple[Path, str]] = {}
    masks: dict[str, list[Path]] = {}
    others: list[Path] = []
    manifest: Path | None = None
    for path in sorted(files):
        named = _named(context.relative(path).as_posix())
        if named is None:
            if path.name == "manifest.csv" and groups == "manifest":
                manifest = path
            else:
                others.append(path)
        elif named.mask:
            masks.setdefault(named.picture, []).append(path)
        elif named.picture in pictures:
            words = "a second picture of this name"
            report = FileReport(path, Outcome.REFUSED, (Defect(Reason.DUPLICATE_FILE, words),))
            yield ReadResult(None, (report,))
        else:
            pictures[named.picture] = (path, named.label)
    yield from _unused(others)
    group_of = _groups(manifest, pictures) if groups == "manifest" else {}
    if manifest is not None:
        yield ReadResult(None, (FileReport(manifest, Outcome.USED),))
    for name in sorted(pictures):
        path, label = pictures[name]
        own = tuple(masks.pop(name, ()))
        try:
            yield _read(Picture(path, masks=own), label, group_of.get(name), context)
        except InputRefused as error:
            yield ReadResult(None, tuple(refused_file(p, error) for p in (path, *own)))
    for name in sorted(masks):
        reason = (Defect(Reason.EXTRA_FILE, "mask without its picture"),)
        yield ReadResult(None, tuple(FileReport(p, Outcome.REFUSED, reason) for p in masks[name]))


def _unused(paths: list[Path]) -> Iterator[ReadResult]:
    for path in paths:
        words = "not a picture or mask of the set"
        yield ReadResult(
            None, (FileReport(path, Outcome.SKIPPED, (Defect(Reason.EXTRA_FILE, words),)),)
        )


def _read(
    picture: Picture, label: str, group: tuple[str, bool] | None, context: ReadContext
) -> ReadResult:
    own = identity(context, picture.path, file_sha256(picture.path))
    if label == "normal":
        picture = replace(picture, label=label)
    else:
        fact = LesionFacts(ANY_LESION, replace(placeholder_lesion(), label=label))
        picture = replace(picture, lesions=(fact,))
    files = PatientFiles(
        patient=own if group is None else f"busi-group\0{group[0]}",
        study=own,
        pictures=(picture,),
        patient_known=False,
        exclude_because=MIXED_LABELS if group is not None and group[1] else None,
    )
    return read_patient(files, MaskValues(), context)


def _groups(
    manifest: Path | None, pictures: Mapping[str, tuple[Path, str]]
) -> dict[str, tuple[str, bool]]:
    """Duplicate group of every picture and whether its labels contradict each other."""
    if manifest is None:
        raise InputRefused(
            Reason.MISSING_FILE,
            "no manifest.csv",
            expected="the packed layout with its manifest",
            remedy="read the set without groups",
        )
    columns = ("case_id", "group_id", "group_mixed_labels")
    table = read_table(manifest, required=columns)
    result: dict[str, tuple[str, bool]] = {}
    for row in table.rows:
        case, group, mixed = (row.values[c] for c in columns)
        if mixed not in ("0", "1") or not group or case in result:
            raise bad_table("not one row per case with its group", where=table.where, line=row.line)
        result[case] = (group, mixed == "1")
    missing = sorted(set(pictures) - set(result))
    if missing:
        raise InputRefused(
            Reason.NOT_IN_TABLE,
            f"{len(missing)} pictures that the manifest does not list",
            where=table.where,
            remedy="use the manifest that came with these pictures, or read without groups",
        )
    return result
