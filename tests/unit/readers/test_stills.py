"""Still pictures: rows P01-P06 of the corpus, and known answers for every kind of file."""

import importlib
import os
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from renalkit.errors import DecodeFailed, InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.still_headers import read_header
from renalkit.readers.stills import decode_mask, decode_options, decode_picture, decode_still

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_images")
ROWS = corpus.IMAGE_ROWS
MIB = 1 << 20


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as made:
        yield made


def _status(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) << 10


def test_corpus_size():
    assert len(ROWS) == 73
    assert {r.id for r in ROWS} == {f"P0{n}" for n in range(1, 7)}
    assert len({r.name for r in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_corpus(row, tmp_path, worker):
    path = row.build(tmp_path)
    before, start = _status(os.getpid(), "VmRSS"), time.monotonic()
    try:
        worker.run("still", path, decode_options(Limits()))
        verdict = ("used", None)
    except InputRefused as error:
        verdict = ("refused", error.reason.value)
    assert verdict == (row.outcome, row.reason)
    assert time.monotonic() - start < 10
    assert _status(os.getpid(), "VmRSS") - before < 512 * MIB
    assert worker.deaths == 0
    assert _status(worker.pid, "VmHWM") < 512 * MIB


def _file(folder, data, name="a.png"):
    path = folder / name
    path.write_bytes(data)
    return path


def _saved(folder, image, kind="PNG", **options):
    return _file(folder, corpus.saved(image, kind, **options))


_kinds = st.sampled_from([np.uint8, np.uint16])
_shapes = st.sampled_from([(16, 17), (20, 16, 3), (16, 16, 4)])


@settings(max_examples=40, deadline=None)
@given(st.data(), _kinds, _shapes)
def test_png_pixels_come_back(tmp_path_factory, data, kind, shape):
    pixels = data.draw(arrays(kind, shape))
    pixels[0, 0], pixels[0, 1] = 0, 1
    if len(shape) == 3:
        pixels[0, 0, 1] = 9  # colour at least there
        pixels[..., 3:] = np.iinfo(kind).max
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    decoded, info = decode_picture(path, Limits())
    assert decoded.dtype == kind
    assert np.array_equal(decoded, pixels[..., :3] if len(shape) == 3 else pixels)
    assert info["bits"] == 8 * np.dtype(kind).itemsize


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("channels", [0, 3])
def test_lossless_formats_agree(tmp_path, kind, channels):
    pixels = corpus.noise(channels=channels)
    decoded, info = decode_picture(_saved(tmp_path, Image.fromarray(pixels), kind), Limits())
    assert np.array_equal(decoded, pixels)
    assert info["source_format"] == kind.lower()
    assert not info["lossy"]


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = _saved(tmp_path, Image.fromarray(corpus.noise(channels=3)), "JPEG")
    decoded, info = decode_picture(path, Limits())
    assert np.array_equal(decoded, np.asarray(Image.open(path)))
    assert info["lossy"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("code", range(1, 9))
def test_P05_orientation_is_applied_as_pillow_does(tmp_path, kind, code):
    exif = Image.Exif()
    exif[0x0112] = code
    path = _saved(tmp_path, Image.fromarray(corpus.noise()), kind, exif=exif)
    decoded, info = decode_picture(path, Limits())
    # Pillow turns TIFF while loading and then once more: a PNG of the same pixels is the referee.
    referee = (
        path if kind == "JPEG" else _saved(tmp_path, Image.fromarray(corpus.noise()), exif=exif)
    )
    with Image.open(referee) as image:
        assert np.array_equal(decoded, np.asarray(ImageOps.exif_transpose(image)))
    assert info["orientation"] == code
    assert bool(info["notes"]) == (code != 1)


def test_P05_equal_planes_collapse_and_are_noted(tmp_path):
    grey = corpus.noise()
    decoded, info = decode_picture(_saved(tmp_path, Image.fromarray(grey).convert("RGB")), Limits())
    assert np.array_equal(decoded, grey)
    assert not info["colour"]
    assert info["notes"] == ["three equal colour planes kept as one"]


def test_P05_palette_gives_its_colours(tmp_path):
    path = next(r for r in ROWS if r.name == "P05-palette").build(tmp_path)
    decoded, info = decode_picture(path, Limits())
    assert np.array_equal(decoded, np.asarray(Image.open(path).convert("RGB")))
    assert info["notes"] == ["palette resolved to colours"]


def test_P02_is_found_whatever_the_limits(tmp_path):
    row = next(r for r in ROWS if r.name == "P02-13000-rows-100-there")
    with pytest.raises(DecodeFailed, match="PNG data for 1300100 bytes") as caught:
        decode_picture(row.build(tmp_path), Limits(max_side_px=20_000))
    assert caught.value.reason is Reason.TRUNCATED_PIXELS


@pytest.mark.parametrize(("side", "reason"), [(31, "too-small"), (32, None), (33, None)])
def test_smallest_side(tmp_path, side, reason):
    path = _saved(tmp_path, Image.fromarray(corpus.noise(side, 40)))
    limits = Limits(min_side_px=32)
    if reason is None:
        assert decode_picture(path, limits)[0].shape == (side, 40)
    else:
        with pytest.raises(DecodeFailed, match="at least 32") as caught:
            decode_picture(path, limits)
        assert caught.value.reason.value == reason


@pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
def test_limits_on_bytes(tmp_path, spare, fits):
    path = _saved(tmp_path, Image.fromarray(corpus.noise()))
    for limits in (
        Limits(file_bytes=path.stat().st_size + spare), Limits(decoded_bytes=2000 + spare),
        Limits(max_side_px=50 + spare),
    ):  # fmt: skip
        if fits:
            assert decode_picture(path, limits)[0].shape == (40, 50)
        else:
            with pytest.raises(DecodeFailed) as caught:
                decode_picture(path, limits)
            assert caught.value.reason is Reason.TOO_LARGE


def test_interlaced_png(tmp_path):
    import cv2

    pixels = corpus.noise(37, 41)
    written, data = cv2.imencode(".png", pixels)
    assert written
    # The seven passes are laid out by hand: no encoder here writes Adam7.
    lines = []
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                         (1, 0, 2, 2), (0, 1, 1, 2)):  # fmt: skip
        lines.append(corpus.grey_lines(np.ascontiguousarray(pixels[y::dy, x::dx])))
    path = _file(tmp_path, corpus.png(37, 41, b"".join(lines), interlace=1))
    assert np.array_equal(decode_picture(path, Limits())[0], pixels)


def test_special_and_absent_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "pipe", Reason.SPECIAL_FILE), (tmp_path, Reason.SPECIAL_FILE),
        (tmp_path / "absent", Reason.UNREADABLE),
    ):  # fmt: skip
        with pytest.raises(DecodeFailed) as caught:
            decode_still(path, {})
        assert caught.value.reason is reason


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_decode(tmp_path_factory, data):
    """No damage leads to an exception that is not ours (P04)."""
    good = data.draw(st.sampled_from(_good_files()))
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    path = _file(tmp_path_factory.mktemp("damaged"), bytes(damaged[: max(cut, 30)]))
    for role in ("image", "mask"):
        try:
            pixels, _ = decode_still(path, decode_options(Limits(), role))
        except DecodeFailed:
            continue
        assert pixels.size


def _good_files():
    image = Image.fromarray(corpus.noise(20, 20))
    return [corpus.saved(image, k) for k in ("PNG", "JPEG", "TIFF", "BMP")]


@given(st.binary(max_size=400))
def test_headers_of_any_bytes(data):
    for magic in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM"):
        try:
            read_header(magic + data, Limits())
        except DecodeFailed:
            continue


# --- Masks ----------------------------------------------------------------------------------


def _mask(folder, image, **options):
    return decode_mask(_saved(folder, image, **options), Limits())[0]


def test_masks_keep_stored_values(tmp_path):
    labels = (corpus.noise() % 3).astype(np.uint8)
    assert np.array_equal(_mask(tmp_path, Image.fromarray(labels)), labels)
    assert np.array_equal(_mask(tmp_path, Image.fromarray(labels > 0)), labels > 0)
    indexed = Image.fromarray(labels).convert("P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    assert np.array_equal(_mask(tmp_path, indexed), labels)
    colour = np.zeros((40, 50, 3), np.uint8)
    colour[labels == 1, 2] = 7
    assert np.array_equal(_mask(tmp_path, Image.fromarray(colour)), 7 * (labels == 1))
    assert not _mask(tmp_path, Image.new("L", (50, 40))).any()


@pytest.mark.parametrize("bits", [2, 4])
def test_masks_of_few_bits(tmp_path, bits):
    values = corpus.noise(20, 24) % 2**bits
    packed = np.packbits(
        np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(20, -1), axis=1
    )
    path = _file(tmp_path, corpus.png(20, 24, corpus.grey_lines(packed), bits=bits))
    assert np.array_equal(decode_mask(path, Limits())[0], values)


def test_masks_in_the_alpha_plane(tmp_path):
    drawn = corpus.noise() > 128
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[..., 3] = 255 * drawn
    assert np.array_equal(_mask(tmp_path, Image.fromarray(pixels)) > 0, drawn)
    pixels[..., 0] = 255
    assert np.array_equal(_mask(tmp_path, Image.fromarray(pixels)) > 0, drawn)
    pixels[..., 3], pixels[..., 0] = 255, 255 * drawn
    assert np.array_equal(_mask(tmp_path, Image.fromarray(pixels)) > 0, drawn)


def test_worker_and_library_give_the_same(tmp_path, worker):
    path = _saved(tmp_path, Image.fromarray(corpus.noise(high=65536)))
    answer = worker.run("still", path, decode_options(Limits()))
    pixels, info = decode_picture(path, Limits())
    assert np.array_equal(answer.pixels, pixels)
    assert answer.info == info
