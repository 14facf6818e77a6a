"""Which pictures show the same thing, so that their patients must stay on one side of a split?

Candidates come from one matrix product: correlation of detail fingerprints (32 x 32, smooth part
removed) under the eight flips and right-angle rotations. A candidate is then registered (affine,
enhanced correlation coefficient: Evangelidis and Psarakis, IEEE TPAMI 30 (2008) 1858) on
96 x 96 thumbnails, which separates crops and small shifts of one picture from chance likeness.

How the thresholds were set (benchmarks/check_busi.py: 641 public breast ultrasound pictures; and
120 simulated kidneys, which share one anatomy and so are as alike as strangers get):

- plain correlation of 32 x 32 pictures exceeds 0.8 in 5,000 of 205,120 pairs of strangers, because
  all share the layers from skin to chest wall; of detail it stays below 0.50;
- registered, copies and crops reach 0.95; breast strangers at most 0.57, simulated kidneys 0.71 in
  B-mode and 0.87 in contrast cines (four frames of each): the speckle of two pictures differs even
  where the anatomy agrees. 0.92 lies between;
- different frames of one lesion (detail 0.50 to 0.60) stand out only where strangers are unlike, so
  that rule is relative: so many times what the third most similar patient of most patients has.
  Breast 0.29, such frames 1.9 to 2.0 times that; simulated kidneys 0.48 in B-mode and 0.57 in
  contrast cines, strangers at most 1.6 times that. Where anatomy is uniform it is out of reach,
  and it is off in cohorts too small to tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.cohort_checks.findings import Finding, Severity
from renalkit.cohort_checks.scan import PRINT_SIDE, THUMB_SIDE, Float32, Look, Scan, detail
from renalkit.domain.study import Study

CANDIDATE = 0.40
"""Detail correlation from which a pair is registered."""
ALIKE = 0.50
"""Least detail correlation of two unflipped pictures that links without registration."""
TIMES_STRANGERS = 1.75
"""How many times the background (see `find_likenesses`) such a pair must reach as well."""
REGISTERED = 0.92
"""Correlation after registration that links."""
COPY = 0.90
"""Correlation, direct or registered, from which a pair is called one picture."""
_MARGIN_OF_FLIP = 0.20
_COMMON_MODE_PATIENTS = 8
_BLOCK = 512
_TRIES = 8
_NEAREST = 3
_BACKGROUND_QUANTILE = 0.9
_BACKGROUND_PATIENTS = 30
_NAMES = (
    "as it is",
    "rotated by 90 degrees",
    "rotated by 180 degrees",
    "rotated by 270 degrees",
    "mirrored",
    "mirrored and rotated by 90 degrees",
    "mirrored and rotated by 180 degrees",
    "mirrored and rotated by 270 degrees",
)


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two looks (positions in the scan, first < second) that show the same thing.

    turn: which of the eight flips and rotations of the second fits the first, 0 for none.
    direct and registered are correlations of detail; registered is None when not needed.
    """

    first: int
    second: int
    turn: int
    direct: float
    registered: float | None

    @property
    def score(self) -> float:
        return max(self.direct, self.registered if self.registered is not None else -1.0)

    @property
    def turn_words(self) -> str:
        return _NAMES[self.turn]


def turned(image: npt.NDArray[np.generic], turn: int) -> npt.NDArray[np.generic]:
    """The picture (...,H,W) rotated by turn % 4 right angles, mirrored first when turn >= 4."""
    base = image[..., ::-1] if turn >= 4 else image
    return np.ascontiguousarray(np.rot90(base, turn % 4, axes=(-2, -1)))


def registered_correlation(first: Float32, second: Float32) -> float:
    """Correlation of detail of two thumbnails (K,K) after the best affine alignment, -1 if none.

    The start is the shift of highest cross-correlation; alignments that leave the picture
    (shift of more than a third) or shear it by more than half are not believed.
    """
    pair = [cv2.GaussianBlur(detail(t, 3.0), (0, 0), 0.8) for t in (first, second)]
    if any(float(p.std()) < 0.5 for p in pair):
        return -1.0
    a, b = (np.asarray(p / p.std(), np.float32) for p in pair)
    window = np.outer(np.hanning(THUMB_SIDE), np.hanning(THUMB_SIDE))
    peak = np.fft.ifft2(np.conj(np.fft.fft2(a * window)) * np.fft.fft2(b * window)).real
    y, x = (int(v) for v in np.unravel_index(int(peak.argmax()), peak.shape))
    y, x = (v - THUMB_SIDE if v > THUMB_SIDE // 2 else v for v in (y, x))
    warp = np.eye(2, 3, dtype=np.float32)
    if max(abs(x), abs(y)) < THUMB_SIDE // 3:
        warp[:, 2] = x, y
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    no_mask = np.full(a.shape, 255, np.uint8)
    try:
        value, found = cv2.findTransformECC(a, b, warp, cv2.MOTION_AFFINE, stop, no_mask, 5)
    except cv2.error:  # "did not converge": these two cannot be aligned
        return -1.0
    far = float(np.abs(found[:, 2]).max()) > THUMB_SIDE / 3
    bent = float(np.abs(found[:, :2] - np.eye(2)).max()) > 0.5
    return -1.0 if far or bent else float(value)


def _without_common_mode(looks: Sequence[Look], scan: Scan) -> Float32:
    """Fingerprints (N,S,S) minus what all pictures of one size share (logos, scales, the fan)."""
    prints = np.stack([x.print for x in looks])
    size_of = {
        (s.key, c): (clip.rows, clip.cols)
        for s in scan.cohort.studies
        for c, clip in enumerate(s.clips)
    }
    of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        of_size[size_of[look.study, look.clip]].append(i)
    for at in of_size.values():
        of_patient: dict[str, list[int]] = defaultdict(list)
        for i in at:
            of_patient[looks[i].patient].append(i)
        if len(of_patient) >= _COMMON_MODE_PATIENTS:
            # The median over patients: copies of one picture must not take themselves away.
            means = np.stack([prints[i].mean(axis=0) for i in of_patient.values()])
            prints[at] -= np.median(means, axis=0)
    flat = prints.reshape(len(prints), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.where(length > 0.05, length, np.inf)
    return flat.reshape(-1, PRINT_SIDE, PRINT_SIDE)


_Pair = tuple[int, int, int]
"""Positions of two looks, first < second, and the turn of the second."""


def find_likenesses(scan: Scan, patients: Collection[str] | None = None) -> tuple[Likeness, ...]:
    """Every pair of looks that shows the same thing, sorted by position.

    patients: only pairs in which one of these has a part, and strangers as these see them; all when
    None.

    For each look the best frame of its three most similar other patients is judged. Unflipped
    likeness inside one patient is expected (frames of a cine) and not reported; flipped likeness
    is, because no examination gives mirrored copies. The background of the relative rule is the
    0.9 quantile, over patients with looks of a modality, of the similarity of their looks' most
    alike one to its third most similar patient: many frames are many chances of being alike.

    Work grows with the number of looks times those of the patients asked for (8 x 1024
    multiplications per pair), memory with 512 x N. Of two studies at most the eight most alike
    pairs of frames are judged.
    """
    looks = scan.looks
    if len(looks) < 2:
        return ()
    prints = _without_common_mode(looks, scan)
    patient = np.unique([x.patient for x in looks], return_inverse=True)[1]
    candidates: dict[_Pair, float] = {}
    thirds = np.full(len(looks), np.nan, np.float32)
    within = {x.patient for x in looks} if patients is None else frozenset(patients)
    asked = [k for k, x in enumerate(looks) if x.patient in within]
    for start in range(0, len(asked), _BLOCK):
        rows = np.array(asked[start : start + _BLOCK])
        found, third = _nearest_patients(prints, rows, patient)
        # A pair seen from both sides keeps the value of its first row.
        candidates = found | candidates
        thirds[rows] = third
    alike = _alike(scan, thirds, patient)
    pairs: list[Likeness] = []
    tried: Counter[tuple[str, str, bool]] = Counter()
    # The most alike frames of two cines first: the rest of the two need no further look.
    for (i, j, turn), direct in sorted(candidates.items(), key=lambda c: (-c[1], c[0])):
        a, b = looks[i], looks[j]
        cell = (a.study, b.study, turn > 0)
        if tried[cell] >= _TRIES:
            continue
        tried[cell] += 1
        registered = None
        if direct < COPY:
            second = np.asarray(turned(b.thumb, turn), np.float32)
            registered = registered_correlation(a.thumb.astype(np.float32), second)
            if registered < REGISTERED and (turn or direct < max(alike[i], alike[j])):
                continue
        pairs.append(Likeness(i, j, turn, direct, registered))
    return tuple(sorted(pairs, key=lambda x: (x.first, x.second)))


def _alike(scan: Scan, thirds: Float32, patient: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N,) likeness from which the relative rule links a look; 2, out of reach, where it is off.

    thirds (N,): NaN for looks that were not asked for, which take the rule of their modality.

    A background above 0.57 puts it out of reach as well: strangers tell nothing there.

    B-mode and contrast pictures have each their own background: strangers may be alike in one and
    not in the other, and a mean over both would say neither.
    """
    modes = {(s.key, c): clip.mode for s in scan.cohort.studies for c, clip in enumerate(s.clips)}
    mode = np.array([str(modes[look.study, look.clip]) for look in scan.looks])
    alike = np.full(len(mode), 2.0)
    for name in np.unique(mode):
        own = mode == name
        asked = own & ~np.isnan(thirds)
        known, of = np.unique(patient[asked], return_inverse=True)
        if len(known) < _BACKGROUND_PATIENTS:
            continue
        highest = np.full(len(known), -1.0)
        np.maximum.at(highest, of, thirds[asked])
        background = float(np.quantile(highest, _BACKGROUND_QUANTILE))
        alike[own] = max(ALIKE, TIMES_STRANGERS * background)
    return alike


def _nearest_patients(
    prints: Float32, rows: npt.NDArray[np.int64], patient: npt.NDArray[np.int64]
) -> tuple[dict[_Pair, float], Float32]:
    """Candidates of each row, and its similarity to the third most similar other patient (R,)."""
    plain, direct, best = _best_turns(prints, rows)
    own = patient[rows][:, None] == patient[None]
    flipped = plain < direct - _MARGIN_OF_FLIP
    direct = np.where(own & ~flipped, np.float32(-1), direct)
    order = np.argsort(patient, kind="stable")
    first_of = np.searchsorted(patient[order], np.arange(patient.max() + 1))
    of_patient = np.maximum.reduceat(direct[:, order], first_of, axis=1)
    others = of_patient.copy()
    others[np.arange(len(rows)), patient[rows]] = -1
    ranked = np.argsort(-others, axis=1, kind="stable")[:, :_NEAREST]
    third = others[np.arange(len(rows)), ranked[:, -1]]
    found: dict[_Pair, float] = {}
    for r, i in enumerate(int(v) for v in rows):
        for p in {*ranked[r].tolist(), int(patient[i])}:
            if of_patient[r, p] < CANDIDATE:
                continue
            members = order[first_of[p] : first_of[p] + int((patient == p).sum())]
            j = int(members[direct[r, members].argmax()])
            turn, value = int(best[r, j]), float(direct[r, j])
            # Seen from the other side a quarter turn is the opposite one; mirrors are their own.
            back = (4 - turn) % 4 if turn < 4 else turn
            found[(i, j, turn) if i < j else (j, i, back)] = value
    return found, third


def _best_turns(
    prints: Float32, rows: npt.NDArray[np.int64]
) -> tuple[Float32, Float32, npt.NDArray[np.int8]]:
    """Unturned and best correlation of `rows` with every look, and the best turn.

    Three arrays (R,N); only one turn of the fingerprints is held at a time.
    """
    left = prints[rows].reshape(len(rows), -1)
    plain = left @ prints.reshape(len(prints), -1).T
    direct, best = plain.copy(), np.zeros(plain.shape, np.int8)
    for turn in range(1, 8):
        now = left @ turned(prints, turn).reshape(len(prints), -1).astype(np.float32).T
        higher = now > direct
        np.copyto(direct, now, where=higher)
        np.copyto(best, np.int8(turn), where=higher)
    return plain, direct, best


def connected(items: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Item -> smallest item of its connected component.

    >>> connected("abcd", [("b", "a"), ("c", "b")])
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    parent = {item: item for item in sorted(items)}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {item: root(item) for item in parent}


def groups(scan: Scan, likenesses: Sequence[Likeness]) -> dict[str, str]:
    """Patient -> group: connected by exact copies, likeness or an explicit link (L01)."""
    pairs = list(scan.links)
    first_with: dict[str, str] = {}
    for digest, patient in _digests(scan):
        pairs.append((first_with.setdefault(digest, patient), patient))
    pairs += [(scan.looks[x.first].patient, scan.looks[x.second].patient) for x in likenesses]
    return connected(scan.cohort.patients, pairs)


def _digests(scan: Scan) -> list[tuple[str, str]]:
    """(digest, patient) of every clip and every frame looked at, except pictures without detail."""
    plain = {(x.study, x.clip) for x in scan.looks if not x.print.any()}
    found = [
        (clip.sha256, study.patient)
        for study in scan.cohort.studies
        for c, clip in enumerate(study.clips)
        if (study.key, c) not in plain
    ]
    return found + [(x.frame_sha256, x.patient) for x in scan.looks if x.print.any()]


def _labels(study: Study) -> frozenset[str]:
    known = [lesion.label for lesion in study.lesions] or [study.label]
    return frozenset(label for label in known if label is not None)


def guard_groups(scan: Scan, likenesses: Sequence[Likeness]) -> tuple[Finding, ...]:
    """L01: how many independent groups there are, and whether identities can be trusted."""
    group_of = groups(scan, likenesses)
    sizes: dict[str, int] = defaultdict(int)
    for group in group_of.values():
        sizes[group] += 1
    findings: list[Finding] = []
    merged = [p for p, g in group_of.items() if sizes[g] > 1]
    if merged:
        largest = max(sizes.values())
        giant = largest > max(10, 0.1 * len(group_of))
        findings.append(
            Finding(
                "L01",
                Severity.REVIEW,
                f"{len(merged)} patient keys belong to {len({group_of[p] for p in merged})} groups "
                "that stay on one side of every split"
                + ("; one group is so large that the pictures may share an overlay" * giant),
                patients=tuple(merged),
                detail={"groups": len(sizes), "patients": len(group_of), "largest": largest},
            )
        )
    unknown = [s.key for s in scan.cohort.studies if not s.patient_known]
    if unknown:
        findings.append(
            Finding(
                "L01",
                Severity.NOTE,
                f"{len(unknown)} studies come without a patient: each counts as its own, joined "
                "only by likeness of pictures, so figures per patient are figures per group",
                studies=tuple(unknown),
            )
        )
    return tuple(findings)


def guard_exact(scan: Scan, likenesses: Sequence[Likeness]) -> tuple[Finding, ...]:
    """L02: identical pixels under two patients, or twice with different labels under one."""
    del likenesses
    owners: dict[str, list[Study]] = defaultdict(list)
    plain = {(x.study, x.clip) for x in scan.looks if not x.print.any()}
    by_key = {s.key: s for s in scan.cohort.studies}
    for study in scan.cohort.studies:
        for c, clip in enumerate(study.clips):
            if (study.key, c) not in plain:
                owners[clip.sha256].append(study)
    for look in scan.looks:
        if look.print.any():
            owners[look.frame_sha256].append(by_key[look.study])
    # One still has a clip digest and a frame digest: report each set of studies once.
    sets = {tuple(sorted({s.key for s in studies})) for studies in owners.values()}
    findings: list[Finding] = []
    for keys in sorted(k for k in sets if len(k) > 1):
        studies = [by_key[k] for k in keys]
        patients = {s.patient for s in studies}
        conflict = _contradict(studies)
        if len(patients) == 1 and not conflict:
            continue
        who = "two patients" if len(patients) == 2 else f"{len(patients)} patients"
        findings.append(
            Finding(
                "L02",
                Severity.BLOCK if conflict else Severity.NOTE,
                f"identical pictures under {who if len(patients) > 1 else 'one patient'}"
                + (" with different labels" if conflict else ": kept in one group"),
                studies=keys,
                patients=tuple(patients),
            )
        )
    return tuple(findings)


def _contradict(studies: Sequence[Study]) -> bool:
    labels = [_labels(s) for s in studies]
    known = [x for x in labels if x]
    return any(a != b for a in known for b in known)


def guard_near(scan: Scan, likenesses: Sequence[Likeness]) -> tuple[Finding, ...]:
    """L03: the same picture or lesion under several patients, one finding per cluster."""
    by_key = {s.key: s for s in scan.cohort.studies}
    across = [x for x in likenesses if scan.looks[x.first].patient != scan.looks[x.second].patient]
    across = [
        x for x in across if scan.looks[x.first].frame_sha256 != scan.looks[x.second].frame_sha256
    ]
    pairs = [(scan.looks[x.first].study, scan.looks[x.second].study) for x in across]
    cluster_of = connected({k for pair in pairs for k in pair}, pairs)
    clusters: dict[str, list[Likeness]] = defaultdict(list)
    for x in across:
        clusters[cluster_of[scan.looks[x.first].study]].append(x)
    findings: list[Finding] = []
    for root, found in sorted(clusters.items()):
        studies = [by_key[k] for k, r in cluster_of.items() if r == root]
        conflict = _contradict(studies)
        weakest = min(found, key=lambda x: x.score)
        how = "one picture" if weakest.score >= COPY else "the same view"
        turns = {x.turn_words for x in found if x.turn}
        words = f"{len(studies)} studies of {len({s.patient for s in studies})} patients show {how}"
        words += f" ({', '.join(sorted(turns))})" if turns else ""
        words += ", with different labels" if conflict else ": kept in one group"
        findings.append(
            Finding(
                "L03",
                Severity.BLOCK if conflict else Severity.REVIEW,
                words,
                studies=tuple(s.key for s in studies),
                patients=tuple(s.patient for s in studies),
                detail={"pairs": len(found), "weakest": round(weakest.score, 3)},
            )
        )
    return tuple(findings)


def guard_augmented(scan: Scan, likenesses: Sequence[Likeness]) -> tuple[Finding, ...]:
    """L04: mirrored or rotated copies: somebody augmented before the split."""
    turned_pairs = [x for x in likenesses if x.turn and x.score >= REGISTERED]
    if not turned_pairs:
        return ()
    looks = [scan.looks[i] for x in turned_pairs for i in (x.first, x.second)]
    across = any(scan.looks[x.first].patient != scan.looks[x.second].patient for x in turned_pairs)
    kinds = sorted({x.turn_words for x in turned_pairs})
    return (
        Finding(
            "L04",
            Severity.BLOCK if across else Severity.REVIEW,
            f"{len(turned_pairs)} pairs of pictures are copies of one another "
            f"({', '.join(kinds)}): import the pictures as they came from the "
            "machine; augmentation belongs in training",
            studies=tuple(x.study for x in looks),
            patients=tuple(x.patient for x in looks),
            detail={"pairs": len(turned_pairs)},
        ),
    )
