"""Is a run still what it was? Hashes, folds, predictions, and every figure computed again.

Nothing is written into the run: the figures are written anew beside it, by the very code that
wrote them first, and compared file by file. Numbers agree to a relative 1e-9, those of tables,
which are printed with six digits, to one of the last digit. Needs no torch.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Prediction
from renalkit.domain.sample import Sample, b_mode_samples
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.errors import InputRefused, RenalkitError, StoreError
from renalkit.store.files import make_folder, read_json, sha256_file, write_json
from renalkit.store.predictions import load_predictions
from renalkit.store.runs import MANIFEST, FoldFolder, RunFolder, check_manifest
from renalkit.store.scans import SCANS, load_scan, saved_scans
from renalkit.store.splits import load_split
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.cascade_experiment import CascadeExperiment, stored_cascade
from renalkit.usecases.clinical_model import stored_clinical_job
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.evaluate import evaluate_results
from renalkit.usecases.experiment import CLINICAL, Experiment, Job, jobs_of
from renalkit.usecases.parts import load_data
from renalkit.usecases.progress import Progress, Silent
from renalkit.usecases.results import Json, read_results, stored_experiment
from renalkit.usecases.scan_lesions import Size
from renalkit.usecases.transfer import FORMAT, digest_of_fold

JSON_TOLERANCE = 1e-9
TABLE_TOLERANCE = 2e-5
_MOST_TOLD = 1000


class Kind(StrEnum):
    """What does not agree."""

    FILE = "file"
    DIGEST = "digest"
    SPLIT = "split"
    WEIGHTS = "weights"
    PREDICTION = "prediction"
    FIGURE = "figure"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not agree. stored, found: as far as there is something to show."""

    kind: Kind
    where: str
    words: str
    stored: Any = None
    found: Any = None


@dataclass(slots=True)
class _Account:
    """What was looked at, what did not agree, and what the run's version did not write yet."""

    checked: Counter[str] = field(default_factory=Counter[str])
    differences: list[Difference] = field(default_factory=list[Difference])
    newer: list[str] = field(default_factory=list[str])

    def equal(self, kind: Kind, where: str, stored: Any, found: Any, words: str) -> None:
        self.checked[kind.value] += 1
        if stored != found:
            self.differences.append(Difference(kind, where, words, stored, found))

    def add(self, kind: Kind, where: str, words: str) -> None:
        self.differences.append(Difference(kind, where, words))


def verify_run(path: Path, progress: Progress, cohort_path: Path | None = None) -> Json:
    """Check everything of a finished run; `ok` is False as soon as one thing differs.

    cohort_path: the cohort when it has moved. Raises StoreError when the run or its cohort cannot
    be read at all.
    """
    folder, account = RunFolder(path), _Account()
    scans = stored_cascade(folder)
    experiment = scans or stored_experiment(folder)
    cohort, _ = load_data(experiment, cohort_path)
    progress.stage("verify", 4)
    _files(folder, account)
    progress.advance(words="files")
    split = _split(folder, cohort, account)
    if split is not None and isinstance(experiment, Experiment):
        for label in (s.label or s.name for s in experiment.systems if s.init_from is not None):
            _initial(folder, label, split, account)
    _digests(folder, (experiment, cohort, split), account)
    progress.advance(words="folds")
    if split is not None and isinstance(experiment, Experiment):
        clinical = stored_clinical_job(folder, experiment)
        for job in (*jobs_of(experiment), *([clinical] if clinical else [])):
            _job(folder, job, (cohort, split), account)
    elif split is not None:
        for own in sorted(path.glob(f"*/fold-*/{SCANS}")):
            _scans(own.parent, account)
    progress.advance(words="predictions")
    if scans is None:
        _figures(path, cohort_path, account)
    else:
        size = Size(read_json(folder.metrics)["statistics"]["size"])
        _anew(
            folder,
            account,
            lambda beside: evaluate_scans(path, Silent(), cohort_path, size, beside),
        )
    progress.advance(words="figures")
    told = account.differences
    return {
        "schema": 1,
        "run": str(path),
        "ok": not told,
        "checked": {kind.value: account.checked[kind.value] for kind in Kind},
        "tolerance": {"json": JSON_TOLERANCE, "tables": TABLE_TOLERANCE},
        "n_differences": len(told),
        "differences": [asdict(d) for d in told[:_MOST_TOLD]],
        "not_written_yet": account.newer,
    }


# ------------------------------------------------------------------ files and digests


def _files(folder: RunFolder, account: _Account) -> None:
    try:
        found = check_manifest(folder.path)
    except StoreError as error:
        account.add(Kind.FILE, MANIFEST, f"{error.found}: the run is not finished")
        return
    account.checked[Kind.FILE.value] += found.n_files
    for names, words in (
        (found.changed, "has changed since the run wrote it"),
        (found.missing, "is missing"),
        (found.extra, "is not of this run: the manifest does not list it"),
    ):
        for name in names:
            account.add(Kind.FILE, name, words)


def _digests(
    folder: RunFolder,
    made_of: tuple[Experiment | CascadeExperiment, Cohort, Split | None],
    account: _Account,
) -> None:
    """Settings, cohort and folds as the run, its record and its figures name them."""
    experiment, cohort, split = made_of
    stored = read_json(folder.experiment_json)
    where = folder.experiment_json.name
    account.equal(
        Kind.DIGEST, where, stored.get("digest"), experiment.digest, "digest of the settings"
    )
    known = {"settings_digest": experiment.digest, "cohort_digest": cohort.digest}
    if split is not None:
        known["split_digest"] = split.digest
    for path, names in (
        (folder.record, ("settings_digest", "cohort_digest", "split_digest")),
        (folder.metrics, ("cohort_digest", "split_digest")),
    ):
        content = _read(path, account)
        for name in (n for n in names if content is not None and n in known):
            words = name.replace("_", " ")
            account.equal(Kind.DIGEST, path.name, (content or {}).get(name), known[name], words)
    if folder.cohort.exists():
        content = _read(folder.cohort, account) or {}
        account.equal(
            Kind.DIGEST, folder.cohort.name, content.get("digest"), cohort.digest, "cohort digest"
        )


def _read(path: Path, account: _Account) -> Json | None:
    """A JSON file of the run; told when it is missing or damaged."""
    try:
        return read_json(path)
    except FileNotFoundError:
        account.add(Kind.FILE, path.name, "is missing")
    except InputRefused as error:
        account.add(Kind.FILE, path.name, f"cannot be read ({error.found})")
    return None


def _split(folder: RunFolder, cohort: Cohort, account: _Account) -> Split | None:
    """The folds: no patient in two parts, duplicates together, no stranger."""
    account.checked[Kind.SPLIT.value] += 1
    try:
        split = load_split(folder.folds)
    except StoreError as error:
        account.add(Kind.SPLIT, folder.folds.name, error.found)
        return None
    known = set(cohort.patients)
    groups: Mapping[str, str] = {}
    if folder.check.exists():
        groups = (_read(folder.check, account) or {}).get("groups", {})
    for fold in split.folds:
        account.checked[Kind.SPLIT.value] += 1
        where = f"{folder.folds.name}, fold {fold.index}"
        strangers = (fold.train | fold.validation | fold.test) - known
        if strangers:
            words = f"{len(strangers)} patients that the cohort does not have"
            account.add(Kind.SPLIT, where, words)
        apart = _groups_apart(fold, groups)
        if apart:
            account.add(Kind.SPLIT, where, f"{apart} groups of duplicates are in two parts")
    return split


def _initial(folder: RunFolder, label: str, split: Split, account: _Account) -> None:
    """No initial weights were made with patients their fold validates or tests, nor chosen with
    patients it tests."""
    path = folder.initial(label)
    if split.plan is Plan.EXTERNAL and not path.exists():
        return  # nothing was trained here
    found = _read(path, account) or {}
    if found.get("format") != FORMAT:
        account.add(Kind.FILE, f"{label}/{path.name}", "is not of this version")
        return
    for item in found["folds"]:
        account.checked[Kind.SPLIT.value] += 1
        fold = split.folds[item["fold"]]
        for seen, words in (
            (
                (fold.validation | fold.test) & set(item["trained"]),
                "trained with {} patients it validates or tests",
            ),
            (fold.test & set(item["validated"]), "chosen with {} patients it tests"),
        ):
            if seen:
                where = f"{label}/{path.name}, fold {fold.index}"
                account.add(Kind.SPLIT, where, f"initial weights were {words.format(len(seen))}")


def _groups_apart(fold: Fold, groups: Mapping[str, str]) -> int:
    parts: dict[str, set[str]] = {}
    for patient, group in groups.items():
        part = fold.part_of(patient)
        if part is not None:
            parts.setdefault(group, set()).add(part)
    return sum(len(p) > 1 for p in parts.values())


# ------------------------------------------------------------------ weights and predictions


def _job(folder: RunFolder, job: Job, data: tuple[Cohort, Split], account: _Account) -> None:
    """Every fold of a system: finished under these settings, its own weights, its own patients."""
    cohort, split = data
    samples = b_mode_samples(cohort)
    for fold in split.folds:
        if job.folds and fold.index not in job.folds:
            continue
        own = folder.fold(job.label, fold.index)
        where = f"{job.label}/fold-{fold.index}"
        if not own.done.exists():
            account.add(Kind.FILE, f"{where}/{own.done.name}", "is missing: the fold is unfinished")
            continue
        done = _read(own.done, account) or {}
        digest = digest_of_fold(folder, job, (cohort.digest, split.digest), fold.index)
        words = "digest of settings, cohort and folds that the fold was finished under"
        account.equal(Kind.DIGEST, f"{where}/{own.done.name}", done.get("digest"), digest, words)
        _weights(own, where, done, account)
        for part, path in (("validation", own.validation), ("test", own.test)):
            patients = getattr(fold, part)
            wanted = [s for s in samples if s.key.patient in patients]
            about = (f"{where}/{path.name}", fold, part)
            _predictions(path, about, (wanted, job, done), account)


def _weights(own: FoldFolder, where: str, done: Json, account: _Account) -> None:
    path = own.model if where.startswith(f"{CLINICAL}/") else own.weights
    place = f"{where}/{path.name}"
    if not path.exists():
        account.add(Kind.WEIGHTS, place, "is missing")
        return
    found, stored = sha256_file(path), done.get("weights_sha256")
    account.equal(Kind.WEIGHTS, place, stored, found, "hash of the weights that done.json names")


def _predictions(
    path: Path,
    about: tuple[str, Fold, str],
    expected: tuple[Sequence[Sample], Job, Json],
    account: _Account,
) -> None:
    """One per frame of the part's patients, of this fold, system and weights, with its truth."""
    where, fold, part = about
    samples, job, done = expected
    try:
        found = load_predictions(path)
    except StoreError as error:
        account.add(Kind.PREDICTION, where, error.found)
        return
    account.checked[Kind.PREDICTION.value] += len(found)
    wanted = {s.key: s for s in samples}
    for count, words in (
        (len(found) - len({p.key for p in found}), "frames predicted twice"),
        (len(wanted.keys() - {p.key for p in found}), f"frames of {part} patients not predicted"),
        (
            sum(fold.part_of(p.key.patient) != part for p in found),
            f"predictions of patients who are not in the {part} part of fold {fold.index}",
        ),
        (
            sum(p.key in wanted and p.target != wanted[p.key].label for p in found),
            "predictions with another truth than the cohort's",
        ),
        (
            sum(not _of(p, job, fold, done) for p in found),
            "predictions of another system, fold or weights",
        ),  # fmt: skip
    ):
        if count:
            account.add(Kind.PREDICTION, where, f"{count} {words}")


def _of(p: Prediction, job: Job, fold: Fold, done: Json) -> bool:
    ref = (p.system.name, p.system.label, p.system.weights_sha256, p.fold)
    return ref == (job.system, job.label, done.get("weights_sha256"), fold.index)


def _scans(own: Path, account: _Account) -> None:
    """A fold of a system on CT scans: its networks, and that its scans are of them."""
    where = f"{own.parent.name}/{own.name}"
    done = _read(own / "done.json", account) or {}
    for name, stored in (done.get("networks") or {}).items():
        weights = FoldFolder(own / name).weights
        if not weights.exists():
            account.add(Kind.WEIGHTS, f"{where}/{name}/{weights.name}", "is missing")
            continue
        words = "hash of the weights that done.json names"
        place = f"{where}/{name}/{weights.name}"
        account.equal(Kind.WEIGHTS, place, stored, sha256_file(weights), words)
    for path in saved_scans(own / SCANS):
        account.checked[Kind.PREDICTION.value] += 1
        try:
            scan = load_scan(path)
        except StoreError as error:
            account.add(Kind.PREDICTION, f"{where}/{path.name}", error.found)
            continue
        known = done.get("weights_sha256")
        if scan.system.weights_sha256 != known:
            account.add(Kind.PREDICTION, f"{where}/{path.name}", "a scan of other weights")


# ------------------------------------------------------------------ figures


def _figures(path: Path, cohort_path: Path | None, account: _Account) -> None:
    folder = RunFolder(path)
    reference = None
    if folder.comparisons.exists():
        reference = (_read(folder.comparisons, account) or {}).get("reference")

    def write(beside: RunFolder) -> None:
        results = replace(read_results(path, Silent(), cohort_path), folder=beside)
        evaluate_results(results, cohort_path, Silent())
        if reference in [s.job.label for s in results.systems]:
            write_json(beside.comparisons, comparisons_of(results, reference))

    _anew(folder, account, write)


def _anew(folder: RunFolder, account: _Account, write: Callable[[RunFolder], object]) -> None:
    """Every file that evaluation writes, written anew beside the run and compared."""
    path = folder.path
    with TemporaryDirectory(prefix="renalkit-verify-") as name:
        beside = RunFolder(Path(name))
        _mirror(folder.path, beside.path)
        try:
            write(beside)
        except RenalkitError as error:
            where = error.where or path.name
            account.add(Kind.FIGURE, where, f"figures cannot be computed again: {error.found}")
            return
        for found in sorted(p for p in beside.path.rglob("*") if _is_new(p)):
            relative = found.relative_to(beside.path)
            stored = folder.path / relative
            if stored.exists():
                account.differences += _compared(stored, found, account.checked)
            elif not (folder.path / MANIFEST).exists():
                account.add(Kind.FIGURE, relative.as_posix(), "is missing")
            elif all(d.where != relative.as_posix() for d in account.differences):
                account.newer.append(relative.as_posix())


def _mirror(folder: Path, beside: Path) -> None:
    """The same tree with links for files: what is written there replaces a link, not a file."""
    for path in folder.rglob("*"):
        place = beside / path.relative_to(folder)
        if path.is_dir():
            make_folder(place)
        elif path.name not in (MANIFEST, ".lock"):
            make_folder(place.parent)
            place.symlink_to(path.resolve())


def _is_new(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _compared(stored: Path, found: Path, checked: Counter[str]) -> Iterator[Difference]:
    """Differences of a file of figures from the same file written anew."""
    try:
        if found.suffix == ".json":
            pairs = _leaves(read_json(stored), read_json(found), "")
            tolerance = JSON_TOLERANCE
        else:
            pairs = _cells(stored, found)
            tolerance = TABLE_TOLERANCE
        for place, one, two in pairs:
            checked[Kind.FIGURE.value] += 1
            if not _agree(one, two, tolerance):
                where = f"{stored.name}: {place}"
                yield Difference(Kind.FIGURE, where, "differs when computed again", one, two)
    except InputRefused as error:
        yield Difference(Kind.FIGURE, stored.name, f"cannot be read ({error.found})")


def _leaves(stored: Any, found: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Every value of two JSON trees side by side; None where one tree ends."""
    if isinstance(stored, dict) and isinstance(found, dict):
        for key in sorted({*stored, *found}):
            inner = f"{place}.{key}" if place else str(key)
            yield from _leaves(stored.get(key), found.get(key), inner)
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        for k, (one, two) in enumerate(zip(stored, found, strict=True)):
            yield from _leaves(one, two, f"{place}.{k}")
    else:
        yield place, stored, found


def _cells(stored: Path, found: Path) -> Iterator[tuple[str, Any, Any]]:
    """Every cell of two CSV files side by side."""
    one, two = (
        list(csv.reader(p.read_text(encoding="utf-8").splitlines())) for p in (stored, found)
    )
    yield "lines", len(one), len(two)
    for line, (a, b) in enumerate(zip(one, two, strict=False), start=1):
        if len(a) != len(b):
            yield f"line {line}, cells", len(a), len(b)
            continue
        names = one[0] if len(one[0]) == len(a) else [str(k) for k in range(len(a))]
        for name, x, y in zip(names, a, b, strict=True):
            yield f"line {line}, {name}", x, y


def _agree(one: Any, two: Any, tolerance: float) -> bool:
    if isinstance(one, str) and isinstance(two, str):
        if one == two:
            return True
        try:
            one, two = float(one), float(two)
        except ValueError:
            return False
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, int | float) and isinstance(two, int | float):
        return isclose(one, two, rel_tol=tolerance, abs_tol=tolerance)
    return one == two


def verify_words(found: Json) -> str:
    """The verdict for a terminal."""
    checked = found["checked"]
    lines = [
        f"{checked['file']:,} files, {checked['prediction']:,} predictions and "
        f"{checked['figure']:,} figures of {found['run']} looked at"
    ]
    for d in found["differences"]:
        values = ""
        if d["stored"] is not None or d["found"] is not None:
            values = f": stored {_short(d['stored'])}, found {_short(d['found'])}"
        lines.append(f"  {d['kind']}: {d['where']}: {d['words']}{values}")
    if found["not_written_yet"]:
        names = ", ".join(found["not_written_yet"])
        lines.append(f"  the version that made this run did not write {names}")
    more = found["n_differences"] - len(found["differences"])
    if more:
        lines.append(f"  and {more:,} more")
    n = found["n_differences"]
    lines.append("everything agrees" if found["ok"] else f"{n:,} differences")
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
