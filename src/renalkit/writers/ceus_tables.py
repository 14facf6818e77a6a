"""How are figures and curves of a contrast cine written as tables and plain values?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.maps import MapSummary
from renalkit.ceus.perfusion import CurveFit, Figure, FitOptions, NoBolus, Perfusion
from renalkit.writers.csv_table import csv_text


def figure_rows(perfusion: Perfusion) -> list[tuple[Any, ...]]:
    """Rows of region, figure, unit, value, low, high, reason; ratios and differences as regions
    named "lesion / cortex" and "lesion - cortex"."""
    rows: list[tuple[Any, ...]] = []
    for region, fit in perfusion.curves.items():
        if isinstance(fit, NoBolus):
            rows.append((region, "", "", None, None, None, fit.reason))
            continue
        rows += [_row(region, figure) for figure in fit.figures.values()]
    for c in perfusion.comparisons:
        rows += [_row(f"{c.of} / {c.reference}", figure) for figure in c.ratios.values()]
        rows += [_row(f"{c.of} - {c.reference}", figure) for figure in c.differences.values()]
    return rows


def figures_csv(perfusion: Perfusion) -> str:
    """`figure_rows` as a file."""
    return csv_text(
        ("region", "figure", "unit", "value", "low", "high", "reason"), figure_rows(perfusion)
    )


def curve_rows(
    curves: Mapping[str, RoiCurve], perfusion: Perfusion
) -> tuple[list[str], list[list[Any]]]:
    """Head and a row per frame: its time, and power, whether it counts, white share and fit of
    each region."""
    head = ["frame", "time_s"]
    columns: list[npt.NDArray[Any]] = []
    for name, curve in curves.items():
        head += [f"{name}_power", f"{name}_kept", f"{name}_white", f"{name}_fit"]
        fit = perfusion.curves.get(name)
        fitted = fit.fitted if isinstance(fit, CurveFit) else np.full(curve.times_s.size, np.nan)
        columns += [curve.power, curve.kept.astype(int), curve.saturated, fitted]
    times = next(iter(curves.values())).times_s
    rows = [
        [frame, float(time), *(column[frame].item() for column in columns)]
        for frame, time in enumerate(times)
    ]
    return head, rows


def curves_csv(curves: Mapping[str, RoiCurve], perfusion: Perfusion) -> str:
    """`curve_rows` as a file."""
    return csv_text(*curve_rows(curves, perfusion))


def map_rows(summaries: Sequence[MapSummary]) -> list[dict[str, Any]]:
    """Middle and spread of each map over each region, as plain values."""
    return [asdict(summary) for summary in summaries]


def maps_csv(summaries: Sequence[MapSummary]) -> str:
    """`map_rows` as a file."""
    rows = map_rows(summaries)
    head = list(MapSummary.__slots__)
    return csv_text(head, [[row[name] for name in head] for row in rows])


def plain(perfusion: Perfusion) -> dict[str, Any]:
    """Everything that was found, in plain values for JSON; curves themselves are in the table."""
    return {
        "options": _options(perfusion.options),
        "regions": {
            name: {"refused": fit.reason} if isinstance(fit, NoBolus) else _fit(fit)
            for name, fit in perfusion.curves.items()
        },
        "comparisons": [
            {
                "of": c.of,
                "reference": c.reference,
                "ratios": {n: _figure(f) for n, f in c.ratios.items()},
                "differences": {n: _figure(f) for n, f in c.differences.items()},
            }
            for c in perfusion.comparisons
        ],
    }


def _options(options: FitOptions) -> dict[str, Any]:
    return asdict(options)


def _fit(fit: CurveFit) -> dict[str, Any]:
    return {
        "method": fit.method,
        "bolus": None if fit.bolus is None else asdict(fit.bolus),
        "unit": fit.unit,
        "linear": fit.linear,
        "frames": fit.frames,
        "block_s": fit.block_s,
        "residual": fit.residual,
        "warnings": list(fit.warnings),
        "figures": {name: _figure(figure) for name, figure in fit.figures.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    known = {"value": figure.value, "low": figure.low, "high": figure.high, "unit": figure.unit}
    return {**known, "reason": figure.reason} if figure.reason else known


def _row(region: str, figure: Figure) -> tuple[Any, ...]:
    return (
        region,
        figure.name,
        figure.unit,
        figure.value,
        figure.low,
        figure.high,
        figure.reason,
    )
