"""What is a package of a CT cascade, and do its networks compute here what they did when trained?

As `runtime.package`, but with several networks per fold (FOLD/kidney, FOLD/mass-0, ...,
FOLD/lesion), each as ONNX and as safetensors. The golden pair has one made-up volume per stage; of
the masks it keeps every few voxels, which is enough to know a network by.

Shape legend: b volumes, k results, (z,y,x) voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from renalkit.config import Settings
from renalkit.errors import ModelRefused
from renalkit.runtime.abilities import Precision
from renalkit.runtime.engines import Engine, EngineOptions, Found, installed, open_engine
from renalkit.runtime.known_patients import KnownPatients
from renalkit.runtime.package import (
    CASCADE_KIND,
    GOLDEN,
    ONNX,
    OPENVINO,
    REMEDY,
    known_in,
    opened,
    prove_once,
    require_mode,
)
from renalkit.runtime.parity import Parity, compare

Json = dict[str, Any]
Stage = Literal["kidney", "mass", "lesion"]
STAGES: tuple[Stage, ...] = ("kidney", "mass", "lesion")
RESULT: Mapping[str, str] = {
    "kidney": "mask_logits",
    "mass": "mask_logits",
    "lesion": "class_logits",
}
"""What the networks of each stage give."""
KEPT = 24
"""Places along an axis of a mask that a golden pair keeps, at most."""


def stage_of(network: str) -> str:
    """The stage of a network by its name.

    >>> stage_of("mass-3")
    'mass'
    """
    return network.partition("-")[0]


class CascadeFold(Settings):
    """The networks of one fold: its folder, and digest of the weights of each by name."""

    fold: int
    folder: str = Field(pattern=r"^fold-[0-9]{1,3}$")
    networks: dict[str, str]

    @field_validator("networks")
    @classmethod
    def _every_stage(cls, networks: dict[str, str]) -> dict[str, str]:
        masses = [f"mass-{k}" for k in range(len(networks) - 2)]
        expected = ["kidney", *masses, "lesion"]
        if not masses or sorted(networks) != sorted(expected):
            raise ValueError(
                f"networks {', '.join(networks)}: expected kidney, mass-0, ..., lesion"
            )
        if any(len(v) != 64 or set(v) - set("0123456789abcdef") for v in networks.values()):
            raise ValueError("networks: expected a SHA-256 digest of the weights of each")
        return {name: networks[name] for name in expected}


class CascadeSpec(Settings):
    """spec.json of a cascade: everything a prediction needs beside the networks.

    label: what results call the system. params: of its stages. phases: contrast phases it was
    trained on, 'unknown' among them where a scan's was not known; empty: nobody knows.
    weights_sha256: one digest for all networks, as predictions name it.
    """

    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["renalkit cascade package"]
    name: str
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    notice: str
    made_with: dict[str, str]
    opset: int
    system: str
    params: Json
    classes: tuple[str, ...] = Field(min_length=2)
    phases: tuple[str, ...]
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    folds: tuple[CascadeFold, ...] = Field(min_length=1)
    formats: tuple[Literal["onnx", "openvino"], ...]
    fast: tuple[Precision, ...] = ()


FoldEngines = dict[str, Engine]
"""The networks of a fold by name."""


@dataclass(frozen=True, slots=True)
class CascadePackage:
    """A package whose files are as its manifest says. path: its folder."""

    path: Path
    spec: CascadeSpec
    card: Json
    digest: str

    def engines(self, options: EngineOptions | None = None) -> tuple[FoldEngines, ...]:
        """Every network of every fold ready to compute, proven on the golden pair.

        Raises:
            MissingExtra: no engine is installed.
            ModelRefused: a mode the package or this processor does not have, a network that cannot
                be read, or results that differ from the golden pair beyond the tolerance.
        """
        chosen = options or EngineOptions()
        require_mode(chosen.precision, self.spec.fast, where=self.spec.name)
        file = network_file(chosen, native="openvino" in self.spec.formats)
        found = tuple(
            {
                name: open_engine(self.path / fold.folder / name / file, chosen)
                for name in fold.networks
            }
            for fold in self.spec.folds
        )
        prove_once(self.digest, chosen, self._proofs(found, chosen.precision))
        return found

    def _proofs(self, engines: Iterable[FoldEngines], precision: Precision) -> Iterator[Parity]:
        given, wanted = self.golden()
        for fold, own in zip(self.spec.folds, engines, strict=True):
            for name, engine in own.items():
                where = f"{fold.folder}/{name}"
                said = thinned(engine.run({"image": given[stage_of(name)]}))
                try:
                    proof = compare(wanted[where], said)
                except ValueError as error:
                    raise ModelRefused(
                        f"other results than its golden pair has ({error})",
                        where=f"{self.spec.name}, {where}",
                        expected=RESULT[stage_of(name)],
                        remedy=REMEDY,
                    ) from error
                proof.require(precision, where=f"{self.spec.name}, {where}")
                yield proof

    def golden(self) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, Found]]:
        """The made-up volume of each stage (1,1,z,y,x), and what each network, by FOLD/NAME, said
        of it when it was computed by torch, thinned."""
        try:
            arrays = load_arrays((self.path / GOLDEN).read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ModelRefused("no readable golden pair", where=GOLDEN, remedy=REMEDY) from error
        try:
            given = {stage: arrays[f"input.{stage}"] for stage in STAGES}
            results = {
                f"{fold.folder}/{name}": {
                    RESULT[stage_of(name)]: arrays[f"{fold.folder}/{name}"],
                }
                for fold in self.spec.folds
                for name in fold.networks
            }
        except KeyError as error:
            raise ModelRefused("an incomplete golden pair", where=GOLDEN, remedy=REMEDY) from error
        return given, results

    def seen(self, patients: Iterable[str]) -> frozenset[str]:
        """Those of the pseudonyms whose patients trained or validated a network.

        Pseudonyms agree only where both sides were ingested with the same key.
        """
        asked = list(patients)
        parts = [k.among(asked) for fold in self.spec.folds for k in self.known(fold)]
        return frozenset[str]().union(*(part for both in parts for part in both))

    def known(self, fold: CascadeFold) -> tuple[KnownPatients, ...]:
        """Whom the networks of a fold have seen. Raises ModelRefused as `known_in`."""
        return known_in(self.path, fold.folder)


def load_cascade_package(path: Path) -> CascadePackage:
    """A package of a cascade after every file was hashed anew; `CascadePackage.engines` then proves
    its networks.

    Raises:
        ModelRefused: as `runtime.package.load_package`.
    """
    spec, card, digest = opened(path, CascadeSpec, CASCADE_KIND)
    return CascadePackage(path, spec, card, digest)


def network_file(options: EngineOptions, *, native: bool) -> str:
    """The file of a network that an engine reads: OpenVINO's own where there is one (`native`)."""
    backend = options.backend or next(iter(installed()), None)
    return OPENVINO if native and backend == "openvino" else ONNX


def thinned(found: Mapping[str, npt.NDArray[Any]]) -> Found:
    """Results as a golden pair keeps them: of masks (b,k,z,y,x) every few voxels along each axis.

    >>> thinned({"mask_logits": np.zeros((1, 2, 96, 24, 25))})["mask_logits"].shape
    (1, 2, 24, 24, 13)
    """
    return {
        name: np.ascontiguousarray(_every_few(value), np.float32) for name, value in found.items()
    }


def _every_few(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if value.ndim != 5:
        return value
    z, y, x = (-(-n // KEPT) for n in value.shape[2:])
    return value[:, :, ::z, ::y, ::x]
