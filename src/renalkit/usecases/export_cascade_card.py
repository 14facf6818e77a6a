"""What does a package of a CT cascade say of what it is, who made it and how good it is?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from renalkit.errors import ConfigError
from renalkit.store.files import read_json
from renalkit.store.splits import load_split
from renalkit.systems.ct_cascade import CARD
from renalkit.usecases.cascade_evaluate import main_figures
from renalkit.usecases.cascade_model import TrainedCascade
from renalkit.usecases.model_card import NEEDED
from renalkit.usecases.report import read_source
from renalkit.usecases.reporting import read_reporting
from renalkit.writers.report import NOT_A_DEVICE

Json = dict[str, Any]
SCHEMA = 1


def cascade_card(trained: TrainedCascade) -> Json:
    """The card of a trained cascade as a plain object.

    Raises:
        ConfigError: its authors have not said what it is for and what its limits are.
        StoreError: no figures yet, or a damaged run.
    """
    run, label = trained.run, trained.experiment.label
    source = read_source(run, None, pictures=False)
    said = read_reporting(run).card
    problems = [
        f"card.{key}: empty; write {asks}, below [card]. There is no package without it"
        for key, asks in NEEDED.items()
        if not getattr(said, key).strip()
    ]
    if problems:
        raise ConfigError(problems, where=run.reporting.name)
    metrics = read_json(run.metrics)
    experiment = trained.experiment
    folds = load_split(run.folds).folds
    return {
        "schema": SCHEMA,
        "kind": "model card",
        "notice": NOT_A_DEVICE,
        "authors": said.model_dump(mode="json"),
        "model": {
            "label": label,
            "system": experiment.cascade,
            "title": CARD.title,
            "summary": CARD.summary,
            "reference": CARD.reference,
            "classes": list(trained.classes),
            "params": experiment.params.model_dump(mode="json"),
            "open_choices": [asdict(choice) for choice in CARD.open_choices],
        },
        "weights": [{"fold": k, "networks": dict(names)} for k, names in trained.networks.items()],
        "data": {
            "cohort": metrics["cohort"],
            "phases": [phase.value for phase in experiment.phases],
            "folds": [
                {"fold": f.index, "trained": len(f.train), "validated": len(f.validation)}
                for f in folds
                if f.index in trained.networks
            ],
        },
        "training": {
            "options": experiment.train.model_dump(mode="json"),
            "augment": experiment.plain["augment"],
        },
        "performance": {
            "figures": main_figures(metrics).get(label, {}),
            "published": [asdict(claim) for claim in CARD.claims],
        },
        "package": {"folds": list(trained.folds), "words": folds_words(trained)},
        "cautions": [folds_words(trained)],
        "provenance": {
            "run": source.name,
            "settings_digest": source.settings_digest,
            "cohort_digest": metrics["cohort_digest"],
            "split_digest": metrics["split_digest"],
        },
    }


def folds_words(trained: TrainedCascade) -> str:
    """Which networks the package holds, and what the figures say of them."""
    there = len(trained.folds)
    figures = (
        "The figures are over all folds of the run, each scan looked at by the one fold that was "
        "trained without its patient."
    )
    if there == 1:
        return (
            f"The cascade of fold {trained.folds[0]} alone: kidney network, "
            f"{trained.experiment.params.mass.members} mass networks, class network. {figures}"
        )
    return (
        f"The cascades of {there} folds as one: at each stage the mean probability of the networks "
        f"of all folds. {figures} That mean was tested on no scan: every patient of the run "
        "trained or chose one of its networks, so only other patients can show how good it is."
    )
