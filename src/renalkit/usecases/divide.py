"""How is a run named, its cohort checked and its patients divided, once, so that it can resume?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from renalkit.domain.cohort import Cohort
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Split, SplitOptions, follow_split, make_split, patient_facts
from renalkit.errors import CheckFailed, InputRefused, Reason, StoreError
from renalkit.store.files import make_folder, read_json, write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split, read_nnunet
from renalkit.usecases.check import check
from renalkit.usecases.experiment import Divided
from renalkit.usecases.progress import Progress

NNUNET_SPLITS = "splits_final.json"


def checked_groups(
    folder: RunFolder, cohort: Cohort, waivers: tuple[str, ...], progress: Progress
) -> dict[str, str]:
    """Patient -> group of those who belong together, from the check of the cohort.

    A run that began on this very cohort with these waivers is not checked again.
    """
    if folder.folds.exists() and read_json(folder.cohort)["digest"] == cohort.digest:
        before = read_json(folder.check)
        if before["waivers"] == list(waivers):
            return before["groups"]
    progress.stage("checking the cohort for leaks and shortcuts")
    found = check(cohort, frozenset(waivers))
    make_folder(folder.path)
    write_json(folder.check, found.to_json())
    if found.blocking:
        raise CheckFailed(
            "the cohort check found what would make the figures wrong",
            where=folder.check.name,
            expected="no blocking finding",
            remedy="mend the cohort, or waive the guard by name (--waive L03); "
            "the report prints every waiver",
        )
    return found.groups


def refuse_taken(folder: RunFolder, experiment: Divided) -> None:
    """Refuse a name that another experiment's run has."""
    if not folder.experiment_json.exists():
        return
    if read_json(folder.experiment_json).get("digest") != experiment.digest:
        raise StoreError(
            f"a run named '{experiment.name}' exists with other settings",
            where=folder.path.name,
            expected="the same settings, to resume",
            remedy="change 'name' in the experiment file, or remove the run",
        )


def settle(folder: RunFolder, experiment: Divided, given: tuple[Path, tuple[str, ...]]) -> None:
    """Write the settings on first use. given: the experiment file, and what the command line
    changed."""
    if folder.experiment_json.exists():
        return
    write_text(folder.experiment_toml, given[0].read_text(encoding="utf-8"))
    write_json(
        folder.experiment_json,
        {
            "digest": experiment.digest,
            "settings": experiment.placed(folder.path),
            "set": list(given[1]),
        },
    )


def keep_cohort(folder: RunFolder, cohort: Cohort) -> None:
    """What later steps must know of the cohort; refuse one that changed since."""
    facts = {"name": cohort.name, "digest": cohort.digest, "task": cohort.task.plain}
    if folder.cohort.exists() and read_json(folder.cohort) != facts:
        raise StoreError(
            "the cohort changed since this run began",
            where=folder.path.name,
            expected="the same studies, masks and labels",
            remedy="give the experiment another name",
        )
    write_json(folder.cohort, facts)


def divide(
    folder: RunFolder,
    experiment: Divided,
    data: tuple[Cohort, frozenset[str]],
    groups: Mapping[str, str],
) -> Split:
    """The folds a run began with, else those the experiment asks for.

    data: the cohort, and which of its patients come from outside. groups: see `checked_groups`.
    """
    if folder.folds.exists():
        return load_split(folder.folds)
    wanted, (cohort, outside) = experiment.split, data
    options = SplitOptions(
        folds=wanted.folds,
        repeats=wanted.repeats,
        test_share=wanted.test_share,
        validation_share=wanted.validation_share,
        stratify=wanted.stratify,
        external=outside,
    )
    facts = patient_facts(cohort, groups)
    if wanted.follow is not None:
        return follow_split(facts, load_split(RunFolder(wanted.follow).folds), wanted.seed, options)
    if wanted.file is None:
        return make_split(facts, wanted.plan, wanted.seed, options)
    if wanted.file.name == NNUNET_SPLITS:
        return read_nnunet(wanted.file, nnunet_cases(cohort), facts, wanted.seed, options)
    split = load_split(wanted.file)
    strangers = {p for f in split.folds for p in f.train | f.validation | f.test}
    strangers -= set(cohort.patients)
    if strangers:
        raise InputRefused(
            Reason.SPLIT_OVERLAP,
            f"the folds name {len(strangers)} patients this cohort does not have",
            where=wanted.file.name,
            remedy="use the folds of a run on this cohort",
        )
    return split


def nnunet_cases(cohort: Cohort) -> dict[str, str]:
    """nnU-Net's case names (one per frame) and their patients."""
    return {s.key.text: s.key.patient for s in b_mode_samples(cohort)}
