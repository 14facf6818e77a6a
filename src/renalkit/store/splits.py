"""How a split is kept and exchanged: folds.json with its digest, and nnU-Net's splits_final.json.

nnU-Net knows two parts per fold. Ours go out as train -> train, validation -> val; the tested
cases, which nnU-Net must not see, go to the sibling file splits_test.json. A file from outside
without that sibling has two parts: its val is what its authors report on, so it becomes our test
part, and a validation part is drawn inside its train.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from renalkit.domain.splits import (
    Fold,
    PatientFacts,
    Plan,
    Split,
    SplitOptions,
    draw_validation,
)
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.files import read_json, write_json

FORMAT = "renalkit-folds-1"
NNUNET_TESTS = "splits_test.json"
_PARTS = ("train", "validation", "test")


def save_split(path: Path, split: Split) -> None:
    """Write folds.json: plan, seed, every part of every fold (sorted) and the digest."""
    write_json(
        path,
        {
            "format": FORMAT,
            "plan": split.plan.value,
            "seed": split.seed,
            "repeats": split.repeats,
            "shared_test": split.shared_test,
            "folds": [
                {"name": f.name, **{part: sorted(getattr(f, part)) for part in _PARTS}}
                for f in split.folds
            ],
            "digest": split.digest,
        },
    )


def load_split(path: Path) -> Split:
    """Read folds.json back; StoreError when it is damaged, changed or of another kind."""
    expected, remedy = "a file written by save_split", "restore the file or divide again"

    def refuse(found: str) -> StoreError:
        return StoreError(found, where=path.name, expected=expected, remedy=remedy)

    try:
        raw: Any = read_json(path)
    except FileNotFoundError as error:
        raise refuse("there is no such file") from error
    except InputRefused as error:
        raise refuse(error.found) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise refuse("not a folds file of this version")
    content = cast("dict[str, Any]", raw)
    try:
        folds = tuple(
            Fold(i, *(frozenset(_names(f[part])) for part in _PARTS), name=str(f["name"]))
            for i, f in enumerate(content["folds"])
        )
        split = Split(
            Plan(content["plan"]),
            int(content["seed"]),
            folds,
            int(content["repeats"]),
            bool(content["shared_test"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise refuse(f"folds cannot be read ({str(error)[:200]})") from error
    if split.digest != content.get("digest"):
        raise refuse("the folds do not match their digest: the file was changed by hand")
    return split


def write_nnunet(path: Path, split: Split, cases: Mapping[str, str]) -> None:
    """Write splits_final.json and, beside it, splits_test.json with the tested cases.

    cases: case name -> patient. Every case of a patient goes where the patient goes; a patient
    without cases is an InputRefused, since the files would then say less than the split.
    """
    of_patient: dict[str, list[str]] = defaultdict(list)
    for case, patient in cases.items():
        of_patient[patient].append(case)
    missing = {p for f in split.folds for part in _PARTS for p in getattr(f, part)} - set(
        of_patient
    )
    if missing:
        raise InputRefused(
            Reason.NOT_IN_TABLE,
            f"{len(missing)} patients of the split have no case, first {min(missing)}",
            where=path.name,
            expected="at least one case name for every patient",
        )

    def named(patients: Iterable[str]) -> list[str]:
        return sorted(c for p in patients for c in of_patient[p])

    write_json(path, [{"train": named(f.train), "val": named(f.validation)} for f in split.folds])
    write_json(path.with_name(NNUNET_TESTS), [{"test": named(f.test)} for f in split.folds])


def read_nnunet(
    path: Path,
    cases: Mapping[str, str],
    facts: Sequence[PatientFacts],
    seed: int,
    options: SplitOptions | None = None,
) -> Split:
    """A split from splits_final.json; see the module's first lines for what becomes of val.

    cases: case name -> patient; case names it does not know, a patient or duplicate group on both
    sides of a fold, and overlapping (but not identical) tested parts are refused.

    Raises InputRefused (BAD_JSON, NOT_IN_TABLE, SPLIT_OVERLAP), ConfigError when train is too
    small for a validation part.
    """
    group_of = {f.patient: f.group for f in facts}
    pairs = _listed(path, ("train", "val"))
    beside = path.with_name(NNUNET_TESTS)
    tests = _listed(beside, ("test",)) if beside.exists() else None
    if tests is not None and len(tests) != len(pairs):
        raise InputRefused(
            Reason.BAD_JSON,
            f"{len(tests)} tested parts for {len(pairs)} folds",
            where=beside.name,
            remedy=f"remove {beside.name} when it does not belong to {path.name}",
        )
    folds: list[Fold] = []
    for index, pair in enumerate(pairs):
        where = f"{path.name}, fold {index}"
        parts = [*pair, *(tests[index] if tests is not None else ())]
        people = [_patients_of(names, cases, where) for names in parts]
        _refuse_overlap(people, group_of, where)
        if tests is not None:
            folds.append(Fold(index, people[0], people[1], people[2]))
        else:
            given = Fold(index, people[0], frozenset(), people[1])
            folds.append(draw_validation(facts, given, seed, options))
    shared = len(folds) > 1 and len({f.test for f in folds}) == 1
    try:
        plan = Plan.HOLDOUT if shared or len(folds) == 1 else Plan.KFOLD
        return Split(plan, seed, tuple(folds), shared_test=plan is Plan.HOLDOUT)
    except ValueError as error:
        raise InputRefused(
            Reason.SPLIT_OVERLAP,
            str(error),
            where=path.name,
            expected="tested parts that are all disjoint or all the same",
        ) from error


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in cast("list[Any]", value)):
        raise ValueError("a part must be a list of names")
    names = cast("list[str]", value)
    if len(set(names)) != len(names):
        raise ValueError("a part names something twice")
    return names


def _listed(path: Path, keys: tuple[str, ...]) -> list[list[list[str]]]:
    """Per fold the names under each key; InputRefused(BAD_JSON) when the file has another form."""
    raw: Any = read_json(path)
    expected = f"a list of {{{', '.join(keys)}}} with lists of case names, as nnU-Net writes it"
    folds = cast("list[Any]", raw) if isinstance(raw, list) else []
    if not folds or not all(isinstance(f, dict) and set(f) == set(keys) for f in folds):
        raise InputRefused(
            Reason.BAD_JSON, "not a list of folds", where=path.name, expected=expected
        )
    try:
        return [[_names(fold[key]) for key in keys] for fold in folds]
    except ValueError as error:
        raise InputRefused(
            Reason.BAD_JSON, str(error), where=path.name, expected=expected
        ) from error


def _patients_of(names: Sequence[str], cases: Mapping[str, str], where: str) -> frozenset[str]:
    unknown = sorted(set(names) - set(cases))
    if unknown:
        raise InputRefused(
            Reason.NOT_IN_TABLE,
            f"{len(unknown)} of {len(names)} cases are not in the cohort",
            where=where,
            remedy="use the cohort the file was made for",
        )
    if not names:
        raise InputRefused(Reason.BAD_JSON, "a part without cases", where=where)
    return frozenset(cases[n] for n in names)


def _refuse_overlap(
    people: Sequence[frozenset[str]], group_of: Mapping[str, str], where: str
) -> None:
    for what, parts in (
        ("patients", people),
        ("duplicate groups", [frozenset(group_of.get(p, p) for p in part) for part in people]),
    ):
        both = {x for i, a in enumerate(parts) for b in parts[:i] for x in a & b}
        if both:
            raise InputRefused(
                Reason.SPLIT_OVERLAP,
                f"{len(both)} {what} are in two parts",
                where=where,
                expected="every patient, with its duplicates, in one part only",
                remedy="divide again by patient",
            )
