"""What may a user ask a phantom to be? Options become a plan, or one message with every problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args

from renalkit.domain.pairs import MARGIN_MAX
from renalkit.errors import ConfigError
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import PAIR_MARGIN, CeusOptions
from renalkit.phantom.covariates import Target
from renalkit.phantom.ct.anatomy import CtPlan, KidneyPlan, Phase
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.patients import PatientPlan

Kind = Literal["us", "ceus", "ct", "cohort"]
Made = TypeVar("Made")

_PICTURE_FAULTS = ("duplicates", "label_noise", "leaking_calipers")
_STILL_FAULTS = ("wrong_units", *_PICTURE_FAULTS)
_CLIP_FAULTS = ("missing_frames", *_STILL_FAULTS)
_PAINTED_FAULTS = ("missing_frames", "wrong_units", "duplicates", "label_noise")
_CT_FAULTS = ("tilt", *_PAINTED_FAULTS)

_MOST_TIMES = 6500
"""Frame times of up to ten characters each, in an element of at most 64 KiB."""

JPEG_QUALITY = 90
"""Of ultrasound."""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A label volume that gives a scan its shapes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ShapePlan:
    """Masks to paint scans into, one per patient. spacing_mm: (z, y, x) they are brought to first,
    None for their own. around_mm: (z, y, x) added on each side, in whole voxels."""

    files: tuple[MaskFile, ...]
    spacing_mm: tuple[float, float, float] | None = None
    around_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """What to write.

    kind: us (B-mode), ceus, ct, or cohort (B-mode and CEUS of the same patients).
    pictures: PNG with masks instead of DICOM, for kind us. size: side of a B-mode picture in px.
    ceus: of the clips. pairs: number of cropped frame pairs instead of a clip, or None; margin:
    around the mass in these, as a share of its box.
    ct: of the scans. shapes: masks the scans are painted into, None to draw them.
    jpeg_quality: None for uncompressed ultrasound.
    """

    kind: Kind
    patients: PatientPlan
    pictures: bool = False
    size: int = 256
    ceus: CeusOptions = field(default_factory=CeusOptions)
    pairs: int | None = None
    margin: float = PAIR_MARGIN
    ct: CtPlan = field(default_factory=CtPlan)
    jpeg_quality: int | None = JPEG_QUALITY
    shapes: ShapePlan | None = None


@dataclass(frozen=True, slots=True)
class People:
    """The patients as the command line names them. faults: NAME=SHARE each."""

    patients: int
    seed: int = 0
    level: str = "default"
    target: str = "malignancy"
    positive_share: float = 0.6
    normal_share: float = 0.0
    faults: Sequence[str] = ()


def us_plan(people: People, *, pictures: bool, size: int, uncompressed: bool) -> PhantomPlan:
    """B-mode stills as DICOM, or as pictures with masks.

    Raises:
        ConfigError: with every option that is impossible, as all plans here.
    """
    problems = _Problems()
    problems.outside("size", size, 64, 1024)
    if pictures and uncompressed:
        problems.append("--uncompressed: pictures are PNG; leave it out, or --pictures")
    patients = problems.patients(people, _STILL_FAULTS)
    if problems or patients is None:
        problems.refuse()
    quality = None if uncompressed else JPEG_QUALITY
    return PhantomPlan("us", patients, pictures=pictures, size=size, jpeg_quality=quality)


def ceus_plan(
    people: People,
    *,
    clip: tuple[float, float, float],
    screen: tuple[int, int, str | None],
    pairs: int | None,
    margin: float | None,
    uncompressed: bool,
) -> PhantomPlan:
    """Contrast clips. clip: (seconds, frames per second, jitter). screen: (rows, cols, layout).
    margin: of pairs, None for the usual one."""
    problems = _Problems()
    options = problems.clip(clip, screen)
    if margin is not None and pairs is None:
        problems.append("--margin: only of frame pairs; give --pairs, or leave it out")
    if pairs is not None:
        problems.outside("pairs", pairs, 1, 99)
        problems.outside("margin", PAIR_MARGIN if margin is None else margin, 0.0, MARGIN_MAX)
        if uncompressed:
            problems.append("--uncompressed: pairs are PNG; leave it out, or --pairs")
    elif options is not None:
        problems.fits(options, uncompressed=uncompressed)
    patients = problems.patients(people, _CLIP_FAULTS if pairs is None else _PICTURE_FAULTS)
    if problems or options is None or patients is None:
        problems.refuse()
    quality = None if uncompressed else JPEG_QUALITY
    around = PAIR_MARGIN if margin is None else margin
    return PhantomPlan(
        "ceus", patients, ceus=options, pairs=pairs, margin=around, jpeg_quality=quality
    )


def cohort_plan(people: People, *, clip: tuple[float, float, float]) -> PhantomPlan:
    """B-mode stills and a contrast clip of the same patients. clip: as for ceus_plan."""
    problems = _Problems()
    options = problems.clip(clip, (CeusOptions().rows, CeusOptions().cols, None))
    if options is not None:
        problems.fits(options, uncompressed=False)
    patients = problems.patients(people, _CLIP_FAULTS)
    if problems or options is None or patients is None:
        problems.refuse()
    return PhantomPlan("cohort", patients, ceus=options)


def ct_plan(
    people: People,
    *,
    phases: Sequence[str],
    matrix: int,
    slice_mm: float | None,
    kidneys: str,
    aml_share: float = 0.1,
    tumour_mm: str | None = None,
    cyst_mm: str | None = None,
) -> PhantomPlan:
    """CT scans. phases, kidneys: by their names. tumour_mm, cyst_mm: 'LEAST,MOST'."""
    problems = _Problems()
    problems.outside("matrix", matrix, 64, 1024)
    if slice_mm is not None:
        problems.outside("slice-mm", slice_mm, 0.4, 10.0)
    problems.unknown("kidneys", kidneys, get_args(KidneyPlan))
    problems.phases(phases)
    problems.outside("aml-share", aml_share, 0.0, 0.94)
    tumours = problems.range_mm("tumour-mm", tumour_mm, 3.0, 130.0)
    cysts = problems.range_mm("cyst-mm", cyst_mm, 2.0, 90.0)
    patients = problems.patients(people, _CT_FAULTS)
    if problems or patients is None:
        problems.refuse()
    scan = CtPlan(
        normal_share=people.normal_share,
        tumour_mm=tumours,
        cyst_mm=cysts,
        aml_share=aml_share,
        phases=tuple(Phase(phase) for phase in phases),
        matrix=matrix,
        slice_spacing_mm=slice_mm,
        kidneys=cast("KidneyPlan", kidneys),
    )
    return PhantomPlan("ct", patients, ct=scan)


def only_drawn(options: Mapping[str, Any]) -> None:
    """Refuse options (by name, None where not given) that masks decide.

    Raises:
        ConfigError: with each that was given.
    """
    words = "--{}: the masks of --shapes decide that; leave it out"
    _refuse_given(options, words)


def only_painted(options: Mapping[str, Any]) -> None:
    """Refuse options that only belong to --shapes.

    Raises:
        ConfigError: with each that was given.
    """
    _refuse_given(options, "--{}: only of --shapes; give masks, or leave it out")


def _refuse_given(options: Mapping[str, Any], words: str) -> None:
    problems = [words.format(name) for name, value in options.items() if value is not None]
    if problems:
        raise ConfigError(problems, where="phantom")


def painted_plan(
    people: People,
    files: Sequence[MaskFile],
    *,
    phases: Sequence[str],
    spacing: str | None = None,
    around: str | None = None,
    aml_share: float = 0.1,
) -> PhantomPlan:
    """CT scans painted into masks, the first `people.patients` of the files. phases: by name.
    spacing, around: 'Z,Y,X' in mm, or None."""
    problems = _Problems()
    problems.phases(phases)
    problems.outside("aml-share", aml_share, 0.0, 0.94)
    steps = problems.three_mm("spacing", spacing, 0.4, 10.0)
    wider = problems.three_mm("around", around, 0.0, 300.0) or (0.0, 0.0, 0.0)
    if people.patients > len(files):
        problems.append(f"--patients: {people.patients}, but there are {len(files)} masks")
    patients = problems.patients(people, _PAINTED_FAULTS)
    if problems or patients is None:
        problems.refuse()
    scan = CtPlan(aml_share=aml_share, phases=tuple(Phase(phase) for phase in phases))
    shapes = ShapePlan(tuple(files[: people.patients]), steps, wider)
    return PhantomPlan("ct", patients, ct=scan, shapes=shapes)


class _Problems(list[str]):
    """What is wrong with the options so far, by option."""

    def refuse(self) -> NoReturn:
        raise ConfigError(list(dict.fromkeys(self)), where="phantom")

    def outside(self, option: str, value: float, low: float, high: float) -> None:
        """Note a number that is not within the limits (NaN is not)."""
        if not low <= value <= high:
            self.append(f"--{option}: {value:g} is not within {low:g} to {high:g}")

    def range_mm(
        self, option: str, text: str | None, low: float, high: float
    ) -> tuple[float, float] | None:
        """Least and most in mm of 'LEAST,MOST'; None where nothing is given or it is refused."""
        if text is None:
            return None
        try:
            least, most = (float(part) for part in text.split(","))
        except ValueError:
            self.append(f"--{option}: {text!r}, expected LEAST,MOST in mm")
            return None
        if low <= least <= most <= high:
            return least, most
        self.append(f"--{option}: {text} does not rise within {low:g} to {high:g} mm")
        return None

    def phases(self, phases: Sequence[str]) -> None:
        for phase in phases:
            self.unknown("phases", phase, tuple(Phase))
        if len(set(phases)) != len(phases):
            self.append("--phases: a phase is named twice")

    def three_mm(
        self, option: str, text: str | None, low: float, high: float
    ) -> tuple[float, float, float] | None:
        """(z, y, x) in mm of 'Z,Y,X'; None where nothing is given or it is refused."""
        if text is None:
            return None
        try:
            found = [float(part) for part in text.split(",")]
        except ValueError:
            found = []
        if len(found) == 3 and all(low <= value <= high for value in found):
            return found[0], found[1], found[2]
        self.append(f"--{option}: {text!r}, expected Z,Y,X in mm, each within {low:g} to {high:g}")
        return None

    def unknown(self, option: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            self.append(f"--{option}: {value!r} is not one of {', '.join(known)}")

    def taken(self, make: Callable[..., Made], *given: Any, **named: Any) -> Made | None:
        """What `make` makes; None when its owner refuses the settings, with each one noted."""
        try:
            return make(*given, **named)
        except ConfigError as error:
            for problem in error.problems:
                name, _, words = problem.partition(":")
                self.append(f"--{name.replace('_', '-')}:{words}")
            return None

    def patients(self, people: People, possible: Sequence[str]) -> PatientPlan | None:
        """possible: faults that such files can have."""
        if people.seed >= 2**63:
            self.append("--seed: more than 63 bits")
        dials = self._dials(people.faults, possible)
        return self.taken(
            PatientPlan,
            people.patients,
            people.seed,
            people.level,
            cast("Target", people.target),
            people.positive_share,
            people.normal_share,
            dials=dials,
        )

    def _dials(self, faults: Sequence[str], possible: Sequence[str]) -> FaultDials:
        known = [one.name for one in fields(FaultDials)]
        shares: dict[str, float] = {}
        for fault in faults:
            name, _, value = fault.partition("=")
            try:
                share = float(value)
            except ValueError:
                share = float("nan")
            if name in known and name not in possible:
                self.append(f"--fault: {name} cannot be in such files; {', '.join(possible)} can")
            elif name in shares:
                self.append(f"--fault: {name} is given twice")
            elif name in known and 0.0 <= share <= 1.0:
                shares[name] = share
            else:
                self.append(
                    f"--fault: {fault!r} is not NAME=SHARE with a share within 0 to 1 and a name "
                    f"of {', '.join(possible)}"
                )
        return FaultDials(**shares)

    def clip(
        self, clip: tuple[float, float, float], screen: tuple[int, int, str | None]
    ) -> CeusOptions | None:
        """clip, screen: as for ceus_plan."""
        seconds, rate, jitter = clip
        rows, cols, layout = screen
        before = len(self)
        self.outside("seconds", seconds, 1.0, 3600.0)
        self.outside("fps", rate, 0.5, 60.0)
        self.outside("jitter", jitter, 0.0, 0.3)
        self.outside("rows", rows, 240, 2160)
        self.outside("cols", cols, 320, 3840)
        if not 0.4 <= rows / max(cols, 1) <= 1.5:
            self.append(f"--rows: a screen of {rows} x {cols} px has no room for two panels")
        if layout is not None:
            self.unknown("layout", layout, tuple(Layout))
        if len(self) == before and seconds * rate < 1.5:
            self.append(f"--seconds: {seconds:g} s at {rate:g} frames per s are less than 2 frames")
        if len(self) > before:
            return None
        return CeusOptions(
            duration_s=seconds,
            rate_hz=rate,
            jitter=jitter,
            rows=rows,
            cols=cols,
            layout=None if layout is None else Layout(layout),
        )

    def fits(self, clip: CeusOptions, *, uncompressed: bool) -> None:
        """Note a clip that does not fit a DICOM file (PS3.5: lengths of 4 and of 2 bytes)."""
        frames = round(clip.duration_s * clip.rate_hz)
        size = frames * clip.rows * clip.cols * 3
        if uncompressed and size >= 0xFFFFFFFE:
            self.append(
                f"--uncompressed: {size / 2**30:.1f} GiB are more than the 4 GiB of a DICOM file; "
                "leave it out, or take fewer seconds, frames per second, rows or columns"
            )
        if clip.jitter and frames > _MOST_TIMES:
            self.append(
                f"--jitter: times of {frames} frames are more than the {_MOST_TIMES} of a DICOM "
                "file; leave it out, or take fewer seconds or frames per second"
            )
