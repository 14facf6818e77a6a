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
then refuses all, since nobody can tell which other patients are shared. A model package brings no
cohort: its patients are found by the keyed hashes of their pseudonyms, where the key is the same.
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
from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.errors import CheckFailed, ConfigError, InputRefused, ModelRefused, StoreError
from renalkit.runtime.known_patients import KnownPatients
from renalkit.runtime.package import WEIGHTS, ModelPackage, is_package, load_package
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
BY_HASH = "hashes of pseudonyms"


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
    with, those of its own initial weights too. hashed: those known by hash alone, who are in
    trained and validated as far as the new cohort has them. validation_loss: of the kept epoch,
    infinite when unknown."""

    fold: int
    weights: Path
    sha256: str
    trained: frozenset[str]
    validated: frozenset[str]
    hashed: tuple[KnownPatients, ...]
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
    """The earlier system whose models are offered. said: what is kept of it. features: numbers it
    is given beside the picture. classes: those it tells apart. past: runs that made its weights,
    its own first; none of a package. remedy: what to do when its patients are in the way."""

    name: str
    said: Json
    features: tuple[str, ...]
    classes: tuple[str, ...]
    models: tuple[_Model, ...]
    past: tuple[_Past, ...]
    remedy: str


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
    weights = _weights(job.init_from, record["from_fold"])
    said = {k: v for k, v in found.items() if k not in ("format", "for", "folds")}
    kept_back = ("fold", "trained", "validated", "hashed")
    said |= {k: v for k, v in record.items() if k not in kept_back}
    return Initial(weights, record["weights_sha256"], found["same_numbers"], said)


def _weights(init_from: Path, fold: int) -> Path:
    if is_package(init_from):
        return init_from / f"fold-{fold}" / WEIGHTS
    return RunFolder(init_from.parent).fold(init_from.name, fold).weights


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
    package = bool(found.get("package"))
    again = sum(f["validated_again"] > 0 for f in found["folds"])
    return {name: found[name] for name in names} | {
        "package": package,
        "folds_validated_again": again,
    }


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
        ConfigError: no such run or system, one without weights of its own, or one that tells other
            classes apart where its class layers are to be taken.
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
        source = _source(job, folder, cohort.patients)
        if job.train.taken_heads and source.classes != cohort.task.classes:
            theirs, ours = (", ".join(c) for c in (source.classes, cohort.task.classes))
            said = f"{source.name} tells {theirs} apart, this cohort {ours}; they must be the same"
            raise ConfigError([f"{job.label}: train.taken_heads: {said}"])
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
            **source.said,
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


def _source(job: Job, folder: RunFolder, people: Sequence[str]) -> _Source:
    """The earlier system with its models. people: patients of the new run."""
    assert job.init_from is not None
    if is_package(job.init_from):
        return _package(load_package(job.init_from), people)
    run, label = RunFolder(job.init_from.parent), job.init_from.name
    where = f"{job.label}: init_from"
    if not run.experiment_json.exists():
        raise ConfigError(
            [f"{where}: no run '{run.path.name}'; expected RUN/SYSTEM or a model package"]
        )
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
    models: list[_Model] = []
    for fold in split.folds:
        own = run.fold(label, fold.index)
        if not own.finished(digest_of_fold(run, jobs[label], digests, fold.index)):
            continue
        if own.weights.exists():
            done = read_json(own.done)
            loss = _validation_loss(own.history, int(done["best_epoch"]))
            earlier = before.get(fold.index, {})
            hashed = tuple(KnownPatients.parse(k) for k in earlier.get("hashed", ()))
            trained, validated = _known(hashed, people)
            models.append(
                _Model(
                    *(fold.index, own.weights, str(done["weights_sha256"])),
                    fold.train.union(earlier.get("trained", ()), trained),
                    fold.validation.union(earlier.get("validated", ()), validated),
                    *(hashed, loss),
                )
            )
    if not models:
        raise ModelRefused(
            "no finished fold with weights",
            where=f"{run.path.name}/{label}",
            expected="a run that was trained here",
            remedy="train that experiment first",
        )
    said = {
        "run": experiment.name,
        "label": label,
        "system": jobs[label].system,
        "settings_digest": str(read_json(run.experiment_json)["digest"]),
        "cohort_digest": digests[0],
        "split_digest": digests[1],
    }
    past = tuple(_past(run, experiment, jobs[label]))
    remedy = f"follow its folds (split.follow = the run '{run.path.name}'), or start from a run on "
    task = ClassTask.parse(read_json(run.cohort)["task"])
    return _Source(
        *(f"{run.path.name}/{label}", said, jobs[label].features, task.classes),
        *(tuple(models), past, remedy + "other patients"),
    )


def _package(package: ModelPackage, people: Sequence[str]) -> _Source:
    """A package's members as models."""
    spec = package.spec
    models: list[_Model] = []
    for member in spec.members:
        hashed = package.known(member)
        models.append(
            _Model(
                *(member.fold, package.path / member.folder / WEIGHTS, member.weights_sha256),
                *_known(hashed, people),
                *(hashed, float("inf")),
            )
        )
    said = {
        "run": f"{spec.name} {spec.version}",
        "package": True,
        "label": str(spec.job["label"]),
        "system": str(spec.job["system"]),
        "settings_digest": package.digest,
        "cohort_digest": "",
        "split_digest": "",
    }
    features = tuple(spec.job.get("features", ()))
    remedy = "start from a package made without them"
    name = f"{spec.name}/{spec.version}"
    return _Source(name, said, features, spec.classes, tuple(models), (), remedy)


def _known(
    hashed: Sequence[KnownPatients], people: Sequence[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Those of the people who are among the trained ones, and among the validated ones."""
    parts = [known.among(people) for known in hashed]
    nobody = frozenset[str]()
    return nobody.union(*(t for t, _ in parts)), nobody.union(*(v for _, v in parts))


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
    hashed = any(m.hashed for m in source.models)
    others = {past.cohort_digest: past for past in source.past}
    others.pop(cohort.digest, None)
    if not others:
        return groups, BY_HASH if hashed else SAME_COHORT, frozenset(cohort.patients)
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
    alike = groups_of(scan, find_likenesses(scan, cohort.patients))
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
                remedy="ingest both cohorts with the same key file; where they are strangers, "
                "leave these patients out of the label table; this guard cannot be waived",
            )
    return joined, BY_HASH if hashed else how, everyone


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
                **({"hashed": [known.plain for known in model.hashed]} if model.hashed else {}),
            }
        )
    if problems:
        raise CheckFailed(
            f"every model was trained with patients that a fold validates or tests, or chosen with "
            f"patients that it tests (L13): "
            f"{'; '.join(problems[:5])}{' ...' * (len(problems) > 5)}",
            where=f"{job.label}: init_from {source.name}",
            expected="per fold a model that has seen none of these, nor patients joined with them",
            remedy=f"{source.remedy}; this guard cannot be waived",
        )
    return chosen


def _related(patients: frozenset[str], groups: Groups) -> frozenset[str]:
    """The patients and all who belong together with one of them."""
    touched = {groups.get(p, p) for p in patients}
    return patients | {p for p, g in groups.items() if g in touched}


def _same_numbers(source: _Source, job: Job) -> bool:
    return source.features == job.features


def _fit(source: _Source, job: Job, n_classes: int, chosen: Sequence[Json]) -> Json:
    """Try every chosen weight file on a network of the new run; what was taken and left out."""
    from renalkit.learn.transfer import start_from

    system = get_system(job.system)
    net = system.build(system.params(job.params), job.shape(n_classes), job.task)
    taken: Json = {}
    used = {c["from_fold"] for c in chosen}
    for model in (m for m in source.models if m.fold in used):
        same = _same_numbers(source, job)
        taken = start_from(
            *(net, model.weights, model.sha256),
            same_numbers=same,
            heads_too=job.train.taken_heads,
        ).plain
    return taken | ({"class_heads_taken": True} if job.train.taken_heads else {})
