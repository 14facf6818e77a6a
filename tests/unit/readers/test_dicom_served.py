"""Frames served by the worker are those of the lazy stack, and no pixel is decoded here."""

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.geometry import Box
from renalkit.errors import InputRefused, Reason
from renalkit.readers import dicom_pixels, dicom_served
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import read_dicom_us, serve_dicom_us
from renalkit.readers.pseudonyms import Pseudonyms

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")

WHOLE = Box(0, 0, corpus.COLS, corpus.ROWS)
PARTS = (Box(5, 3, 9, 11), WHOLE, Box(15, 8, 30, 25))


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as one:
        yield one


def streams(count):
    return [corpus.jpeg(corpus.picture(seed=seed)) for seed in range(count)]


def encapsulated(frames, data=None):
    data = corpus.cine(len(frames)) if data is None else data
    return corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments(frames))


def served(path, raw, worker, **options):
    path.write_bytes(raw)
    return serve_dicom_us(path, ReadOptions(**options), worker).clip


def coloured():
    rng = np.random.default_rng(3)
    size = (corpus.ROWS, corpus.COLS, 3)
    pictures = [rng.integers(0, 256, size, np.uint8) for _ in range(3)]
    frames = [corpus.jpeg(picture, subsampling=1) for picture in pictures]
    return encapsulated(frames, corpus.cine(3, corpus.colour("YBR_FULL_422")))


@pytest.mark.parametrize(
    "raw",
    [coloured(), encapsulated(streams(3)), corpus.part10(corpus.cine(3), corpus.DEFLATED)],
    ids=["colour", "grey", "deflated"],
)
@pytest.mark.parametrize("regions", [True, False])
def test_served_frames_are_those_of_the_lazy_stack(tmp_path, worker, monkeypatch, raw, regions):
    path = tmp_path / "a.dcm"
    clip = served(path, raw, worker, keep_pixels=True)
    (result,) = read_dicom_us(
        [path], tmp_path, Pseudonyms(bytes(32)), ReadOptions(keep_pixels=True), worker
    )
    lazy = result.study.clips[0]
    assert (clip.regions, clip.times_s, clip.mode) == (lazy.regions, lazy.times_s, lazy.mode)
    stack, other = clip.pixels, lazy.pixels
    if not regions:
        stack, other = replace(stack, boxes=None), replace(other, boxes=None)
    expected = [[other[i][part.slices] for part in PARTS] for i in range(3)]

    def forbidden(*_):
        raise AssertionError("a pixel was decoded in this process")

    monkeypatch.setattr(dicom_pixels, "_samples", forbidden)
    monkeypatch.setattr(dicom_served, "decode_windows", forbidden)
    for index in (2, 0, 1, -1):
        parts = stack.windows(index, PARTS)
        for part, wanted in zip(parts, expected[index], strict=True):
            assert part.dtype == wanted.dtype
            assert np.array_equal(part, wanted)
        assert np.array_equal(stack[index], expected[index][1])
    with pytest.raises(IndexError):
        stack[3]
    assert stack.check() == []


@pytest.mark.parametrize("walk", [(0, 1, 2, 3, 4), (2, 3, 4, 1, 0), (0, 1, 3, 4, 4, 2)])
def test_frames_in_a_row_are_decoded_ahead(tmp_path, worker, walk, monkeypatch):
    stack = served(tmp_path / "a.dcm", encapsulated(streams(5)), worker).pixels
    wanted = [stack[i] for i in range(5)]
    begun = []
    begin = DecodeWorker.begin

    def noted(self, task, path, options):
        begun.append(options["frame"])
        begin(self, task, path, options)

    monkeypatch.setattr(DecodeWorker, "begin", noted)
    fresh = replace(stack)
    for index in walk:
        assert np.array_equal(fresh.windows(index, PARTS)[1], wanted[index])
    assert set(begun) <= set(range(5))
    assert begun


def test_two_files_in_turn_are_not_mixed_up(tmp_path, worker):
    one = served(tmp_path / "a.dcm", encapsulated(streams(2)), worker).pixels
    two = served(tmp_path / "b.dcm", encapsulated(streams(3)[1:]), worker).pixels
    assert np.array_equal(one[1], two[0])
    assert not np.array_equal(one[0], two[0])
    three = served(tmp_path / "a.dcm", encapsulated(streams(4)[2:]), worker).pixels
    assert np.array_equal(two[1], three[0])


def test_damaged_frames_are_zero_and_named(tmp_path, worker):
    frames = streams(5)
    frames[1], frames[3] = frames[1][:-300], b"no picture at all "
    stack = served(tmp_path / "a.dcm", encapsulated(frames), worker).pixels
    shown = [stack[i].any() for i in range(5)]
    assert shown == [True, False, True, False, True]
    assert not stack.windows(1, PARTS)[2].any()
    assert [d.words for d in stack.check()] == ["unusable frames, set to zero: 1, 3"]


def test_more_damaged_frames_than_others_are_refused(tmp_path, worker):
    frames = [frame[:-300] for frame in streams(3)] + streams(2)
    stack = served(tmp_path / "a.dcm", encapsulated(frames), worker).pixels
    for index in range(5):
        stack.windows(index, PARTS)
    with pytest.raises(InputRefused, match="without its end") as caught:
        stack.check()
    assert caught.value.reason is Reason.CODEC_ERROR


def test_frames_that_show_nothing_are_refused_or_named(tmp_path, worker):
    flat = corpus.jpeg(np.full((corpus.ROWS, corpus.COLS), 90, np.uint8))
    raw = encapsulated([flat, corpus.jpeg(corpus.picture(seed=1)), flat])
    stack = served(tmp_path / "a.dcm", raw, worker, keep_pixels=True).pixels
    assert stack.check() == []
    inside = [stack.boxes[0] if stack.boxes else WHOLE]
    stack.windows(0, inside)
    with pytest.raises(InputRefused, match="all the same") as caught:
        stack.check()
    assert caught.value.reason is Reason.CONSTANT_IMAGE
    for index in range(3):
        stack.windows(index, inside)
    assert [d.words for d in stack.check()] == ["frames with one value everywhere: 0, 2"]


def test_d63_a_file_that_changes_or_goes_is_refused(tmp_path, worker):
    path = tmp_path / "a.dcm"
    stack = served(path, encapsulated(streams(3)), worker).pixels
    assert stack[0].any()
    path.write_bytes(encapsulated(streams(4)[1:]))
    assert stack[1].shape == stack[0].shape
    with pytest.raises(InputRefused, match="changed") as caught:
        stack.check()
    assert caught.value.reason is Reason.CHANGED_DURING_READ
    path.unlink()
    with pytest.raises(InputRefused) as caught:
        stack.check()
    assert caught.value.reason is Reason.UNREADABLE
    assert str(tmp_path) not in str(caught.value)


def test_pixels_of_another_size_are_not_believed(tmp_path, worker):
    stack = served(tmp_path / "a.dcm", encapsulated(streams(2)), worker).pixels
    larger = replace(stack.about, rows=corpus.ROWS + 1)
    wrong = replace(stack, about=larger)
    with pytest.raises(InputRefused) as caught:
        wrong.windows(0, [Box(0, 0, corpus.COLS, corpus.ROWS + 1)])
    assert caught.value.reason is Reason.CHANGED_DURING_READ


def test_a_dying_decoder_is_an_error_and_no_frame(tmp_path):
    path = tmp_path / "a.dcm"
    with DecodeWorker(Limits(worker_seconds=0.3)) as fragile:
        fragile.limits = Limits()
        stack = served(path, encapsulated(streams(2)), fragile).pixels
        assert stack[0].any()
        fragile.limits = Limits(worker_seconds=0.3)
        os.kill(fragile.pid, 19)  # stopped: it can only time out
        with pytest.raises(InputRefused) as caught:
            stack[1]
        assert caught.value.reason is Reason.DECODER_KILLED
        fragile.limits = Limits()
        assert stack[1].any()  # a new child takes its place


def test_frames_that_take_too_long_are_refused(tmp_path, worker):
    stack = served(tmp_path / "a.dcm", encapsulated(streams(2)), worker).pixels
    slow = replace(stack, limits=Limits(worker_seconds=0))
    assert slow[0].any()
    with pytest.raises(InputRefused, match="take more than 0 s") as caught:
        slow[1]
    assert caught.value.reason is Reason.DECODER_KILLED
