"""Contrast videos: rows Vd01-Vd03 through `ceus analyse` and `ceus panels`, cases by their ids.

Each video is used (flagged where its timing is unsure) or refused with a reason; from a damaged
one comes no number that the whole one would not give.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from renalkit.cli import main
from renalkit.domain.geometry import Box
from renalkit.errors import Exit, InputRefused
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.store.spool import FrameSpool
from renalkit.usecases.ceus import AnalyseRequest, PanelsRequest, run_analyse, run_panels
from renalkit.usecases.ceus_input import read_cine
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.progress import Silent

av = pytest.importorskip("av")
sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus: Any = importlib.import_module("make_images")
ODD = [r for r in corpus.VIDEO_ROWS if r.id != "Vd01" and r.name != "Vd02-too-many-frames"]

SETTINGS = ("dynamic_range_db=50", "fit.resamples=0", "frames.per_phase=4", "maps=false")
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "avi": ("mjpeg", {"qmin": "3", "qmax": "3"}),
    "mp4": ("mpeg4", {"qmin": "3", "qmax": "3"}),
    "mov": ("libx264", {"crf": "14", "preset": "ultrafast", "bf": "2"}),
    "wmv": ("wmv2", {"qmin": "3", "qmax": "3"}),
}
"""Codec and options by type of file."""
FRAMES, STEP_S, OUTLINED = 30, 2, 13

Film = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def drawn() -> tuple[Film, Box]:
    """A cine of 30 frames in 60 s, and the kidney's box on its outlined frame."""
    patient = draw_patient(PatientPlan(400, seed=811), 1)
    features = None if patient.latents is None else patient.latents.ceus
    subject = (patient.anatomy, patient.views[0])
    options = CeusOptions(layout=Layout.LEFT, rows=450, cols=600)
    rng = patient.stream(Stream.CEUS)
    study = CeusStudy(draw_ceus(subject, patient.scanner, features, rng, options))
    shown = [
        (f.copy(), truth) for f, truth in study.frames(np.arange(0.0, FRAMES * STEP_S, STEP_S))
    ]
    box = shown[OUTLINED][1].box("kidney", Panel.BMODE)
    assert box is not None
    return np.stack([f for f, _ in shown]), box


@pytest.fixture(scope="module")
def videos(drawn: tuple[Film, Box], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The cine as a whole video of each type, playing as fast as it was taken."""
    folder = tmp_path_factory.mktemp("whole")
    return {kind: encoded(folder / f"a.{kind}", drawn[0]).read_bytes() for kind in KINDS}


def encoded(path: Path, film: Film, fps: float = 1 / STEP_S) -> Path:
    codec, options = KINDS[path.suffix[1:]]
    kind = "asf" if path.suffix == ".wmv" else None
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(
            codec, rate=Fraction(fps).limit_denominator(100), options=options
        )
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in film:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path


def stored(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def analysed(source: Path, out: Path, box: Box | None = None) -> dict[str, Any]:
    """The summary of a file or folder; box: the lesion's, on the outlined frame of every file."""
    table = None
    if box is not None:
        files = [source] if source.is_file() else sorted(source.iterdir())
        rows = [f"{f.name},{OUTLINED},{box.x},{box.y},{box.width},{box.height},1" for f in files]
        table = stored(out.parent / f"{out.name}.csv", "\n".join([HEAD, *rows]).encode())
    request = AnalyseRequest(source, out, ceus_settings(None, SETTINGS), regions=table)
    return run_analyse(request, Silent())


HEAD = "file,frame,x,y,width,height,lesion"


def figures(analysis: dict[str, Any]) -> dict[str, float]:
    found = analysis["perfusion"]["regions"]["lesion"]["figures"]
    return {name: found[name]["value"] for name in ("PE", "TTP", "WiAUC")}


@pytest.fixture(scope="module")
def whole(
    videos: dict[str, bytes], drawn: tuple[Film, Box], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The analysis of each undamaged video."""
    folder = tmp_path_factory.mktemp("analysed")
    for kind, data in videos.items():
        stored(folder / "in" / f"a.{kind}", data)
    summary = analysed(folder / "in", folder / "out", drawn[1])
    assert summary["refused"] == []
    return {item["file"][2:]: item["analysis"] for item in summary["analysed"]}


def test_Vd02_every_kind_of_video_gives_the_same_figures(whole: dict[str, dict[str, Any]]) -> None:
    base = figures(whole["avi"])
    for kind, found in whole.items():
        assert found["clip"]["timing"] == "pts"
        assert found["clip"]["kind"] == (
            "asf" if kind == "wmv" else "mp4" if kind[0] == "m" else kind
        )
        assert found["clip"]["frames"] == FRAMES
        assert found["clock"]["agrees"]
        assert "player" not in " ".join(found["warnings"])
        for name, value in figures(found).items():
            assert value == pytest.approx(base[name], rel=0.1), (kind, name)


def test_Vd01_heavy_damage_is_always_refused(
    videos: dict[str, bytes], drawn: tuple[Film, Box], tmp_path: Path
) -> None:
    """40 videos with 64 flipped bits each."""
    for seed in range(10):
        for kind, data in videos.items():
            stored(tmp_path / "in" / f"{seed}.{kind}", corpus._flipped(seed)(data))
    summary = analysed(tmp_path / "in", tmp_path / "out", drawn[1])
    assert summary["analysed"] == []
    assert len(summary["refused"]) == 40
    assert not list((tmp_path / "out").rglob("figures.csv"))


def test_Vd01_what_light_damage_leaves_is_what_the_whole_video_gives(
    videos: dict[str, bytes],
    whole: dict[str, dict[str, Any]],
    drawn: tuple[Film, Box],
    tmp_path: Path,
) -> None:
    """One flipped bit may change a few pixels, which no one can tell from others."""
    draw = np.random.default_rng(1)
    for kind, data in videos.items():
        damaged = bytearray(data)
        damaged[int(draw.integers(len(data) // 4, len(data)))] ^= 1 << int(draw.integers(8))
        stored(tmp_path / "in" / f"a.{kind}", bytes(damaged))
    summary = analysed(tmp_path / "in", tmp_path / "out", drawn[1])
    assert len(summary["analysed"]) + len(summary["refused"]) == len(videos)
    for item in summary["analysed"]:
        for name, value in figures(item["analysis"]).items():
            assert value == pytest.approx(figures(whole[item["file"][2:]])[name], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_Vd01_a_cut_video_is_refused(videos: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    path = stored(tmp_path / f"a.{kind}", corpus._cut(0.3)(videos[kind]))
    for run in (
        lambda: analysed(path, tmp_path / "out"),
        lambda: run_panels(PanelsRequest(path)),
    ):
        with pytest.raises(InputRefused, match=r"it is cut|cut off"):
            run()


@pytest.mark.parametrize("command", ["analyse", "panels"])
def test_Vd01_a_video_without_its_index_is_refused_by_the_command(
    videos: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    path = stored(tmp_path / "a.mp4", corpus._without_moov(videos["mp4"]))
    words = ["renalkit", "ceus", command, str(path), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.REFUSED
    assert "video without its index (moov)" in capsys.readouterr().err
    assert not (tmp_path / "out").is_file()


def test_Vd02_odd_videos_that_show_no_dual_cine_are_refused_one_by_one(tmp_path: Path) -> None:
    """Odd videos of the corpus: none gives a result, none stops the others."""
    for row in ODD:
        (tmp_path / "in" / row.name).mkdir(parents=True)
        row.build(tmp_path / "in" / row.name)
    summary = analysed(tmp_path / "in", tmp_path / "out")
    assert summary["analysed"] == []
    refused = {str(Path(r["file"]).parent): r for r in summary["refused"]}
    assert set(refused) == {row.name for row in ODD}
    for row in ODD:
        if row.outcome == "refused":
            assert refused[row.name]["reason"] == (row.reason or refused[row.name]["reason"])
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {".lock", "summary.json"}


def test_Vd02_a_video_that_plays_at_another_speed_gives_no_figures(
    drawn: tuple[Film, Box], tmp_path: Path
) -> None:
    """Played at ten times and at half the speed."""
    for name, fps in (("fast", 5), ("slow", 0.25)):
        (tmp_path / "in").mkdir(exist_ok=True)
        encoded(tmp_path / "in" / f"{name}.avi", drawn[0], fps)
    for item in analysed(tmp_path / "in", tmp_path / "out", drawn[1])["analysed"]:
        found = item["analysis"]
        assert (found["phases"], found["perfusion"]) == (None, None)
        assert "frame times are not believed" in " ".join(found["warnings"])


def test_Vd02_times_that_no_clock_confirms_are_flagged(
    drawn: tuple[Film, Box], whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    x, y, width, height = whole["avi"]["clock"]["box"]
    film = drawn[0].copy()
    film[:, y : y + height, x : x + width] = 0
    path = encoded(tmp_path / "a.avi", film)
    (item,) = analysed(path, tmp_path / "out", drawn[1])["analysed"]
    assert item["analysis"]["clock"]["agrees"] is None
    assert "no clock in the picture says so" in " ".join(item["analysis"]["warnings"])


def test_Vd02_without_a_rate_there_are_no_figures(
    videos: dict[str, bytes], drawn: tuple[Film, Box], tmp_path: Path
) -> None:
    path = stored(tmp_path / "a.avi", corpus._stream(24, 0)(videos["avi"]))
    (item,) = analysed(path, tmp_path / "out", drawn[1])["analysed"]
    found = item["analysis"]
    assert (found["clip"]["timing"], found["phases"], found["perfusion"]) == ("none", None, None)
    assert "gives no frame rate" in " ".join(found["warnings"])


def test_Vd02_another_number_of_frames_than_declared_is_refused(
    videos: dict[str, bytes], tmp_path: Path
) -> None:
    for change in (1, -1):
        data = corpus._stream(32, FRAMES + change)(videos["avi"])
        with pytest.raises(InputRefused, match=r"frames|end"):
            analysed(stored(tmp_path / "a.avi", data), tmp_path / "out")


def test_Vd02_one_frame_is_a_still(drawn: tuple[Film, Box], tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.avi", drawn[0][:1])
    with pytest.raises(InputRefused, match="still image"):
        analysed(path, tmp_path / "out")


def test_Vd02_turned_video_is_turned_back(videos: dict[str, bytes], tmp_path: Path) -> None:
    """Side by side becomes one above the other."""
    path = stored(tmp_path / "a.mp4", corpus._rotated(videos["mp4"]))
    found = run_panels(PanelsRequest(path))
    assert found["answer"] == "two-panels"
    assert found["bmode"]["box"][0] == pytest.approx(found["contrast"]["box"][0], abs=2)


@pytest.fixture
def visited() -> Iterator[tuple[int, list[int]]]:
    """A port on this machine, and what knocked there."""
    knocks: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    knocks.append(1)

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], knocks
        over.set()
        thread.join()


LISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "m3u8 after blanks": "\n  #EXTM3U\n#EXTINF:1,\n{url}\n",
    "concat list": "ffconcat version 1.0\nfile '{url}'\n",
    "concat protocol": "concat:{url}|/etc/passwd",
    "address": "{url}\n",
    "asx": '<ASX version="3.0"><Entry><Ref href="{url}"/></Entry></ASX>',
    "dash": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "xml first": '<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
}


def test_Vd03_nothing_is_opened_that_a_file_names(
    visited: tuple[int, list[int]], tmp_path: Path
) -> None:
    port, knocks = visited
    for name, words in LISTS.items():
        text = words.format(url=f"http://127.0.0.1:{port}/a.ts", port=port)
        for suffix in ("mp4", "avi", "m3u8"):
            stored(tmp_path / "in" / f"{name}.{suffix}", text.encode())
    summary = analysed(tmp_path / "in", tmp_path / "out")
    assert summary["analysed"] == []
    assert len(summary["refused"]) == 3 * len(LISTS)
    for name in LISTS:
        with pytest.raises(InputRefused):
            run_panels(PanelsRequest(tmp_path / "in" / f"{name}.mp4"))
    assert knocks == []


def test_a_video_of_any_length_fits_into_memory(
    drawn: tuple[Film, Box], videos: dict[str, bytes], tmp_path: Path
) -> None:
    """Frames go to disk in parts and leave nothing behind."""
    path = stored(tmp_path / "a.avi", videos["avi"])
    with DecodeWorker() as worker:
        cine = read_cine(path, "a", worker, keep_pixels=False, folder=tmp_path / "disk")
    assert isinstance(cine.clip.pixels, FrameSpool)
    assert cine.clip.n_frames == FRAMES
    assert list((tmp_path / "disk").iterdir()) == []
    off = np.abs(cine.clip.frame(7).pixels.astype(int) - drawn[0][7].astype(int))
    assert off.mean() < 3
