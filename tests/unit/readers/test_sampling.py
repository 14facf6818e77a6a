"""Frame sampling, contact sheets and keep lists."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from renalkit.errors import InputRefused, Reason
from renalkit.readers.sampling import (
    Thumbnail,
    contact_sheet,
    every_frames,
    every_seconds,
    keep_list,
    read_keep_list,
)

_times = st.lists(st.floats(0.001, 3), min_size=1, max_size=40).map(
    lambda steps: np.cumsum(steps).tolist()
)


@given(st.integers(0, 500), st.integers(1, 60))
def test_every_frames(n_frames, step):
    taken = every_frames(n_frames, step)
    assert all(0 <= f < n_frames and f % step == 0 for f in taken)
    assert len(taken) == -(-n_frames // step)


@given(_times, st.floats(0.01, 5))
def test_every_seconds(times, interval):
    taken = every_seconds(times, interval)
    assert taken[0] == 0
    assert all(b > a for a, b in zip(taken, taken[1:], strict=False))
    slots = [int((times[i] - times[0]) / interval + 1e-7) for i in taken]
    assert len(set(slots)) == len(slots)
    every = {int((t - times[0]) / interval + 1e-7) for t in times}
    assert len(taken) == len(every)


def test_equal_steps_give_the_same_frames_both_ways():
    times = [t / 25 for t in range(100)]
    assert every_seconds(times, 0.2) == every_frames(100, 5)
    assert every_seconds([5 + 0.1 * t for t in range(31)], 0.3) == every_frames(31, 3)


def test_sampling_refuses():
    with pytest.raises(ValueError, match="step 0"):
        every_frames(5, 0)
    for interval in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="not positive"):
            every_seconds([0.0], interval)
    with pytest.raises(InputRefused, match="every k-th frame") as caught:
        every_seconds(None, 1)
    assert caught.value.reason is Reason.NO_TIMING


def _thumbs(count=5, kind=np.uint8, shape=(30, 60)):
    draw = np.random.default_rng(3)
    high = np.iinfo(kind).max
    return [Thumbnail(7 * i, draw.integers(0, high, shape).astype(kind)) for i in range(count)]


def test_contact_sheet_is_deterministic_and_shows_every_frame():
    items = _thumbs()
    data = contact_sheet(items, columns=3, side_px=64)
    assert data == contact_sheet(items, columns=3, side_px=64)
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    assert sheet.shape == (2 * (64 + 16) + 2, 3 * 66 + 2, 3)
    for place in range(5):
        y, x = 2 + place // 3 * 80, 2 + place % 3 * 66
        cell = sheet[y + 14 + 16 : y + 14 + 48, x : x + 64]
        assert cell.std() > 10  # the picture
        assert sheet[y : y + 14, x : x + 64].max() > 200  # its number
        assert (sheet[y + 14 : y + 14 + 15, x : x + 64] == 32).all()  # letterbox
    assert (sheet[82 + 14 :, 2 + 2 * 66 :] == 32).all()  # the sixth place is empty


def test_contact_sheet_takes_colour_and_16_bits():
    for items in (_thumbs(2, np.uint16), _thumbs(1, shape=(20, 20, 3)), _thumbs(1, shape=(300, 9))):
        assert np.asarray(Image.open(io.BytesIO(contact_sheet(items)))).std() > 5
    flat = contact_sheet([Thumbnail(0, np.full((20, 20), 900, np.uint16))])
    assert Image.open(io.BytesIO(flat)).size == (132, 146)


def test_colours_keep_their_order():
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 250
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet([Thumbnail(0, red)], side_px=20))))
    assert (sheet[2 + 14 + 10, 2 + 10] == (250, 0, 0)).all()


def test_contact_sheet_refuses():
    for arguments in ({"items": []}, {"columns": 0}, {"side_px": 15}):
        with pytest.raises(ValueError, match="contact sheet"):
            contact_sheet(**{"items": _thumbs(1), **arguments})


_SAMPLED = {"b.mp4": (0, 5, 10), "a, 1.mp4": (0, 3)}


def test_keep_list_comes_back():
    text = keep_list(_SAMPLED)
    assert text.splitlines()[:2] == ["file,frame,keep", '"a, 1.mp4",0,1']
    assert read_keep_list(text.encode(), _SAMPLED) == _SAMPLED
    edited = text.replace("b.mp4,5,1", "b.mp4,5,0")
    assert read_keep_list(edited.encode(), _SAMPLED)["b.mp4"] == (0, 10)
    none = text.replace(",1\n", ",0\n")
    assert read_keep_list(none.encode(), _SAMPLED) == {"a, 1.mp4": (), "b.mp4": ()}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b.mp4,5,1\n", "", "1 sampled frames are not listed"),
        ("b.mp4,5,1\n", "b.mp4,5,1\nb.mp4,5,0\n", "line 6: a frame that"),
        ("b.mp4,5,1", "b.mp4,6,1", "line 5: a frame that"),
        ("b.mp4,5,1", "b.mp4,5,yes", "line 5: a frame that"),
        ("b.mp4,5,1", "b.mp4,5,", "line 5: a frame that"),
        ("b.mp4,5,1", "b.mp4," + "9" * 5000 + ",1", "line 5: a frame that"),
        ("file,frame", "file;frame", "semicolon"),
        ("keep\n", "take\n", "no column keep"),
    ],
)
def test_keep_list_refuses(old, new, words):
    with pytest.raises(InputRefused, match=words):
        read_keep_list(keep_list(_SAMPLED).replace(old, new).encode(), _SAMPLED)
