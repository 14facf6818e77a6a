"""Two changing parts of the same shape: what is brought together stays inside the picture."""

import numpy as np

from renalkit.ceus.live import Live, twins
from renalkit.domain.geometry import Box


def part(*boxes):
    """Rectangles in a picture of 120 x 240."""
    mask = np.zeros((120, 240), np.bool_)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


def live_of(mask, lossy):
    level = np.where(mask, np.float32(80), np.float32(0))
    return Live(mask, level, level / 4, lossy)


def test_text_that_flickers_leaves_the_panes_where_they_are():
    """In a video text changes a little; it counts to one of the parts, wherever it is."""
    for text in ((20, 4, 60, 10), (150, 106, 60, 8)):
        first, second = part((10, 30, 90, 70), text), part((130, 30, 90, 70))
        for lossy in (False, True):
            found = twins(first, second, live_of(first | second, lossy))
            assert found is not None
            assert (found.second.x - found.first.x, found.axis) == (120, "x")
            assert found.first == Box(9, 29, 92, 72)


def test_two_parts_that_overlap_are_no_panes():
    first, second = part((10, 30, 100, 70)), part((90, 30, 100, 70))
    assert twins(first, second, live_of(first | second, lossy=False)) is None
