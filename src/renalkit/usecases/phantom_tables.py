"""Which tables does a phantom cohort have, and what is a row of each?

    labels.csv         class, site and covariates, per patient or per picture
    boxes.csv          the true box of the mass, per frame
    regions.csv        of clips: the same, and a square of cortex to compare with
    readings.csv       score and vote, per reader and patient
    reader_boxes.csv   box and outline, per reader and still
    pairs.csv          cropped frame pairs
    lesions.csv        CT: class and histology, per lesion
    truth/patients.csv

Rows are written one by one, so memory does not grow with a clip or a cohort.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from renalkit.domain.geometry import Box
from renalkit.store.files import text_file
from renalkit.usecases.phantom_plans import PhantomPlan

Row = Mapping[str, Any]
Add = Callable[[Row], None]


@contextmanager
def table_file(path: Path) -> Generator[Add]:
    """A CSV file that takes rows of equal keys; it appears when the block is done, if it has any.

    None is an empty cell; the values of a tuple are separated by spaces.

    Raises:
        StoreError: the disk refused.
    """
    with ExitStack() as stack:
        writer: csv.DictWriter[str] | None = None

        def add(row: Row) -> None:
            nonlocal writer
            if writer is None:
                text = stack.enter_context(text_file(path))
                writer = csv.DictWriter(text, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow({name: _cell(value) for name, value in row.items()})

        yield add


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def box_row(file: str, frame: int, box: Box, lesion: str = "1") -> dict[str, Any]:
    """A box as `renalkit ingest --annotations` reads it."""
    return {
        "file": file,
        "frame": frame,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "lesion": lesion,
    }


def renamed(file: str, patient: str, name: str) -> str:
    """The path of the same file of a patient's copy."""
    return file.replace(f"/{patient}", f"/{name}", 1)


def join_tables(parts: Iterable[Path], whole: Path) -> None:
    """Put the patients' tables of one kind under one head; parts that do not exist are left out."""
    with ExitStack() as stack:
        into = None
        for part in parts:
            if not part.is_file():
                continue
            with part.open(encoding="utf-8", newline="") as lines:
                head = next(lines)
                if into is None:
                    into = stack.enter_context(text_file(whole))
                    into.write(head)
                into.writelines(lines)


def label_rows(plan: PhantomPlan, record: Row) -> Iterator[Row]:
    """Lines of the label table: per picture for pictures, else per patient."""
    facts = _label_facts(plan, record)
    for name in record["copies"]:
        if not plan.pictures:
            yield {"patient": name} | facts
            continue
        for image in record["images"]:
            scale = 10 if record["faults"]["wrong_units"] else 1
            mask = image["mask"] and renamed(image["mask"], record["patient"], name)
            yield {
                "patient": name,
                "image": renamed(image["file"], record["patient"], name),
                "mask": mask,
                "spacing_mm": round(scale * image["mm_per_px"], 6),
                "manufacturer": "Phantom",
                "model": record["scanner"]["name"],
            } | facts


def _label_facts(plan: PhantomPlan, record: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"label": record["written_label"], "site": record["site"]}
    if plan.kind != "ct":
        lesion = record["anatomy"]["lesion"]
        facts |= {
            "side": record["anatomy"]["side"],
            "size_mm": None if lesion is None else round(lesion["size_mm"], 1),
            "histology": record["histology"],
            "grade": record["grade"],
            "grade_system": None if record["grade"] is None else "WHO_ISUP",
        }
    first = {name: record["covariates"][name] for name in ("age", "sex", "bmi", "symptoms")}
    return facts | first | dict(record["covariates"])


def lesion_rows(plan: PhantomPlan, record: Row) -> Iterator[Row]:
    """Lines of lesions.csv: the lesions of a CT scan by the numbers they are drawn with."""
    if plan.kind != "ct":
        return
    for name in record["copies"]:
        for lesion in record["lesions"]:
            yield {
                "patient": name,
                "lesion": lesion["number"],
                "label": lesion["lesion_class"],
                "histology": lesion["histology"],
            }


def truth_row(plan: PhantomPlan, record: Row) -> Row:
    """Line of truth/patients.csv. faults: names, separated by spaces."""
    row: dict[str, Any] = {"patient": record["patient"], "label": record["label"]}
    if plan.kind != "ct":
        ideal = record["ideal"] or {}
        row |= {"histology": record["histology"], "grade": record["grade"]}
        row |= {f"ideal_{name}": ideal.get(name) for name in ("bmode", "ceus", "both")}
    names = sorted(name for name, value in record["faults"].items() if value)
    return row | {"faults": " ".join(names)}


def reading_rows(record: Row) -> Iterator[Row]:
    """Lines of readings.csv."""
    columns = ("reader", "group", "score", "vote", "confidence")
    for name in record["copies"]:
        for reading in record.get("readings", ()):
            yield {"patient": name} | {column: reading[column] for column in columns}


def pair_rows(record: Row) -> Iterator[Row]:
    """Lines of pairs.csv."""
    columns = ("pair", "bmode", "ceus", "time_s", "clock_s")
    for pair in record.get("ceus", {}).get("pairs", ()):
        yield {"patient": pair["patient"], "label": record["written_label"]} | {
            column: pair[column] for column in columns
        }
