"""How does a folder of files become a cohort in which every file is accounted for?

Walk, read, store pixels, keep a record per study, put the cohort together. Stopped at any moment,
the same command goes on where it was and ends with the same bytes.

Beside the cohort `<output>`, never in it, lies `<output>.keys/` (owner only): the project's key
unless --key-file names another, and links.csv, which says what pseudonyms and keyed paths stand
for. Whoever has neither cannot name a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from renalkit import __version__
from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.study import Defect, Study
from renalkit.errors import ConfigError, InputRefused, Reason, RenalkitError, StoreError
from renalkit.readers.busi import read_busi
from renalkit.readers.contract import (
    FileReport,
    Outcome,
    ReadContext,
    ReadOptions,
    ReadResult,
)
from renalkit.readers.ct_folder import read_ct_folder
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.image_folder import BESIDE_THE_LAYOUT, Beside, read_image_folder
from renalkit.readers.kits import read_kits
from renalkit.readers.nnunet import read_nnunet
from renalkit.readers.pair_folder import PairLayout, read_pair_folder
from renalkit.readers.pseudonyms import Pseudonyms, load_or_create_key
from renalkit.readers.walk import walk_files
from renalkit.store.cohorts import COHORT, SCHEMA, AccountLine, save_cohort, table_text
from renalkit.store.files import (
    clean_temporaries,
    locked,
    make_folder,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from renalkit.usecases.ceus_cohort import ContrastOptions, ContrastStudies
from renalkit.usecases.ingest_frames import Picks, read_picks
from renalkit.usecases.ingest_keep import Ahead, Keeping
from renalkit.usecases.ingest_labels import StudyLabels, annotation_paths, read_labels
from renalkit.usecases.ingest_layouts import (
    VOLUMES,
    Layout,
    Sources,
    find_layout,
    foreign_files,
    pair_layout,
    picture_layout,
    task_of,
    unread_columns,
)
from renalkit.usecases.ingest_staging import Staging, plain_text
from renalkit.usecases.ingest_target import Target, asked_of, one_scale
from renalkit.usecases.progress import Progress, Silent

KEY_NAME = "project.key"
LINKS_NAME = "links.csv"
_LINK_COLUMNS = ("key", "kind", "stands_for")
_KINDS = {"p": "patient", "s": "study", "f": "file"}


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """What the user asked for. classes: of the task, in order; empty takes those of the source.

    ordered: these are grades in rising order. target: what becomes the class of a lesion.
    masks: where the masks of pictures are. keep: a list of the frames to take; every: without a
    list, the step between frames taken. covariates: further columns of the label table to keep.
    contrast: take dual cines apart into paired panes of chosen frames. workers: processes that
    read DICOM studies; 0 takes one per core where it is worth starting them. More than one need a
    main module that can be imported, as always where processes are spawned.
    """

    source: Path
    output: Path
    layout: str = "auto"
    labels: Path | None = None
    annotations: Path | None = None
    masks: Beside | None = None
    classes: tuple[str, ...] = ()
    positive: str | None = None
    ordered: bool = False
    target: Target = Target.LABEL
    groups: str = "none"
    options: ReadOptions = field(default_factory=ReadOptions)
    key_file: Path | None = None
    keep: Path | None = None
    every: int = 1
    covariates: tuple[str, ...] = ()
    contrast: ContrastOptions | None = None
    workers: int = 1

    @property
    def label_classes(self) -> tuple[str, ...]:
        """What the label column may hold; empty where the classes are of another fact."""
        return self.classes if self.target is Target.LABEL else ()

    @property
    def keys_folder(self) -> Path:
        return _keys_of(self.output)

    @property
    def key_path(self) -> Path:
        return self.key_file or self.keys_folder / KEY_NAME


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every file and study. recalled: results that an earlier run had reached."""

    layout: str
    cohort: Cohort
    account: tuple[AccountLine, ...]
    warnings: tuple[Defect, ...]
    links: Path
    recalled: int

    def count(self, outcome: Outcome) -> int:
        return sum(a.outcome == outcome.value for a in self.account)

    @property
    def covariates(self) -> Mapping[str, int]:
        """The facts that are kept about patients, and of how many patients each is known."""
        known = {(name, s.patient) for s in self.cohort.studies for name in s.facts}
        return dict(sorted(Counter(name for name, _ in known).items()))

    @property
    def refused(self) -> int:
        """Files that were refused."""
        return self.count(Outcome.REFUSED)

    def as_json(self) -> dict[str, Any]:
        """Plain values; files appear by their keyed path only."""
        flow = self.cohort.flow
        reasons = Counter((a.outcome, r) for a in self.account for r in a.reasons)
        return {
            "layout": self.layout,
            "cohort": self.cohort.name,
            "digest": self.cohort.digest,
            **self.cohort.task.plain,
            "patients": flow.included_patients,
            "studies": flow.included_studies,
            "images": flow.included_images,
            "excluded": dict(flow.excluded),
            "covariates": dict(self.covariates),
            "files": {"total": len(self.account)} | {o.value: self.count(o) for o in Outcome},
            "reasons": [
                {"outcome": outcome, "reason": reason, "files": n}
                for (outcome, reason), n in sorted(reasons.items())
            ],
            "refused": [
                {"file": a.keyed_path, "reasons": list(a.reasons)}
                for a in self.account
                if a.outcome == Outcome.REFUSED.value
            ],
            "warnings": [{"reason": w.reason.value, "words": w.words} for w in self.warnings],
            "resumed": self.recalled,
            "links": str(self.links),
        }


def ingest_words(report: IngestReport) -> str:
    """The account for a person."""
    found = report.as_json()
    files = found["files"]
    lines = [
        f"Cohort '{found['cohort']}': {found['patients']} patients, {found['studies']} studies, "
        f"{found['images']} images ({', '.join(found['classes'])})",
        f"Files: {files['total']} = {files['used']} used + {files['used-with-warning']} used with "
        f"a warning + {files['refused']} refused + {files['skipped']} skipped",
    ]
    lines += [f"  {r['files']:6} {r['outcome']:18} {r['reason']}" for r in found["reasons"]]
    lines += [f"Excluded: {n} studies: {words}" for words, n in found["excluded"].items()]
    if found["covariates"]:
        kept = ", ".join(f"{name} {n}" for name, n in found["covariates"].items())
        lines.append(f"Facts kept, and of how many patients: {kept}")
    lines += [f"Warning: {w['words']}" for w in found["warnings"]]
    if found["resumed"]:
        lines.append(f"Resumed: {found['resumed']} results of an earlier run were taken over")
    lines.append(f"What keys stand for: {found['links']} (keep it and the key away from the data)")
    return "\n".join(lines)


def _keys_of(output: Path) -> Path:
    return output.parent / f"{output.name}.keys"


def request_of(
    *,
    source: Path,
    output: Path,
    layout: str = "auto",
    labels: Path | None = None,
    classes: str | None = None,
    positive: str | None = None,
    ordered: bool = False,
    target: str = "label",
    groups: str = "none",
    annotations: Path | None = None,
    masks: str | None = None,
    keep_pixels: bool = False,
    allow_headerless: bool = False,
    key_file: Path | None = None,
    keep: Path | None = None,
    every: int | None = None,
    covariates: str | None = None,
    contrast: ContrastOptions | None = None,
    workers: int = 1,
) -> IngestRequest:
    """The request of a command line; ConfigError lists everything wrong with it."""
    names = tuple(c.strip() for c in classes.split(",")) if classes else ()
    problems: list[str] = []
    if classes and (len(names) < 2 or "" in names or len(set(names)) != len(names)):
        problems.append("--classes: two or more different names, separated by commas")
    if layout not in ("auto", *Layout):
        problems.append(f"--layout: '{layout}' is not one of auto, {', '.join(Layout)}")
    problems += _target_problems(target, ordered, classes)
    place = None
    try:
        place = Beside(masks) if masks is not None else None
    except ConfigError as error:
        problems += [f"--masks: {problem}" for problem in error.problems]
    if groups not in ("none", "manifest"):
        problems.append(f"--groups: '{groups}' is not one of none, manifest")
    root, out = source.resolve(), output.resolve()
    if out == root or out.is_relative_to(root) or root.is_relative_to(out):
        problems.append("--output: must lie outside the source, and the source outside it")
    # The folder of keys beside it is made before anything is written into the cohort.
    ours = any(place.exists() for place in (out / ".lock", out / COHORT, _keys_of(out)))
    if out.is_dir() and any(out.iterdir()) and not ours:
        problems.append("--output: holds other files; name a new or empty folder, or a cohort")
    key = key_file.resolve() if key_file is not None else None
    if key is not None and (key.is_relative_to(out) or key.is_relative_to(root)):
        problems.append("--key-file: must lie outside the cohort and the source")
    for name, path in (("--labels", labels), ("--annotations", annotations), ("--keep", keep)):
        if path is not None and not path.exists():
            problems.append(f"{name}: '{path.name}' does not exist")
    if keep is not None and keep.resolve().is_relative_to(root):
        problems.append("--keep: the keep list lies outside the source")
    if keep is not None and every is not None:
        problems.append("--keep, --every: one of the two; a keep list says which frames are taken")
    if every is not None and every < 1:
        problems.append(f"--every: {every} is not 1 or more")
    if problems:
        raise ConfigError(problems)
    return IngestRequest(
        source=root,
        output=out,
        layout=layout,
        labels=labels.resolve() if labels else None,
        annotations=annotations.resolve() if annotations else None,
        masks=place,
        classes=names,
        positive=positive,
        ordered=ordered,
        target=Target(target),
        groups=groups,
        options=ReadOptions(keep_pixels=keep_pixels, allow_headerless=allow_headerless),
        key_file=key,
        keep=keep.resolve() if keep else None,
        every=every or 1,
        covariates=tuple(c.strip() for c in covariates.split(",")) if covariates else (),
        contrast=contrast,
        workers=workers,
    )


def _target_problems(target: str, ordered: bool, classes: str | None) -> list[str]:
    if target not in tuple(Target):
        return [f"--target: '{target}' is not one of {', '.join(Target)}"]
    if ordered and not classes and target != Target.GRADE:
        return ["--ordered: name the grades in rising order by --classes"]
    return []


def run_ingest(request: IngestRequest, progress: Progress | None = None) -> IngestReport:
    """Read a folder into a cohort; resumes, and changes nothing when there is nothing to do.

    Raises:
        ConfigError: options that cannot be, or an output that holds the cohort of another source.
        InputRefused: unknown layout, unusable label table, or no study at all.
        StoreError: the disk refused, or the project's key is missing.
        Locked: another process writes this cohort.
    """
    shown = progress or Silent()
    make_folder(request.output.parent)
    with locked(request.output):
        clean_temporaries(request.output)
        if not request.keys_folder.is_dir():
            make_folder(request.keys_folder).chmod(0o700)
        clean_temporaries(request.keys_folder)
        _check_source(request)
        pseudonyms = Pseudonyms(_key(request))
        return _Ingest(request, pseudonyms, shown).run()


def _key(request: IngestRequest) -> bytes:
    if (request.output / COHORT).is_file() and not request.key_path.is_file():
        raise StoreError(
            "the key this cohort was made with is missing",
            where=request.key_path.name,
            remedy="restore the key file; with a new key no pseudonym would stay the same",
        )
    return load_or_create_key(request.key_path)


def _check_source(request: IngestRequest) -> None:
    """One output belongs to one source: a second one would replace the cohort of the first."""
    note = request.keys_folder / "source.json"
    mine = {"source": plain_text(str(request.source))}
    if note.is_file() and (request.output / COHORT).is_file() and read_json(note) != mine:
        raise ConfigError(
            ["--output: it holds the cohort of another source folder; choose another output"]
        )
    write_json(note, mine)


@dataclass(slots=True)
class _Ingest:
    """One run: the request, who names, who draws progress."""

    request: IngestRequest
    pseudonyms: Pseudonyms
    progress: Progress

    def run(self) -> IngestReport:
        request = self.request
        self.progress.stage("looking for files")
        walked = list(walk_files(request.source))
        files = tuple(w for w in walked if isinstance(w, Path))
        passed_by = [w for w in walked if isinstance(w, FileReport)]
        given = (request.labels, request.annotations, request.masks, request.covariates)
        sources = Sources(request.source, files, *given)
        layout = find_layout(request.layout, sources, request.label_classes)
        _check_options(layout, sources, request)
        identities = self._identities([*files, *(r.path for r in passed_by)])
        picks = self._picks(identities)
        staging = Staging(
            request.keys_folder / "staged",
            request.output,
            self._fingerprint(layout, sources, identities, picks),
            self.pseudonyms,
            identities,
        )
        labels = self._labels(layout, sources)
        contrast = self._contrast(layout, labels)
        reports, results = self._read(layout, sources, staging, labels, picks, contrast)
        for report in passed_by:
            reports.append(report)
        account = self._account(reports, identities)
        cohort = self._cohort(layout, results, labels, picks, reports)
        self.progress.stage("writing the cohort")
        self._write_links(staging, identities, cohort)
        save_cohort(request.output, cohort, account)
        staging.prune()
        tables = (sources.table, *([sources.pairs] if layout is Layout.PAIRS else []))
        told = [d for r in reports if r.path in tables for d in r.reasons]
        noticed = _warnings(layout, sources, labels, picks, cohort, reports)
        warnings = (*told, *labels.defects, *noticed)
        links = request.keys_folder / LINKS_NAME
        return IngestReport(layout.value, cohort, account, warnings, links, staging.recalled)

    def _identities(self, paths: Sequence[Path]) -> dict[Path, tuple[str, str]]:
        """Keyed path and content hash of every file; no hash for what cannot be read."""
        self.progress.stage("hashing files", len(paths))
        found: dict[Path, tuple[str, str]] = {}
        for path in paths:
            key = self.pseudonyms.path(path.relative_to(self.request.source))
            found[path] = (key, _hash(path))
            self.progress.advance()
        return found

    def _picks(self, identities: dict[Path, tuple[str, str]]) -> Picks:
        request = self.request
        if request.keep is None:
            return Picks(step=request.every)
        return read_picks(request.keep, request.source, identities, request.options.limits)

    def _fingerprint(
        self,
        layout: Layout,
        sources: Sources,
        identities: dict[Path, tuple[str, str]],
        picks: Picks,
    ) -> str:
        """Everything besides a study's own files that its result can depend on.

        All files count: a new one may change what a name in a table means or reveal a conflict.
        """
        request = self.request
        parts = [__version__, str(SCHEMA), layout.value, repr(request.options), request.groups]
        parts += [*picks.fingerprint, repr(request.covariates)]
        parts += [] if request.contrast is None else request.contrast.fingerprint
        if layout is Layout.IMAGES:
            parts.append(repr(picture_layout(sources, request.label_classes)))
        elif layout is Layout.PAIRS:
            parts.append(repr(pair_layout(sources, request.label_classes)))
        for place in (sources.table, request.annotations):
            parts += [_hash(p) for p in annotation_paths(place)] if place is not None else ["none"]
        parts += sorted(" ".join(i) for i in identities.values())
        return sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()

    def _read(
        self,
        layout: Layout,
        sources: Sources,
        staging: Staging,
        labels: StudyLabels,
        picks: Picks,
        contrast: ContrastStudies | None,
    ) -> tuple[list[FileReport], list[ReadResult]]:
        """Reports of all files and the results that hold a study, pixels stored."""
        reports: list[FileReport] = []
        results: list[ReadResult] = []
        keeping = Keeping(staging, picks, contrast)
        given = (self.request.source, self.request.options, labels, keeping, self.progress)
        ahead = Ahead(*given, self.request.workers)
        self.progress.stage("reading", len(sources.files))
        with DecodeWorker(self.request.options.limits) as decoder:
            context = ReadContext(
                self.request.source,
                self.pseudonyms,
                decoder,
                self.request.options,
                staging.recall,
            )
            for result in self._results(layout, sources, context, labels, ahead):
                kept = keeping.kept(result)
                reports.extend(kept.files)
                if kept.study is not None:
                    results.append(kept)
                self.progress.advance(len(kept.files))
        return reports, results

    def _results(
        self,
        layout: Layout,
        sources: Sources,
        context: ReadContext,
        labels: StudyLabels,
        ahead: Ahead,
    ) -> Iterator[ReadResult]:
        request = self.request
        if layout is Layout.BUSI:
            groups = "manifest" if request.groups == "manifest" else "none"
            yield from read_busi(sources.files, context, groups)
        elif layout in (Layout.IMAGES, Layout.PAIRS):
            paired = layout is Layout.PAIRS
            where = (pair_layout if paired else picture_layout)(sources, request.label_classes)
            foreign = foreign_files(sources, where)
            for path, words in foreign.items():
                reason = (Defect(Reason.NOT_RECOGNISED, words),)
                yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, reason),))
            files = [p for p in sources.files if p not in foreign]
            if isinstance(where, PairLayout):
                yield from read_pair_folder(files, where, context)
            else:
                yield from read_image_folder(files, where, context)
        elif layout in (Layout.KITS, Layout.NNUNET):
            yield from (read_kits if layout is Layout.KITS else read_nnunet)(sources.files, context)
        else:
            tables = {sources.table} if sources.table else set[Path]()
            if request.annotations is not None:
                tables.update(annotation_paths(request.annotations))
            given = [p for p in sources.files if p in tables]
            for path in given:
                yield ReadResult(None, (FileReport(path, Outcome.USED),))
            rest = [p for p in sources.files if p not in given]
            patient_of = labels.patient_of(request.source, self.pseudonyms)
            if layout is Layout.CT:
                yield from read_ct_folder(rest, context, patient_of)
                return
            assert isinstance(context.decoder, DecodeWorker)
            yield from read_dicom_us(
                rest,
                request.source,
                self.pseudonyms,
                request.options,
                context.decoder,
                patient_of=patient_of,
                recall=context.recall,
                beforehand=ahead,
            )

    def _contrast(self, layout: Layout, labels: StudyLabels) -> ContrastStudies | None:
        request = self.request
        if request.contrast is None:
            return None
        if layout is not Layout.DICOM:
            raise ConfigError([f"contrast cines are DICOM; this folder is read as '{layout}'"])
        return ContrastStudies(request.contrast, request.output, labels, self.pseudonyms)

    def _labels(self, layout: Layout, sources: Sources) -> StudyLabels:
        """What table and annotations say of DICOM studies; the other readers knew it at once."""
        if layout not in (Layout.DICOM, Layout.CT):
            return StudyLabels()
        request = self.request
        known = (sources.table, request.annotations, sources.files, sources.root)
        return read_labels(*known, self.pseudonyms, request.label_classes, request.covariates)

    def _cohort(
        self,
        layout: Layout,
        results: list[ReadResult],
        labels: StudyLabels,
        picks: Picks,
        reports: Sequence[FileReport],
    ) -> Cohort:
        studies: list[Study] = []
        reasons: dict[str, str] = {}
        for result in results:
            study = result.study
            assert study is not None
            if layout in (Layout.DICOM, Layout.CT) and self.request.contrast is None:
                if layout is Layout.CT:
                    labelled = labels.classified(study, self.pseudonyms)
                else:
                    labelled = labels.attach(study, self.pseudonyms, picks)
                if labelled is None:
                    reasons[study.key] = "not in the label table"
                study = labelled or study
            if result.exclude_because is not None:
                reasons[study.key] = result.exclude_because
            study, why = asked_of(study, self.request.target)
            if why is not None:
                reasons.setdefault(study.key, why)
            studies.append(study)
        if not studies:
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                f"none of {len(reports)} files gave a study ({_most_frequent(reports)})",
                where="the source folder",
                expected=f"files in the layout '{layout.value}'",
                remedy="the guide to ingest says what to do for each reason; or state --layout",
            )
        if self.request.target is Target.GRADE:
            one_scale(studies)
        # Drawn lesions have a class without a table; those it leaves out name no class of the task.
        asked = [s for s in studies if layout is not Layout.CT or s.key not in reasons]
        task = self._task(layout, _labels_of(asked))
        for study in studies:
            foreign = sorted(_labels_of([study]) - set(task.classes))
            if foreign:
                reasons.setdefault(study.key, f"class '{foreign[0]}' is not part of the task")
        try:
            cohort = Cohort(self.request.output.name, task, tuple(studies))
            return cohort.without(reasons)
        except ValueError as error:
            raise RenalkitError(f"the studies do not make a cohort: {error}") from error

    def _task(self, layout: Layout, found: set[str]) -> ClassTask:
        request = self.request
        graded = request.target is Target.GRADE and len(request.classes or found) > 2
        ordered = request.ordered or graded
        return task_of(layout, request.classes, found, request.positive, ordered=ordered)

    def _account(
        self, reports: Sequence[FileReport], identities: dict[Path, tuple[str, str]]
    ) -> tuple[AccountLine, ...]:
        """One line per file; an error of ours when a file ended in no bin or in two."""
        times = Counter(r.path for r in reports)
        lost = [p for p in identities if times[p] != 1]
        if lost or len(times) != len(identities):
            raise RenalkitError(
                f"{len(lost)} of {len(identities)} files ended in no bin or in two",
                where=identities[lost[0]][0] if lost else "",
                expected="every file used, refused or skipped once",
                remedy="report this; nothing was written",
            )
        return tuple(
            sorted(
                AccountLine(
                    *identities[r.path],
                    r.outcome.value,
                    tuple(sorted({d.reason.value for d in r.reasons})),
                )
                for r in reports
            )
        )

    def _write_links(
        self, staging: Staging, identities: dict[Path, tuple[str, str]], cohort: Cohort
    ) -> None:
        """What every key of the cohort stands for; owner only, and outside the cohort."""
        root = self.request.source
        rows = {key: path.relative_to(root).as_posix() for path, (key, _) in identities.items()}
        rows |= staging.links
        table = [
            (key, _KINDS[key[0]], plain_text(rows[key]).replace("\0", " "))
            for key in sorted(rows, key=lambda k: (_KINDS[k[0]], k))
        ]
        path = self.request.keys_folder / LINKS_NAME
        write_text(path, table_text(_LINK_COLUMNS, table))
        path.chmod(0o600)


def _most_frequent(reports: Sequence[FileReport]) -> str:
    """What was wrong with most files that were not used, the most frequent first."""
    bins = (Outcome.REFUSED, Outcome.SKIPPED)
    found = [d for r in reports if r.outcome in bins for d in r.reasons[:1]]
    told = Counter(f"{d.reason.value}: {d.words}" for d in found)
    return "; ".join(f"{n} x {words}" for words, n in told.most_common(3))


def _check_options(layout: Layout, sources: Sources, request: IngestRequest) -> None:
    """Raises ConfigError for options that this layout lacks, or that would mean nothing in it."""
    problems: list[str] = []
    if request.masks is not None and layout is not Layout.IMAGES:
        problems.append(f"--masks: only for folders of pictures; this one is read as '{layout}'")
    said = (sources.table, request.annotations, *request.classes)
    unsaid = layout is Layout.DICOM or (
        layout is Layout.PAIRS and pair_layout(sources, request.label_classes).labels is None
    )
    if unsaid and not any(said):
        task_of(layout, (), (), None)  # nothing says a class: better told before all is read
    if request.groups != "none" and layout is not Layout.BUSI:
        problems.append(f"--groups: only for the layout 'busi'; this one is read as '{layout}'")
    if layout is Layout.PAIRS and request.annotations is not None:
        problems.append("--annotations: boxes are columns of pairs.csv in the layout 'pairs'")
    if layout in (Layout.BUSI, Layout.KITS, Layout.NNUNET):
        named = (("--labels", request.labels), ("--annotations", request.annotations))
        problems += [f"{name}: not used in the layout '{layout}'" for name, path in named if path]
    if layout in VOLUMES:
        kept = (("--keep", request.keep), ("--every", request.every > 1))
        problems += [f"{name}: the slices of a volume are all kept" for name, said in kept if said]
        if layout is Layout.CT and request.annotations is not None:
            problems.append("--annotations: lesions of CT are drawn as NIfTI label volumes")
    if problems:
        raise ConfigError(problems)


def _warnings(
    layout: Layout,
    sources: Sources,
    labels: StudyLabels,
    picks: Picks,
    cohort: Cohort,
    reports: Sequence[FileReport],
) -> Iterator[Defect]:
    """What a person should hear of before the cohort is used."""
    if labels.unmet:
        words = f"{labels.unmet} labelled patients or files are not among the studies"
        yield Defect(Reason.MISSING_FILE, words)
    if picks.missing:
        words = f"{picks.missing} files of the keep list are not in the source"
        yield Defect(Reason.MISSING_FILE, words)
    for table, unread in unread_columns(layout, sources):
        if unread:
            told = ", ".join(f"{c} ({why})" if why else c for c, why in unread.items())
            words = f"columns of {table} that are not read: {told}"
            yield Defect(Reason.NOT_RECOGNISED, words)
    if layout is Layout.IMAGES:
        aside = sum(d.words == BESIDE_THE_LAYOUT for r in reports for d in r.reasons)
        if aside:
            words = f"{aside} pictures lie outside images/ and are not read; for masks give --masks"
            yield Defect(Reason.EXTRA_FILE, words)
    doubted = sum(any(d.reason is Reason.PAIR_MISMATCH for d in r.reasons) for r in reports)
    if doubted:
        words = f"{doubted} pictures look exchanged with their partner, or differ from it in size"
        yield Defect(Reason.PAIR_MISMATCH, words)
    nameless = sum(not s.patient_known for s in cohort.studies)
    if nameless:
        words = f"{nameless} pictures without a patient: each is taken for another patient"
        yield Defect(Reason.NO_PATIENT, words)
    unlabelled = sum(not _labels_of([s]) for s in cohort.studies)
    if unlabelled:
        words = f"{unlabelled} of {len(cohort.studies)} studies have no class"
        yield Defect(Reason.UNKNOWN_LABEL, words)


def _hash(path: Path) -> str:
    """Content hash of a regular file; empty when it has none or cannot be read."""
    try:
        return sha256_file(path) if path.is_file() else ""
    except OSError:
        return ""


def _labels_of(studies: Sequence[Study]) -> set[str]:
    """Every class that a study or a lesion has."""
    own = {s.label for s in studies} | {le.label for s in studies for le in s.lesions}
    return {label for label in own if label is not None}
