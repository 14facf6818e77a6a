"""Pictures and models for benchmarks, made by the commands a user calls."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

CARD = '[card]\nintended_use = "Benchmarks."\nlimitations = "Simulated."\nlicence = "CC0-1.0"\n'


def renalkit(*words: object) -> list[str]:
    """A command of renalkit as a program."""
    return [sys.executable, "-m", "renalkit", *map(str, words)]


def do(*words: object) -> None:
    """Call a command of renalkit. Raises RuntimeError where it fails."""
    done = subprocess.run(renalkit(*words), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"renalkit {' '.join(map(str, words))}:\n{done.stderr}")


def said(words: Sequence[str]) -> str:
    """What a program prints. Raises CalledProcessError where it fails."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def picture(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Speckle with a bright disc, and the disc as a mask; (size, size) uint8 each."""
    small = rng.rayleigh(60, (size // 2, size // 2)).astype(np.float32)
    grey = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    mask = np.zeros((size, size), np.uint8)
    centre = rng.integers(size // 3, 2 * size // 3, 2).tolist()
    cv2.circle(mask, centre, int(rng.integers(size // 8, size // 5)), 255, -1)
    return np.clip(grey + 0.25 * mask, 0, 255).astype(np.uint8), mask


def write_pictures(folder: Path, count: int, size: int) -> list[Path]:
    """A folder that `renalkit ingest` takes: PNG pictures, masks, labels; a patient each."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "label"])
        for i in range(count):
            pixels, mask = picture(size, rng)
            paths.append(folder / "images" / f"{i:06d}.png")
            cv2.imwrite(str(paths[-1]), pixels)
            cv2.imwrite(str(folder / "masks" / paths[-1].name), mask)
            table.writerow([paths[-1].name, f"P{i:06d}", ("benign", "malignant")[i % 2]])
    return paths


def package(
    cohort: Path, place: Path, system: str, before: Sequence[str], own: Sequence[str]
) -> Path:
    """A model package of the first fold of a system, trained on a cohort; its run is
    PLACE/runs/made.

    before: sections of the experiment as lines of TOML. own: settings of the system.
    """
    study = place / "study.toml"
    lines = ['name = "made"', f'cohort = "{cohort}"', "[split]", 'plan = "kfold"', "folds = 2"]
    lines += ["[statistics]", "bootstrap = 200", *before, "[[systems]]", f'name = "{system}"', *own]
    study.write_text("\n".join(lines) + "\n")
    do("run", study, "-o", place / "runs")
    run = place / "runs" / "made"
    (run / "reporting.toml").write_text(CARD)
    do("export", run / system / "fold-0", "-o", place / "models", "--version", "1")
    return place / "models" / system / "1"
