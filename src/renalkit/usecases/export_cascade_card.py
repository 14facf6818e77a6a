"""What does the card of a package of a CT cascade say beyond that of its run: which networks it
holds, and what the run's figures say of them."""

from __future__ import annotations

from renalkit.usecases.cascade_model import TrainedCascade
from renalkit.usecases.model_card import card_for
from renalkit.usecases.results import Json
from renalkit.writers.wording import plural


def cascade_card(trained: TrainedCascade) -> Json:
    """The card of a trained cascade, with the networks of the package.

    Raises as `card_for`.
    """
    card = card_for(trained.run, trained.experiment.label)
    words = folds_words(trained)
    return card | {
        "weights": [{"fold": k, "networks": dict(names)} for k, names in trained.networks.items()],
        "package": {"folds": list(trained.folds), "words": words},
        "cautions": [*card["cautions"], words],
    }


def folds_words(trained: TrainedCascade) -> str:
    """Which networks the package holds, and what the figures say of them."""
    there = len(trained.folds)
    masses = plural(trained.experiment.params.mass.members, "mass network")
    figures = (
        "The figures are over all folds of the run, each scan looked at by the one fold that was "
        "trained without its patient."
    )
    if there == 1:
        return (
            f"The cascade of fold {trained.folds[0]} alone: a kidney network, {masses}, a class "
            f"network. {figures}"
        )
    return (
        f"The cascades of {there} folds as one: at each stage the mean probability of the networks "
        f"of all folds. {figures} That mean was tested on no scan: every patient of the run "
        "trained or chose one of its networks, so only other patients can show how good it is."
    )
