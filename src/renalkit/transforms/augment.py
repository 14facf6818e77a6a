"""Which random change does a training picture get, and how is it recorded and repeated?

`sample_augmentation` draws, `Augmentation.apply` does: the operation is a frozen set of plain
numbers (random fields are given by seeds), so a record of it gives the same pixels again, bit for
bit, on the same machine and library versions. Flip, affine part and elastic field are composed
into one coordinate map, so that the picture is interpolated once.

Only training pictures may be augmented; that rule is kept where samples are built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError

_SEED_LIMIT = 2**53
"""Seeds stay below 2**53, so that every JSON reader keeps them exact."""


@dataclass(frozen=True, slots=True)
class AugmentRanges:
    """From which ranges augmentations are drawn. The defaults are those of P1 (B-mode).

    flip_probability: left-right mirror. Never top-bottom: depth has a direction in ultrasound.
    rotation_deg: angle uniform in +- this. scale: enlargement, log-uniform in (low, high).
    translate: shift uniform in +- this fraction of the side, per axis.
    contrast: factor about the mean grey, log-uniform in (low, high). brightness: uniform in +-
    this fraction of the picture's grey range. gamma: exponent, log-uniform in (low, high).
    elastic_amplitude_px: largest displacement, drawn uniformly from 0 to this; 0 is off.
    elastic_sigma_px: smoothness of the displacement; both in px of the network input.
    noise_sd: Gaussian noise as a fraction of the grey range, drawn uniformly from 0 to this.
    probability: each of the four groups (affine, grey values, elastic, noise) is applied
    independently with this probability.
    """

    flip_probability: float = 0.5
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.9, 1.15)
    translate: float = 0.05
    contrast: tuple[float, float] = (0.75, 1.33)
    brightness: float = 0.05
    gamma: tuple[float, float] = (1.0, 1.0)
    elastic_sigma_px: float = 16.0
    elastic_amplitude_px: float = 0.0
    noise_sd: float = 0.0
    probability: float = 0.9

    def __post_init__(self) -> None:
        problems: list[str] = []
        for name in ("flip_probability", "probability"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                problems.append(f"{name}: {value} is not within 0 to 1")
        for name, largest in (
            ("rotation_deg", 180.0),
            ("translate", 0.5),
            ("brightness", 1.0),
            ("elastic_amplitude_px", 1000.0),
            ("noise_sd", 1.0),
        ):
            value = getattr(self, name)
            if not 0.0 <= value <= largest:
                problems.append(f"{name}: {value} is not within 0 to {largest:g}")
        for name in ("scale", "contrast", "gamma"):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= 10.0:
                problems.append(f"{name}: ({low}, {high}) is not 0.1 <= low <= high <= 10")
        if not 1.0 <= self.elastic_sigma_px <= 1000.0:
            problems.append(f"elastic_sigma_px: {self.elastic_sigma_px} is not within 1 to 1000")
        elif self.elastic_amplitude_px > 0.5 * self.elastic_sigma_px:
            problems.append(
                f"elastic_amplitude_px: {self.elastic_amplitude_px} is more than half of "
                f"elastic_sigma_px ({self.elastic_sigma_px}); the picture would fold over itself"
            )
        if problems:
            raise ConfigError(problems, where="augmentation")

    @classmethod
    def off(cls) -> AugmentRanges:
        """Ranges that always give the identity."""
        return cls(
            flip_probability=0.0,
            rotation_deg=0.0,
            scale=(1.0, 1.0),
            translate=0.0,
            contrast=(1.0, 1.0),
            brightness=0.0,
            probability=0.0,
        )

    @classmethod
    def full(cls, size: int) -> AugmentRanges:
        """P1's ranges plus mild gamma, elastic deformation and noise for an input of `size` px."""
        return cls(
            gamma=(0.8, 1.25),
            elastic_sigma_px=max(4.0, size / 8),
            elastic_amplitude_px=size / 40,
            noise_sd=0.02,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record and a digest."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One fully described change of a picture of `size` x `size` px.

    Geometry, applied about the centre in this order: mirror, enlarge by `scale`, rotate by
    `rotation_deg` (counter-clockwise on the screen), shift by (`shift_x_px`, `shift_y_px`), then
    the elastic displacement. Grey values: contrast about the mean, brightness, clip to the
    picture's own range, gamma on that range, noise, clip again.
    """

    size: int
    flip: bool = False
    rotation_deg: float = 0.0
    scale: float = 1.0
    shift_x_px: float = 0.0
    shift_y_px: float = 0.0
    contrast: float = 1.0
    brightness: float = 0.0
    gamma: float = 1.0
    elastic_sigma_px: float = 0.0
    elastic_amplitude_px: float = 0.0
    elastic_seed: int = 0
    noise_sd: float = 0.0
    noise_seed: int = 0

    @property
    def moves_pixels(self) -> bool:
        """Whether the geometry changes at all."""
        return self.elastic_amplitude_px > 0 or self._moves_affinely

    @property
    def _moves_affinely(self) -> bool:
        return (self.flip, self.rotation_deg, self.scale, self.shift_x_px, self.shift_y_px) != (
            False,
            0.0,
            1.0,
            0.0,
            0.0,
        )

    @property
    def _changes_grey(self) -> bool:
        return (self.contrast, self.brightness, self.gamma, self.noise_sd) != (1.0, 0.0, 1.0, 0.0)

    def apply(
        self, image: npt.NDArray[np.float32], mask: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any] | None]:
        """Apply to one picture and, if given, its mask.

        Args:
            image: (S, S) or (C, S, S) float32; any grey range. Not changed in place.
            mask: (S, S) or (K, S, S), uint8 labels or bool; or None.

        Returns:
            Arrays of the same shapes and types. The picture is interpolated linearly and takes
            its smallest value where nothing was; the mask takes the nearest label and 0. The
            identity returns the arrays themselves.

        Raises:
            ValueError: a shape does not fit `size`, or a type is another one.
        """
        images, moved = self.apply_all([image], mask)
        return images[0], moved

    def apply_all(
        self, images: Sequence[npt.NDArray[np.float32]], mask: npt.NDArray[Any] | None = None
    ) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[Any] | None]:
        """Apply the same change to pictures of one instant (B-mode and CEUS) and their mask.

        All pictures share geometry, contrast, brightness and gamma; noise is drawn for each.
        """
        for image in images:
            self._check_shape(image.shape)
            if image.dtype != np.float32:
                raise ValueError(f"expected a float32 image, found {image.dtype}")
        if mask is not None:
            self._check_shape(mask.shape)
            if mask.dtype != np.uint8 and mask.dtype != np.bool_:
                raise ValueError(f"expected a uint8 or bool mask, found {mask.dtype}")
        changed = list(images)
        if self.moves_pixels:
            maps = self._source_maps()
            changed = [_warp_image(image, maps) for image in changed]
            mask = None if mask is None else _warp_mask(mask, maps)
        if self._changes_grey:
            changed = [self._change_grey(image, i) for i, image in enumerate(changed)]
        return changed, mask

    def spatial_inverse(self, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring a mask or map from the augmented picture back, undoing the affine part.

        The elastic displacement has no closed inverse and is left in. Labels take the nearest
        value, float maps are interpolated linearly.

        Args:
            mask: (S, S) or (K, S, S).
        """
        self._check_shape(mask.shape)
        if not self._moves_affinely:
            return mask
        a, b, c, d, e, f = self._inverse_affine()
        determinant = a * e - b * d
        p, q, r, s = e / determinant, -b / determinant, -d / determinant, a / determinant
        maps = _affine_maps(self.size, (p, q, -(p * c + q * f), r, s, -(r * c + s * f)))
        if np.issubdtype(mask.dtype, np.floating):
            return _warp_planes(mask.astype(np.float32), maps, cv2.INTER_LINEAR)
        return _warp_mask(mask, maps)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` gives an equal operation back, also through JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Augmentation:
        """The operation that `as_dict` described.

        Raises:
            ConfigError: a key is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        problems = [f"unknown key '{key}'" for key in sorted(set(values) - known)]
        problems += [f"missing key '{key}'" for key in sorted(known - set(values))]
        if problems:
            raise ConfigError(problems, where="recorded augmentation")
        return cls(**values)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (2, 3) or shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"expected (S, S) or (C, S, S) with S = {self.size}, found an array of {shape}"
            )

    def _inverse_affine(self) -> tuple[float, float, float, float, float, float]:
        """Coefficients (a, b, c, d, e, f): output (x, y) takes source (ax+by+c, dx+ey+f)."""
        angle = math.radians(self.rotation_deg)
        cos, sin = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        mirror = -1.0 if self.flip else 1.0
        # y points down, so a counter-clockwise turn on the screen is [[cos, sin], [-sin, cos]]
        # and its inverse, needed here, the transpose.
        a, b, d, e = mirror * cos, -mirror * sin, sin, cos
        centre = (self.size - 1) / 2
        shifted_x, shifted_y = centre + self.shift_x_px, centre + self.shift_y_px
        return (
            a,
            b,
            centre - a * shifted_x - b * shifted_y,
            d,
            e,
            centre - d * shifted_x - e * shifted_y,
        )

    def _source_maps(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        map_x, map_y = _affine_maps(self.size, self._inverse_affine())
        if self.elastic_amplitude_px > 0:
            field = elastic_field(
                self.size, self.elastic_sigma_px, self.elastic_amplitude_px, self.elastic_seed
            )
            map_x += field[0]
            map_y += field[1]
        return map_x, map_y

    def _change_grey(self, image: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
        low, high = float(image.min()), float(image.max())
        grey_range = high - low
        if grey_range <= 0.0:
            return image
        mean = float(image.mean(dtype=np.float64))
        # From here on u = (x - low) / range, so that clipping and gamma act on 0..1.
        gain = self.contrast / grey_range
        offset = (mean - self.contrast * mean - low) / grey_range + self.brightness
        unit = image * np.float32(gain)
        unit += np.float32(offset)
        np.clip(unit, 0.0, 1.0, out=unit)
        if self.gamma != 1.0:
            unit = np.asarray(cv2.pow(unit.reshape(-1, image.shape[-1]), self.gamma)).reshape(
                image.shape
            )
        if self.noise_sd > 0.0:
            generator = np.random.Generator(np.random.SFC64([self.noise_seed, index]))
            noise = generator.standard_normal(image.shape, dtype=np.float32)
            noise *= np.float32(self.noise_sd)
            unit = unit + noise
            np.clip(unit, 0.0, 1.0, out=unit)
        unit *= np.float32(grey_range)
        unit += np.float32(low)
        return unit


def sample_augmentation(ranges: AugmentRanges, size: int, rng: np.random.Generator) -> Augmentation:
    """Draw one augmentation.

    The number of draws does not depend on the outcome, so a generator shared by several samples
    stays in step when a range changes.

    Args:
        ranges: from what to draw.
        size: side S of the network input in px.
        rng: the sampler's generator; advanced by a fixed number of draws.
    """
    flip, affine, grey, elastic, noise = rng.random(5)
    angle, shift_x, shift_y, brightness = rng.uniform(-1.0, 1.0, 4)
    scale, contrast, gamma, amplitude, noise_sd = rng.random(5)
    elastic_seed, noise_seed = rng.integers(0, _SEED_LIMIT, 2)

    use_affine = affine < ranges.probability
    use_grey = grey < ranges.probability
    use_elastic = elastic < ranges.probability and ranges.elastic_amplitude_px > 0
    use_noise = noise < ranges.probability and ranges.noise_sd > 0
    return Augmentation(
        size=size,
        flip=bool(flip < ranges.flip_probability),
        rotation_deg=float(angle * ranges.rotation_deg) if use_affine else 0.0,
        scale=_between(ranges.scale, scale) if use_affine else 1.0,
        shift_x_px=float(shift_x * ranges.translate * size) if use_affine else 0.0,
        shift_y_px=float(shift_y * ranges.translate * size) if use_affine else 0.0,
        contrast=_between(ranges.contrast, contrast) if use_grey else 1.0,
        brightness=float(brightness * ranges.brightness) if use_grey else 0.0,
        gamma=_between(ranges.gamma, gamma) if use_grey else 1.0,
        elastic_sigma_px=float(ranges.elastic_sigma_px) if use_elastic else 0.0,
        elastic_amplitude_px=float(amplitude * ranges.elastic_amplitude_px) if use_elastic else 0.0,
        elastic_seed=int(elastic_seed) if use_elastic else 0,
        noise_sd=float(noise_sd * ranges.noise_sd) if use_noise else 0.0,
        noise_seed=int(noise_seed) if use_noise else 0,
    )


def elastic_field(
    size: int, sigma_px: float, amplitude_px: float, seed: int
) -> npt.NDArray[np.float32]:
    """A smooth random displacement, (2, S, S) float32: x and y shift in px at each output pixel.

    Independent normal numbers on a coarse grid (one node per sigma) are smoothed and enlarged
    with cubic interpolation, then scaled so that the longest displacement is `amplitude_px`. With
    amplitude_px <= sigma_px / 2 the deformation does not fold (tested through its Jacobian).
    """
    nodes = math.ceil(size / sigma_px) + 3
    enlarged = math.ceil(nodes * sigma_px)
    # Cut from the middle: the cubic kernel and the blur then see true neighbours on every side.
    cut = slice((enlarged - size) // 2, (enlarged - size) // 2 + size)
    generator = np.random.Generator(np.random.SFC64(seed))
    field = np.empty((2, size, size), np.float32)
    for plane in field:
        coarse = cv2.GaussianBlur(
            generator.standard_normal((nodes, nodes), dtype=np.float32), (5, 5), 1.0
        )
        fine = cv2.resize(coarse, (enlarged, enlarged), interpolation=cv2.INTER_CUBIC)
        plane[:] = np.asarray(fine)[cut, cut]
    # Not cv2.magnitude: its last bit depends on where the arrays lie in memory.
    longest = math.sqrt(float((field[0] * field[0] + field[1] * field[1]).max()))
    field *= np.float32(amplitude_px / longest)
    return field


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    if low == high:
        return float(low)
    return float(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))


def _affine_maps(
    size: int, coefficients: tuple[float, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    a, b, c, d, e, f = coefficients
    index = np.arange(size, dtype=np.float64)
    map_x = np.add.outer((b * index + c).astype(np.float32), (a * index).astype(np.float32))
    map_y = np.add.outer((e * index + f).astype(np.float32), (d * index).astype(np.float32))
    return map_x, map_y


def _remap(
    plane: npt.NDArray[Any],
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    interpolation: int,
    border: float,
) -> npt.NDArray[Any]:
    return np.asarray(
        cv2.remap(
            plane,
            *maps,
            interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(border, border, border, border),
        )
    )


def _warp_image(
    image: npt.NDArray[np.float32],
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> npt.NDArray[np.float32]:
    if image.ndim == 2:
        return _remap(image, maps, cv2.INTER_LINEAR, float(image.min()))
    return np.stack([_remap(plane, maps, cv2.INTER_LINEAR, float(plane.min())) for plane in image])


def _warp_mask(
    mask: npt.NDArray[Any],
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> npt.NDArray[Any]:
    plain = mask.astype(np.uint8) if mask.dtype == np.bool_ else mask
    return _warp_planes(plain, maps, cv2.INTER_NEAREST).astype(mask.dtype, copy=False)


def _warp_planes(
    values: npt.NDArray[Any],
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    interpolation: int,
) -> npt.NDArray[Any]:
    planes = values[None] if values.ndim == 2 else values
    moved = np.stack([_remap(plane, maps, interpolation, 0.0) for plane in planes])
    return moved.reshape(values.shape)
