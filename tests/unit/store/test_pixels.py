"""The pixel store keeps what it was given, finds what was changed, and gives equal files."""

from __future__ import annotations

import multiprocessing
import operator
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import ZipStore

from renalkit.domain.image import Clip, Mode, PixelStack, Source, pixel_sha256
from renalkit.errors import StoreError
from renalkit.store import pixels as store_pixels
from renalkit.store.pixels import StoredStack, pixel_path, stored, verify

SOURCE = Source("0" * 64, "f-" + "0" * 20, "png")


def clip_of(pixels: np.ndarray) -> Clip:
    return Clip(pixels, pixel_sha256(pixels), Mode.B, SOURCE)


def put(folder: Path, clip: Clip) -> StoredStack:
    return store_pixels.put(folder, clip.pixels, clip.sha256)


SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from((0, 3))
).map(lambda s: s[:3] if s[3] == 0 else s)
PIXELS = st.sampled_from(("u1", "<u2", ">u2", "<i2", "<f4")).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype), SHAPES, elements={"allow_nan": False} if "f" in dtype else None
    )
)


@given(pixels=PIXELS)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_stored_is_what_was_given(tmp_path: Path, pixels: np.ndarray) -> None:
    clip = clip_of(pixels)
    stack = put(tmp_path, clip)
    assert isinstance(stack, PixelStack)
    assert stack.shape == pixels.shape
    for index in range(len(pixels)):
        assert np.array_equal(stack[index], pixels[index])
        assert not stack[index].flags.writeable
    assert pixel_sha256(stack) == clip.sha256
    verify(tmp_path, clip.sha256)


def test_equal_pixels_give_equal_files_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(np.arange(600, dtype=np.uint8).reshape(1, 20, 30))
    first = put(tmp_path / "a", clip)
    monkeypatch.setattr("time.time", lambda: 2e9)
    second = put(tmp_path / "b", clip)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_clip_is_written_once(tmp_path: Path) -> None:
    clip = clip_of(np.ones((1, 4, 4), np.uint8))
    path = put(tmp_path, clip).path
    before = path.stat().st_ino
    put(tmp_path, clip)
    assert path.stat().st_ino == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_the_file_is_plain_zarr_with_one_chunk_per_frame(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 9, 3), dtype=np.uint8)
    stack = put(tmp_path, clip_of(pixels))
    store = ZipStore(stack.path, mode="r")
    array = zarr.open_array(store, mode="r")
    assert array.chunks == (1, 8, 9, 3)
    assert np.array_equal(array[:], pixels)
    store.close()


def test_pixels_of_another_digest_are_not_stored(tmp_path: Path) -> None:
    clip = Clip(np.ones((1, 4, 4), np.uint8), "a" * 64, Mode.B, SOURCE)
    with pytest.raises(StoreError, match="not those the clip's digest"):
        put(tmp_path, clip)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_no_flipped_byte_gives_other_pixels_unnoticed(tmp_path: Path, position: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (2, 16, 16), dtype=np.uint8)
    clip = clip_of(pixels)
    path = put(tmp_path, clip).path
    data = bytearray(path.read_bytes())
    data[len(data) * position // 100] ^= 0xFF
    path.write_bytes(data)
    try:
        verify(tmp_path, clip.sha256)
    except StoreError:
        return
    # Some bytes of a zip say nothing of the content (dates, attributes): then nothing changed.
    stack = StoredStack(path, pixels.shape, pixels.dtype)
    assert np.array_equal(np.stack([stack[0], stack[1]]), pixels)


@pytest.mark.parametrize("share", [0, 10, 50, 90, 99])
def test_a_cut_file_is_reported(tmp_path: Path, share: int) -> None:
    stack = put(tmp_path, clip_of(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)))
    data = stack.path.read_bytes()
    stack.path.write_bytes(data[: len(data) * share // 100])
    with pytest.raises(StoreError, match="damaged"):
        stack[0]
    with pytest.raises(StoreError, match="damaged"):
        verify(tmp_path, stack.path.name.split(".")[0])


def test_missing_pixels_say_what_to_do(tmp_path: Path) -> None:
    stack = put(tmp_path, clip_of(np.ones((1, 4, 4), np.uint8)))
    sha = stack.path.name.split(".")[0]
    stack.path.unlink()
    for ask in (
        lambda: stack[0],
        lambda: verify(tmp_path, sha),
        lambda: stored(tmp_path, sha, (1, 4, 4), "|u1"),
    ):
        with pytest.raises(StoreError, match="missing.*run ingest again"):
            ask()


def test_other_shape_and_frames_outside_are_refused(tmp_path: Path) -> None:
    stack = put(tmp_path, clip_of(np.ones((2, 4, 4), np.uint8)))
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of 2 stored frames"):
            stack[index]
    with pytest.raises(StoreError, match="shape and type"):
        StoredStack(stack.path, (2, 4, 5), np.dtype("u1"))[0]


@pytest.mark.parametrize("sha", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_digests_name_files(tmp_path: Path, sha: str) -> None:
    with pytest.raises(StoreError, match="64 hex digits"):
        pixel_path(tmp_path, sha)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers_read_the_same_pixels(tmp_path: Path, method: str) -> None:
    stacks = [put(tmp_path, clip_of(np.full((1, 8, 8), n, np.uint8))) for n in range(4)]
    assert [int(s[0].sum()) for s in stacks] == [64 * n for n in range(4)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        frames = pool.starmap_async(operator.getitem, [(s, 0) for s in stacks]).get(timeout=60)
        pool.close()
        pool.join()
    assert [int(f.sum()) for f in frames] == [64 * n for n in range(4)]
