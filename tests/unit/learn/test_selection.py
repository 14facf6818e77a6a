"""Which epoch is kept and when training stops, on hand-written histories."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.learn.options import Monitor, TrainOptions
from renalkit.learn.selection import (
    EpochRow,
    best_row,
    epochs_without_gain,
    history_csv,
    should_stop,
)

NAN = math.nan


def _rows(
    losses: list[float], ious: list[float], aucs: list[float] | None = None
) -> list[EpochRow]:
    aucs = [NAN] * len(losses) if aucs is None else aucs
    return [
        EpochRow(i + 1, 1e-3, 1.0, NAN, NAN, loss, iou, iou, 0.5, auc, 2.0)
        for i, (loss, iou, auc) in enumerate(zip(losses, ious, aucs, strict=True))
    ]


ROWS = _rows([5, 3, 4, 2, 6], [0.1, 0.2, 0.4, 0.3, 0.4], [NAN, 0.9, 0.7, 0.9, 0.8])


@pytest.mark.parametrize(
    ("monitor", "segments", "best"),
    [
        ("loss", True, 3),
        ("iou", True, 2),  # tie with the last: the lower loss decides
        ("auc", True, 3),  # tie with the second: the lower loss decides
        ("accuracy", True, 3),
        ("loss+iou", True, 2),
        ("loss+iou", False, 3),
    ],
)
def test_the_best_epoch(monitor: Monitor, segments: bool, best: int) -> None:
    assert best_row(ROWS, monitor, segments) == best


def test_ties_in_everything_go_to_the_earliest() -> None:
    assert best_row(_rows([1, 1, 1], [0.5, 0.5, 0.5]), "iou", True) == 0


def test_an_undefined_figure_leaves_it_to_the_loss() -> None:
    assert best_row(_rows([3, 1, 2], [NAN] * 3), "auc", False) == 1


def test_without_validation_the_last_epoch_counts_and_nothing_stops_early() -> None:
    rows = _rows([NAN] * 5, [NAN] * 5)
    assert best_row(rows, "loss", True) == 4
    assert not should_stop(rows, TrainOptions(epochs=6, patience=1), True)
    assert should_stop(rows, TrainOptions(epochs=5, patience=1), True)


def test_p1_waits_for_either_loss_or_iou() -> None:
    assert epochs_without_gain(ROWS, "loss+iou", True) == 1  # loss fell in the fourth of five
    assert epochs_without_gain(ROWS, "iou", True) == 2
    assert epochs_without_gain(ROWS, "loss", True) == 1


def test_patience_and_shortest_training() -> None:
    rows = _rows([1, 2, 2, 2], [0.5, 0.1, 0.1, 0.1])
    assert should_stop(rows, TrainOptions(patience=3), True)
    assert not should_stop(rows, TrainOptions(patience=4), True)
    assert not should_stop(rows, TrainOptions(patience=3, min_epochs=5), True)


numbers = st.floats(0, 1) | st.just(NAN)


@given(
    st.lists(st.tuples(st.floats(0, 9), numbers, numbers), min_size=1, max_size=20),
    st.sampled_from(["loss", "iou", "auc", "accuracy", "loss+iou"]),
)
def test_the_choice_only_changes_when_an_epoch_beats_it(
    figures: list[tuple[float, float, float]], monitor: Monitor
) -> None:
    rows = _rows(*[list(column) for column in zip(*figures, strict=True)])
    best = [best_row(rows[: n + 1], monitor, True) for n in range(len(rows))]
    assert all(b in (a, n + 1) for n, (a, b) in enumerate(zip(best, best[1:], strict=False)))


@given(st.floats(0, 1) | st.just(NAN), st.floats(0, 100))
def test_rows_survive_json(iou: float, loss: float) -> None:
    row = _rows([loss], [iou])[0]
    again = EpochRow.from_dict(row.as_dict())
    assert repr(again) == repr(row)


def test_csv_has_a_header_and_empty_cells() -> None:
    lines = history_csv(ROWS[:1]).splitlines()
    assert lines[0].split(",")[:3] == ["epoch", "lr", "train_loss"]
    assert lines[1] == "1,0.001,1,,,5,0.1,0.1,0.5,,2,,,"
