"""Where may a network's first weights come from, other than chance?"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from renalkit.systems._contract import Params


class ImageNetStart(Params):
    """ImageNet weights in a local file whose digest is known; width 1.0 only."""

    init_weights: Path | None = Field(
        default=None, description="local .safetensors, .pth or .pt file; nothing is downloaded"
    )
    init_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="checked before the file is opened"
    )
    width: float = Field(
        default=1.0, ge=0.125, le=2, description="multiplier of the channels of every layer"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.init_weights is None) != (self.init_sha256 is None):
            raise ValueError("init_weights and init_sha256 are given together or not at all")
        if self.init_weights is not None and self.width != 1.0:
            raise ValueError("init_weights fit width 1.0 only")
        return self
