"""Where everything of a run lies, which parts are finished, and whether anything changed since."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from renalkit.domain.experiment import RunRecord
from renalkit.errors import StoreError
from renalkit.store.files import read_json, sha256_file, write_json, write_text

MANIFEST = "MANIFEST.sha256"
REPORTING = "reporting.toml"
"""What the authors write into a run when it is finished; it is theirs to change."""

_NOT_LISTED = (".lock", MANIFEST, REPORTING)


@dataclass(frozen=True, slots=True)
class FoldFolder:
    """Files of one system in one fold."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def model(self) -> Path:
        """What the clinical model has in place of weights."""
        return self.path / "model.json"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def test(self) -> Path:
        return self.path / "test.parquet"

    @property
    def validation(self) -> Path:
        return self.path / "validation.parquet"

    @property
    def done(self) -> Path:
        return self.path / "done.json"

    def finished(self, digest: str) -> bool:
        """Whether the fold ended under the same settings; StoreError when under others."""
        if not self.done.exists():
            return False
        found = read_json(self.done)
        if found.get("digest") != digest:
            raise StoreError(
                "this fold was finished under other settings, data or folds",
                where=f"{self.path.parent.name}/{self.path.name}",
                expected="the same experiment",
                remedy="give the changed experiment another name, or remove the fold folder",
            )
        return True


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one experiment."""

    path: Path

    @property
    def experiment_toml(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def experiment_json(self) -> Path:
        return self.path / "experiment.json"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def folds(self) -> Path:
        return self.path / "folds.json"

    @property
    def check(self) -> Path:
        return self.path / "check.json"

    @property
    def cohort(self) -> Path:
        return self.path / "cohort.json"

    @property
    def holds_scans(self) -> bool:
        """Whether it is a run with CT scans; no where its settings are missing or damaged."""
        if not self.experiment_json.exists():
            return False
        found = read_json(self.experiment_json)
        settings = found.get("settings") if isinstance(found, dict) else None
        return isinstance(settings, dict) and "cascade" in settings

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def comparisons(self) -> Path:
        return self.path / "comparisons.json"

    @property
    def images(self) -> Path:
        return self.path / "images.json"

    @property
    def characteristics(self) -> Path:
        return self.path / "characteristics.json"

    @property
    def subgroups(self) -> Path:
        return self.path / "subgroups.json"

    @property
    def usefulness(self) -> Path:
        return self.path / "usefulness.json"

    @property
    def lesions(self) -> Path:
        return self.path / "lesions.json"

    @property
    def coefficients(self) -> Path:
        """What the clinical model says about each fact, where there is one."""
        return self.path / "clinical" / "coefficients.json"

    @property
    def outlines(self) -> Path:
        """Outlines of readers, with numbers for files, lesions and patients."""
        return self.path / "outlines.csv"

    @property
    def reader_ceiling(self) -> Path:
        return self.path / "reader_ceiling.json"

    @property
    def readings(self) -> Path:
        """What readers said about the run's patients, under pseudonyms."""
        return self.path / "readings.csv"

    @property
    def readings_plan(self) -> Path:
        return self.path / "readings.json"

    @property
    def readers(self) -> Path:
        return self.path / "readers.json"

    @property
    def reproduction(self) -> Path:
        """Which paper's protocol this is, and where it is not the paper's."""
        return self.path / "reproduction.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.csv"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def reporting(self) -> Path:
        return self.path / REPORTING

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def pdf(self) -> Path:
        return self.path / "report.pdf"

    @property
    def cache(self) -> Path:
        return self.path.parent / ".cache"

    def system(self, label: str) -> Path:
        return self.path / label

    def complexity(self, label: str) -> Path:
        return self.system(label) / "complexity.json"

    def timing(self, label: str) -> Path:
        return self.system(label) / "timing.json"

    def initial(self, label: str) -> Path:
        """Which earlier weights each fold starts from, where it does."""
        return self.system(label) / "initial.json"

    def fold(self, label: str, index: int) -> FoldFolder:
        return FoldFolder(self.system(label) / f"fold-{index}")


def save_record(folder: RunFolder, record: RunRecord) -> None:
    """Write the run's record."""
    plain = asdict(record) | {"versions": dict(record.versions), "machine": dict(record.machine)}
    write_json(folder.record, plain)


def write_manifest(folder: Path) -> None:
    """Hash every file of a finished run, in the form `sha256sum -c` reads."""
    lines = [f"{sha256_file(p)}  {p.relative_to(folder).as_posix()}" for p in _files(folder)]
    write_text(folder / MANIFEST, "\n".join(lines) + "\n")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _NOT_LISTED)


@contextmanager
def amending_manifest(folder: Path) -> Generator[None]:
    """Give the manifest of a finished run the hashes of files written inside, and of no others.

    A file that was changed before, by whomever, keeps the hash it was finished with; a file removed
    inside leaves the manifest.
    """
    if not (folder / MANIFEST).exists():
        yield
        return
    before = {p: _stamp(p) for p in _files(folder)}
    yield
    gone = {p.relative_to(folder).as_posix() for p in before if not p.exists()}
    known = {name: digest for name, digest in _manifest(folder).items() if name not in gone}
    written = [p for p in _files(folder) if before.get(p) != _stamp(p)]
    known |= {p.relative_to(folder).as_posix(): sha256_file(p) for p in written}
    lines = [f"{digest}  {name}" for name, digest in sorted(known.items())]
    write_text(folder / MANIFEST, "\n".join(lines) + "\n")


def _stamp(path: Path) -> tuple[int, int]:
    """What a replaced file does not keep."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _manifest(folder: Path) -> dict[str, str]:
    """Digest of each file by name."""
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


@dataclass(frozen=True, slots=True)
class ManifestCheck:
    """Files of a run beside its manifest, by name. extra: files the manifest does not list."""

    n_files: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def check_manifest(folder: Path) -> ManifestCheck:
    """Hash every file anew. Raises: StoreError without a manifest (the run is not finished)."""
    if not (folder / MANIFEST).exists():
        raise StoreError(
            f"no {MANIFEST}",
            where=folder.name,
            expected="a finished run",
            remedy="run the experiment to its end",
        )
    known = _manifest(folder)
    there = {p.relative_to(folder).as_posix(): p for p in _files(folder)}
    shared = sorted(known.keys() & there.keys())
    return ManifestCheck(
        n_files=len(known),
        changed=tuple(name for name in shared if sha256_file(there[name]) != known[name]),
        missing=tuple(sorted(known.keys() - there.keys())),
        extra=tuple(sorted(there.keys() - known.keys())),
    )


def changed_files(folder: Path) -> tuple[str, ...]:
    """Files that differ from the manifest or are missing; empty when all is as written."""
    found = check_manifest(folder)
    return tuple(sorted((*found.changed, *found.missing)))


_PACKAGES = ("renalkit", "numpy", "scipy", "opencv-python-headless", "pydicom", "torch", "monai")


def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers; absent packages are left out."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, str]:
    """Processor, cores, memory and system, without host or user name."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }
    return {k: str(v) for k, v in facts.items()}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
