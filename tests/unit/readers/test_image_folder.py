"""Picture folders: every file ends in one bin, masks and tables meet the right picture."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renalkit.domain.study import GradeSystem, Pole, RoiOrigin, Side
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.annotations import MaskValues
from renalkit.readers.contract import Outcome, ReadContext
from renalkit.readers.covariates import CovariateColumn, CovariateKind
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.folder_table import Columns, Names, TableLayout
from renalkit.readers.image_folder import (
    Beside,
    BesideFiles,
    FolderLayout,
    SharedFile,
    read_image_folder,
)
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.tables import LabelMap

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_images")
LABELS = LabelMap.identity(["benign", "malignant", "normal"])
MASKS = Beside("{folder}/{stem}_mask*.png")


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as made:
        yield made


def picture(path, seed=0, rows=20, cols=30, channels=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (rows, cols, channels) if channels else (rows, cols)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def mask(path, *corners, rows=20, cols=30, value=255):
    """A mask with 4 x 4 squares at the (x, y) corners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((rows, cols), np.uint8)
    for x, y in corners:
        pixels[y : y + 4, x : x + 4] = value
    Image.fromarray(pixels).save(path)


def read(folder, layout, worker, key=bytes(32)):
    """Studies by their only or first patient order, and every file's report by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    context = ReadContext(folder, Pseudonyms(key), worker)
    results = list(read_image_folder(files, layout, context))
    reports = [f for r in results for f in r.files]
    assert sorted(f.path for f in reports) == files  # each file in exactly one bin
    studies = [r.study for r in results if r.study]
    return studies, {f.path.relative_to(folder).as_posix(): f for f in reports}, context


def reasons(report):
    return {d.reason for d in report.reasons}


def table(folder, *lines, **columns):
    (folder / "t.csv").write_text("\n".join((*lines, "")), encoding="utf-8")
    return TableLayout("t.csv", Columns(**columns), LABELS, normal=("normal",))


def test_pictures_alone(tmp_path, worker):
    pixels = picture(tmp_path / "a.png")
    colour = picture(tmp_path / "b.bmp", 1, channels=3)
    (tmp_path / "notes.txt").write_text("words")
    studies, files, _ = read(tmp_path, FolderLayout(), worker)
    assert [s.patient_known for s in studies] == [False, False]
    assert np.array_equal(studies[0].clips[0].frame(0).pixels, pixels)
    assert np.array_equal(studies[1].clips[0].frame(0).pixels, colour)
    assert [s.covariates["source_format"] for s in studies] == ["png", "bmp"]
    assert [d.reason for d in studies[0].defects] == [Reason.NO_REGIONS]
    assert studies[0].clips[0].spacing_mm is None
    assert files["notes.txt"].outcome is Outcome.REFUSED
    _, files, _ = read(tmp_path, FolderLayout(images="**/*.png"), worker)
    assert files["notes.txt"].outcome is Outcome.SKIPPED


def test_several_masks_are_united(tmp_path, worker):
    picture(tmp_path / "x/a1.png")
    picture(tmp_path / "x/a10.png", 1)
    mask(tmp_path / "x/a1_mask.png", (2, 2))
    mask(tmp_path / "x/a1_mask_1.png", (4, 4))
    mask(tmp_path / "x/a1_mask_2.png", (20, 10))
    mask(tmp_path / "x/a10_mask.png", (0, 0))
    mask(tmp_path / "x/b_mask.png", (0, 0))
    studies, files, _ = read(tmp_path, FolderLayout(masks=MASKS), worker)
    areas = [s.lesions[0].rois[0].mask.area_px for s in studies]
    assert areas == [16 + 16 - 4 + 16, 16]
    assert files["x/b_mask.png"].outcome is Outcome.REFUSED
    assert reasons(files["x/b_mask.png"]) == {Reason.EXTRA_FILE}


def test_empty_mask_warns_and_mismatch_refuses_the_pair(tmp_path, worker):
    for name in "abc":
        picture(tmp_path / f"{name}.png", ord(name))
    mask(tmp_path / "a_mask.png")
    mask(tmp_path / "b_mask.png", (1, 1), rows=21)
    mask(tmp_path / "c_mask.png", (1, 1))
    mask(tmp_path / "c_mask_1.png", (9, 9), cols=31)
    studies, files, _ = read(tmp_path, FolderLayout(masks=MASKS), worker)
    assert len(studies) == 1
    assert not studies[0].lesions
    assert files["a.png"].outcome is files["a_mask.png"].outcome is Outcome.WARNED
    assert Reason.EMPTY_MASK in reasons(files["a.png"]) & reasons(files["a_mask.png"])
    assert {d.reason for d in studies[0].defects} == {Reason.NO_REGIONS, Reason.EMPTY_MASK}
    for name in ("b.png", "b_mask.png", "c.png", "c_mask.png", "c_mask_1.png"):
        assert files[name].outcome is Outcome.REFUSED
        assert reasons(files[name]) == {Reason.MASK_MISMATCH}


def test_unexpected_mask_value_refuses(tmp_path, worker):
    picture(tmp_path / "a.png")
    mask(tmp_path / "a_mask.png", (2, 2), value=3)
    values = MaskValues(values=(1, 2))
    studies, files, _ = read(tmp_path, FolderLayout(masks=MASKS, mask_values=values), worker)
    assert not studies
    assert reasons(files["a_mask.png"]) == {Reason.UNKNOWN_LABEL}


def test_one_bad_file_stops_nothing(tmp_path, worker):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (tmp_path / "c.png").write_bytes(b"")
    mask(tmp_path / "b_mask.png", (1, 1))
    studies, files, _ = read(tmp_path, FolderLayout(masks=MASKS), worker)
    assert len(studies) == 1
    assert files["a.png"].outcome is Outcome.USED
    assert reasons(files["b.png"]) == reasons(files["b_mask.png"]) == {Reason.TRUNCATED}
    assert reasons(files["c.png"]) == {Reason.EMPTY}


def test_table_with_everything(tmp_path, worker):
    for index, name in enumerate(("i/a", "i/b", "i/c", "i/n")):
        picture(tmp_path / f"{name}.png", index)
        if name != "i/n":
            mask(tmp_path / f"m/{name[2:]}.png", (3, 4))
    layout = table(
        tmp_path,
        "img,pid,dx,les,side,mm,histo,g,gs,pole,calc,flow,px,hosp,maker,dev,age",
        "i/a.png,007,malignant,1,left,12.5,ccRCC,II,FUHRMAN,upper,yes,2,0.2,H1,M,X1,61",
        "b,007,malignant,1,left,12.5,ccRCC,II,FUHRMAN,upper,yes,2,,H1,M,X1,61",
        "c.png,7,benign,,,,,,,,,,,H1,M,X2,",
        "n.png,8,normal,,,,,,,,,,,,,,",
        image="img", patient="pid", label="dx", lesion="les", side="side", size_mm="mm",
        histology="histo", grade="g", grade_system="gs", pole="pole", calcification="calc",
        flow_grade="flow", spacing_mm="px", site="hosp", manufacturer="maker", model="dev",
        covariates=(CovariateColumn("age", CovariateKind.AGE),),
    )  # fmt: skip
    layout = FolderLayout("i/*.png", Beside("m/{stem}.png"), table=layout)
    studies, files, context = read(tmp_path, layout, worker)
    first, second, normal = studies
    assert all(s.patient_known for s in studies)
    assert context.pseudonyms.issued[first.patient] == "007"
    (lesion,) = first.lesions
    assert (lesion.label, lesion.side, lesion.size_mm) == ("malignant", Side.LEFT, 12.5)
    assert (lesion.grade, lesion.grade_system) == (2, GradeSystem.FUHRMAN)
    assert (lesion.findings.pole, lesion.findings.calcification) == (Pole.UPPER, True)
    assert lesion.findings.flow_grade == 2
    assert [(r.clip, r.mask.area_px) for r in lesion.rois] == [(0, 16), (1, 16)]
    assert [c.spacing_mm for c in first.clips] == [(0.2, 0.2), None]
    assert (first.site, first.scanner.name, first.covariates["age_years"]) == ("H1", "M X1", 61.0)
    assert Reason.IDENTITY_CONFLICT in {d.reason for d in second.defects}
    assert "age_years" not in second.covariates
    assert (normal.label, normal.lesions) == ("normal", ())
    assert {f.outcome for f in files.values()} == {Outcome.USED}
    assert "007" not in repr(studies)


def test_several_lesions_of_a_picture_need_named_regions(tmp_path, worker):
    picture(tmp_path / "a.png")
    mask(tmp_path / "a_mask.png", (2, 2))
    lines = ("img,pid,dx,les", "a.png,p,benign,1", "a.png,p,malignant,2")
    columns = {"image": "img", "patient": "pid", "label": "dx", "lesion": "les"}
    layout = FolderLayout("a.png", masks=MASKS, table=table(tmp_path, *lines, **columns))
    studies, files, _ = read(tmp_path, layout, worker)
    assert len(studies[0].lesions) == 2  # the mask calls its lesion 1, like the table
    assert [len(lesion.rois) for lesion in studies[0].lesions] == [1, 0]
    lines = (lines[0], "a.png,p,benign,A", "a.png,p,malignant,B")
    layout = FolderLayout("a.png", masks=MASKS, table=table(tmp_path, *lines, **columns))
    studies, files, _ = read(tmp_path, layout, worker)
    assert not studies
    assert reasons(files["a.png"]) == {Reason.BAD_ANNOTATION}


def test_region_on_a_picture_without_lesion_is_refused(tmp_path, worker):
    for name in "ab":
        picture(tmp_path / f"normal/{name}.png", ord(name))
    mask(tmp_path / "normal/a_mask.png", (2, 2))
    mask(tmp_path / "normal/b_mask.png")
    layout = FolderLayout(masks=MASKS, label_folders=LABELS, normal=("normal",))
    studies, files, _ = read(tmp_path, layout, worker)
    assert [s.label for s in studies] == ["normal"]
    assert files["normal/a.png"].outcome is Outcome.REFUSED
    assert files["normal/b_mask.png"].outcome is Outcome.USED


def test_labels_from_folders(tmp_path, worker):
    picture(tmp_path / "benign/a.png")
    picture(tmp_path / "Benign/b.png", 1)
    studies, files, _ = read(tmp_path, FolderLayout(label_folders=LABELS), worker)
    assert [s.lesions[0].label for s in studies] == ["benign"]
    assert reasons(files["Benign/b.png"]) == {Reason.UNKNOWN_LABEL}


def test_labelme_beside_pictures(tmp_path, worker):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 1)
    shape = {"label": "mass", "points": [[2, 2], [6, 6]], "shape_type": "rectangle"}
    content = {"imageHeight": 20, "imageWidth": 30, "shapes": [shape]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "b.json").write_text(json.dumps(content | {"imageHeight": 21}))
    (tmp_path / "c.json").write_text("{}")
    source = BesideFiles("labelme", Beside("{stem}.json"), LabelMap({"mass": "malignant"}))
    layout = FolderLayout("*.png", annotations=source)
    studies, files, _ = read(tmp_path, layout, worker)
    assert [s.lesions[0].label for s in studies] == ["malignant"]
    assert studies[0].lesions[0].rois[0].mask.area_px == 16
    assert reasons(files["b.png"]) == reasons(files["b.json"]) == {Reason.MASK_MISMATCH}
    assert reasons(files["c.json"]) == {Reason.EXTRA_FILE}


def test_coco_for_all_pictures(tmp_path, worker):
    picture(tmp_path / "i/a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30},
                   {"id": 2, "file_name": "x.png", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "mass"}],
        "annotations": [{"image_id": i, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}
                        for i in (1, 2)],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(content))
    layout = FolderLayout("i/*.png", annotations=SharedFile("coco", "c.json"))
    studies, files, _ = read(tmp_path, layout, worker)
    assert studies[0].lesions[0].label is None  # the file's own words were not mapped
    assert len(studies[0].lesions[0].rois) == 1
    assert reasons(files["c.json"]) == {Reason.MISSING_FILE}


def test_cine_with_boxes_and_cvat(tmp_path, worker):
    corpus.encoded(tmp_path / "cine.mp4", count=10)
    (tmp_path / "boxes.csv").write_text(
        "file,frame,x,y,width,height,lesion\ncine.mp4,2,50,40,30,30,1\ncine.mp4,9,5,6,7,8,1\n"
    )
    layout = FolderLayout("*.mp4", annotations=SharedFile("boxes", "boxes.csv"))
    studies, files, _ = read(tmp_path, layout, worker)
    (clip,) = studies[0].clips
    assert clip.n_frames == 10
    assert clip.times_s == pytest.approx([t / 25 for t in range(10)])
    rois = studies[0].lesions[0].rois
    assert [(r.frame, r.box.width, r.box.height) for r in rois] == [(2, 14, 8), (9, 7, 8)]
    assert files["cine.mp4"].outcome is Outcome.WARNED  # one box leaves the picture
    (tmp_path / "boxes.csv").unlink()
    track = '<box frame="3" outside="0" keyframe="0" xtl="1" ytl="1" xbr="4" ybr="4"/>'
    (tmp_path / "cine.xml").write_text(
        "<annotations><meta><task><original_size><width>64</width><height>48</height>"
        f'</original_size></task></meta><track id="0" label="x">{track}</track></annotations>'
    )
    layout = FolderLayout("*.mp4", annotations=BesideFiles("cvat", Beside("{stem}.xml")))
    studies, files, _ = read(tmp_path, layout, worker)
    (roi,) = studies[0].lesions[0].rois
    assert (roi.frame, roi.origin) == (3, RoiOrigin.PROPAGATED)
    assert {f.outcome for f in files.values()} == {Outcome.USED}


def test_labelme_per_frame_and_frames_that_do_not_exist(tmp_path, worker):
    corpus.encoded(tmp_path / "cine.mp4", count=5)
    shape = {"label": "x", "points": [[2, 2], [6, 6]], "shape_type": "rectangle"}
    text = json.dumps({"imageHeight": 48, "imageWidth": 64, "shapes": [shape]})
    for frame in (1, 4):
        (tmp_path / f"cine_frame{frame:06}.json").write_text(text)
    source = BesideFiles("labelme", Beside("{stem}_frame{frame}.json"))
    layout = FolderLayout("*.mp4", annotations=source)
    studies, _, _ = read(tmp_path, layout, worker)
    assert [r.frame for r in studies[0].lesions[0].rois] == [1, 4]
    (tmp_path / "cine_frame000005.json").write_text(text)
    studies, files, _ = read(tmp_path, layout, worker)
    assert not studies
    assert reasons(files["cine.mp4"]) == {Reason.BAD_ANNOTATION}


def test_keys_do_not_depend_on_the_folder_but_on_the_key(tmp_path, worker):
    for place in ("one", "two"):
        picture(tmp_path / place / "a.png")
    first, _, _ = read(tmp_path / "one", FolderLayout(), worker)
    second, _, _ = read(tmp_path / "two", FolderLayout(), worker)
    other, _, _ = read(tmp_path / "two", FolderLayout(), worker, key=b"k" * 32)
    assert first == second
    assert other[0].key != first[0].key
    assert other[0].clips[0].source.keyed_path != first[0].clips[0].source.keyed_path


def test_missing_table_and_annotation_file(tmp_path, worker):
    picture(tmp_path / "a.png")
    layout = FolderLayout(table=TableLayout("t.csv", Columns("img")))
    with pytest.raises(InputRefused, match="no label table") as caught:
        read(tmp_path, layout, worker)
    assert caught.value.reason is Reason.MISSING_FILE
    with pytest.raises(InputRefused, match="no annotation file"):
        read(tmp_path, FolderLayout(annotations=SharedFile("coco", "c.json")), worker)


def test_ambiguous_names_are_refused():
    names = Names(["x/a.png", "y/a.png", "y/b.png"])
    assert names.find("x/a.png") == "x/a.png"
    assert names.find("other\\b.png") == names.find("b") == "y/b.png"
    assert names.find("../../etc/passwd") is None
    for text in ("a.png", "z/a.png", "ay/a.png"):
        with pytest.raises(InputRefused, match="2 pictures have"):
            names.find(text)


def test_a_path_is_known_by_its_end():
    """A table written for a folder is read with the folder above, or the one below."""
    names = Names(["P1/clip.dcm", "P2/clip.dcm", "more/P2/b.dcm", "clip.dcm"])
    assert names.find("dicom/P2/clip.dcm") == names.find("dicom/P2/clip.dcm") == "P2/clip.dcm"
    assert names.find("P2\\b.dcm") == "more/P2/b.dcm"
    with pytest.raises(InputRefused, match="3 pictures have"):
        names.find("P3/clip.dcm")


@pytest.mark.parametrize(
    "template", ["masks/x.png", "{stem}{stem}.png", "*{stem}.png", "{stem}*.png", "{stem}{frame}.j"]
)
def test_templates_that_could_confuse_names(template):
    with pytest.raises(ConfigError, match="stem"):
        Beside(template)
