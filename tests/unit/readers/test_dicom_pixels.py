"""Decoded frames against pydicom, palettes and colours against their formulas, lazy access."""

import importlib
import io
import os
import struct
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydicom.pixels import apply_color_lut
from pydicom.pixels.processing import convert_color_space

from renalkit.domain.geometry import Box
from renalkit.domain.image import pixel_sha256, windows_of
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.dicom_palette import expand_segments
from renalkit.readers.dicom_pixels import (
    LazyDicomFrames,
    blank_outside_regions,
    decode_dicom,
    decode_payload,
    describe,
    frame_places,
    margin_statistics,
    read_payload,
    read_stream_head,
    task_options,
    ybr_to_rgb,
)
from renalkit.readers.dicom_prescan import FileSource, prescan

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
LIMITS = Limits()
DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = sorted((DATA / "us_dicom").glob("*.dcm"))


def outcome(function, *arguments):
    """(reason, None) when it refuses, (None, result) when it does not."""
    try:
        return None, function(*arguments)
    except InputRefused as refused:
        return refused.reason, None


def ours(path):
    scan = prescan(path, LIMITS)
    about = describe(scan, LIMITS)
    with FileSource(path) as file:
        source = scan.inflated or file
        places, _ = frame_places(scan, about, source)
        return np.stack([decode_payload(read_payload(source, p), about) for p in places])


def theirs(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path)
        pixels = data.pixel_array
        if data.PhotometricInterpretation == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, data)
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    return pixels if int(data.get("NumberOfFrames") or 1) > 1 else pixels[None]


def same_as_pydicom(path, raw):
    path.write_bytes(raw)
    mine, reference = ours(path), theirs(path)
    assert mine.dtype == reference.dtype.newbyteorder("=")
    assert np.array_equal(mine, reference)


@pytest.mark.data
@pytest.mark.skipif(not REAL, reason="no real ultrasound DICOM files: set RENALKIT_DATA")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_real_files_equal_pydicom(path):
    if "JPGLossless" in path.name:  # pydicom's default plugins do not read it
        assert ours(path).sum() == 13572107  # two other decoders agree on it
        return
    assert np.array_equal(ours(path), theirs(path))


@pytest.mark.data
def test_real_files_are_all_there():
    if not REAL:
        pytest.skip("no real ultrasound DICOM files: set RENALKIT_DATA")
    assert len(REAL) == 14


def colour_picture(seed=1):
    a, b, c = (corpus.picture(seed=seed + i) for i in range(3))
    return np.stack([a, b[::-1], c[:, ::-1]], -1)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "RGB"])
@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_colour_equals_pydicom(tmp_path, subsampling, photometric, quality):
    data = corpus.still(corpus.colour(photometric))
    stream = corpus.jpeg(colour_picture(), subsampling=subsampling, quality=quality)
    raw = corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments([stream]))
    same_as_pydicom(tmp_path / "a.dcm", raw)


@pytest.mark.parametrize("table", [b"", None], ids=["no table", "table"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_jpeg_fragments_equal_pydicom(tmp_path, table, pieces):
    data = corpus.cine(3, corpus.colour())
    streams = [corpus.jpeg(colour_picture(seed), subsampling=1) for seed in range(3)]
    step = [-(-len(s) // pieces // 2) * 2 for s in streams]
    parts = [
        s[i * n : (i + 1) * n] for s, n in zip(streams, step, strict=True) for i in range(pieces)
    ]
    if table is None and pieces > 1:
        starts = np.cumsum(
            [0] + [sum(len(p) + len(p) % 2 + 8 for p in parts[k : k + pieces]) for k in (0, pieces)]
        )
        table = struct.pack("<3I", *starts.tolist())
    raw = corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments(parts, table=table))
    same_as_pydicom(tmp_path / "a.dcm", raw)


def test_jpeg_rgb_component_ids_equal_pydicom(tmp_path):
    stream = bytearray(corpus.jpeg(colour_picture(), subsampling=0))
    at = stream.index(b"\xff\xc0")
    scan = stream.index(b"\xff\xda")
    for i, name in enumerate(b"RGB"):
        stream[at + 10 + 3 * i] = stream[scan + 5 + 2 * i] = name
    data = corpus.still(corpus.colour("YBR_FULL"))
    raw = corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments([bytes(stream)]))
    same_as_pydicom(tmp_path / "a.dcm", raw)


def with_adobe(stream, transform):
    """The stream with an Adobe marker in the place of its JFIF marker."""
    mark = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform])
    (length,) = struct.unpack(">H", stream[4:6])
    return stream[:2] + mark + stream[4 + length :]


def test_jpeg_adobe_marker_is_believed(tmp_path):
    """pydicom 3.0 converts YCbCr twice here; the true colours are those of the plain stream."""
    stream = corpus.jpeg(colour_picture(), subsampling=0)
    data = corpus.still(corpus.colour("YBR_FULL_422"))
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments([stream])))
    plain = ours(path)
    marked = corpus.fragments([with_adobe(stream, 1)])
    path.write_bytes(corpus.encapsulated(data, corpus.JPEG_50, marked))
    assert np.array_equal(ours(path), plain)
    assert abs(plain[0].astype(int) - colour_picture()).mean() < 8
    rgb = corpus.still(corpus.colour("RGB"))
    same_as_pydicom(path, corpus.encapsulated(rgb, corpus.JPEG_50, marked))
    untransformed = corpus.fragments([with_adobe(stream, 0)])
    same_as_pydicom(path, corpus.encapsulated(data, corpus.JPEG_50, untransformed))


@pytest.mark.parametrize("codec", ["jpeg", "jls", "j2k", "rle"])
def test_grey_codecs_equal_pydicom(tmp_path, codec):
    syntax = {
        "jpeg": corpus.JPEG_50,
        "jls": corpus.JLS_80,
        "j2k": corpus.J2K_90,
        "rle": corpus.RLE_5,
    }
    streams = [getattr(corpus, codec)(corpus.picture(seed=s)) for s in range(2)]
    raw = corpus.encapsulated(corpus.cine(2), syntax[codec], corpus.fragments(streams))
    same_as_pydicom(tmp_path / "a.dcm", raw)


def deep_picture(signed=False):
    deep = corpus.picture().astype(np.uint16) * 13
    return deep.astype(np.int16) - 1000 if signed else deep


def deep(signed=False, stored=12):
    return {
        0x00280100: corpus.us(16),
        0x00280101: corpus.us(stored),
        0x00280102: corpus.us(stored - 1),
        0x00280103: corpus.us(int(signed)),
        0x7FE00010: ("OW", deep_picture(signed).tobytes()),
    }


@pytest.mark.parametrize("syntax", [corpus.EXPLICIT, corpus.IMPLICIT, corpus.BIG, corpus.DEFLATED])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [12, 16])
def test_deep_native_equals_pydicom(tmp_path, syntax, signed, stored):
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(corpus.still(deep(signed, stored)), syntax))


@pytest.mark.parametrize("codec", ["jls", "j2k", "rle"])
def test_deep_codecs_equal_pydicom(tmp_path, codec):
    syntax = {"jls": corpus.JLS_80, "j2k": corpus.J2K_90, "rle": corpus.RLE_5}[codec]
    stream = getattr(corpus, codec)(deep_picture())
    raw = corpus.encapsulated(corpus.still(deep(stored=16)), syntax, corpus.fragments([stream]))
    same_as_pydicom(tmp_path / "a.dcm", raw)


def test_lossless_colour_comes_back_exactly(tmp_path):
    stream = corpus.lossless(corpus.picture())
    path = tmp_path / "a.dcm"
    path.write_bytes(
        corpus.encapsulated(corpus.still(), corpus.LOSSLESS_70, corpus.fragments([stream]))
    )
    assert np.array_equal(ours(path)[0], corpus.picture())
    stream = bytes(corpus.imagecodecs.jpeg8_encode(colour_picture(), lossless=True, predictor=1))
    rgb = corpus.still(corpus.colour("RGB"))
    path.write_bytes(corpus.encapsulated(rgb, corpus.LOSSLESS_70, corpus.fragments([stream])))
    assert np.array_equal(ours(path)[0], colour_picture())


def test_signed_stream_of_unsigned_bytes_known_answer(tmp_path):
    """D47: the header says signed, the JPEG 2000 stream unsigned; values shift as pydicom's do."""
    data = corpus.still(deep(signed=True, stored=16))
    raw = corpus.encapsulated(data, corpus.J2K_90, corpus.fragments([corpus.j2k(deep_picture())]))
    same_as_pydicom(tmp_path / "a.dcm", raw)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [corpus.EXPLICIT, corpus.BIG, corpus.RLE_5])
def test_native_and_rle_colour_equal_pydicom(tmp_path, photometric, planar, syntax):
    frame = colour_picture()
    stored = np.moveaxis(frame, -1, 0) if planar else frame
    changes = corpus.colour(photometric) | {0x00280006: corpus.us(planar)}
    data = corpus.still(changes | {0x7FE00010: ("OB", stored.tobytes())})
    raw = corpus.part10(data, syntax) if syntax != corpus.RLE_5 else None
    if raw is None:
        raw = corpus.encapsulated(data, syntax, corpus.fragments([corpus.rle(frame)]))
    same_as_pydicom(tmp_path / "a.dcm", raw)


def test_native_422_equals_pydicom(tmp_path):
    rng = np.random.default_rng(5)
    raw = rng.integers(0, 256, corpus.ROWS * corpus.COLS * 2, np.uint8).tobytes()
    data = corpus.still(corpus.colour() | {0x7FE00010: ("OB", raw)})
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(data))


def test_big_endian_words_of_bytes(tmp_path):
    """8-bit pixels in OW words: the file swaps neighbours, the picture does not."""
    path = tmp_path / "a.dcm"
    path.write_bytes(
        corpus.part10(corpus.still({0x7FE00010: ("OW", corpus.picture().tobytes())}), corpus.BIG)
    )
    assert np.array_equal(ours(path)[0], corpus.picture())
    assert np.array_equal(theirs(path)[0], corpus.picture())


def test_monochrome1_is_turned_bright_up(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.part10(corpus.still({0x00280004: corpus.cs("MONOCHROME1")})))
    assert np.array_equal(ours(path)[0], 255 - corpus.picture())
    path.write_bytes(corpus.part10(corpus.still(deep() | {0x00280004: corpus.cs("MONOCHROME1")})))
    assert np.array_equal(ours(path)[0], 4095 - deep_picture())


def palette_data(tags=0x00281201, table=None, entries=64, first=0, bits=16):
    index = np.minimum(corpus.picture() // 4, 63) + first
    changes = {0x00280004: corpus.cs("PALETTE COLOR")}
    changes[0x7FE00010] = ("OB", index.astype(np.uint8).tobytes())
    for channel in range(3):
        ramp = (np.arange(64) * (400 + 300 * channel)).astype("<u2").tobytes()
        changes[0x00281101 + channel] = corpus.us(entries, first, bits)
        changes[tags + channel] = ("OW", ramp if table is None else table)
    return corpus.still(changes)


def test_palettes_equal_pydicom(tmp_path):
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(palette_data()))
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(palette_data(first=9)))
    segments = struct.pack("<2H4H", 0, 4, 10, 2000, 300, 40) + struct.pack("<3H", 1, 30, 60000)
    segments += struct.pack("<3H", 1, 30, 7)
    segmented = palette_data(0x00281221, segments)
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(segmented))
    narrow = palette_data(table=bytes(range(64)), bits=8)
    same_as_pydicom(tmp_path / "a.dcm", corpus.part10(narrow))


def test_palette_of_bytes_in_words_is_not_black(tmp_path):
    path = tmp_path / "a.dcm"
    table = np.arange(0, 256, 4).astype("<u2").tobytes()
    path.write_bytes(corpus.part10(palette_data(table=table)))
    assert ours(path).max() > 100


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=60))
def test_any_palette_segments_are_expanded_or_refused(words):
    refusal, out = outcome(expand_segments, np.asarray(words, np.uint16), 256)
    assert refusal is Reason.BAD_PALETTE or len(out) <= 256


def test_indirect_segment_repeats_earlier_ones():
    words = np.asarray([0, 2, 5, 6, 1, 2, 10, 2, 2, 0, 0], np.uint16)
    assert expand_segments(words, 8).tolist() == [5, 6, 8, 10, 5, 6, 8, 10]


def test_colour_conversion_equals_pydicom_for_every_chroma():
    """All 65536 chroma pairs at 16 luma values, extremes included; the formula at the marked."""
    cb, cr = np.meshgrid(np.arange(256), np.arange(256))
    for luma in (0, 1, 16, 19, 33, 46, 64, 100, 127, 128, 150, 200, 235, 253, 254, 255):
        ybr = np.stack([np.full_like(cb, luma), cb, cr], -1).astype(np.uint8)
        assert np.array_equal(ybr_to_rgb(ybr), convert_color_space(ybr, "YBR_FULL", "RGB"))


@settings(max_examples=60)
@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_colour_conversion_equals_pydicom(ybr):
    assert np.array_equal(ybr_to_rgb(ybr), convert_color_space(ybr, "YBR_FULL", "RGB"))


@given(st.sampled_from([8, 13]), st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0))
def test_grey_rows_between_coloured_ones(cols, coloured, seed):
    rng = np.random.default_rng(seed)
    ybr = rng.integers(0, 256, (len(coloured), cols, 3), np.uint8)
    ybr[~np.asarray(coloured), :, 1:] = 128
    assert np.array_equal(ybr_to_rgb(ybr), convert_color_space(ybr, "YBR_FULL", "RGB"))


@given(st.integers(1, 24), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24))), st.data())
def test_colour_in_one_half_of_a_row(cols, spans, data):
    ybr = np.random.default_rng(cols).integers(0, 256, (max(1, len(spans)), cols, 3), np.uint8)
    ybr[..., 1:] = 128
    for row, (first, last) in enumerate(spans):
        ybr[row, first:last, 1 + row % 2] = data.draw(st.integers(0, 255))
    assert np.array_equal(ybr_to_rgb(ybr), convert_color_space(ybr, "YBR_FULL", "RGB"))


BOXES = st.builds(
    Box, st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)
)


@given(st.lists(BOXES, min_size=1, max_size=3), st.booleans())
def test_blanking_keeps_inside_and_zeroes_outside(boxes, coloured):
    frame = np.full((32, 32, 3) if coloured else (32, 32), 7, np.uint8)
    inside = np.zeros((32, 32), bool)
    for box in boxes:
        inside[box.slices] = True
    out = blank_outside_regions(frame, boxes)
    assert (out[inside] == 7).all()
    assert not out[~inside].any()
    assert (frame == 7).all()
    assert np.array_equal(blank_outside_regions(out, boxes), out)


def test_margin_statistics_see_text_and_only_the_margin():
    frame = np.zeros((64, 80), np.uint8)
    boxes = [Box(10, 10, 40, 40)]
    frame[boxes[0].slices] = 255
    empty = margin_statistics(frame, boxes)
    assert empty["margin_mean"] == empty["margin_saturated"] == 0
    frame[2:9:2, 5:30] = 255  # strokes one pixel wide
    written = margin_statistics(frame, boxes)
    assert written["margin_strokes"] == written["margin_saturated"] == pytest.approx(100 / 3520)
    assert margin_statistics(np.stack([frame] * 3, -1), boxes) == written
    assert margin_statistics(frame, [Box(0, 0, 80, 64)]) == {}


@pytest.fixture
def cine(tmp_path):
    path = tmp_path / "cine.dcm"
    streams = [corpus.jpeg(corpus.picture(seed=s)) for s in range(4)]
    path.write_bytes(corpus.encapsulated(corpus.cine(4), corpus.JPEG_50, corpus.fragments(streams)))
    return path


def lazy(path, boxes=None):
    options = task_options(LIMITS, allow_headerless=False)
    options["boxes"] = boxes and [[b.x, b.y, b.width, b.height] for b in boxes]
    _, info = decode_dicom(path, options)
    scan = prescan(path, LIMITS)
    about = describe(scan, LIMITS)
    with FileSource(path) as file:
        places, _ = frame_places(scan, about, scan.inflated or file)
    return LazyDicomFrames(path, about, places, info["payload_sha256"], boxes), info


def test_lazy_frames_equal_the_worker_s(cine):
    stack, info = lazy(cine, (Box(8, 6, 20, 20),))
    assert stack.shape == (4, corpus.ROWS, corpus.COLS)
    assert pixel_sha256(stack) == info["sha256"]
    assert np.array_equal(stack[2], blank_outside_regions(ours(cine)[2], [Box(8, 6, 20, 20)]))
    assert np.array_equal(stack[-1], stack[3])
    with pytest.raises(IndexError):
        stack[4]


@pytest.mark.parametrize("kept", [None, (Box(8, 6, 20, 20), Box(20, 10, 12, 30))])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_windows_equal_what_is_cut_out_of_the_frame(tmp_path, kept, photometric):
    data = corpus.cine(2, corpus.colour(photometric))
    streams = [corpus.jpeg(colour_picture(seed), subsampling=1) for seed in range(2)]
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.encapsulated(data, corpus.JPEG_50, corpus.fragments(streams)))
    stack, _ = lazy(path, kept)
    boxes = (Box(0, 0, corpus.COLS, corpus.ROWS), Box(5, 3, 9, 11), Box(15, 8, 30, 25))
    for index in range(2):
        for box, window in zip(boxes, windows_of(stack, index, boxes), strict=True):
            assert np.array_equal(window, stack[index][box.slices])
    blind = replace(stack, unusable=frozenset((1,)))
    assert not any(w.any() for w in blind.windows(1, boxes))
    assert windows_of(blind, 0, boxes[1:2])[0].any()


def test_lazy_frames_notice_another_file(cine):
    stack, _ = lazy(cine)
    raw = bytearray(cine.read_bytes())
    place = stack.places[2][0]
    raw[place[0] + 300] ^= 1
    cine.write_bytes(raw)
    assert stack[1].any()
    with pytest.raises(InputRefused, match="changed since") as caught:
        stack[2]
    assert caught.value.reason is Reason.CHANGED_DURING_READ


def test_lazy_frames_of_a_deflated_file(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.part10(corpus.cine(3), corpus.DEFLATED))
    stack, info = lazy(path)
    assert pixel_sha256(stack) == info["sha256"]
    assert np.array_equal(stack[2], corpus.picture(seed=2))


def test_limits_of_the_description(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.part10(corpus.cine(4)))
    scan = prescan(path, LIMITS)
    total = 4 * corpus.ROWS * corpus.COLS
    for limits, reason in (
        (replace(LIMITS, frames=4), None),
        (replace(LIMITS, frames=3), Reason.TOO_LARGE),
        (replace(LIMITS, clip_bytes=total), None),
        (replace(LIMITS, clip_bytes=total - 1), Reason.TOO_LARGE),
        (replace(LIMITS, decoded_bytes=total // 4), None),
        (replace(LIMITS, decoded_bytes=total // 4 - 1), Reason.TOO_LARGE),
        (replace(LIMITS, max_side_px=corpus.COLS), None),
        (replace(LIMITS, max_side_px=corpus.COLS - 1), Reason.TOO_LARGE),
        (replace(LIMITS, min_side_px=corpus.ROWS), None),
        (replace(LIMITS, min_side_px=corpus.ROWS + 1), Reason.TOO_SMALL),
    ):
        if reason is None:
            describe(scan, limits)
            continue
        with pytest.raises(InputRefused) as caught:
            describe(scan, limits)
        assert caught.value.reason is reason


def test_more_pixels_than_may_be_held_at_once_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(corpus.part10(corpus.cine(4)))
    limits = replace(LIMITS, decoded_bytes=2 * corpus.ROWS * corpus.COLS)
    options = task_options(limits, allow_headerless=False)
    assert decode_dicom(path, options)[1]["sha256"]
    two, _ = decode_dicom(path, {**options, "pixels": True, "frames": [0, 3]})
    assert len(two) == 2
    with pytest.raises(InputRefused, match="held at once") as caught:
        decode_dicom(path, {**options, "pixels": True})
    assert caught.value.reason is Reason.TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_as_a_stream_head(raw):
    for head in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "):
        refusal, found = outcome(read_stream_head, head + raw)
        assert refusal is Reason.CODEC_ERROR or len(found.component_ids) < 256


def test_stream_heads_of_all_codecs():
    for code in (corpus.jpeg, corpus.lossless, corpus.jls, corpus.j2k):
        head = read_stream_head(code(corpus.picture(48, 40)))
        assert (head.rows, head.cols, len(head.component_ids), head.precision) == (48, 40, 1, 8)
    boxed = io.BytesIO()
    corpus.Image.fromarray(corpus.picture(48, 40)).save(boxed, "JPEG2000", no_jp2=False)
    assert read_stream_head(boxed.getvalue()).rows == 48
