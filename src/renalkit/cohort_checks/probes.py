"""Could the classes be told apart without looking at the tissue?

A probe is an L2-regularised logistic regression on the margin of the pictures alone, or on
technical metadata alone, scored out of fold with groups kept together. Its AUC belongs beside the
network's: what the margin can do, the network may be doing too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from renalkit.cohort_checks.findings import Finding, Severity
from renalkit.cohort_checks.scan import Scan
from renalkit.domain.cohort import Cohort
from renalkit.domain.splits import UNLABELLED, Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Study
from renalkit.errors import ConfigError, StatisticUndefined

Float = npt.NDArray[np.float64]

ALERT_AUC = 0.6
_BOOTSTRAPS = 1000
_L2 = 1.0
_MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """AUC of a probe with its 95 per cent interval; n counts units (patients)."""

    name: str
    auc: float
    low: float
    high: float
    n: int
    unit: str
    method: str

    @property
    def alarming(self) -> bool:
        """Whether the probe tells the classes apart: AUC above 0.6 and interval above 0.5."""
        return self.auc > ALERT_AUC and self.low > 0.5


@dataclass(frozen=True, slots=True)
class ProbeData:
    """One row per patient: features (P,F), class index (P,), group name and fold (P,)."""

    features: Float
    target: npt.NDArray[np.int64]
    group: tuple[str, ...]
    fold: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    positive: int | None


def fit_logistic(features: Float, target: Float, l2: float = _L2) -> Float:
    """Weights (F+1,), intercept last, of sum log-loss + l2/2 |w|^2 (intercept not penalised).

    target is 0 or 1. The problem is strictly convex in w, so L-BFGS ends at the one minimum.
    """
    columns = features.shape[1]

    def loss(w: Float) -> tuple[float, Float]:
        z = features @ w[:-1] + w[-1]
        value = float(np.logaddexp(0, z).sum() - target @ z + 0.5 * l2 * (w[:-1] @ w[:-1]))
        error = expit(z) - target
        return value, np.append(features.T @ error + l2 * w[:-1], error.sum())

    solved = minimize(loss, np.zeros(columns + 1), jac=True, method="L-BFGS-B")
    return np.asarray(solved.x, np.float64)


def out_of_fold(features: Float, target: Float, fold: npt.NDArray[np.int64]) -> Float:
    """Scores (P,) of each row by a model fitted without its fold; scaling is fitted there too."""
    scores = np.zeros(len(target))
    for k in np.unique(fold):
        test = fold == k
        centre = features[~test].mean(axis=0)
        spread = features[~test].std(axis=0)
        spread = np.where(spread > 1e-12, spread, np.inf)
        # Values far outside what training saw would decide alone; the probe asks for tendencies.
        scaled = np.clip((features - centre) / spread, -5, 5)
        weights = fit_logistic(scaled[~test], target[~test])
        scores[test] = scaled[test] @ weights[:-1] + weights[-1]
    return scores


def within_fold_auc(
    scores: Float, target: Float, fold: npt.NDArray[np.int64], weights: Float | None = None
) -> Float:
    """AUC over pairs of one fold, (B,) for weights (B,P), (1,) without.

    Scores of different folds come from different models and are not compared: pooled, the AUC of
    a useless model falls below one half, because leaving a class out lowers its prior. Ties count
    one half. NaN when no fold has both classes (with weight).
    """
    w = np.ones((1, len(target))) if weights is None else weights
    won, pairs = np.zeros(len(w)), np.zeros(len(w))
    for k in np.unique(fold):
        p, n = (fold == k) & (target == 1), (fold == k) & (target == 0)
        gap = scores[p][:, None] - scores[n][None]
        better = (gap > 0) + 0.5 * (gap == 0)
        won += ((w[:, p] @ better) * w[:, n]).sum(axis=1)
        pairs += w[:, p].sum(axis=1) * w[:, n].sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(w), np.nan), where=pairs > 0)


def _macro_auc(data: ProbeData, scores: Float, weights: Float | None = None) -> Float:
    """AUC of the positive class, or the mean of one-versus-rest AUCs; scores (K,P)."""
    wanted = [data.positive] if data.positive is not None else range(len(data.classes))
    parts = [
        within_fold_auc(s, (data.target == k).astype(float), data.fold, weights)
        for k, s in zip(wanted, scores, strict=True)
    ]
    return np.mean(parts, axis=0)


def probe_auc(data: ProbeData) -> float:
    """Cross-validated AUC of the probe (macro one-versus-rest without a positive class)."""
    return float(_macro_auc(data, _scores(data))[0])


def _scores(data: ProbeData) -> Float:
    wanted = [data.positive] if data.positive is not None else range(len(data.classes))
    return np.stack(
        [out_of_fold(data.features, (data.target == k).astype(float), data.fold) for k in wanted]
    )


def run_probe(name: str, data: ProbeData, *, seed: int = 0) -> ProbeResult:
    """The probe with a percentile interval from resampling whole groups.

    Raises StatisticUndefined when no feature varies: there is nothing to probe.
    """
    if data.features.size == 0 or not (data.features.std(axis=0) > 1e-12).any():
        raise StatisticUndefined(f"probe '{name}': nothing varies between patients")
    scores = _scores(data)
    auc = float(_macro_auc(data, scores)[0])
    names, member = np.unique(data.group, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_BOOTSTRAPS)
    draws = _macro_auc(data, scores, counts[:, member].astype(float))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    kind = "positive class" if data.positive is not None else "mean of one-versus-rest"
    return ProbeResult(
        name,
        auc,
        float(low),
        float(high),
        len(data.target),
        "patient",
        f"logistic regression (L2), {len(np.unique(data.fold))}-fold by group, AUC within folds "
        f"({kind}), 95 % percentile interval of {_BOOTSTRAPS} group resamples",
    )


def probe_data(
    cohort: Cohort, groups: Mapping[str, str], rows: Mapping[str, Float], *, seed: int = 0
) -> ProbeData:
    """Align features (patient -> (F,)) with classes and folds; patients without class drop out.

    Five folds, fewer (at least three) when a class has fewer groups. Raises StatisticUndefined
    when even three are too many or only one class is there.
    """
    facts = [f for f in patient_facts(cohort, groups) if f.stratum != UNLABELLED]
    facts = [f for f in facts if f.patient in rows]
    classes = tuple(c for c in cohort.task.classes if any(f.stratum == c for f in facts))
    if len(classes) < 2:
        raise StatisticUndefined(f"a probe needs two classes, the cohort has {len(classes)}")
    for folds in (5, 4, 3):
        try:
            split = make_split(facts, Plan.KFOLD, seed, SplitOptions(folds=folds))
            break
        except ConfigError:
            continue
    else:
        raise StatisticUndefined("a probe needs three groups of patients in every class")
    fold_of = {p: f.index for f in split.folds for p in f.test}
    # One class of the task missing from the data still leaves the others to be told apart.
    positive = cohort.task.positive if cohort.task.positive in classes else None
    if positive is None and len(classes) == 2:
        positive = classes[1]
    return ProbeData(
        np.stack([rows[f.patient] for f in facts]).astype(np.float64),
        np.array([classes.index(f.stratum) for f in facts]),
        tuple(f.group for f in facts),
        np.array([fold_of[f.patient] for f in facts]),
        classes,
        None if positive is None else classes.index(positive),
    )


def _by_patient(items: Sequence[tuple[str, Sequence[float]]]) -> dict[str, Float]:
    """Mean feature vector of each patient."""
    found: dict[str, list[Sequence[float]]] = defaultdict(list)
    for patient, values in items:
        found[patient].append(values)
    return {p: np.mean(np.asarray(v, np.float64), axis=0) for p, v in found.items()}


def margin_features(scan: Scan) -> dict[str, Float]:
    """Patient -> what lies at the border of the pictures.

    The `margin_*` covariates measured at import (before anything outside the ultrasound regions
    was blanked) when every study has them, else the outer 6 per cent of the stored pictures.
    """
    studies = scan.cohort.studies
    names = sorted({k for s in studies for k in s.covariates if k.startswith("margin_")})
    if names and all(all(_number(s.covariates.get(n)) for n in names) for s in studies):
        return _by_patient([(s.patient, [float(s.covariates[n]) for n in names]) for s in studies])
    return _by_patient([(x.patient, x.border) for x in scan.looks])


def _number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _technical(study: Study, makers: Sequence[str]) -> list[float]:
    clip = study.clips[0]
    frames = sum(c.n_frames for c in study.clips)
    spacing = clip.spacing_mm or next((r.spacing_mm for r in clip.regions if r.spacing_mm), None)
    rate = 0.0
    if clip.times_s is not None and clip.n_frames > 1:
        rate = (clip.n_frames - 1) / (clip.times_s[-1] - clip.times_s[0])
    return [
        float(np.log(clip.rows)),
        float(np.log(clip.cols)),
        clip.rows / clip.cols,
        float(clip.rows * clip.cols) ** 0.5 / 100,
        float(len(clip.pixels.shape) == 4),
        float(clip.pixels.dtype.itemsize),
        float(len(study.clips)),
        float(np.log(frames)),
        rate,
        float(clip.times_s is not None),
        float(spacing is not None),
        float(np.log(spacing[0])) if spacing else 0.0,
        float(len(clip.regions)),
        float(len(study.defects)),
        *(float(study.scanner.name == name) for name in makers),
        *(float(study.site == name) for name in makers),
    ]


def metadata_features(cohort: Cohort) -> dict[str, Float]:
    """Patient -> size, channels, depth, frame count and rate, scale, machine and site; no path."""
    seen: dict[str, int] = defaultdict(int)
    for study in cohort.studies:
        for name in {study.scanner.name, study.site or ""} - {"", "unknown"}:
            seen[name] += 1
    makers = sorted(seen, key=lambda n: (-seen[n], n))[:_MAX_NAMES]
    return _by_patient([(s.patient, _technical(s, makers)) for s in cohort.studies])


PROBES: tuple[tuple[str, str, str, Callable[[Scan], Mapping[str, Float]]], ...] = (
    ("L07", "margin", "the margin of the pictures alone", margin_features),
    ("L08", "metadata", "technical metadata alone", lambda s: metadata_features(s.cohort)),
)
"""Guard id, name, words and feature function of each probe, in order."""


def run_probes(
    scan: Scan, groups: Mapping[str, str]
) -> tuple[tuple[ProbeResult, ...], tuple[Finding, ...]]:
    """Every probe that can be run, and a finding for each that alarms or cannot be run."""
    results: list[ProbeResult] = []
    findings: list[Finding] = []
    for guard, name, words, features in PROBES:
        try:
            result = run_probe(name, probe_data(scan.cohort, groups, features(scan)))
        except StatisticUndefined as error:
            findings.append(Finding(guard, Severity.NOTE, f"not probed: {error.found}"))
            continue
        results.append(result)
        if result.alarming:
            findings.append(
                Finding(
                    guard,
                    Severity.REVIEW,
                    f"{words} tells the classes apart: AUC {result.auc:.2f} "
                    f"({result.low:.2f} to {result.high:.2f}, {result.n} patients); "
                    "a network may use the same shortcut",
                    detail={"auc": result.auc, "low": result.low, "high": result.high},
                )
            )
    return tuple(results), tuple(findings)


def shuffled(
    target: npt.NDArray[np.int64], group: Sequence[str], seed: int
) -> npt.NDArray[np.int64]:
    """Classes (P,) dealt anew between groups of equal size, apart from the pictures (L16)."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(group):
        members[name].append(i)
    of_size: dict[int, list[list[int]]] = defaultdict(list)
    for places in members.values():
        of_size[len(places)].append(places)
    out = target.copy()
    for _, blocks in sorted(of_size.items()):
        for to, source in zip(blocks, rng.permutation(len(blocks)), strict=True):
            out[to] = target[blocks[source]]
    return out


@dataclass(frozen=True, slots=True)
class NullResult:
    """AUCs of a whole analysis repeated on shuffled labels."""

    aucs: tuple[float, ...]
    tolerance: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.aucs))

    @property
    def passed(self) -> bool:
        return abs(self.mean - 0.5) <= self.tolerance


def null_test(
    analysis: Callable[[npt.NDArray[np.int64]], float],
    target: npt.NDArray[np.int64],
    group: Sequence[str],
    *,
    shuffles: int = 20,
    tolerance: float = 0.05,
) -> NullResult:
    """L16: an analysis (classes -> AUC) on labels that mean nothing must score one half.

    Labels are shuffled between groups. The mean over shuffles outside 0.5 +- tolerance says that
    the analysis itself lets the answer through: selection on tested data, or parts that overlap.
    """
    aucs = [analysis(shuffled(target, group, seed)) for seed in range(shuffles)]
    return NullResult(tuple(float(a) for a in aucs), tolerance)
