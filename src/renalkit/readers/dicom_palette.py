"""Which colours do the indices of a PALETTE COLOR image stand for?

Source: DICOM PS3.3 C.7.6.3.1.5 (descriptors), C.7.6.3.1.6 (data), C.7.9.2 (segmented data).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.errors import InputRefused, Reason
from renalkit.readers.dicom_prescan import Values

_DESCRIPTORS = (0x00281101, 0x00281102, 0x00281103)
_DATA = (0x00281201, 0x00281202, 0x00281203)
_SEGMENTED = (0x00281221, 0x00281222, 0x00281223)


def _bad(found: str) -> InputRefused:
    return InputRefused(
        Reason.BAD_PALETTE,
        found,
        expected="a palette with an entry for every index",
        remedy="export the file again, as RGB where the source system can",
    )


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours (entries,3) uint8 of the indices `first`, `first` + 1, ..."""

    first: int
    colours: npt.NDArray[np.uint8] = field(repr=False)

    def apply(self, indices: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """RGB (H,W,3) of indices (H,W).

        Indices below the first entry show the first colour, as the standard says.

        Raises:
            InputRefused: BAD_PALETTE, an index lies beyond the last entry. The standard would
                show the last colour; real palettes are complete, so this is damage.
        """
        top = int(indices.max())
        if top - self.first >= len(self.colours):
            raise _bad(f"index {top} in a palette of {len(self.colours)} entries")
        places = indices
        if self.first or int(indices.min()) < 0:
            places = np.maximum(indices.astype(np.int32) - self.first, 0)
        return np.take(self.colours, places, axis=0)


def read_palette(values: Values) -> Palette:
    """The palette of a file, plain or segmented; 16-bit entries keep their upper eight bits.

    Some writers put 8-bit colours into 16-bit entries; when no entry of the three exceeds 255
    they are taken as they are, for the image would be black otherwise.

    Raises:
        InputRefused: BAD_PALETTE.
    """
    descriptors = {_descriptor(values, tag) for tag in _DESCRIPTORS}
    if len(descriptors) != 1:
        raise _bad("palette descriptors that differ between red, green and blue")
    entries, first, bits = descriptors.pop()
    columns = [
        _channel(values, plain, segmented, entries, bits)
        for plain, segmented in zip(_DATA, _SEGMENTED, strict=True)
    ]
    table = np.stack(columns, axis=1)
    if bits == 16 and int(table.max(initial=0)) > 255:
        table = table >> 8
    return Palette(first, table.astype(np.uint8))


def _descriptor(values: Values, tag: int) -> tuple[int, int, int]:
    value = values.by_tag.get(tag)
    if value is None or len(value.raw) != 6:
        raise _bad("no usable palette descriptor")
    order = ">" if values.big_endian else "<"
    first_form = "h" if value.vr == "SS" else "H"
    entries, first, bits = struct.unpack(f"{order}H{first_form}H", value.raw)
    if bits not in (8, 16):
        raise _bad(f"palette entries of {bits} bits")
    return entries or 65536, first, bits


def _channel(
    values: Values, plain: int, segmented: int, entries: int, bits: int
) -> npt.NDArray[np.uint16]:
    if plain in values:
        raw = values.by_tag[plain].raw
        if bits == 8 and len(raw) in (entries, entries + entries % 2):
            found = np.frombuffer(raw, np.uint8).astype(np.uint16)
            if values.big_endian and len(raw) % 2 == 0 and values.by_tag[plain].vr == "OW":
                found = found.reshape(-1, 2)[:, ::-1].reshape(-1)
        else:
            found = _words(values, raw)
    elif segmented in values:
        found = expand_segments(_words(values, values.by_tag[segmented].raw), entries)
    else:
        raise _bad("a palette without data")
    if len(found) < entries:
        raise _bad(f"{len(found)} palette entries where {entries} are declared")
    return found[:entries]


def _words(values: Values, raw: bytes) -> npt.NDArray[np.uint16]:
    return np.frombuffer(raw[: len(raw) // 2 * 2], ">u2" if values.big_endian else "<u2").astype(
        np.uint16
    )


def expand_segments(words: npt.NDArray[np.uint16], entries: int) -> npt.NDArray[np.uint16]:
    """A segmented palette channel written out: discrete, linear and indirect segments.

    Raises:
        InputRefused: BAD_PALETTE, more than `entries` values or data of another form.

    >>> expand_segments(np.array([0, 1, 10, 1, 2, 30], np.uint16), 3).tolist()
    [10, 20, 30]
    """
    out: list[int] = []
    _expand(words.tolist(), 0, len(words), None, out, entries)
    return np.asarray(out, np.uint16)


def _expand(
    words: list[int], at: int, end: int, segments: int | None, out: list[int], entries: int
) -> None:
    """Write out segments from `at`; indirect ones may not contain further indirect ones."""
    done = 0
    while at + 1 < end and (segments is None or done < segments):
        code, length = words[at], words[at + 1]
        if code == 0 and at + 2 + length <= len(words):
            out.extend(words[at + 2 : at + 2 + length])
            at += 2 + length
        elif code == 1 and out and at + 3 <= len(words):
            start, stop = out[-1], words[at + 2]
            out.extend(round(start + (stop - start) * (i + 1) / length) for i in range(length))
            at += 3
        elif code == 2 and segments is None and at + 4 <= len(words):
            target = (words[at + 2] | words[at + 3] << 16) // 2
            if target >= at:
                raise _bad("a palette segment that points forward")
            _expand(words, target, len(words), length, out, entries)
            at += 4
        elif code == 0 and length == 0:
            break
        else:
            raise _bad("palette segments of no known form")
        if len(out) > entries:
            raise _bad(f"palette segments for more than {entries} entries")
        done += 1
