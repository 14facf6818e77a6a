import math

import numpy as np
import pytest

from renalkit.phantom.ct.lesions import (
    CYST_DIAMETERS_MM,
    PERCENTS,
    SOLID_SHARE_OF_PARENCHYMA,
    TUMOUR_DIAMETERS_MM,
    Kidney,
    draw_diameter,
    draw_lesion,
    in_septum,
)
from renalkit.phantom.ct.scene import lesion_cover
from renalkit.phantom.ct.shapes import Ellipsoid, Grid, unit_sphere
from renalkit.phantom.histology import Histology


def lesions(label, n=200, diameter_mm=40.0, seed=0, aml_share=0.1):
    rng = np.random.default_rng(seed)
    return [draw_lesion(1, label, diameter_mm, aml_share, rng) for _ in range(n)]


@pytest.mark.parametrize(
    ("label", "anchors"), [("tumour", TUMOUR_DIAMETERS_MM), ("cyst", CYST_DIAMETERS_MM)]
)
def test_diameters_follow_the_percentiles_of_kits(label, anchors):
    rng = np.random.default_rng(1)
    drawn = [draw_diameter(label, rng) for _ in range(4000)]
    found = np.percentile(drawn, PERCENTS[1:-1])
    assert np.allclose(found, anchors[1:-1], rtol=0.09)


@pytest.mark.parametrize("label", ["tumour", "cyst"])
def test_the_analytic_volume_is_that_of_the_shape(label):
    for lesion in lesions(label, n=5, diameter_mm=24.0):
        step = (0.6, 0.6, 0.6)
        grid = Grid.regular((-24.0,) * 3, step, (80, 80, 80))
        _, cover = lesion_cover(grid, lesion)
        assert float(cover.sum()) * math.prod(step) == pytest.approx(lesion.volume_mm3, rel=0.01)
        assert lesion.volume_mm3 == pytest.approx(math.pi / 6 * 24.0**3)


def test_classes_keep_their_definitions():
    drawn = lesions("tumour", n=200) + lesions("cyst", n=100)
    kinds = {
        kind: [one for one in drawn if one.lesion_class == kind]
        for kind in ("AML", "cystic", "solid")
    }
    assert all(len(members) > 5 for members in kinds.values())
    for one in kinds["cystic"]:
        assert one.enhancing_share <= 0.25
        assert 2.0 <= one.base_hu <= 18.0
        assert (one.label == "tumour") == (one.bosniak in ("III", "IV"))
    for one in kinds["solid"]:
        assert one.enhancing_share > 0.25
        low, high = SOLID_SHARE_OF_PARENCHYMA
        assert low <= one.enhancement <= high
        assert one.bosniak == ""
    for one in kinds["AML"]:
        assert one.histology is Histology.AML
        assert not one.calcifications


def test_enhancement_of_solid_masses_is_uniform_and_orders_the_histologies():
    solid = [one for one in lesions("tumour", n=900) if one.lesion_class == "solid"]
    values = np.array([one.enhancement for one in solid])
    assert np.allclose(np.percentile(values, [25, 50, 75]), [0.6125, 0.725, 0.8375], atol=0.045)
    mean = {
        kind: values[[one.histology is kind for one in solid]].mean()
        for kind in (Histology.CCRCC, Histology.CHRCC, Histology.PRCC)
    }
    assert mean[Histology.PRCC] < mean[Histology.CHRCC] < mean[Histology.CCRCC]


def test_only_large_masses_are_necrotic():
    small = lesions("tumour", n=150, diameter_mm=25.0)
    large = lesions("tumour", n=150, diameter_mm=80.0)
    assert not any(one.core_kind == "necrosis" for one in small)
    solid = [one for one in large if one.lesion_class == "solid"]
    assert np.mean([one.core_kind == "necrosis" for one in solid]) > 0.6


def test_a_higher_bosniak_class_shows_more():
    drawn = lesions("cyst", n=150) + lesions("tumour", n=200)
    by = {
        kind: [one for one in drawn if one.bosniak == kind]
        for kind in ("I", "II", "IIF", "III", "IV")
    }
    assert all(by.values())
    assert not any(one.septa or one.calcifications for one in by["I"])
    assert all(1 <= len(one.septa) <= 3 for one in by["II"])
    assert all(len(one.septa) > 3 for one in by["IIF"])
    assert all(one.nodule is not None for one in by["IV"])
    assert not any(one.nodule for kind in ("I", "II", "IIF", "III") for one in by[kind])


def test_septa_are_bowed_sheets_through_the_mass():
    drawn = [one for one in lesions("cyst", n=60) if one.septa]
    assert drawn
    for one in drawn:
        for septum in one.septa:
            towards = np.asarray(septum.centre_mm)
            towards = towards / np.linalg.norm(towards)
            crossing = np.asarray(septum.centre_mm) - towards * septum.radius_mm
            assert np.linalg.norm(crossing) < one.diameter_mm / 2  # the sheet meets the mass
            depth = in_septum(septum, np.stack([crossing, crossing + 6.0 * towards]))
            assert depth[0] == pytest.approx(septum.thickness_mm / 2)
            assert depth[1] < 0.0


def test_a_kidney_is_bent_without_losing_volume():
    kidney = Kidney(
        "left", Ellipsoid((0.0, 0.0, 0.0), (52.0, 27.0, 24.0)), 0.3, 0.3, 1.0, 14, seed=1
    )
    points, normals = kidney.surface(unit_sphere(200))
    assert np.allclose(kidney.radius(points), 1.0, atol=1e-6)
    steps = np.array([kidney.radius(points + axis) for axis in 1e-4 * np.eye(3)]).T
    gradient = (steps - 1.0) / 1e-4
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    assert np.allclose(gradient, normals, atol=1e-3)
    lattice = np.stack(np.meshgrid(*[np.arange(-66.0, 66.0, 1.5)] * 3), axis=-1).reshape(-1, 3)
    inside = (kidney.radius(lattice) < 1.0).sum() * 1.5**3
    assert inside == pytest.approx(4 / 3 * math.pi * 52 * 27 * 24, rel=0.01)
    # Poles and lips lean towards the hilum (the second axis, negative).
    for direction in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]):
        tip, _ = kidney.surface(np.array([direction]))
        assert tip[0, 1] < -3.0


def test_the_depth_is_positive_inside_only():
    (lesion,) = lesions("tumour", n=1)
    assert np.allclose(lesion.depth_mm(lesion.surface()), 0.0, atol=1e-9)
    assert lesion.depth_mm(np.zeros((1, 3)))[0] > 10.0
    moved = lesion.moved((100.0, 0.0, 0.0))
    assert moved.depth_mm(np.zeros((1, 3)))[0] < -50.0
