"""May what renalkit needs be passed on under permissive terms?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = frozenset({"study", "train", "runtime", "export", "video", "pdf"})

ALLOWED = {
    "pyphen": "GPL, LGPL or MPL 1.1 at the user's choice, taken under the MPL; extra 'pdf' only",
}
"""Distribution that names GPL or AGPL -> why it may stay."""

BUNDLED = {
    ("av", "x264"): "extra 'video' only; named in docs/security-and-limits.md",
    ("av", "x265"): "extra 'video' only; named in docs/security-and-limits.md",
}
"""GPL libraries inside wheels that are known and documented."""

GPL_LIBRARIES = (
    *("x264", "x265", "xvidcore", "rubberband", "vidstab", "postproc", "cdio", "samplerate"),
    *("fftw3", "gsl", "readline", "poppler", "mupdf", "gdcm"),
)
"""Libraries under GPL that wheels of imaging packages have been seen to bundle."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """A distribution and everything it needs, by normal name. Fails on what is not installed."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(normal(name), frozenset(extras))]
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            found[item[0]] = distribution(item[0])
        except PackageNotFoundError:
            pytest.fail(f"{item[0]} is needed and not installed: its licence is unknown")
        for text in found[item[0]].requires or []:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in {"", *item[1]}):
                waiting.append((normal(requirement.name), frozenset(requirement.extras)))
    return found


def licence(metadata: Distribution) -> str:
    """What a distribution says of its licence: expression, classifiers, else the field's start."""
    fields = metadata.metadata
    classifiers = [c for c in fields.get_all("Classifier") or [] if c.startswith("License ::")]
    said = [*(fields.get_all("License-Expression") or []), *classifiers]
    return "; ".join(said or [" ".join(t.split())[:200] for t in fields.get_all("License") or []])


def is_strong_copyleft(text: str) -> bool:
    """GPL or AGPL in any spelling; not LGPL, and not when another licence may be chosen."""
    if re.search(r"\bOR\b", text):
        return all(is_strong_copyleft(part) for part in re.split(r"\bOR\b", text))
    plain = re.sub(r"(?i)\bL-?GPL[^\s;,)]*|lesser general public", "", text)
    return bool(re.search(r"(?i)\bA?GPL|affero|general public licen[cs]e", plain))


@pytest.mark.parametrize(
    "text",
    [
        "GPL-3.0-or-later",
        "GPLv3",
        "AGPL-3.0-only",
        "License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "GNU Affero General Public License",
        "MIT AND GPL-2.0-only",
    ],
)
def test_copyleft_is_recognised(text: str) -> None:
    assert is_strong_copyleft(text)


@pytest.mark.parametrize(
    "text",
    [
        "MIT",
        "LGPL-2.1-only",
        "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)",
        "Apache-2.0 OR GPL-2.0-only",
        "BSD-3-Clause",
    ],
)
def test_other_licences_are_not(text: str) -> None:
    assert not is_strong_copyleft(text)


def test_nothing_needed_is_under_gpl() -> None:
    found = needed("renalkit", EXTRAS)
    assert {"numpy", "torch", "av", "zarr", "pydicom", "weasyprint"} <= set(found)
    assert len(found) >= 40
    licences = {name: licence(d) for name, d in found.items()}
    assert [n for n, text in licences.items() if not text] == []
    strong = {n: text for n, text in licences.items() if is_strong_copyleft(text)}
    assert {n: t for n, t in strong.items() if n not in ALLOWED} == {}
    assert set(ALLOWED) <= set(strong), "an exception that is no longer needed"


def test_the_core_needs_neither_torch_nor_video() -> None:
    core = set(needed("renalkit"))
    assert not {"torch", "lightning-fabric", "monai", "av", "weasyprint", "pyphen"} & core


def bundled() -> set[tuple[str, str]]:
    """GPL libraries in the folders into which wheels put what they bundle."""
    places = [Path(p) for p in sys.path if p.endswith("site-packages")]
    found: set[tuple[str, str]] = set()
    for place in places:
        for folder in place.glob("*.libs"):
            for library in folder.iterdir():
                for name in GPL_LIBRARIES:
                    if re.match(rf"lib{name}\b|lib{name}[-.]", library.name):
                        found.add((folder.name.removesuffix(".libs"), name))
    return found


def test_gpl_libraries_inside_wheels_are_known_and_documented() -> None:
    found = bundled()
    assert found <= set(BUNDLED), "say so in docs/security-and-limits.md, or drop the wheel"
    page = (ROOT / "docs" / "security-and-limits.md").read_text(encoding="utf-8")
    for wheel, library in BUNDLED:
        assert f"`{wheel}`" in page
        assert library in page
