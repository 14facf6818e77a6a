"""What do the readings of a study say? Readers, groups, arms, and the systems of a run beside them.

With a run the readings are kept in it under pseudonyms (readings.csv) with the plan of their
analysis (readings.json), so that evaluation and `verify` compute readers.json again from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from renalkit.domain.readings import ReadingTable
from renalkit.errors import ConfigError
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.readers.reading_rules import CallWords, ReadingRules
from renalkit.readers.readings import read_readings, read_roster
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import make_folder, write_drawings, write_json, write_text
from renalkit.store.runs import amending_manifest
from renalkit.usecases.progress import Progress
from renalkit.usecases.reader_results import SCHEMA, positive_word, reader_results
from renalkit.usecases.reader_systems import system_calls
from renalkit.usecases.reading_cases import (
    CohortPlace,
    ReaderPlan,
    in_cohort,
    positive_of,
    reader_study,
    with_patients,
)
from renalkit.usecases.results import Json, RunResults, read_results
from renalkit.writers.readings import (
    readings_csv,
    write_imrmc,
    write_readings_csv,
    write_rjafroc,
)
from renalkit.writers.report import render_readers


@dataclass(frozen=True, slots=True)
class ReadersRequest:
    """What the user asked for.

    run: whose patients were read and whose systems stand beside the readers. cohort: of the
    patients; with a run only when it has moved. Neither: the truth is the table's own. rules: how
    the table is written. roster: table of the readers with their groups. cases: table of the
    patient of each case, where the readings number them. output: folder for a page and its tables.
    """

    readings: Path
    plan: ReaderPlan = field(default_factory=ReaderPlan)
    run: Path | None = None
    cohort: Path | None = None
    key_file: Path | None = None
    rules: ReadingRules = field(default_factory=ReadingRules)
    roster: Path | None = None
    cases: Path | None = None
    output: Path | None = None
    resampling: BootstrapPlan = field(default_factory=BootstrapPlan)


def evaluate_readers(request: ReadersRequest, progress: Progress) -> Json:
    """Read the table, compute the figures, and keep them in the run where there is one.

    Raises: InputRefused for a table that cannot be used, cases that the cohort does not have or
    another truth than its own; ConfigError; StatisticUndefined for too few cases of a class.
    """
    if request.run is None and (request.plan.systems or request.plan.ai):
        raise ConfigError(["--system and --ai need --run RUN, the run that has the systems"])
    if request.run is not None:
        results = read_results(request.run, progress, request.cohort)
        folder = request.cohort or results.experiment.cohort
        place = CohortPlace(results.cohort, folder, request.key_file)
        found = _in_run(request, results, place, progress)
    else:
        progress.stage("readings")
        place = None
        if request.cohort is not None:
            place = CohortPlace(load_cohort(request.cohort), request.cohort, request.key_file)
        table, left_out = _named(request, place)
        study = reader_study(table, request.plan, request.resampling, request.readings.name)
        found = reader_results(study, left_out, (), positive_word(request.plan, place))
    if request.output is not None:
        _write_page(request.output, found, request.readings.stem)
    return found


def check_readings(request: ReadersRequest) -> None:
    """Refuse now what `evaluate_readers` would refuse of the table, after hours of training.

    request.cohort: must be given. Raises: as `evaluate_readers` for the table and its cases.
    """
    assert request.cohort is not None
    _named(request, CohortPlace(load_cohort(request.cohort), request.cohort, request.key_file))


def _in_run(
    request: ReadersRequest, results: RunResults, place: CohortPlace, progress: Progress
) -> Json:
    progress.stage("readings")
    table, left_out = _named(request, place)
    systems = system_calls(results, request.plan)
    study = reader_study(table, request.plan, results.plan, request.readings.name)
    found = reader_results(study, left_out, systems, positive_word(request.plan, place))
    folder = results.folder
    with amending_manifest(folder.path):
        write_text(folder.readings, readings_csv(table))
        plan = {"schema": SCHEMA, "plan": request.plan.as_json(), "left_out": left_out}
        write_json(folder.readings_plan, plan)
        write_json(folder.readers, found)
    return found


def _named(request: ReadersRequest, place: CohortPlace | None) -> tuple[ReadingTable, Json]:
    """The table, its cases under the cohort's pseudonyms where there is a cohort."""
    rules = replace(
        request.rules,
        readers=None if request.roster is None else read_roster(request.roster),
        scale=request.plan.score_scale,
        incomplete=request.plan.incomplete,
    )
    if place is not None:
        positive = positive_of(place.cohort, request.plan.positive)
        words = _with_classes(rules.words, positive, place.cohort.task.classes)
        rules = replace(rules, words=words)
    table = read_readings(request.readings, rules)
    if request.cases is not None:
        table = with_patients(table, request.cases, request.readings.name)
    if place is None:
        return table, {}
    return in_cohort(table, place, request.plan.positive, request.readings.name)


def _with_classes(words: CallWords, positive: str, classes: Sequence[str]) -> CallWords:
    """Calls may be the names of classes; classes called 0 and 1 mean themselves only."""
    others = tuple(c for c in classes if c != positive)
    if positive in words.negative or set(others) & set(words.positive):
        return CallWords((positive,), others)
    return CallWords((*words.positive, positive), (*words.negative, *others))


# ------------------------------------------------------------------ a page, and other programs


def _write_page(folder: Path, found: Json, title: str) -> None:
    make_folder(folder)
    page = render_readers(found, title)
    write_json(folder / "readers.json", found)
    write_text(folder / "readers.html", page.html)
    write_drawings(folder / "figures", page.files, "readers-*")


def export_readings(path: Path, output: Path, form: str, rules: ReadingRules) -> Json:
    """Write a table of readings in another program's form: csv, imrmc or rjafroc.

    Raises: InputRefused for what the table or the form cannot hold.
    """
    table = read_readings(path, rules)
    beside: Path | None = None
    if form == "rjafroc":
        beside = write_rjafroc(table, output)
    else:
        {"csv": write_readings_csv, "imrmc": write_imrmc}[form](table, output)
    return {
        "written": str(output),
        "cases_table": None if beside is None else str(beside),
        "readers": len(table.readers),
        "cases": len(table.cases),
        "arms": list(table.arms),
        "readings": len(table.readings),
    }
