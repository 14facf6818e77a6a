"""How fast is a network trained, from files on disk to steps of the optimiser?

    python benchmarks/bench_training.py [--workers N] [--quick]

EfficientNet-B0 at 128 px with drawn weights, batches of 16, Adam. Three comparisons, so that each
factor stands alone:

- the step: 20 steps of `train_fold` (its checks and determinism on, batches made as it goes), and
  20 of a plain PyTorch loop on the same batches made before, as anybody writes it and in
  channels_last. Parity: each of the 20 losses, both loops in the same memory layout; how far the
  layouts alone drive the losses apart is given beside it.
- pictures without a network: one augmented epoch from MONAI's Dataset (files decoded each time) and
  CacheDataset (decoded once), and from the cache of prepared pictures here. MONAI gets pictures
  only, here their masks are carried along. Parity: the pictures with nothing changed at random.
- both together: an epoch of training, with as many loader threads here as loader workers there.

What is done once, ingest of the files and preparation of the cache, is given beside it. Parity of the
third: that of the first two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import book
import numpy as np
import torch
from drawn import do, write_pictures
from monai.data import CacheDataset, DataLoader, Dataset, PILReader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandAffined,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resized,
    ScaleIntensityRanged,
)

from renalkit.learn.data import Batch, BatchPlan, batches
from renalkit.learn.loop import FoldTask, train_fold
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Losses, Net, Outputs, Targets
from renalkit.learn.prepared import PreparedSet, prepare
from renalkit.store.cohorts import load_cohort
from renalkit.systems import get_system
from renalkit.systems._contract import ClassBalance, Shape, Task
from renalkit.transforms.augment import AugmentRanges
from renalkit.transforms.preprocess import Preprocess
from renalkit.usecases.parts import samples_of
from renalkit.usecases.progress import Silent

SIZE, SOURCE, STEPS = 128, 512, 20
SYSTEM, LOSS_APART = "bmode-net", 1e-4
RANGES = AugmentRanges()


class Watch(Silent):
    """Time from the beginning of an epoch to the end of its last step; the network is made, and
    weights are written, outside."""

    def stage(self, words: str, total: int | None = None) -> None:
        self.began = time.perf_counter(), book.processor_s()

    def advance(self, steps: int = 1, words: str = "") -> None:
        if steps:
            self.last = time.perf_counter(), book.processor_s()

    @property
    def took(self) -> book.Took:
        return book.Took(*(b - a for a, b in zip(self.began, self.last, strict=True)))


class Bench:
    """A network, its loss and its pictures."""

    def __init__(self, data: PreparedSet, batch: int, threads: int, place: Path) -> None:
        self.system = get_system(SYSTEM)
        self.params = self.system.params({"backbone": "efficientnet-b0"})
        self.data, self.place, self.numbers = data, place, count()
        self.train = np.arange(len(data))
        self.options = TrainOptions(
            epochs=1,
            batch_size=batch,
            device="cpu",
            sampling="plain",
            threads=threads,
        )

    def build(self) -> Net:
        modes = self.system.takes[0]
        return self.system.build(self.params, Shape(1, SIZE, 2, modes), Task.CLASSIFICATION)

    def loss(self) -> Callable[[Outputs, Targets], Losses]:
        counts = tuple(int((self.data.labels == k).sum()) for k in range(2))
        return self.system.loss(self.params, Task.CLASSIFICATION, ClassBalance(counts))

    def plan(self, ranges: AugmentRanges | None, workers: int) -> BatchPlan:
        return BatchPlan(self.options.seed, self.options.batch_size, "plain", ranges, workers)

    def ours(
        self,
        ranges: AugmentRanges | None,
        workers: int,
        losses: list[float] | None = None,
        *,
        last: bool = True,
    ) -> book.Took:
        """An epoch of `train_fold`, its losses noted where asked for."""
        inner, watch = self.loss(), Watch()

        def loss(outputs: Outputs, targets: Targets) -> Losses:
            found = inner(outputs, targets)
            if losses is not None:
                losses.append(float(found.total.detach()))
            return found

        task = FoldTask(
            build=self.build,
            loss=loss,
            data=self.data,
            train=self.train,
            validation=self.train[:0],
            guide_share=lambda done: 0.0,
            segments=False,
            classifies=True,
            n_classes=2,
        )
        options = replace(self.options, loader_threads=workers, channels_last=last)
        train_fold(task, options, ranges, self.place / str(next(self.numbers)), watch)
        return watch.took

    def plain(self, given: Iterable[Batch], *, last: bool) -> tuple[book.Took, list[float]]:
        """An epoch of a loop as anybody writes it."""
        torch.manual_seed(self.options.seed)
        net, loss = self.build(), self.loss()
        if last:
            net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), lr=self.options.lr)
        net.train()
        losses: list[float] = []
        cpu, wall = book.processor_s(), time.perf_counter()
        for image, targets, _ in given:
            if last:
                image = image.contiguous(memory_format=torch.channels_last)  # noqa: PLW2901
            total = loss(net(image), targets).total
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            losses.append(total.item())
        return book.Took(time.perf_counter() - wall, book.processor_s() - cpu), losses


def step(found: book.Book, bench: Bench) -> dict[str, Any]:
    """The same steps in both loops."""
    given = list(batches(bench.data, bench.train, bench.plan(None, 0), 0))
    parity: list[book.Parity] = []
    said: dict[bool, list[float]] = {}
    for name, last in (("PyTorch", False), ("PyTorch channels_last", True)):
        said[last] = []
        bench.ours(None, 0, said[last], last=last)
        theirs = bench.plain(given, last=last)[1]
        apart = float(np.abs(np.subtract(said[last], theirs)).max())
        parity.append(book.Parity(f"{len(theirs)} losses, {name}", apart, LOSS_APART))
    drift = float(np.abs(np.subtract(said[True], said[False])).max())
    found.fact("losses in one memory layout and the other, apart", drift)
    return found.compare(
        f"Step, B0, {SIZE} px, batches of {bench.options.batch_size}",
        "ms per image",
        {
            "renalkit": lambda: bench.ours(None, 0),
            "PyTorch": lambda: bench.plain(given, last=False)[0],
            "PyTorch channels_last": lambda: bench.plain(given, last=True)[0],
        },
        peer="PyTorch",
        parity=parity,
        scale=1000 / len(bench.data),
    )


def chain(*, changed: bool) -> Compose:
    """From a file to a picture for the network; P1's changes with MONAI's transforms."""
    certain = [
        LoadImaged("image", reader=PILReader(reverse_indexing=False), image_only=True),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Resized("image", (SIZE, SIZE), mode="area"),
        ScaleIntensityRanged("image", 0, 255, 0, 1, clip=True),
    ]
    drawn = [
        RandFlipd("image", prob=RANGES.flip_probability, spatial_axis=1),
        RandAffined(
            "image",
            prob=RANGES.probability,
            rotate_range=np.deg2rad(RANGES.rotation_deg),
            scale_range=(RANGES.scale[0] - 1, RANGES.scale[1] - 1),
            translate_range=RANGES.translate * SIZE,
            mode="bilinear",
            padding_mode="zeros",
        ),
        RandScaleIntensityd(
            "image",
            (RANGES.contrast[0] - 1, RANGES.contrast[1] - 1),
            prob=RANGES.probability,
        ),
        RandShiftIntensityd("image", RANGES.brightness, prob=RANGES.probability),
    ]
    return Compose([*certain, *(drawn if changed else [])])


def loader(dataset: Any, batch: int, workers: int) -> Any:
    return DataLoader(
        dataset, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def as_batches(source: Any) -> Iterator[Batch]:
    """MONAI's batches as a plain loop takes them."""
    for given in source:
        image = given["image"].as_tensor()
        n = len(image)
        empty = torch.zeros(n, 1, SIZE, SIZE)
        yield Batch(image, Targets(empty, torch.zeros(n, dtype=torch.bool), given["label"]))


def gone_through(source: Iterable[object]) -> None:
    for _ in source:
        pass


def pictures(paths: Sequence[Path], data: PreparedSet) -> list[book.Parity]:
    """MONAI's pictures and ours, nothing changed at random; ours are kept as 8 bits."""
    read = chain(changed=False)
    mine = [data.network_input(i).ravel() for i in range(len(data))]
    apart = 0.0
    for path in paths[:16]:
        theirs = np.asarray(read({"image": str(path)})["image"]).ravel()
        apart = max(apart, min(float(np.abs(one - theirs).max()) for one in mine))
    return [book.Parity("pictures as they are, of 0..1", apart, 0.51 / 255)]


def bench(found: book.Book) -> None:
    warnings.filterwarnings("ignore", module="monai")
    workers = found.given.workers
    batch, steps = (4, 2) if found.quick else (16, STEPS)
    n = batch * steps
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        paths = write_pictures(place / "pictures", n, SOURCE)
        ingest = book.timed(lambda: do("ingest", place / "pictures", "-o", place / "cohort"))
        samples = samples_of(load_cohort(place / "cohort"), "frame")
        settings = Preprocess(size=SIZE, bilateral=False)
        began = time.perf_counter()
        data = prepare(samples, settings, place / "cache", workers, Silent())
        preparing = time.perf_counter() - began
        same = pictures(paths, data)
        it = Bench(data, batch, found.threads, place)
        stepped = step(found, it)
        rows = [{"image": str(p), "label": i % 2} for i, p in enumerate(paths)]
        monai = {
            "MONAI Dataset": loader(Dataset(rows, chain(changed=True)), batch, workers),
            "MONAI CacheDataset": loader(
                CacheDataset(rows, chain(changed=True), num_workers=workers, progress=False),
                batch,
                workers,
            ),
        }
        own = it.plan(RANGES, workers)
        per_image = 1000 / n
        made = found.compare(
            f"Pictures of an epoch, decoded and changed, {workers} workers",
            "ms per image",
            {"renalkit": lambda: gone_through(batches(data, it.train, own, 0))}
            | {k: lambda source=s: gone_through(as_batches(source)) for k, s in monai.items()},
            peer="MONAI Dataset",
            parity=same,
            scale=per_image,
        )

        def plain(source: Any, last: bool = False) -> book.Took:
            return it.plain(as_batches(source), last=last)[0]

        cached = monai["MONAI CacheDataset"]
        whole = found.compare(
            f"Training from files, B0, {SIZE} px, {workers} workers",
            "ms per image",
            {
                "renalkit": lambda: it.ours(RANGES, workers),
                "our pictures, plain loop": lambda: it.plain(
                    batches(data, it.train, own, 0), last=False
                )[0],
                **{f"{k}, plain loop": lambda s=s: plain(s) for k, s in monai.items()},
                "MONAI CacheDataset, channels_last": lambda: plain(cached, True),
            },
            peer="MONAI Dataset, plain loop",
            parity=[book.Parity(**one) for one in (*stepped["parity"], *made["parity"])],
            scale=per_image,
        )
        for row in whole["rows"]:
            row["images/s"] = 1000 / row["wall_s"]["median"]
    found.fact(
        "factors, times the plain way",
        {
            "step": stepped["rows"][0]["times_peer"],
            "pictures": made["rows"][0]["times_peer"],
            "both, an epoch": whole["rows"][0]["times_peer"],
        },
    )
    found.fact(
        "once, ms per image",
        {"ingest of the files": ingest.wall_s * per_image, "preparing": preparing * per_image},
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2, help="of the loaders, ours and theirs")


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench, threads=0, repeats=5, options=options))
