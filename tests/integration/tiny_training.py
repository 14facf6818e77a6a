"""A training of seconds: tiny network, drawn discs. Runs as a program in the tests that kill it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from renalkit.domain.sample import SampleKey
from renalkit.learn.data import PreparedSet
from renalkit.learn.loop import FoldTask, train_fold
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Guide, Losses, Net, Outputs, Targets
from renalkit.transforms.augment import AugmentRanges
from renalkit.transforms.preprocess import Placement

OPTIONS = TrainOptions(
    epochs=3,
    batch_size=4,
    lr=1e-2,
    patience=50,
    threads=1,
    device="cpu",
    sampling="oversample",
    checkpoint_minutes=0.0,
    seed=7,
)


class Silent:
    def stage(self, words: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1, words: str = "") -> None:
        pass


class TinyNet(Net):
    """Two convolutions with normalisation and dropout (it has buffers and uses the generator)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.drop = nn.Dropout2d(0.2)
        self.mask = nn.Conv2d(6, 1, 1)
        self.label = nn.Linear(6, 2)

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        hint = torch.zeros_like(image)
        if guide is not None:
            hint = guide.mask * guide.share
        found = self.drop(self.stem(torch.cat([image, hint], 1)))
        return Outputs((self.mask(found),), self.label(found.mean((2, 3))))


def tiny_loss(outputs: Outputs, targets: Targets) -> Losses:
    assert outputs.mask_logits is not None
    assert outputs.class_logits is not None
    per_image = nn.functional.binary_cross_entropy_with_logits(
        outputs.mask_logits[-1], targets.mask, reduction="none"
    ).mean((1, 2, 3))
    known = targets.has_mask.float()
    segmentation = (per_image * known).sum() / known.sum().clamp_min(1)
    classification = nn.functional.cross_entropy(
        outputs.class_logits, targets.label, ignore_index=-1
    )
    return Losses(segmentation + classification, segmentation, classification)


def discs(n: int = 26, size: int = 32, seed: int = 0) -> PreparedSet:
    """Bright discs; class 1 is brighter. Every seventh image has an unknown mask."""
    rng = np.random.default_rng(seed)
    images = rng.integers(20, 60, (n, 1, size, size)).astype(np.uint8)
    masks = np.zeros_like(images)
    labels = (rng.random(n) < 0.4).astype(np.int64)
    labels[:4] = [0, 1, 0, 1]
    labels[-4:] = [0, 1, 0, 1]
    y, x = np.mgrid[:size, :size]
    for i in range(n):
        cx, cy = rng.uniform(0.3 * size, 0.7 * size, 2)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (0.2 * size) ** 2
        masks[i, 0] = inside
        images[i, 0][inside] += np.uint8(120 if labels[i] else 60)
    has_mask = np.arange(n) % 7 != 3
    masks[~has_mask] = 0
    return PreparedSet(
        images=images,
        masks=masks,
        has_mask=has_mask,
        labels=labels,
        levels=np.tile(np.array([0.0, 1.0], np.float32), (n, 1, 1)),
        placements=(Placement.fit((size, size), size),) * n,
        keys=tuple(SampleKey(f"p{i}", f"s{i}", "", 0, 0) for i in range(n)),
        present=np.ones((n, 1), bool),
        features=np.zeros((n, 0), np.float32),
    )


def tiny_task(data: PreparedSet | None = None, **changes: object) -> FoldTask:
    """14 training, 6 validation and 6 test images."""
    task = FoldTask(
        build=TinyNet,
        loss=tiny_loss,
        data=discs() if data is None else data,
        train=np.arange(14),
        validation=np.arange(14, 20),
        guide_share=lambda done: max(0.0, 1.0 - 2.0 * done),
        segments=True,
        classifies=True,
        n_classes=2,
    )
    return replace(task, **changes)


def train(folder: Path) -> int:
    """Exit status as the command line gives it."""
    try:
        train_fold(tiny_task(), OPTIONS, AugmentRanges(), folder, Silent())
    except KeyboardInterrupt:
        return 130
    return 0


def serve() -> None:
    """Train in a child process per line of standard input (a folder).

    Prints the child's process id, then its exit status. The libraries are loaded once.
    """
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(train(Path(line.strip())))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def main() -> int:
    torch.set_num_threads(1)
    if sys.argv[1] == "--serve":
        # The optimisers load a good part of torch when the first one is made: before the forks.
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        serve()
        return 0
    return train(Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
