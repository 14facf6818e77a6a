"""How do curves, intervals and confusion matrices look as vector drawings with equal bytes?

Text stays text (`svg.fonttype none`), ids come from a fixed salt, no date is written, and words
from data are never read as mathematics.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure as Canvas

from renalkit.writers.document import Svg
from renalkit.writers.wording import Estimate, shown

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#332288", "#8C6D31")
"""Okabe and Ito's colours, told apart by readers of every colour vision; then indigo and brown."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKS = ("s", "o", "^", "D", "v", "P", "X", "h")
NEUTRAL = "#6B6B6B"
"""Of what is no system, such as probes and readers' agreement."""
INK = "#222222"
FAINT = "#BBBBBB"
_SALT = "renalkit"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": _SALT,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
"""How drawings look: matplotlib's settings."""


def colour(place: int | None) -> str:
    """The colour of the system at this place; the same in every figure of a report.

    A system has a colour, a line style and a marker, by its place among the systems of the run, so
    that figures can also be read in grey. None: not a system.
    """
    return NEUTRAL if place is None else PALETTE[place % len(PALETTE)]


def dash(place: int | None) -> Any:
    """The line style that goes with the colour; another one when colours come round again."""
    return "-" if place is None else DASHES[(place + place // len(PALETTE)) % len(DASHES)]


def mark(place: int | None) -> str:
    """The marker that goes with the colour; another one when colours come round again."""
    return "d" if place is None else MARKS[(place + place // len(PALETTE)) % len(MARKS)]


def shades(place: int, n: int) -> list[tuple[float, float, float]]:
    """n shades of the colour of a system, from its own to a light one, such as for its folds."""
    tone = np.array(to_rgb(colour(place)))
    mixed = [tone + (1 - tone) * share for share in np.linspace(0.0, 0.6, max(1, n))]
    return [(float(m[0]), float(m[1]), float(m[2])) for m in mixed]


def _short(text: str, limit: int = 28) -> str:
    plain = shown(text).replace("\n", " ")
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def drawn(width_in: float, height_in: float, fill: Callable[[Canvas], None]) -> Svg:
    """The SVG of a figure that `fill` draws; equal drawings give equal bytes."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Words stay text in the SVG, so the reader's own fonts draw what ours only measures.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained")
        fill(canvas)
        out = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(out, metadata={"Date": None, "Creator": None})
    return Svg(_inline(out.getvalue()))


def _inline(text: str) -> str:
    """Without XML head, doctype, metadata and ids nobody refers to: fit to stand inside HTML."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in used else "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    return text.replace(
        '<style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>', ""
    ).strip()


def standalone(svg: Svg) -> str:
    """The drawing as a file of its own."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg.markup}\n'


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a ROC figure: false and true positive rate.

    place: of its colour. line: of its line style where several curves have one colour.
    """

    name: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    place: int | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Operating points of one kind, such as the readers of a group: (false, true positive rate).

    place: of marker and shade. large: a point that stands for several readers.
    """

    name: str
    at: tuple[tuple[float, float], ...]
    place: int
    large: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A titled group of curves and points."""

    title: str
    curves: tuple[Curve, ...]
    points: tuple[Points, ...] = ()


_MARKERS = ("o", "s", "^", "D", "v", "P")
_POINT_SHADES = (INK, "#7A4FA3", "#A0522D", "#2F6F6F", "#8B2252", "#555577")


def roc(panels: Sequence[Panel]) -> Svg:
    """ROC curves, one square panel each; a diagonal marks chance."""
    n_cols = min(3, len(panels))
    n_rows = ceil(len(panels) / n_cols)
    side = 3.7 if len(panels) == 1 else 2.7

    def fill(canvas: Canvas) -> None:
        axes = _grid(canvas, n_rows, n_cols, len(panels))
        for ax, panel in zip(axes, panels, strict=True):
            ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
            for i, curve in enumerate(panel.curves):
                place = i if curve.place is None else curve.place
                ax.plot(
                    curve.fpr,
                    curve.tpr,
                    color=colour(place),
                    linestyle=dash(place if curve.line is None else curve.line),
                    label=_short(curve.name),
                    clip_on=False,
                )
            for points in panel.points:
                _operating_points(ax, points)
            _unit_square(ax)
            ax.set_xlabel("1 − specificity")
            ax.set_ylabel("Sensitivity")
            if panel.title:
                ax.set_title(_short(panel.title))
            if not pointed:
                ax.legend(loc="lower right")
        if pointed:  # points and many names: beside the panels, where they hide nothing
            canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")

    pointed = any(panel.points for panel in panels)
    room = 1.9 if pointed else 0.2
    return drawn(side * n_cols + room, (side + (0.25 if len(panels) > 1 else 0)) * n_rows, fill)


def _operating_points(ax: Axes, points: Points) -> None:
    shade = _POINT_SHADES[points.place % len(_POINT_SHADES)]
    ax.plot(
        [x for x, _ in points.at],
        [y for _, y in points.at],
        linestyle="none",
        marker=_MARKERS[points.place % len(_MARKERS)],
        markersize=8 if points.large else 4.2,
        markerfacecolor="none" if points.large else shade,
        markeredgecolor=shade,
        markeredgewidth=1.3 if points.large else 0,
        label=_short(points.name),
        clip_on=False,
        zorder=3,
    )


def _grid(canvas: Canvas, n_rows: int, n_cols: int, n: int) -> list[Axes]:
    grid = np.atleast_1d(canvas.subplots(n_rows, n_cols, squeeze=False)).ravel()
    for ax in grid[n:]:
        ax.set_axis_off()
    return list(grid[:n])


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of an interval figure; dots are further values, such as those of folds.

    place: of the system's colour and marker; None for what is no system.
    """

    name: str
    estimate: Estimate
    dots: tuple[float, ...] = ()
    place: int | None = None


def intervals(items: Sequence[Interval], axis: str, reference: float | None = None) -> Svg:
    """Point estimates with intervals, one line each, top to bottom; `reference` is a thin line."""

    def fill(canvas: Canvas) -> None:
        ax = canvas.subplots()
        if reference is not None:
            ax.axvline(reference, color="#888888", linewidth=0.8)
        for place, item in enumerate(items):
            e, tone = item.estimate, colour(item.place)
            if item.dots:
                ax.plot(
                    item.dots,
                    [place + 0.24] * len(item.dots),
                    linestyle="none",
                    marker=mark(item.place),
                    markersize=3.2,
                    markerfacecolor="none",
                    markeredgecolor=tone,
                    markeredgewidth=0.8,
                )
            if e.value is None:
                ax.text(0.02, place, "n/a", transform=ax.get_yaxis_transform(), va="center")
                continue
            if e.low is not None and e.high is not None:
                ax.plot([e.low, e.high], [place, place], color=tone, linewidth=1.6)
            ax.plot([e.value], [place], marker=mark(item.place), markersize=5, color=tone)
        ax.set_yticks(range(len(items)), [_short(item.name, 44) for item in items])
        ax.set_ylim(len(items) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="#E4E4E4", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(_short(axis, 72))

    return drawn(6.6, 0.75 + 0.34 * len(items), fill)


def spread(groups: Sequence[tuple[str, Sequence[float], int]], axis: str) -> Svg:
    """Every case as a dot with the quartiles beside them, one row per group: name, values, place.

    Dots are stacked in bins, so that equal values stay visible and nothing is drawn at random.
    """

    def fill(canvas: Canvas) -> None:
        ax = canvas.subplots()
        for place, (_, values, system) in enumerate(groups):
            known = np.sort(np.asarray(values, dtype=float))
            if not known.size:
                continue
            x, lift = _stacked(known)
            ax.plot(
                x,
                place + 0.10 - lift,
                linestyle="none",
                marker=mark(system),
                markersize=2.6,
                color=colour(system),
                alpha=0.75,
                markeredgewidth=0,
            )
            low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
            ax.plot([low, high], [place + 0.26] * 2, color=INK, linewidth=2.2)
            ax.plot([middle], [place + 0.26], marker="|", markersize=9, color=INK)
        ax.set_yticks(range(len(groups)), [_short(name) for name, _, _ in groups])
        ax.set_ylim(len(groups) - 0.45, -0.75)
        ax.set_xlim(-0.02, 1.02)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="#E4E4E4", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(axis)

    return drawn(6.6, 0.7 + 0.85 * len(groups), fill)


def _stacked(values: Any, bins: int = 80, room: float = 0.72) -> tuple[Any, Any]:
    """x and height of dots so that those of one bin stand on one another."""
    place = np.minimum((values * bins).astype(int), bins - 1)
    rank = np.arange(values.size) - np.searchsorted(place, place, side="left")
    step = min(0.07, room / max(1, int(rank.max()) + 1))
    return (place + 0.5) / bins, rank * step


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix: rows truth, columns call; the same classes unless columns are given."""

    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...] = ()


def confusion(matrices: Sequence[Matrix]) -> Svg:
    """Confusion matrices side by side; the shade is the share of the row, the words the counts."""
    n_cols = min(4 if len(matrices[0].classes) < 3 else 3, len(matrices))
    n_rows = ceil(len(matrices) / n_cols)
    side = 1.15 + 0.42 * max(len(m.columns or m.classes) for m in matrices)

    def fill(canvas: Canvas) -> None:
        shades = LinearSegmentedColormap.from_list("ink", ["#FFFFFF", "#3E7CB1"])
        for ax, m in zip(_grid(canvas, n_rows, n_cols, len(matrices)), matrices, strict=True):
            counts = np.asarray(m.counts, dtype=float)
            totals = counts.sum(axis=1, keepdims=True)
            parts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
            k, n = len(m.classes), len(m.columns or m.classes)
            ax.pcolormesh(
                np.arange(n + 1),
                np.arange(k + 1),
                parts,
                cmap=shades,
                vmin=0,
                vmax=1,
                edgecolors="white",
                linewidth=1.5,
            )
            for row, column in np.ndindex(k, n):
                dark = parts[row, column] > 0.9  # from here on white is easier to read than ink
                words = f"{int(counts[row, column])}"
                ax.text(
                    column + 0.5,
                    row + 0.42,
                    words,
                    ha="center",
                    va="center",
                    fontsize=10,
                    color="white" if dark else INK,
                )
                if totals[row, 0]:
                    ax.text(
                        column + 0.5,
                        row + 0.74,
                        f"{100 * parts[row, column]:.0f} %",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else INK,
                    )
            names = [_short(c, 14) for c in m.classes]
            called = [_short(c, 14) for c in m.columns or m.classes]
            ax.set_xticks(np.arange(n) + 0.5, called)
            ax.set_yticks(np.arange(k) + 0.5, names, rotation=90, va="center")
            ax.set(xlim=(0, n), ylim=(k, 0), aspect="equal")
            ax.tick_params(length=0)
            for spine in ax.spines.values():
                spine.set_visible(False)
            ax.set_xlabel("Called")
            ax.set_ylabel("Truth")
            ax.set_title(_short(m.title, 24))

    return drawn(side * n_cols, (side + 0.3) * n_rows, fill)


@dataclass(frozen=True, slots=True)
class Course:
    """The training of one fold: epochs and figures by name (None where there is none)."""

    fold: int
    epochs: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    best_epoch: int | None


_COURSE_PANELS = (
    ("Loss", (("train_loss", "-"), ("validation_loss", (0, (4, 1.5)))), None),
    ("Validation Dice", (("dice", "-"),), (0.0, 1.0)),
    ("Validation Dice, kidney", (("dice_kidney", "-"),), (0.0, 1.0)),
    ("Validation Dice, mass", (("dice_mass", "-"),), (0.0, 1.0)),
    ("Validation AUC", (("auc", "-"),), (0.0, 1.0)),
    ("Validation accuracy", (("accuracy", "-"),), (0.0, 1.0)),
)


def learning_curves(courses: Sequence[Course], place: int = 0, unit: str = "Epoch") -> Svg:
    """Loss and validation figures over the epochs; a shade of the system's colour per fold, a mark
    at the kept epoch. place: of the system. unit: what is counted in place of epochs.
    """
    tones = shades(place, len(courses))
    panels = [
        p
        for p in _COURSE_PANELS
        if any(v is not None for c in courses for name, _ in p[1] for v in c.values.get(name, ()))
    ] or [_COURSE_PANELS[0]]

    def fill(canvas: Canvas) -> None:
        axes = _grid(canvas, 1, len(panels), len(panels))
        for ax, (title, lines, limits) in zip(axes, panels, strict=True):
            # The first fold has the darkest shade and lies on top.
            for course, tone in reversed(list(zip(courses, tones, strict=True))):
                for name, style in lines:
                    _course_line(ax, course, (name, style), tone, mark(place))
            ax.set_title(title)
            ax.set_xlabel(unit)
            if limits:
                ax.set_ylim(*limits)
            else:
                ax.set_ylim(bottom=0)
        axes[0].plot([], [], color=INK, linestyle="-", label="training")
        if any(v is not None for c in courses for v in c.values.get("validation_loss", ())):
            axes[0].plot([], [], color=INK, linestyle=(0, (4, 1.5)), label="validation")
        axes[0].legend(loc="lower left")  # the loss starts at 0, so there is room below

    return drawn(2.35 * max(2, len(panels)), 2.1, fill)


def _course_line(
    ax: Axes, course: Course, line: tuple[str, Any], tone: tuple[float, float, float], marker: str
) -> None:
    name, style = line
    points = [
        (e, v)
        for e, v in zip(course.epochs, course.values.get(name, ()), strict=False)
        if v is not None
    ]
    if not points:
        return
    x, y = [p[0] for p in points], [p[1] for p in points]
    ax.plot(x, y, color=tone, linestyle=style, linewidth=1.1)
    kept = [p for p in points if p[0] == course.best_epoch]
    if kept and not name.startswith("train"):
        ax.plot([kept[0][0]], [kept[0][1]], marker=marker, markersize=3.8, color=tone)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Observed share against mean predicted probability, a point per bin with its interval."""

    name: str
    predicted: tuple[float, ...]
    observed: tuple[Estimate, ...]
    place: int = 0


def reliability(panels: Sequence[Reliability]) -> Svg:
    """Reliability curves, one square panel per system; the diagonal is perfect calibration."""
    n_cols = min(3, len(panels))
    n_rows = ceil(len(panels) / n_cols)
    side = 2.7

    def fill(canvas: Canvas) -> None:
        axes = _grid(canvas, n_rows, n_cols, len(panels))
        for ax, panel in zip(axes, panels, strict=True):
            tone = colour(panel.place)
            ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
            points = [
                (x, e.value, e)
                for x, e in zip(panel.predicted, panel.observed, strict=True)
                if e.value is not None
            ]
            xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
            ax.plot(xs, ys, color=tone, linestyle=dash(panel.place), linewidth=0.9)
            for x, y, e in points:
                if e.low is not None and e.high is not None:
                    ax.plot([x, x], [e.low, e.high], color=tone, linewidth=1.2, clip_on=False)
                ax.plot([x], [y], marker=mark(panel.place), markersize=4, color=tone, clip_on=False)
            _unit_square(ax)
            ax.set_xlabel("Predicted probability")
            ax.set_ylabel("Observed share")
            ax.set_title(_short(panel.name))

    return drawn(side * n_cols + 0.2, (side + 0.25) * n_rows, fill)


def _unit_square(ax: Axes) -> None:
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


@dataclass(frozen=True, slots=True)
class Benefit:
    """Net benefit of one system by threshold, with intervals."""

    name: str
    thresholds: tuple[float, ...]
    net_benefit: tuple[Estimate, ...]
    place: int = 0


def decision(curves: Sequence[Benefit], treat_all: Benefit) -> Svg:
    """Decision curves with bands beside acting on all patients (grey) and on none (zero)."""

    def fill(canvas: Canvas) -> None:
        ax = canvas.subplots()
        ax.axhline(0, color=INK, linewidth=0.8, label="act on none")
        heights = [e.value or 0.0 for e in treat_all.net_benefit]
        x, dots = treat_all.thresholds, (0, (1, 1.2))
        ax.plot(x, heights, color="#888888", linestyle=dots, linewidth=1.2, label="act on all")
        top = max(0.05, *heights)
        for curve in curves:
            tone = colour(curve.place)
            x, known = curve.thresholds, curve.net_benefit
            values = [e.value or 0.0 for e in known]
            highs = [v if e.high is None else e.high for v, e in zip(values, known, strict=True)]
            lows = [v if e.low is None else e.low for v, e in zip(values, known, strict=True)]
            ax.fill_between(x, lows, highs, color=tone, alpha=0.13, linewidth=0)
            ax.plot(
                x,
                values,
                color=tone,
                linestyle=dash(curve.place),
                marker=mark(curve.place),
                markersize=3.4,
                markevery=(curve.place % 3, 3),
                label=_short(curve.name),
            )
            top = max(top, *highs)
        ax.set(xlim=(0, 1), ylim=(-0.25 * top, 1.05 * top))
        ax.set_xlabel("Threshold probability")
        ax.set_ylabel("Net benefit")
        ax.grid(axis="y", color="#E4E4E4", linewidth=0.6)
        ax.set_axisbelow(True)
        canvas.legend(*ax.get_legend_handles_labels(), loc="outside right upper")

    return drawn(6.6, 3.1, fill)


@dataclass(frozen=True, slots=True)
class FrocLine:
    """A free-response curve: marks in vain per image and sensitivity, by falling threshold."""

    name: str
    vain: tuple[float, ...]
    sensitivity: tuple[float, ...]
    place: int = 0


def free_response(curves: Sequence[FrocLine], unit: str = "image") -> Svg:
    """Free-response curves as steps, each ending in a marker where the mask's own threshold is.

    unit: what false marks are counted per.
    """

    def fill(canvas: Canvas) -> None:
        ax = canvas.subplots()
        widest = max((max(c.vain, default=0.0) for c in curves), default=0.0)
        for curve in curves:
            tone = colour(curve.place)
            x, y = (0.0, *curve.vain), (0.0, *curve.sensitivity)
            ax.plot(
                x,
                y,
                drawstyle="steps-post",
                color=tone,
                linestyle=dash(curve.place),
                marker=mark(curve.place),
                markersize=5,
                markevery=[len(x) - 1],
                label=_short(curve.name),
                clip_on=False,
            )
        ax.set(xlim=(0, max(0.1, 1.08 * widest)), ylim=(0, 1))
        ax.set_xlabel(f"False marks per {unit}")
        ax.set_ylabel("Sensitivity (lesions)")
        ax.grid(color="#E4E4E4", linewidth=0.6)
        ax.set_axisbelow(True)
        canvas.legend(*ax.get_legend_handles_labels(), loc="outside right upper")

    return drawn(6.0, 3.1, fill)
