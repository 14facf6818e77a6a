"""Frames on disk: what goes in comes out, in any order, and nothing is left behind."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.image import PixelStack, pixel_sha256
from renalkit.errors import StoreError
from renalkit.store.spool import FrameSpool


def _frames(count, *shape):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_frames_come_back_in_any_order(tmp_path, shape):
    spool, frames = FrameSpool(tmp_path), _frames(6, *shape)
    for frame in frames:
        spool.append(frame)
    assert isinstance(spool, PixelStack)
    assert spool.shape == frames.shape
    for index in (5, 0, 3, -1):
        assert np.array_equal(spool[index], frames[index])
    assert pixel_sha256(spool) == pixel_sha256(frames)
    with pytest.raises(IndexError):
        spool[6]


def test_grey_frames_are_colour_beside_colour(tmp_path):
    spool, grey, colour = FrameSpool(tmp_path), _frames(1, 5, 4)[0], _frames(1, 5, 4, 3)[0]
    spool.append(grey)
    assert spool.shape == (1, 5, 4)
    spool.append(colour)
    assert spool.shape == (2, 5, 4, 3)
    assert np.array_equal(spool[0], np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(spool[1], colour)


def test_nothing_has_a_name_and_the_file_is_closed(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    spool = FrameSpool(tmp_path / "new")
    spool.append(_frames(1, 5, 4)[0])
    assert list((tmp_path / "new").iterdir()) == []
    del spool
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("other", [np.zeros((5, 5), np.uint8), np.zeros((5, 4), np.uint16)])
def test_other_frames_are_refused(tmp_path, other):
    spool = FrameSpool(tmp_path)
    spool.append(np.zeros((5, 4), np.uint8))
    with pytest.raises(ValueError, match="among frames of"):
        spool.append(other)


@pytest.mark.parametrize("answer", [OSError(errno.ENOSPC, "no space"), 3])
def test_a_full_disk_is_said(tmp_path, monkeypatch, answer):
    def written(handle, data, offset):
        if isinstance(answer, OSError):
            raise answer
        return answer

    spool = FrameSpool(tmp_path)
    monkeypatch.setattr(os, "pwrite", written)
    with pytest.raises(StoreError, match="disk is full"):
        spool.append(np.zeros((5, 4), np.uint8))
