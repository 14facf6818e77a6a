"""How many were screened, left out and analysed? The study's flow chart as a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from renalkit.writers.document import Svg
from renalkit.writers.wording import count, plural, shown

_LINE = 17
_PAD = 12
_WRAP = 44


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """The counts of the chart; excluded: (reason, studies)."""

    screened_patients: int
    screened_studies: int
    included_patients: int
    included_studies: int
    included_images: int
    excluded: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> FlowCounts:
        """The counts of a JSON object."""
        return cls(
            int(raw["screened_patients"]),
            int(raw["screened_studies"]),
            int(raw["included_patients"]),
            int(raw["included_studies"]),
            int(raw["included_images"]),
            tuple((str(reason), int(n)) for reason, n in raw["excluded"]),
        )

    @property
    def excluded_studies(self) -> int:
        return sum(n for _, n in self.excluded)


def _wrapped(text: str, width: int = _WRAP) -> list[str]:
    """Lines of at most `width` characters; longer words are cut."""
    lines: list[str] = []
    for word in shown(text).split():
        while len(word) > width:
            lines.append(word[:width])
            word = word[width:]
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    lines: tuple[tuple[str, bool], ...]

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PAD - 4

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def markup(self, centred: bool) -> str:
        x = self.x + (self.width / 2 if centred else _PAD)
        anchor = "middle" if centred else "start"
        bold = ' font-weight="600"'
        words = "".join(
            f'<text x="{x:g}" y="{self.y + _PAD + 10 + i * _LINE:g}" text-anchor="{anchor}"'
            f"{bold if strong else ''}>{escape(text)}</text>"
            for i, (text, strong) in enumerate(self.lines)
        )
        return (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="3" fill="#fff" stroke="#555" stroke-width="1"/>{words}'
        )


def _middle(title: str, patients: int, studies: int, rest: Sequence[str] = ()) -> tuple[Any, ...]:
    body = f"{plural(patients, 'patient')}, {plural(studies, 'study', 'studies')}"
    return ((title, True), (body, False), *((line, False) for line in rest))


def flow_chart(flow: FlowCounts, classes: Sequence[tuple[str, int, int]]) -> Svg:
    """Screened on top, excluded with reasons at the side, included below, then the classes.

    classes: (label, patients, images); at most five are drawn, the table has all.
    """
    shown_classes = list(classes[:5])
    each, gap, width, side_width = 132.0, 14.0, 250.0, 330.0
    row_width = len(shown_classes) * (each + gap) - gap
    centre = 10 + max(width, row_width) / 2
    left, side_x = centre - width / 2, centre + width / 2 + 60
    top = _Box(left, 10, width, _middle("Screened", flow.screened_patients, flow.screened_studies))
    reasons: list[tuple[str, bool]] = [
        (f"Excluded: {plural(flow.excluded_studies, 'study', 'studies')}", True)
    ]
    for reason, n in flow.excluded:
        head, *tail = _wrapped(f"{count(n)}  {reason}")
        reasons += [(head, False), *((f"     {line}", False) for line in tail)]
    side = _Box(side_x, top.bottom + 16, side_width, tuple(reasons))
    images = (plural(flow.included_images, "image"),)
    included = _Box(
        left,
        max(side.bottom + 16, top.bottom + 60),
        width,
        _middle("Included", flow.included_patients, flow.included_studies, images),
    )
    parts = [
        top.markup(centred=True),
        side.markup(centred=False),
        included.markup(centred=True),
        _arrow(centre, top.bottom, centre, included.y),
        _arrow(centre, side.y + side.height / 2, side_x, side.y + side.height / 2),
    ]
    bottom = included.bottom
    if shown_classes:
        row, bar = included.bottom + 46, included.bottom + 22
        start = centre - row_width / 2
        centres = [start + i * (each + gap) + each / 2 for i in range(len(shown_classes))]
        parts.append(_line(centre, included.bottom, centre, bar))
        parts.append(_line(centres[0], bar, centres[-1], bar))
        for place, (label, patients, n_images) in zip(centres, shown_classes, strict=True):
            lines = (
                (_wrapped(label, int(each / 8))[0], True),
                (plural(patients, "patient"), False),
                (plural(n_images, "image"), False),
            )
            box = _Box(place - each / 2, row, each, lines)
            parts += [_arrow(place, bar, place, row), box.markup(centred=True)]
            bottom = box.bottom
    height, total = bottom + 10, max(side_x + side_width, centre + row_width / 2) + 10
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:g} {height:g}" '
        f'width="{total:g}" height="{height:g}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" '
        f'font-size="12.5" fill="#222" role="img">{"".join(parts)}</svg>'
    )


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="#555" fill="none"/>'


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    if x0 == x1:
        head = f"M{x1 - 4:g} {y1 - 7:g}L{x1:g} {y1:g}L{x1 + 4:g} {y1 - 7:g}Z"
    else:
        head = f"M{x1 - 7:g} {y1 - 4:g}L{x1:g} {y1:g}L{x1 - 7:g} {y1 + 4:g}Z"
    return _line(x0, y0, x1, y1) + f'<path d="{head}" fill="#555"/>'
