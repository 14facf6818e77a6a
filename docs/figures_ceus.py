"""Pictures of an analysed contrast study for the documentation, of a simulated patient.

    python docs/figures_ceus.py [--out docs/images]

ceus-panels.png: where the panes were found. ceus-page.png: the page of the study. ceus-maps.png:
peak enhancement and time to peak. The cine and its outlines come from the phantom, everything else
from `renalkit ceus analyse`.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image

from renalkit.domain.geometry import MaskRLE
from renalkit.usecases.ceus import AnalyseRequest, run_analyse
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.phantom_plans import People, ceus_plan
from renalkit.usecases.phantom_studies import record_of, write_patient
from renalkit.usecases.progress import Silent

PATIENT, SEED = 0, 1
OUTLINED_S = 30.0
MAPS = ("PE", "TTP")


def analysed(folder: Path) -> Path:
    """Simulate, outline and analyse one study; the folder of its results."""
    people = People(PATIENT + 1, seed=SEED)
    clip, screen = (120.0, 5.0, 0.0), (600, 800, "b-left")
    plan = ceus_plan(people, clip=clip, screen=screen, pairs=None, uncompressed=False)
    write_patient(plan, PATIENT, folder)
    record = record_of(folder, PATIENT)
    frame, masks = outlines(record.parent / "frames.csv", folder)
    shown_db = json.loads(record.read_text())["ceus"]["plan"]["screen"]["dynamic_range_db"][1]
    settings = CeusSettings(dynamic_range_db=shown_db)
    cine = folder / "dicom" / record.parent.name / "ceus.dcm"
    request = AnalyseRequest(cine, folder / "out", settings, masks=masks, frame=frame)
    run_analyse(request, Silent())
    return folder / "out" / cine.name


def outlines(frames: Path, folder: Path) -> tuple[int, dict[str, Path]]:
    """Mass and cortex on one frame that shows the section, as mask files."""
    csv.field_size_limit(2**24)
    with frames.open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = [i for i, row in enumerate(rows) if float(row["out_of_plane"]) < 0.05]
    frame = min(seen, key=lambda i: abs(float(rows[i]["clock_s"]) - OUTLINED_S))
    masks: dict[str, Path] = {}
    for name in ("lesion", "cortex"):
        masks[name] = folder / f"{name}.png"
        mask = MaskRLE.parse(rows[frame][f"{name}_mask"]).decode()
        cv2.imwrite(str(masks[name]), 255 * mask.astype(np.uint8))
    return frame, masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        results = analysed(Path(place))
        page = Image.open(results / "page.png").convert("RGB")
        # Fewer colours halve the size; dithered, scales stay even.
        page.quantize(255, dither=Image.Dither.FLOYDSTEINBERG).save(out / "ceus-page.png")
        Image.open(results / "panels.png").save(out / "ceus-panels.png", optimize=True)
        maps = [np.asarray(Image.open(results / "maps" / f"{name}.png")) for name in MAPS]
        Image.fromarray(np.hstack(maps)).save(out / "ceus-maps.png", optimize=True)


if __name__ == "__main__":
    main()
