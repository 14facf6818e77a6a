"""The walk over DICOM bytes: what it finds, what it refuses, that it never does anything else."""

import contextlib
import importlib
import struct
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.dicom_prescan import (
    FileSource,
    MemorySource,
    Values,
    looks_like_dicom,
    prescan,
    prescan_source,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
LIMITS = Limits()
DEFLATED = corpus.part10(corpus.still(), corpus.DEFLATED)
STILL = corpus.part10(corpus.still())
CINE = corpus.encapsulated(
    corpus.cine(2),
    corpus.JPEG_50,
    corpus.fragments([corpus.jpeg(corpus.picture())] * 2, table=None),
)


def scan(raw, limits=LIMITS, **more):
    return prescan_source(MemorySource(raw), limits, **more)


@pytest.mark.parametrize("syntax", [corpus.EXPLICIT, corpus.IMPLICIT, corpus.BIG, corpus.DEFLATED])
def test_values_do_not_depend_on_the_encoding(syntax):
    found = scan(corpus.part10(corpus.cine(), syntax))
    assert found.transfer_syntax == syntax
    assert found.values.integers(0x00280010) == (corpus.ROWS,)
    assert found.values.integers(0x00280008) == (4,)
    assert found.values.floats(0x00181063) == (40.0,)
    assert found.values.text(0x00280004) == "MONOCHROME2"
    (region,) = found.items[0x00186011]
    assert region.integers(0x0018601C) == (71,)
    assert region.floats(0x0018602C) == (0.02,)
    assert found.pixel_data is not None
    assert found.pixel_data.length == 4 * corpus.ROWS * corpus.COLS
    source = found.inflated or MemorySource(corpus.part10(corpus.cine(), syntax))
    start = source.read(found.pixel_data.offset, 80)
    assert start == corpus.picture(seed=0).tobytes()[:80]


def test_undefined_lengths_and_unknown_vr_sequences():
    item = corpus.encode(corpus.region())
    undefined = struct.pack("<HH", 0x0018, 0x6011) + b"SQ\0\0\xff\xff\xff\xff"
    undefined += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item
    undefined += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    # PS3.5 6.2.2: UN of undefined length is a sequence in implicit little endian.
    inner = corpus.element(0x00091001, "SH", b"ab", explicit=False)
    unknown = struct.pack("<HH", 0x0009, 0x1010) + b"UN\0\0\xff\xff\xff\xff"
    unknown += struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    unknown += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    rest = corpus.ordered(corpus.still(drop=[0x00186011]))
    low = corpus.encode({t: v for t, v in rest.items() if t < 0x00090000})
    high = corpus.encode({t: v for t, v in rest.items() if t > 0x00186011})
    middle = corpus.encode({t: v for t, v in rest.items() if 0x00090000 < t < 0x00186011})
    found = scan(corpus.part10(low + unknown + middle + undefined + high))
    assert found.findings == ()
    assert found.items[0x00186011][0].integers(0x0018601C) == (71,)


@given(cut=st.integers(0, len(STILL) - 1))
def test_every_cut_is_refused(cut):
    try:
        found = scan(STILL[:cut])
    except InputRefused:
        return
    assert found.pixel_data is None  # cut between two elements: refused for its missing pixels


@settings(max_examples=300)
@given(
    which=st.integers(0, 2),
    changes=st.lists(
        st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=6)), max_size=4
    ),
)
def test_damage_is_refused_or_read_but_nothing_else(which, changes):
    damaged = bytearray([STILL, CINE, DEFLATED][which])
    for at, new in changes:
        damaged[at : at + len(new)] = new
    try:
        found = scan(bytes(damaged), allow_headerless=True)
    except InputRefused:
        return
    for tag in found.values.by_tag:
        for read in (found.values.integers, found.values.floats, found.values.text):
            with contextlib.suppress(ValueError):  # the only error a reader must expect
                read(tag)


@given(st.binary(max_size=400))
@example(b"\x02\0\x10\0UI\x04\x001.2\0")
@example(b"\x08\0\x05\0CS\x00\x00")
def test_any_bytes(raw):
    for head in (b"", bytes(128) + b"DICM", STILL[:330]):
        try:
            scan(head + raw, allow_headerless=True)
        except InputRefused:
            continue


def element_file(count):
    body = b"".join(corpus.element(0x00091000 + i, "SH", b"ab") for i in range(count))
    return corpus.part10(body)


@pytest.mark.parametrize(("over", "reason"), [(-1, None), (0, None), (1, Reason.TOO_MANY_ELEMENTS)])
def test_limit_elements(over, reason):
    check(element_file(50 + over), replace(LIMITS, elements=50), reason)


@pytest.mark.parametrize(("over", "reason"), [(-1, None), (0, None), (1, Reason.TOO_DEEP)])
def test_limit_depth(over, reason):
    level = {}
    for _ in range(5 + over):
        level = {0x0040A730: ("SQ", [level])}
    check(corpus.part10(level), replace(LIMITS, sequence_depth=5), reason)


@pytest.mark.parametrize(("over", "reason"), [(-2, None), (0, None), (2, Reason.TOO_LARGE)])
def test_limit_value(over, reason):
    raw = corpus.part10({0x00204000: ("LT", b"x" * (1000 + over))})
    check(raw, replace(LIMITS, value_bytes=1000), reason)


@pytest.mark.parametrize(("over", "reason"), [(-1, None), (0, None), (1, Reason.TOO_LARGE)])
def test_limit_file(over, reason):
    check(STILL, replace(LIMITS, file_bytes=len(STILL) - over), reason)


@pytest.mark.parametrize(("over", "reason"), [(-1, None), (0, None), (1, Reason.INFLATE_LIMIT)])
def test_limit_inflated(over, reason):
    raw = corpus.part10(corpus.still(), corpus.DEFLATED)
    size = scan(raw).inflated.size
    check(raw, replace(LIMITS, inflated_bytes=size - over), reason)


@pytest.mark.parametrize(("over", "reason"), [(-1, None), (0, None), (1, Reason.TOO_LARGE)])
def test_limit_header(over, reason):
    header = scan(STILL).pixel_data.offset - (132 + len(corpus.meta(corpus.EXPLICIT)))
    check(STILL, replace(LIMITS, header_bytes=header - over), reason)


def check(raw, limits, reason):
    if reason is None:
        scan(raw, limits)
        return
    with pytest.raises(InputRefused) as caught:
        scan(raw, limits)
    assert caught.value.reason is reason


def test_big_private_data_is_stepped_over():
    big = corpus.element(0x00091001, "OB", bytes(5000))
    found = scan(
        corpus.part10(
            corpus.encode({0x00080060: corpus.cs("US")})
            + big
            + corpus.encode(corpus.ordered(corpus.colour()))
        ),
        replace(LIMITS, value_bytes=1000, header_bytes=1000),
    )
    assert found.values.text(0x00280004) == "YBR_FULL_422"


@pytest.mark.parametrize(
    "name", ["D06-long", "D07-long-text", "D12-200000-deep", "D41-1000000-frames"]
)
def test_nothing_is_allocated_from_a_declared_size(name, tmp_path):
    (row,) = (r for r in corpus.DICOM_ROWS if r.name == name)
    row.build(tmp_path)
    tracemalloc.start()
    with contextlib.suppress(InputRefused):
        prescan(tmp_path / "00.dcm", LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("text", [b"1_0", b"0x10", b"1e99999", b"one", b"1\\x", b"\xff"])
def test_numbers_written_otherwise_are_no_numbers(text):
    from renalkit.readers.dicom_prescan import Value

    values = Values({1: Value("DS", text)})
    with pytest.raises(ValueError, match=r"text that is not a number"):
        values.floats(1)


def test_sniff_and_windows(tmp_path):
    path = tmp_path / "any name at all"
    path.write_bytes(STILL)
    assert looks_like_dicom(path)
    (tmp_path / "x.dcm").write_bytes(b"no")
    assert not looks_like_dicom(tmp_path / "x.dcm")
    path.write_bytes(bytes(range(256)) * 1000)
    with FileSource(path) as source:
        for offset, count in (
            (0, 5),
            (255_990, 100),
            (70_000, 9),
            (10, 200_000),
            (3, 1),
            (256_000, 4),
        ):
            assert source.read(offset, count) == path.read_bytes()[offset : offset + count]
