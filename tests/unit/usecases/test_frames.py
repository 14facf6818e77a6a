"""Frames are offered, a person drops some, and exactly the others are in the cohort."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Defect, Lesion, Roi, Study
from renalkit.errors import ConfigError, Exit, InputRefused, Reason
from renalkit.readers.contract import FileReport, Outcome, ReadResult
from renalkit.store.cohorts import load_account, load_cohort
from renalkit.store.pixels import verify
from renalkit.usecases.frames import FramesReport, frames_request, frames_words, run_frames
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest
from renalkit.usecases.ingest_frames import Picks, listed_name
from renalkit.usecases.progress import Silent

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus: Any = importlib.import_module("make_dicom")
images: Any = importlib.import_module("make_images")

UID = "1.2.826.0.1.3680043"
SEVEN = [("a.dcm", f) for f in (0, 2, 4, 6)]


def dicom(path: Path, patient: str, frames: int) -> None:
    """A cine of 25 frames a second, or a still; each patient has a study."""
    n = sum(map(ord, path.stem))
    own = {
        0x00100020: corpus.cs(patient, "LO"),
        0x0020000D: corpus.uid(f"{UID}.1.{patient}"),
        0x00080018: corpus.uid(f"{UID}.2.{n}"),
    }
    if frames > 1:
        # Other seeds for each file, so that no two frames of a folder are equal.
        stack = [corpus.picture(seed=100 * n + f).tobytes() for f in range(frames)]
        own[0x7FE00010] = ("OB", b"".join(stack))
    path.write_bytes(corpus.part10(corpus.cine(frames, own) if frames > 1 else corpus.still(own)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Patient 11: a cine of 7 frames and a still; 22: a cine of 4; a damaged file and a letter."""
    root = tmp_path / "in"
    (root / "ward").mkdir(parents=True)
    dicom(root / "a.dcm", "11", 7)
    dicom(root / "ward" / "still.dcm", "11", 1)
    dicom(root / "z.dcm", "22", 4)
    (root / "cut.dcm").write_bytes((root / "z.dcm").read_bytes()[:-2000])
    (root / "letter.txt").write_text("Dear colleague")
    return root


def offer(source: Path, output: Path, **more: Any) -> FramesReport:
    how = {"every": 2, **more}
    return run_frames(frames_request(source=source, output=output, **how))


def take(source: Path, output: Path, **more: Any) -> IngestReport:
    how = {"classes": "benign,malignant", **more}
    return run_ingest(request_of(source=source, output=output, **how))


def rows(keep: Path) -> list[dict[str, str]]:
    with keep.open(newline="") as file:
        return list(csv.DictReader(file))


def edit(keep: Path, *dropped: tuple[str, int]) -> Path:
    """Set keep to 0 for some frames and save as a spreadsheet program does (mark, CR LF)."""
    table = rows(keep)
    for row in table:
        row["keep"] = "0" if (row["file"], int(row["frame"])) in dropped else row["keep"]
    with keep.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return keep


def tree(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def clips_by_size(folder: Path) -> dict[int, Clip]:
    """The clips of a cohort by the number of their frames."""
    clips = [c for s in load_cohort(folder).studies for c in s.clips]
    assert len({c.n_frames for c in clips}) == len(clips)
    return {c.n_frames: c for c in clips}


def outcomes(report: IngestReport, source: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What became of each file, by its name."""
    links = {row["key"]: row["stands_for"] for row in rows(report.links)}
    return {links[a.keyed_path]: (a.outcome, a.reasons) for a in report.account}


# --- The offer ------------------------------------------------------------------------------


def test_every_file_is_offered_or_named_with_its_reason(source: Path, tmp_path: Path) -> None:
    report = offer(source, tmp_path / "pick")
    told = {o.file: (o.outcome, o.n_frames, o.frames) for o in report.offers}
    assert told["a.dcm"] == (Outcome.USED, 7, (0, 2, 4, 6))
    assert told["ward/still.dcm"] == (Outcome.USED, 1, (0,))
    assert told["z.dcm"] == (Outcome.USED, 4, (0, 2))
    assert told["cut.dcm"][0] is Outcome.REFUSED
    assert told["letter.txt"][0] is Outcome.SKIPPED
    assert len(told) == 5
    table = rows(tmp_path / "pick" / "keep.csv")
    assert [(r["file"], int(r["frame"]), r["keep"]) for r in table] == [
        *((file, frame, "1") for file, frame in SEVEN),
        ("ward/still.dcm", 0, "1"),
        ("z.dcm", 0, "1"),
        ("z.dcm", 2, "1"),
    ]
    sheets = sorted({r["sheet"] for r in table})
    assert sheets == ["sheets/0001.png", "sheets/0003.png", "sheets/0004.png"]
    with Image.open(tmp_path / "pick" / sheets[0]) as sheet:
        assert sheet.size == (4 * 194 + 2, 208 + 2)
    words = frames_words(report)
    assert "Files: 5 = 3 used + 0 used with a warning + 1 refused + 1 skipped" in words
    assert "Refused cut.dcm" in words
    assert "7 offered, 0 of them dropped" in words


def test_sheets_show_no_pixel_outside_the_regions_and_name_no_patient(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    dicom(root / "a.dcm", "994711", 2)
    offer(root, tmp_path / "pick")
    with Image.open(tmp_path / "pick" / "sheets" / "0001.png") as sheet:
        pixels = np.asarray(sheet)
    # 64 x 80 pixels shown as 154 x 192, centred below the number; the region is x 8-71, y 6-55.
    shown = pixels[2 + 14 + 19 : 2 + 14 + 19 + 154, 2 : 2 + 192]
    assert shown[20:120, 30:160].mean() > 50
    assert shown[:12].max() == 0
    assert shown[:, :16].max() == 0
    for name, data in tree(tmp_path / "pick").items():
        assert b"994711" not in data, name


def test_seconds_sample_by_time_and_a_video_of_many_frames_has_several_sheets(
    tmp_path: Path,
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    images.encoded(root / "long.avi", codec="mjpeg", count=130)
    images.encoded(root / "short.mp4", count=10, stamps=[0, 4, 8, 20, 24, 60, 64, 68, 100, 104])
    report = offer(root, tmp_path / "pick", every=None, seconds=0.2)
    found = {o.file: o for o in report.offers}
    assert found["short.mp4"].frames == (0, 3, 5, 8)
    assert len(found["long.avi"].frames) == 26
    every = offer(root, tmp_path / "all", every=1)
    sheets = {o.file: o.sheets for o in every.offers}["long.avi"]
    assert sheets == ("sheets/0001.png", "sheets/0001-2.png", "sheets/0001-3.png")
    assert {r["sheet"] for r in rows(every.keep_list)} == {*sheets, "sheets/0002.png"}


def test_a_cine_without_times_is_refused_by_seconds_and_a_still_is_not(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "cine.dcm").write_bytes(corpus.part10(corpus.cine(4, drop=(0x00181063,))))
    dicom(root / "still.dcm", "11", 1)
    found = {o.file: o for o in offer(root, tmp_path / "p", every=None, seconds=1.0).offers}
    assert found["cine.dcm"].reasons[0].reason is Reason.NO_TIMING
    assert found["still.dcm"].frames == (0,)


def test_masks_and_other_files_of_a_picture_folder_are_no_frames(tmp_path: Path) -> None:
    root = tmp_path / "in"
    noise = np.random.default_rng(1).integers(0, 200, (32, 40), dtype=np.uint8)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(noise).save(root / folder / "a.png")
    (root / "labels.csv").write_bytes(b"\xff\xfe broken, and of no matter here")
    report = offer(root, tmp_path / "pick")
    used = [o.file for o in report.offers if o.frames]
    assert used == ["images/a.png"]
    assert report.count(Outcome.SKIPPED) == 2


def test_a_second_run_takes_over_what_is_done_and_keeps_the_choices(
    source: Path, tmp_path: Path
) -> None:
    pick = tmp_path / "pick"
    first = offer(source, pick)
    edit(first.keep_list, ("a.dcm", 2), ("z.dcm", 0))
    before = tree(pick)
    again = offer(source, pick)
    assert (first.recalled, again.recalled, again.dropped) == (0, 3, 2)
    assert tree(pick) == before

    dicom(source / "b.dcm", "22", 3)  # every later file gets another sheet
    dicom(source / "z.dcm", "22", 5)  # the choice was made on another cine
    grown = offer(source, pick)
    chosen = {(r["file"], int(r["frame"])): r["keep"] for r in rows(grown.keep_list)}
    assert [key for key, keep in chosen.items() if keep == "0"] == [("a.dcm", 2)]
    assert {("b.dcm", 0), ("b.dcm", 2), ("z.dcm", 4)} <= set(chosen)
    (source / "b.dcm").unlink()
    (source / "ward" / "still.dcm").unlink()
    less = offer(source, pick)
    assert {p.name for p in (pick / "sheets").iterdir()} == {
        Path(s).name for o in less.offers for s in o.sheets
    }


def test_choices_are_not_thrown_away_by_another_sampling(source: Path, tmp_path: Path) -> None:
    first = offer(source, tmp_path / "pick")
    assert offer(source, tmp_path / "pick", every=3).dropped == 0  # nothing was chosen yet
    edit(first.keep_list, ("a.dcm", 3))
    with pytest.raises(ConfigError, match="choices among other frames"):
        offer(source, tmp_path / "pick")
    keep = first.keep_list.read_text() + "a.dcm,x,1,\n"
    first.keep_list.write_text(keep)
    with pytest.raises(InputRefused, match=r"keep\.csv, line 8"):
        offer(source, tmp_path / "pick", every=3)
    assert first.keep_list.read_text() == keep


def test_an_interrupted_run_goes_on(source: Path, tmp_path: Path) -> None:
    class Stops(Silent):
        def advance(self, steps: int = 1, words: str = "") -> None:
            raise KeyboardInterrupt

    request = frames_request(source=source, output=tmp_path / "pick", every=2)
    with pytest.raises(KeyboardInterrupt):
        run_frames(request, Stops())
    assert run_frames(request).recalled == 1
    offer(source, tmp_path / "whole")
    assert tree(tmp_path / "pick") == tree(tmp_path / "whole")


def test_odd_names_are_no_formulas_and_come_back(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    names = ("=1+1.dcm", "a\nb.dcm", "back\\slash.dcm", "c, d.dcm", "'q.dcm")
    for n, name in enumerate(names, start=1):
        dicom(root / name, str(n), 3)
    pick = offer(root, tmp_path / "pick")
    table = rows(pick.keep_list)
    assert not any(r["file"].startswith("=") for r in table)
    report = take(root, tmp_path / "out", keep=edit(pick.keep_list, ("c, d.dcm", 0)))
    assert {o for o, _ in outcomes(report, root).values()} == {"used"}, outcomes(report, root)
    assert Reason.MISSING_FILE not in {w.reason for w in report.warnings}
    sizes = sorted(c.n_frames for s in report.cohort.studies for c in s.clips)
    assert sizes == [1, 2, 2, 2, 2]


@given(st.sets(st.text("ab\\\n\x01\ud800\udfffu005c", min_size=1), min_size=2))
def test_two_files_never_share_a_name(names: set[str]) -> None:
    listed = {listed_name(Path(n)) for n in names}
    assert len(listed) == len({Path(n) for n in names})
    assert all(n.isprintable() and n.encode() for n in listed)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"every": None}, "exactly one"),
        ({"seconds": 1.0}, "exactly one"),
        ({"every": 0}, "0 is not 1 or more"),
        ({"every": None, "seconds": float("nan")}, "not positive"),
        ({"output": "in/pick"}, "outside the source"),
        ({"source": "in/a.dcm"}, "not a folder"),
    ],
)
def test_wrong_options_are_refused(
    source: Path, tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    asked = {"source": source, "output": tmp_path / "pick", "every": 2, **how}
    asked |= {k: tmp_path / v for k, v in how.items() if isinstance(v, str)}
    with pytest.raises(ConfigError, match=words):
        frames_request(**asked)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.txt").write_text("x")
    with pytest.raises(InputRefused, match="1 files, none of them a cine"):
        offer(tmp_path / "in", tmp_path / "pick")


# --- The choice -----------------------------------------------------------------------------


def test_the_cohort_holds_exactly_the_kept_frames(source: Path, tmp_path: Path) -> None:
    take(source, tmp_path / "whole")
    whole = clips_by_size(tmp_path / "whole")
    keep = edit(offer(source, tmp_path / "pick").keep_list, ("a.dcm", 2), ("z.dcm", 0))
    report = take(source, tmp_path / "out", keep=keep)
    cohort = load_cohort(tmp_path / "out")
    assert cohort == report.cohort
    assert cohort.flow.screened_studies == 2
    (study,) = (s for s in cohort.studies if len(s.clips) == 2)
    cine, still = sorted(study.clips, key=lambda c: -c.n_frames)
    assert (cine.n_frames, still.n_frames) == (3, 1)
    assert (still.sha256, still.source.first_frame) == (whole[1].sha256, 0)
    for at, frame in enumerate((0, 4, 6)):
        assert np.array_equal(cine.pixels[at], whole[7].pixels[frame])
    assert cine.times_s == pytest.approx((0, 0.16, 0.24))
    assert cine.sha256 == pixel_sha256(cine.pixels)
    verify(tmp_path / "out", cine.sha256)
    assert any(d.words == "frames 0, 4, 6 of 7 taken" for d in study.defects)
    (other,) = (s for s in cohort.studies if len(s.clips) == 1)
    assert other.clips[0].source.first_frame == 2
    assert other.clips[0].times_s == pytest.approx((0.08,))
    assert np.array_equal(other.clips[0].pixels[0], whole[4].pixels[2])


def test_files_left_out_missing_or_changed_are_in_the_account(source: Path, tmp_path: Path) -> None:
    pick = offer(source, tmp_path / "pick")
    dropped = [(o.file, f) for o in pick.offers for f in o.frames if o.file == "ward/still.dcm"]
    keep = edit(pick.keep_list, *dropped)
    dicom(source / "new.dcm", "33", 3)
    dicom(source / "z.dcm", "22", 5)
    report = take(source, tmp_path / "out", keep=keep)
    found = outcomes(report, source)
    assert found["ward/still.dcm"] == ("skipped", ("not-in-table",))
    assert found["new.dcm"] == ("refused", ("not-in-table",))
    assert found["z.dcm"] == ("refused", ("not-in-table",))
    assert found["a.dcm"][0] == "used"
    assert len(found) == 6
    assert Reason.MISSING_FILE not in {w.reason for w in report.warnings}
    (source / "z.dcm").unlink()
    less = take(source, tmp_path / "out", keep=keep)
    lost = [w.words for w in less.warnings if w.reason is Reason.MISSING_FILE]
    assert lost == ["1 files of the keep list are not in the source"]
    assert load_account(tmp_path / "out") == less.account


def test_a_list_of_ones_own_needs_no_record(source: Path, tmp_path: Path) -> None:
    keep = tmp_path / "mine.csv"
    keep.write_text("file,frame,keep\na.dcm,5,1\na.dcm,3,1\nz.dcm,4,1\n")
    report = take(source, tmp_path / "out", keep=keep)
    assert outcomes(report, source)["z.dcm"] == ("refused", ("bad-table",))
    (study,) = report.cohort.studies
    assert study.clips[0].times_s == pytest.approx((0.12, 0.2))
    assert study.clips[0].source.first_frame == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a.dcm,4,1", "a.dcm,4,maybe", r"keep\.csv, line 4"),
        ("a.dcm,4,1", "a.dcm,5,1", r"keep\.csv, line 4"),
        ("a.dcm,4,1", "a.dcm,2,1", r"keep\.csv, line 4"),
        ("a.dcm,4,1,sheets/0001.png\n", "", "1 sampled frames are not listed"),
        ("file,frame,keep", "file,frame,take", "no column keep"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(
    source: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    keep = offer(source, tmp_path / "pick").keep_list
    text = keep.read_text()
    assert old in text
    keep.write_text(text.replace(old, new))
    with pytest.raises(InputRefused, match=words) as refused:
        take(source, tmp_path / "out", keep=keep)
    assert refused.value.reason is Reason.BAD_TABLE
    assert not (tmp_path / "out" / "cohort.toml").exists()


def test_a_record_that_is_none_is_refused(source: Path, tmp_path: Path) -> None:
    keep = offer(source, tmp_path / "pick").keep_list
    (tmp_path / "pick" / "frames.json").write_text('{"files": [{"file": "a.dcm"}]}')
    with pytest.raises(InputRefused, match="not the record of a sampling"):
        take(source, tmp_path / "out", keep=keep)


def test_a_changed_list_is_read_again_and_an_unchanged_one_changes_nothing(
    source: Path, tmp_path: Path
) -> None:
    key, keep = tmp_path / "key", offer(source, tmp_path / "pick").keep_list
    first = take(source, tmp_path / "out", keep=keep, key_file=key)
    before = tree(tmp_path / "out")
    again = take(source, tmp_path / "out", keep=keep, key_file=key)
    assert (first.recalled, again.recalled) == (0, 2)
    assert tree(tmp_path / "out") == before
    edit(keep, ("a.dcm", 0))
    changed = take(source, tmp_path / "out", keep=keep, key_file=key)
    assert changed.recalled == 0
    assert changed.cohort.digest != first.cohort.digest
    everything = take(source, tmp_path / "out", key_file=key)
    assert everything.recalled == 0
    assert sum(c.n_frames for s in everything.cohort.studies for c in s.clips) == 12


def test_an_interrupted_ingest_with_a_list_ends_with_the_same_bytes(
    source: Path, tmp_path: Path
) -> None:
    class Stops(Silent):
        steps = 0

        def stage(self, words: str, total: int | None = None) -> None:
            self.steps = 0 if words == "reading" else -1000

        def advance(self, steps: int = 1, words: str = "") -> None:
            self.steps += steps
            if self.steps >= 4:
                raise KeyboardInterrupt

    keep = edit(offer(source, tmp_path / "pick").keep_list, ("a.dcm", 2))
    key = tmp_path / "key"
    take(source, tmp_path / "one" / "out", keep=keep, key_file=key)
    request = request_of(
        source=source, output=tmp_path / "two" / "out", keep=keep, key_file=key,
        classes="benign,malignant",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run_ingest(request, Stops())
    assert run_ingest(request).recalled == 1
    assert tree(tmp_path / "one" / "out") == tree(tmp_path / "two" / "out")


def test_every_samples_without_a_list(source: Path, tmp_path: Path) -> None:
    take(source, tmp_path / "whole")
    whole = clips_by_size(tmp_path / "whole")
    report = take(source, tmp_path / "out", every=3)
    found = clips_by_size(tmp_path / "out")
    assert set(found) == {3, 2, 1}
    for at, frame in enumerate((0, 3, 6)):
        assert np.array_equal(found[3].pixels[at], whole[7].pixels[frame])
    assert found[2].times_s == pytest.approx((0, 0.12))
    assert take(source, tmp_path / "out", every=3).recalled == 2
    assert take(source, tmp_path / "out", every=2).recalled == 0
    assert report.cohort.digest == take(source, tmp_path / "out", every=3).cohort.digest


def test_regions_of_dicom_move_with_their_frames(source: Path, tmp_path: Path) -> None:
    labels, boxes = tmp_path / "labels.csv", tmp_path / "boxes.csv"
    labels.write_text("patient,label\n11,malignant\n22,benign\n")
    boxes.write_text(
        "file,frame,x,y,width,height,lesion\n"
        + "".join(f"a.dcm,{f},{10 + f},9,20,20,\n" for f in (0, 2, 3, 6))
    )
    keep = edit(offer(source, tmp_path / "pick").keep_list, ("a.dcm", 0))
    for how, wanted, lost in (
        ({"keep": keep}, [(0, 2), (2, 6)], 2),
        ({"every": 3}, [(0, 0), (1, 3), (2, 6)], 1),
    ):
        out = tmp_path / f"out{lost}"
        take(source, out, labels=labels, annotations=boxes, **how)
        (study,) = (s for s in load_cohort(out).studies if len(s.clips) == 2)
        rois = study.lesions[0].rois
        assert [(r.frame, r.box) for r in rois] == [
            (at, Box(10 + f, 9, 20, 20)) for at, f in wanted
        ]
        assert Defect(Reason.NOT_IN_TABLE, f"{lost} regions lie on frames not taken", 0) in study.defects  # fmt: skip


def test_videos_of_a_picture_folder_keep_their_boxes(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("one.avi", "two.avi", "three.avi"):
        images.encoded(root / name, codec="mjpeg", count={"one.avi": 9}.get(name, 6))
    (root / "labels.csv").write_text(
        "image,patient,label\none.avi,1,benign\ntwo.avi,1,benign\nthree.avi,2,malignant\n"
    )
    (root / "boxes.csv").write_text(
        "file,frame,x,y,width,height,lesion\n"
        "one.avi,0,1,1,20,20,\none.avi,4,5,1,20,20,\none.avi,8,9,1,20,20,\ntwo.avi,2,3,3,9,9,\n"
    )
    boxes = {"annotations": root / "boxes.csv"}
    take(root, tmp_path / "whole", **boxes)
    whole = next(s for s in load_cohort(tmp_path / "whole").studies if len(s.clips) == 2)
    keep = offer(root, tmp_path / "pick", every=4).keep_list
    edit(keep, ("one.avi", 0), ("two.avi", 0), ("two.avi", 4))
    report = take(root, tmp_path / "out", keep=keep, **boxes)
    assert outcomes(report, root)["two.avi"] == ("skipped", ("not-in-table",))
    study = next(s for s in report.cohort.studies if s.lesions[0].label == "benign")
    (clip,) = study.clips
    long = next(c for c in whole.clips if c.n_frames == 9)
    assert long.times_s is not None
    assert clip.times_s == (long.times_s[4], long.times_s[8])
    assert np.array_equal(clip.pixels[1], long.pixels[8])
    assert [(r.clip, r.frame, r.box) for r in study.lesions[0].rois] == [
        (0, 0, Box(5, 1, 20, 20)),
        (0, 1, Box(9, 1, 20, 20)),
    ]
    assert any(d.words == "1 regions lie on frames not taken" for d in study.defects)


def test_masks_follow_a_picture_that_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "in"
    rng = np.random.default_rng(2)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((32, 40), np.uint8)
    mask[8:20, 10:25] = 255
    for name in ("a", "b", "c"):
        noise = rng.integers(0, 200, (32, 40), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "labels.csv").write_text(
        "patient,image,label\n1,a.png,benign\n1,b.png,benign\n2,c.png,malignant\n"
    )
    keep = edit(offer(root, tmp_path / "pick").keep_list, ("images/a.png", 0))
    report = take(root, tmp_path / "out", keep=keep)
    found = outcomes(report, root)
    assert {n for n, (o, _) in found.items() if o == "skipped"} == {"images/a.png", "masks/a.png"}
    study = next(s for s in report.cohort.studies if s.lesions[0].label == "benign")
    assert [(r.clip, r.frame) for r in study.lesions[0].rois] == [(0, 0)]
    assert not any("regions lie" in d.words for d in study.defects)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"keep": "pick/keep.csv", "every": 2}, "one of the two"),
        ({"every": 0}, "0 is not 1 or more"),
        ({"keep": "none.csv"}, "does not exist"),
        ({"keep": "in/keep.csv"}, "outside the source"),
    ],
)
def test_wrong_options_of_ingest_are_refused(
    tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    for folder in ("in", "pick"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keep.csv").write_text("file,frame,keep\n")
    how = {k: tmp_path / v if k == "keep" else v for k, v in how.items()}
    with pytest.raises(ConfigError, match=words):
        take(tmp_path / "in", tmp_path / "out", **how)


# --- Reduction alone ------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    data=st.data(),
)
def test_reduction_keeps_every_region_on_its_picture(sizes: list[int], data: st.DataObject) -> None:
    """Each pixel value says clip and frame, so a region moved to a wrong frame is seen."""
    clips: list[Clip] = []
    for n, size in enumerate(sizes):
        pixels = np.stack([np.full((4, 5), 10 * n + f, np.uint8) for f in range(size)])
        clips.append(Clip(pixels, pixel_sha256(pixels), Mode.B, Source("0", f"f-{n}", "x"),
                          times_s=tuple(0.1 * f for f in range(size))))  # fmt: skip
    every = [(n, f) for n, size in enumerate(sizes) for f in range(size)]
    wanted = data.draw(st.sets(st.sampled_from(every)))
    marked = data.draw(st.sets(st.sampled_from(every)))
    # The box says where it belongs: x is the clip, y the frame modulo 4.
    rois = tuple(Roi(n, f, box=Box(n, f % 4, 1, 1)) for n, f in sorted(marked))
    study = Study("s-" + "0" * 20, "p-" + "0" * 20, tuple(clips),
                  (Lesion("l-" + "0" * 20, rois=rois),))  # fmt: skip
    files = tuple(FileReport(Path(f"f-{n}"), Outcome.USED) for n in range(len(sizes)))
    kept = {f"f-{n}": tuple(f for m, f in sorted(wanted) if m == n) for n in range(len(sizes))}
    result = Picks(kept).reduced(ReadResult(study, files), str)
    assert [r.path for r in result.files] == [r.path for r in files]
    assert [r.outcome is Outcome.USED for r in result.files] == [bool(f) for f in kept.values()]
    if not wanted:
        assert result.study is None
        return
    assert result.study is not None
    found = {(c.source.keyed_path, int(c.pixels[i][0, 0]) % 10): c.times_s for c in
             result.study.clips for i in range(c.n_frames)}  # fmt: skip
    assert set(found) == {(f"f-{n}", f) for n, f in wanted}
    own = result.study.lesions[0].rois
    assert len(own) == len(wanted & marked)
    for roi in own:
        value = int(result.study.clips[roi.clip].pixels[roi.frame][0, 0])
        assert roi.box == Box(value // 10, value % 10 % 4, 1, 1)
    lost = sum(int(d.words.split()[0]) for d in result.study.defects if "regions" in d.words)
    assert lost == sum((n, f) not in wanted for n, f in marked if kept[f"f-{n}"])


# --- The command line -----------------------------------------------------------------------


def test_the_commands_say_what_became_of_the_files(source: Path, tmp_path: Path) -> None:
    runner, pick = CliRunner(), tmp_path / "pick"
    done = runner.invoke(app, ["frames", str(source), "-o", str(pick), "--every", "2", "--json"])
    assert done.exit_code == Exit.PARTIAL
    found = json.loads(done.stdout)
    assert (found["frames"], found["counts"]["refused"]) == (7, 1)
    (source / "cut.dcm").unlink()
    done = runner.invoke(app, ["frames", str(source), "-o", str(pick), "--seconds", "0.1"])
    assert done.exit_code == Exit.OK, done.output
    arguments = ["ingest", str(source), "-o", str(tmp_path / "out"), "--classes", "a,malignant"]
    (source / "letter.txt").unlink()
    done = runner.invoke(app, [*arguments, "--keep", str(pick / "keep.csv"), "--json"])
    assert done.exit_code == Exit.OK, done.output
