"""The model card: refused while its authors are silent, true to the run, safe in any medium."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renalkit.errors import ConfigError, ModelRefused
from renalkit.store.runs import REPORTING, changed_files, write_manifest
from renalkit.usecases.model_card import CardRequest, card_words, write_card

SAID = '[card]\nintended_use = "Research on reader support."\nlimitations = "Simulated patients."\n'


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> Path:
    run: Path = made_run.make_run(tmp_path_factory.mktemp("made"), n_patients=30).run
    (run / REPORTING).write_text(SAID)
    return run


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original.parents[1], tmp_path / "work")
    return tmp_path / "work" / "runs" / "made-run"


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


# ---- refused -------------------------------------------------------------------------------


def test_there_is_no_card_while_use_and_limits_are_unsaid(made: Path, tmp_path: Path) -> None:
    (made / REPORTING).unlink()
    out = tmp_path / "card.md"
    with pytest.raises(ConfigError) as caught:
        write_card(CardRequest(made, output=out))
    assert caught.value.where == REPORTING
    assert [p.partition(":")[0] for p in caught.value.problems] == [
        "card.intended_use",
        "card.limitations",
    ]
    assert not out.exists()
    assert 'intended_use = ""' in (made / REPORTING).read_text()


@pytest.mark.parametrize("empty", ["", "   ", "\\n\\t"])
@pytest.mark.parametrize("key", ["intended_use", "limitations"])
def test_white_space_is_not_said(made: Path, key: str, empty: str) -> None:
    said = re.sub(rf'{key} = ".*"', lambda _: f'{key} = "{empty}"', SAID)
    (made / REPORTING).write_text(said)
    with pytest.raises(ConfigError, match=f"card.{key}: empty"):
        write_card(CardRequest(made))


def test_an_unknown_system_and_suffix_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'vgg' in this run; there are multitask-us, unet"):
        write_card(CardRequest(made, "vgg"))
    with pytest.raises(ConfigError, match="'card.pdf' ends in none of .md, .html, .json"):
        write_card(CardRequest(made, output=tmp_path / "card.pdf"))


def test_a_system_without_a_finished_fold_is_refused(made: Path) -> None:
    metrics = stored(made / "metrics.json")
    metrics["systems"][1] |= {"folds": [], "segmentation": None, "training": []}
    (made / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ModelRefused, match="no finished fold"):
        write_card(CardRequest(made, "unet"))


# ---- true to the run -----------------------------------------------------------------------


def test_the_object_holds_what_the_run_holds(made: Path) -> None:
    found = write_card(CardRequest(made))
    card = stored(made / "multitask-us" / "card.json")
    assert card == json.loads(json.dumps(found["card"]))
    assert set(card) == {
        *("schema", "kind", "notice", "authors", "model", "weights", "data", "training"),
        *("performance", "subgroups", "cautions", "provenance"),
    }
    metrics = stored(made / "metrics.json")
    system = metrics["systems"][0]
    assert card["performance"]["segmentation"] == system["segmentation"]
    patient = {k: v for k, v in system["classification"]["patient"].items() if k != "roc"}
    assert card["performance"]["classification"]["patient"] == patient
    assert card["data"]["cohort"] == metrics["cohort"]
    hashes = [
        stored(made / "multitask-us" / f"fold-{k}" / "done.json")["weights_sha256"]
        for k in range(3)
    ]
    assert [w["sha256"] for w in card["weights"]] == hashes
    assert card["provenance"]["cohort_digest"] == metrics["cohort_digest"]
    assert card["model"]["input"]["size"] == 128
    assert card["model"]["params"]["width"] == 1.0
    assert card["training"]["options"]["optimizer"] == "adam"
    slope = stored(made / "usefulness.json")["systems"][0]["calibration"]["slope"]
    assert card["performance"]["calibration"]["slope"] == slope
    assert [v["name"] for v in card["subgroups"]] == ["scanner", "site"]


def test_it_speaks_of_its_own_system_alone(made: Path) -> None:
    card = write_card(CardRequest(made, "unet"))["card"]
    text = json.dumps(
        {k: v for k, v in card.items() if k != "model"} | {"m": card["model"]["words"]}
    )
    assert "resnet18" not in text
    assert "multitask-us" not in text
    assert card["model"]["title"] == "U-Net"
    assert card["performance"]["classification"] is None
    assert card["performance"]["calibration"] is None


def test_cautions_are_those_of_the_run(made: Path) -> None:
    card = write_card(CardRequest(made))["card"]
    assert any("waived by name: L03" in words for words in card["cautions"])
    assert any("no external test" in words for words in card["cautions"])
    check = stored(made / "check.json")
    check["probes"][0]["alarming"] = True
    (made / "check.json").write_text(json.dumps(check))
    again = write_card(CardRequest(made))["card"]
    assert any("Shortcut" in words and "margin" in words for words in again["cautions"])


def test_no_path_of_pretrained_weights_is_told(made: Path) -> None:
    experiment = stored(made / "experiment.json")
    sha = "ab" * 32
    params = {"init_weights": "/data/secret/net.safetensors", "init_sha256": sha}
    experiment["settings"]["systems"][2]["params"] = params
    (made / "experiment.json").write_text(json.dumps(experiment))
    card = write_card(CardRequest(made, "resnet18"))["card"]
    assert "secret" not in json.dumps(card)
    assert card["model"]["params"]["init_sha256"] == sha
    assert f"local file (SHA-256 {sha[:12]}…)" in " ".join(card["training"]["words"])


# ---- in any medium -------------------------------------------------------------------------


def test_every_medium_gives_figures_with_interval_n_and_method(made: Path, tmp_path: Path) -> None:
    for suffix in (".md", ".html"):
        out = tmp_path / f"card{suffix}"
        card = write_card(CardRequest(made, output=out))["card"]
        text = out.read_text()
        auc = card["performance"]["classification"]["patient"]["auc"]
        for words in (
            f"{auc['value']:.3f}",
            auc["method"],
            "Research on reader support.",
            "Simulated patients.",
            "Not for diagnosis or treatment decisions.",
            card["weights"][2]["sha256"],
        ):
            assert words in text, (suffix, words)
    row = next(x for x in (tmp_path / "card.md").read_text().splitlines() if "AUC per" in x)
    assert [c.strip() for c in row.strip("|").split("|")][2:] == ["30", "patient", auc["method"]]


def test_foreign_words_do_not_act(made: Path, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)> [a](javascript:b) | **c** \\u202e"
    (made / REPORTING).write_text(SAID.replace("Simulated patients.", nasty))
    for suffix in (".md", ".html"):
        out = tmp_path / f"card{suffix}"
        write_card(CardRequest(made, output=out))
        text = out.read_text()
        assert not re.search(r"(?<!\\)<img", text)
        if suffix == ".md":
            assert not re.search(r"(?<!\\)\]\(javascript", text)
        assert "\u202e" not in text


def test_it_is_written_twice_the_same_and_into_the_manifest(made: Path) -> None:
    write_manifest(made)
    write_card(CardRequest(made))
    first = (made / "multitask-us" / "card.json").read_bytes()
    write_card(CardRequest(made))
    assert (made / "multitask-us" / "card.json").read_bytes() == first
    assert changed_files(made) == ()
    assert "multitask-us/card.json" in (made / "MANIFEST.sha256").read_text()


def test_words_for_a_terminal_warn(made: Path) -> None:
    words = card_words(write_card(CardRequest(made)))
    assert "card.json" in words
    assert "waived" in words
    assert "not a medical device" in words
