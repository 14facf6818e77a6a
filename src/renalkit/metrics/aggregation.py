"""What is the score of a lesion or a patient, given those of its frames?

Works on arrays with one row per frame or lesion; only upward (frame < lesion < patient). The
result is sorted by key and does not depend on the order of the rows, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Rule, Unit
from renalkit.errors import InputRefused, Reason, StatisticUndefined

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Scores of units: patients (n,), lesions (n,) or None, scores (n,) or (n, C).

    A lesion is named within its patient: the same lesion key under two patients is two lesions.
    Scores are finite; with C columns a row holds one number per class.
    """

    unit: Unit
    patients: Keys
    scores: Floats
    lesions: Keys | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.scores.ndim not in (1, 2) or n == 0:
            raise StatisticUndefined(
                f"scores of shape {self.scores.shape}", expected="(rows,) or (rows, classes)"
            )
        if self.patients.shape != (n,) or (self.lesions is not None and self.lesions.shape != (n,)):
            raise StatisticUndefined(f"keys that do not match {n} rows", expected="one per row")
        if not bool(np.isfinite(self.scores).all()):
            raise StatisticUndefined(
                "scores that are NaN or infinite",
                where="aggregation",
                remedy="leave such rows out, and say how many",
            )


def aggregate_scores(rows: ScoredRows, to: Unit, rule: Rule = Rule.MEAN) -> ScoredRows:
    """One row per lesion or patient, sorted by key.

    Going from frames straight to patients pools all frames of the patient; going by way of
    lesions first gives every lesion the same weight. With (n, C) scores:

      mean      per class
      median    per class, scaled to sum to 1
      max       per class, scaled to sum to 1
      majority  share of rows whose highest class it is (equal scores: the lower class)

    With (n,) scores nothing is scaled, and majority is the share of rows at or above 0.5: call the
    patient positive at 0.5, where a tie counts as positive.

    Raises: ValueError if `to` is not above the unit of the rows, or lesions are wanted and not
    named.

    >>> rows = ScoredRows(Unit.FRAME, np.array(["b", "a", "b"]), np.array([0.2, 0.9, 0.6]))
    >>> out = aggregate_scores(rows, Unit.PATIENT)
    >>> out.patients.tolist(), out.scores.tolist()
    (['a', 'b'], [0.9, 0.4])
    """
    if to <= rows.unit:
        raise ValueError(f"cannot turn {rows.unit.word} scores into {to.word} scores")
    codes, first = _units(rows, to)
    values = rows.scores if rows.scores.ndim == 2 else rows.scores[:, None]
    merged = _merge(values, codes, rule)
    return ScoredRows(
        unit=to,
        patients=rows.patients[first],
        scores=merged if rows.scores.ndim == 2 else merged[:, 0],
        lesions=rows.lesions[first] if to is Unit.LESION and rows.lesions is not None else None,
    )


def one_label_per_patient(patients: Keys, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Label of each patient in sorted order of the keys, as `aggregate_scores` sorts them.

    Raises: InputRefused if rows of a patient carry different labels.
    """
    distinct, codes = np.unique(patients, return_inverse=True)
    out = np.zeros(distinct.size, dtype=np.int64)
    out[codes] = labels
    mixed = np.unique(codes[out[codes] != labels]).size
    if mixed:
        raise InputRefused(
            Reason.IDENTITY_CONFLICT,
            f"{mixed} of {distinct.size} patients carry more than one label",
            expected="one label per patient",
            remedy="analyse lesions, or decide on one label per patient",
        )
    return out


def _units(rows: ScoredRows, to: Unit) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Unit of each row as 0 .. G-1 in sorted order, and one row of each unit."""
    _, codes = np.unique(rows.patients, return_inverse=True)
    if to is Unit.LESION:
        if rows.lesions is None:
            raise ValueError("lesion scores are wanted, and the rows do not name their lesions")
        names, lesion = np.unique(rows.lesions, return_inverse=True)
        codes = codes * names.size + lesion
    _, first, dense = np.unique(codes, return_index=True, return_inverse=True)
    return dense.astype(np.intp), first.astype(np.intp)


def _merge(values: Floats, codes: npt.NDArray[np.intp], rule: Rule) -> Floats:
    """(n, C) values and units 0 .. G-1 -> (G, C)."""
    if rule is Rule.MAJORITY:
        if values.shape[1] == 1:
            values = (values >= 0.5).astype(np.float64)
        else:
            values = np.eye(values.shape[1])[values.argmax(axis=1)]
    reduce: Callable[[Floats], np.float64] = {
        Rule.MEAN: np.mean,
        Rule.MAJORITY: np.mean,
        Rule.MEDIAN: np.median,
        Rule.MAX: np.max,
    }[rule]
    # Each column sorted within its unit: sums then run in one order whatever the rows' order was.
    ends = np.cumsum(np.bincount(codes))[:-1]
    columns = [column[np.lexsort((column, codes))] for column in values.T]
    merged = np.array(
        [[reduce(part) for part in np.split(column, ends)] for column in columns], dtype=np.float64
    ).T
    if values.shape[1] > 1 and rule in (Rule.MEDIAN, Rule.MAX):
        total = merged.sum(axis=1, keepdims=True)
        if bool((total <= 0).any()):
            raise StatisticUndefined(
                f"class scores whose {rule.value}s sum to 0 or less",
                expected="probabilities",
                remedy="aggregate by mean or majority",
            )
        merged /= total
    return merged
