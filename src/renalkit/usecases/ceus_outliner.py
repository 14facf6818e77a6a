"""How does a trained segmentation system outline the lesion instead of a person?

Then nothing of the truth reaches the samples: with outlines of people a test is one of lesions that
somebody found first (L14).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError
from renalkit.usecases.predict import Model, load_model, predict_frame
from renalkit.usecases.train import MASK_THRESHOLD


@dataclass(frozen=True, slots=True)
class SystemOutliner:
    """Outlines the lesion on B-mode pictures: the largest region of the mean of a model's folds."""

    model: Model = field(repr=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """Hashes of the weights."""
        return self.model.weights_sha256

    def __call__(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_] | None:
        """(H,W) of a picture (H,W[,3]); None where it sees no lesion.

        Raises:
            ConfigError: the system gives no masks. InputRefused: an unusable picture.
        """
        found = predict_frame(self.model, pixels, "B-mode pane").mask
        if found is None:
            raise ConfigError(["--roi-model: this system outlines nothing; name one that does"])
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (found >= MASK_THRESHOLD).astype(np.uint8)
        )
        if count < 2:
            return None
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        return np.asarray(labels == largest)


def system_outliner(path: Path) -> SystemOutliner:
    """The outliner of RUN/SYSTEM or of one fold folder; ModelRefused as `load_model`."""
    return SystemOutliner(load_model(path))
