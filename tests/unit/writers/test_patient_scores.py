"""What each fold decided about patients' scores, as a table of the report."""

from __future__ import annotations

from typing import Any

from renalkit.writers.patient_scores import ways_table
from renalkit.writers.source import ReportSource

PLAIN: dict[str, Any] = {
    "kind": "none",
    "asked": "none",
    "n": 0,
    "slope": 1.0,
    "biases": [],
    "at": [],
    "height": [],
    "note": "",
}


def _way(fold: int, rule: str, **more: Any) -> dict[str, Any]:
    base = {"fold": fold, "rule": rule, "n": 19, "losses": {}, "note": "", "prior": None}
    return {**base, "calibration": PLAIN, **more}


def _table(ways: list[dict[str, Any]], classes: tuple[str, ...] = ("benign", "malignant")) -> Any:
    task = {"classes": classes, "positive": classes[1] if len(classes) == 2 else None}
    source = ReportSource("r", {"systems": [], "task": task})
    system = {"label": "net", "classification": {"ways": ways}}
    return ways_table(source, [system])


def test_a_run_whose_folds_decide_nothing_has_no_table() -> None:
    assert _table([]) is None


def test_rules_maps_and_how_often_each_was_chosen() -> None:
    losses = {"mean": 0.61, "attention": 0.52}
    prior = {"imposed": [0.599, 0.401], "wanted": [0.448, 0.552]}
    ways = [
        _way(0, "attention", temperature=0.05, losses=losses),
        _way(1, "mean", losses=losses, prior=prior),
        _way(2, "attention", temperature=0.2, losses={**losses, "attention": None}),
        _way(3, "topk", share=0.2, losses=losses),
        _way(4, "mean", n=4, note="not chosen: 4 validation patients, fewer than 10"),
    ]
    maps = (
        {"kind": "temperature", "slope": 0.5},
        {"kind": "platt", "slope": 1.25},
        {"kind": "isotonic", "height": [0.1, 0.1, 0.7]},
        {"kind": "none", "note": "platt: needs 15"},
    )
    for way, map_ in zip(ways, maps, strict=False):
        way["calibration"] = PLAIN | {"asked": "isotonic"} | map_
    table = _table(ways)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0][2:] == [
        *("attention (temperature 0.05)", "0.520", "\N{EN DASH}"),
        *("temperature 2.00", "19 validation patients"),
    ]
    assert rows[1][2:6] == ["mean", "0.610", "0.40 to 0.55", "Platt, slope 1.25"]
    assert rows[2][3] == "n/a"
    assert [r[5] for r in rows[2:]] == ["isotonic, 2 heights", "none", "\N{EN DASH}"]
    assert rows[3][2] == "topk (share 0.2)"
    assert "attention 2, mean 1 and topk 1" in table.caption
    assert "Shares: what sampling and loss imposed" in table.caption
    assert [note for _, note in table.notes] == [
        "platt: needs 15",
        "not chosen: 4 validation patients, fewer than 10",
    ]


def test_several_classes_show_every_share() -> None:
    prior = {"imposed": [0.25, 0.25, 0.5], "wanted": [0.5, 0.25, 0.25]}
    table = _table([_way(0, "mean", prior=prior)], ("a", "b", "c"))
    assert table.rows[0][4].text == "0.25 / 0.25 / 0.50 to 0.50 / 0.25 / 0.25"
