"""What do the contrast cines of a file or folder show? One folder of results per cine.

    <output>/<cine>/
      analysis.json   settings, panes, motion, phases, figures, warnings
      frames.csv      a line per frame: phase, chosen or not and why, motion, quality
      curves.csv figures.csv maps.csv maps.npz maps/*.png
      page.svg page.png panels.png
      dicom/          Segmentation, report and page as DICOM, when asked for

Results are named after the user's own files and stay with the user. Run again with the same words,
finished cines are kept.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from renalkit import RESEARCH_ONLY, __version__
from renalkit.ceus.layouts import Layout, Presets
from renalkit.ceus.panels import (
    Answer,
    OnePanel,
    Side,
    TwoPanels,
    Unclear,
    find_panels,
    preview,
)
from renalkit.domain.study import Roi
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.contract import FileReport, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.pictures import file_sha256
from renalkit.readers.walk import walk_files
from renalkit.store.files import (
    locked,
    make_folder,
    read_json,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from renalkit.usecases.ceus_clip import CeusClip, analyse_clip
from renalkit.usecases.ceus_dicom import dicom_results
from renalkit.usecases.ceus_input import (
    Cine,
    looking_at,
    mask_roi,
    read_annotations,
    read_cine,
    regions_of,
)
from renalkit.usecases.ceus_page import ceus_page
from renalkit.usecases.ceus_record import analysis_json, frames_csv, panels_json
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.progress import Progress
from renalkit.writers.ceus_figures import map_png, page_png, page_svg
from renalkit.writers.ceus_tables import curves_csv, figures_csv, maps_csv
from renalkit.writers.figures import standalone

ANALYSIS = "analysis.json"

_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_FEWEST_FRAMES = 2
_TOLD = ("PE", "TTP", "WiAUC", "mTT")


@dataclass(frozen=True, slots=True)
class AnalyseRequest:
    """What the user asked for.

    regions: outlines as for `ingest --annotations`, in either pane. masks: mask file by name of
    the region, all of frame `frame`. presets: layouts of consoles. dicom: write DICOM results.
    """

    source: Path
    output: Path
    settings: CeusSettings
    regions: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict[str, Path])
    frame: int | None = None
    presets: Path | None = None
    keep_pixels: bool = False
    dicom: bool = False

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.masks and self.frame is None:
            problems.append("--mask needs --frame, the number of the outlined frame from 0")
        if self.masks and self.source.is_dir():
            problems.append("--mask: for one file, not for a folder; use --regions")
        if self.source.is_dir() and self.output.resolve().is_relative_to(self.source.resolve()):
            problems.append("-o: inside the folder that is read; choose one beside it")
        if problems:
            raise ConfigError(problems)


def run_analyse(request: AnalyseRequest, progress: Progress) -> dict[str, Any]:
    """Analyse every cine; one that is refused never stops the others.

    Returns:
        Plain values: analysed cines with their folder, refused files with reasons.

    Raises:
        InputRefused: nothing to read, or unusable regions. ConfigError: unusable presets.
    """
    root = request.source if request.source.is_dir() else request.source.parent
    offered: list[Path | FileReport] = (
        [request.source] if request.source.is_file() else list(walk_files(request.source))
    )
    if not offered:
        raise InputRefused(
            Reason.EMPTY, "no file", where=request.source.name, expected="DICOM cines or videos"
        )
    presets = None if request.presets is None else Presets.load(request.presets)
    annotations = read_annotations(request.regions)
    given = _given(request)
    analysed: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    with locked(request.output), DecodeWorker(ReadOptions().limits) as worker:
        for item in offered:
            path = item.path if isinstance(item, FileReport) else item
            name = path.relative_to(root).as_posix()
            if isinstance(item, FileReport):
                refused.append(_refusal(name, item.reasons[0].reason, item.reasons[0].words))
                continue
            try:
                folder = request.output / _NAME.sub("_", name)
                fingerprint = _fingerprint(path, given)
                done = _finished(folder, fingerprint)
                if done is None:
                    keep = request.keep_pixels
                    cine = read_cine(path, name, worker, keep_pixels=keep, folder=request.output)
                    _check_cine(cine)
                    regions = regions_of(cine, annotations, alone=len(offered) == 1)
                    for region, mask in request.masks.items():
                        regions[region] = [mask_roi(mask, request.frame or 0, cine, worker)]
                    result = _analyse(cine, regions, request, presets, folder, progress)
                    # Written last: a folder with it is finished.
                    write_json(folder / ANALYSIS, result | {"fingerprint": fingerprint})
                    done = read_json(folder / ANALYSIS)
                analysed.append({"file": name, "folder": folder.name, "analysis": done})
            except InputRefused as error:
                refused.append(_refusal(name, error.reason, str(error)))
    if not analysed and len(offered) == 1:
        raise InputRefused(Reason(refused[0]["reason"]), refused[0]["words"])
    summary = {"use": RESEARCH_ONLY, "analysed": analysed, "refused": refused}
    write_json(request.output / "summary.json", summary)
    return summary


def _check_cine(cine: Cine) -> None:
    if cine.clip.n_frames < _FEWEST_FRAMES:
        raise InputRefused(
            Reason.LAYOUT_UNKNOWN,
            "a still image",
            where=cine.name,
            expected="a cine",
            remedy="a still has no curve; 'renalkit ceus panels' shows its panes",
        )


def _refusal(name: str, reason: Reason, words: str) -> dict[str, str]:
    return {"file": name, "reason": reason.value, "words": words}


# ---- results -------------------------------------------------------------------------------


def _given(request: AnalyseRequest) -> list[str]:
    """Everything but the cine that a result depends on; the same for all cines of a request."""
    parts = [__version__, request.settings.model_dump_json(), *request.masks]
    parts += [str(request.frame), str(request.keep_pixels), str(request.dicom)]
    files: list[Path] = [*request.masks.values()]
    for place in (request.regions, request.presets):
        if place is not None:
            files += sorted(place.iterdir()) if place.is_dir() else [place]
    return parts + [sha256_file(p) for p in files if p.is_file()]


def _fingerprint(path: Path, given: Sequence[str]) -> str:
    return hashlib.sha256("\0".join((file_sha256(path), *given)).encode()).hexdigest()


def _finished(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The analysis of an earlier run with the same words and files; None when there is none."""
    place = folder / ANALYSIS
    stored = read_json(place) if place.is_file() else {}
    return stored if stored.get("fingerprint") == fingerprint else None


def _analyse(
    cine: Cine,
    regions: Mapping[str, Sequence[Roi]],
    request: AnalyseRequest,
    presets: Presets | None,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    if request.dicom and not cine.is_dicom:
        raise InputRefused(
            Reason.NOT_DICOM,
            "no DICOM file, so there is no patient for DICOM results",
            where=cine.name,
            remedy="leave --dicom out",
        )
    with looking_at(cine):
        found = analyse_clip(
            cine.clip,
            regions,
            request.settings,
            scanner=cine.scanner,
            presets=presets,
            progress=progress,
        )
    defects = cine.check()
    progress.stage("writing results")
    make_folder(folder)
    page: bytes | None = None
    for name, data in _files(cine, found, request.settings):
        make_folder((folder / name).parent)
        write_bytes(folder / name, data)
        page = data if name == "page.png" else page
    if request.dicom:
        picture = None if page is None else _picture(page)
        dicom_results(
            cine.path, cine.clip, found, picture, folder / "dicom", request.settings.carry
        )
    result = analysis_json(cine.clip, found, request.settings)
    result["clip"] |= {"kind": cine.clip.source.kind, "timing": cine.timing}
    said = [d.words for d in defects]
    if cine.timing == "pts" and not (found.clock.agrees or found.clock.times_wrong):
        said.append("frame times are those a player would use, and no clock in the picture says so")
    result["warnings"] = [*said, *result["warnings"]]
    return result | {"use": RESEARCH_ONLY}


def _files(cine: Cine, found: CeusClip, settings: CeusSettings) -> Iterator[tuple[str, bytes]]:
    reference = found.track.reference
    screen = np.asarray(cine.clip.pixels[reference])
    yield "panels.png", _png(preview(screen.astype(np.uint8), found.panels))
    yield "frames.csv", frames_csv(cine.clip, found).encode()
    if found.curves is not None and found.perfusion is not None:
        # Curves count like the figures: from the injection where it is known.
        yield "curves.csv", curves_csv(found.curves, found.perfusion).encode()
        yield "figures.csv", figures_csv(found.perfusion).encode()
        page = ceus_page(cine.clip, found, settings, Path(cine.name).with_suffix("").as_posix())
        yield "page.svg", standalone(page_svg(page)).encode()
        yield "page.png", page_png(page)
    if found.maps is not None:
        yield "maps.csv", maps_csv(found.map_summaries).encode()
        out = io.BytesIO()
        box = found.maps.box
        arrays: dict[str, Any] = {**found.maps.values, "quality": found.maps.quality}
        arrays["box"] = np.array([box.x, box.y, box.width, box.height])
        arrays["cell_px"] = np.array(found.maps.cell)
        np.savez_compressed(out, **arrays)
        yield "maps.npz", out.getvalue()
        for name in found.maps.values:
            yield f"maps/{name}.png", map_png(found.maps, name, found.masks)


def _png(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok
    return data.tobytes()


def _picture(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H,W,3) RGB of a PNG."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)


def analyse_words(summary: Mapping[str, Any]) -> str:
    """The results for a terminal."""
    lines = [RESEARCH_ONLY]
    for item in summary["analysed"]:
        found = item["analysis"]
        chosen = len(found["chosen"]["frames"])
        lines.append(f"{item['file']}: {found['clip']['frames']} frames, {chosen} chosen")
        lines.append(
            f"  panes by {found['panels']['by']}, {found['motion']['kept_share']:.0%} of frames "
            "in plane"
        )
        for name, fit in ((found["perfusion"] or {}).get("regions") or {}).items():
            lines.append(f"  {name}: {_fit_words(fit)}")
        lines += [f"  {words}" for words in found["warnings"]]
    lines += [f"refused {r['file']}: {r['words']}" for r in summary["refused"]]
    return "\n".join(lines)


def _fit_words(fit: Mapping[str, Any]) -> str:
    if "refused" in fit:
        return f"no figures: {fit['refused']}"
    told: list[str] = []
    for name in (n + ending for n in _TOLD for ending in ("", "_display")):
        if name not in fit["figures"]:
            continue
        figure = fit["figures"][name]
        if figure["value"] is None:
            told.append(f"{name} not known")
            continue
        text = f"{name} {figure['value']:.4g} {figure['unit']}"
        if figure["low"] is not None:
            text += f" ({figure['low']:.4g} to {figure['high']:.4g})"
        told.append(text)
    return ", ".join(told)


# ---- panes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PanelsRequest:
    """preview: PNG to write. contrast: side where it is known. save: preset file to write."""

    source: Path
    preview: Path | None = None
    presets: Path | None = None
    contrast: str | None = None
    save: Path | None = None
    keep_pixels: bool = False


def run_panels(request: PanelsRequest) -> dict[str, Any]:
    """Where the panes of one file are, as plain values: answer two-panels, one-panel or unclear.

    Raises:
        InputRefused: the file cannot be read. ConfigError: unusable presets or side; a preset is
        asked for and there are no two panes or the machine is not known.
    """
    side = None
    if request.contrast is not None:
        if request.contrast not in [str(s) for s in Side]:
            sides = ", ".join(Side)
            raise ConfigError([f"--contrast: '{request.contrast}' is not one of {sides}"])
        side = Side(request.contrast)
    presets = None if request.presets is None else Presets.load(request.presets)
    with DecodeWorker(ReadOptions().limits) as worker:
        cine = read_cine(
            request.source, request.source.name, worker, keep_pixels=request.keep_pixels
        )
        answer = find_panels(cine.clip, presets, cine.scanner, side)
        middle = np.asarray(cine.clip.pixels[cine.clip.n_frames // 2]).astype(np.uint8)
        cine.check()
    if request.preview is not None:
        write_bytes(request.preview, _png(preview(middle, answer)))
    match answer:
        case TwoPanels():
            found: dict[str, Any] = {"answer": "two-panels", **panels_json(answer)}
        case OnePanel():
            box = answer.box
            found = {"answer": "one-panel", "evidence": list(answer.evidence)}
            found["box"] = [box.x, box.y, box.width, box.height]
        case Unclear():
            found = {"answer": "unclear", "evidence": list(answer.reasons)}
    if request.save is not None:
        write_text(request.save, Presets((_layout(cine, answer),)).text)
    return {"file": cine.name, "rows": cine.clip.rows, "cols": cine.clip.cols, **found}


def _layout(cine: Cine, answer: Answer) -> Layout:
    scanner = cine.scanner
    if not isinstance(answer, TwoPanels):
        raise ConfigError(["--save-preset: no two panes were found"])
    if scanner is None or scanner.manufacturer is None or scanner.model is None:
        raise ConfigError(["--save-preset: the file does not name manufacturer and model"])
    return Layout(
        name=f"{scanner.model} {cine.clip.cols} x {cine.clip.rows}",
        vendor=scanner.manufacturer,
        model=scanner.model,
        rows=cine.clip.rows,
        cols=cine.clip.cols,
        bmode=answer.bmode.box,
        contrast=answer.contrast.box,
    )


def panels_words(found: Mapping[str, Any]) -> str:
    """The panes for a terminal."""
    lines = [f"{found['file']}: {found['answer'].replace('-', ' ')}"]
    if found["answer"] == "two-panels":
        for name in ("bmode", "contrast"):
            x, y, width, height = found[name]["box"]
            lines.append(f"  {name}: {width} x {height} at {x}, {y}")
        lines.append(f"  by {found['by']}, confidence {found['confidence']:.2f}")
    lines += [f"  {words}" for words in found["evidence"]]
    return "\n".join(lines)


def masks_of(given: Sequence[str]) -> dict[str, Path]:
    """NAME=FILE options; ConfigError lists what is no such pair."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    for text in given:
        name, separator, path = text.partition("=")
        if not separator or not name.strip() or not Path(path).is_file():
            problems.append(f"--mask '{text}': expected NAME=FILE with a file that exists")
        elif name in found:
            problems.append(f"--mask: region '{name}' is given twice")
        found[name.strip()] = Path(path)
    if problems:
        raise ConfigError(problems)
    return found
