"""How does a cohort lie on disk, and is it still the one that was saved?

    cohorts/<name>/
      cohort.toml            name, task, digest, counts, versions; written last: it makes the cohort
      studies/<study>.json   one record per study, strict, without pixels
      pixels/                see `renalkit.store.pixels`
      exclusions.csv         study, patient, reason, class
      account.csv            one line per input file: keyed path, hash, outcome, reasons
      flow.json              the counts of the flow chart

Nothing here names a patient or a file: keys are pseudonyms and paths are keyed hashes. Nothing
depends on the time or the place of saving, so equal cohorts give equal folders.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from renalkit import __version__
from renalkit.domain.cohort import ClassTask, Cohort, Exclusion
from renalkit.domain.geometry import Box, MaskRLE, Region, SpacingMm
from renalkit.domain.image import Clip, Mode, PixelStack, Source
from renalkit.domain.study import (
    Boundary,
    Composition,
    Defect,
    Echo,
    Findings,
    GradeSystem,
    Lesion,
    Outline,
    Pole,
    Roi,
    RoiOrigin,
    Scanner,
    Side,
    Study,
)
from renalkit.domain.volume import (
    LabelMap,
    Phase,
    PhaseSource,
    Volume,
    VolumeGrid,
    affine_of,
)
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.files import parse_json, sha256_bytes, write_json, write_text
from renalkit.store.pixels import PIXELS, digests_of, put_clip, stored

SCHEMA = 1
COHORT = "cohort.toml"
STUDIES = "studies"
EXCLUSIONS = "exclusions.csv"
ACCOUNT = "account.csv"
FLOW = "flow.json"
OUTCOMES = ("used", "used-with-warning", "refused", "skipped")
_RESTORE = "restore the folder from its copy, or run ingest again on the source"

Stacks = Callable[[str, tuple[int, ...], str], PixelStack]
"""Gives the pixels of a clip from its digest, shape and dtype."""


@dataclass(frozen=True, slots=True, order=True)
class AccountLine:
    """What became of one input file, without naming it. reasons are codes of `Reason`."""

    keyed_path: str
    file_sha256: str
    outcome: str
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome '{self.outcome}' is not one of {', '.join(OUTCOMES)}")
        if self.outcome != "used" and not self.reasons:
            raise ValueError(f"a file that is {self.outcome} needs a reason")


# ---- Study <-> JSON ------------------------------------------------------------------------


def study_to_json(study: Study) -> dict[str, Any]:
    """The record of a study: plain JSON values, floats exact, pixels by digest."""
    return {
        "schema": SCHEMA,
        "key": study.key,
        "patient": study.patient,
        "patient_known": study.patient_known,
        "label": study.label,
        "site": study.site,
        "scanner": {"manufacturer": study.scanner.manufacturer, "model": study.scanner.model},
        "covariates": dict(study.covariates),
        "defects": [
            {"reason": d.reason.value, "words": d.words, "clip": d.clip} for d in study.defects
        ],
        "clips": [_clip_to_json(c) for c in study.clips],
        "lesions": [_lesion_to_json(le) for le in study.lesions],
    }


def _clip_to_json(clip: Clip) -> dict[str, Any]:
    return {
        "sha256": clip.sha256,
        "shape": [int(n) for n in clip.pixels.shape],
        "dtype": clip.pixels.dtype.newbyteorder("<").str,
        "mode": clip.mode.value,
        "source": {
            "file_sha256": clip.source.file_sha256,
            "keyed_path": clip.source.keyed_path,
            "kind": clip.source.kind,
            "first_frame": clip.source.first_frame,
            **_partner_to_json(clip),
        },
        "regions": [
            {
                "box": _box_to_json(r.box),
                "spacing_mm": _optional_list(r.spacing_mm),
                "data_type": r.data_type,
                "spatial_format": r.spatial_format,
            }
            for r in clip.regions
        ],
        "spacing_mm": _optional_list(clip.spacing_mm),
        "times_s": _optional_list(clip.times_s),
        **_pane_to_json(clip),
        **_volume_to_json(clip),
    }


def _partner_to_json(clip: Clip) -> dict[str, str]:
    """The other file of a pair; nothing for a file that has none."""
    partner = clip.source.partner_sha256
    return {"partner_sha256": partner} if partner else {}


def _pane_to_json(clip: Clip) -> dict[str, Any]:
    """What only a pane or a choice of frames has; nothing for a clip as its file gave it."""
    found: dict[str, Any] = {}
    if clip.offset != (0, 0):
        found["offset"] = list(clip.offset)
    if clip.source_frames is not None:
        found["source_frames"] = list(clip.source_frames)
    return found


def _volume_to_json(clip: Clip) -> dict[str, Any]:
    """What only a volume has; nothing for other clips."""
    if not isinstance(clip, Volume):
        return {}
    grid, labels = clip.grid, clip.labels
    return {
        "volume": {
            "affine_lps_mm": [list(row) for row in grid.affine_lps_mm],
            "slice_at": _optional_list(grid.slice_at),
            "source_axes": clip.source_axes,
            "phase": clip.phase,
            "phase_source": clip.phase_source,
            "labels": None
            if labels is None
            else {
                "sha256": labels.sha256,
                "dtype": labels.pixels.dtype.newbyteorder("<").str,
            },
        }
    }


def _lesion_to_json(lesion: Lesion) -> dict[str, Any]:
    found = lesion.findings
    return {
        "key": lesion.key,
        "label": lesion.label,
        "side": lesion.side,
        "size_mm": lesion.size_mm,
        "histology": lesion.histology,
        "grade": lesion.grade,
        "grade_system": lesion.grade_system,
        "findings": {
            "pole": found.pole,
            "composition": found.composition,
            "echo": found.echo,
            "shape": found.shape,
            "boundary": found.boundary,
            "calcification": found.calcification,
            "flow_grade": found.flow_grade,
        },
        "reference_standard": lesion.reference_standard,
        "typical": lesion.typical,
        "rois": [
            {
                "clip": r.clip,
                "frame": r.frame,
                "mask": None if r.mask is None else r.mask.text,
                "box": None if r.box is None else _box_to_json(r.box),
                "origin": r.origin.value,
            }
            for r in lesion.rois
        ],
    }


def _box_to_json(box: Box) -> list[int]:
    return [box.x, box.y, box.width, box.height]


def _optional_list(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else list(values)


class _Record:
    """A JSON object read key by key: every key is asked for once and none is left over."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what} is not an object")
        self._rest: dict[str, Any] = dict(value)
        self._what = what

    def any(self, key: str) -> Any:
        if key not in self._rest:
            raise ValueError(f"{self._what} has no '{key}'")
        return self._rest.pop(key)

    def added(self, key: str) -> Any:
        """A value that most records do not have; None there."""
        return self._rest.pop(key, None)

    def text(self, key: str) -> str:
        return self._typed(key, self.any(key), str)

    def whole(self, key: str) -> int:
        return self._typed(key, self.any(key), int)

    def truth(self, key: str) -> bool:
        return self._typed(key, self.any(key), bool)

    def maybe(self, key: str, kind: type[Any]) -> Any:
        """A value of this type, or None."""
        value = self.any(key)
        return None if value is None else self._typed(key, value, kind)

    def items(self, key: str) -> list[Any]:
        return self._typed(key, self.any(key), list)

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """A list of numbers, or None."""
        value = self.maybe(key, list)
        return None if value is None else tuple(self._typed(key, v, float) for v in value)

    def end(self) -> None:
        if self._rest:
            raise ValueError(f"{self._what} has unknown keys: {', '.join(sorted(self._rest))}")

    def _typed(self, key: str, value: Any, kind: type[Any]) -> Any:
        # bool is an int in Python but not in a record; an int is a valid float.
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{self._what}: '{key}' is not of type {kind.__name__}")
        return value


def study_from_json(value: Any, stacks: Stacks) -> Study:
    """The inverse of `study_to_json`.

    Raises:
        ValueError: another form, an unknown or missing key, or a value the types refuse.
    """
    record = _Record(value, "study")
    _check_schema(record.whole("schema"), "study record")
    scanner = _Record(record.any("scanner"), "scanner")
    covariates = record.any("covariates")
    if not isinstance(covariates, dict):
        raise ValueError("covariates are not an object")
    for name, item in covariates.items():
        if not isinstance(item, str | float | int | bool):
            raise ValueError(f"covariate '{name}' is neither text nor number nor truth value")
    study = Study(
        key=record.text("key"),
        patient=record.text("patient"),
        clips=tuple(_clip_from_json(c, stacks) for c in record.items("clips")),
        lesions=tuple(_lesion_from_json(le) for le in record.items("lesions")),
        label=record.maybe("label", str),
        patient_known=record.truth("patient_known"),
        site=record.maybe("site", str),
        scanner=Scanner(scanner.maybe("manufacturer", str), scanner.maybe("model", str)),
        covariates=covariates,
        defects=tuple(_defect_from_json(d) for d in record.items("defects")),
    )
    scanner.end()
    record.end()
    return study


def _defect_from_json(value: Any) -> Defect:
    record = _Record(value, "defect")
    reason = Reason(record.text("reason"))
    defect = Defect(reason, record.text("words"), record.maybe("clip", int))
    record.end()
    return defect


def _clip_from_json(value: Any, stacks: Stacks) -> Clip:
    record = _Record(value, "clip")
    sha256 = record.text("sha256")
    shape = tuple(int(n) for n in record.numbers("shape") or ())
    origin = _Record(record.any("source"), "source")
    volume = record.added("volume")
    clip = _kind_of_clip(volume, stacks, shape)(
        pixels=stacks(sha256, shape, record.text("dtype")),
        sha256=sha256,
        mode=Mode(record.text("mode")),
        source=Source(
            origin.text("file_sha256"),
            origin.text("keyed_path"),
            origin.text("kind"),
            origin.whole("first_frame"),
            _text_or_empty(origin.added("partner_sha256")),
        ),
        regions=tuple(_region_from_json(r) for r in record.items("regions")),
        spacing_mm=_spacing(record),
        times_s=record.numbers("times_s"),
        offset=_corner(record.added("offset")),
        source_frames=_wholes(record.added("source_frames")),
    )
    origin.end()
    record.end()
    return clip


def _kind_of_clip(value: Any, stacks: Stacks, shape: tuple[int, ...]) -> Callable[..., Clip]:
    """What makes the clip of a record: `Clip`, or `Volume` with what only a volume has."""
    if value is None:
        return Clip
    record = _Record(value, "volume")
    affine = tuple(
        tuple(_Record({"row": row}, "affine").numbers("row") or ())
        for row in record.items("affine_lps_mm")
    )
    if len(affine) != 4 or any(len(row) != 4 for row in affine) or len(shape) != 3:
        raise ValueError("volume: the affine has four rows of four numbers")
    labels = record.any("labels")
    made = partial(
        Volume,
        grid=VolumeGrid(
            (shape[0], shape[1], shape[2]), affine_of(affine), record.numbers("slice_at")
        ),
        source_axes=record.text("source_axes"),
        phase=_enum(record, "phase", Phase),
        phase_source=_enum(record, "phase_source", PhaseSource),
        labels=None if labels is None else _labels_from_json(labels, stacks, shape),
    )
    record.end()
    return made


def _labels_from_json(value: Any, stacks: Stacks, shape: tuple[int, ...]) -> LabelMap:
    record = _Record(value, "labels")
    sha256 = record.text("sha256")
    found = LabelMap(stacks(sha256, shape, record.text("dtype")), sha256)
    record.end()
    return found


def _text_or_empty(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError("source: the partner's hash is text")
    return value or ""


def _wholes(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise ValueError("clip: offset and source frames are lists of whole numbers")
    return tuple(value)


def _corner(value: Any) -> tuple[int, int]:
    numbers = _wholes(value)
    if numbers is None:
        return 0, 0
    x, y = numbers
    return x, y


def _spacing(record: _Record) -> SpacingMm | None:
    values = record.numbers("spacing_mm")
    if values is None:
        return None
    row, col = values
    return row, col


def _region_from_json(value: Any) -> Region:
    record = _Record(value, "region")
    region = Region(
        box=_box_from_json(record.any("box")),
        spacing_mm=_spacing(record),
        data_type=record.text("data_type"),
        spatial_format=record.text("spatial_format"),
    )
    record.end()
    return region


def _box_from_json(value: Any) -> Box:
    if not isinstance(value, list) or len(value) != 4 or not all(type(v) is int for v in value):
        raise ValueError("a box is a list of four whole numbers")
    return Box(*value)


def _enum(record: _Record, key: str, kind: type[Any]) -> Any:
    text = record.maybe(key, str)
    return None if text is None else kind(text)


def _lesion_from_json(value: Any) -> Lesion:
    record = _Record(value, "lesion")
    found = _Record(record.any("findings"), "findings")
    lesion = Lesion(
        key=record.text("key"),
        label=record.maybe("label", str),
        side=_enum(record, "side", Side),
        size_mm=record.maybe("size_mm", float),
        histology=record.maybe("histology", str),
        grade=record.maybe("grade", int),
        grade_system=_enum(record, "grade_system", GradeSystem),
        findings=Findings(
            pole=_enum(found, "pole", Pole),
            composition=_enum(found, "composition", Composition),
            echo=_enum(found, "echo", Echo),
            shape=_enum(found, "shape", Outline),
            boundary=_enum(found, "boundary", Boundary),
            calcification=found.maybe("calcification", bool),
            flow_grade=found.maybe("flow_grade", int),
        ),
        reference_standard=record.maybe("reference_standard", str),
        typical=record.maybe("typical", bool),
        rois=tuple(_roi_from_json(r) for r in record.items("rois")),
    )
    found.end()
    record.end()
    return lesion


def _roi_from_json(value: Any) -> Roi:
    record = _Record(value, "region of interest")
    mask, box = record.maybe("mask", str), record.any("box")
    roi = Roi(
        clip=record.whole("clip"),
        frame=record.whole("frame"),
        mask=None if mask is None else MaskRLE.parse(mask),
        box=None if box is None else _box_from_json(box),
        origin=RoiOrigin(record.text("origin")),
    )
    record.end()
    return roi


# ---- tables --------------------------------------------------------------------------------

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def safe_cell(text: str) -> str:
    """A cell no spreadsheet takes for a formula: a leading ``'`` where one is needed.

    >>> safe_cell("=1+1"), safe_cell("cyst")
    ("'=1+1", 'cyst')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain_cell(text: str) -> str:
    """The inverse of `safe_cell`."""
    return text[1:] if text.startswith("'") else text


def table_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Comma-separated text as in RFC 4180, cells quoted where needed; see `safe_cell`."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)  # ends lines with CR LF, and so quotes either inside a cell
    writer.writerow(header)
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def table_rows(text: str, header: Sequence[str], *, where: str) -> list[list[str]]:
    """The inverse of `table_text`; StoreError names the line that has another form."""
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows or rows[0] != list(header):
        raise StoreError("table with other columns", where=where, remedy=_RESTORE)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise StoreError(f"row {number} has {len(row)} cells", where=where, remedy=_RESTORE)
    return [[plain_cell(cell) for cell in row] for row in rows[1:]]


_EXCLUSION_COLUMNS = ("study", "patient", "reason", "label")
_ACCOUNT_COLUMNS = ("file", "sha256", "outcome", "reasons")


def _exclusions_text(exclusions: Iterable[Exclusion]) -> str:
    # An unknown class is an empty cell; a class is never an empty text.
    rows = [(e.study, e.patient, e.reason, e.label or "") for e in exclusions]
    return table_text(_EXCLUSION_COLUMNS, rows)


def _account_text(account: Iterable[AccountLine]) -> str:
    rows = [(a.keyed_path, a.file_sha256, a.outcome, " ".join(a.reasons)) for a in sorted(account)]
    return table_text(_ACCOUNT_COLUMNS, rows)


# ---- the folder ----------------------------------------------------------------------------


def _check_schema(found: int, where: str) -> None:
    if found > SCHEMA:
        raise StoreError(
            f"schema version {found}",
            where=where,
            expected=f"at most {SCHEMA}",
            remedy="it was made by a newer renalkit: update this one",
        )
    if found < 1:
        raise ValueError(f"schema version {found}")


def _toml(value: Any) -> str:
    """A TOML value. JSON texts are TOML texts once DEL is escaped too."""
    if isinstance(value, list):
        return f"[{', '.join(_toml(v) for v in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _head(cohort: Cohort, account: Sequence[AccountLine], files_sha256: str) -> str:
    flow = cohort.flow
    lines = [
        f"schema = {SCHEMA}",
        f"renalkit = {_toml(__version__)}",
        f"name = {_toml(cohort.name)}",
        f"digest = {_toml(cohort.digest)}",
        f"files_sha256 = {_toml(files_sha256)}",
        "",
        "[task]",
        f"classes = {_toml(list(cohort.task.classes))}",
    ]
    if cohort.task.positive is not None:
        lines.append(f"positive = {_toml(cohort.task.positive)}")
    if cohort.task.ordered:
        lines.append("ordered = true")
    lines += [
        "",
        "[counts]",
        f"patients = {flow.included_patients}",
        f"studies = {flow.included_studies}",
        f"images = {flow.included_images}",
        f"excluded = {len(cohort.exclusions)}",
        f"files = {len(account)}",
    ]
    return "\n".join(lines) + "\n"


def _files_sha256(folder: Path) -> str:
    """One digest over every file of the cohort but cohort.toml and the pixels (named by theirs)."""
    total = hashlib.sha256()
    names = [EXCLUSIONS, ACCOUNT, FLOW]
    studies = sorted((folder / STUDIES).glob("*.json"))
    for path in [*(folder / n for n in names), *studies]:
        total.update(f"{path.name} {sha256_bytes(path.read_bytes())}\n".encode())
    return total.hexdigest()


def save_cohort(folder: Path, cohort: Cohort, account: Iterable[AccountLine] = ()) -> None:
    """Write a cohort, pixels included, so that an interruption leaves no half cohort.

    cohort.toml is taken away first and put back last: without it the folder is not a cohort.
    Saving an equal cohort again changes nothing; records and pixels no longer used are removed.

    Raises:
        StoreError: the disk refused, or pixels do not have their digest.
    """
    for study in cohort.studies:
        for clip in study.clips:
            put_clip(folder, clip)
    cohort = _settled(folder, cohort)
    lines = tuple(sorted(account))
    (folder / COHORT).unlink(missing_ok=True)
    keep = {f"{s.key}.json" for s in cohort.studies}
    for study in cohort.studies:
        _write_if_new(folder / STUDIES / f"{study.key}.json", study_to_json(study))
    for path in (folder / STUDIES).glob("*.json"):
        if path.name not in keep:
            path.unlink()
    _drop_unused_pixels(folder, cohort)
    write_text(folder / EXCLUSIONS, _exclusions_text(cohort.exclusions))
    write_text(folder / ACCOUNT, _account_text(lines))
    write_json(folder / FLOW, flow_to_json(cohort))
    write_text(folder / COHORT, _head(cohort, lines, _files_sha256(folder)))


def _settled(folder: Path, cohort: Cohort) -> Cohort:
    """The cohort as loading will give it: a NumPy number has another repr, thus another digest."""

    def stacks(sha256: str, shape: tuple[int, ...], dtype: str) -> PixelStack:
        return stored(folder, sha256, shape, dtype)

    try:
        texts = [json.dumps(study_to_json(s), allow_nan=False) for s in cohort.studies]
        studies = tuple(study_from_json(json.loads(text), stacks) for text in texts)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"a study cannot be stored ({error})",
            where=cohort.name,
            expected="finite plain numbers and text",
            remedy="leave unknown values out",
        ) from error
    return Cohort(cohort.name, cohort.task, studies, cohort.exclusions)


def _write_if_new(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def _drop_unused_pixels(folder: Path, cohort: Cohort) -> None:
    used = {d for s in cohort.studies for c in s.clips for d in digests_of(c)}
    for path in (folder / PIXELS).glob("*/*"):
        if path.name.partition(".")[0] not in used:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def flow_to_json(cohort: Cohort) -> dict[str, Any]:
    """The flow chart's counts as JSON values."""
    flow = cohort.flow
    return {
        "screened": {"patients": flow.screened_patients, "studies": flow.screened_studies},
        "included": {
            "patients": flow.included_patients,
            "studies": flow.included_studies,
            "images": flow.included_images,
        },
        "excluded": dict(flow.excluded),
    }


def _read_head(folder: Path) -> dict[str, Any]:
    path = folder / COHORT
    if not path.is_file():
        raise StoreError(
            "no cohort here",
            where=folder.name,
            expected=f"a folder with {COHORT}",
            remedy="give the folder ingest wrote; if ingest was interrupted, run it again",
        )
    try:
        head = tomllib.loads(path.read_text(encoding="utf-8"))
        _check_schema(int(head["schema"]), COHORT)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"not readable ({error})", where=COHORT, remedy=_RESTORE) from error
    return head


def load_cohort(folder: Path) -> Cohort:
    """The cohort in a folder; pixels are read when asked for.

    Raises:
        StoreError: no cohort, a newer schema, a record that was changed, or missing pixels.
    """
    head = _read_head(folder)

    def stacks(sha256: str, shape: tuple[int, ...], dtype: str) -> PixelStack:
        return stored(folder, sha256, shape, dtype)

    try:
        if _files_sha256(folder) != head["files_sha256"]:
            raise StoreError(
                "records are not those that were saved", where=folder.name, remedy=_RESTORE
            )
        studies = [
            study_from_json(parse_json(path.read_bytes(), where=path.name), stacks)
            for path in sorted((folder / STUDIES).glob("*.json"))
        ]
        task = head["task"]
        cohort = Cohort(
            head["name"],
            ClassTask.parse(task),
            tuple(studies),
            tuple(
                Exclusion(study, patient, reason, label or None)
                for study, patient, reason, label in _rows(folder, EXCLUSIONS, _EXCLUSION_COLUMNS)
            ),
        )
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise StoreError("missing", where=name, remedy=_RESTORE) from error
    except (ValueError, KeyError, TypeError, csv.Error, InputRefused) as error:
        raise StoreError(f"damaged ({error})", where=folder.name, remedy=_RESTORE) from error
    if cohort.digest != head["digest"]:
        raise StoreError(
            "the cohort does not have the digest it was saved with",
            where=folder.name,
            remedy=_RESTORE,
        )
    return cohort


def _rows(folder: Path, name: str, columns: Sequence[str]) -> list[list[str]]:
    text = (folder / name).read_bytes().decode("utf-8")
    return table_rows(text, columns, where=name)


def load_account(folder: Path) -> tuple[AccountLine, ...]:
    """What became of every input file; StoreError when the table is missing or damaged."""
    try:
        return tuple(
            AccountLine(path, sha256, outcome, tuple(reasons.split()))
            for path, sha256, outcome, reasons in _rows(folder, ACCOUNT, _ACCOUNT_COLUMNS)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError("account cannot be read", where=ACCOUNT, remedy=_RESTORE) from error
