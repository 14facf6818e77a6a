"""How predictions lie on disk: one Parquet table per fold and part, the source of every figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Mode
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import SampleKey
from renalkit.domain.study import RoiOrigin
from renalkit.errors import StoreError
from renalkit.store.files import write_with


def schema() -> Any:
    """Columns of a table, a `pyarrow.Schema`.

    pyarrow is large and comes with the extra 'study': it is imported where tables are touched.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("unit", pa.string()),
            ("patient", pa.string()),
            ("study", pa.string()),
            ("lesion", pa.string()),
            ("clip", pa.int32()),
            ("frame", pa.int32()),
            ("target", pa.int32()),
            ("scores", pa.list_(pa.float64())),
            ("mask", pa.string()),
            ("mark_scores", pa.list_(pa.float64())),
            ("roi_origin", pa.string()),
            ("fold", pa.int32()),
            ("system", pa.string()),
            ("label", pa.string()),
            ("weights_sha256", pa.string()),
            ("modality_weights", pa.list_(pa.float64())),
            ("modalities", pa.list_(pa.string())),
        ]
    )


def _row(p: Prediction) -> dict[str, Any]:
    return {
        "unit": p.unit.word,
        "patient": p.key.patient,
        "study": p.key.study,
        "lesion": p.key.lesion,
        "clip": p.key.clip,
        "frame": p.key.frame,
        "target": p.target,
        "scores": None if p.scores is None else list(p.scores),
        "mask": None if p.mask is None else p.mask.text,
        "mark_scores": None if p.mark_scores is None else list(p.mark_scores),
        "roi_origin": p.roi_origin.value,
        "fold": p.fold,
        "system": p.system.name,
        "label": p.system.label,
        "weights_sha256": p.system.weights_sha256,
        "modality_weights": None if p.modality_weights is None else list(p.modality_weights),
        "modalities": None if p.modalities is None else list(p.modalities),
    }


def save_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions sorted by key, whole or not at all; equal content gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(p) for p in sorted(predictions, key=lambda p: (p.system.label, p.key))]
    table = pa.Table.from_pylist(rows, schema=schema())
    write_with(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def load_predictions(path: Path) -> tuple[Prediction, ...]:
    """The predictions of a table; StoreError when it is damaged or of another form.

    Columns that tables of earlier versions do not have are None.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "remove the fold folder and run the experiment again; other folds are kept"
    try:
        table = pq.read_table(path, schema=schema())
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"unreadable predictions ({type(error).__name__})", where=path.name, remedy=remedy
        ) from error
    try:
        return tuple(_prediction(row) for row in table.to_pylist())
    except (ValueError, KeyError) as error:
        raise StoreError(
            f"predictions of another form ({error})", where=path.name, remedy=remedy
        ) from error


def _prediction(row: dict[str, Any]) -> Prediction:
    return Prediction(
        unit=Unit[row["unit"].upper()],
        key=SampleKey(row["patient"], row["study"], row["lesion"], row["clip"], row["frame"]),
        scores=_tuple(row["scores"]),
        target=row["target"],
        system=SystemRef(row["system"], row["label"], row["weights_sha256"]),
        fold=row["fold"],
        mask=None if row["mask"] is None else MaskRLE.parse(row["mask"]),
        roi_origin=RoiOrigin(row["roi_origin"]),
        mark_scores=_tuple(row["mark_scores"]),
        modality_weights=_tuple(row["modality_weights"]),
        modalities=None if row["modalities"] is None else tuple(map(Mode, row["modalities"])),
    )


def _tuple(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
