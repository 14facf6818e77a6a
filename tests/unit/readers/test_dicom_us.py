"""Studies out of DICOM: layout, scale, times, identity, privacy, grouping, faults while reading."""

import importlib
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.image import Mode, pixel_sha256
from renalkit.errors import Reason
from renalkit.readers import dicom_us
from renalkit.readers.contract import Outcome, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_identity import (
    is_placeholder,
    normalised_identifier,
    patient_identity,
)
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.pseudonyms import Pseudonyms

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = sorted((DATA / "us_dicom").glob("*.dcm"))
KEY = b"k" * 32


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as one:
        yield one


def read(files, root, worker, options=None, **more):
    return list(
        read_dicom_us(files, root, Pseudonyms(KEY), options or ReadOptions(), worker, **more)
    )


def one_clip(tmp_path, worker, raw, **more):
    path = tmp_path / "a.dcm"
    path.write_bytes(raw)
    (result,) = read([path], tmp_path, worker, **more)
    assert result.study is not None, result.files
    (clip,) = result.study.clips
    return result.study, clip


@pytest.mark.data
@pytest.mark.skipif(not REAL, reason="no real ultrasound DICOM files: set RENALKIT_DATA")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_real_file_reads(path, worker):
    """One by one: three of the fourteen share their instance UID with another."""
    options = ReadOptions(keep_pixels=True)
    (result,) = read([path], path.parent, worker, options, patient_of=lambda p: "someone")
    assert result.study is not None, result.files
    (clip,) = result.study.clips
    assert pixel_sha256(clip.pixels) == clip.sha256
    if "ALOKA" in path.name:
        assert clip.mode is Mode.DUAL
        assert len(clip.regions) == 3
        assert [r.data_type for r in clip.regions] == ["tissue", "tissue", "grey-bar"]
        assert clip.spacing_mm == pytest.approx((0.3826530650, 0.3826530650))
    else:
        assert clip.mode is Mode.B


def test_still(tmp_path, worker):
    study, clip = one_clip(tmp_path, worker, corpus.part10(corpus.still()))
    assert (clip.n_frames, clip.rows, clip.cols) == (1, corpus.ROWS, corpus.COLS)
    assert clip.spacing_mm == pytest.approx((0.2, 0.2))
    assert clip.times_s is None
    frame, inside = clip.frame(0).pixels, np.zeros((corpus.ROWS, corpus.COLS), bool)
    inside[6:56, 8:72] = True
    assert np.array_equal(frame[inside], corpus.picture()[inside])
    assert not frame[~inside].any()
    assert study.scanner.name == "Maker Model 1"
    assert study.covariates["age_years"] == 76
    assert study.covariates["sex"] == "F"
    margin = corpus.picture()[~inside]
    assert study.covariates["margin_mean"] == pytest.approx(margin.mean(), rel=1e-6)
    assert study.covariates["margin_sd"] == pytest.approx(margin.std(), rel=1e-5)


def test_age_is_capped_at_90(tmp_path, worker):
    for age, years in (("101Y", 90), ("090Y", 90), ("089Y", 89), ("018M", 1), ("010D", 0)):
        raw = corpus.part10(corpus.still({0x00101010: corpus.cs(age, "AS")}))
        study, _ = one_clip(tmp_path, worker, raw)
        assert study.covariates["age_years"] == years


def test_region_spacing_is_per_region(tmp_path, worker):
    left = corpus.region((4, 6, 39, 55), delta=0.02)
    right = corpus.region((40, 6, 75, 55), delta=0.03)
    raw = corpus.part10(corpus.still({0x00186011: ("SQ", [left, right])}))
    _, clip = one_clip(tmp_path, worker, raw)
    assert clip.mode is Mode.DUAL
    assert [r.spacing_mm for r in clip.regions] == [
        pytest.approx((0.2, 0.2)),
        pytest.approx((0.3, 0.3)),
    ]
    assert clip.spacing_mm is None


def test_tissue_is_not_assumed_to_be_region_0(tmp_path, worker):
    bar = corpus.region((0, 0, 5, 40), kind=(0, 13), units=0)
    tissue = corpus.region((10, 6, 60, 55)) | {
        0x0018602C: corpus.fd(-0.01),
        0x0018602E: corpus.fd(0.05),
    }
    raw = corpus.part10(corpus.still({0x00186011: ("SQ", [bar, tissue])}))
    _, clip = one_clip(tmp_path, worker, raw)
    assert clip.mode is Mode.B
    assert clip.spacing_mm == pytest.approx((0.5, 0.1))  # rows, columns; direction does not matter
    assert clip.regions[0].spacing_mm is None
    assert clip.pixels[0][10, 2] == corpus.picture()[10, 2]


def test_region_with_its_end_outside_by_one_is_exact(tmp_path, worker):
    whole = corpus.region((0, 0, corpus.COLS, corpus.ROWS))
    raw = corpus.part10(corpus.still({0x00186011: ("SQ", [whole])}))
    study, clip = one_clip(tmp_path, worker, raw)
    assert clip.spacing_mm == pytest.approx((0.2, 0.2))
    assert study.defects == ()
    assert not any(name.startswith("margin") for name in study.covariates)


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({0x00181063: ("40", "DS")}, (0, 0.04, 0.08, 0.12)),
        ({0x00181065: ("0\\10\\20\\30", "DS")}, (0, 0.01, 0.03, 0.06)),
        ({0x00181065: ("99\\10\\20\\30", "DS"), 0x00181063: ("1", "DS")}, (0, 0.01, 0.03, 0.06)),
        ({0x00180040: ("50", "IS")}, (0, 0.02, 0.04, 0.06)),
        ({0x00082144: ("10", "IS")}, (0, 0.1, 0.2, 0.3)),
        ({0x00181063: ("0", "DS"), 0x00180040: ("50", "IS")}, None),
        ({0x00181065: ("0\\10\\NaN\\30", "DS")}, None),
    ],
)
def test_times(tmp_path, worker, changes, times):
    made = {tag: corpus.cs(*value) for tag, value in changes.items()}
    drop = [t for t in [0x00181063] if t not in made]
    _, clip = one_clip(tmp_path, worker, corpus.part10(corpus.cine(4, made, drop=drop)))
    assert clip.times_s == (None if times is None else pytest.approx(times))


def test_bad_frame_is_zero_and_named(tmp_path, worker):
    frames = [corpus.jpeg(corpus.picture(seed=i)) for i in range(4)]
    frames[1] = frames[1][:-300]
    raw = corpus.encapsulated(corpus.cine(4), corpus.JPEG_50, corpus.fragments(frames))
    study, clip = one_clip(tmp_path, worker, raw)
    assert not clip.pixels[1].any()
    assert clip.pixels[2].any()  # frame numbers stay those of the file
    assert [d.words for d in study.defects] == ["unusable frames, set to zero: 1"]
    assert pixel_sha256(clip.pixels) == clip.sha256


def many(tmp_path, count=9):
    paths = []
    for i in range(count):
        changes = {
            0x00080018: corpus.uid(f"1.2.3.{i + 1}"),
            0x0020000D: corpus.uid(f"1.2.4.{i // 2 + 1}"),
            0x00100020: corpus.cs(f"PLANTEDID-{i // 4}", "LO"),
            0x7FE00010: ("OB", corpus.picture(seed=i).tobytes()),
        }
        paths.append(tmp_path / f"{i}.dcm")
        paths[-1].write_bytes(corpus.part10(corpus.still(changes)))
    return paths


def test_grouping_by_patient_and_study_whatever_the_order(tmp_path, worker):
    paths = many(tmp_path)
    first = read(paths, tmp_path, worker)
    assert [len(r.study.clips) for r in first] == [2, 2, 2, 2, 1]
    assert len({r.study.patient for r in first}) == 3
    random.Random(1).shuffle(paths)  # noqa: S311
    assert read(paths, tmp_path, worker) == first


def test_same_study_uid_of_two_patients_stays_two_studies(tmp_path, worker):
    for name in ("A1", "B1"):
        changes = {0x00080018: corpus.uid(f"1.2.{ord(name[0])}"), 0x00100020: corpus.cs(name, "LO")}
        (tmp_path / f"{name}.dcm").write_bytes(corpus.part10(corpus.still(changes)))
    results = read(sorted(tmp_path.iterdir()), tmp_path, worker)
    assert len({r.study.key for r in results}) == len({r.study.patient for r in results}) == 2


def test_issuer_separates_equal_ids(tmp_path, worker):
    for number, issuer in enumerate(("NORTH", "SOUTH")):
        changes = {0x00080018: corpus.uid(f"1.2.{number + 5}"), 0x00100021: corpus.cs(issuer, "LO")}
        (tmp_path / f"{number}.dcm").write_bytes(corpus.part10(corpus.still(changes)))
    results = read(sorted(tmp_path.iterdir()), tmp_path, worker)
    assert len({r.study.patient for r in results}) == 2


def test_keys_are_those_of_the_table_s_identifier(tmp_path, worker):
    study, _ = one_clip(tmp_path, worker, corpus.part10(corpus.still()))
    assert study.patient == Pseudonyms(KEY).patient("PLANTEDID-4711")
    assert study.patient == Pseudonyms(KEY).patient(patient_identity(b"PLANTEDID-4711"))


def test_mapping_goes_before_the_header(tmp_path, worker):
    raw = corpus.part10(corpus.still())
    study, _ = one_clip(tmp_path, worker, raw, patient_of=lambda p: p.stem)
    assert study.patient == Pseudonyms(KEY).patient("a")
    study, _ = one_clip(tmp_path, worker, raw, patient_of=lambda p: None)
    assert study.patient == Pseudonyms(KEY).patient("PLANTEDID-4711")


def test_nothing_identifying_in_a_study(tmp_path, worker):
    study, clip = one_clip(tmp_path, worker, corpus.part10(corpus.still()))
    text = f"{study!r} {clip!r} {clip.pixels!r} {dict(study.covariates)}"
    assert not any(planted in text for planted in corpus.PLANTED)
    assert str(tmp_path) not in text
    assert "a.dcm" not in text


@pytest.mark.parametrize("times_changed", [1, 2])
def test_d63_file_that_changes_while_it_is_read(tmp_path, worker, monkeypatch, times_changed):
    """Read again once; refused when it changes again."""
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.part10(corpus.still()))
    left = [times_changed]

    class Meddling:
        def run(self, task, where, options):
            decoded = worker.run(task, where, options)
            if left[0]:
                left[0] -= 1
                pixels = corpus.picture(seed=20 + left[0]).tobytes()
                where.write_bytes(corpus.part10(corpus.still({0x7FE00010: ("OB", pixels)})))
            return decoded

    (result,) = read([path], tmp_path, Meddling())
    if times_changed == 1:
        assert result.study is not None
        assert np.array_equal(
            result.study.clips[0].pixels[0][6:56, 8:72], corpus.picture(seed=20)[6:56, 8:72]
        )
    else:
        (report,) = result.files
        assert report.outcome is Outcome.REFUSED
        assert report.reasons[0].reason is Reason.CHANGED_DURING_READ


def test_file_that_vanishes_is_refused(tmp_path, worker):
    (result,) = read([tmp_path / "gone.dcm"], tmp_path, worker)
    assert result.files[0].reasons[0].reason is Reason.UNREADABLE


def test_dying_decoder_refuses_only_its_file(tmp_path, worker, monkeypatch):
    paths = many(tmp_path, 3)
    with DecodeWorker() as fragile:
        real = fragile.run
        started = []

        def run(task, path, options):
            if path == paths[1]:
                os.kill(fragile.pid, 19)  # stopped: it can only time out
                fragile.limits = dicom_us.ReadOptions().limits.__class__(worker_seconds=0.2)
            else:
                fragile.limits = dicom_us.ReadOptions().limits
            started.append(path)
            return real(task, path, options)

        class Wrapped:
            pass

        wrapped = Wrapped()
        wrapped.run = run
        results = read(paths, tmp_path, wrapped)
    reports = {f.path: f for r in results for f in r.files}
    assert [reports[p].outcome for p in paths] == [Outcome.USED, Outcome.REFUSED, Outcome.USED]
    assert reports[paths[1]].reasons[0].reason is Reason.DECODER_KILLED


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_identities_are_equal_only_byte_by_byte(a, b):
    assert (patient_identity(a) == patient_identity(b)) == (a == b)


@pytest.mark.parametrize(
    "text", ["", "  ", "ANONYMOUS", "Anon", "0", "000", "xxx", "--", "N/A", "UNKNOWN"]
)
def test_placeholders(text):
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["1", "007", "MRN-1", "Test17", "P000", "X1"])
def test_real_identifiers(text):
    assert not is_placeholder(text)


def test_look_alike_identifiers_meet():
    assert len({normalised_identifier(t) for t in ("7", "007", " 007", "７", "007 ")}) == 1
    assert normalised_identifier("0") != normalised_identifier("7")
