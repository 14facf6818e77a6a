"""How long does a CT scan take, and how much memory, beside MONAI's sliding window over all of it?

    python benchmarks/bench_volume.py [--run RUN] [--quick]

One simulated scan of 512 x 512 x 200 voxels, from HU in memory to labels on its own grid, twice: on
voxels of 3 x 1.8 x 1.8 mm, and of 1.5 x 1 x 1 mm as on the system's card, on which the scan takes many
more tiles; the networks are the same. Ours: kidneys on the coarse scan, masses inside their boxes,
networks in an engine. Peers: the same mass networks in eager PyTorch under MONAI's
SlidingWindowInferer (Gaussian blend, the same tiles and overlap), over the whole scan, and inside our
boxes, which are given to it: what is left is the engine. Every side is a process of its own; loading
libraries and opening networks is not timed, and stands among the facts.

The networks are those of the first fold of a run of `ct-cascade` or of its package (`--run`), on their
own voxels. Without one they are small ones with drawn weights, those on the shortest way through set
by hand so that they mark voxels of certain HU; what they cost does not depend on what they say. They
mark other organs too, so their boxes are not widened. Parity: the engine's logits of a tile beside
PyTorch's, how much Dice with the truth ours lose to the whole scan, and of networks set by hand our
labels beside MONAI's in the same boxes; what trained networks say changes with the places of tiles,
which are even here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import book
import numpy as np

from renalkit.domain.image import Mode, Source
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundScan
from renalkit.domain.volume import KIDNEY, TUMOUR, Phase, Volume, VolumeGrid, affine_of
from renalkit.metrics.volume_lesions import connected_instances, numbered_only
from renalkit.phantom.ct.anatomy import CtPlan, draw_case
from renalkit.phantom.ct.volume import render
from renalkit.runtime.abilities import Precision, this_processor
from renalkit.runtime.cascade_package import load_cascade_package
from renalkit.runtime.engines import EngineOptions, open_engine, write_openvino
from renalkit.runtime.package import is_package
from renalkit.runtime.parity import ALLOWED, compare, mask_dice
from renalkit.runtime.sliding import mask_scorer, plan_tiles
from renalkit.store.runs import RunFolder
from renalkit.systems.ct_cascade import CascadeParams, build_kidney, build_mass, index_box, windowed
from renalkit.transforms.components import kept
from renalkit.transforms.volumes import cut, resampled, working_grid
from renalkit.usecases.cascade_experiment import stored_cascade
from renalkit.usecases.cascade_scan import Spoken, Stages, coarse, find_masses, on_grid

DICE_LOST, LABELS_APART = 0.01, 0.001
"""Of Dice: that boxes and tiles at other places may cost, and how far labels of the same networks
in the same boxes may be apart."""
SLOW_S = 120.0
"""Where a call takes longer, one of each side is all."""
HALF = 0.5
PARTS = {"kidney and masses": KIDNEY, "masses": TUMOUR}
"""Least label of each."""
WINDOWS = {"kidney": ((140.0, 200.0),), "mass": ((140.0, 200.0), (85.0, 140.0))}
"""HU that networks set by hand mark, per output: enhanced kidney; in between it and other organs."""
STEEP = 40.0
"""Slope of their logits: 0.2 per HU."""


@dataclass(frozen=True)
class Sizes:
    """Of the scan, and of networks set by hand; params: by the voxels of the mass networks."""

    scan: CtPlan
    params: dict[str, dict[str, Any]]


def sizes(quick: bool) -> Sizes:
    patient = partial(
        CtPlan,
        normal_share=0.0,
        tumours=1,
        cysts=1,
        tumour_mm=(30, 60),
        kidneys="both",
        distractors=0.0,
    )
    kidney: dict[str, Any] = {"spacing_mm": 4.5, "channels": (8, 12, 20, 32), "norm": "batch"}
    mass: dict[str, Any] = {
        "patch": (64, 64, 64),
        "channels": (8, 16, 32, 64),
        "flat_levels": 1,
        "norm": "batch",
        "members": 2,
        "widen_mm": 0.0,
    }
    voxels = [(3.0, 1.8, 1.8), (1.5, 1.0, 1.0)]
    if quick:
        kidney |= {"spacing_mm": 6.0, "channels": (8, 12)}
        mass |= {"patch": (24, 24, 24), "channels": (8, 12), "members": 1}
        voxels = [(6.0, 4.0, 4.0), (5.0, 3.0, 3.0)]
    scan = patient(matrix=112, slices=56) if quick else patient(matrix=512, slices=200)
    params = {name_of(v): {"kidney": kidney, "mass": mass | {"spacing_mm": v}} for v in voxels}
    return Sizes(scan, params)


def name_of(spacing_mm: tuple[float, float, float]) -> str:
    return f"{' x '.join(f'{mm:g}' for mm in spacing_mm)} mm"


# ---- what is measured on ------------------------------------------------------------------------


def held(hu: np.ndarray, grid: VolumeGrid) -> Volume:
    """As a volume that was read."""
    return Volume(pixels=hu, sha256="", mode=Mode.CT, source=Source("", "", "simulated"), grid=grid)


def prepare(found: book.Book, place: Path) -> dict[str, Path]:
    """A scan and networks as files; by voxels of the mass networks the JSON that says where they
    are."""
    wanted = sizes(found.quick)
    scan = render(draw_case(wanted.scan, 0), Phase.NEPHROGRAPHIC)
    np.save(place / "hu.npy", scan.hu[Phase.NEPHROGRAPHIC])
    np.save(place / "truth.npy", scan.labels)
    if found.given.run:
        params, weights = given(found.given.run)
        settings = {name_of(params.mass.spacing_mm): params}
    else:
        settings = {k: CascadeParams.model_validate(v) for k, v in wanted.params.items()}
        weights = by_hand(next(iter(settings.values())), place)
    paths: dict[str, Path] = {}
    for name, params in settings.items():
        task = {
            "place": str(place),
            "affine": scan.affine_lps_mm,
            "params": params.model_dump(mode="json"),
            "weights": {name: str(path) for name, path in weights.items()},
        }
        paths[name] = place / f"task-{len(paths)}.json"
        paths[name].write_text(json.dumps(task))
    found.fact("networks", found.given.run.name if found.given.run else "set by hand")
    found.fact("voxels", " x ".join(map(str, scan.labels.shape[::-1])))
    found.fact("spacing, mm", ", ".join(f"{mm:.2f}" for mm in scan.spacing_mm[::-1]))
    return paths


def given(run: Path) -> tuple[CascadeParams, dict[str, Path]]:
    """The networks of the first fold of a run, or of a package."""
    if is_package(run):
        package = load_cascade_package(run)
        first = package.spec.folds[0]
        names = [name for name in first.networks if name != "lesion"]
        weights = {n: run / first.folder / n / "weights.safetensors" for n in names}
        return CascadeParams.model_validate(package.spec.params), weights
    folder = RunFolder(run)
    experiment = stored_cascade(folder)
    if experiment is None:
        raise SystemExit(f"{run}: no run of a CT cascade")
    fold = folder.fold(experiment.label, 0).path
    names = ["kidney", *(f"mass-{m}" for m in range(experiment.params.mass.members))]
    return experiment.params, {name: fold / name / "weights.safetensors" for name in names}


def by_hand(params: CascadeParams, place: Path) -> dict[str, Path]:
    """Networks of drawn weights that mark voxels whose HU lie in `WINDOWS`.

    The input x goes through the first block as |x - middle|, through the skip connection to the
    last one and its head: logit = STEEP (half width - |x - middle|). Batch normalisation without
    statistics changes nothing.
    """
    import torch

    from renalkit.learn.predictor import save_weights

    nets = {"kidney": build_kidney(params.kidney)}
    nets |= {f"mass-{m}": build_mass(params.mass) for m in range(params.mass.members)}
    for seed, (name, net) in enumerate(nets.items()):
        torch.manual_seed(seed)
        first, last, head = net.down[0], net.up[-1].conv_block, net.heads[-1].conv.conv
        width = net.plan.channels[0]
        ways = (first.conv1, first.conv2, last.conv1, last.conv2)
        inward, together, skipped, onward = (way.conv.weight for way in ways)
        with torch.no_grad():
            head.weight.zero_()
            for out, window in enumerate(WINDOWS[name.partition("-")[0]]):
                low, high = windowed(np.asarray(window)).tolist()
                a, b = 2 * out, 2 * out + 1
                inward[[a, b]], together[out], skipped[out], onward[out] = 0, 0, 0, 0
                centre = tuple(n // 2 for n in inward.shape[2:])
                inward[a, 0, *centre], inward[b, 0, *centre] = 1, -1
                first.norm1.bias[a], first.norm1.bias[b] = -(low + high) / 2, (low + high) / 2
                together[out, [a, b], *centre] = 1
                skipped[out, width + out, *centre] = 1
                onward[out, out, *centre] = 1
                head.weight[out, out] = -STEEP
                head.bias[out] = STEEP * (high - low) / 2
        (place / name).mkdir()
        save_weights(net, place / name / "weights.safetensors")
    return {name: place / name / "weights.safetensors" for name in nets}


def exported(path: Path) -> list[book.Parity]:
    """The networks as OpenVINO files beside their weights, and how far a tile's logits are apart."""
    from renalkit.learn.export import VolumeShape, deployed, reference_results, write_onnx

    task = Task.read(path)
    deep = 2 ** (len(task.params.kidney.channels) - 1)
    shapes = {"kidney": VolumeShape(1, (4 * deep,) * 3, (deep,) * 3)}
    shapes["mass"] = VolumeShape(1, task.params.mass.patch)
    parity: list[book.Parity] = []
    for name in task.weights:
        net, shape = task.net(name), shapes[name.partition("-")[0]]
        graph = task.place / f"{name}.onnx"
        write_onnx(deployed(net), shape, 0, graph)
        write_openvino(graph, graph.with_suffix(".xml"))
        image = np.random.default_rng(0).uniform(-1, 1, (1, 1, *shape.size)).astype(np.float32)
        expected = reference_results(net, {"image": image}, all_heads=False)
        engine = open_engine(graph.with_suffix(".xml"), EngineOptions("openvino"))
        one = compare(expected, engine.run({"image": image}))
        share = max(v / max(1.0, one.largest[k]) for k, v in one.difference.items())
        allowed = ALLOWED[Precision.FP32].difference or 0.0
        parity.append(
            book.Parity(f"{name}, engine and torch, share of the largest logit", share, allowed)
        )
    return parity


@dataclass(frozen=True)
class Task:
    """What every side is given."""

    place: Path
    params: CascadeParams
    weights: dict[str, Path]
    volume: Volume

    @classmethod
    def read(cls, path: Path) -> Task:
        plain = json.loads(path.read_text())
        place = Path(plain["place"])
        hu = np.load(place / "hu.npy")
        volume = held(hu, VolumeGrid(hu.shape, affine_of(plain["affine"])))
        weights = {name: Path(text) for name, text in plain["weights"].items()}
        return cls(place, CascadeParams.model_validate(plain["params"]), weights, volume)

    @property
    def masses(self) -> list[str]:
        return [name for name in self.weights if name != "kidney"]

    def net(self, name: str) -> Any:
        """Trained, in evaluation mode."""
        from renalkit.learn.volume_predictor import load_volume_net

        if name == "kidney":
            return load_volume_net(lambda: build_kidney(self.params.kidney), self.weights[name])
        return load_volume_net(lambda: build_mass(self.params.mass), self.weights[name])


# ---- the sides ----------------------------------------------------------------------------------


def ours(given: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 1, boxes, stage 2, in OpenVINO."""
    began = time.perf_counter()
    task = Task.read(Path(given["task"]))
    options = EngineOptions("openvino", Precision(given["precision"]), given["threads"])
    score = {
        name: mask_scorer(open_engine(task.place / f"{name}.xml", options)) for name in task.weights
    }
    stages = Stages(score["kidney"], tuple(score[name] for name in task.masses), None)
    spoken = Spoken(SampleKey("p", "s", "", 0, 0), SystemRef("ct-cascade", "bench", ""), None, ())
    opened = time.perf_counter() - began
    found: list[FoundScan] = []
    took = book.timed(lambda: found.append(find_masses(task.volume, stages, task.params, spoken)))
    (scan,) = found
    np.save(task.place / given["out"], scan.labels)
    (task.place / "boxes.json").write_text(json.dumps(scan.boxes_mm))
    return plain(took, opened)


def peer(given: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's window over the whole scan, or inside the boxes that are given; eager PyTorch."""
    began = time.perf_counter()
    import torch
    from monai.inferers import SlidingWindowInferer

    torch.set_num_threads(given["threads"])
    task = Task.read(Path(given["task"]))
    nets = [task.net(name) for name in task.masses]
    mass = task.params.mass
    window = SlidingWindowInferer(
        mass.patch, overlap=mass.overlap, mode="gaussian", padding_mode="constant", cval=-1.0
    )
    opened = time.perf_counter() - began
    labels = np.zeros(task.volume.grid.shape, np.uint8)

    def look(box: Any) -> None:
        grid = working_grid(task.volume.grid, mass.spacing_mm, box)
        mean = np.zeros((2, *grid.shape), np.float32)
        for number, net in enumerate(nets):
            own = working_grid(task.volume.grid, mass.spacing_of(number), box)
            image = torch.from_numpy(windowed(on_grid(task.volume, own)))[None, None]
            with torch.inference_mode():
                said = window(image, lambda x, net=net: net(x).mask_logits[-1].sigmoid())[0]
            for total, one in zip(mean, said.numpy(), strict=True):
                total += np.stack(list(resampled(one, own, grid))) / len(nets)
        part = (slice(None),) * 3 if box is None else index_box(task.volume.grid, box)
        here = cut(task.volume.grid, index_box(task.volume.grid, box)) if box else task.volume.grid
        into = labels[part]
        for value, probability, least in (
            (1, mean[0], HALF),
            (TUMOUR, mean[1], mass.threshold),
        ):
            slices = resampled(probability, grid, here)
            inside = np.stack([plane >= least for plane in slices])
            if value == TUMOUR:
                inside = kept(inside, least=np.pi / 6 * mass.least_mm**3 / here.voxel_mm3)
            into[inside] = value

    boxes = [None] if given["boxes"] is None else json.loads(Path(given["boxes"]).read_text())

    def all_of_it() -> None:
        for box in boxes:
            look(box)
        instances, _ = connected_instances(labels, task.volume.grid.voxel_mm3)
        labels[:] = numbered_only(labels, instances)

    took = book.timed(all_of_it)
    np.save(task.place / given["out"], labels)
    return plain(took, opened)


def plain(took: book.Took, opened: float) -> dict[str, Any]:
    return {"wall_s": took.wall_s, "cpu_s": took.cpu_s, "open_s": opened}


# ---- the comparison -----------------------------------------------------------------------------


def bench(found: book.Book) -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = prepare(found, Path(name))
        parity = exported(next(iter(paths.values())))
        for voxels, path in paths.items():
            one_resolution(found, voxels, path, parity)


def one_resolution(
    found: book.Book, voxels: str, path: Path, parity: Sequence[book.Parity]
) -> None:
    task = Task.read(path)
    place, checked = task.place, list(parity)
    common = {"task": str(path), "threads": found.threads}
    modes = [m for m in (Precision.FP32, Precision.BF16) if this_processor().can(m)]
    work = {
        f"ours, {mode.value}": ("ours", {"precision": mode.value, "out": f"{mode.value}.npy"})
        for mode in modes
    }
    whole, inside = "MONAI, whole scan", "MONAI, our boxes"
    work[whole] = "peer", {"boxes": None, "out": "whole.npy"}
    work[inside] = "peer", {"boxes": str(place / "boxes.json"), "out": "boxes.npy"}
    opened: dict[str, float] = {}

    def call(side: str) -> book.Took:
        child, more = work[side]
        answer, took = found.child(child, common | more)
        opened[side] = answer["open_s"]
        return book.Took(answer["wall_s"], answer["cpu_s"], took.peak_mib, elsewhere=True)

    # What the first calls give is compared; they are as good as later ones and count as a turn.
    begun = {side: call(side) for side in work}
    slow = max(took.wall_s for took in begun.values()) > SLOW_S
    truth = np.load(place / "truth.npy")
    said = {side: np.load(place / more["out"]) for side, (_, more) in work.items()}
    quality = {
        side: {what: mask_dice(labels >= least, truth >= least) for what, least in PARTS.items()}
        for side, labels in said.items()
    }
    apart = {
        what: 1 - mask_dice(said["ours, fp32"] >= least, said[inside] >= least)
        for what, least in PARTS.items()
    }
    for what in PARTS:
        lost = quality[whole][what] - quality["ours, fp32"][what]
        words = f"Dice with the truth of {what}, lost to {whole}"
        checked.append(book.Parity(words, max(0.0, lost), DICE_LOST))
        if found.given.run is None:  # what these say of a voxel does not depend on its tile
            words = f"{what}, ours and {inside}: 1 - Dice"
            checked.append(book.Parity(words, apart[what], LABELS_APART))
    table = found.compare(
        f"A scan to labels, {voxels}",
        "s",
        {side: lambda side=side: begun.pop(side, None) or call(side) for side in work},
        peer=whole,
        parity=checked,
        repeats=1 if slow else 0,
        warm=False,
    )
    for row in table["rows"]:
        row |= {f"Dice, {what}": value for what, value in quality[row["side"]].items()}
    found.fact(f"1 - Dice of ours and {inside}, {voxels}", apart)
    found.fact(f"s to load libraries and open networks, {voxels}", opened)
    facts(found, voxels, task, json.loads((place / "boxes.json").read_text()))


def facts(found: book.Book, voxels: str, task: Task, boxes: list[Any]) -> None:
    mass, grid = task.params.mass, task.volume.grid
    sizes = tuple((n,) for n in mass.patch)
    outer = grid.corners_mm
    share = sum(np.prod(np.subtract(high, low)) for low, high in boxes)
    found.fact(f"boxes, share of the scan, {voxels}", float(share / np.prod(np.ptp(outer, axis=0))))
    tiles = {
        f"mass-{member}, {where}": sum(
            plan_tiles(
                working_grid(grid, mass.spacing_of(member), box).shape, sizes, mass.overlap
            ).count
            for box in given
        )
        for where, given in (("boxes", boxes), ("whole scan", [None]))
        for member in range(mass.members)
    }
    found.fact(f"tiles, {voxels}", tiles)
    found.fact(
        "coarse voxels", " x ".join(map(str, coarse(task.volume, task.params.kidney)[0].shape))
    )
    weights = {n: sum(p.numel() for p in task.net(n).parameters()) for n in ("kidney", "mass-0")}
    found.fact("weights", weights)
    found.fact("mass networks", mass.members)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, help="run or package of ct-cascade whose networks are measured"
    )


if __name__ == "__main__":
    sys.exit(
        book.main(
            __file__,
            __doc__,
            bench,
            threads=0,
            repeats=3,
            children={"ours": ours, "peer": peer},
            options=options,
        )
    )
