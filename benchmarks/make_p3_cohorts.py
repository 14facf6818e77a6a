"""Two cohorts of simulated patients that share some: P2's question on one, P3's on the other.

P3 starts from P2's networks, and 60 % of its patients may have been P2's. Here the first study asks
benign or malignant of 120 patients, of whom 60 malignant ones have a grade; the second asks low or
high grade of 120, the same 60 among them. Both folders hold cropped frame pairs and are ingested
with one key, so that the shared patients carry the same pseudonyms:

    python benchmarks/make_p3_cohorts.py FOLDER
    renalkit ingest FOLDER/first --key-file FOLDER/key -o COHORTS/p3-first
    renalkit ingest FOLDER/second --key-file FOLDER/key --classes low,high --positive high \\
        -o COHORTS/p3-second

Run: python benchmarks/make_p3_cohorts.py FOLDER [--pairs 8] [--margin 0.2] [--seed 31]
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from renalkit.phantom.covariates import Target
from renalkit.phantom.patients import PatientPlan
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.progress import Silent

N = 120
"""Patients of each study."""
SHARED = 60

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=31)
    given = parser.parse_args()
    parts: dict[str, Path] = {}
    # Graded patients are numbered behind the others: names tell people apart.
    asked: tuple[tuple[str, Target, int, int], ...] = (
        ("classes", "malignancy", N, given.seed),
        ("grades", "grade", 2 * N, given.seed + 1),
    )
    for name, target, count, seed in asked:
        people = PatientPlan(count, seed=seed, target=target)
        plan = PhantomPlan("ceus", people, pairs=given.pairs, margin=given.margin)
        parts[name] = given.folder / name
        make_phantom(plan, parts[name], Silent())
    of_classes, of_grades = (rows(parts[name] / "labels.csv") for name in parts)
    graded = [row for row in of_grades if int(row["patient"][1:]) > N]
    shared = {row["patient"] for row in graded[:SHARED]}
    second = {row["patient"] for row in graded[:N]}
    benign = [r["patient"] for r in of_classes if r["label"] == "benign"]
    malignant = [r["patient"] for r in of_classes if r["label"] == "malignant"]
    first = {*benign, *malignant[: N - SHARED - len(benign)]}
    write(given.folder / "first", (parts["classes"], first), (parts["grades"], shared), "malignant")
    write(given.folder / "second", (parts["classes"], set()), (parts["grades"], second), None)
    print(f"{len(first) + SHARED} and {len(second)} patients, {SHARED} of them in both")


def rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(
    folder: Path,
    classes: tuple[Path, set[str]],
    grades: tuple[Path, set[str]],
    label: str | None,
) -> None:
    """One study: its patients of both folders. label: of the graded ones, None for their grade."""
    folder.mkdir(parents=True, exist_ok=True)
    labels: list[Row] = []
    pairs: list[Row] = []
    for (part, wanted), own in ((classes, None), (grades, label)):
        for table, found in (("labels.csv", labels), ("pairs.csv", pairs)):
            for row in rows(part / table):
                if row["patient"] in wanted:
                    found.append(row | ({} if own is None else {"label": own}))
        for row in pairs:
            for file in (row["bmode"], row["ceus"]):
                if row["patient"] in wanted:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    if not (folder / file).exists():
                        os.link(part / file, folder / file)
    save(folder / "labels.csv", labels)
    save(folder / "pairs.csv", pairs)


def save(path: Path, found: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
