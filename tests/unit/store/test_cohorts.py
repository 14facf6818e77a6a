"""A cohort comes back as it was saved, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renalkit.domain.cohort import ClassTask, Cohort, Exclusion
from renalkit.domain.geometry import Box, MaskRLE, Region
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import (
    Boundary,
    Composition,
    Defect,
    Echo,
    Findings,
    GradeSystem,
    Lesion,
    Outline,
    Pole,
    Roi,
    RoiOrigin,
    Scanner,
    Side,
    Study,
)
from renalkit.domain.volume import (
    LabelMap,
    Phase,
    PhaseSource,
    Volume,
    VolumeGrid,
    affine_of,
)
from renalkit.errors import Reason, StoreError
from renalkit.store.cohorts import (
    AccountLine,
    load_account,
    load_cohort,
    plain_cell,
    safe_cell,
    save_cohort,
    study_from_json,
    study_to_json,
    table_rows,
    table_text,
)
from renalkit.store.files import parse_json

# What a UTF-8 file can hold.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
HEX20 = st.text("0123456789abcdef", min_size=20, max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SPACING = st.none() | st.tuples(*(st.floats(1e-300, 1e300) for _ in range(2)))


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


def enum(kind: type) -> st.SearchStrategy:
    return maybe(st.sampled_from(list(kind)))


@st.composite
def boxes(draw: st.DrawFn, rows: int, cols: int) -> Box:
    x, y = draw(st.integers(0, cols - 1)), draw(st.integers(0, rows - 1))
    return Box(x, y, draw(st.integers(1, cols - x)), draw(st.integers(1, rows - y)))


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    pixels = np.frombuffer(
        draw(st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), np.uint8
    )
    pixels = pixels.reshape(shape)
    steps = draw(maybe(st.lists(st.floats(0.001, 10), min_size=shape[0], max_size=shape[0])))
    region = st.builds(Region, boxes(shape[1], shape[2]), SPACING, TEXT, TEXT)
    gaps = draw(maybe(st.lists(st.integers(1, 9), min_size=shape[0], max_size=shape[0])))
    return Clip(
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=draw(st.sampled_from(list(Mode))),
        source=Source(
            draw(HEX20), draw(TEXT), draw(TEXT), draw(st.integers(0, 9)), draw(st.just("") | HEX20)
        ),
        regions=tuple(draw(st.lists(region, max_size=2))),
        spacing_mm=draw(SPACING),
        times_s=None if steps is None else tuple(float(t) for t in np.cumsum(steps)),
        offset=draw(st.tuples(st.integers(0, 900), st.integers(0, 900))),
        source_frames=None if gaps is None else tuple(int(g) for g in np.cumsum(gaps)),
    )


@st.composite
def lesions(draw: st.DrawFn, among: list[Clip], key: str) -> Lesion:
    places = [(c, f) for c, clip in enumerate(among) for f in range(clip.n_frames)]
    rois = []
    for c, f in draw(st.lists(st.sampled_from(places), unique=True, max_size=2)):
        rows, cols = among[c].rows, among[c].cols
        bits = draw(maybe(st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols)))
        mask = None if bits is None else MaskRLE.encode(np.reshape(bits, (rows, cols)))
        box = draw(boxes(rows, cols) if mask is None else maybe(boxes(rows, cols)))
        rois.append(Roi(c, f, mask, box, draw(st.sampled_from(list(RoiOrigin)))))
    system = draw(enum(GradeSystem))
    return Lesion(
        key=key,
        label=draw(maybe(TEXT)),
        side=draw(enum(Side)),
        size_mm=draw(maybe(st.floats(0, 1000, exclude_min=True, exclude_max=True))),
        histology=draw(maybe(TEXT)),
        grade=None if system is None else draw(st.integers(1, 4)),
        grade_system=system,
        findings=Findings(
            draw(enum(Pole)),
            draw(enum(Composition)),
            draw(enum(Echo)),
            draw(enum(Outline)),
            draw(enum(Boundary)),
            draw(maybe(st.booleans())),
            draw(maybe(st.integers(0, 3))),
        ),
        reference_standard=draw(maybe(TEXT)),
        typical=draw(maybe(st.booleans())),
        rois=tuple(rois),
    )


@st.composite
def studies(draw: st.DrawFn) -> Study:
    own = draw(st.lists(clips(), min_size=1, max_size=2))
    keys = draw(st.lists(HEX20, unique=True, max_size=2))
    found = tuple(draw(lesions(own, f"l-{k}")) for k in keys)
    defect = st.builds(Defect, st.sampled_from(list(Reason)), TEXT, maybe(st.integers(0, 3)))
    return Study(
        key=f"s-{draw(HEX20)}",
        patient=f"p-{draw(HEX20)}",
        clips=tuple(own),
        lesions=found,
        label=None if found else draw(maybe(TEXT)),
        patient_known=draw(st.booleans()),
        site=draw(maybe(TEXT)),
        scanner=draw(st.builds(Scanner, maybe(TEXT), maybe(TEXT))),
        covariates=draw(
            st.dictionaries(TEXT, TEXT | FINITE | st.integers() | st.booleans(), max_size=3)
        ),
        defects=tuple(draw(st.lists(defect, max_size=2))),
    )


@given(study=studies())
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
def test_a_study_comes_back_equal_from_its_record(study: Study) -> None:
    kept = {c.sha256: c.pixels for c in study.clips}
    text = json.dumps(study_to_json(study), allow_nan=False)
    back = study_from_json(parse_json(text, where="study"), lambda sha, shape, dtype: kept[sha])
    assert back == study
    assert study_to_json(back) == study_to_json(study)
    # 1 == 1.0 == True in Python: equality of the texts says that the types are kept too.
    assert json.dumps(study_to_json(back)) == text


def study(number: int, label: str = "benign", value: int = 0, **more: object) -> Study:
    pixels = np.full((1, 20, 30), value or number, np.uint8)
    pixels[0, 0, 0] = 200
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:12] = True
    return Study(
        key=f"s-{number:020x}",
        patient=f"p-{number // 2:020x}",
        clips=(
            Clip(
                pixels,
                pixel_sha256(pixels),
                Mode.B,
                Source(f"{number:064x}", f"f-{number:020x}", "png"),
            ),
        ),
        lesions=(Lesion(f"l-{number:020x}", label, rois=(Roi(0, 0, MaskRLE.encode(mask)),)),),
        **more,
    )


TASK = ClassTask(("benign", "malignant"), "malignant")


def cohort(n: int = 4) -> Cohort:
    return Cohort(
        "mine",
        TASK,
        tuple(study(i, TASK.classes[i % 2]) for i in range(n)),
        (
            Exclusion(f"s-{99:020x}", f"p-{99:020x}", '=no consent, "twice"\nasked', "benign"),
            Exclusion(f"s-{98:020x}", f"p-{98:020x}", "poor image"),
        ),
    )


ACCOUNT = tuple(AccountLine(f"f-{i:020x}", f"{i:064x}", "used") for i in range(4)) + (
    AccountLine("f-" + "e" * 20, "e" * 64, "refused", ("truncated", "codec-error")),
)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_cohort_comes_back_equal_with_its_pixels(tmp_path: Path) -> None:
    given_ = cohort()
    save_cohort(tmp_path, given_, ACCOUNT)
    back = load_cohort(tmp_path)
    assert back == given_
    assert back.digest == given_.digest
    assert back.flow == given_.flow
    assert load_account(tmp_path) == tuple(sorted(ACCOUNT))
    for a, b in zip(given_.studies, back.studies, strict=True):
        assert np.array_equal(a.clips[0].frame(0).pixels, b.clips[0].frame(0).pixels)


def test_an_order_of_classes_comes_back_and_leaves_other_heads_alone(tmp_path: Path) -> None:
    plain = cohort()
    grades = Cohort("c", ClassTask(("benign", "malignant", "normal"), ordered=True), plain.studies)
    save_cohort(tmp_path / "grades", grades)
    back = load_cohort(tmp_path / "grades")
    assert back == grades
    assert back.task.ordered
    assert "ordered = true" in (tmp_path / "grades" / "cohort.toml").read_text()
    save_cohort(tmp_path / "plain", plain)
    assert "ordered" not in (tmp_path / "plain" / "cohort.toml").read_text()
    assert not load_cohort(tmp_path / "plain").task.ordered


@pytest.mark.parametrize("value", ["false", '"yes"', "1"])
def test_a_changed_order_is_found(tmp_path: Path, value: str) -> None:
    grades = ClassTask(("benign", "malignant", "normal"), ordered=True)
    save_cohort(tmp_path, Cohort("c", grades, cohort().studies))
    head = tmp_path / "cohort.toml"
    head.write_text(head.read_text().replace("ordered = true", f"ordered = {value}"))
    with pytest.raises(StoreError, match="digest"):
        load_cohort(tmp_path)


def test_saving_is_independent_of_order_and_repeats(tmp_path: Path) -> None:
    first = cohort()
    save_cohort(tmp_path / "a", first, ACCOUNT)
    turned = Cohort(first.name, TASK, first.studies[::-1], first.exclusions[::-1])
    save_cohort(tmp_path / "b", turned, ACCOUNT[::-1])
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    save_cohort(tmp_path / "b", turned, ACCOUNT)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_saving_a_smaller_cohort_leaves_nothing_of_the_larger(tmp_path: Path) -> None:
    save_cohort(tmp_path / "a", cohort(4))
    save_cohort(tmp_path / "a", cohort(2))
    save_cohort(tmp_path / "b", cohort(2))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_numpy_numbers_do_not_change_the_digest_on_loading(tmp_path: Path) -> None:
    with_numpy = study(0, covariates={"age": np.float64(61.3)})
    save_cohort(tmp_path, Cohort("n", TASK, (with_numpy,)))
    assert load_cohort(tmp_path).studies[0].covariates["age"] == 61.3


def test_a_value_that_cannot_be_stored_is_refused_before_anything_is_replaced(
    tmp_path: Path,
) -> None:
    save_cohort(tmp_path, cohort())
    bad = study(0, covariates={"creatinine": float("nan")})
    with pytest.raises(StoreError, match="cannot be stored"):
        save_cohort(tmp_path, Cohort("n", TASK, (bad,)))
    assert load_cohort(tmp_path) == cohort()


def test_a_folder_that_is_no_cohort_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no cohort here.*ingest"):
        load_cohort(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, cohort())
    head = tmp_path / "cohort.toml"
    head.write_text(head.read_text().replace("schema = 1", "schema = 2"))
    with pytest.raises(StoreError, match="newer renalkit"):
        load_cohort(tmp_path)


def test_a_newer_study_record_is_refused() -> None:
    record = study_to_json(study(0)) | {"schema": 2}
    with pytest.raises(StoreError, match="newer renalkit"):
        study_from_json(record, lambda *_: np.zeros((1, 20, 30), np.uint8))


@pytest.mark.parametrize("name", ["studies", "exclusions.csv", "account.csv", "flow.json"])
@pytest.mark.parametrize("harm", ["change", "remove"])
def test_any_changed_or_missing_record_is_found(tmp_path: Path, name: str, harm: str) -> None:
    save_cohort(tmp_path, cohort(), ACCOUNT)
    path = tmp_path / name
    if path.is_dir():
        path = next(path.iterdir())
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"e", b"f", 1) + b" ")
    with pytest.raises(StoreError, match=r"not those that were saved|missing"):
        load_cohort(tmp_path)


def test_a_changed_digest_is_found(tmp_path: Path) -> None:
    save_cohort(tmp_path, cohort())
    head = tmp_path / "cohort.toml"
    head.write_text(head.read_text().replace(cohort().digest, "0" * 64))
    with pytest.raises(StoreError, match="digest"):
        load_cohort(tmp_path)


@pytest.mark.parametrize("text", ["", "schema = 'x'", "[", "schema = 1", "schema = 1\nname = 3"])
def test_a_damaged_head_is_found(tmp_path: Path, text: str) -> None:
    save_cohort(tmp_path, cohort())
    (tmp_path / "cohort.toml").write_text(text)
    with pytest.raises(StoreError, match=r"damaged|not readable"):
        load_cohort(tmp_path)


def test_missing_pixels_are_found_on_loading(tmp_path: Path) -> None:
    save_cohort(tmp_path, cohort())
    next((tmp_path / "pixels").rglob("*.zip")).unlink()
    with pytest.raises(StoreError, match="pixels are missing.*run ingest again"):
        load_cohort(tmp_path)


def _without(record: dict, *path: object) -> dict:
    place = record
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return record


@pytest.mark.parametrize(
    "path",
    [
        ("key",),
        ("clips", 0, "mode"),
        ("clips", 0, "source", "kind"),
        ("lesions", 0, "findings", "echo"),
        ("lesions", 0, "rois", 0, "mask"),
        ("scanner", "model"),
    ],
)
def test_a_missing_key_is_refused(path: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=f"no '{path[-1]}'"):
        study_from_json(
            _without(study_to_json(study(0)), *path), lambda *_: np.zeros((1, 20, 30), np.uint8)
        )


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("clips", 0),
        ("clips", 0, "source"),
        ("lesions", 0),
        ("lesions", 0, "findings"),
        ("lesions", 0, "rois", 0),
        ("scanner",),
    ],
)
def test_an_unknown_key_is_refused(path: tuple[object, ...]) -> None:
    record = study_to_json(study(0))
    place = record
    for step in path:
        place = place[step]
    place["patient_name"] = "x"
    with pytest.raises(ValueError, match="unknown keys: patient_name"):
        study_from_json(record, lambda *_: np.zeros((1, 20, 30), np.uint8))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("key",), "Mueller"),
        (("patient_known",), 1),
        (("covariates",), []),
        (("covariates",), {"a": None}),
        (("clips",), {}),
        (("clips", 0, "mode"), "X"),
        (("clips", 0, "spacing_mm"), [1.0]),
        (("clips", 0, "spacing_mm"), [1.0, "2"]),
        (("clips", 0, "source", "partner_sha256"), 1),
        (("clips", 0, "offset"), [1]),
        (("clips", 0, "offset"), [-1, 2]),
        (("clips", 0, "source_frames"), [0.5]),
        (("clips", 0, "source_frames"), [3, 4, 5, 6]),
        (("lesions", 0, "size_mm"), "12"),
        (("lesions", 0, "size_mm"), True),
        (("lesions", 0, "typical"), 1),
        (("lesions", 0, "rois", 0, "box"), [1, 2, 3]),
        (("lesions", 0, "rois", 0, "box"), [0, 0, 31, 1]),
        (("lesions", 0, "rois", 0, "mask"), "2x2:4"),
        (("schema",), 0),
        (("schema",), "1"),
    ],
)
def test_a_value_of_another_kind_is_refused(path: tuple[object, ...], value: object) -> None:
    record = study_to_json(study(0))
    place = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=r".+"):
        study_from_json(record, lambda *_: np.zeros((1, 20, 30), np.uint8))


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_tables_come_back_equal_and_no_cell_is_a_formula(rows: list[tuple[str, str]]) -> None:
    text = table_text(("a", "b"), rows)
    assert [tuple(r) for r in table_rows(text, ("a", "b"), where="t")] == rows


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'x", "", "plain"])
def test_D56_formula_cells_are_quoted_and_restored(cell: str) -> None:
    assert not safe_cell(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain_cell(safe_cell(cell)) == cell


def test_a_row_of_other_length_names_its_line() -> None:
    with pytest.raises(StoreError, match="row 3 has 3 cells"):
        table_rows("a,b\n1,2\n1,2,3\n", ("a", "b"), where="t")


def test_an_account_line_needs_its_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        AccountLine("f-0", "0", "refused")
    with pytest.raises(ValueError, match="is not one of"):
        AccountLine("f-0", "0", "lost")


def test_a_volume_comes_back_with_its_grid_and_labels(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype="<i2").reshape(3, 4, 5)
    drawn = (pixels % 4).astype(np.uint8)
    affine = affine_of(((0, 0, 0.8, -10), (0, 0.7, 0, 20), (3, 0, 0, -5), (0, 0, 0, 1)))
    volume = Volume(
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=Mode.CT,
        source=Source("0" * 64, "f-" + "0" * 20, "dicom-ct"),
        spacing_mm=(0.7, 0.8),
        grid=VolumeGrid((3, 4, 5), affine, (0.0, 1.0, 3.0)),
        source_axes="IPL",
        phase=Phase.NEPHROGRAPHIC,
        phase_source=PhaseSource.HEADER,
        labels=LabelMap(drawn, pixel_sha256(drawn)),
    )
    study = Study(key="s-" + "0" * 20, patient="p-" + "0" * 20, clips=(volume,), label="a")
    cohort = Cohort("ct", ClassTask(("a", "b"), "a"), (study,))
    save_cohort(tmp_path, cohort)
    found = load_cohort(tmp_path)
    (again,) = found.studies[0].clips
    assert again == volume
    assert isinstance(again, Volume)
    assert again.labels is not None
    for k in range(3):
        assert np.array_equal(again.pixels[k], pixels[k])
        assert np.array_equal(again.labels.pixels[k], drawn[k])
    moved = replace(volume, grid=VolumeGrid((3, 4, 5), affine))
    assert Cohort("ct", cohort.task, (replace(study, clips=(moved,)),)).digest != cohort.digest
    save_cohort(tmp_path, Cohort("ct", cohort.task, (replace(study, clips=(moved,)),)))
    assert len(list((tmp_path / "pixels").glob("*/*"))) == 2
    save_cohort(
        tmp_path,
        Cohort("ct", cohort.task, (replace(study, clips=(replace(volume, labels=None),)),)),
    )
    assert len(list((tmp_path / "pixels").glob("*/*"))) == 1
