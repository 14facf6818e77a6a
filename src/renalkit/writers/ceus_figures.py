"""How does a perfusion analysis look? One page per study, maps with their scale, and tables.

Drawings are SVG with equal bytes for equal results, or PNG of the same. Every drawn number stands
in a table beside it (`figure_rows`, `curve_rows`, `map_rows`), and `plain` gives all for JSON.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.maps import MAPS, ParametricMaps, map_unit
from renalkit.ceus.perfusion import CurveFit, Figure, NoBolus, Perfusion
from renalkit.domain.geometry import bounding_box
from renalkit.writers.document import Svg
from renalkit.writers.figures import (
    FAINT,
    INK,
    STYLE,
    colour,
    drawn,
)
from renalkit.writers.wording import shown

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_WIDTH_IN = 8.2
_LEFT_IN = 0.7  # taken by the labels of the curves
_LINE_IN = 0.165
_MOST_COLUMNS = 4
_AROUND = 0.5  # of the regions is shown around them
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_DPI = 150
_COLOURS = {"PE": "viridis", "WiAUC": "viridis", "TTP": "cividis", "mTT": "cividis"}
_LINES = ("solid", "dashed", "dotted", "dashdot")
_LONG = {
    "PE": "peak enhancement",
    "TTP": "time to peak",
    "WiAUC": "wash-in area",
    "mTT": "mean transit time",
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame of a pane. pixels: (h,w) or (h,w,3) uint8. masks: (h,w) by region, where it is in
    this frame."""

    title: str
    pixels: npt.NDArray[np.uint8]
    masks: Mapping[str, Mask]


@dataclass(frozen=True, slots=True, eq=False)
class CeusPage:
    """What the page of a study shows.

    title: words. bmode: of the reference frame, None without B-mode. contrast: of any frame.
    curves, perfusion: by region. phases: name, start and end in s. maps: None when there are none.
    spacing_mm: of rows and columns of the panes. warnings: of the clip; those of curves are known.
    notes: small print.
    """

    title: str
    bmode: Picture | None
    contrast: Picture
    curves: Mapping[str, RoiCurve]
    perfusion: Perfusion
    phases: Sequence[tuple[str, float, float]] = ()
    maps: ParametricMaps | None = None
    spacing_mm: tuple[float, float] | None = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """B-mode first."""
        return (self.contrast,) if self.bmode is None else (self.bmode, self.contrast)


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
    if name not in maps.values:
        raise KeyError(name)

    def fill(canvas: Canvas) -> None:
        _map(canvas.subplots(), maps, name, masks or {})

    return _png(3.6, 0.2 + _map_height(maps, 3.6), fill)


def _png(width_in: float, height_in: float, fill: Callable[[Canvas], None]) -> bytes:
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained", dpi=_DPI)
        fill(canvas)
        out = io.BytesIO()
        # Equal results give equal bytes: no version of the drawing library is written.
        FigureCanvasAgg(canvas).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _heights(page: CeusPage) -> list[float]:
    """Of pictures, curves, maps and words, in inches."""
    rows, cols = _window(page)
    wide = (_WIDTH_IN - _LEFT_IN) / 2
    pictures = 0.3 + min(3.6, wide * (rows.stop - rows.start) / (cols.stop - cols.start))
    heights = [pictures, 2.6]
    if page.maps is not None:
        heights.append(_map_height(page.maps, (_WIDTH_IN - _LEFT_IN) / 4))
    return [*heights, _LINE_IN * (len(_lines(page)) + 1)]


def _map_height(maps: ParametricMaps, wide: float) -> float:
    """Of a map of a width in inches, with title and scale."""
    return 0.65 + wide * min(2.0, maps.box.height / maps.box.width)


def _height(page: CeusPage) -> float:
    return 0.35 + sum(_heights(page))


def _fill(canvas: Canvas, page: CeusPage) -> None:
    heights = _heights(page)
    grid = GridSpec(len(heights), 4, figure=canvas, height_ratios=heights)
    canvas.suptitle(shown(page.title), x=0.01, ha="left", fontsize=10, fontweight="bold")
    window = _window(page)
    for place, picture in enumerate(page.pictures):
        columns = slice(2 * place, 2 * place + 2) if page.bmode is not None else slice(1, 3)
        ax = canvas.add_subplot(grid[0, columns])
        _picture(ax, picture, window, page.spacing_mm, named=place == 0)
    _curves(canvas.add_subplot(grid[1, :]), page)
    if page.maps is not None:
        masks = page.pictures[0].masks
        for place, name in enumerate(MAPS):
            _map(canvas.add_subplot(grid[2, place]), page.maps, name, masks)
    _words(canvas.add_subplot(grid[len(heights) - 1, :]), page)


def _window(page: CeusPage) -> tuple[slice, slice]:
    """Rows and columns that are shown: the regions and what lies around them."""
    rows, cols = page.contrast.pixels.shape[:2]
    masks = [mask for picture in page.pictures for mask in picture.masks.values()]
    box = bounding_box(np.logical_or.reduce(masks)) if masks else None
    return (
        (slice(0, rows), slice(0, cols)) if box is None else box.grown(_AROUND, rows, cols).slices
    )


def _picture(
    ax: Axes,
    picture: Picture,
    window: tuple[slice, slice],
    spacing_mm: tuple[float, float] | None,
    *,
    named: bool,
) -> None:
    """named: with the names of the regions."""
    rows, cols = window
    aspect = "equal" if spacing_mm is None else spacing_mm[0] / spacing_mm[1]
    ax.imshow(
        picture.pixels[window],
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest",
        aspect=aspect,
        extent=(cols.start - 0.5, cols.stop - 0.5, rows.stop - 0.5, rows.start - 0.5),
    )
    for place, (name, mask) in enumerate(picture.masks.items()):
        _outline(ax, mask, colour(place + 1))
        ax.plot([], [], color=colour(place + 1), label=shown(name))
    ax.set_title(picture.title)
    ax.set_axis_off()
    ax.set_xlim(cols.start - 0.5, cols.stop - 0.5)
    ax.set_ylim(rows.stop - 0.5, rows.start - 0.5)
    if spacing_mm is not None:
        long, high = 10 / spacing_mm[1], rows.stop - rows.start
        left, low = cols.start + 0.03 * (cols.stop - cols.start), rows.stop - 0.05 * high
        ax.plot([left, left + long], [low, low], color="white", linewidth=2)
        ax.text(left, low - 0.02 * high, "1 cm", color="white", fontsize=7, va="bottom")
    if named and picture.masks:
        style: dict[str, Any] = {"facecolor": "black", "framealpha": 0.6, "edgecolor": "none"}
        ax.legend(loc="lower right", labelcolor="white", fontsize=7, frameon=True, **style)


def _outline(ax: Axes, mask: Mask, tone: str, line: str = "solid") -> None:
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=[tone], linewidths=1.1, linestyles=line)


def _curves(ax: Axes, page: CeusPage) -> None:
    unit = next(iter(page.curves.values())).unit
    factor, times_unit = _scaled(
        max(float(np.nanmax(c.power, initial=0.0)) for c in page.curves.values()), unit
    )
    style: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0}
    for place, (name, curve) in enumerate(page.curves.items()):
        tone, power = colour(place + 1), curve.power / factor
        left_out = ~curve.kept & np.isfinite(curve.power)
        ax.plot(curve.times_s[left_out], power[left_out], markersize=1.4, color=FAINT, **style)
        ax.plot(
            curve.times_s[curve.kept],
            power[curve.kept],
            markersize=1.8,
            alpha=0.55,
            color=tone,
            **style,
        )
        fit = page.perfusion.curves.get(name)
        if isinstance(fit, CurveFit):
            fitted = fit.fitted / factor
            ax.plot(fit.times_s, fitted, color=tone, linewidth=1.6, label=_legend(fit))
        else:
            words = "not fitted" if fit is None else fit.reason.partition(":")[0]
            ax.plot([], [], color=tone, label=f"{shown(name)}: {shown(words)}")
    if any((~c.kept & np.isfinite(c.power)).any() for c in page.curves.values()):
        ax.plot([], [], markersize=3, color=FAINT, label="frames left out", **style)
    ax.set_ylim(bottom=0)
    times = next(iter(page.curves.values())).times_s
    ax.set_xlim(times[0], times[-1])
    _phases(ax, page.phases, (float(times[0]), float(times[-1])))
    after = "injection" if page.perfusion.options.from_injection else "the first frame"
    ax.set_xlabel(f"Seconds since {after}")
    ax.set_ylabel(f"Echo power, {times_unit}" if unit == "a.u." else f"Mean {times_unit}")
    ax.legend(loc="upper right")


def _phases(
    ax: Axes, phases: Sequence[tuple[str, float, float]], span: tuple[float, float]
) -> None:
    """Phases as stripes, their names above the axes, one above the other where they are short."""
    letter = 0.065 * (span[1] - span[0]) / (_WIDTH_IN - _LEFT_IN)  # width of one, in s
    ends: list[float] = []  # of what stands in each line
    for place, (name, start, end) in enumerate(phases):
        ax.axvspan(start, end, color="#000000", alpha=(0.07, 0.03)[place % 2], linewidth=0)
        words = shown(name)
        line = next((i for i, taken in enumerate(ends) if taken <= start), len(ends))
        ends[line : line + 1] = [start + letter * (len(words) + 2)]
        at = ax.get_xaxis_transform()
        height = 1 + 0.06 * (line + 1)
        ax.plot([start] * 2, [0, height], color=FAINT, linewidth=0.6, transform=at, clip_on=False)
        ax.text(start, height, f" {words}", transform=at, va="top", fontsize=7, color="#555555")


def _scaled(highest: float, unit: str) -> tuple[float, str]:
    """A power of a thousand to divide by, and the unit that is left.

    >>> _scaled(17000.0, "a.u."), _scaled(2.5e6, "a.u. s")
    ((1.0, 'a.u.'), (1000000.0, '10⁶ a.u. s'))
    """
    if not isfinite(highest) or highest <= 0 or 0.01 <= highest < 1e5:
        return 1.0, unit
    power = 3 * floor(log10(highest) / 3)
    return 10.0**power, f"10{str(power).translate(_SUPERSCRIPT)} {unit}"


def _legend(fit: CurveFit) -> str:
    quality = fit.value("QOF")
    fitted = "" if quality is None else f", QOF {quality:.2f}"
    return f"{shown(fit.name)}: {fit.method}{fitted}"


def _map(ax: Axes, maps: ParametricMaps, name: str, masks: Mapping[str, Mask]) -> None:
    """A map with a scale for the regions, not for what lies between them."""
    box = maps.box
    known = _of_regions(maps, name, masks)
    ax.set_facecolor("#E4E4E4")
    ax.set_title(f"{name}: {_LONG[name]}" if maps.linear else f"{name}_display", fontsize=7.5)
    ax.set_xticks([])
    ax.set_yticks([])
    low, high = np.quantile(known, [0.02, 0.98]).tolist() if known.size else (0.0, 1.0)
    factor, unit = _scaled(high, map_unit(name, maps.unit))
    low, high = low / factor, high / factor
    image = ax.imshow(
        np.ma.masked_invalid(maps.values[name] / factor),
        cmap=_COLOURS[name],
        vmin=low,
        vmax=high if high > low else low + 1e-9,
        extent=(box.x - 0.5, box.x + box.width - 0.5, box.y + box.height - 0.5, box.y - 0.5),
        interpolation="nearest",
    )
    for place, mask in enumerate(masks.values()):
        _outline(ax, mask, "white", _LINES[place % len(_LINES)])
    ax.set_xlim(box.x - 0.5, box.x + box.width - 0.5)
    ax.set_ylim(box.y + box.height - 0.5, box.y - 0.5)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.9, pad=0.03, extend="both")
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=6.5)
    bar.set_label(unit, fontsize=7)


def _of_regions(maps: ParametricMaps, name: str, masks: Mapping[str, Mask]) -> Floats:
    """Known values of the cells whose middle lies in a region; all of them without a region."""
    values, box, cell = maps.values[name], maps.box, maps.cell
    inside = np.ones(values.shape, np.bool_)
    if masks:
        y, x = (np.arange(n) * cell + cell // 2 for n in values.shape)
        inside = np.logical_or.reduce(list(masks.values()))[np.ix_(box.y + y, box.x + x)]
    known = values[inside & np.isfinite(values)]
    return known if known.size else values[np.isfinite(values)]


Line = tuple[tuple[float, str, dict[str, Any]], ...]
"""Words of one line: where each begins as a share of the width, and how it looks."""


def _lines(page: CeusPage) -> list[Line]:
    """Figures as tables of at most four columns, then what to be wary of, then the small print."""
    fits = {n: f for n, f in page.perfusion.curves.items() if isinstance(f, CurveFit)}
    columns: list[tuple[str, Mapping[str, Figure]]] = [(n, f.figures) for n, f in fits.items()]
    for c in page.perfusion.comparisons:
        of, reference = _cut(c.of, 12), _cut(c.reference, 9)
        columns.append((f"{of} / {reference}", c.ratios))
        columns.append((f"{of} − {reference}", c.differences))
    names = list(dict.fromkeys(name for fit in fits.values() for name in fit.figures))
    units = {name: f.unit for fit in fits.values() for name, f in fit.figures.items()}
    labels = {name: f"{name}, {units[name]}" if units[name] else name for name in names}
    left = max([0.16, *(0.0075 * len(label) for label in labels.values())])
    lines: list[Line] = []
    for first in range(0, len(columns), _MOST_COLUMNS):
        part = columns[first : first + _MOST_COLUMNS]
        places = [left + (1 - left) * i / _MOST_COLUMNS for i in range(len(part))]
        heads = [(_cut(name, 24), {"fontweight": "bold"}) for name, _ in part]
        lines += [(), tuple((x, *head) for x, head in zip(places, heads, strict=True))]
        for name in names:
            if all(name not in figures for _, figures in part):
                continue
            cells = [_cell(figures.get(name)) for _, figures in part]
            lines.append(
                (
                    (0.0, labels[name], {}),
                    *((x, *cell) for x, cell in zip(places, cells, strict=True)),
                )
            )
    told: dict[str, list[str]] = {}
    for name, fit in page.perfusion.curves.items():
        for words in (fit.reason,) if isinstance(fit, NoBolus) else fit.warnings:
            told.setdefault(words, []).append(name)
    warned = [f"{', '.join(of)}: {words}" for words, of in told.items()]
    lines += [(), *_wrapped([*warned, *page.warnings], "#8A3B00")]
    without = {
        f"{name}: {f.reason}": None
        for fit in fits.values()
        for name, f in fit.figures.items()
        if f.reason and f.value is not None
    }
    return [*lines, *_wrapped([*without, *page.notes], "#555555")]


def _cut(words: str, most: int) -> str:
    words = shown(words)
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _wrapped(texts: Sequence[str], tone: str) -> list[Line]:
    rows = (row for text in texts for row in textwrap.wrap(shown(text), 130))
    return [((0.0, row, {"color": tone}),) for row in rows]


def _cell(figure: Figure | None) -> tuple[str, dict[str, Any]]:
    if figure is None:
        return "", {}
    if figure.value is None:
        return "not seen", {"color": "#888888"}
    if figure.low is None or figure.high is None:
        return _short(figure.value), {}
    return f"{_short(figure.value)} ({_short(figure.low)} to {_short(figure.high)})", {}


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
    lines = _lines(page)
    for number, line in enumerate(lines):
        height = 1 - (number + 1) / (len(lines) + 1)
        for place, words, style in line:
            look: dict[str, Any] = {"fontsize": 7, "va": "center", "color": INK, **style}
            ax.text(place, height, words, **look)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
