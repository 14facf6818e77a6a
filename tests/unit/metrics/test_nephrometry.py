"""Points of R.E.N.A.L., PADUA and C-index at every published threshold, and what unknown parts do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renalkit.metrics.nephrometry import Basis, c_index, padua_score, renal_score
from renalkit.metrics.volume_lesions import Anatomy

POLAR = Anatomy(
    exophytic_share=0.6,
    bulge_mm=12.0,
    deepest_mm=8.0,
    long_axis=0.8,
    from_centre_mm=45.0,
    sinus_mm=9.0,
    between_polar=0.0,
    between_sinus=0.0,
    polar_mm=(-20.0, 20.0),
    z_mm=(25.0, 50.0),
    medial_mm=-6.0,
    anterior_share=1.0,
    kidney_gap_mm=0.0,
    uncertain=(),
)


def points(anatomy: Anatomy, diameter_mm: float = 25.0) -> dict[str, int | None]:
    parts = renal_score(diameter_mm, anatomy).parts + padua_score(diameter_mm, anatomy, 9.0).parts
    return {part.name: part.points for part in parts}


def test_the_least_complex_mass() -> None:
    renal, padua = renal_score(25.0, POLAR), padua_score(25.0, POLAR, collecting_mm=9.0)
    assert (renal.total, renal.group, renal.text) == (4, "low", "4a")
    assert (padua.total, padua.group, padua.text) == (6, "low", "6a")


def test_the_most_complex_mass() -> None:
    deep = replace(
        POLAR,
        exophytic_share=0.0,
        sinus_mm=0.0,
        between_polar=1.0,
        between_sinus=1.0,
        z_mm=(-10.0, 10.0),
        medial_mm=5.0,
        anterior_share=0.1,
    )
    renal, padua = renal_score(75.0, deep), padua_score(75.0, deep, collecting_mm=0.0)
    assert (renal.total, renal.group, renal.text) == (12, "high", "12p")
    assert (padua.total, padua.group, padua.text) == (14, "high", "14p")


@pytest.mark.parametrize(
    ("mm", "renal", "padua"),
    [(1, 1, 1), (40, 1, 1), (40.1, 2, 2), (69.9, 2, 2), (70, 3, 2), (70.1, 3, 3), (200, 3, 3)],
)
def test_size(mm: float, renal: int, padua: int) -> None:
    assert points(POLAR, mm)["R"] == renal
    assert points(POLAR, mm)["size"] == padua


@pytest.mark.parametrize(
    ("share", "wanted"), [(1, 1), (0.5, 1), (0.49, 2), (0.03, 2), (0.02, 3), (0, 3)]
)
def test_exophytic_share(share: float, wanted: int) -> None:
    found = points(replace(POLAR, exophytic_share=share))
    assert found["E"] == found["exophytic"] == wanted


@pytest.mark.parametrize(
    ("gap", "near", "sinus"), [(7, 1, 1), (6.9, 2, 1), (4.1, 2, 1), (4, 3, 1), (1, 3, 2), (0, 3, 2)]
)
def test_nearness_and_sinus(gap: float, near: int, sinus: int) -> None:
    found = points(replace(POLAR, sinus_mm=gap))
    assert (found["N"], found["sinus"]) == (near, sinus)


@pytest.mark.parametrize(
    ("z_mm", "between", "wanted"),
    [
        ((20.0, 40.0), 0.0, 1),  # above the upper line, touching it
        ((-60.0, -20.0), 0.0, 1),
        ((15.0, 40.0), 0.2, 2),  # over a line, mostly beyond it
        ((15.0, 24.0), 0.6, 3),  # over a line, mostly between
        ((5.0, 15.0), 1.0, 3),  # between the lines, clear of the midline
        ((-2.0, 60.0), 0.4, 3),  # over the midline
    ],
)
def test_location(z_mm: tuple[float, float], between: float, wanted: int) -> None:
    assert points(replace(POLAR, z_mm=z_mm, between_polar=between))["L"] == wanted


def test_pole_and_rim_of_padua() -> None:
    assert points(replace(POLAR, between_sinus=0.49))["pole"] == 1
    assert points(replace(POLAR, between_sinus=0.5))["pole"] == 2
    assert points(replace(POLAR, medial_mm=0.1))["rim"] == 2


@pytest.mark.parametrize(("share", "letter"), [(0.67, "a"), (0.5, "x"), (0.34, "x"), (0.33, "p")])
def test_face(share: float, letter: str) -> None:
    assert renal_score(25.0, replace(POLAR, anterior_share=share)).suffix == letter


def test_an_unknown_part_gives_a_range_and_its_reason() -> None:
    """Without the collecting system PADUA is open by one point; its group only where that is."""
    found = padua_score(25.0, POLAR)
    assert (found.range, found.total, found.group, found.text) == ((6, 7), None, "low", "6-7a")
    part = next(p for p in found.parts if p.name == "collecting system")
    assert (part.points, part.basis, part.note) == (None, Basis.UNKNOWN, "not in the segmentation")
    open_group = padua_score(50.0, POLAR)
    assert (open_group.range, open_group.group) == ((7, 8), None)


def test_without_a_sinus_nothing_that_needs_it_is_made_up() -> None:
    blind = replace(POLAR, sinus_mm=None, between_polar=None, between_sinus=None, polar_mm=None)
    renal = renal_score(25.0, blind)
    assert {p.name: p.points for p in renal.parts} == {"R": 1, "E": 1, "N": None, "L": None}
    assert renal.range == (4, 8)
    assert padua_score(25.0, blind).range == (6, 9)


def test_a_given_collecting_system_is_measured() -> None:
    found = renal_score(25.0, POLAR, collecting_mm=3.0)
    near = next(p for p in found.parts if p.name == "N")
    assert (near.points, near.value, near.basis) == (3, 3.0, Basis.MEASURED)


def test_c_index() -> None:
    assert c_index(0.0, 40.0).value == 0
    assert c_index(60.0, 40.0).value == 3
    with pytest.raises(ValueError, match="diameter of 0"):
        c_index(60.0, 0.0)
