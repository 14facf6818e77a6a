"""Which earlier model may each fold start from, so that no patient it is judged by was seen before?

A fold may start from a model only when nobody whom that model was trained with is among the
patients the fold validates or tests, nobody with whom its epoch was chosen (its validation
patients) among those the fold tests, nor any of them among those who belong together with these
(L13). The same holds for what that model itself started from. Validation patients may validate
again: two choices of an epoch then saw them, which is counted; tested patients nobody saw. The
choice is made once, before training, and kept in initial.json beside the system's folds.

Patients are compared by pseudonym, and by their pictures where the cohorts differ: the same
picture under another pseudonym joins two patients, as in the check of a cohort. A cohort without a
pseudonym in common, perhaps made with another key, is compared by pictures alone; one likeness
then refuses all, since nobody can tell which other patients are shared.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from renalkit.cohort_checks.duplicates import connected, find_likenesses
from renalkit.cohort_checks.duplicates import groups as groups_of
from renalkit.cohort_checks.scan import scan_cohort
from renalkit.domain.cohort import Cohort
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.errors import CheckFailed, ConfigError, InputRefused, ModelRefused, StoreError
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import read_json, sha256_bytes, write_json
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.usecases.experiment import Experiment, Job, jobs_of
from renalkit.usecases.parts import fold_digest
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import stored_experiment

Groups = dict[str, str]
Json = dict[str, Any]

FORMAT = "renalkit-initial-2"
SAME_COHORT, BY_NAME, BY_PICTURE = "same cohort", "pseudonyms and pictures", "pictures only"


@dataclass(frozen=True, slots=True)
class Initial:
    """The weights one fold starts from. record: what is said of them, as in initial.json."""

    weights: Path
    sha256: str
    same_numbers: bool
    record: Json


@dataclass(frozen=True, slots=True)
class _Model:
    """One fold of the earlier run. trained, validated: patients its weights were made and chosen
    with, those of its own initial weights too. validation_loss: of the kept epoch, infinite when
    unknown."""

    fold: int
    sha256: str
    trained: frozenset[str]
    validated: frozenset[str]
    validation_loss: float

    @property
    def seen(self) -> frozenset[str]:
        return self.trained | self.validated

    def leaks(self, fold: Fold, groups: Groups) -> frozenset[str]:
        """Patients it has seen that keep a fold from starting from it (L13)."""
        judged = _related(fold.validation | fold.test, groups)
        return (self.trained & judged) | (self.validated & _related(fold.test, groups))


class _Past(NamedTuple):
    """A run whose training patients have left their mark on weights."""

    cohort_digest: str
    cohort: Path
    folder: RunFolder


@dataclass(frozen=True, slots=True)
class _Source:
    """The system of an earlier run whose models are offered. past: what made its weights, that run
    first."""

    folder: RunFolder
    experiment: Experiment
    job: Job
    settings_digest: str
    cohort_digest: str
    split: Split
    models: tuple[_Model, ...]
    past: tuple[_Past, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.path.name}/{self.job.label}"


# ---- what is kept -------------------------------------------------------------------------


def initial_of(folder: RunFolder, job: Job, fold: int) -> Initial | None:
    """What a fold of a run starts from, as chosen when the run began; None: drawn weights.

    Raises StoreError when the choice is missing.
    """
    if job.init_from is None:
        return None
    found = _stored(folder, job.label)
    if found is None:
        raise StoreError(
            "no initial weights were chosen",
            where=job.label,
            expected=folder.initial(job.label).name,
            remedy="run the experiment again; it chooses them before training",
        )
    record = next(f for f in found["folds"] if f["fold"] == fold)
    source = RunFolder(job.init_from.parent).fold(job.init_from.name, record["from_fold"])
    said = {k: v for k, v in found.items() if k not in ("format", "for", "folds")}
    said |= {k: v for k, v in record.items() if k not in ("fold", "trained", "validated")}
    return Initial(source.weights, record["weights_sha256"], found["same_numbers"], said)


def digest_of_fold(folder: RunFolder, job: Job, digests: tuple[str, str], fold: int) -> str:
    """What a finished fold was made of: as `fold_digest`, and the weights it started from.

    digests: of the cohort and of the split.
    """
    digest = fold_digest(job, *digests, fold)
    found = None if job.init_from is None else _stored(folder, job.label)
    if found is None:
        return digest
    started = {f["fold"]: f["weights_sha256"] for f in found["folds"]}
    return sha256_bytes(f"{digest}\n{started.get(fold, '')}".encode())


def initial_facts(folder: RunFolder, job: Job) -> Json | None:
    """Run, label and system of the earlier weights, how patients were compared, and in how many
    folds some validate again."""
    found = None if job.init_from is None else _stored(folder, job.label)
    if found is None:
        return None
    names = ("run", "label", "system", "compared_by")
    again = sum(f["validated_again"] > 0 for f in found["folds"])
    return {name: found[name] for name in names} | {"folds_validated_again": again}


def _stored(folder: RunFolder, label: str) -> Json | None:
    path = folder.initial(label)
    if not path.exists():
        return None
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise StoreError(
            "not the initial weights of this version",
            where=f"{label}/{path.name}",
            expected=FORMAT,
            remedy="restore the file, or begin the run under another name",
        )
    return found


# ---- choosing ------------------------------------------------------------------------------


def choose_initial(
    folder: RunFolder,
    jobs: Sequence[Job],
    cohort: Cohort,
    split: Split,
    groups: Groups,
    progress: Progress,
) -> dict[str, Json]:
    """Content of initial.json by label of each system with `init_from` that has none kept yet.

    Among the models that may start a fold: the one of whose patients fewest validate again, then
    fewest train again, then the lowest validation loss of its kept epoch, then the lowest fold.

    Args:
        folder: of the new run.
        jobs: its systems.
        cohort: its patients.
        split: its folds.
        groups: patient -> group of that cohort.
        progress: told what is done.

    Raises:
        CheckFailed: L13, a fold for which every model was trained with patients it validates or
            tests, or chosen with patients it tests; or cohorts whose patients cannot be compared.
        ConfigError: no such run or system, or one without weights of its own.
        ModelRefused: no finished fold; weights that do not fit, or are not those that were kept.
        StoreError: a fold of the earlier run belongs to other settings, patients or folds; or the
            initial weights of this run were chosen for others.
    """
    chosen_for = {"cohort_digest": cohort.digest, "split_digest": split.digest}
    compared: dict[tuple[_Past, ...], tuple[Groups, str, frozenset[str]]] = {}
    found: dict[str, Json] = {}
    for job in jobs:
        if job.init_from is None:
            continue
        before = _stored(folder, job.label)
        if before is not None:
            if before["for"] != chosen_for:
                raise StoreError(
                    "initial weights were chosen for other patients or folds",
                    where=job.label,
                    expected="the same cohort and folds",
                    remedy="give the experiment another name",
                )
            continue
        source = _source(job, folder)
        if source.past not in compared:
            progress.stage(f"comparing patients with those of {source.name}")
            compared[source.past] = _compare(source, cohort, groups)
        joined, how, known = compared[source.past]
        _refuse_unknown(source, known)
        folds = [f for f in split.folds if not job.folds or f.index in job.folds]
        chosen = _choose(source, job, folds, joined)
        taken = _fit(source, job, len(cohort.task.classes), chosen)
        found[job.label] = {
            "format": FORMAT,
            "for": chosen_for,
            "run": source.experiment.name,
            "label": source.job.label,
            "system": source.job.system,
            "settings_digest": source.settings_digest,
            "cohort_digest": source.cohort_digest,
            "split_digest": source.split.digest,
            "compared_by": how,
            "same_numbers": _same_numbers(source, job),
            **taken,
            "folds": chosen,
        }
    return found


def keep_initial(folder: RunFolder, chosen: Mapping[str, Json]) -> None:
    """Write what `choose_initial` chose beside the folds."""
    for label, found in chosen.items():
        write_json(folder.initial(label), found)


def _source(job: Job, folder: RunFolder) -> _Source:
    """The earlier system with the models of its finished folds."""
    assert job.init_from is not None
    run, label = RunFolder(job.init_from.parent), job.init_from.name
    where = f"{job.label}: init_from"
    if not run.experiment_json.exists():
        raise ConfigError([f"{where}: no run '{run.path.name}'; expected RUN/SYSTEM"])
    if run.path.resolve() == folder.path.resolve():
        raise ConfigError([f"{where}: '{run.path.name}' is this very run; give an earlier one"])
    experiment = stored_experiment(run)
    if experiment.split.plan is Plan.EXTERNAL:
        raise ConfigError(
            [f"{where}: '{run.path.name}' tests models elsewhere; give their own run"]
        )
    jobs = {j.label: j for j in jobs_of(experiment)}
    if label not in jobs:
        known = ", ".join(jobs)
        raise ConfigError([f"{where}: run '{run.path.name}' has no system '{label}' (has {known})"])
    split = load_split(run.folds)
    digests = (str(read_json(run.cohort)["digest"]), split.digest)
    initial = _stored(run, label)
    before = {f["fold"]: f for f in initial["folds"]} if initial is not None else {}
    models = [
        _Model(
            fold.index,
            str(read_json(own.done)["weights_sha256"]),
            fold.train.union(before.get(fold.index, {}).get("trained", ())),
            fold.validation.union(before.get(fold.index, {}).get("validated", ())),
            _validation_loss(own.history, int(read_json(own.done)["best_epoch"])),
        )
        for fold in split.folds
        for own in [run.fold(label, fold.index)]
        if own.finished(digest_of_fold(run, jobs[label], digests, fold.index))
        and own.weights.exists()
    ]
    if not models:
        raise ModelRefused(
            "no finished fold with weights",
            where=f"{run.path.name}/{label}",
            expected="a run that was trained here",
            remedy="train that experiment first",
        )
    settings = str(read_json(run.experiment_json)["digest"])
    past = tuple(_past(run, experiment, jobs[label]))
    return _Source(run, experiment, jobs[label], settings, digests[0], split, tuple(models), past)


def _validation_loss(history: Path, best_epoch: int) -> float:
    if not history.exists():
        return float("inf")
    rows = list(csv.DictReader(history.read_text(encoding="utf-8").splitlines()))
    kept = [r["validation_loss"] for r in rows if r["epoch"] == str(best_epoch)]
    return float(kept[0]) if kept and kept[0] else float("inf")


def _compare(source: _Source, cohort: Cohort, groups: Groups) -> tuple[Groups, str, frozenset[str]]:
    """Patient -> group over all cohorts, how they were compared, and the patients of all.

    All: that of the new run, that of the source, and those its own initial weights came from.
    """
    others = {past.cohort_digest: past for past in source.past}
    others.pop(cohort.digest, None)
    if not others:
        return groups, SAME_COHORT, frozenset(cohort.patients)
    earlier: list[tuple[Cohort, Groups]] = []
    for past in others.values():
        try:
            found = load_cohort(past.cohort)
            if found.digest != past.cohort_digest:
                raise StoreError("it changed since that run began", where=past.cohort.name)
        except (StoreError, InputRefused) as error:
            raise StoreError(
                f"the cohort of run '{past.folder.path.name}' cannot be read: {error.found}",
                where=f"{source.name}: init_from",
                expected="the studies its models were trained on, to compare patients",
                remedy="put the cohort back where that run found it",
            ) from error
        earlier.append((found, read_json(past.folder.check)["groups"]))
    studies = {s.key: s for c in (*(e for e, _ in reversed(earlier)), cohort) for s in c.studies}
    scan = scan_cohort(Cohort(cohort.name, cohort.task, tuple(studies.values())), marks=False)
    alike = groups_of(scan, find_likenesses(scan))
    everyone = frozenset(alike)
    pairs = [*alike.items(), *groups.items(), *(p for _, before in earlier for p in before.items())]
    joined = connected(everyone | {p for pair in pairs for p in pair}, pairs)
    how = BY_NAME
    for found, _ in earlier:
        if set(found.patients) & set(cohort.patients):
            continue
        how = BY_PICTURE
        theirs = {joined[p] for p in found.patients}
        shared = sorted(p for p in cohort.patients if joined[p] in theirs)
        if shared:
            raise CheckFailed(
                f"no pseudonym is in both cohorts, yet pictures of {len(shared)} patients look "
                f"alike (L13), first: {shared[0]}; '{found.name}' and '{cohort.name}' seem made "
                "with different keys",
                where=f"{source.name}: init_from",
                expected="patients that can be compared",
                remedy="ingest both cohorts with the same key file; this guard cannot be waived",
            )
    return joined, how, everyone


def _past(run: RunFolder, experiment: Experiment, job: Job) -> Generator[_Past]:
    """A run and all whose weights went into a system of it, as far as they are still there."""
    yield _Past(str(read_json(run.cohort)["digest"]), experiment.cohort, run)
    while job.init_from is not None:
        run = RunFolder(job.init_from.parent)
        if not run.experiment_json.exists():
            return
        experiment = stored_experiment(run)
        job = next(j for j in jobs_of(experiment) if j.label == job.init_from.name)
        yield _Past(str(read_json(run.cohort)["digest"]), experiment.cohort, run)


def _refuse_unknown(source: _Source, known: frozenset[str]) -> None:
    """A model whose own initial weights have seen patients that no cohort at hand has."""
    unknown = frozenset[str]().union(*(m.seen for m in source.models)) - known
    if unknown:
        raise CheckFailed(
            f"its models began from weights that have seen {len(unknown)} patients of a cohort "
            "that is not at hand (L13)",
            where=f"{source.name}: init_from",
            expected="patients whose pictures can be compared",
            remedy="put the run those weights came from back where it was, or train without them",
        )


def _choose(source: _Source, job: Job, folds: Sequence[Fold], groups: Groups) -> list[Json]:
    """One record per fold; CheckFailed (L13) when for some fold no model qualifies."""
    chosen: list[Json] = []
    problems: list[str] = []
    for fold in folds:
        leaks = {m: m.leaks(fold, groups) for m in source.models}
        fit = [m for m in source.models if not leaks[m]]
        if not fit:
            best = min(source.models, key=lambda m: (len(leaks[m]), m.fold))
            problems.append(
                f"fold {fold.index}: {len(leaks[best])} patients at least "
                f"(model of fold {best.fold})"
            )
            continue
        again = _related(fold.validation, groups)
        own = _related(fold.train, groups)
        model = min(
            fit,
            key=lambda m: (
                len(m.validated & again),
                len(m.seen & own),
                m.validation_loss,
                m.fold,
            ),
        )
        chosen.append(
            {
                "fold": fold.index,
                "from_fold": model.fold,
                "weights_sha256": model.sha256,
                "candidates": [m.fold for m in fit],
                "shared_in_training": len(model.seen & own),
                "validated_again": len(model.validated & again),
                "trained": sorted(model.trained),
                "validated": sorted(model.validated),
            }
        )
    if problems:
        raise CheckFailed(
            f"every model was trained with patients that a fold validates or tests, or chosen with "
            f"patients that it tests (L13): "
            f"{'; '.join(problems[:5])}{' ...' * (len(problems) > 5)}",
            where=f"{job.label}: init_from {source.name}",
            expected="per fold a model that has seen none of these, nor patients joined with them",
            remedy=f"follow its folds (split.follow = the run '{source.folder.path.name}'), or "
            "start from a run on other patients; this guard cannot be waived",
        )
    return chosen


def _related(patients: frozenset[str], groups: Groups) -> frozenset[str]:
    """The patients and all who belong together with one of them."""
    touched = {groups.get(p, p) for p in patients}
    return patients | {p for p, g in groups.items() if g in touched}


def _same_numbers(source: _Source, job: Job) -> bool:
    return source.job.features == job.features


def _fit(source: _Source, job: Job, n_classes: int, chosen: Sequence[Json]) -> Json:
    """Try every chosen weight file on a network of the new run; what was taken and left out."""
    from renalkit.learn.transfer import start_from

    system = get_system(job.system)
    net = system.build(system.params(job.params), job.shape(n_classes), job.task)
    taken: Json = {}
    for fold, sha256 in sorted({(c["from_fold"], c["weights_sha256"]) for c in chosen}):
        path = source.folder.fold(source.job.label, fold).weights
        taken = start_from(net, path, sha256, same_numbers=_same_numbers(source, job)).plain
    return taken
