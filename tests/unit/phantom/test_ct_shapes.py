import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.phantom.ct.shapes import (
    Ellipsoid,
    Grid,
    averaged,
    capsule,
    cylinder,
    ellipsoid,
    random_rotation,
    texture,
    unit_ball,
)


def grid(step=(1.0, 1.0, 2.0), half=30.0):
    shape = tuple(int(2 * half / s) for s in reversed(step))
    return Grid.regular((-half, -half, -half), step, shape)


def volume(cover, step):
    return float(cover.sum()) * math.prod(step)


@given(
    axes=st.tuples(*[st.floats(8.0, 20.0)] * 3),
    seed=st.integers(0, 1000),
    centre=st.tuples(*[st.floats(-6.0, 6.0)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_an_ellipsoid_covers_its_volume_in_any_pose(axes, seed, centre):
    step = (1.0, 1.0, 2.0)
    shape = Ellipsoid(centre, axes, random_rotation(np.random.default_rng(seed)))
    found = ellipsoid(grid(step), shape)
    assert found is not None
    assert volume(found.cover(), step) == pytest.approx(4 / 3 * math.pi * math.prod(axes), rel=0.04)


def test_thick_slices_share_the_volume_of_a_capsule_and_a_cylinder():
    step = (0.8, 0.8, 5.0)
    tube = capsule(grid(step), (-10.0, 3.0, -8.0), (12.0, -4.0, 9.0), (6.0, 6.0))
    length = math.dist((-10.0, 3.0, -8.0), (12.0, -4.0, 9.0))
    expected = math.pi * 36 * length + 4 / 3 * math.pi * 6**3
    assert tube is not None
    assert volume(tube.cover(), step) == pytest.approx(expected, rel=0.06)
    drum = cylinder(grid(step), (0.0, 0.0, 1.0), (15.0, 10.0), 12.0)
    assert drum is not None
    assert volume(drum.cover(), step) == pytest.approx(math.pi * 150 * 24, rel=0.04)


def test_an_inset_shape_is_smaller_by_that_much():
    step = (0.7, 0.7, 0.7)
    ball = ellipsoid(grid(step, 20.0), Ellipsoid((0.0, 0.0, 0.0), (12.0, 12.0, 12.0)))
    assert ball is not None
    assert volume(ball.cover(2.0), step) == pytest.approx(4 / 3 * math.pi * 10**3, rel=0.01)


def test_a_shape_smaller_than_a_slice_keeps_its_volume_when_averaged():
    step = (0.8, 0.8, 5.0)
    whole = grid(step, 10.0)
    shape = Ellipsoid((0.3, -0.2, 0.9), (2.0, 2.0, 2.0))
    box = whole.box(shape.centre_mm, shape.half_extent_mm)
    assert box is not None

    def cover(part):
        found = ellipsoid(part, shape)
        out = np.zeros(part.shape, np.float32)
        out[found.box] = found.cover()
        return out

    fine = averaged(whole, box, 4.0, cover)
    assert fine.shape == whole.cut(box).shape
    # The blur of the scanner spreads a shape this small beyond its box a little.
    assert volume(fine, step) == pytest.approx(4 / 3 * math.pi * 8, rel=0.12)


def test_coverage_does_not_depend_on_how_the_grid_is_cut():
    shape = Ellipsoid((1.0, 2.0, 3.0), (12.0, 9.0, 7.0), random_rotation(np.random.default_rng(2)))
    whole = grid()
    full = np.zeros(whole.shape, np.float32)
    found = ellipsoid(whole, shape)
    full[found.box] = found.cover()
    pieces = []
    for first in range(0, whole.shape[0], 7):
        part = whole.cut((slice(first, first + 7), slice(None), slice(None)))
        piece = np.zeros(part.shape, np.float32)
        found = ellipsoid(part, shape)
        if found is not None:
            piece[found.box] = found.cover()
        pieces.append(piece)
    assert np.array_equal(np.concatenate(pieces), full)
    wave = texture(whole, 4.0, 5)
    half = texture(whole.cut((slice(4, 9), slice(3, 20), slice(5, 25))), 4.0, 5)
    assert np.array_equal(half, wave[4:9, 3:20, 5:25])


def test_a_shape_outside_the_grid_is_none():
    assert ellipsoid(grid(), Ellipsoid((200.0, 0.0, 0.0), (9.0, 9.0, 9.0))) is None
    assert capsule(grid(), (0.0, 0.0, 90.0), (0.0, 9.0, 90.0), (2.0, 2.0)) is None


def test_texture_has_unit_deviation():
    wave = texture(grid((1.0, 1.0, 1.0)), 2.5, 9)
    assert abs(float(wave.mean())) < 0.1
    assert float(wave.std()) == pytest.approx(1.0, abs=0.15)


def test_ball_points_fill_the_unit_sphere_evenly():
    radius = np.linalg.norm(unit_ball(2000), axis=1)
    assert radius.max() <= 1.0
    assert float((radius < 0.5).mean()) == pytest.approx(1 / 8, abs=0.01)
