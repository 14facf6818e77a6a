"""Where do known consoles show their two panes? A file that users write and edit.

    [[layout]]
    name = "left and right"
    vendor = "Aster"
    model = "A9"
    rows = 600
    cols = 800
    bmode = [4, 54, 394, 519]        # x, y, width, height in px
    contrast = [402, 54, 394, 519]

A layout counts for clips of that maker, model and picture size; several may stand for one console.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from renalkit.config import Settings, parse_settings, read_toml
from renalkit.domain.geometry import Box
from renalkit.domain.study import Scanner
from renalkit.errors import ConfigError

Corners = tuple[int, int, int, int]


class _Entry(Settings):
    name: str = Field(min_length=1)
    vendor: str = Field(min_length=1)
    model: str = Field(min_length=1)
    rows: int = Field(gt=0)
    cols: int = Field(gt=0)
    bmode: Corners
    contrast: Corners

    @model_validator(mode="after")
    def _check(self) -> _Entry:
        problems: list[str] = []
        boxes: list[Box] = []
        for what, values in (("bmode", self.bmode), ("contrast", self.contrast)):
            try:
                box = Box(*values)
            except ValueError as error:
                problems.append(f"{what}: {error}")
                continue
            boxes.append(box)
            if not box.fits(self.rows, self.cols):
                problems.append(f"{what}: leaves the picture of {self.rows} x {self.cols}")
        if len(boxes) == 2:
            a, b = boxes
            if (a.width, a.height) != (b.width, b.height):
                problems.append("bmode and contrast: panes of different size")
            elif abs(a.x - b.x) < a.width and abs(a.y - b.y) < a.height:
                problems.append("bmode and contrast: panes that overlap")
        if problems:
            raise ConfigError(problems)
        return self


class _File(Settings):
    layout: tuple[_Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """The two panes of one console at one picture size (rows x cols)."""

    name: str
    vendor: str
    model: str
    rows: int
    cols: int
    bmode: Box
    contrast: Box

    @property
    def panes(self) -> tuple[tuple[Literal["bmode", "contrast"], Box], ...]:
        return ("bmode", self.bmode), ("contrast", self.contrast)


@dataclass(frozen=True, slots=True)
class Presets:
    """Layouts of known consoles."""

    layouts: tuple[Layout, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Presets:
        """Read a file of layouts.

        Raises:
            ConfigError: the file cannot be read or is wrong; every problem is named.
        """
        try:
            entries = parse_settings(_File, read_toml(path)).layout
        except ConfigError as error:
            raise ConfigError(error.problems, where=path.name) from error
        made = [
            Layout(e.name, e.vendor, e.model, e.rows, e.cols, Box(*e.bmode), Box(*e.contrast))
            for e in entries
        ]
        keys = [(_key(e.vendor), _key(e.model), e.rows, e.cols, e.name) for e in made]
        twice = sorted(
            {f"layout '{k[4]}': given twice for one console" for k in keys if keys.count(k) > 1}
        )
        if twice:
            raise ConfigError(twice, where=path.name)
        return cls(tuple(made))

    def of(self, scanner: Scanner | None, rows: int, cols: int) -> tuple[Layout, ...]:
        """The layouts of a machine at a picture size; none when the machine is not known."""
        if scanner is None or scanner.manufacturer is None or scanner.model is None:
            return ()
        machine = _key(scanner.manufacturer), _key(scanner.model)
        return tuple(
            layout
            for layout in self.layouts
            if (_key(layout.vendor), _key(layout.model)) == machine
            and (layout.rows, layout.cols) == (rows, cols)
        )

    @property
    def text(self) -> str:
        """The file; `load` reads the same layouts from it."""
        return "\n".join(_entry_text(layout) for layout in self.layouts)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _entry_text(layout: Layout) -> str:
    names = ((n, getattr(layout, n)) for n in ("name", "vendor", "model"))
    # A JSON string is a TOML string.
    words = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in names]
    size = [f"rows = {layout.rows}", f"cols = {layout.cols}"]
    boxes = [f"{name} = [{b.x}, {b.y}, {b.width}, {b.height}]" for name, b in layout.panes]
    return "\n".join(["[[layout]]", *words, *size, *boxes, ""])
