"""What is a model package, is it whole, and does it compute here what it computed when it was made?

A package is one folder: how pictures are prepared and results become patients (spec.json), what the
model is for and how good it is (card.json), each member network as ONNX and as safetensors, a
golden pair of made-up inputs and their results, the report of the parity gate, keyed hashes of the
patients it has seen, and the SHA-256 of every file. Loading it needs no torch and runs nothing from
it: JSON, safetensors and model graphs only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from renalkit.config import Settings
from renalkit.errors import InputRefused, ModelRefused
from renalkit.runtime.abilities import Precision, this_processor
from renalkit.runtime.engines import (
    Arrays,
    Engine,
    EngineOptions,
    Found,
    engine_version,
    installed,
    open_engine,
)
from renalkit.runtime.known_patients import KnownPatients
from renalkit.runtime.parity import ALLOWED, Parity, compare
from renalkit.store.files import (
    make_folder,
    parse_json,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
)
from renalkit.store.runs import MANIFEST, check_manifest

Json = dict[str, Any]
Spec = TypeVar("Spec", bound=Settings)
KIND, CASCADE_KIND = "renalkit model package", "renalkit cascade package"
LOOKS_AT = {KIND: "ultrasound pictures", CASCADE_KIND: "CT scans"}
"""What packages of each kind are given."""
SCHEMA = 1
SPEC, CARD, PARITY = "spec.json", "card.json", "parity.json"
GOLDEN, PATIENTS = "golden.safetensors", "patients.json"
ONNX, INT8, OPENVINO, WEIGHTS = "model.onnx", "model-int8.onnx", "model.xml", "weights.safetensors"
REMEDY = "get the package again from where it was made"

# Shape legend: n images, c channels, s side in pixels, f numbers beside the picture.


class MemberSpec(Settings):
    """One network of the package: the fold that trained it, its folder, digest of its weights."""

    fold: int
    folder: str = Field(pattern=r"^fold-[0-9]{1,3}$")
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PackageSpec(Settings):
    """spec.json: everything a prediction needs beside the networks.

    job: the system's resolved settings as a run keeps them (system, task, params, input,
    modalities, features, test-time mirroring). classes, positive, ordered: the question.
    statistics: the run's settings from frames to patients; thresholds, ways: what each fold chose
    on its validation part, as in metrics.json. inputs, outputs: names and shapes, null where any
    length goes. fast: modes that passed the gate.
    """

    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["renalkit model package"]
    name: str
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    notice: str
    made_with: dict[str, str]
    opset: int
    job: Json
    classes: tuple[str, ...]
    positive: str | None
    ordered: bool = False
    statistics: Json
    thresholds: tuple[Json, ...]
    ways: tuple[Json, ...] | None
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    members: tuple[MemberSpec, ...] = Field(min_length=1)
    formats: tuple[Literal["onnx", "openvino"], ...]
    fast: tuple[Precision, ...] = ()

    @property
    def mirrored(self) -> bool:
        """Whether results are the mean over the picture and its left-right mirror."""
        return bool(self.job.get("train", {}).get("tta", False))


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package whose files are as its manifest says. path: its folder."""

    path: Path
    spec: PackageSpec
    card: Json
    digest: str

    @property
    def weights_sha256(self) -> tuple[str, ...]:
        """Of each member, in order: what predictions name."""
        return tuple(member.weights_sha256 for member in self.spec.members)

    def model_file(self, member: MemberSpec, options: EngineOptions) -> Path:
        """The file an engine reads: quantised where asked, OpenVINO's own where there is one."""
        folder = self.path / member.folder
        if options.precision is Precision.INT8:
            return folder / INT8
        backend = options.backend or next(iter(installed()), None)
        native = backend == "openvino" and "openvino" in self.spec.formats
        return folder / (OPENVINO if native else ONNX)

    def engines(self, options: EngineOptions | None = None) -> tuple[Engine, ...]:
        """Every member ready to compute, proven on the golden pair.

        A fast mode must be one the package was made with, and is tested once on each processor:
        the result is kept in the options' cache folder, if there is one.

        Raises:
            MissingExtra: no engine is installed.
            ModelRefused: a mode the package or this processor does not have, a model that cannot
                be read, or results that differ from the golden pair beyond the tolerance.
        """
        chosen = options or EngineOptions()
        require_mode(chosen.precision, self.spec.fast, where=self.spec.name)
        found = tuple(open_engine(self.model_file(m, chosen), chosen) for m in self.spec.members)
        self._prove(found, chosen)
        return found

    def golden(self) -> tuple[dict[str, npt.NDArray[np.float32]], tuple[Found, ...]]:
        """The made-up inputs, and the results of each member as they were computed by torch."""
        try:
            arrays = load_arrays((self.path / GOLDEN).read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ModelRefused("no readable golden pair", where=GOLDEN, remedy=REMEDY) from error
        given = {n: arrays[f"input.{n}"] for n in self.spec.inputs if f"input.{n}" in arrays}
        results = tuple(
            {n: arrays[f"{m.folder}.{n}"] for n in self.spec.outputs if f"{m.folder}.{n}" in arrays}
            for m in self.spec.members
        )
        if set(given) != set(self.spec.inputs) or any(
            set(found) != set(self.spec.outputs) for found in results
        ):
            raise ModelRefused("an incomplete golden pair", where=GOLDEN, remedy=REMEDY)
        return given, results

    def _prove(self, engines: Iterable[Engine], options: EngineOptions) -> None:
        """The golden pair through every engine, once per processor, engine version and mode."""

        def proofs() -> Iterator[Parity]:
            given, wanted = self.golden()
            for member, engine, expected in zip(self.spec.members, engines, wanted, strict=True):
                proof = compare(expected, engine.run(given))
                proof.require(options.precision, where=f"{self.spec.name}, {member.folder}")
                yield proof

        prove_once(self.digest, options, proofs())

    def known(self, member: MemberSpec) -> tuple[KnownPatients, ...]:
        """Whom a member has seen, and whom the weights it started from.

        Raises ModelRefused: not written in a way that can be read.
        """
        return known_in(self.path, member.folder)

    def seen(self, patients: Iterable[str]) -> frozenset[str]:
        """Those of the pseudonyms whose patients trained or validated a member.

        Pseudonyms agree only where both sides were ingested with the same key.
        """
        asked = list(patients)
        parts = [k.among(asked) for m in self.spec.members for k in self.known(m)]
        return frozenset[str]().union(*(part for both in parts for part in both))


def is_package(path: Path) -> bool:
    """Whether a folder says of itself that it is a model package, of whatever kind."""
    spec = path / SPEC
    return spec.is_file() and (path / MANIFEST).is_file()


def load_package(path: Path) -> ModelPackage:
    """A package after every file was hashed anew. `ModelPackage.engines` then proves the networks.

    Raises:
        ModelRefused: no package, one of another kind, a changed, missing or foreign file, or
            settings of another version.
    """
    spec, card, digest = opened(path, PackageSpec, KIND)
    return ModelPackage(path, spec, card, digest)


def kind_of(path: Path) -> str | None:
    """What a package says it is; None where it is none, or its settings cannot be read."""
    if not is_package(path):
        return None
    try:
        found = read_json(path / SPEC)
    except InputRefused:
        return None
    return str(found.get("kind")) if isinstance(found, dict) else None


def opened(path: Path, of: type[Spec], kind: str) -> tuple[Spec, Json, str]:
    """Settings, card and digest of a package of this kind, every file hashed anew.

    Raises:
        ModelRefused: see `load_package`.
    """
    if not is_package(path):
        raise ModelRefused(
            "not a model package",
            where=path.name,
            expected=f"a folder with {SPEC} and {MANIFEST}",
            remedy="make one with 'renalkit export'",
        )
    found = check_manifest(path)
    wrong = {"changed": found.changed, "missing": found.missing, "not listed": found.extra}
    problems = [f"{name} {word}" for word, names in wrong.items() for name in names]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelRefused(
            "; ".join(problems[:3]) + more,
            where=path.name,
            expected=f"the files of {MANIFEST}",
            remedy=REMEDY,
        )
    there = kind_of(path)
    if there in LOOKS_AT and there != kind:
        raise ModelRefused(
            f"a package that looks at {LOOKS_AT[there]}",
            where=path.name,
            expected=f"one that looks at {LOOKS_AT[kind]}",
            remedy="'renalkit predict' takes either; elsewhere give a package of the other kind",
        )
    try:
        spec = of.model_validate(read_json(path / SPEC))
        card = parse_json((path / CARD).read_bytes(), where=CARD)
    except (OSError, InputRefused, ValidationError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelRefused(
            f"settings that cannot be read ({first})",
            where=path.name,
            expected=f"{kind}, schema {SCHEMA}",
            remedy="use the version of renalkit it was made with, or export the model again",
        ) from error
    return spec, card, sha256_file(path / MANIFEST)


def require_mode(mode: Precision, fast: Sequence[Precision], *, where: str) -> None:
    """Raises ModelRefused for a mode beside fp32 that a package was not made with (`fast`)."""
    if mode is Precision.FP32 or mode in fast:
        return
    raise ModelRefused(
        f"mode {mode.value}, which this package was not made with",
        where=where,
        expected=", ".join(("fp32", *(known.value for known in fast))),
        remedy=f"export it with --fast {mode.value} on a machine that has it",
    )


def known_in(path: Path, member: str) -> tuple[KnownPatients, ...]:
    """Whom a member of a package has seen, and whom the weights it started from.

    Raises ModelRefused: not written in a way that can be read.
    """
    try:
        stored = read_json(path / PATIENTS)["members"][member]
        return tuple(KnownPatients.parse(item) for item in stored)
    except (KeyError, TypeError) as error:
        raise ModelRefused(
            "no readable list of the patients it has seen",
            where=f"{path.name}/{PATIENTS}",
            expected="keyed hashes per member",
            remedy=REMEDY,
        ) from error


def prove_once(digest: str, options: EngineOptions, proofs: Iterable[Parity]) -> None:
    """Go through the proofs of a package, which raise where one fails; with a cache folder those
    of a fast mode once per processor and engine version only.

    digest: of the package.
    """
    # The reference mode is proven at every loading: it costs one small batch.
    if options.cache is None or options.precision is Precision.FP32:
        for _ in proofs:
            pass
        return
    engine = engine_version(options.backend or installed()[0])
    key = "\n".join((digest, this_processor().model, engine, options.precision.value))
    known = options.cache / f"proof-{sha256_bytes(key.encode())[:32]}.json"
    if known.exists():
        return
    found = [proof.plain for proof in proofs]
    make_folder(known.parent)
    write_json(
        known,
        {
            "package": digest,
            "processor": this_processor().model,
            "engine": engine,
            "mode": options.precision.value,
            "allowed": ALLOWED[options.precision].plain,
            "members": found,
        },
    )


# ---- scoring ----------------------------------------------------------------------------------

PLACED = ("mask_logits",)
"""Results that lie where the picture lies."""


def score(engine: Engine, given: Arrays, *, mirrored: bool = False) -> Found:
    """Raw results of one batch, as a system's `decode` takes them.

    given: 'image' (n,c,s,s) float32 as prepared pictures give it, and 'features' (n,f) where the
    network takes numbers. mirrored: mean of the logits over the picture and its left-right mirror.
    """
    return next(score_stream(engine, [given], mirrored=mirrored))


def score_stream(
    engine: Engine, batches: Iterable[Arrays], *, mirrored: bool = False
) -> Iterator[Found]:
    """As `score` for many batches in their order; one is made while another is computed."""
    if not mirrored:
        yield from engine.stream(batches)
        return
    found = engine.stream(_with_mirror(batches))
    for straight, other in zip(found, found, strict=True):
        yield {name: _middle(name, value, other[name]) for name, value in straight.items()}


def _middle(
    name: str, straight: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    back = mirrored[..., ::-1] if name in PLACED else mirrored
    return np.asarray((straight + back) / 2, np.float32)


def _with_mirror(batches: Iterable[Arrays]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    for batch in batches:
        yield batch
        yield {**batch, "image": np.ascontiguousarray(batch["image"][..., ::-1])}
