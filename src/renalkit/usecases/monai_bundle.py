"""How does a MONAI user run an exported system? A bundle in MONAI's standard layout.

`configs/metadata.json` and `configs/inference.json` as MONAI reads them, weights as safetensors in
`models/`, a licence and words in `docs/`. The network and the preparation of pictures are those of
renalkit, named by `_target_`, so that results are those of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.learn.export import MeanOfMembers
from renalkit.learn.predictor import load_trained
from renalkit.runtime.package import ONNX, SPEC, WEIGHTS, PackageSpec
from renalkit.store.files import read_json, write_bytes, write_json, write_text
from renalkit.systems import get_system
from renalkit.transforms.preprocess import Preprocess
from renalkit.usecases.experiment import Job
from renalkit.usecases.export_gate import reads_all_heads
from renalkit.usecases.export_words import licence_text

Json = Mapping[str, Any]
MODELS = "models"
SCHEMA_ADDRESS = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def write_bundle(folder: Path, spec: Json, card: Json, package: Path) -> None:
    """Write the bundle of a package whose members are already in `package`."""
    for member in spec["members"]:
        name = member["folder"]
        for kind in (WEIGHTS, ONNX):
            data = (package / name / kind).read_bytes()
            write_bytes(folder / MODELS / f"{name}{Path(kind).suffix}", data)
    write_json(folder / MODELS / SPEC, dict(spec))
    write_json(folder / "configs" / "metadata.json", _metadata(spec, card))
    write_json(folder / "configs" / "inference.json", _inference(spec))
    write_text(folder / "LICENSE", licence_text(card))
    authors = card["authors"]
    words = [
        f"# {spec['name']}",
        str(spec["notice"]),
        authors["intended_use"].strip(),
        authors["limitations"].strip(),
        "The networks and the preparation of pictures come from renalkit, which must be installed "
        "with the extra `train`. `models/fold-K.onnx` needs no torch.",
    ]
    write_text(folder / "docs" / "README.md", "\n\n".join(words) + "\n")


def _metadata(spec: Json, card: Json) -> dict[str, Any]:
    made = spec["made_with"]
    job = spec["job"]
    channels, size = spec["inputs"]["image"][1], spec["inputs"]["image"][2]
    outputs: dict[str, Any] = {}
    if "mask_logits" in spec["outputs"]:
        outputs["mask"] = _tensor("segmentation", 1, [size, size], {"0": "lesion"})
    if "class_logits" in spec["outputs"]:
        names = {str(i): name for i, name in enumerate(spec["classes"])}
        outputs["classes"] = _tensor("probabilities", len(names), [], names)
    return {
        "schema": SCHEMA_ADDRESS,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported as {spec['version']}"},
        "monai_version": made.get("monai", ""),
        "pytorch_version": made.get("torch", ""),
        "numpy_version": made.get("numpy", ""),
        "required_packages_version": {"renalkit": made["renalkit"]},
        "name": spec["name"],
        "task": f"{job['task']} of renal tumours in ultrasound",
        "description": card["model"]["summary"] or spec["name"],
        "authors": card["authors"].get("contact") or "the authors of the run",
        "copyright": card["authors"].get("licence") or "not stated",
        "intended_use": card["authors"]["intended_use"],
        "network_data_format": {
            "inputs": {
                "image": _tensor(
                    "image",
                    channels,
                    [size, size],
                    {str(i): name for i, name in enumerate(job["modalities"])},
                )
            },
            "outputs": outputs,
        },
    }


def _tensor(kind: str, channels: int, shape: list[int], names: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "image" if shape else "probabilities",
        "format": kind,
        "modality": "US",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": names,
    }


def _inference(spec: Json) -> dict[str, Any]:
    """A config whose `network_def` is the mean of the members in evaluation mode."""
    place = f"$@bundle_root + '/{MODELS}'"
    found: dict[str, Any] = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{__name__}.bundle_network", "folder": place},
        "network": "$@network_def.to(@device).eval()",
        "inferer": {"_target_": "SimpleInferer"},
    }
    if _whole_frames(spec["job"]):
        found["preprocessing"] = {"_target_": f"{__name__}.Prepare", "folder": place}
    return found


def _whole_frames(job: Json) -> bool:
    """Whether one B-mode picture is all the network is given."""
    input_ = job["input"]
    return job["modalities"] == ["B"] and input_.get("region", "frame") == "frame"


# ---- what the config names --------------------------------------------------------------------


def _spec(folder: str) -> tuple[PackageSpec, Job]:
    spec = PackageSpec.model_validate(read_json(Path(folder) / SPEC))
    return spec, Job.model_validate(spec.job)


def bundle_network(folder: str) -> MeanOfMembers:
    """The members of a bundle as one network, in evaluation mode.

    folder: `models` of the bundle. Raises ModelRefused for weights that are not those of spec.json.
    """
    spec, job = _spec(folder)
    system = get_system(job.system)
    params = system.params(job.params)
    members = [system.build(params, job.shape(len(spec.classes)), job.task) for _ in spec.members]
    for net, member in zip(members, spec.members, strict=True):
        weights = Path(folder) / f"{member.folder}{Path(WEIGHTS).suffix}"
        load_trained(net, weights, member.weights_sha256)
    all_heads = job.task.segments and reads_all_heads(system, params)
    return MeanOfMembers(members, all_heads=all_heads)


class Prepare:
    """Picture (H,W) or (H,W,3), uint8 or uint16 -> (1,S,S) float32, as in the run."""

    def __init__(self, folder: str) -> None:
        self.preprocess: Preprocess = _spec(folder)[1].input

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self.preprocess.run(pixels).image
