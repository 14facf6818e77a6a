"""How does a trained segmentation system outline the lesion instead of a person?

Then nothing of the truth reaches the samples: with outlines of people a test is one of lesions that
somebody found first (L14).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError
from renalkit.usecases.models import Model, outline_of


@dataclass(frozen=True, slots=True)
class SystemOutliner:
    """Outlines the lesion on B-mode pictures: the largest region of the mean of a model's folds."""

    model: Model = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ConfigError: the system gives no masks, or must be told where the lesion is."""
        if not (self.model.kind.segments and self.model.whole_frames):
            raise ConfigError(
                [f"--roi-model: {self.model.name} outlines nothing; name a system that does"]
            )

    @property
    def identity(self) -> tuple[str, ...]:
        """Hashes of the weights."""
        return tuple(m.weights_sha256 for m in self.model.members)

    def __call__(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_] | None:
        """(H,W) of a picture (H,W[,3]); None where it sees no lesion.

        Raises InputRefused for an unusable picture.
        """
        return outline_of(self.model, pixels, "B-mode pane")
