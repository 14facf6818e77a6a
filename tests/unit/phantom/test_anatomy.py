"""Anatomy: masks and tissue levels where they belong, the mass in view."""

import math
from dataclasses import replace

import numpy as np
import pytest

from renalkit.phantom.bmode.anatomy import Tissue, draw_anatomy, draw_view, tissue_map
from renalkit.phantom.bmode.field import line_db, make_field, ramp, smooth_noise
from renalkit.phantom.bmode.lesion import draw_features


def grid(step=0.5):
    return np.meshgrid(
        np.arange(-80, 80, step, dtype=np.float32), np.arange(-20, 140, step, dtype=np.float32)
    )


def test_smooth_noise_is_standardised():
    rng = np.random.default_rng(4)
    values = np.stack([smooth_noise(200, 8.0, rng) for _ in range(10)])
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.15)


def test_noise_has_the_length_asked_for_along_each_axis():
    values = smooth_noise((300, 200), (20.0, 5.0), np.random.default_rng(1))
    assert values.shape == (300, 200)
    assert np.abs(np.diff(values, axis=0)).mean() > 2.5 * np.abs(np.diff(values, axis=1)).mean()


def test_beams_of_a_field_point_away_from_the_apex():
    field = make_field(*grid(), 50.0, np.random.default_rng(0))
    assert np.allclose(np.hypot(field.beam_x, field.beam_z), 1, atol=1e-4)
    at = (20, 300)
    assert field.depth_mm[at] == pytest.approx(
        math.hypot(field.x_mm[at], field.z_mm[at] + 50) - 50, abs=1e-3
    )
    rows, columns = field.window((10.0, 30.0), (5.0, 8.0))
    part = field.crop((rows, columns))
    assert (part.x_mm.min(), part.x_mm.max()) == pytest.approx((5, 15), abs=0.6)
    assert (part.z_mm.min(), part.z_mm.max()) == pytest.approx((22, 38), abs=0.6)


def test_ramp_and_line_have_their_width():
    at = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)
    assert ramp(at, 1.0) == pytest.approx([0, 0, 0.5, 1, 1])
    assert line_db(at, 0.5) == pytest.approx([-34.74, -8.686, 0, -8.686, -34.74], abs=0.01)


@pytest.mark.parametrize("side", ["left", "right"])
def test_tissue_levels_are_ordered_as_in_a_kidney(side):
    rng = np.random.default_rng(5)
    x, z = grid()
    for _ in range(3):
        anatomy = draw_anatomy(None, side, rng)
        tissue = tissue_map(anatomy, draw_view(anatomy, rng), x, z, 50.0)
        area = (tissue.kidney_mm > 0).sum() * 0.25
        assert area == pytest.approx(
            math.pi * anatomy.half_length_mm * anatomy.half_width_mm, rel=0.08
        )
        assert (tissue.lesion_mm < 0).all()
        present = {Tissue(kind) for kind in np.unique(tissue.kind)}
        level = {kind: tissue.echo_db[tissue.kind == kind].mean() for kind in present}
        assert level[Tissue.SINUS] > level[Tissue.CORTEX] + 4
        assert level[Tissue.MEDULLA] < level[Tissue.CORTEX] - 3
        assert level[Tissue.CORTEX] == pytest.approx(0, abs=1.0)
        assert level[Tissue.NEIGHBOUR] == pytest.approx(anatomy.neighbour_db, abs=2.5)
        assert {Tissue.WALL, Tissue.NEIGHBOUR, Tissue.FAT, Tissue.CONNECTIVE} <= present


def test_kidney_kinds_fill_the_kidney():
    rng = np.random.default_rng(6)
    anatomy = draw_anatomy(draw_features("benign", rng), "right", rng)
    tissue = tissue_map(anatomy, draw_view(anatomy, rng), *grid(), 50.0)
    own = [Tissue.CORTEX, Tissue.MEDULLA, Tissue.SINUS, Tissue.LESION]
    assert np.array_equal(np.isin(tissue.kind, own), tissue.kidney_mm > 0)
    assert np.array_equal(tissue.kind == Tissue.LESION, tissue.lesion_mm > 0)


def test_the_mass_lies_wholly_between_wall_and_fan_border():
    rng = np.random.default_rng(7)
    x, z = grid(1.0)
    half = math.radians(31.0)
    for index in range(25):
        lesion = draw_features("malignant", rng)
        anatomy = draw_anatomy(lesion, "left", rng)
        if index % 5 == 0:
            anatomy = replace(anatomy, lesion=replace(lesion, size_mm=70.0))
        view = draw_view(anatomy, rng)
        inside = tissue_map(anatomy, view, x, z, 45.0).lesion_mm > 0
        depth = np.hypot(x, z + 45.0)[inside] - 45.0
        assert inside.sum() > 20
        assert depth.min() > anatomy.wall_mm
        assert depth.max() < 110
        assert np.abs(np.arctan2(x, z + 45.0)[inside]).max() < half
