import dataclasses
import hashlib

import numpy as np
import pytest
from scipy import ndimage

from renalkit.errors import ConfigError
from renalkit.phantom.ct import scene as ct_scene
from renalkit.phantom.ct import volume as ct
from renalkit.phantom.ct.organs import Cylinder, hard_parts
from renalkit.phantom.ct.shapes import Grid
from renalkit.phantom.ct.volume import (
    LABELS,
    CtPlan,
    Phase,
    draw_case,
    parenchyma_hu,
    render,
    render_phases,
    tissue_hu,
)

SMALL = {"matrix": 128, "slices": 48, "normal_share": 0.0}


def components(mask):
    return ndimage.label(mask, np.ones((3, 3, 3)))[1]


@pytest.fixture(scope="module")
def case():
    plan = CtPlan(
        tumours=1,
        cysts=2,
        tumour_mm=(38.0, 42.0),
        cyst_mm=(20.0, 26.0),
        aml_share=0.0,
        phases=tuple(Phase),
        noise_hu=0.0,
        touching_share=0.0,
        kidneys="both",
        **SMALL,
    )
    return draw_case(plan, 4)


@pytest.fixture(scope="module")
def volume(case):
    return render_phases(case)


@pytest.fixture(scope="module")
def owners(case):
    """Tissue that alone fills each voxel, "" elsewhere."""
    dz, dy, dx = case.spacing_mm
    grid = Grid.regular(case.origin_lps_mm, (dx, dy, dz), case.shape)
    part = ct_scene.slab(ct_scene.anatomy(case, grid), grid)
    owner = np.full(case.shape, "", dtype=object)
    for layer in part.layers:
        region = owner[layer.box]
        region[layer.cover > 0.001] = ""
        region[layer.cover > 0.999] = layer.tissue
    return owner


def sha(volume):
    digest = hashlib.sha256()
    for phase in volume.hu:
        digest.update(volume.hu[phase].tobytes())
    digest.update(volume.labels.tobytes() + volume.instances.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "tissue",
    ["cortex", "medulla", "aorta", "vena_cava", "liver", "muscle", "spleen", "sinus", "stool"],
)
def test_each_tissue_has_its_hu_in_each_phase(case, volume, owners, phase, tissue):
    where = owners == tissue
    if tissue == "sinus":  # rarely fills a voxel of this size alone
        where = (owners == tissue) & (volume.labels == 0)
    if where.sum() < 20:
        pytest.skip("too few voxels of this tissue alone")
    tolerance = 40.0 if tissue == "stool" else 7.0
    assert volume.hu[phase][where].mean() == pytest.approx(
        tissue_hu(case, phase)[tissue], abs=tolerance
    )


def test_tissues_meet_the_anchors(case):
    plain = dataclasses.replace(case, contrast=1.0)
    tables = {phase: tissue_hu(plain, phase) for phase in Phase}
    for phase, cortex, medulla in (
        (Phase.NON_CONTRAST, 32, 32),
        (Phase.CORTICOMEDULLARY, 190, 95),
        (Phase.NEPHROGRAPHIC, 165, 160),
    ):
        assert (tables[phase]["cortex"], tables[phase]["medulla"]) == (cortex, medulla)
        assert tables[phase]["fat"] == pytest.approx(-100, abs=5)
        assert tables[phase]["sinus"] == -80


def test_contrast_passes_through_the_kidney_in_order(case, volume, owners):
    cortex, medulla, urine = (owners == name for name in ("cortex", "medulla", "urine"))
    apart = {p: volume.hu[p][cortex].mean() - volume.hu[p][medulla].mean() for p in Phase}
    assert abs(apart[Phase.NON_CONTRAST]) < 5
    assert apart[Phase.CORTICOMEDULLARY] > 70
    assert abs(apart[Phase.NEPHROGRAPHIC]) < 12
    assert apart[Phase.EXCRETORY] < -10
    assert urine.any()
    assert volume.hu[Phase.NEPHROGRAPHIC][urine].mean() < 20
    assert volume.hu[Phase.EXCRETORY][urine].mean() > 500


def test_fat_keeps_the_organs_off_the_kidney():
    case = draw_case(CtPlan(matrix=128, slices=48, normal_share=1.0, kidneys="both"), 6)
    volume = render(case, Phase.NEPHROGRAPHIC)
    kidney = volume.labels == 1
    distance = ndimage.distance_transform_edt(~kidney, volume.spacing_mm)
    ring = (distance > 3.0) & (distance < 5.0)
    assert np.median(volume.hu[Phase.NEPHROGRAPHIC][ring]) < -70


def test_stool_is_matter_with_bubbles_of_gas(volume, owners):
    values = volume.hu[Phase.NEPHROGRAPHIC][owners == "stool"]
    assert 0 < np.median(values) < 50
    assert 0.01 < (values < -100).mean() < 0.3


def test_vertebrae_are_about_300_hu(case, volume):
    bodies = [
        part.shape
        for part in hard_parts(case)
        if isinstance(part.shape, Cylinder) and part.tissue == "cortical"
    ]
    z, y, x = (
        start + step * np.arange(n)
        for start, step, n in zip(
            reversed(case.origin_lps_mm), case.spacing_mm, case.shape, strict=True
        )
    )
    inside = np.zeros(case.shape, bool)
    for body in bodies:
        (cx, cy, cz), (a, b) = body.centre_mm, body.semi_axes_mm
        flat = ((x[None] - cx) / a) ** 2 + ((y[:, None] - cy) / b) ** 2 < 1.0
        inside |= (np.abs(z - cz) < body.half_height_mm)[:, None, None] & flat
    assert inside.sum() > 1000
    for hu in volume.hu.values():
        assert 250 <= hu[inside].mean() <= 350


def test_cysts_stay_water_and_solid_masses_take_up_contrast(case, volume):
    for one, truth in zip(case.lesions, volume.lesions, strict=True):
        values = list(truth.mean_hu.values())
        if one.bosniak == "I":
            assert max(values) - min(values) < 10
        if one.lesion_class == "cystic":
            inside = ndimage.binary_erosion(volume.instances == one.number)
            assert -5 <= np.median(volume.hu[Phase.NEPHROGRAPHIC][inside]) <= 30
        else:
            table = tissue_hu(case, Phase.NEPHROGRAPHIC)
            share = table[f"lesion {one.number}"] / parenchyma_hu(case, Phase.NEPHROGRAPHIC)
            assert 0.5 <= share <= 0.95
            assert truth.mean_hu["nephrographic"] > truth.mean_hu["non-contrast"] + 20


def test_fat_of_an_aml_shows_in_every_phase():
    plan = CtPlan(
        tumours=1, cysts=0, tumour_mm=(30.0, 40.0), aml_share=0.94, phases=tuple(Phase), **SMALL
    )
    found = [draw_case(plan, seed) for seed in range(4)]
    case = next(one for one in found if one.lesions[0].lesion_class == "AML")
    for hu in render_phases(case).lesions[0].mean_hu.values():
        assert -70 <= hu <= -15


def test_volumes_match_within_partial_volume(volume):
    for truth in volume.lesions:
        assert truth.voxel_volume_mm3 == pytest.approx(truth.volume_mm3, rel=0.08)


def test_labels_and_instances_agree(case, volume):
    assert set(np.unique(volume.instances)) == {0, *(one.number for one in case.lesions)}
    for one in case.lesions:
        labels = np.unique(volume.labels[volume.instances == one.number])
        assert labels.tolist() == [LABELS[one.label]]
    assert ((volume.labels >= 2) == (volume.instances > 0)).all()


def test_the_affine_leads_from_voxels_to_the_patient(case, volume):
    affine = np.asarray(volume.affine_lps_mm)
    for one, truth in zip(case.lesions, volume.lesions, strict=True):
        index = np.argwhere(volume.instances == one.number).mean(axis=0)
        assert np.allclose((affine @ [*index, 1.0])[:3], truth.centre_mm, atol=4.0)
        assert (truth.centre_mm[0] > 0) == (truth.side == "left")


def test_the_kidney_label_has_a_kidneys_volume(case, volume):
    voxel = np.prod(volume.spacing_mm)
    plan = dataclasses.replace(case, lesions=(), distractors=())
    kidneys = (render(plan, Phase.NEPHROGRAPHIC).labels == 1).sum() * voxel / 1000
    assert 2 * 90 <= kidneys <= 2 * 200  # ml
    assert components(volume.labels > 0) >= 2


def test_pixels_depend_on_case_and_phase_only(case, volume, monkeypatch):
    alone = render(case, Phase.EXCRETORY)
    assert np.array_equal(alone.hu[Phase.EXCRETORY], volume.hu[Phase.EXCRETORY])
    monkeypatch.setattr(ct, "_SLAB_VOXELS", 11 * 128 * 128)
    assert sha(render_phases(case)) == sha(volume)


def test_noise_has_its_deviation_and_is_band_passed():
    plan = CtPlan(tumours=0, cysts=0, noise_hu=20.0, slice_spacing_mm=3.0, matrix=256, slices=60)
    case = dataclasses.replace(draw_case(plan, 2), shape=(6, 256, 256))
    noisy = render(case, Phase.NEPHROGRAPHIC).hu[Phase.NEPHROGRAPHIC].astype(float)
    calm = render(dataclasses.replace(case, noise_hu=0.0), Phase.NEPHROGRAPHIC)
    noise = (noisy - calm.hu[Phase.NEPHROGRAPHIC])[:, 108:148, 108:148]
    assert noise.std() == pytest.approx(20.0 * 1.1, rel=0.1)
    spectrum = np.abs(np.fft.fft2(noise)).mean(axis=0)
    assert spectrum[0, 0] < 0.7 * spectrum[0, 4:9].mean()  # little power at the lowest frequency
    flat = noise.reshape(6, -1)
    neighbours = [np.corrcoef(flat[k], flat[k + 1])[0, 1] for k in range(5)]
    assert np.mean(neighbours) == pytest.approx(0.34, abs=0.1)


def test_a_normal_scan_has_no_instances():
    plan = CtPlan(matrix=96, slices=40, normal_share=1.0, distractors=8.0, kidneys="both")
    case = draw_case(plan, 3)
    volume = render(case, Phase.CORTICOMEDULLARY)
    assert volume.lesions == ()
    assert not volume.instances.any()
    assert set(np.unique(volume.labels)) == {0, 1}
    assert {one.kind for one in case.distractors} >= {"column", "bowel_loop", "adrenal_nodule"}
    affine = np.linalg.inv(np.asarray(volume.affine_lps_mm))
    for one in case.distractors:
        if one.kind not in ("stone", "extrarenal_pelvis"):
            x, y, z = one.body.centre_mm
            index = tuple(np.rint((affine @ [x, y, z, 1.0])[:3]).astype(int))
            if all(0 <= i < n for i, n in zip(index, case.shape, strict=True)):
                # A column of cortex is kidney, however much it looks like a mass.
                assert volume.labels[index] == (1 if one.kind == "column" else 0)


def test_touching_masses_stay_two_instances():
    plan = CtPlan(
        tumours=1,
        cysts=1,
        tumour_mm=(30.0, 40.0),
        cyst_mm=(20.0, 26.0),
        touching_share=1.0,
        kidneys="left_only",
        **SMALL,
    )
    case = next(one for one in (draw_case(plan, s) for s in range(5)) if one.lesions[1].touching)
    volume = render(case, Phase.NEPHROGRAPHIC)
    assert components(volume.instances > 0) == 1
    for truth in volume.lesions:
        assert truth.voxel_volume_mm3 == pytest.approx(truth.volume_mm3, rel=0.1)
    grown = ndimage.binary_dilation(volume.instances == 1, np.ones((3, 3, 3)))
    assert (grown & (volume.instances == 2)).any()


def test_a_horseshoe_kidney_is_one_piece_and_a_single_kidney_is_on_its_side():
    plan = CtPlan(matrix=128, slices=48, normal_share=1.0, kidneys="horseshoe", distractors=0.0)
    fused = render(draw_case(plan, 2), Phase.NEPHROGRAPHIC)
    sizes = np.sort(np.bincount(ndimage.label(fused.labels, np.ones((3, 3, 3)))[0].ravel())[1:])
    assert sizes[-1] > 0.97 * sizes.sum()
    plan = dataclasses.replace(plan, kidneys="right_only")
    single = render(draw_case(plan, 2), Phase.NEPHROGRAPHIC)
    columns = np.argwhere(single.labels)[:, 2] * single.spacing_mm[2] + single.origin_lps_mm[0]
    assert columns.max() < 0


def test_thin_slices_render():
    plan = CtPlan(matrix=64, slice_spacing_mm=0.9, tumours=1, cysts=0, tumour_mm=(20.0, 25.0))
    case = draw_case(plan, 8)
    volume = render(case, Phase.NEPHROGRAPHIC)
    assert volume.spacing_mm[0] <= 1.0
    assert len(volume.labels) > 120
    assert volume.hu[Phase.NEPHROGRAPHIC].dtype == np.int16


def test_air_surrounds_the_body_and_values_fit_ct(volume):
    hu = volume.hu[Phase.NEPHROGRAPHIC]
    assert hu.min() >= -1024
    assert hu[:, :5, :5].max() < -900
    assert hu.max() <= 3071


def test_phases_must_differ(case):
    with pytest.raises(ConfigError, match="different phases"):
        render_phases(case, (Phase.EXCRETORY, Phase.EXCRETORY))
    with pytest.raises(ConfigError, match="different phases"):
        render_phases(case, ())
