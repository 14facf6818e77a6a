"""Presets of papers: every one is a valid experiment, and every change of it is said."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renalkit.config import parse_settings, to_toml
from renalkit.errors import ConfigError, InputRefused
from renalkit.store.files import write_json
from renalkit.store.runs import RunFolder
from renalkit.usecases.cascade_experiment import CascadeExperiment, is_cascade
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.hu_baseline import HU_BASELINE
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import write_report
from renalkit.usecases.reproduce import (
    PAPERS,
    START,
    ReproduceRequest,
    paper_preset,
    protocol,
    reproduction_record,
    run_reproduce,
)

PROFILES = [(p, name) for p in PAPERS for name in paper_preset(p).profiles]


def tables_of(paper: str, profile: str, variant: str | None = None) -> dict[str, Any]:
    preset = paper_preset(paper)
    chosen = None if variant is None else preset.variants[variant]
    tables = {"name": "n", "cohort": "c", **protocol(preset, preset.profiles[profile], chosen)}
    return tomllib.loads(to_toml(tables))


def cascade_of(paper: str, profile: str) -> CascadeExperiment:
    return parse_settings(CascadeExperiment, tables_of(paper, profile))


def experiment_of(paper: str, profile: str, variant: str | None = None) -> Experiment:
    return parse_settings(Experiment, tables_of(paper, profile, variant))


def test_papers_are_faithful_or_small_and_one_is_shown_in_minutes() -> None:
    assert len(PROFILES) == 11
    assert list(paper_preset("P3").variants) == ["kfold", "holdout"]


@pytest.mark.parametrize(("paper", "profile"), PROFILES)
def test_every_preset_is_an_experiment_that_survives_toml(paper: str, profile: str) -> None:
    preset = paper_preset(paper)
    assert preset.deviations
    assert bool(preset.profiles[profile].deviations) == (profile != "faithful")
    if is_cascade(preset.experiment):
        found = cascade_of(paper, profile)
        assert [row.system for row in preset.rows] == [found.label, HU_BASELINE]
        return
    for variant in (None, *preset.variants):
        jobs = jobs_of(experiment_of(paper, profile, variant))
        labels = {job.label for job in jobs}
        rows = (*preset.rows, *(() if variant is None else preset.variants[variant].rows))
        assert {row.system for row in rows if row.system} == labels


def test_p2_is_as_the_paper_says() -> None:
    found = experiment_of("P2", "faithful")
    train = found.train
    assert (train.optimizer, train.lr, train.epochs) == ("sgd", 0.05, 100)
    assert (train.schedule, train.step_epochs, train.step_factor) == ("step", 10, 0.5)
    assert (train.sampling, train.monitor) == ("balanced", "patient-accuracy")
    assert (found.input.size, found.input.region, found.input.margin) == (300, "lesion", 0.0)
    assert (found.split.folds, found.split.validation_share) == (5, 0.2)
    fused, bmode, ceus = jobs_of(found)
    assert [j.system for j in (fused, bmode, ceus)] == ["mufnet-2022", "bmode-net", "ceus-net"]
    assert fused.params["backbone"] == "efficientnet-b3"
    assert [list(j.modalities) for j in (fused, bmode, ceus)] == [["B", "CEUS"], ["B"], ["CEUS"]]


def test_p2_with_perfusion_figures_has_a_fourth_network_like_the_first() -> None:
    for profile in ("faithful", "cpu"):
        first, *_, last = jobs_of(experiment_of("P2", profile, "perfusion"))
        assert (last.label, last.features) == ("mufnet-perfusion", ("perfusion",))
        assert (last.system, last.train) == (first.system, first.train)
        assert last.params == first.params | {"number_width": 0}
    variant = paper_preset("P2").variants["perfusion"]
    assert variant.asked
    assert [row.ours for row in variant.rows] == [True]


def test_a_start_from_earlier_networks_is_said_instead_of_the_usual_one(tmp_path: Path) -> None:
    preset = paper_preset("P2")
    request = ReproduceRequest("P2", tmp_path, tmp_path, init_from=("runs/first/mufnet-2022",))
    found = reproduction_record(preset, request, ("", None))["deviations"]
    (start,) = [d["here"] for d in found if d["topic"] == START]
    assert start == "the networks of first/mufnet-2022"
    usual = {d.topic: d.here for d in preset.deviations}
    assert {d["topic"]: d["here"] for d in found} == usual | {START: start}


def test_p3_reads_its_split_both_ways() -> None:
    assert experiment_of("P3", "faithful", "kfold").split.plan == "kfold"
    held = experiment_of("P3", "faithful", "holdout").split
    assert (held.plan, held.test_share) == ("holdout", 0.2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"paper": "P9"}, "'P9': no such paper; known: P1, P2, P3, P4, P5"),
        ({"profile": "fast"}, "--profile: 'fast' is not offered.*faithful, cpu, demo"),
        (
            {"variant": "holdout"},
            "--variant: 'holdout' is not offered for this paper; known: perfusion",
        ),
    ],
)
def test_what_is_not_offered_is_said(tmp_path: Path, changed: dict[str, str], words: str) -> None:
    request = ReproduceRequest(**{"paper": "P2", **changed}, cohort=tmp_path, output=tmp_path)
    with pytest.raises(ConfigError, match=words):
        run_reproduce(request, None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_earlier_weights_are_handed_on_to_the_run(tmp_path: Path) -> None:
    """Two starts for every system contradict one another, which only the run can know."""
    request = ReproduceRequest("P3", tmp_path, tmp_path, variant="kfold", init_from=("a/b", "c/d"))
    with pytest.raises(ConfigError, match="has initial weights already"):
        run_reproduce(request, Silent())


def test_readings_of_strangers_are_refused_before_training(
    tmp_path: Path, made_run: ModuleType
) -> None:
    made = made_run.make_run(tmp_path / "earlier", n_patients=14)
    readings = tmp_path / "readings.csv"
    readings.write_text("patient,reader,score\nnobody,A,0.5\n")
    out = tmp_path / "runs"
    request = ReproduceRequest("P2", made.cohort, out, "cpu", readings=readings)
    with pytest.raises(InputRefused, match="1 of 1 cases are no patients of this cohort"):
        run_reproduce(request, Silent())
    assert not out.exists()


def test_the_report_has_the_papers_table_with_both_figures(
    tmp_path: Path, made_run: ModuleType
) -> None:
    made = made_run.make_run(tmp_path, n_patients=14)
    request = ReproduceRequest("P1", made.cohort, tmp_path, "cpu", overrides=("train.epochs=3",))
    record = reproduction_record(paper_preset("P1"), request, ("", None))
    write_json(RunFolder(made.run).reproduction, record)
    page = write_report(made.run, None, Silent()).read_text()
    section = page[page.rindex("The protocol of P1") :]
    section = section[: section.index("</section>")]
    words = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "Joint network published" in words
    assert "0.880" in words
    assert "Junior readers, majority published" not in words
    assert "a quarter of the channels at 96 px" in words
    assert "Changed further on the command line: train.epochs=3." in words
    table = made.run / "figures" / "tables" / "reproduction.csv"
    rows = [line for line in table.read_text().splitlines() if ",measured," in line]
    assert rows
    assert any(",patient" in line for line in rows)
