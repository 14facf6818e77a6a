"""How does a trained system become a model package that predicts without torch?

Every member network is exported, compared with the trained one on frames it was never trained with,
and refused when it says something else; then everything a stranger needs to use, judge and check it
is written beside it, and the whole folder takes its place at once.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from renalkit import RESEARCH_ONLY
from renalkit.domain.cohort import ClassTask
from renalkit.domain.sample import Sample
from renalkit.domain.splits import Fold
from renalkit.errors import (
    CheckFailed,
    ConfigError,
    InputRefused,
    MissingExtra,
    ModelRefused,
    StoreError,
)
from renalkit.learn.export import OPSET, Graph, deployed, reference_results, write_onnx
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import load_trained
from renalkit.runtime.abilities import FAST, Precision, this_processor
from renalkit.runtime.engines import REMEDY, Backend, engine_version, installed, write_openvino
from renalkit.runtime.known_patients import KEYED_BY, KnownPatients
from renalkit.runtime.package import (
    CARD,
    GOLDEN,
    INT8,
    KIND,
    ONNX,
    OPENVINO,
    PARITY,
    PATIENTS,
    SCHEMA,
    SPEC,
    WEIGHTS,
    load_package,
)
from renalkit.runtime.quantise import write_int8
from renalkit.store.files import (
    TMP_PREFIX,
    make_folder,
    move_folder,
    read_json,
    sha256_bytes,
    write_bytes,
    write_json,
    write_text,
)
from renalkit.store.runs import FoldFolder, RunFolder, package_versions, write_manifest
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.systems._contract import Params, System
from renalkit.usecases.experiment import Experiment, Job, jobs_of
from renalkit.usecases.export_gate import (
    Compared,
    Golden,
    Results,
    compared,
    forms,
    frames_of,
    gate,
    made_up,
    reads_all_heads,
)
from renalkit.usecases.export_words import licence_text, readme
from renalkit.usecases.model_card import card_for
from renalkit.usecases.monai_bundle import write_bundle
from renalkit.usecases.parts import load_data, part_indices, samples_of
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import stored_experiment

Json = dict[str, Any]

FORMATS = ("onnx", "openvino", "monai-bundle")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
CALIBRATION_FRAMES = 64
"""Validation frames whose values fix the ranges of 8-bit numbers."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the user asked for.

    system: RUN/SYSTEM, or one fold folder of it. output: folder of packages; this one becomes
    OUTPUT/SYSTEM/VERSION. version: the start of a digest of the weights when None. formats: ONNX is
    always there. fast: modes beside fp32. frames: at most so many tested frames, of all folds
    together, are compared. cohort: that of the run, when it has moved.
    """

    system: Path
    output: Path = Path("models")
    version: str | None = None
    formats: tuple[str, ...] = ("onnx",)
    fast: tuple[Precision, ...] = ()
    frames: int = 200
    cohort: Path | None = None

    def __post_init__(self) -> None:
        problems = [
            f"--format '{f}': expected {', '.join(FORMATS)}"
            for f in self.formats
            if f not in FORMATS
        ]
        if self.frames < 1:
            problems.append(f"--frames {self.frames}: at least 1")
        problems += [f"--fast '{m}': expected bf16 or int8" for m in self.fast if m not in FAST]
        if self.version is not None and not VERSION.fullmatch(self.version):
            problems.append(f"--version '{self.version}': letters, digits and . _ + - only")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class _Source:
    """A trained system of a run. folds: those that are exported, with their files."""

    run: RunFolder
    experiment: Experiment
    job: Job
    task: ClassTask
    system: System[Params]
    params: Params
    folds: tuple[tuple[Fold, FoldFolder], ...]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(str(read_json(f.done)["weights_sha256"]) for _, f in self.folds)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member in its folder: what it is, its graph, and torch's results on the golden pair."""

    fold: int
    folder: str
    sha256: str
    graph: Graph
    golden: Results


def export_system(request: ExportRequest, progress: Progress) -> Json:
    """Write a model package; it appears whole or not at all.

    Raises:
        ConfigError: no card yet (intended use and limitations are not written), or a package of
            this version exists.
        MissingExtra: the exporter's packages or an engine are not installed.
        ModelRefused: no finished fold, a mode this processor has no instructions for, or exported
            networks that say something else than the trained ones.
        StoreError: the run has no figures yet, or the disk refused.
    """
    source = _source(request.system)
    require_engines(request.fast)
    card = card_for(source.run, source.job.label)
    version = request.version or sha256_bytes("\n".join(source.digests).encode())[:12]
    target = request.output / source.job.label / version
    with new_package(target) as whole:
        spec = _fill(request, source, card, version, whole, progress)
        write_manifest(whole)
        progress.stage("loading the package as its user will")
        load_package(whole).engines()
    parity = read_json(target / PARITY)
    return {
        "schema": SCHEMA,
        "package": str(target),
        "name": spec["name"],
        "version": version,
        "members": len(spec["members"]),
        "formats": spec["formats"],
        "fast": spec["fast"],
        "compared": parity["compared_on"],
        "parity": parity["forms"],
    }


def require_engines(modes: Sequence[Precision]) -> None:
    """Raises MissingExtra without an engine to compare with, ModelRefused for a mode this processor
    has no instructions for."""
    for mode in modes:
        this_processor().require(mode)
    if not installed():
        raise MissingExtra("no engine to compare with is installed", remedy=REMEDY)


@contextmanager
def new_package(target: Path) -> Generator[Path]:
    """A folder to fill that becomes `target` when the block ends well; otherwise nothing is left.

    Raises ConfigError where a package of this version exists.
    """
    version, place = target.name, target.parent
    if target.exists():
        raise ConfigError(
            [f"--version {version}: {version} exists in {place.name}; choose another"]
        )
    make_folder(place)
    whole = Path(tempfile.mkdtemp(prefix=TMP_PREFIX, dir=place))
    try:
        whole.chmod(0o755)
        yield whole
        move_folder(whole, target)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


# ---- what is exported -------------------------------------------------------------------------


def _source(path: Path) -> _Source:
    """The trained folds of RUN/SYSTEM, or the one of a fold folder."""
    one = (path / WEIGHTS).exists()
    system_folder = path.parent if one else path
    run = RunFolder(system_folder.parent)
    if RunFolder(path).experiment_json.exists():
        run, system_folder = RunFolder(path), path / ""
    experiment = stored_experiment(run)
    jobs = {job.label: job for job in jobs_of(experiment)}
    job = jobs.get(system_folder.name)
    if job is None or run.path == path:
        raise ModelRefused(
            "a run, not one of its systems" if run.path == path else "no such system",
            where=path.name,
            expected=f"RUN/SYSTEM with one of {', '.join(jobs)}",
            remedy="name the system that shall be exported",
        )
    folds = tuple(
        (fold, own)
        for fold in load_split(run.folds).folds
        for own in [run.fold(job.label, fold.index)]
        if own.done.exists() and own.weights.exists() and (not one or own.path == path)
    )
    if not folds:
        raise ModelRefused(
            "no finished fold with weights",
            where=f"{run.path.name}/{job.label}",
            expected="a run that was trained here",
            remedy="train the experiment first",
        )
    task = ClassTask.parse(read_json(run.cohort)["task"])
    system = get_system(job.system)
    return _Source(run, experiment, job, task, system, system.params(job.params), folds)


def _samples(request: ExportRequest, source: _Source) -> tuple[tuple[Sample, ...], str]:
    """The cohort's frames, or none and why."""
    try:
        cohort, _ = load_data(source.experiment, request.cohort)
    except (StoreError, InputRefused, CheckFailed, ConfigError) as error:
        if request.cohort is not None:
            raise
        return (), f"the run's cohort cannot be read ({error.found})"
    if cohort.digest != read_json(source.run.cohort)["digest"]:
        problem = "the cohort is not the one the run was trained on"
        if request.cohort is not None:
            raise StoreError(problem, where=request.cohort.name, remedy="give the run's own cohort")
        return (), problem
    return samples_of(cohort, source.experiment.input.region), ""


# ---- the package ------------------------------------------------------------------------------


def _fill(
    request: ExportRequest,
    source: _Source,
    card: Json,
    version: str,
    whole: Path,
    progress: Progress,
) -> Json:
    """Write every file but the manifest; returns spec.json."""
    progress.stage("reading the cohort")
    samples, without = _samples(request, source)
    common = made_up(source.job)
    most = max(1, request.frames // len(source.folds))
    files = _files(request)
    chosen = forms(request.fast, files)
    members: list[_Member] = []
    beside: dict[int, list[tuple[Golden, Results, Compared]]] = {i: [] for i in range(len(chosen))}
    all_heads = source.job.task.segments and reads_all_heads(source.system, source.params)
    progress.stage(f"exporting {source.job.label}", len(source.folds))
    on: list[Golden] = []
    for (fold, own), sha256 in zip(source.folds, source.digests, strict=True):
        folder = make_folder(whole / own.path.name)
        net = _trained(source, own, sha256)
        parts = part_indices(samples, fold)
        golden = frames_of(source.job, samples, parts["test"], most) or common
        on.append(golden)
        write_bytes(folder / WEIGHTS, own.weights.read_bytes())
        form = deployed(net, all_heads=all_heads)
        shape = source.job.shape(len(source.task.classes))
        graph = write_onnx(form, shape, len(source.job.features), folder / ONNX)
        if "openvino" in request.formats:
            write_openvino(folder / ONNX, folder / OPENVINO)
        if Precision.INT8 in request.fast:
            # Ranges come from validation frames, never from those that are compared.
            seen = frames_of(source.job, samples, parts["validation"], CALIBRATION_FRAMES)
            ranges = seen or made_up(source.job, CALIBRATION_FRAMES, seed=1)
            write_int8(folder / ONNX, folder / INT8, ranges.given)
        expected = reference_results(net, golden.given, all_heads=all_heads)
        for i, form in enumerate(chosen):
            said = compared(form, folder, fold.index, golden, expected)
            beside[i].append((golden, expected, said))
        at_home = reference_results(net, common.given, all_heads=all_heads)
        members.append(_Member(fold.index, folder.name, sha256, graph, at_home))
        progress.advance()
    scoring = (source.system, source.params)
    found = [gate(form, beside[i], scoring, source.task) for i, form in enumerate(chosen)]
    write_json(whole / PARITY, _parity(found, on, without))
    write_bytes(whole / GOLDEN, save_arrays(_golden_arrays(common, members)))
    write_json(whole / PATIENTS, _patients(source))
    write_json(whole / CARD, card)
    spec = _spec(request, source, version, members, files)
    write_json(whole / SPEC, spec)
    write_text(whole / "LICENSE.txt", licence_text(card))
    if "monai-bundle" in request.formats:
        write_bundle(whole / "monai-bundle", spec, card, whole)
    write_text(whole / "README.md", readme(spec, card, read_json(whole / PARITY)))
    return spec


def _files(request: ExportRequest) -> dict[tuple[Backend, Precision], str]:
    """Which file each engine reads in each mode."""
    native = OPENVINO if "openvino" in request.formats else ONNX
    found: dict[tuple[Backend, Precision], str] = {
        ("openvino", Precision.FP32): native,
        ("onnxruntime", Precision.FP32): ONNX,
    }
    if Precision.BF16 in request.fast:
        found["openvino", Precision.BF16] = native
    if Precision.INT8 in request.fast:
        found["openvino", Precision.INT8] = INT8
        found["onnxruntime", Precision.INT8] = INT8
    return found


def _trained(source: _Source, own: FoldFolder, sha256: str) -> Net:
    shape = source.job.shape(len(source.task.classes))
    net = source.system.build(source.params, shape, source.job.task)
    load_trained(net, own.weights, sha256)
    return net


def _golden_arrays(common: Golden, members: Sequence[_Member]) -> Results:
    arrays = {f"input.{name}": np.ascontiguousarray(v) for name, v in common.given.items()}
    for member in members:
        for name, value in member.golden.items():
            arrays[f"{member.folder}.{name}"] = np.ascontiguousarray(value, np.float32)
    return arrays


def _parity(found: Sequence[Json], on: Sequence[Golden], without: str) -> Json:
    patients = {p for golden in on for p in golden.patients}
    frames = sum(len(golden) for golden in on if golden.patients)
    return {
        "schema": SCHEMA,
        "compared_on": {
            "what": "tested frames of the run, each by the fold that was trained without its "
            "patient"
            if patients
            else "made-up pictures",
            "frames": frames or sum(len(golden) for golden in on),
            "patients": len(patients),
            "note": without,
        },
        "processor": this_processor().model,
        "engines": [engine_version(name) for name in installed()],
        "versions": package_versions(),
        "forms": list(found),
    }


def _patients(source: _Source) -> Json:
    """Keyed hashes of everyone each member was trained or chosen with, its initial weights too."""
    salt = sha256_bytes("\n".join(source.digests).encode())
    initial = source.run.initial(source.job.label)
    before = {f["fold"]: f for f in read_json(initial)["folds"]} if initial.exists() else {}
    members: Json = {}
    for fold, own in source.folds:
        earlier = before.get(fold.index, {})
        known = KnownPatients.of(
            salt,
            fold.train.union(earlier.get("trained", ())),
            fold.validation.union(earlier.get("validated", ())),
        )
        members[own.path.name] = [known.plain, *earlier.get("hashed", ())]
    return {"schema": SCHEMA, "keyed_by": KEYED_BY, "members": members}


def _spec(
    request: ExportRequest,
    source: _Source,
    version: str,
    members: Sequence[_Member],
    files: dict[tuple[Backend, Precision], str],
) -> Json:
    job = source.job.model_dump(mode="json", exclude={"init_from"})
    # Where the first weights came from is a place on one machine; the card tells what they were.
    job["params"] = {
        k: None if k in ("init_weights", "init_sha256") else v for k, v in job["params"].items()
    }
    graph = members[0].graph
    figures = _figures(source)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "name": source.job.label,
        "version": version,
        "notice": RESEARCH_ONLY,
        "made_with": package_versions(),
        "opset": OPSET,
        "job": job,
        "classes": list(source.task.classes),
        "positive": source.task.positive,
        "ordered": source.task.ordered,
        "statistics": source.experiment.statistics.model_dump(mode="json"),
        "thresholds": figures.get("thresholds") or [],
        "ways": figures.get("ways"),
        "inputs": {name: list(shape) for name, shape in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "members": [
            {"fold": m.fold, "folder": m.folder, "weights_sha256": m.sha256} for m in members
        ],
        "formats": [f for f in ("onnx", "openvino") if f == "onnx" or f in request.formats],
        "fast": sorted({mode.value for _, mode in files if mode is not Precision.FP32}),
    }


def _figures(source: _Source) -> Json:
    """What each exported fold chose on its validation part; empty of systems without classes."""
    if not source.job.task.classifies:
        return {}
    systems = read_json(source.run.metrics)["systems"]
    found: Json = next(
        (s["classification"] or {} for s in systems if s["label"] == source.job.label), {}
    )
    exported = {fold.index for fold, _ in source.folds}
    return {
        name: [one for one in found[name] if one["fold"] in exported]
        for name in ("thresholds", "ways")
        if found.get(name) is not None
    }


def export_words(found: Json) -> str:
    """Where the package is and how exact it is, for a terminal."""
    on = found["compared"]
    lines = [
        f"Model package: {found['package']} ({found['members']} networks)",
        f"Compared on {on['frames']} frames: {on['what']}",
    ]
    if on["note"]:
        lines.append(f"  {on['note']}")
    for form in found["parity"]:
        largest = max(max(m["difference"].values()) for m in form["members"])
        words = [f"  {form['engine']} {form['mode']}: largest difference {largest:.1e}"]
        dice = [m["dice"] for m in form["members"] if m["dice"] is not None]
        if dice:
            words.append(f"Dice of masks {min(dice):.4f}")
        moved = form["patients"]["difference"]
        if moved is not None:
            words.append(f"AUC of {form['patients']['n']} patients moves by {moved:.4f}")
        lines.append(", ".join(words))
    return "\n".join([*lines, RESEARCH_ONLY])
