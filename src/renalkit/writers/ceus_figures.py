"""How does a perfusion analysis look? One page per study, maps with their scale, and tables.

Drawings are SVG with equal bytes for equal results, or PNG of the same. Every drawn number stands
in a table beside it (`figure_rows`, `curve_rows`, `map_rows`), and `plain` gives all for JSON.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, isfinite, log10
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import GridSpec

from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.maps import MAPS, MapSummary, ParametricMaps, map_unit
from renalkit.ceus.perfusion import CurveFit, Figure, FitOptions, NoBolus, Perfusion
from renalkit.writers.document import Svg
from renalkit.writers.figures import FAINT, INK, STYLE, colour, csv_text, drawn
from renalkit.writers.wording import shown

Mask = npt.NDArray[np.bool_]

_WIDTH_IN = 8.2
_DPI = 150
_COLOURS = {"PE": "viridis", "WiAUC": "viridis", "TTP": "cividis", "mTT": "cividis"}
_LONG = {
    "PE": "peak enhancement",
    "TTP": "time to peak",
    "WiAUC": "wash-in area",
    "mTT": "mean transit time",
}


@dataclass(frozen=True, slots=True, eq=False)
class CeusPage:
    """What the page of a study shows.

    title: words. bmode, contrast: reference frame of either pane, (h,w) or (h,w,3) uint8. masks:
    (h,w) of the contrast pane by region; bmode_masks: the same places in the B-mode pane. curves,
    perfusion: by region. phases: name, start and end in s. maps: None when there are none.
    """

    title: str
    bmode: npt.NDArray[np.uint8] | None
    contrast: npt.NDArray[np.uint8]
    masks: Mapping[str, Mask]
    bmode_masks: Mapping[str, Mask]
    curves: Mapping[str, RoiCurve]
    perfusion: Perfusion
    phases: Sequence[tuple[str, float, float]] = ()
    maps: ParametricMaps | None = None


def page_svg(page: CeusPage) -> Svg:
    """The page as a vector drawing; pictures stay pictures."""
    return drawn(_WIDTH_IN, _height(page), lambda canvas: _fill(canvas, page))


def page_png(page: CeusPage) -> bytes:
    """The page as a picture of 150 dots per inch."""
    return _png(_WIDTH_IN, _height(page), lambda canvas: _fill(canvas, page))


def map_png(maps: ParametricMaps, name: str, masks: Mapping[str, Mask] | None = None) -> bytes:
    """One map with its scale and the outlines of regions, as PNG.

    Raises:
        KeyError: there is no such map.
    """
    values = maps.values[name]

    def fill(canvas: Canvas) -> None:
        _map(canvas.subplots(), maps, name, masks or {})

    return _png(3.6, 0.8 + 2.8 * min(2.0, values.shape[0] / values.shape[1]), fill)


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
    return known if figure.value is not None else {**known, "reason": figure.reason}


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


# Drawing


def _png(width_in: float, height_in: float, fill: Callable[[Canvas], None]) -> bytes:
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained", dpi=_DPI)
        fill(canvas)
        out = io.BytesIO()
        # Equal results give equal bytes: no version of the drawing library is written.
        FigureCanvasAgg(canvas).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _height(page: CeusPage) -> float:
    return 2.9 + 2.5 + (2.1 if page.maps is not None else 0.0) + _table_height(page)


def _table_height(page: CeusPage) -> float:
    return 0.5 + 0.165 * max(1, len(_table(page)[1]))


def _fill(canvas: Canvas, page: CeusPage) -> None:
    heights = [2.9, 2.5, *([2.1] if page.maps is not None else []), _table_height(page)]
    grid = GridSpec(len(heights), 4, figure=canvas, height_ratios=heights)
    canvas.suptitle(shown(page.title), x=0.01, ha="left", fontsize=10, fontweight="bold")
    if page.bmode is None:
        _picture(canvas.add_subplot(grid[0, 1:3]), page.contrast, page.masks, "Contrast")
    else:
        _picture(canvas.add_subplot(grid[0, :2]), page.bmode, page.bmode_masks, "B-mode")
        _picture(canvas.add_subplot(grid[0, 2:]), page.contrast, page.masks, "Contrast")
    _curves(canvas.add_subplot(grid[1, :]), page)
    if page.maps is not None:
        for place, name in enumerate(MAPS):
            _map(canvas.add_subplot(grid[2, place]), page.maps, name, page.masks)
    _words(canvas.add_subplot(grid[len(heights) - 1, :]), page)


def _picture(
    ax: Axes, picture: npt.NDArray[np.uint8], masks: Mapping[str, Mask], title: str
) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for place, (name, mask) in enumerate(masks.items()):
        _outline(ax, mask, colour(place + 1))
        ax.plot([], [], color=colour(place + 1), label=shown(name))
    ax.set_title(title)
    ax.set_axis_off()
    if masks:
        ax.legend(loc="lower right", labelcolor="white", fontsize=7)


def _outline(ax: Axes, mask: Mask, tone: str) -> None:
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=[tone], linewidths=1.1)


def _curves(ax: Axes, page: CeusPage) -> None:
    unit = ""
    for place, (name, curve) in enumerate(page.curves.items()):
        tone = colour(place + 1)
        unit = curve.unit
        left_out = ~curve.kept & np.isfinite(curve.power)
        style: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0}
        ax.plot(
            curve.times_s[left_out], curve.power[left_out], markersize=1.4, color=FAINT, **style
        )
        ax.plot(
            curve.times_s[curve.kept],
            curve.power[curve.kept],
            markersize=1.8,
            alpha=0.55,
            color=tone,
            **style,
        )
        fit = page.perfusion.curves.get(name)
        if isinstance(fit, CurveFit):
            ax.plot(fit.times_s, fit.fitted, color=tone, linewidth=1.6, label=_legend(fit))
        else:
            words = "not fitted" if fit is None else fit.reason.partition(":")[0]
            ax.plot([], [], color=tone, label=f"{shown(name)}: {shown(words)}")
    ax.set_ylim(bottom=0)
    top = ax.get_ylim()[1]
    for place, (name, start, end) in enumerate(page.phases):
        ax.axvspan(start, end, color="#000000", alpha=(0.07, 0.03)[place % 2], linewidth=0)
        ax.text(start, top, f" {shown(name)}", va="top", fontsize=7, color="#666666")
    times = next(iter(page.curves.values())).times_s
    ax.set_xlim(times[0], times[-1])
    after = "injection" if page.perfusion.options.from_injection else "the first frame"
    ax.set_xlabel(f"Seconds since {after}")
    ax.set_ylabel(f"Echo power, {unit}" if unit == "a.u." else f"Mean {unit}")
    ax.ticklabel_format(axis="y", scilimits=(-2, 4))
    ax.legend(loc="upper right")


def _legend(fit: CurveFit) -> str:
    quality = fit.value("QOF")
    fitted = "" if quality is None else f", QOF {quality:.2f}"
    return f"{shown(fit.name)}: {fit.method}{fitted}"


def _map(ax: Axes, maps: ParametricMaps, name: str, masks: Mapping[str, Mask]) -> None:
    values = maps.values[name]
    box = maps.box
    known = values[np.isfinite(values)]
    ax.set_facecolor("#E4E4E4")
    ax.set_title(f"{name if maps.linear else name + '_display'}: {_LONG[name]}", fontsize=7.5)
    ax.set_xticks([])
    ax.set_yticks([])
    low, high = np.quantile(known, [0.02, 0.98]).tolist() if known.size else (0.0, 1.0)
    image = ax.imshow(
        np.ma.masked_invalid(values),
        cmap=_COLOURS[name],
        vmin=low,
        vmax=high if high > low else low + 1e-9,
        extent=(box.x - 0.5, box.x + box.width - 0.5, box.y + box.height - 0.5, box.y - 0.5),
        interpolation="nearest",
    )
    for place, mask in enumerate(masks.values()):
        _outline(ax, mask, colour(place + 1))
    ax.set_xlim(box.x - 0.5, box.x + box.width - 0.5)
    ax.set_ylim(box.y + box.height - 0.5, box.y - 0.5)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.9, pad=0.03, extend="both")
    bar.ax.tick_params(labelsize=6.5)
    bar.formatter.set_powerlimits((-2, 4))  # type: ignore[attr-defined]
    bar.set_label(map_unit(name, maps.unit), fontsize=7)


def _table(page: CeusPage) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the figures as words: one column per region, then ratios, differences."""
    fits = {n: f for n, f in page.perfusion.curves.items() if isinstance(f, CurveFit)}
    columns: list[tuple[str, Mapping[str, Figure]]] = [(n, f.figures) for n, f in fits.items()]
    for c in page.perfusion.comparisons:
        columns.append((f"{c.of} / {c.reference}", c.ratios))
        columns.append((f"{c.of} - {c.reference}", c.differences))
    names = list(dict.fromkeys(name for fit in fits.values() for name in fit.figures))
    rows: list[list[str]] = []
    for name in names:
        unit = next(f.figures[name].unit for f in fits.values() if name in f.figures)
        cells = [_cell(figures.get(name)) for _, figures in columns]
        rows.append([f"{name}, {unit}" if unit else name, *cells])
    return ["", *(name for name, _ in columns)], rows


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.value is None:
        return "not seen"
    if figure.low is None or figure.high is None:
        return _short(figure.value)
    return f"{_short(figure.value)} ({_short(figure.low)} to {_short(figure.high)})"


def _short(value: float) -> str:
    """Three significant digits without an exponent where that is short.

    >>> [_short(v) for v in (0.12345, 17.1158, 1638.53, 2.5e6)]
    ['0.123', '17.1', '1640', '2.50e+06']
    """
    if not isfinite(value) or value == 0:
        return f"{value:g}"
    size = floor(log10(abs(value)))
    if not -4 < size < 6:
        return f"{value:.2e}"
    return f"{round(value, 2 - size):.{max(0, 2 - size)}f}"


def _words(ax: Axes, page: CeusPage) -> None:
    ax.set_axis_off()
    head, rows = _table(page)
    reasons = [
        f"{name}: {fit.reason}"
        for name, fit in page.perfusion.curves.items()
        if isinstance(fit, NoBolus)
    ]
    reasons += [
        f"{name}: {words}"
        for name, fit in page.perfusion.curves.items()
        if isinstance(fit, CurveFit)
        for words in fit.warnings
    ]
    lines = max(1, len(rows)) + 1 + len(reasons)
    step = 1.0 / (lines + 1)
    places = np.concatenate([[0.0], 0.16 + np.arange(len(head) - 1) * 0.84 / max(1, len(head) - 1)])
    for place, words in zip(places, head, strict=True):
        ax.text(place, 1 - step, shown(words), fontsize=7.5, fontweight="bold", va="center")
    for line, row in enumerate(rows):
        for place, words in zip(places, row, strict=True):
            grey = "#888888" if words == "not seen" else INK
            ax.text(place, 1 - (line + 2) * step, words, fontsize=7, va="center", color=grey)
    for line, words in enumerate(reasons):
        height = 1 - (len(rows) + 2 + line) * step
        ax.text(0, height, shown(words), fontsize=7, va="center", color="#8A3B00")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
