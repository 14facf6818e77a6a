"""Do labels, outlines and counts agree with themselves?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.stats import chi2, fisher_exact

from renalkit.cohort_checks.findings import Finding, Severity
from renalkit.cohort_checks.scan import Scan
from renalkit.domain.cohort import study_label
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.study import Lesion, Study

_OUTLYING_Z = 5.0
_SPECK_PX = 16
_SPECK_SHARE = 0.01
_STRONG_V = 0.3
_SURE_P = 0.01
_PERMUTATIONS = 2000


def _patient_studies(scan: Scan) -> dict[str, list[Study]]:
    found: dict[str, list[Study]] = defaultdict(list)
    for study in scan.cohort.studies:
        found[study.patient].append(study)
    return found


def guard_frames_per_patient(scan: Scan) -> tuple[Finding, ...]:
    """L10: several pictures per patient: figures per picture overstate how much is known."""
    frames = {
        p: sum(c.n_frames for s in studies for c in s.clips)
        for p, studies in _patient_studies(scan).items()
    }
    counts = np.array(list(frames.values()))
    if len(counts) == 0 or counts.max() == 1:
        return ()
    middle, total = float(np.median(counts)), int(counts.sum())
    heavy = tuple(
        p for p, n in frames.items() if n > 10 * middle or (n > 0.25 * total and len(frames) >= 8)
    )
    words = (
        f"{total} pictures of {len(counts)} patients (median {middle:g}, at most {counts.max()}): "
        "only figures per patient or per lesion have intervals"
    )
    if heavy:
        words += f"; {len(heavy)} patients outweigh the others, weight or thin their pictures"
    severity = Severity.REVIEW if heavy else Severity.NOTE
    detail = {"pictures": total, "patients": len(counts), "largest": int(counts.max())}
    return (Finding("L10", severity, words, patients=heavy, detail=detail),)


def guard_lesions_per_patient(scan: Scan) -> tuple[Finding, ...]:
    """L11: several lesions per patient; both kidneys or two classes need a rule beforehand."""
    several: list[str] = []
    bilateral: list[str] = []
    for patient, studies in _patient_studies(scan).items():
        lesions = {lesion.key: lesion for s in studies for lesion in s.lesions}
        if len(lesions) > 1:
            several.append(patient)
            if len({le.side for le in lesions.values() if le.side is not None}) > 1:
                bilateral.append(patient)
    if not several:
        return ()
    words = f"{len(several)} patients have several lesions"
    if bilateral:
        words += f", {len(bilateral)} of them in both kidneys"
    words += ": lesions of one patient stay together, figures per lesion need clustered intervals"
    severity = Severity.REVIEW if bilateral else Severity.NOTE
    return (Finding("L11", severity, words, patients=tuple(several)),)


def guard_patient_labels(scan: Scan) -> tuple[Finding, ...]:
    """Q01: one patient in two classes; a contradiction unless different lesions explain it."""
    findings: list[Finding] = []
    for patient, studies in sorted(_patient_studies(scan).items()):
        of_lesion: dict[str, set[str]] = defaultdict(set)
        for study in studies:
            for lesion in study.lesions:
                if lesion.label is not None:
                    of_lesion[lesion.key].add(lesion.label)
        whole = {s.label for s in studies if s.label is not None}
        labels = whole.union(*of_lesion.values()) if of_lesion else whole
        if len(labels) < 2:
            continue
        names = ", ".join(sorted(labels))
        if len(whole) > 1 or any(len(found) > 1 for found in of_lesion.values()):
            words = f"a patient is in several classes ({names}) without different lesions"
            severity = Severity.BLOCK
        else:
            words = f"a patient has lesions or studies of several classes ({names}): per-patient "
            words += "figures need a rule"
            severity = Severity.REVIEW
        findings.append(Finding("Q01", severity, words, tuple(s.key for s in studies), (patient,)))
    return tuple(findings)


def guard_frame_labels(scan: Scan) -> tuple[Finding, ...]:
    """Q02: one frame with lesions of two classes has no class of its own."""
    found: dict[str, str] = {}
    for study in scan.cohort.studies:
        on: dict[tuple[int, int], set[str]] = defaultdict(set)
        for lesion in study.lesions:
            for roi in lesion.rois:
                if lesion.label is not None:
                    on[roi.clip, roi.frame].add(lesion.label)
        if any(len(labels) > 1 for labels in on.values()):
            found[study.key] = study.patient
    if not found:
        return ()
    words = f"{len(found)} studies have frames with lesions of several classes: those frames are "
    words += "used for outlines, not for classes"
    return (Finding("Q02", Severity.REVIEW, words, tuple(found), tuple(found.values())),)


def _outlines(scan: Scan) -> list[tuple[Study, Lesion, MaskRLE]]:
    return [
        (study, lesion, roi.mask)
        for study in scan.cohort.studies
        for lesion in study.lesions
        for roi in lesion.rois
        if roi.mask is not None
    ]


def guard_masks(scan: Scan) -> tuple[Finding, ...]:
    """Q03: outlines that are empty, outlying in area, touch every side, or hold specks."""
    outlines = _outlines(scan)
    if not outlines:
        return ()
    areas = np.array([m.area_px / (m.rows * m.cols) for _, _, m in outlines])
    problems: dict[str, list[Study]] = defaultdict(list)
    logs = np.log(np.where(areas > 0, areas, np.nan))
    middle = float(np.nanmedian(logs)) if (areas > 0).any() else 0.0
    # 1.4826 x median absolute deviation estimates the standard deviation of a normal sample; the
    # floor keeps a cohort of equal outlines from calling every rounding an outlier.
    spread = (
        max(1.4826 * float(np.nanmedian(np.abs(logs - middle))), 0.2) if (areas > 0).any() else 1
    )
    for (study, _, mask), share, log in zip(outlines, areas, logs, strict=True):
        if share == 0:
            problems["empty"].append(study)
            continue
        if abs(log - middle) > _OUTLYING_Z * spread or share > 0.9:
            problems["outlying in area"].append(study)
        inside = mask.decode()
        if all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1])):
            problems["touching all four sides"].append(study)
        n, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
        parts = stats[1:, cv2.CC_STAT_AREA]
        limit = max(_SPECK_PX, _SPECK_SHARE * mask.area_px)
        if n > 2 and (parts[parts < parts.max()] < limit).any():
            problems["with specks"].append(study)
        elif parts.max() < _SPECK_PX:
            problems["smaller than a speck"].append(study)
    return tuple(
        Finding(
            "Q03",
            Severity.NOTE if kind == "with specks" else Severity.REVIEW,
            f"{len(studies)} of {len(outlines)} outlines are {kind}",
            tuple(s.key for s in studies),
            tuple(s.patient for s in studies),
        )
        for kind, studies in problems.items()
    )


def guard_scale(scan: Scan) -> tuple[Finding, ...]:
    """Q04: how many pictures have no known scale, and whether that depends on the class."""
    without = [
        s
        for s in scan.cohort.studies
        if any(c.spacing_mm is None and not any(r.spacing_mm for r in c.regions) for c in s.clips)
    ]
    if not without:
        return ()
    total = len(scan.cohort.studies)
    words = (
        f"{len(without)} of {total} studies have no known scale: sizes are given in pixels there"
    )
    gone = {s.key for s in without}
    pairs = [
        (label, "unknown" if s.key in gone else "known")
        for s in scan.cohort.studies
        if (label := study_label(s)) is not None
    ]
    v, p = association(pairs)
    severity = Severity.NOTE
    if v > _STRONG_V and p < _SURE_P:
        words += f"; it depends on the class (Cramér's V {v:.2f})"
        severity = Severity.REVIEW
    return (Finding("Q04", severity, words, tuple(gone), detail={"share": len(without) / total}),)


def association(pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Bias-corrected Cramér's V (Bergsma, J. Korean Stat. Soc. 42 (2013) 323) and p of a table.

    p is Fisher's exact test for 2 x 2 tables, else a chi-squared test; with expected counts below
    five it comes from 2000 permutations. (0, 1) when either side has one value.

    >>> round(association([("a", "x"), ("b", "y")] * 50)[0], 2)
    1.0
    """
    rows, columns = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    if len(rows) < 2 or len(columns) < 2:
        return 0.0, 1.0
    counts = Counter(pairs)
    table = np.array([[counts[a, b] for b in columns] for a in rows])
    n, r, k = int(table.sum()), len(rows), len(columns)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    statistic = float(((table - expected) ** 2 / expected).sum())
    phi2 = max(0.0, statistic / n - (r - 1) * (k - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    v = float(np.sqrt(phi2 / smaller)) if smaller > 0 else 0.0
    if (r, k) == (2, 2):
        p = float(np.asarray(fisher_exact(table))[1])
    elif expected.min() >= 5:
        p = float(chi2.sf(statistic, (r - 1) * (k - 1)))
    else:
        rng = np.random.default_rng(0)
        a = np.array([rows.index(x) for x, _ in pairs])
        b = np.array([columns.index(y) for _, y in pairs])
        reached = 0
        for _ in range(_PERMUTATIONS):
            drawn = np.bincount(a * k + rng.permutation(b), minlength=r * k).reshape(r, k)
            reached += float(((drawn - expected) ** 2 / expected).sum()) >= statistic - 1e-9
        p = (1 + reached) / (1 + _PERMUTATIONS)
    return v, p


def guard_confounding(scan: Scan) -> tuple[Finding, ...]:
    """L09: whether the class goes with the machine or the site (units: patients)."""
    findings: list[Finding] = []
    for what in ("site", "scanner"):
        seen: dict[tuple[str, str], str] = {}
        for study in scan.cohort.studies:
            label = study_label(study)
            place = (study.site or "unknown") if what == "site" else study.scanner.name
            if label is not None:
                seen[study.patient, place] = label
        pairs = [(label, place) for (_, place), label in seen.items()]
        places = sorted({place for _, place in pairs})
        if len(places) < 2:
            continue
        v, p = association(pairs)
        counts = Counter(pairs)
        table = "; ".join(
            f"{place}: " + ", ".join(f"{counts[c, place]} {c}" for c in scan.cohort.task.classes)
            for place in places
        )
        strong = v > _STRONG_V and p < _SURE_P
        words = f"class and {what} are confounded" if strong else f"classes by {what}"
        findings.append(
            Finding(
                "L09",
                Severity.REVIEW if strong else Severity.NOTE,
                f"{words} (Cramér's V {v:.2f}, p {p:.2g}): {table}",
                detail={"cramers_v": v, "p": p},
            )
        )
    return tuple(findings)


def guard_marks(scan: Scan) -> tuple[Finding, ...]:
    """L07: pictures with burned-in calipers, letters or coloured strokes, and in which classes."""
    marked = {(x.study, x.patient) for x in scan.looks if x.marks.any}
    if not marked:
        return ()
    studies = {s for s, _ in marked}
    pairs = [
        (label, "marked" if s.key in studies else "clean")
        for s in scan.cohort.studies
        if (label := study_label(s)) is not None
    ]
    v, p = association(pairs)
    counts, totals = Counter(pairs), Counter(label for label, _ in pairs)
    shares = ", ".join(
        f"{counts[c, 'marked']} of {totals[c]} {c}" for c in scan.cohort.task.classes if totals[c]
    )
    carry = "1 study carries" if len(studies) == 1 else f"{len(studies)} studies carry"
    words = f"{carry} burned-in marks ({shares})"
    if p < _SURE_P:
        words += f"; marks go with the class (p {p:.2g}), so a network can read them"
    return (
        Finding(
            "L07",
            Severity.REVIEW,
            words,
            tuple(studies),
            tuple(patient for _, patient in marked),
            {"studies": len(studies), "cramers_v": v, "p": p},
        ),
    )


def guard_exclusions(scan: Scan) -> tuple[Finding, ...]:
    """L15: whether studies were left out more often in one class than in another."""
    pairs = [(x.label, "excluded") for x in scan.cohort.exclusions if x.label is not None]
    pairs += [
        (label, "included") for s in scan.cohort.studies if (label := study_label(s)) is not None
    ]
    _, p = association(pairs)
    if p >= _SURE_P:
        return ()
    counts, totals = Counter(pairs), Counter(label for label, _ in pairs)
    shares = ", ".join(
        f"{counts[c, 'excluded']} of {totals[c]} {c}" for c in scan.cohort.task.classes
    )
    words = f"exclusions depend on the class (p {p:.2g}): {shares}"
    return (Finding("L15", Severity.REVIEW, words, detail={"p": p}),)
