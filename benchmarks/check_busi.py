"""How many of BUSI's duplicate groups does the check find without being told?

Ground truth is the manifest's group_id and group_mixed_labels, read only after the check has run.
The manifest's groups were made by correlation above 0.95 of 32 x 32 pictures, so a pair the check
links and the manifest does not is not necessarily wrong: such pairs are listed for inspection.

Run: RENALKIT_DATA=... python benchmarks/check_busi.py [--json OUT.json]
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.usecases.check import check

ROOT = Path(__file__).resolve().parents[1]
BUSI = Path(os.environ.get("RENALKIT_DATA", ROOT / "../shared/data")) / "busi"


def key(prefix: str, name: str) -> str:
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def load_busi() -> tuple[Cohort, list[dict[str, str]]]:
    """The packed images as one study each; every image is its own patient."""
    with (BUSI / "manifest.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["packed"] == "1"]
    studies = []
    for row in rows:
        with Image.open(BUSI / row["image"]) as image:
            pixels = np.asarray(image)[None]
        name = row["case_id"]
        source = Source(hashlib.sha256(name.encode()).hexdigest(), name[:1] * 8, "still")
        clip = Clip(pixels, pixel_sha256(pixels), Mode.B, source)
        lesions, label = (), row["label"]
        if row["mask"]:
            with Image.open(BUSI / row["mask"]) as mask:
                roi = Roi(0, 0, MaskRLE.encode(np.asarray(mask)))
            lesions, label = (Lesion(key("l", name), row["label"], rois=(roi,)),), None
        studies.append(
            Study(key("s", name), key("p", name), (clip,), lesions, label, patient_known=False)
        )
    task = ClassTask(("benign", "malignant", "normal"))
    return Cohort("busi", task, tuple(studies)), rows


def pairs_of(cluster: dict[str, str]) -> set[tuple[str, str]]:
    """All pairs of names in one cluster."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, group in cluster.items():
        members[group].append(name)
    return {pair for names in members.values() for pair in combinations(sorted(names), 2)}


def main() -> None:
    if not BUSI.exists():
        sys.exit(f"no data at {BUSI}: set RENALKIT_DATA")
    cohort, rows = load_busi()
    start = time.perf_counter()
    report = check(cohort, frozenset())
    seconds = time.perf_counter() - start
    name_of = {key("p", r["case_id"]): r["case_id"] for r in rows}
    found = {name_of[p]: g for p, g in report.groups.items()}
    truth = {r["case_id"]: r["group_id"] for r in rows}
    label = {r["case_id"]: r["label"] for r in rows}
    true_pairs, found_pairs = pairs_of(truth), pairs_of(found)
    sizes = Counter(truth.values())
    multi = [g for g, n in sizes.items() if n > 1]
    members = {g: [c for c, t in truth.items() if t == g] for g in multi}
    whole = [g for g in multi if len({found[c] for c in members[g]}) == 1]
    mixed = {r["group_id"] for r in rows if r["group_mixed_labels"] == "1"}
    blocked = {
        name_of[p]
        for f in report.findings
        if f.guard in ("L02", "L03") and f.severity == "block"
        for p in f.patients
    }
    contradictory = [g for g in mixed if set(members[g]) <= blocked]
    found_multi = {g for g, n in Counter(found.values()).items() if n > 1}
    touching = {found[c] for g in multi for c in members[g]} & found_multi
    numbers = {
        "images": len(rows),
        "seconds": round(seconds, 1),
        "multi_image_groups": len(multi),
        "multi_image_groups_found": len(whole),
        "contradictory_groups": len(mixed),
        "contradictory_groups_found": len(contradictory),
        "pair_recall": round(len(true_pairs & found_pairs) / len(true_pairs), 4),
        "pair_precision_against_manifest": round(
            len(true_pairs & found_pairs) / len(found_pairs), 4
        ),
        "groups_found": len(found_multi),
        "group_recall": round(len(whole) / len(multi), 4),
        "group_precision_against_manifest": round(len(touching) / len(found_multi), 4),
    }
    print(json.dumps(numbers, indent=2))
    print("linked by the check, not by the manifest:")
    for a, b in sorted(found_pairs - true_pairs):
        print(f"  {a} {b}" + (" DIFFERENT LABELS" if label[a] != label[b] else ""))
    print("\n".join(report.to_table().splitlines()))
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(
            json.dumps(numbers, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
