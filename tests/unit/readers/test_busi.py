"""The public BUSI set in both layouts, built by code, and the packed copy where it is there."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renalkit.errors import InputRefused, Reason
from renalkit.readers.busi import is_busi, read_busi
from renalkit.readers.contract import Outcome, ReadContext
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.pseudonyms import Pseudonyms

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "busi"


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as made:
        yield made


def _picture(path, seed, square=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32), dtype=np.uint8)
    if square is not None:
        pixels = np.zeros((24, 32), np.uint8)
        pixels[square : square + 4, 2:8] = 255
    Image.fromarray(pixels).save(path)


def _read(folder, worker, groups="none"):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    context = ReadContext(folder, Pseudonyms(bytes(32)), worker)
    results = list(read_busi(files, context, groups))
    assert sorted(f.path for r in results for f in r.files) == files
    return results


@pytest.fixture
def original(tmp_path):
    root = tmp_path / "Dataset_BUSI_with_GT"
    for seed, name in enumerate(
        ("benign/benign (1)", "malignant/malignant (2)", "normal/normal (3)")
    ):
        _picture(root / f"{name}.png", seed)
        _picture(root / f"{name}_mask.png", 0, 30 if "normal" in name else 4)
    _picture(root / "benign/benign (1)_mask_1.png", 0, 12)
    _picture(root / "malignant/benign (9).png", 0)
    return tmp_path


def test_original_layout(original, worker):
    assert is_busi(list(original.rglob("*.png")), original)
    results = _read(original, worker)
    studies = [r.study for r in results if r.study]
    assert [s.label or s.lesions[0].label for s in studies] == ["benign", "malignant", "normal"]
    assert [[roi.mask.area_px for m in s.lesions for roi in m.rois] for s in studies] == [
        [48], [24], [],
    ]  # fmt: skip
    assert not any(s.patient_known for s in studies)
    assert len({s.patient for s in studies}) == 3
    (lost,) = [f for r in results for f in r.files if f.outcome is Outcome.SKIPPED]
    assert lost.path.name == "benign (9).png"  # a benign name in the malignant folder
    assert not [f for r in results for f in r.files if f.outcome is Outcome.WARNED]


@pytest.fixture
def packed(tmp_path):
    lines = ["case_id,group_id,group_mixed_labels,label"]
    rows = (("benign_0001", "g1", 0), ("benign_0002", "g1", 0), ("malignant_0003", "g2", 1),
            ("benign_0004", "g2", 1), ("normal_0005", "g3", 0))  # fmt: skip
    for seed, (name, group, mixed) in enumerate(rows):
        _picture(tmp_path / f"images/{name}.png", seed)
        if "normal" not in name:
            _picture(tmp_path / f"masks/{name}.png", 0, 4)
        lines.append(f"{name},{group},{mixed},{name.split('_')[0]}")
    (tmp_path / "manifest.csv").write_text("\n".join((*lines, "benign_0099,g9,0,benign", "")))
    return tmp_path


def test_packed_layout_without_groups(packed, worker):
    results = _read(packed, worker)
    studies = [r.study for r in results if r.study]
    assert len({s.patient for s in studies}) == len(studies) == 5
    assert not any(r.exclude_because for r in results)
    (skipped,) = [f for r in results for f in r.files if f.outcome is Outcome.SKIPPED]
    assert skipped.path.name == "manifest.csv"
    (packed / "manifest.csv").write_text("not,a\nmanifest\n")
    assert [r.study for r in _read(packed, worker) if r.study] == studies  # never read


def test_packed_layout_with_groups(packed, worker):
    results = _read(packed, worker, "manifest")
    studies = [r.study for r in results if r.study]
    assert len({s.key for s in studies}) == 5
    assert len({s.patient for s in studies}) == 3
    assert not any(s.patient_known for s in studies)
    excluded = [r for r in results if r.exclude_because]
    assert [r.study.lesions[0].label for r in excluded] == ["benign", "malignant"]
    assert "contradictory" in excluded[0].exclude_because


def test_groups_need_a_manifest_that_lists_the_pictures(packed, worker):
    text = (packed / "manifest.csv").read_text()
    (packed / "manifest.csv").write_text(text.replace("normal_0005,g3,0,normal\n", ""))
    with pytest.raises(InputRefused, match="1 pictures that the manifest does not list"):
        _read(packed, worker, "manifest")
    (packed / "manifest.csv").write_text(text.replace("g3,0", "g3,?"))
    with pytest.raises(InputRefused, match="line 6: not one row per case"):
        _read(packed, worker, "manifest")
    (packed / "manifest.csv").unlink()
    with pytest.raises(InputRefused, match=r"no manifest\.csv") as caught:
        _read(packed, worker, "manifest")
    assert caught.value.reason is Reason.MISSING_FILE


def test_lone_masks_and_damaged_pictures_are_accounted_for(packed, worker):
    _picture(packed / "masks/benign_0077.png", 0, 4)
    (packed / "images/benign_0001.png").write_bytes(b"")
    results = _read(packed, worker)
    refused = {f.path.name: f.reasons[0].reason for r in results for f in r.files
               if f.outcome is Outcome.REFUSED}  # fmt: skip
    assert refused == {"benign_0077.png": Reason.EXTRA_FILE, "benign_0001.png": Reason.EMPTY}
    assert len([r for r in results if r.study]) == 4


def test_other_folders_are_not_busi(tmp_path):
    _picture(tmp_path / "images/case_1.png", 0)
    assert not is_busi(list(tmp_path.rglob("*.png")), tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("groups", ["none", "manifest"])
def test_the_packed_set(worker, groups):
    if not DATA.is_dir():
        pytest.skip(f"NOT TESTED ON REAL DATA: no BUSI in {DATA} (set RENALKIT_DATA)")
    results = _read(DATA, worker, groups)
    studies = [r.study for r in results if r.study]
    labels = [s.label or s.lesions[0].label for s in studies]
    assert {n: labels.count(n) for n in set(labels)} == {
        "benign": 357,
        "malignant": 190,
        "normal": 94,
    }
    assert sum(len(m.rois) for s in studies for m in s.lesions) == 547
    assert {len(r.files) for r in results if r.study and r.study.lesions} == {2}
    assert not any(s.patient_known for s in studies)
    colour = sum(s.clips[0].frame(0).pixels.ndim == 3 for s in studies)
    assert colour == 13
    excluded = [r for r in results if r.exclude_because]
    patients = {s.patient for s in studies}
    assert (len(excluded), len(patients)) == ((0, 641) if groups == "none" else (19, 600))
