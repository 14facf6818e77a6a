"""Videos: rows Vd01-Vd03 of the corpus, frames against what was written, times, rotation."""

import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from renalkit.errors import DecodeFailed, InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.stills import decode_options
from renalkit.readers.video import decode_video
from renalkit.readers.video_spool import spool_video
from renalkit.store.spool import FrameSpool

pytest.importorskip("av")
sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_images")
ROWS = corpus.VIDEO_ROWS


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as made:
        yield made


def _row(name):
    return next(r for r in ROWS if r.name == name)


def _peak(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) << 10


def test_corpus_size():
    assert len(ROWS) == 51
    assert {r.id for r in ROWS} == {"Vd01", "Vd02", "Vd03"}
    assert len({r.name for r in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_corpus(row, tmp_path, worker):
    path = row.build(tmp_path)
    start = time.monotonic()
    try:
        info = worker.run("video", path, decode_options(Limits())).info
    except InputRefused as error:
        outcome, reason = "refused", error.reason.value
    else:
        reasons = [reason for reason, _ in info["warnings"]]
        outcome = "used-with-warning" if reasons else "used"
        reason = reasons[0] if reasons else None
    assert time.monotonic() - start < 10
    assert outcome == row.outcome
    assert row.reason is None or reason == row.reason
    assert worker.deaths == 0
    assert _peak(worker.pid) < 512 << 20
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("name", "how"), [("a.mp4", {}), ("a.avi", {"codec": "mjpeg"})])
def test_frames_are_those_written(tmp_path, name, how):
    path = corpus.encoded(tmp_path / name, count=15, **how)
    frames, info = decode_video(path, {})
    expected = corpus.clip_frames(15)
    grey = frames if frames.ndim == 3 else frames.mean(axis=3)
    assert grey.shape == expected.shape
    assert np.abs(grey - expected.astype(float)).mean() < 4  # lossy, but every frame in its place
    assert info["times_s"] == pytest.approx([t / 25 for t in range(15)])
    assert (info["timing"], info["variable_rate"]) == ("pts", False)
    assert info["source_format"] == path.suffix[1:]


def test_Vd02_variable_rate_keeps_each_time(tmp_path):
    _, info = decode_video(_row("Vd02-variable-rate").build(tmp_path), {})
    expected = [(t * 4 + (t > 9) * 50) / 100 for t in range(20)]
    assert info["times_s"] == pytest.approx(expected, abs=1e-3)
    assert info["variable_rate"]


def test_Vd02_rotation_is_applied(tmp_path):
    upright, _ = decode_video(_row("Vd02-mp4").build(tmp_path), {})
    turned, info = decode_video(_row("Vd02-rotated").build(tmp_path), {})
    assert turned.shape[1:3] == upright.shape[2:0:-1]
    # Turned by 90 degrees clockwise the bright top-left corner is at the top right.
    assert np.array_equal(turned, np.rot90(upright, -1, axes=(1, 2)))
    assert info["rotation_deg"] == -90
    assert info["notes"]


def test_Vd01_every_cut_is_noticed(tmp_path, worker):
    wmv = {"codec": "wmv2", "kind": "asf"}
    for name, how in (("a.mp4", {}), ("a.avi", {"codec": "mjpeg"}), ("a.wmv", wmv)):
        data = corpus.encoded(tmp_path / name, **how).read_bytes()
        for share in np.linspace(0.002, 0.998, 25):
            (tmp_path / name).write_bytes(data[: int(len(data) * share)])
            with pytest.raises(DecodeFailed):
                worker.run("video", tmp_path / name, {})


@pytest.mark.parametrize("part_bytes", [1, 64 * 48 * 3 * 4, 1 << 30])
def test_a_video_in_parts_is_the_video_as_a_whole(tmp_path, worker, part_bytes):
    path = _row("Vd02-rotated").build(tmp_path)
    whole, info = decode_video(path, {})
    frames, done = FrameSpool(tmp_path / "disk"), False
    while not done:
        part = worker.run("video-part", path, {"first": frames.shape[0], "bytes": part_bytes})
        assert part.pixels.nbytes <= 3 * (part_bytes + whole[0].nbytes)  # grey beside colour
        for frame in part.pixels:
            frames.append(frame)
        done = part.info.pop("done")
    assert np.array_equal(np.stack([frames[i] for i in range(len(whole))]), whole)
    assert part.info == {**info, "warnings": [list(w) for w in info["warnings"]]}


def test_parts_follow_one_another(tmp_path, worker):
    path = _row("Vd02-mp4").build(tmp_path)
    worker.run("video-part", path, {"first": 0, "bytes": 1})
    with pytest.raises(DecodeFailed, match="lost its place"):
        worker.run("video-part", path, {"first": 2, "bytes": 1})


def test_Vd01_damage_is_met_in_the_part_where_it_lies(tmp_path, worker):
    path = _row("Vd01-avi-flips-0").build(tmp_path)
    frames = FrameSpool(tmp_path / "disk")
    with pytest.raises(DecodeFailed):
        spool_video(path, worker, Limits(), frames)


def test_Vd02_a_long_video_goes_to_disk(tmp_path, worker):
    path = _row("Vd02-mp4").build(tmp_path)
    whole, info = decode_video(path, {})
    frames = FrameSpool(tmp_path / "disk")
    assert spool_video(path, worker, Limits(decoded_bytes=1), frames)["times_s"] == info["times_s"]
    assert np.array_equal(np.stack([frames[i] for i in range(len(whole))]), whole)
    with pytest.raises(DecodeFailed, match="at most 19 frames"):
        spool_video(path, worker, Limits(clip_bytes=whole.nbytes - 1), FrameSpool(tmp_path))


@pytest.mark.slow
def test_Vd01_damage_never_ends_the_worker(tmp_path, worker):
    """300 times 64 flipped bits: refused, or every declared frame is there."""
    source = {n: corpus.encoded(tmp_path / n, **h).read_bytes()
              for n, h in (("a.mp4", {}), ("a.avi", {"codec": "mjpeg"}))}  # fmt: skip
    for seed in range(150):
        for name, data in source.items():
            (tmp_path / name).write_bytes(corpus._flipped(1000 + seed)(data))
            try:
                decoded = worker.run("video", tmp_path / name, {})
            except DecodeFailed as error:
                assert error.reason is not Reason.DECODER_KILLED  # noqa: PT017
            else:
                assert decoded.pixels.shape[0] >= 1
    assert worker.deaths == 0


@pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
def test_limits(tmp_path, spare, fits):
    path = corpus.encoded(tmp_path / "a.mp4", count=6)
    for limits in (
        Limits(frames=6 + spare), Limits(decoded_bytes=6 * 48 * 64 * 3 + spare),
        Limits(max_side_px=64 + spare), Limits(file_bytes=path.stat().st_size + spare),
    ):  # fmt: skip
        if fits:
            assert decode_video(path, decode_options(limits))[0].shape[0] == 6
        else:
            with pytest.raises(DecodeFailed) as caught:
                decode_video(path, decode_options(limits))
            assert caught.value.reason is Reason.TOO_LARGE


def test_special_and_absent_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", Reason.SPECIAL_FILE), ("absent", Reason.UNREADABLE)):
        with pytest.raises(DecodeFailed) as caught:
            decode_video(tmp_path / name, {})
        assert caught.value.reason is reason


def test_without_the_extra(tmp_path, monkeypatch):
    path = corpus.encoded(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DecodeFailed, match="extra 'video'") as caught:
        decode_video(path, {})
    assert caught.value.reason is Reason.FORMAT_REFUSED
