"""How long does a contrast cine of three minutes take from the file to a patient's score?

    python benchmarks/bench_cine.py [--seconds 180] [--quick]

A simulated dual cine of 600 x 800 px at 10 frames/s (1,800 frames), JPEG DICOM, the mass boxed in its
first frame; MUF-Net of two EfficientNet-B3 at 300 px with drawn weights. `renalkit predict` opens
file and model, finds the panes, follows the kidney, fits curves, chooses frames and scores them: a
program from start to end, from a model package (OpenVINO) and, the peer, from the run itself
(PyTorch, eager) with as many threads. Parity: the same frames chosen, the patient's scores. Beside
it, of one call more in one process: the seconds of each stage, and the processor time of the process
that decodes meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import book
from bench_ceus import RATE_HZ, SEED, SMALL
from drawn import do, package, renalkit, said

SYSTEM = "mufnet-2022"
PEER = "run (PyTorch)"
FULL = {"size": 300, "params": 'backbone = "efficientnet-b3", norm_momentum = 0.9'}
TINY = {"size": 64, "params": 'backbone = "efficientnet-b0", width = 0.5, norm_momentum = 0.9'}


def first_boxes(study: Path, target: Path) -> Path:
    """The boxes of the first frame alone, as a reader draws them."""
    with (study / "regions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["frame"] == "0"]
    with target.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "file": Path(row["file"]).name} for row in rows)
    return target


def scores(found: book.Json) -> list[float]:
    (patient,) = found["patients"]
    return list(patient["scores"].values())


def frames(found: book.Json) -> list[int]:
    return [int(row["frame"]) for row in found["frames"]]


class Stages:
    """Seconds of each stage of a call; those of the network are counted apart."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._at = time.perf_counter()
        self.stage("opening the package")

    def stage(self, words: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._end()
        self._name = words

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Nothing to draw."""

    @contextmanager
    def aside(self, name: str) -> Generator[None]:
        """Count what is done within under another name."""
        self._end()
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._end()
            self._name = before

    def _end(self) -> None:
        now = time.perf_counter()
        name = getattr(self, "_name", "")
        if name:
            self.found[name] = self.found.get(name, 0.0) + now - self._at
        self._at = now


def shares(given: book.Json) -> book.Json:
    """One call in this process: seconds of its stages; processor time of the decoding process."""
    import renalkit.usecases.ceus_cohort as cohort
    import renalkit.usecases.predict as predict
    from renalkit.runtime.engines import EngineOptions
    from renalkit.usecases.ceus_settings import ceus_settings
    from renalkit.usecases.package_model import load_package_model
    from renalkit.usecases.predict_input import InputOptions

    clock, plain = Stages(), predict.scored

    def apart(model: Any, samples: Any) -> Iterator[Any]:
        with clock.aside("preparing and scoring frames"):
            found = list(plain(model, samples))
        yield from found

    predict.scored = apart
    cohort.analyse_clip = partial(cohort.analyse_clip, progress=clock)
    model = load_package_model(Path(given["package"]), EngineOptions())
    options = InputOptions(
        ceus_settings(None, []), regions=Path(given["regions"]), one_patient=True
    )
    predict.run_predict(model, Path(given["cine"]), Path(given["output"]), options, clock)
    clock.stage("")
    decoding = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock.found | {"decoding, processor time beside": decoding.ru_utime + decoding.ru_stime}


def bench(found: book.Book) -> None:
    kind, more = (TINY, SMALL) if found.quick else (FULL, ())
    seconds = 20 if found.quick else found.given.seconds
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        do("phantom", "ceus", "--pairs", 1, "-n", 12, "--seed", SEED, "-o", place / "pairs")
        do("ingest", place / "pairs", "-o", place / "cohort")
        train = ["[input]", f"size = {kind['size']}", "bilateral = false", "[train]", "epochs = 1"]
        own = [f"params = {{ {kind['params']} }}"]
        model = package(place / "cohort", place, SYSTEM, [*train, "batch_size = 4"], own)
        cine = place / "cine"
        long = ["--seconds", seconds, "--fps", RATE_HZ, "--seed", SEED]
        do("phantom", "ceus", "-n", 1, *long, *more, "-o", cine)
        (file,) = (cine / "dicom").rglob("*.dcm")
        regions = first_boxes(cine, place / "regions.csv")
        fold = place / "runs" / "made" / SYSTEM / "fold-0"
        calls = {
            side: renalkit(
                "predict", given, file, "--regions", regions, "--one-patient",
                "-o", place / side.replace(" ", "-"),
            )
            for side, given in {"package (OpenVINO)": model, PEER: fold}.items()
        }  # fmt: skip
        ours, plain = (json.loads(said([*words, "--json"])) for words in calls.values())
        other = len(set(frames(ours)) ^ set(frames(plain)))
        apart = max(abs(a - b) for a, b in zip(scores(ours), scores(plain), strict=True))
        found.compare(
            f"A cine of {seconds * RATE_HZ:,} frames to a patient's score",
            "s",
            {side: lambda words=words: book.command(words) for side, words in calls.items()},
            peer=PEER,
            parity=[
                book.Parity("frames chosen by one alone", other, 0),
                book.Parity("patient's scores", apart, 1e-4),
            ],
        )
        here = {"package": str(model), "cine": str(file), "regions": str(regions)}
        parts, _ = found.child("shares", here | {"output": str(place / "shares")})
        found.fact("frames scored", len(frames(ours)))
        found.fact("parts of a call from the package, fp32, s", parts)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=int, default=180, help="length of the cine")


if __name__ == "__main__":
    sys.exit(
        book.main(
            __file__,
            __doc__,
            bench,
            threads=0,
            repeats=5,
            children={"shares": shares},
            options=options,
        )
    )
