"""What can be set in a CT cascade (P5), what did the paper claim, what does it leave open?

Apart from `ct_cascade`, so that listing it loads neither SciPy nor volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from renalkit.systems._contract import Card, Claim, OpenChoice, Params

Spacing = Annotated[float, Field(gt=0.2, le=20)]
Channels = Annotated[tuple[int, ...], Field(min_length=2, max_length=6)]


def strides(levels: int, flat: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Steps (z, y, x) between levels, the first `flat` of which keep slices.

    >>> strides(3, 1)
    ((1, 2, 2), (2, 2, 2))
    """
    return tuple((1, 2, 2) if k < flat else (2, 2, 2) for k in range(levels - 1))


def kernels(levels: int, flat: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Convolutions (z, y, x) of the levels, the first `flat` of which stay within slices."""
    return tuple((1, 3, 3) if k < flat else (3, 3, 3) for k in range(levels))


class KidneyParams(Params):
    """Stage 1: kidneys with everything in them, on the whole scan."""

    spacing_mm: Spacing = Field(default=4.0, description="of the even grid the scan is seen on")
    channels: Channels = Field(default=(16, 32, 64, 128), description="per level of the 3-D U-Net")
    norm: Literal["instance", "batch"] = Field(
        default="instance", description="normalisation of the network"
    )
    margin_mm: float = Field(
        default=15.0, ge=0, le=100, description="around each kidney, for the search of masses"
    )
    least_ml: float = Field(
        default=10.0, ge=0, description="what is smaller is no kidney; counts on the whole part"
    )
    most: int = Field(default=2, ge=1, le=8, description="parts taken for kidneys, largest first")


class MassParams(Params):
    """Stage 2: kidney and masses inside the boxes, by several networks whose mean counts."""

    spacing_mm: tuple[Spacing, Spacing, Spacing] = Field(
        default=(1.5, 1.0, 1.0), description="z, y, x"
    )
    coarse_mm: tuple[Spacing, Spacing, Spacing] | None = Field(
        default=None,
        description="z, y, x; every second network works on such voxels: its patch holds more of "
        "a large mass",
    )
    patch: tuple[int, int, int] = Field(default=(96, 96, 96), description="voxels, z, y, x")
    channels: Channels = Field(
        default=(32, 64, 128, 256, 320), description="per level of the 3-D U-Net"
    )
    flat_levels: int = Field(
        default=0,
        ge=0,
        le=3,
        description="levels, finest first, that convolve and halve within slices only: thick ones",
    )
    norm: Literal["instance", "batch"] = Field(
        default="instance", description="normalisation of the networks"
    )
    members: int = Field(default=5, ge=1, le=20, description="networks, each from its own seed")
    overlap: float = Field(
        default=0.5, ge=0, le=0.9, description="least share that neighbouring tiles have in common"
    )
    deep_supervision: bool = Field(default=True, description="a loss at the coarser levels too")
    threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="mean probability from which a voxel is mass; below 0.5 one sure network of "
        "two is enough. Choose it on other patients than those it is reported of",
    )
    least_mm: float = Field(
        default=3.0, ge=0, description="a part smaller than a ball of this diameter is no mass"
    )
    widen_mm: float = Field(
        default=25.0,
        ge=0,
        le=100,
        description="a box is widened by so much where kidney or mass reaches its face; 0: never",
    )
    widen_turns: int = Field(default=4, ge=1, le=10, description="how often at most")

    def spacing_of(self, member: int) -> tuple[Spacing, Spacing, Spacing]:
        """Voxels of one of the networks in mm, z, y, x; those of several folds follow each other.

        >>> two = MassParams(coarse_mm=(4, 3, 3), members=3)
        >>> [two.spacing_of(n)[0] for n in range(6)]
        [1.5, 4.0, 1.5, 1.5, 4.0, 1.5]
        """
        fine = member % self.members % 2 == 0
        return self.spacing_mm if fine or self.coarse_mm is None else self.coarse_mm

    @model_validator(mode="after")
    def _somebody_is_coarse(self) -> MassParams:
        if self.coarse_mm is not None and self.members < 2:
            raise ValueError("coarse_mm: expected at least 2 members, one of them coarse")
        return self

    @model_validator(mode="after")
    def _a_patch_can_be_halved(self) -> MassParams:
        steps = strides(len(self.channels), self.flat_levels)
        whole = [prod(step[axis] for step in steps) for axis in range(3)]
        if any(n < m or n % m for n, m in zip(self.patch, whole, strict=True)):
            raise ValueError(f"patch {self.patch}: expected multiples of {tuple(whole)}")
        return self


class LesionParams(Params):
    """Stage 3: the class of a mass, from a cube around it."""

    side: int = Field(default=48, ge=16, le=128, description="voxels of the cube's edge")
    margin: float = Field(
        default=0.3, ge=0, le=2, description="added on each side, as a share of the longest extent"
    )
    least_mm: float = Field(default=24.0, gt=0, description="shortest edge of the cube")
    depth: Literal[10, 18] = Field(default=18, description="layers of the 3-D ResNet")
    width: float = Field(default=0.5, gt=0, le=2, description="multiplier of 64..512 channels")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="before the last layer")
    mask_input: bool = Field(
        default=True, description="the voxels of the mass are a second channel beside the HU"
    )
    cyst_classes: tuple[str, ...] = Field(
        default=("cystic", "cyst"), description="classes whose masses are drawn as cysts"
    )


class CascadeParams(Params):
    """Choices of the three stages, and where the boxes come from that stages 2 and 3 learn in."""

    kidney: KidneyParams = KidneyParams()
    mass: MassParams = MassParams()
    lesion: LesionParams = LesionParams()
    boxes: Literal["inner", "reference_jittered"] = Field(
        default="inner",
        description="inner: found by stage-1 networks that never saw the patient, nor any of the "
        "outer test part; reference_jittered: from the drawn kidneys, shifted at random",
    )
    inner_folds: int = Field(default=2, ge=2, le=10, description="stage-1 networks for 'inner'")
    jitter_mm: float = Field(default=8.0, ge=0, le=50, description="of 'reference_jittered'")


CARD = Card(
    name="ct-cascade",
    title="CT in three stages: kidneys, ensemble of mass networks, class per mass (P5)",
    reference=(
        "Automatic renal mass segmentation and classification on CT images based on 3D U-Net and "
        "ResNet algorithms. 610 CT series of 490 patients, 2009-2021; external validation; KiTS21."
    ),
    summary=(
        "A 3-D U-Net finds the kidneys on the coarse scan, an ensemble of 3-D U-Nets draws masses "
        "inside their boxes, a 3-D ResNet names each: AML, cystic or solid."
    ),
    claims=(
        Claim("dice", 0.99, "abstract: kidneys, test set", task="kidney"),
        Claim("dice", 0.75, "abstract: masses, first of two figures", task="mass"),
        Claim("dice", 0.83, "abstract: masses, second of two figures", task="mass"),
        Claim("recall", 0.8454, "abstract: masses, first of two figures", task="detection"),
        Claim("recall", 0.7590, "abstract: masses, second of two figures", task="detection"),
        Claim("accuracy", 0.8605, "abstract: masses below 5 mm, test set", task="class"),
        Claim("accuracy", 0.9197, "abstract: masses of 5 mm and more, test set", task="class"),
    ),
    open_choices=(
        OpenChoice(
            "networks",
            "3-D U-Net, ensemble of 3-D U-Nets, ResNet; sizes not given (abstract only)",
            "MONAI's DynUNet without and with deep supervision, and 3-D ResNet-18",
            "kidney.channels, mass.channels, mass.deep_supervision, lesion.depth, lesion.width",
        ),
        OpenChoice(
            "spacing and window",
            "not given",
            "kidneys at 4 mm, masses at 1.5 x 1 x 1 mm; -200 to 300 HU",
            "kidney.spacing_mm, mass.spacing_mm",
        ),
        OpenChoice(
            "first stage",
            "'boundaries of the kidneys', how they bound the search is not said",
            "the whole coarse scan at once; a box per kidney, masses included, and 15 mm around, "
            "at least a patch; boxes that meet become one, and a box is widened where what is "
            "drawn in it reaches its face. Without a kidney nothing is searched",
            "kidney.margin_mm, kidney.least_ml, kidney.most, mass.widen_mm, mass.widen_turns",
        ),
        OpenChoice(
            "patch",
            "not given",
            "96 voxels along each axis, tiles half over one another, "
            "blended by a Gaussian; no mirroring",
            "mass.patch, mass.overlap",
        ),
        OpenChoice(
            "ensemble",
            "members and rule of combination not given",
            "five networks from different seeds, mean probability; every second one may work on "
            "larger voxels",
            "mass.members, mass.coarse_mm",
        ),
        OpenChoice(
            "losses",
            "not given",
            "Dice of each volume + cross-entropy; cross-entropy for the class",
        ),
        OpenChoice(
            "boxes in training",
            "not given",
            "those of first-stage networks that never saw the patient",
            "boxes, inner_folds",
        ),
        OpenChoice(
            "crop of a mass",
            "not given",
            "a cube around it, 30 % wider on each side, at least 24 mm, of 48 voxels; which of "
            "them are the mass is a second channel",
            "lesion.side, lesion.margin, lesion.least_mm, lesion.mask_input",
        ),
        OpenChoice(
            "classes",
            "AML, cystic, solid (Bosniak 2019), from a digest of the full text",
            "the classes of the cohort's task, whatever they are",
        ),
        OpenChoice(
            "paired figures",
            "0.75 and 0.83, 84.54 % and 75.90 %: of what is not said",
            "one figure per cohort, each with n and interval",
        ),
        OpenChoice("hit", "criterion behind 'recall' not given", "four criteria, each named"),
        OpenChoice("5 mm", "how it is measured is not said", "equivalent diameter; others offered"),
        OpenChoice("unit", "series or patients is not said", "intervals over patients"),
    ),
    parameters={
        "kidney (3-D U-Net)": 1_401_153,
        "mass (3-D U-Net, each member)": 16_544_552,
        "lesion (3-D ResNet-18 at half width, 3 classes)": 8_289_411,
    },
)


@dataclass(frozen=True, slots=True)
class Cascade:
    """A system of several networks on volumes that users can name."""

    name: str
    card: Card
    params_type: type[CascadeParams]

    @property
    def stages(self) -> dict[str, type[Params]]:
        """The settings of each stage by its name, in order."""
        found = {name: f.annotation for name, f in self.params_type.model_fields.items()}
        return {n: t for n, t in found.items() if isinstance(t, type) and issubclass(t, Params)}


CASCADES = (Cascade(CARD.name, CARD, CascadeParams),)
