"""What this installation is and whether it works: `renalkit info` and `renalkit doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from renalkit import RESEARCH_ONLY
from renalkit.errors import EXTRA_OF, MissingExtra, RenalkitError
from renalkit.readers.codecs import available_codecs
from renalkit.store.files import write_text
from renalkit.store.runs import machine_facts, package_versions
from renalkit.systems import SYSTEMS
from renalkit.systems._cascade import CASCADES
from renalkit.systems._contract import Params
from renalkit.writers.pdf import page_pdf


def describe() -> dict[str, Any]:
    """Versions, machine, systems with their cards, codecs. Loads no torch."""
    return {
        "renalkit": package_versions(),
        "machine": machine_facts(),
        "use": RESEARCH_ONLY,
        "systems": [
            {
                "name": s.name,
                "tasks": sorted(t.value for t in s.tasks),
                "card": asdict(s.card),
                "parameters": s.params_type.model_json_schema()["properties"],
            }
            for s in SYSTEMS
        ],
        "cascades": [
            {
                "name": c.name,
                "takes": "CT scans",
                "card": asdict(c.card),
                "parameters": _settings(c.params_type, tuple(c.stages)),
                "stages": {name: _settings(stage) for name, stage in c.stages.items()},
            }
            for c in CASCADES
        ],
        "codecs": [asdict(c) for c in available_codecs()],
    }


def _settings(params: type[Params], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of settings as JSON schema has them; stages are told apart."""
    found: dict[str, Any] = params.model_json_schema()["properties"]
    return {name: value for name, value in found.items() if name not in without}


def describe_words(found: dict[str, Any]) -> str:
    """The description for a person."""
    lines = [f"renalkit {found['renalkit'].get('renalkit', '')}. {found['use']}", ""]
    lines += [f"{name:26}{v}" for name, v in found["renalkit"].items()]
    lines += ["", "Systems"]
    for item in found["systems"]:
        lines.append(f"  {item['name']:16}{item['card']['title']}  [{', '.join(item['tasks'])}]")
    for item in found["cascades"]:
        stages = ", ".join(item["stages"])
        lines.append(f"  {item['name']:16}{item['card']['title']}  [CT scans: {stages}]")
    lines += ["", "Codecs"]
    for codec in found["codecs"]:
        state = "yes" if codec["available"] else f"no, install {codec['package']}"
        lines.append(f"  {codec['name']:28}{state}")
    return "\n".join(lines)


def _check(name: str, ok: bool, words: str, remedy: str = "") -> dict[str, Any]:
    return {"check": name, "ok": ok, "words": words, "remedy": "" if ok else remedy}


_OPTIONAL = ("video", "pdf")


def diagnose() -> dict[str, Any]:
    """Run every check of the installation; `ok` is False when a needed part is missing."""
    checks = [_codecs(), _study(), _torch(), _video(), _pdf(), _disk(), _worker()]
    return {"ok": all(c["ok"] for c in checks if c["check"] not in _OPTIONAL), "checks": checks}


def _codecs() -> dict[str, Any]:
    lacking = [c.name for c in available_codecs() if not c.available]
    words = "all transfer syntaxes can be read" if not lacking else f"lacking: {', '.join(lacking)}"
    return _check("codecs", not lacking, words, "pip install --upgrade renalkit")


def _study() -> dict[str, Any]:
    needed = [name for name, extra in EXTRA_OF.items() if extra == "study"]
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    words = f"cohorts cannot be stored, lacking: {', '.join(lacking)}"
    remedy = "pip install 'renalkit[study]'"
    return _check("study", not lacking, words if lacking else "cohorts can be stored", remedy)


def _torch() -> dict[str, Any]:
    """Asked in a child process: importing torch takes seconds and stays in memory."""
    code = (
        "import torch; print(torch.__version__, torch.get_num_threads(),"
        " torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    )
    if importlib.util.find_spec("torch") is None:
        return _check("torch", False, "not installed", "pip install 'renalkit[train]'")
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return _check("torch", False, "did not start within 2 minutes", "try on an idle computer")
    if done.returncode:
        return _check("torch", False, "cannot be imported", "reinstall the extra 'train'")
    version, threads, gpus = done.stdout.split()
    return _check("torch", True, f"{version}, {threads} threads, {gpus} GPUs")


def _video() -> dict[str, Any]:
    ok = importlib.util.find_spec("av") is not None
    words = "MP4 and AVI can be read" if ok else "MP4 and AVI cannot be read"
    return _check("video", ok, words, "pip install 'renalkit[video]'")


def _pdf() -> dict[str, Any]:
    try:
        page_pdf("<p>probe</p>")
    except MissingExtra as error:
        return _check("pdf", False, f"reports cannot become PDF: {error.found}", error.remedy)
    return _check("pdf", True, "reports can become PDF")


def _disk() -> dict[str, Any]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 2**30
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".renalkit-doctor-") as name:
            write_text(Path(name) / "probe", "x")
    except (OSError, RenalkitError) as error:
        return _check("disk", False, f"this folder cannot be written ({error})", "change folder")
    return _check("disk", free_gb > 1, f"{free_gb:.0f} GB free here", "free at least 1 GB")


def _worker() -> dict[str, Any]:
    """Whether pixels can be decoded in a child process here."""
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", "import renalkit.readers.decode_child"],
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return _check("decoder", False, "did not start within 1 minute", "try on an idle computer")
    ok = done.returncode == 0
    return _check(
        "decoder", ok, "child process starts" if ok else "child process fails", "reinstall"
    )


def diagnose_words(found: dict[str, Any]) -> str:
    """The checks for a person."""
    lines: list[str] = []
    for c in found["checks"]:
        mark = "ok  " if c["ok"] else "FAIL"
        lines.append(
            f"{mark} {c['check']:10}{c['words']}" + (f"; {c['remedy']}" if c["remedy"] else "")
        )
    return "\n".join(lines)
