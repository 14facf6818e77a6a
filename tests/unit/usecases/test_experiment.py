"""Experiment files: what they may say, and what their digests cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from renalkit.config import to_toml
from renalkit.errors import ConfigError
from renalkit.systems import get_system
from renalkit.usecases.compare import PRESETS, CompareRequest, run_compare
from renalkit.usecases.experiment import Experiment, jobs_of, read_experiment
from renalkit.usecases.progress import Silent

TEXT = """
name = "e"
cohort = "c"
[[systems]]
name = "multitask-us"
[[systems]]
name = "unet"
task = "both"
train = { epochs = 3 }
size = 64
"""


def _written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "e.toml"
    path.write_text(text)
    return path


def test_the_cohort_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    found = read_experiment(_written(tmp_path))
    assert found.cohort == tmp_path / "c"


def test_each_system_has_its_own_differences(tmp_path: Path) -> None:
    first, second = jobs_of(read_experiment(_written(tmp_path)))
    assert (first.train.epochs, second.train.epochs) == (60, 3)
    assert (first.input.size, second.input.size) == (128, 64)
    assert (first.task, second.task) == ("both", "both")
    assert first.params["cbam"] is True, "defaults are written out"


def test_the_digest_covers_settings_not_places(tmp_path: Path) -> None:
    one = read_experiment(_written(tmp_path))
    assert one.digest == one.model_copy(update={"cohort": Path("/else")}).digest
    assert one.digest == read_experiment(_written(tmp_path), ["workers=4"]).digest
    assert one.digest != read_experiment(_written(tmp_path), ["train.lr=0.01"]).digest
    assert Experiment.model_validate(one.plain) == one


def test_thresholds_may_be_asked_for_by_rate_or_cost(tmp_path: Path) -> None:
    plain = read_experiment(_written(tmp_path))
    assert set(plain.plain["statistics"]) & {"threshold_target", "missed_cost"} == set()
    text = '[statistics]\nthreshold = "sensitivity"\nthreshold_target = 0.95\n'
    found = read_experiment(_written(tmp_path, TEXT + text))
    assert found.statistics.operating_point.words == "sensitivity >= 0.95"
    assert found.digest != plain.digest
    assert Experiment.model_validate(found.plain) == found
    text = '[statistics]\nthreshold = "cost"\nmissed_cost = 10\nprevalence = 0.2\n'
    found = read_experiment(_written(tmp_path, TEXT + text))
    assert "10 needless calls, prevalence 0.2" in found.statistics.operating_point.words


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('threshold = "specificity"', "specificity needs a target .keys threshold, threshold_t"),
        ("threshold_target = 0.9", "youden has no target"),
        ('threshold = "cost"', "cost needs cost of a missed positive"),
        ('threshold = "cost"\nmissed_cost = -1', "expected above 0"),
        ("prevalence = 0.2", "expected rule cost"),
        ('threshold = "best"', "statistics.threshold"),
    ],
)
def test_thresholds_without_their_numbers_are_refused(
    tmp_path: Path, keys: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_experiment(_written(tmp_path, f"{TEXT}[statistics]\n{keys}\n"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('name = "unet"\ntask = "both"', "two systems are labelled"),
        ("size = 64", "systems.1.params.widht: unknown key"),
        ("size = 64\nlabel = 'a b'", "systems.1.label"),
    ],
)
def test_problems_name_the_system(tmp_path: Path, change: str, words: str) -> None:
    text = {
        "two systems are labelled": TEXT.replace('name = "unet"', 'name = "multitask-us"'),
        "systems.1.params.widht: unknown key": TEXT + "params = { widht = 1 }",
        "systems.1.label": TEXT + "label = 'a b'",
    }[words]
    assert change
    with pytest.raises(ConfigError, match=words):
        read_experiment(_written(tmp_path, text))


def test_presets_are_those_of_the_papers() -> None:
    assert list(PRESETS) == ["P1-ablation", "P1-input-size", "P2-backbones", "P2-fusion"]
    for name, preset in PRESETS.items():
        system = "mufnet-2022" if name.startswith("P2") else "multitask-us"
        for label, changes in preset.variants.items():
            item = {"name": system, "label": label}
            params = {k[7:]: v for k, v in changes.items() if k.startswith("params.")}
            size = changes.get("size")
            # the keys of the settings themselves are checked by the system
            get_system(system).params(params)
            jobs_of(
                Experiment.model_validate(
                    {
                        "name": "x",
                        "cohort": "c",
                        "systems": [{**item, "params": params, "size": size}],
                    }
                )
            )


def test_settings_survive_being_written_as_toml() -> None:
    tables = {
        "name": 'a "quoted" \\ name',
        "flag": True,
        "list": [1, 2.5, "x"],
        "train": {"lr": 1e-3, "nested": {"a": 1}},
        "systems": [{"name": "unet", "params": {"width": 0.25}}, {"name": "b"}],
    }
    assert to_toml(tables)


@pytest.mark.parametrize(
    ("vary", "preset", "words"),
    [
        (("params.width",), None, "expected KEY=A,B,C"),
        ((), "P9", "there are P1-ablation"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(
    tmp_path: Path, vary: tuple[str, ...], preset: str | None, words: str
) -> None:
    request = CompareRequest(_written(tmp_path), vary, preset, None, tmp_path / "runs")
    with pytest.raises(ConfigError, match=words):
        run_compare(request, Silent())


def test_varying_a_run_folder_is_refused(tmp_path: Path) -> None:
    request = CompareRequest(tmp_path, ("params.width=1,2",), None, None, tmp_path)
    with pytest.raises(ConfigError, match="need an experiment file"):
        run_compare(request, Silent())


def test_a_holdout_may_train_one_model(tmp_path: Path) -> None:
    changes = ["split.plan=holdout", "split.folds=1"]
    assert read_experiment(_written(tmp_path), changes).split.folds == 1
    with pytest.raises(ConfigError, match="folds"):
        read_experiment(_written(tmp_path), ["split.folds=0"])
