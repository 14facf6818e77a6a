"""How a user makes a phantom cohort to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renalkit.phantom.cohort import write_image_cohort
from renalkit.usecases.progress import Progress


def make_phantom(
    folder: Path, *, patients: int, size: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Write images, masks and labels.csv of a simulated cohort; InputRefused when occupied.

    A folder that already holds the very same cohort is left as it is.
    """
    progress.stage(f"simulate {patients} patients")
    found = write_image_cohort(folder, patients, size=size, seed=seed)
    return {"folder": str(folder), "seed": seed, **found.as_dict()}
