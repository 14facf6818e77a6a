"""How does a stored picture become the network's input, and how does its answer come back?

The road is `check_usable -> to_grey -> bilateral -> clahe -> letterbox -> normalise`. Every step
that moves pixels is described by a `Placement`, so masks, probabilities and points predicted at
the network's size return to the geometry of the source picture.

Pixel coordinates: pixel (row r, column c) covers [c, c+1) x [r, r+1); its centre has the
coordinates x = c, y = r in all point functions (the convention of OpenCV and of DICOM regions).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import SerializerFunctionWrapHandler, model_serializer

from renalkit.domain.experiment import without_younger
from renalkit.domain.pairs import MARGIN_MAX
from renalkit.errors import ConfigError, InputRefused, Reason

MIN_SIDE_PX = 16
"""Pictures with a shorter side are refused: nothing of a lesion could be seen on them."""

_SINCE: dict[str, Any] = {"region": "frame", "margin": 0.0}
"""Settings younger than runs that exist, with the value of those runs."""

Normalise = Literal["unit", "zscore"]
Region = Literal["frame", "lesion"]


def check_usable(pixels: npt.NDArray[Any], *, where: str = "") -> None:
    """Refuse a picture that no network can say anything about.

    Args:
        pixels: (H, W) or (H, W, 3); uint8, uint16 or float.
        where: name of the file or frame for the message.

    Raises:
        InputRefused: wrong number of axes, a side below 16 px, NaN or infinite values, or the
            same value everywhere.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"an array of shape {pixels.shape}",
            where=where,
            expected="a grey picture (H, W) or a colour picture (H, W, 3)",
            remedy="pass one frame at a time and drop an alpha channel",
        )
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise InputRefused(
            Reason.TOO_SMALL,
            f"a picture of {width}x{height} px",
            where=where,
            expected=f"at least {MIN_SIDE_PX} px on each side",
            remedy="export the picture at its original size",
        )
    if np.issubdtype(pixels.dtype, np.floating) and not bool(np.isfinite(pixels).all()):
        raise InputRefused(
            Reason.NON_FINITE,
            "pixels that are NaN or infinite",
            where=where,
            expected="finite values",
            remedy="export the picture again",
        )
    first = pixels.reshape(-1)[0]
    if bool((pixels == first).all()):
        raise InputRefused(
            Reason.CONSTANT_IMAGE,
            f"a picture in which every value is {first.item():g}",
            where=where,
            expected="a picture with content",
            remedy="leave the frame out",
        )


def to_grey(pixels: npt.NDArray[Any], declared_max: int | None = None) -> npt.NDArray[np.uint8]:
    """One 8-bit grey plane.

    Rules: colour becomes luma, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601; a grey picture
    stored as RGB keeps its values exactly). 8-bit values are kept. 16-bit values v become
    round(255 * min(v, m) / m), where m is the largest value the source declares (2**BitsStored-1
    in DICOM); without a declaration m is 65535. The maximum found in one picture is never used:
    it would change the grey of the same tissue from frame to frame.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16, colours in the order R, G, B.
        declared_max: m above; 1..65535; 16-bit pictures only.

    Returns:
        (H, W) uint8, newly allocated unless the input was already (H, W) uint8.

    Raises:
        InputRefused: another type or number of channels, or a declared maximum out of range.

    Example:
        >>> to_grey(np.array([[0, 2048, 4095]], np.uint16), declared_max=4095).tolist()
        [[0, 128, 255]]
    """
    if pixels.dtype != np.uint8 and pixels.dtype != np.uint16:
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"pixels of type {pixels.dtype}",
            expected="uint8 or uint16",
            remedy="export the picture with 8 or 16 bits per value",
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"an array of shape {pixels.shape}",
            expected="a grey picture (H, W) or a colour picture (H, W, 3)",
            remedy="pass one frame at a time and drop an alpha channel",
        )
    grey: npt.NDArray[Any] = pixels
    if pixels.ndim == 3:
        grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY))
    if grey.dtype == np.uint8:
        return grey
    maximum = 65535 if declared_max is None else declared_max
    if not 1 <= maximum <= 65535:
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"a declared maximum of {maximum}",
            expected="1 to 65535",
            remedy="check BitsStored of the source",
        )
    scaled = np.minimum(grey, maximum).astype(np.float32) * np.float32(255.0 / maximum)
    return np.rint(scaled).astype(np.uint8)


def bilateral(
    img: npt.NDArray[np.uint8], d: int = 9, sigma_color: float = 75.0, sigma_space: float = 75.0
) -> npt.NDArray[np.uint8]:
    """Edge-preserving smoothing, the speckle filter of the multitask system (P1).

    Args:
        img: (H, W) uint8.
        d: diameter of the neighbourhood in pixels.
        sigma_color: grey-value scale; sigma_space: distance scale in pixels.

    Returns:
        (H, W) uint8. Borders are reflected.

    Source: C. Tomasi, R. Manduchi, Bilateral filtering for gray and color images, ICCV 1998, eq. 5.
    """
    return np.asarray(cv2.bilateralFilter(img, d, sigma_color, sigma_space), dtype=np.uint8)


def clahe(
    img: npt.NDArray[np.uint8], clip_limit: float = 2.0, grid: int = 8
) -> npt.NDArray[np.uint8]:
    """Contrast-limited adaptive histogram equalisation on grid x grid tiles.

    Args:
        img: (H, W) uint8.
        clip_limit: largest histogram bin as a multiple of the mean bin, > 0.
        grid: tiles per axis.

    Source: K. Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994.
    """
    operation = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(grid, grid))
    return np.asarray(operation.apply(img), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source picture lies inside the square that the network sees.

    source_shape: (height, width) of the source in px. size: side S of the square in px.
    scale: S px per source px of the longer side. top, left: first row and column of the picture
    inside the square; the rest is padding.
    """

    source_shape: tuple[int, int]
    size: int
    scale: float
    top: int
    left: int

    @classmethod
    def fit(cls, source_shape: tuple[int, int], size: int) -> Placement:
        """The centred placement that keeps the aspect ratio and fills the longer side."""
        height, width = source_shape
        if height < 1 or width < 1 or size < 1:
            raise ValueError(f"cannot place a picture of {width}x{height} px into {size} px")
        scale = size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        return cls(
            (height, width), size, scale, (size - inner_height) // 2, (size - inner_width) // 2
        )

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(height, width) in px of the picture inside the square."""
        height, width = self.source_shape
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def apply_mask(self, mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Bring a mask into the square.

        Enlarging takes the nearest source pixel, so that `invert_mask` gives the same mask back.
        Shrinking marks a pixel when at least half of its area was marked.

        Args:
            mask: (H, W) of the source shape; bool or numbers, non-zero is marked.

        Returns:
            (S, S) uint8, 0 or 1; padding is 0.

        Raises:
            InputRefused: the mask has another shape than the picture.
        """
        if mask.shape != self.source_shape:
            raise InputRefused(
                Reason.MASK_MISMATCH,
                f"a mask of shape {mask.shape}",
                expected=f"the shape of its picture, {self.source_shape}",
                remedy="export mask and picture from the same frame at the same size",
            )
        marked = (mask != 0).astype(np.uint8)
        inner = _resize_mask(marked, self.inner_shape)
        square = np.zeros((self.size, self.size), np.uint8)
        square[self._window()] = inner
        return square

    def invert_mask(self, prob_or_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring a mask or a probability map back to the source picture.

        Probabilities (float) are resampled linearly and returned as float32; the caller applies
        the threshold afterwards, which gives smoother outlines than the other order. A mask
        (bool or integer) comes back as bool.

        Args:
            prob_or_mask: (S, S).

        Returns:
            (H, W) float32 or bool.

        Raises:
            ValueError: the array is not (S, S).
        """
        if prob_or_mask.shape != (self.size, self.size):
            raise ValueError(f"expected {(self.size, self.size)}, found {prob_or_mask.shape}")
        inner = prob_or_mask[self._window()]
        height, width = self.source_shape
        if np.issubdtype(prob_or_mask.dtype, np.floating):
            values = np.ascontiguousarray(inner, dtype=np.float32)
            if values.shape == (height, width):
                return values.copy()
            resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
            return np.asarray(resized, dtype=np.float32)
        marked = (inner != 0).astype(np.uint8)
        if self.scale >= 1.0:
            # The centre of each source pixel falls inside its own enlarged copy: exact.
            return _nearest(marked, (height, width)) != 0
        smooth = cv2.resize(
            marked.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )
        return np.asarray(smooth) >= 0.5

    def apply_points(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Source pixel coordinates (..., 2) as x, y to coordinates in the square."""
        points = np.asarray(xy, dtype=np.float64)
        return (points + 0.5) * self._factors() + self._origin() - 0.5

    def invert_points(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Coordinates in the square (..., 2) as x, y to source pixel coordinates.

        Points in the padding give coordinates outside the picture; they are not clipped.
        """
        points = np.asarray(xy, dtype=np.float64)
        return (points + 0.5 - self._origin()) / self._factors() - 0.5

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {**asdict(self), "source_shape": list(self.source_shape)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Placement:
        """The placement that `as_dict` described."""
        height, width = values["source_shape"]
        return cls(
            (int(height), int(width)),
            int(values["size"]),
            float(values["scale"]),
            int(values["top"]),
            int(values["left"]),
        )

    def _window(self) -> tuple[slice, slice]:
        height, width = self.inner_shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def _factors(self) -> npt.NDArray[np.float64]:
        (height, width), (inner_height, inner_width) = self.source_shape, self.inner_shape
        return np.array([inner_width / width, inner_height / height])

    def _origin(self) -> npt.NDArray[np.float64]:
        return np.array([self.left, self.top], dtype=np.float64)


def letterbox(
    image: npt.NDArray[Any], size: int, interpolation: int | None = None
) -> tuple[npt.NDArray[Any], Placement]:
    """Resize a picture into a square without changing its aspect ratio; the rest is 0.

    Args:
        image: (H, W) or (H, W, C); uint8, uint16 or float32.
        size: side S of the square in px.
        interpolation: an OpenCV flag; default is the area mean when shrinking (no aliasing of
            speckle) and linear when enlarging.

    Returns:
        (S, S) or (S, S, C) of the same type, and the placement.
    """
    placement = Placement.fit((image.shape[0], image.shape[1]), size)
    height, width = placement.inner_shape
    if interpolation is None:
        interpolation = cv2.INTER_AREA if placement.scale < 1.0 else cv2.INTER_LINEAR
    inner = image
    if (height, width) != placement.source_shape:
        resized = cv2.resize(
            np.ascontiguousarray(image), (width, height), interpolation=interpolation
        )
        inner = np.asarray(resized).reshape(height, width, *image.shape[2:])
    square = np.zeros((size, size, *image.shape[2:]), image.dtype)
    square[placement.top : placement.top + height, placement.left : placement.left + width] = inner
    return square, placement


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A network input: image (1, S, S) float32, mask (1, S, S) uint8 or None, placement."""

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8] | None
    placement: Placement


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What is done to every picture of an experiment; the same for training and prediction.

    size: side S of the network input in px. bilateral: P1's filter (d 9, sigmas 75), run at the
    source resolution. clahe: local histogram equalisation (off in P1). normalise: `unit` maps
    0..255 to 0..1; `zscore` subtracts the mean and divides by the standard deviation of the
    picture itself (padding not counted, but shifted like black). region: the whole `frame`, or the
    `lesion` cut out along its box grown by `margin` of the box on each side (P2 to P4).
    """

    size: int = 128
    bilateral: bool = True
    clahe: bool = False
    normalise: Normalise = "unit"
    clahe_clip_limit: float = 2.0
    clahe_grid: int = 8
    region: Region = "frame"
    margin: float = 0.0

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not MIN_SIDE_PX <= self.size <= 4096:
            problems.append(f"size: {self.size} px is not within {MIN_SIDE_PX} to 4096")
        if self.normalise not in ("unit", "zscore"):
            problems.append(f"normalise: '{self.normalise}' is neither 'unit' nor 'zscore'")
        if not 0.0 < self.clahe_clip_limit <= 100.0:
            problems.append(f"clahe_clip_limit: {self.clahe_clip_limit} is not within (0, 100]")
        if not 1 <= self.clahe_grid <= 64:
            problems.append(f"clahe_grid: {self.clahe_grid} is not within 1 to 64")
        if self.region not in ("frame", "lesion"):
            problems.append(f"region: '{self.region}' is neither 'frame' nor 'lesion'")
        if not 0.0 <= self.margin <= MARGIN_MAX:
            problems.append(f"margin: {self.margin} is not within 0 to {MARGIN_MAX}")
        if self.margin and self.region == "frame":
            problems.append("margin: only for region 'lesion'")
        if problems:
            raise ConfigError(problems, where="preprocess")

    def run(
        self,
        pixels: npt.NDArray[Any],
        mask: npt.NDArray[Any] | None = None,
        *,
        declared_max: int | None = None,
        where: str = "",
    ) -> Prepared:
        """Prepare one picture and, if given, its mask.

        Args:
            pixels: (H, W) or (H, W, 3), uint8 or uint16.
            mask: (H, W), non-zero is marked; or None.
            declared_max: see `to_grey`.
            where: name of the file or frame for messages.

        Raises:
            InputRefused: the picture is unusable (`check_usable`) or the mask does not fit.
        """
        check_usable(pixels, where=where)
        grey = to_grey(pixels, declared_max)
        if self.bilateral:
            grey = bilateral(grey)
        if self.clahe:
            grey = clahe(grey, self.clahe_clip_limit, self.clahe_grid)
        square, placement = letterbox(grey, self.size)
        image = square.astype(np.float32) * np.float32(1.0 / 255.0)
        if self.normalise == "zscore":
            (top, left), (height, width) = (placement.top, placement.left), placement.inner_shape
            inner = image[top : top + height, left : left + width]
            # A picture that is flat after filtering must not be blown up to pure rounding noise.
            spread = max(float(inner.std(dtype=np.float64)), 1.0 / 255.0)
            image = (image - np.float32(inner.mean(dtype=np.float64))) / np.float32(spread)
        placed = None if mask is None else placement.apply_mask(mask)[None]
        return Prepared(image[None], placed, placement)

    def run_colour(
        self, pixels: npt.NDArray[Any], *, where: str = ""
    ) -> tuple[npt.NDArray[np.uint8], Placement]:
        """A tinted picture as (3,S,S) uint8, red, green, blue; no filter is applied to it.

        Args:
            pixels: (H, W) or (H, W, 3) uint8; grey is repeated.

        Raises:
            InputRefused: the picture is unusable (`check_usable`) or not of 8 bits.
        """
        check_usable(pixels, where=where)
        if pixels.dtype != np.uint8:
            raise InputRefused(
                Reason.BAD_PIXEL_DESCRIPTION,
                f"contrast pixels of type {pixels.dtype}",
                where=where,
                expected="uint8",
                remedy="export the picture with 8 bits per value",
            )
        colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        square, placement = letterbox(colour, self.size)
        return np.ascontiguousarray(square.transpose(2, 0, 1)), placement

    def as_dict(self) -> dict[str, Any]:
        """Plain values in a fixed order, fit for a record and for a cache digest."""
        return without_younger(asdict(self), _SINCE)

    @model_serializer(mode="wrap")
    def _serialised(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(handler(self), _SINCE)


def _nearest(values: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Nearest neighbour by pixel centres (OpenCV's plain INTER_NEAREST goes by corners)."""
    rows = _nearest_index(values.shape[0], shape[0])
    columns = _nearest_index(values.shape[1], shape[1])
    return values[rows[:, None], columns[None, :]]


def _nearest_index(source: int, target: int) -> npt.NDArray[np.int64]:
    # floor((2 i + 1) source / (2 target)) in integers: no rounding at exact ties.
    return ((2 * np.arange(target, dtype=np.int64) + 1) * source) // (2 * target)


def _resize_mask(marked: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if marked.shape == shape:
        return marked
    if shape[0] >= marked.shape[0] and shape[1] >= marked.shape[1]:
        return _nearest(marked, shape)
    area = cv2.resize(marked.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    # Area means of a fully half-covered pixel may come out a rounding error below one half.
    return (np.asarray(area) >= 0.5 - 1e-6).astype(np.uint8)
