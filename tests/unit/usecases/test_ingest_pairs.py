"""Ready-cut pairs become paired samples, and every picture ends used or refused with its reason."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from renalkit.domain.geometry import Box
from renalkit.domain.image import Mode, Pixels
from renalkit.domain.pairs import frame_pairs, paired_samples
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.learn.prepared import Inputs, prepare
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.patients import PatientPlan
from renalkit.store.cohorts import load_cohort
from renalkit.transforms.preprocess import Preprocess
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.progress import Silent

SIZE = (24, 30)
LABELS = "patient,label,age\nA,benign,50\nB,malignant,60\n"


def grey(seed: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(20, 200, size, dtype=np.uint8)


def tinted(seed: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    return np.rint(grey(seed, size)[..., None] * [1.0, 0.8, 0.4]).astype(np.uint8)


def save(path: Path, pixels: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint16:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        Image.fromarray(pixels).save(path)


def folder(
    root: Path, lines: Sequence[str], head: str = "patient,bmode,ceus", labels: str | None = LABELS
) -> Path:
    """Four good pairs at most: A/1-b.png with A/1-c.png, A/2, B/1, B/2."""
    for seed, name in enumerate(("A/1", "A/2", "B/1", "B/2")):
        save(root / f"{name}-b.png", grey(seed))
        save(root / f"{name}-c.png", tinted(seed + 50))
    (root / "pairs.csv").write_text("\n".join([head, *lines]) + "\n")
    if labels is not None:
        (root / "labels.csv").write_text(labels)
    return root


GOOD = tuple(f"{n[0]},{n}-b.png,{n}-c.png" for n in ("A/1", "A/2", "B/1", "B/2"))


def take(source: Path, output: Path, **more: object) -> IngestReport:
    return run_ingest(request_of(source=source, output=output, **more))  # type: ignore[arg-type]


def outcomes(report: IngestReport) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Outcome and reasons of every file, by its name."""
    with report.links.open(newline="") as file:
        names = {r["key"]: r["stands_for"] for r in csv.DictReader(file)}
    return {names[a.keyed_path]: (a.outcome, a.reasons) for a in report.account}


def state(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def test_a_table_of_pairs_becomes_paired_samples(tmp_path: Path) -> None:
    lines = [f"{line},{t}" for line, t in zip(GOOD, ("12.5", "", "8", "9"), strict=True)]
    source = folder(tmp_path / "in", lines, "Patient ID,B-mode,contrast,time_s")
    report = take(source, tmp_path / "out")
    assert (report.layout, report.refused) == ("pairs", 0)
    assert not report.warnings
    cohort = load_cohort(tmp_path / "out")
    assert cohort == report.cohort
    assert [len(s.clips) for s in cohort.studies] == [4, 4]
    assert {s.covariates["age_years"] for s in cohort.studies} == {50, 60}
    assert all(s.patient_known for s in cohort.studies)
    samples = paired_samples(cohort)
    whole = Box(0, 0, SIZE[1], SIZE[0])
    assert [(s.box, s.mask) for s in samples] == [(whole, None)] * 4
    assert sorted(s.label or 0 for s in samples) == [0, 0, 1, 1]
    assert sorted(str(s.load().time_s) for s in samples) == ["12.5", "8.0", "9.0", "None"]
    for sample in samples:
        assert sample.beside is not None
        assert sample.beside.box == whole
        bmode, contrast = sample.load(), sample.study.clips[sample.beside.clip].frame(0)
        assert (bmode.mode, contrast.mode) == (Mode.B, Mode.CEUS)
        seed = next(k for k in range(4) if (grey(k) == bmode.pixels).all())
        assert (contrast.pixels == tinted(seed + 50)).all()
    taken = Preprocess(size=30, bilateral=False, region="lesion", margin=0.0)
    both = Inputs((Mode.B, Mode.CEUS))
    data = prepare(samples, taken, None, 1, Silent(), both)
    assert data.complete.all()
    assert (data.images[0, 0, 3:27] == samples[0].load().pixels).all()
    before = state(tmp_path / "out")
    again = take(source, tmp_path / "out")
    assert again.recalled == 2
    assert state(tmp_path / "out") == before


def test_every_file_ends_in_one_bin(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "in",
        [
            GOOD[0],
            "A,A/2-b.png,",  # B-mode alone
            "A,,A/2-c.png",  # contrast alone
            "B,B/1-b.png,B/9-c.png",  # the partner is not there
            "B,B/2-b.png,broken.png",
            "B,copy-b.png,copy-c.png",
            "B,other-b.png,other-c.png",
            "B,swapped-b.png,swapped-c.png",
            "B,large-b.png,large-c.png",
            "B,same-b.png,same-c.png",
            "B,film.mp4,film-c.png",
            "C,stranger-b.png,stranger-c.png",
            GOOD[0],
        ],
        labels=LABELS + "D,benign,70\n",
    )
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (source / "film.mp4").write_bytes(b"no film")
    save(source / "film-c.png", tinted(61))
    for name in ("copy", "other"):
        save(source / f"{name}-b.png", grey(70))
        save(source / f"{name}-c.png", tinted(71))
    save(source / "swapped-b.png", tinted(62))
    save(source / "swapped-c.png", grey(63))
    save(source / "large-b.png", grey(64))
    save(source / "large-c.png", tinted(65, (40, 40)))
    for name in ("same-b.png", "same-c.png"):
        save(source / name, grey(66))
    save(source / "stranger-b.png", grey(67))
    save(source / "stranger-c.png", tinted(68))
    (source / "notes.txt").write_text("x")
    report = take(source, tmp_path / "out")
    found = outcomes(report)
    used = {"A/1-b.png", "A/1-c.png", "A/2-b.png", "copy-b.png", "copy-c.png"}
    assert {n for n, (o, _) in found.items() if o == "used"} == used | {
        "stranger-b.png",
        "stranger-c.png",
    }
    refused = {n: r for n, (o, r) in found.items() if o == "refused"}
    assert refused == {
        "A/2-c.png": ("missing-file",),
        "B/1-b.png": ("missing-file",),
        "B/1-c.png": ("not-in-table",),
        "B/2-b.png": refused["broken.png"],
        "broken.png": refused["broken.png"],
        "B/2-c.png": ("not-in-table",),
        "same-b.png": ("bad-annotation",),
        "same-c.png": ("bad-annotation",),
        "film.mp4": ("format-refused",),
        "film-c.png": ("format-refused",),
    }
    doubted = {
        n for n, (o, r) in found.items() if o == "used-with-warning" and "pair-mismatch" in r
    }
    assert doubted == {f"{kind}-{m}.png" for kind in ("swapped", "large") for m in "bc"}
    assert {n for n, (o, _) in found.items() if o == "skipped"} == {
        "other-b.png",
        "other-c.png",
        "notes.txt",
    }
    assert found["pairs.csv"] == ("used-with-warning", ("duplicate-file", "missing-file"))
    words = " ".join(w.words for w in report.warnings)
    assert "1 lines name a picture that is not there: 5" in words
    assert "1 lines repeat an earlier one: 14" in words
    assert "1 patients of the label table have no pair" in words
    assert "4 pictures look exchanged with their partner, or differ" in words
    (excluded,) = report.cohort.exclusions
    assert excluded.reason == "not in the label table"
    beside = Counter(s.beside is not None for s in paired_samples(report.cohort))
    assert beside == {True: 4, False: 1}
    told = [d for s in report.cohort.studies for d in s.defects if "exchanged" in d.words]
    assert len({d.clip for d in told}) == 2


def test_boxes_lesions_and_classes_in_the_table_of_pairs(tmp_path: Path) -> None:
    head = "patient,label,lesion,bmode,ceus,x,y,width,height,ceus_x,ceus_y,ceus_width,ceus_height"
    source = folder(
        tmp_path / "in",
        [
            "A,benign,upper,A/1-b.png,A/1-c.png,2,3,10,8,,,,",
            "A,malignant,lower,A/2-b.png,A/2-c.png,2,3,10,8,4,5,6,7",
            "B,malignant,1,B/1-b.png,B/1-c.png,,,,,,,,",
            "B,malignant,1,B/2-b.png,B/2-c.png,25,20,10,10,,,,",
            "B,malignant,1,far-b.png,far-c.png,90,20,10,10,,,,",
            "B,malignant,1,odd-b.png,odd-c.png,2,3,10,10,,,,",
        ],
        head,
        labels=None,
    )
    for name, size in (("far", SIZE), ("odd", (30, 24))):
        save(source / f"{name}-b.png", grey(80))
        save(source / f"{name}-c.png", tinted(81, size))
    report = take(source, tmp_path / "out")
    studies = {len(s.lesions): s for s in report.cohort.studies}
    assert sorted(le.label or "" for le in studies[2].lesions) == ["benign", "malignant"]
    boxes = {(p.bmode_box, p.contrast_box) for p in frame_pairs(report.cohort)}
    given = Box(2, 3, 10, 8)
    whole = Box(0, 0, SIZE[1], SIZE[0])
    cut = Box(25, 20, 5, 4)
    assert boxes == {(given, given), (given, Box(4, 5, 6, 7)), (whole, whole), (cut, cut)}
    found = outcomes(report)
    assert found["B/2-b.png"] == ("used-with-warning", ("bad-annotation",))
    assert {n for n, (o, _) in found.items() if o == "refused"} == {
        "far-b.png",
        "far-c.png",
        "odd-b.png",
        "odd-c.png",
    }


def test_depths_and_colours(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", [])
    deep = grey(0).astype(np.uint16) * 257
    colours = tinted(1).astype(np.uint16) * 257
    save(source / "A/1-b.png", deep)
    save(source / "A/1-c.png", colours)
    save(source / "A/2-c.png", grey(2))  # grey consoles exist
    save(source / "B/1-b.png", np.repeat(grey(3)[..., None], 3, axis=2))
    (source / "pairs.csv").write_text("\n".join(["patient,bmode,ceus", *GOOD]) + "\n")
    report = take(source, tmp_path / "out")
    assert report.refused == 0
    pairs = {b.dtype.name + str(c.shape): (b, c) for b, c in _crops(report)}
    assert set(pairs) == {f"uint16{(*SIZE, 3)}", f"uint8{SIZE}", f"uint8{(*SIZE, 3)}"}
    assert (pairs[f"uint16{(*SIZE, 3)}"][0] == deep).all()
    assert (pairs[f"uint16{(*SIZE, 3)}"][1] == tinted(1)).all()
    assert outcomes(report)["A/1-c.png"] == ("used", ("converted",))
    samples = paired_samples(report.cohort)
    taken = Preprocess(size=30, bilateral=False, region="lesion")
    data = prepare(samples, taken, None, 1, Silent(), Inputs((Mode.B, Mode.CEUS)))
    assert data.images.shape == (4, 4, 30, 30)


def _crops(report: IngestReport) -> list[tuple[Pixels, Pixels]]:
    """The lesion in B-mode and in contrast, of every pair."""
    return [
        (
            pair.study.clips[pair.key.clip].frame(pair.key.frame).pixels[pair.bmode_box.slices],
            pair.study.clips[pair.contrast]
            .frame(pair.contrast_frame)
            .pixels[pair.contrast_box.slices],
        )
        for pair in frame_pairs(report.cohort)
    ]


@pytest.mark.parametrize(
    ("lines", "head", "labels", "words"),
    [
        ([GOOD[0], "A,A/1-b.png,A/2-c.png"], None, LABELS, "line 3.*line 2 names already"),
        (["A,A/1-b.png,A/1-b.png"], None, LABELS, "line 2.*both columns"),
        ([" ,A/1-b.png,A/1-c.png"], None, LABELS, "line 2.*empty patient"),
        (["A,,"], None, LABELS, "line 2.*names no picture"),
        (["A,1-b.png,A/1-c.png"], None, LABELS, "2 pictures have"),
        ([f"{GOOD[0]},soon"], "patient,bmode,ceus,time_s", LABELS, "column time_s.*not a number"),
        ([f"{GOOD[0]},1,2,3,"], "patient,bmode,ceus,x,y,width,height", LABELS, "empty cell"),
        ([f"{GOOD[0]},1,2,0,5"], "patient,bmode,ceus,x,y,width,height", LABELS, "without area"),
        ([f"{GOOD[0]},1"], "patient,bmode,ceus,x", LABELS, "no column y, width, height"),
        (["A/1-b.png"], "bmode", LABELS, "no column patient"),
        ([f"{GOOD[0]},malignant"], "patient,bmode,ceus,label", LABELS, "line 2.*in both tables"),
        (list(GOOD), None, "who,label\nA,benign\n", "no patient column"),
        (list(GOOD), None, LABELS + "A,malignant,50\n", "two labels for one lesion"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(
    tmp_path: Path, lines: list[str], head: str | None, labels: str, words: str
) -> None:
    source = folder(tmp_path / "in", lines, head or "patient,bmode,ceus", labels)
    with pytest.raises(InputRefused) as caught:
        take(source, tmp_path / "out")
    assert caught.value.reason in (Reason.BAD_TABLE, Reason.BAD_ANNOTATION, Reason.UNKNOWN_LABEL)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert not (tmp_path / "out" / "cohort.toml").exists()


def test_what_the_layout_cannot_use_is_said(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", GOOD)
    with pytest.raises(ConfigError, match=r"boxes are columns of pairs\.csv"):
        take(source, tmp_path / "out", annotations=source / "labels.csv")
    outside = tmp_path / "labels.csv"
    shutil.move(source / "labels.csv", outside)
    with pytest.raises(ConfigError, match="lies inside it"):
        take(source, tmp_path / "out", labels=outside)
    with pytest.raises(ConfigError, match="no class was found"):
        take(source, tmp_path / "out")
    (source / "pairs.csv").unlink()
    with pytest.raises(InputRefused, match="no table of pairs"):
        take(source, tmp_path / "out", layout="pairs")


def test_columns_that_are_not_read_are_named_and_normal_kidneys_have_no_lesion(
    tmp_path: Path,
) -> None:
    lines = [f"{line},x" for line in GOOD]
    labels = "patient,label\nA,normal\nB,malignant\n"
    source = folder(tmp_path / "in", lines, "patient,bmode,ceus,note", labels)
    report = take(source, tmp_path / "out", positive="malignant")
    assert "columns of pairs.csv that are not read: note" in {w.words for w in report.warnings}
    assert {s.label for s in report.cohort.studies} == {"normal", None}
    assert len(frame_pairs(report.cohort)) == 2


def test_simulated_pairs_are_read_without_a_word(tmp_path: Path) -> None:
    options = CeusOptions(duration_s=40.0, rate_hz=1.0, rows=240, cols=320)
    people = PatientPlan(3, seed=4)
    plan = PhantomPlan("ceus", people, ceus=options, pairs=2, margin=0.0)
    make_phantom(plan, tmp_path / "in", Silent(), 1)
    report = take(tmp_path / "in", tmp_path / "out")
    assert (report.layout, report.refused, report.warnings) == ("pairs", 0, ())
    samples = paired_samples(report.cohort)
    assert len(samples) == 6
    for sample in samples:
        assert sample.beside is not None
        assert sample.label is not None
        assert sample.box == Box(0, 0, sample.load().pixels.shape[1], sample.load().pixels.shape[0])
