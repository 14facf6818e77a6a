"""How does a trained CT cascade become a model package that predicts without torch?

As `usecases.export`, network by network: each is exported and compared with the trained one on a
simulated scan as its stage sees it. Then each fold looks, without torch, at scans of its own tested
part, and what it finds is compared with what the run stored of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_arrays
from scipy import ndimage

from renalkit import RESEARCH_ONLY
from renalkit.domain.cohort import Cohort
from renalkit.domain.image import Mode, Source
from renalkit.domain.scan import FoundScan
from renalkit.domain.splits import Fold
from renalkit.domain.volume import KIDNEY, TUMOUR, Phase, Volume
from renalkit.errors import ConfigError, ModelRefused
from renalkit.learn.export import OPSET, VolumeShape, deployed, reference_results, write_onnx
from renalkit.phantom.ct.anatomy import CtPlan, draw_case
from renalkit.phantom.ct.volume import render
from renalkit.runtime.abilities import FAST, Precision, this_processor
from renalkit.runtime.cascade_package import (
    RESULT,
    load_cascade_package,
    network_file,
    stage_of,
    thinned,
)
from renalkit.runtime.engines import (
    Backend,
    Engine,
    EngineOptions,
    engine_version,
    installed,
    open_engine,
    write_openvino,
)
from renalkit.runtime.known_patients import KEYED_BY, KnownPatients
from renalkit.runtime.package import (
    CARD,
    CASCADE_KIND,
    GOLDEN,
    ONNX,
    OPENVINO,
    PARITY,
    PATIENTS,
    SCHEMA,
    SPEC,
    WEIGHTS,
)
from renalkit.runtime.parity import ALLOWED, compare, mask_dice
from renalkit.store.files import (
    make_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from renalkit.store.runs import package_versions, write_manifest
from renalkit.store.scans import SCANS, load_scan, saved_scans
from renalkit.store.splits import load_split
from renalkit.systems.ct_cascade import (
    CascadeParams,
    box_of,
    lesion_cube,
    lesion_image,
    lesion_inputs,
    part_box,
    windowed,
)
from renalkit.transforms.volumes import nearest, upright_grid
from renalkit.usecases.cascade_model import (
    TrainedCascade,
    cohort_of,
    phases_of,
    stages_of,
    trained_cascade,
)
from renalkit.usecases.cascade_package_model import scorers
from renalkit.usecases.cascade_run_model import trained_network
from renalkit.usecases.cascade_scan import (
    Spoken,
    Stages,
    coarse,
    find_masses,
    kidney_image,
    on_grid,
)
from renalkit.usecases.export import VERSION, new_package, require_engines
from renalkit.usecases.export_cascade_card import cascade_card
from renalkit.usecases.export_words import cascade_readme, licence_text
from renalkit.usecases.progress import Progress
from renalkit.writers.wording import plural

Json = dict[str, Any]
Floats = npt.NDArray[np.float32]
FORMATS = ("onnx", "openvino")
SAME = 0.99
"""Least Dice of labels beside those the run stored. Not that of single networks: one voxel of
stage 1 at the very threshold may move a box, and all tiles in it."""


@dataclass(frozen=True, slots=True)
class CascadeExport:
    """What the user asked for.

    run: RUN, RUN/SYSTEM (all folds: the mean of their networks at each stage), or one fold folder.
    output, version, formats, fast, cohort: as in `ExportRequest`. scans: tested scans per fold that
    are looked at again and compared; 0: none.
    """

    run: Path
    output: Path = Path("models")
    version: str | None = None
    formats: tuple[str, ...] = ("onnx",)
    fast: tuple[Precision, ...] = ()
    scans: int = 1
    cohort: Path | None = None

    def __post_init__(self) -> None:
        problems = [
            f"--format '{f}': expected {', '.join(FORMATS)}, for a CT cascade"
            for f in self.formats
            if f not in FORMATS
        ]
        if self.scans < 0:
            problems.append(f"--scans {self.scans}: at least 0")
        problems += [
            f"--fast '{m.value}': expected bf16, for a CT cascade"
            for m in self.fast
            if m not in FAST or m is Precision.INT8
        ]
        if self.version is not None and not VERSION.fullmatch(self.version):
            problems.append(f"--version '{self.version}': letters, digits and . _ + - only")
        if problems:
            raise ConfigError(problems)


def export_cascade(request: CascadeExport, progress: Progress) -> Json:
    """Write a package of a cascade; it appears whole or not at all.

    Raises:
        ConfigError: no card yet (intended use and limitations are not written), or a package of
            this version exists.
        MissingExtra: the exporter's packages or an engine are not installed.
        ModelRefused: no finished fold, a mode this processor has no instructions for, or exported
            networks that say something else than the trained ones.
        StoreError: the run has no figures yet, or the disk refused.
    """
    trained = trained_cascade(request.run)
    require_engines(request.fast)
    card = cascade_card(trained)
    version = request.version or trained.weights_sha256[:12]
    target = request.output / trained.experiment.label / version
    with new_package(target) as whole:
        _Making(request, trained, whole, progress).fill(card, version)
        write_manifest(whole)
        progress.stage("loading the package as its user will")
        load_cascade_package(whole).engines()
    spec, parity = read_json(target / SPEC), read_json(target / PARITY)
    return {
        "schema": SCHEMA,
        "kind": CASCADE_KIND,
        "package": str(target),
        "name": spec["name"],
        "version": version,
        "folds": [fold["fold"] for fold in spec["folds"]],
        "networks": sum(len(fold["networks"]) for fold in spec["folds"]),
        "formats": spec["formats"],
        "fast": spec["fast"],
        "compared": parity["compared_on"],
        "parity": parity["forms"],
    }


# ---- what networks are compared on -------------------------------------------------------------


def made_up(params: CascadeParams) -> dict[str, Floats]:
    """A simulated scan as each stage is given it, (1,1,z,y,x): all of it, a patch with a mass, the
    cube around that mass. The same for everyone, so that a package holds no pixel of a patient."""
    plan = CtPlan(
        matrix=160,
        slice_spacing_mm=4.0,
        normal_share=0.0,
        tumours=1,
        cysts=1,
        tumour_mm=(30, 50),
        kidneys="both",
        distractors=0.0,
    )
    scan = render(draw_case(plan, 0), Phase.NEPHROGRAPHIC)
    hu = scan.hu[Phase.NEPHROGRAPHIC]
    volume = Volume(
        pixels=hu, sha256="", mode=Mode.CT, source=Source("", "", "simulated"), grid=scan.grid
    )
    tumour = int(scan.instances[scan.labels == TUMOUR].max())
    around = part_box(scan.grid, ndimage.find_objects(scan.instances)[tumour - 1])
    mass = params.mass
    extent = np.multiply(mass.patch, mass.spacing_mm)[::-1]
    first = (np.asarray(around[0]) + np.asarray(around[1]) - extent) / 2
    patch = upright_grid(mass.spacing_mm, box_of(first, first + extent))
    cube = lesion_cube(around, params.lesion)
    inside = np.stack(list(nearest(scan.instances == tumour, scan.grid, cube)))
    return {
        "kidney": _enough(kidney_image(coarse(volume, params.kidney)[0], params.kidney), params),
        "mass": windowed(on_grid(volume, patch))[None, None],
        "lesion": lesion_image(on_grid(volume, cube), inside, params.lesion),
    }


def _enough(image: Floats, params: CascadeParams) -> Floats:
    """At least two of what the network halves to along each axis, or it has nothing to normalise
    over."""
    deep = 2 ** (len(params.kidney.channels) - 1)
    ends = [(0, max(0, 2 * deep - n)) for n in image.shape[2:]]
    return np.pad(image, [(0, 0), (0, 0), *ends], constant_values=-1.0)


def shape_of(stage: str, params: CascadeParams) -> VolumeShape:
    """What the network of a stage takes: whole scans of any size, patches and cubes of theirs."""
    if stage == "kidney":
        deep = 2 ** (len(params.kidney.channels) - 1)
        return VolumeShape(1, (4 * deep,) * 3, (deep,) * 3)
    if stage == "mass":
        return VolumeShape(1, params.mass.patch)
    side = params.lesion.side
    return VolumeShape(lesion_inputs(params.lesion), (side, side, side))


# ---- the package -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to compute: an engine in a mode."""

    backend: Backend
    precision: Precision
    file: str

    @property
    def options(self) -> EngineOptions:
        return EngineOptions(backend=self.backend, precision=self.precision)

    @property
    def words(self) -> str:
        return f"{self.backend} {self.precision.value} ({self.file})"


@dataclass(frozen=True, slots=True)
class _Making:
    """A package while it is written into `whole`."""

    request: CascadeExport
    trained: TrainedCascade
    whole: Path
    progress: Progress

    @property
    def _params(self) -> CascadeParams:
        return self.trained.experiment.params

    def fill(self, card: Json, version: str) -> None:
        """Every file but the manifest."""
        trained, whole = self.trained, self.whole
        self.progress.stage("reading the cohort")
        cohort, without = cohort_of(trained, self.request.cohort)
        given = made_up(self._params)
        golden: dict[str, npt.NDArray[Any]] = {f"input.{k}": v for k, v in given.items()}
        forms = self._forms()
        found: dict[_Form, list[Json]] = {form: [] for form in forms}
        networks = [(k, name) for k, names in trained.networks.items() for name in names]
        self.progress.stage(f"exporting {trained.experiment.label}", len(networks))
        for fold, name in networks:
            folder = make_folder(whole / f"fold-{fold}" / name)
            image = given[stage_of(name)]
            expected = self._exported(fold, name, folder, image)
            golden[f"fold-{fold}/{name}"] = thinned(expected)[RESULT[stage_of(name)]]
            for form in forms:
                engine = open_engine(folder / form.file, form.options)
                one = compare(expected, engine.run({"image": image}))
                problems = [f"fold {fold}, {name}: {w}" for w in one.problems(form.precision)]
                _refuse(problems, form)
                found[form].append({"fold": fold, "network": name} | one.plain)
            self.progress.advance()
        scans = {
            form: self._scans(form, cohort) for form in forms if form.backend == forms[0].backend
        }
        write_json(whole / PARITY, _parity(found, scans, without))
        write_bytes(whole / GOLDEN, save_arrays(golden))
        write_json(whole / PATIENTS, self._patients())
        write_json(whole / CARD, card)
        write_json(whole / SPEC, self._spec(version, phases_of(self.trained, cohort)))
        write_text(whole / "LICENSE.txt", licence_text(card))
        spec, parity = read_json(whole / SPEC), read_json(whole / PARITY)
        write_text(whole / "README.md", cascade_readme(spec, card, parity))

    def _forms(self) -> list[_Form]:
        native = "openvino" in self.request.formats
        return [
            _Form(backend, mode, network_file(EngineOptions(backend, mode), native=native))
            for mode in (Precision.FP32, *self.request.fast)
            for backend in installed()
            if mode is Precision.FP32 or backend == "openvino"
        ]

    def _exported(
        self, fold: int, name: str, folder: Path, image: Floats
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Write a network in every format; what torch says of the image."""
        trained, stage = self.trained, stage_of(name)
        net = trained_network(trained, fold, name)
        write_bytes(folder / WEIGHTS, trained.weights(fold, name).read_bytes())
        write_onnx(deployed(net), shape_of(stage, self._params), 0, folder / ONNX)
        if "openvino" in self.request.formats:
            write_openvino(folder / ONNX, folder / OPENVINO)
        said = reference_results(net, {"image": image}, all_heads=False)
        return {RESULT[stage]: said[RESULT[stage]]}

    # ---- tested scans

    def _scans(self, form: _Form, cohort: Cohort | None) -> list[Json]:
        """What each fold finds on its own tested scans, beside what the run stored."""
        if cohort is None or not self.request.scans:
            return []
        studies = {study.key: study for study in cohort.studies}
        found: list[Json] = []
        for fold, names in self.trained.networks.items():
            stored = [load_scan(p) for p in saved_scans(self.trained.fold(fold).path / SCANS)]
            chosen = sorted(stored, key=lambda s: (not s.lesions, s.key.text))[: self.request.scans]
            self.progress.stage(f"fold {fold}: tested scans, {form.words}", len(chosen))
            engines = self._engines(form, fold, names)
            stages = stages_of([scorers(engines)])
            for number, known in enumerate(chosen):
                volume = studies[known.key.study].clips[known.key.clip]
                assert isinstance(volume, Volume)
                said = self._found(volume, stages, known)
                one = {"fold": fold, "scan": number} | _beside(known, said)
                if min(one["dice_kidney_and_mass"], one["dice_mass"]) < SAME:
                    words = ", ".join(f"{k} {v}" for k, v in one.items())
                    _refuse([f"other labels than the run stored ({words})"], form)
                found.append(one)
                self.progress.advance()
        return found

    def _engines(self, form: _Form, fold: int, names: Mapping[str, str]) -> dict[str, Engine]:
        folder = self.whole / f"fold-{fold}"
        return {n: open_engine(folder / n / form.file, form.options) for n in names}

    def _found(self, volume: Volume, stages: Stages, known: FoundScan) -> FoundScan:
        spoken = Spoken(known.key, known.system, known.fold, self.trained.classes)
        return find_masses(volume, stages, self._params, spoken)

    # ---- what is written beside the networks

    def _patients(self) -> Json:
        """Keyed hashes of everyone the networks of each fold were trained or chosen with."""
        folds: Mapping[int, Fold] = {f.index: f for f in load_split(self.trained.run.folds).folds}
        salt = self.trained.weights_sha256
        members = {
            f"fold-{k}": [KnownPatients.of(salt, folds[k].train, folds[k].validation).plain]
            for k in self.trained.folds
        }
        return {"schema": SCHEMA, "keyed_by": KEYED_BY, "members": members}

    def _spec(self, version: str, phases: Sequence[str]) -> Json:
        trained = self.trained
        return {
            "schema": SCHEMA,
            "kind": CASCADE_KIND,
            "name": trained.experiment.label,
            "version": version,
            "notice": RESEARCH_ONLY,
            "made_with": package_versions(),
            "opset": OPSET,
            "system": trained.experiment.cascade,
            "params": self._params.model_dump(mode="json"),
            "classes": list(trained.classes),
            "phases": list(phases),
            "weights_sha256": trained.weights_sha256,
            "folds": [
                {"fold": k, "folder": f"fold-{k}", "networks": dict(names)}
                for k, names in trained.networks.items()
            ],
            "formats": [f for f in FORMATS if f == "onnx" or f in self.request.formats],
            "fast": sorted(mode.value for mode in self.request.fast),
        }


def _refuse(problems: Sequence[str], form: _Form) -> None:
    if problems:
        raise ModelRefused(
            "; ".join(problems[:3]),
            where=f"parity, {form.words}",
            expected="what the trained networks say",
            remedy="export without this mode"
            if form.precision is not Precision.FP32
            else "report this network: exporting changed what it says",
        )


def _beside(known: FoundScan, said: FoundScan) -> Json:
    """How far two results of one scan are apart; nothing names it."""
    scores = [
        float(np.abs(np.subtract(a.scores, b.scores)).max())
        for a, b in zip(known.lesions, said.lesions, strict=False)
        if a.scores is not None and b.scores is not None
    ]
    same = len(known.lesions) == len(said.lesions)
    return {
        "dice_kidney_and_mass": mask_dice(known.labels >= KIDNEY, said.labels >= KIDNEY),
        "dice_mass": mask_dice(known.labels >= TUMOUR, said.labels >= TUMOUR),
        "masses": [len(known.lesions), len(said.lesions)],
        "score": max(scores, default=0.0) if same else None,
    }


def _parity(
    found: Mapping[_Form, Sequence[Json]], scans: Mapping[_Form, Sequence[Json]], without: str
) -> Json:
    first = next(iter(scans.values()), [])
    return {
        "schema": SCHEMA,
        "compared_on": {
            "what": "a simulated scan as each stage is given it",
            "scans": len(first),
            "scans_what": "tested scans of the run, each by the fold that was trained without its "
            "patient, beside what the run stored",
            "note": without,
        },
        "processor": this_processor().model,
        "engines": [engine_version(name) for name in installed()],
        "versions": package_versions(),
        "forms": [
            {
                "engine": form.backend,
                "mode": form.precision.value,
                "file": form.file,
                "allowed": ALLOWED[form.precision].plain | {"scan_dice": SAME},
                "networks": list(rows),
                "scans": list(scans.get(form, ())),
            }
            for form, rows in found.items()
        ],
    }


def cascade_export_words(found: Json) -> str:
    """Where the package is and how exact it is, for a terminal."""
    on, folds = found["compared"], plural(len(found["folds"]), "fold")
    lines = [
        f"Model package: {found['package']} ({found['networks']} networks of {folds})",
        f"Compared on {on['what']} and on {plural(on['scans'], 'tested scan')}",
    ]
    if on["note"]:
        lines.append(f"  {on['note']}")
    for form in found["parity"]:
        largest = max(max(n["difference"].values()) for n in form["networks"])
        words = [f"  {form['engine']} {form['mode']}: largest difference {largest:.1e}"]
        if form["scans"]:
            for what in ("kidney_and_mass", "mass"):
                least = min(scan[f"dice_{what}"] for scan in form["scans"])
                words.append(f"Dice of {what.replace('_', ' ')} {least:.4f}")
        lines.append(", ".join(words))
    return "\n".join([*lines, RESEARCH_ONLY])
