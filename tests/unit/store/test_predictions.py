"""Predictions on disk: what goes in comes out, older tables load, other tables are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import SampleKey
from renalkit.errors import StoreError
from renalkit.store.predictions import load_predictions, save_predictions


def predictions() -> tuple[Prediction, ...]:
    mask = MaskRLE.encode(np.eye(5, dtype=bool))
    ref = SystemRef("unet", "unet", "0" * 64)
    keys = [SampleKey(f"p-{n:020x}", f"s-{n:020x}", f"l-{n:020x}", 0, 0) for n in range(3)]
    return (
        Prediction(Unit.FRAME, keys[0], (0.25, 0.75), 1, ref, 0, mask, mark_scores=(0.6250001,)),
        Prediction(Unit.FRAME, keys[1], None, None, ref, 0, mask),
        Prediction(Unit.FRAME, keys[2], (0.5, 0.5), 0, ref, 0),
    )


def test_predictions_come_back_equal_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    said = predictions()
    save_predictions(tmp_path / "a.parquet", said)
    save_predictions(tmp_path / "b.parquet", said[::-1])
    assert load_predictions(tmp_path / "a.parquet") == said
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_table_without_scores_of_regions_has_none(tmp_path: Path) -> None:
    save_predictions(tmp_path / "new.parquet", predictions())
    table = pq.read_table(tmp_path / "new.parquet").drop_columns(["mark_scores"])
    pq.write_table(table, tmp_path / "old.parquet")
    old = load_predictions(tmp_path / "old.parquet")
    assert [p.mark_scores for p in old] == [None] * 3
    assert [p.mask for p in old] == [p.mask for p in predictions()]


def test_scores_of_regions_are_probabilities(tmp_path: Path) -> None:
    save_predictions(tmp_path / "a.parquet", predictions())
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    table[0]["mark_scores"] = [1.5]
    schema = pq.read_schema(tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(table, schema=schema), tmp_path / "b.parquet")
    with pytest.raises(StoreError, match="another form"):
        load_predictions(tmp_path / "b.parquet")
