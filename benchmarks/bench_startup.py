"""How long until a command answers, and until a study has its first result?

    python benchmarks/bench_startup.py [--quick]

Every side is a program from its start to its end, files in the memory of the system. `renalkit
--help` stands beside a bare Python and the helps of pydicom and torchrun; `renalkit predict` of one
picture, from a model package (OpenVINO) and from the run (PyTorch), beside a script that only reads
the picture, resizes it, computes the package's network in ONNX Runtime and prints scores: no hashes,
golden pair, checks of the picture or record of the result. Parity: help names the commands; the
scores.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import book
from drawn import do, package, renalkit, said, write_pictures

SYSTEM, SIZE, SCORES_APART = "resnet18", 128, 1e-4
COMMANDS = ("ingest", "run", "predict", "report")

SCRIPT = f"""
import sys
import cv2
import numpy as np
import onnxruntime
pixels = cv2.imread(sys.argv[2], cv2.IMREAD_GRAYSCALE)
small = cv2.resize(pixels, ({SIZE}, {SIZE}), interpolation=cv2.INTER_AREA)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = (small.astype(np.float32) / 255)[None, None]
(logits,) = session.run(["class_logits"], {{"image": image}})[0]
powers = np.exp(logits - logits.max())
print((powers / powers.sum()).tolist())
"""


def peak_mib(words: list[str]) -> float:
    """Of the largest process of a program. Asked in a process of its own that holds little: a new
    process counts what its parent held (getrusage(2))."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, "
        "stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
    )
    return float(said([sys.executable, "-S", "-c", code, *words]))


def compare(
    found: book.Book, title: str, sides: dict[str, list[str]], peer: str, parity: list[book.Parity]
) -> None:
    table = found.compare(
        title,
        "s",
        {name: lambda words=words: book.command(words) for name, words in sides.items()},
        peer=peer,
        parity=parity,
    )
    for row in table["rows"]:
        row["memory_mib"] = peak_mib(sides[row["side"]])


def scores_of(predictions: dict[str, Any]) -> list[float]:
    (frame,) = predictions["frames"]
    return list(frame["scores"].values())


def bench(found: book.Book) -> None:
    text = said(renalkit("--help"))
    missing = sum(name not in text for name in COMMANDS)
    compare(
        found,
        "Help",
        {
            "renalkit --help": renalkit("--help"),
            "python -c pass": [sys.executable, "-c", "pass"],
            "pydicom --help": [str(Path(sys.executable).with_name("pydicom")), "--help"],
            "torchrun --help": [sys.executable, "-m", "torch.distributed.run", "--help"],
        },
        "pydicom --help",
        [book.Parity("commands that help does not name", missing, 0)],
    )
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        paths = write_pictures(place / "pictures", 24, 2 * SIZE)
        do("ingest", place / "pictures", "-o", place / "cohort")
        train = ["[input]", f"size = {SIZE}", "bilateral = false", "[train]", "epochs = 1"]
        own = ['task = "classification"', "params = { width = 0.25 }"]
        model = package(place / "cohort", place, SYSTEM, train, own)
        fold = place / "runs" / "made" / SYSTEM / "fold-0"
        (graph,) = model.rglob("*.onnx")
        picture = str(paths[0])
        words = {
            "renalkit predict PACKAGE": ["predict", model, picture, "-o", place / "a"],
            "renalkit predict RUN (PyTorch)": ["predict", fold, picture, "-o", place / "b"],
        }
        sides = {name: renalkit(*given, "--one-patient") for name, given in words.items()}
        sides["ONNX Runtime script"] = [sys.executable, "-c", SCRIPT, str(graph), picture]
        plain = json.loads(said(sides["ONNX Runtime script"]))
        parity: list[book.Parity] = []
        for name in words:
            mine = scores_of(json.loads(said([*sides[name], "--json"])))
            apart = max(abs(a - b) for a, b in zip(mine, plain, strict=True))
            parity.append(book.Parity(f"scores, {name}", apart, SCORES_APART))
        compare(found, "First result", sides, "ONNX Runtime script", parity)


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench, threads=0, repeats=11))
