"""All figures of a reader study, and again from the readings that a run keeps."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.domain.readings import ReadingValue
from renalkit.errors import StoreError
from renalkit.readers.reading_rules import ReadingRules
from renalkit.readers.readings import read_readings
from renalkit.store.files import read_json, write_json
from renalkit.store.runs import RunFolder
from renalkit.usecases.reader_arms import contrasts, overall
from renalkit.usecases.reader_figures import arm_figures
from renalkit.usecases.reader_systems import SystemCalls, beside_readers, system_calls
from renalkit.usecases.reading_cases import (
    CohortPlace,
    ReaderPlan,
    ReaderStudy,
    in_cohort,
    positive_of,
    reader_study,
)
from renalkit.usecases.results import Json, RunResults

SCHEMA = 1


def reader_results(
    study: ReaderStudy, left_out: Json, systems: Sequence[SystemCalls], positive: str
) -> Json:
    """Every figure of readers.json. positive: name of the positive class, '' when not known."""
    plan, table = study.plan, study.table
    ai = next((s.calls for s in systems if s.label == plan.ai), None)
    return {
        "schema": SCHEMA,
        "positive": positive,
        "level": study.level,
        "resampling": {"resamples": study.resampling.n_boot, "seed": study.resampling.seed},
        "cases": len(study.cases),
        "positives": int(study.truth.sum()),
        "left_out": left_out | {"incomplete": len(study.incomplete)},
        "has": {kind.value: table.has(kind) for kind in ReadingValue},
        "vote_at": plan.vote_at,
        "scale": None if plan.score_scale is None else plan.score_scale.text,
        "ties": None if plan.ties is None else plan.ties.value,
        "chair": plan.chair,
        "baseline": study.baseline,
        "arms": [arm_figures(study, arm) for arm in table.arms],
        "contrasts": contrasts(study, ai),
        "overall": overall(study),
        "ai": plan.ai,
        "systems": beside_readers(study, systems),
    }


def positive_word(plan: ReaderPlan, place: CohortPlace | None) -> str:
    """What a positive case is called."""
    return plan.positive or "" if place is None else positive_of(place.cohort, plan.positive)


def write_readers(results: RunResults) -> None:
    """Compute readers.json of a run again from the readings kept in it; nothing without them."""
    folder = results.folder
    if not folder.readings.exists():
        return
    plan, left_out = _stored_plan(folder)
    rules = ReadingRules(scale=plan.score_scale, incomplete=True)
    table = read_readings(folder.readings, rules)
    place = CohortPlace(results.cohort, results.experiment.cohort)
    named, _ = in_cohort(table, place, plan.positive, folder.readings.name)
    study = reader_study(named, plan, results.plan, folder.readings.name)
    systems = system_calls(results, plan)
    write_json(folder.readers, reader_results(study, left_out, systems, positive_word(plan, place)))


def _stored_plan(folder: RunFolder) -> tuple[ReaderPlan, Json]:
    where = folder.readings_plan.name
    try:
        found = read_json(folder.readings_plan)
        return ReaderPlan.of_json(found["plan"]), dict(found["left_out"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            "the plan of the readings is missing, damaged or of another version",
            where=where,
            expected="the file as the readings were evaluated with",
            remedy="evaluate the readings again (renalkit readers evaluate)",
        ) from error
