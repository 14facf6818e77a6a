"""The parent lives whatever happens to the child, and gets the pixels the child decoded."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.errors import DecodeFailed, Reason
from renalkit.readers import decode_child
from renalkit.readers.contract import Limits
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_pixels import task_options

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
LIMITS = Limits()


def options(limits=LIMITS, **more):
    return {**task_options(limits, allow_headerless=False), "boxes": None, "pixels": True} | more


@pytest.fixture
def cine(tmp_path):
    path = tmp_path / "cine.dcm"
    path.write_bytes(corpus.part10(corpus.cine(5)))
    return path


def test_pixels_come_back_whole(cine):
    with DecodeWorker() as worker:
        decoded = worker.run("dicom", cine, options())
        part = worker.run("dicom", cine, options(frames=[3, 1]))
        none = worker.run("dicom", cine, options(pixels=False))
        assert worker.deaths == 0
    assert decoded.pixels.shape == (5, corpus.ROWS, corpus.COLS)
    for index in range(5):
        assert np.array_equal(decoded.pixels[index], corpus.picture(seed=index))
    assert np.array_equal(part.pixels, decoded.pixels[[3, 1]])
    assert none.pixels.size == 0
    assert none.info["sha256"] == decoded.info["sha256"]


def test_refusal_is_passed_on_and_the_child_lives(cine, tmp_path):
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"nothing of the kind")
    with DecodeWorker() as worker:
        with pytest.raises(DecodeFailed, match="not DICOM") as caught:
            worker.run("dicom", bad, options())
        pid = worker.pid
        worker.run("dicom", cine, options())
        assert worker.pid == pid
    assert caught.value.reason is Reason.NOT_DICOM


def test_missing_file_is_a_refusal(tmp_path):
    with DecodeWorker() as worker, pytest.raises(DecodeFailed, match="FileNotFoundError"):
        worker.run("dicom", tmp_path / "none.dcm", options())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_death_is_one_error_and_the_next_run_works(cine, how):
    with DecodeWorker() as worker:
        worker.run("dicom", cine, options())
        os.kill(worker.pid, signal.SIGSTOP)
        killer = threading.Timer(0.2, os.kill, (worker.pid, how))
        # SIGSTOP keeps the child from answering first; SIGCONT lets it receive the other signal.
        waker = threading.Timer(0.25, os.kill, (worker.pid, signal.SIGCONT))
        killer.start()
        if how != signal.SIGKILL:
            waker.start()
        with pytest.raises(DecodeFailed, match=how.name) as caught:
            worker.run("dicom", cine, options())
        assert caught.value.reason is Reason.DECODER_KILLED
        waker.cancel()
        assert worker.deaths == 1
        assert worker.run("dicom", cine, options()).pixels.shape[0] == 5


def test_silence_ends_at_the_time_limit(cine):
    with DecodeWorker(replace(LIMITS, worker_seconds=0.5)) as worker:
        worker.limits = LIMITS
        worker.run("dicom", cine, options())
        worker.limits = replace(LIMITS, worker_seconds=0.5)
        os.kill(worker.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(DecodeFailed, match="no answer in time"):
            worker.run("dicom", cine, options())
        assert time.monotonic() - start < 3
        assert worker.pid is None


def test_memory_limit_is_a_refusal_not_a_crash(tmp_path):
    """A file whose pixels do not fit the child's memory is refused in words."""
    path = tmp_path / "large.dcm"
    side = corpus.us(4096)
    frame = corpus.jpeg(np.zeros((4096, 4096), np.uint8))
    data = corpus.cine(60, {0x00280010: side, 0x00280011: side})
    path.write_bytes(corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments([frame] * 60)))
    limits = replace(LIMITS, worker_bytes=700 << 20)
    with DecodeWorker(limits) as worker:
        with pytest.raises(DecodeFailed) as caught:
            worker.run("dicom", path, options(limits))
        assert caught.value.reason in (Reason.TOO_LARGE, Reason.DECODER_KILLED)


def test_work_begun_ahead_is_what_run_gives(cine):
    with DecodeWorker() as worker:
        first = worker.run("dicom", cine, options(frames=[0])).pixels
        worker.begin("dicom", cine, options(frames=[3]))
        ahead = worker.run("dicom", cine, options(frames=[3])).pixels
        worker.begin("dicom", cine, options(frames=[1]))
        other = worker.run("dicom", cine, options(frames=[4])).pixels
        after = worker.run("dicom", cine, options(frames=[2])).pixels
    for pixels, seed in ((first, 0), (ahead, 3), (other, 4), (after, 2)):
        assert np.array_equal(pixels[0], corpus.picture(seed=seed))


@pytest.mark.parametrize("wanted", [True, False])
def test_silence_ahead_is_an_error_only_of_what_was_begun(cine, wanted):
    with DecodeWorker() as worker:
        worker.run("dicom", cine, options())
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        worker.begin("dicom", cine, options(frames=[1]))
        worker.limits = replace(LIMITS, worker_seconds=2)
        if wanted:
            with pytest.raises(DecodeFailed, match="no answer in time"):
                worker.run("dicom", cine, options(frames=[1]))
        assert worker.run("dicom", cine, options(frames=[2])).pixels.any()
        assert worker.pid != pid


def test_nothing_is_begun_ahead_without_a_child(cine):
    with DecodeWorker() as worker:
        worker.begin("dicom", cine, options())
        assert worker.pid is None
        worker.run("dicom", cine, options())
        os.kill(worker.pid, signal.SIGKILL)
        while worker.pid is not None:
            time.sleep(0.01)
        worker.begin("dicom", cine, options())
        assert worker.run("dicom", cine, options()).pixels.shape[0] == 5


@pytest.mark.parametrize(
    "answer",
    [
        {"shape": [4, 4], "dtype": "|u1", "info": {}},
        {"shape": [10], "dtype": "|O", "info": {}},
        {"shape": [-1, -10], "dtype": "|u1", "info": {}},
        {"shape": [1 << 40], "dtype": "|u1", "info": {}},
        {"shape": [1, 1, 1, 1, 10], "dtype": "|u1", "info": {}},
    ],
)
def test_answer_that_does_not_fit_its_pixels_is_not_believed(cine, answer, monkeypatch):
    with DecodeWorker() as worker:
        worker.run("dicom", cine, options())
        os.ftruncate(worker._memory, 10)
        monkeypatch.setattr(DecodeWorker, "_receive", lambda *_: answer)
        with pytest.raises(DecodeFailed, match="bytes of pixels for"):
            worker.run("dicom", cine, options())
        assert worker.pid is None


def test_interrupt_leaves_no_child(cine, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with DecodeWorker() as worker:
        worker.run("dicom", cine, options())
        pid = worker.pid
        with monkeypatch.context() as patched:
            patched.setattr(DecodeWorker, "_receive", interrupt)
            with pytest.raises(KeyboardInterrupt):
                worker.run("dicom", cine, options())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert worker.run("dicom", cine, options()).pixels.size


def test_unknown_task_is_a_programming_error(cine):
    with DecodeWorker() as worker, pytest.raises(ValueError, match="no decoding task 'ct'"):
        worker.run("ct", cine, {})


def test_close_frees_everything(cine):
    def handles():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = handles()
    for _ in range(3):
        with DecodeWorker() as worker:
            worker.run("dicom", cine, options())
    assert handles() == before


def test_child_starts_fast_and_light():
    start = time.monotonic()
    with DecodeWorker() as worker:
        worker._living()
        assert time.monotonic() - start < 2  # 0.04 s alone; the limit is for a busy machine
    code = (
        "import sys; import renalkit.readers.decode_child as c;"
        "[c.find_task(t) for t in ('dicom', 'still')];"
        "print([m for m in ('torch', 'zarr', 'pydantic', 'pydicom') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_child_ignores_the_current_folder(cine, tmp_path, monkeypatch):
    """A module in the data folder must not be imported by the child."""
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the data folder')")
    monkeypatch.chdir(tmp_path)
    with DecodeWorker() as worker:
        assert worker.run("dicom", cine, options()).pixels.size


@pytest.mark.parametrize("error", decode_child.DECODER_ERRORS)
def test_decoder_errors_become_codec_error(error, monkeypatch):
    def task(path, options):
        raise error("PLANTED")

    monkeypatch.setattr(decode_child, "find_task", lambda name: task)
    answer = decode_child.answer_request({"task": "x", "path": "p", "options": {}}, -1)
    assert answer["refused"]["reason"] == "codec-error"
    assert "PLANTED" not in str(answer)


def test_other_errors_end_the_child(monkeypatch):
    def task(path, options):
        raise ImportError("no such module")

    monkeypatch.setattr(decode_child, "find_task", lambda name: task)
    with pytest.raises(ImportError):
        decode_child.answer_request({"task": "x", "path": "p", "options": {}}, -1)


FUZZ = {
    "jpeg": (corpus.jpeg, corpus.JPEG_50),
    "lossless": (corpus.lossless, corpus.LOSSLESS_70),
    "jpeg-ls": (corpus.jls, corpus.JLS_80),
    "jpeg-2000": (corpus.j2k, corpus.J2K_90),
    "rle": (corpus.rle, corpus.RLE_5),
}
FUZZ_FRAMES = int(os.environ.get("RENALKIT_FUZZ_FRAMES", "40"))


@pytest.mark.parametrize("codec", FUZZ)
def test_d46_flipped_bytes_never_end_the_parent(codec, tmp_path):
    """Damaged frames are refused, or decode to pixels whose digest tells them apart.

    RENALKIT_FUZZ_FRAMES raises the number of damaged frames per codec.
    """
    code, syntax = FUZZ[codec]
    rng = np.random.default_rng(46)
    path = tmp_path / "frame.dcm"
    stream = code(corpus.picture())
    silent = refused = 0
    with DecodeWorker(replace(LIMITS, worker_seconds=3.0)) as worker:
        path.write_bytes(corpus.encapsulated(corpus.still(), syntax, corpus.fragments([stream])))
        original = worker.run("dicom", path, options(pixels=False)).info
        for _ in range(FUZZ_FRAMES):
            damaged = bytearray(stream)
            for at in rng.integers(0, len(stream), int(rng.integers(1, 8))):
                damaged[at] ^= int(rng.integers(1, 256))
            raw = corpus.encapsulated(corpus.still(), syntax, corpus.fragments([bytes(damaged)]))
            path.write_bytes(raw)
            try:
                info = worker.run("dicom", path, options(pixels=False)).info
            except DecodeFailed:
                refused += 1
            else:
                silent += 1
                assert info["payload_sha256"] != original["payload_sha256"]
        print(f"{codec}: {refused} refused, {silent} decoded, {worker.deaths} deaths of the child")
    assert refused + silent == FUZZ_FRAMES
