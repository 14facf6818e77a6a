"""What does a person want to see of an explained system? One page: figures, mean maps, examples."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from renalkit import __version__
from renalkit.writers.document import (
    Cell,
    Column,
    Document,
    Figure,
    Paragraph,
    Section,
    Svg,
    Table,
    TableBuilder,
)
from renalkit.writers.explain_pictures import NAMES
from renalkit.writers.figures import drawn
from renalkit.writers.report import NOT_A_DEVICE, render_document
from renalkit.writers.wording import Estimate, listed, methods_of, number, plural, shown

Json = Mapping[str, Any]

EXAMPLES = 6
"""Pictures per class on the page; all are in the folders beside it."""

_METHODS = {"cam": "CAM", "grad-cam": "Grad-CAM", "grad-cam++": "Grad-CAM++"}


def page_html(found: Json, folder: Path) -> str:
    """The page of explain.json; `folder` holds the pictures that it names."""
    sections = (
        _figures_section(found),
        _weights_section(found),
        _means_section(found),
        _examples_section(found, folder),
    )
    facts = (
        ("System", str(found["label"])),
        ("Method", _METHODS[str(found["method"])]),
        ("Map of", str(found["target"])),
        ("Cohort digest", str(found["cohort_digest"])[:12]),
        ("Split digest", str(found["split_digest"])[:12]),
        ("renalkit", __version__),
    )
    document = Document(
        title=f"{found['run']}: {found['label']}",
        subtitle="What the system looks at",
        facts=facts,
        sections=tuple(s for s in sections if s is not None),
        footer=NOT_A_DEVICE,
    )
    return render_document(document).html


def _modality(name: str) -> str:
    return NAMES.get(name, name)


def _groups(found: Json) -> list[str]:
    return ["all", *found["classes"]]


# ---------------------------------------------------------------- figures


def _figures_section(found: Json) -> Section:
    figures = found["cohort"]
    left_out = sum(int(f["left_out"]) for f in found["folds"])
    opening = (
        f"{plural(figures['n_frames'], 'frame')} of "
        f"{plural(figures['n_patients'], 'patient')} from the test parts of "
        f"{plural(len(found['folds']), 'fold')}, each by the network that was trained without them."
    )
    if left_out:
        opening += f" {plural(left_out, 'frame')} left out: the system cannot be given them."
    return Section(
        "figures",
        "Do the maps say what the system looks at?",
        (
            Paragraph(str(found["pixels"]), "warning"),
            Paragraph(opening, "lead"),
            Paragraph(
                "A map shows where features stand that raise the score of the class. It does not "
                "show why, and a plausible map is no proof: beside each figure stands that of the "
                "same architecture with random weights.",
                "note",
            ),
            _inside_table(found),
            *([_curves_table(found)] if found["steps"] else []),
            _evidence_table(found),
        ),
    )


def _estimate(raw: Json | None) -> Estimate:
    return Estimate.of(raw)


def _inside_table(found: Json) -> Table:
    table = TableBuilder(
        "inside",
        "Share of the map inside the lesion.",
        (
            Column("Modality"),
            Column("Class"),
            Column("Inside", "number"),
            Column("Lesion's area", "number"),
            Column("Inside minus area", "number"),
            Column("Random network", "number"),
            Column("Trained minus random", "number"),
        ),
        digits=2,
        stacked=True,
    )
    for name, own in found["cohort"]["modalities"].items():
        for group in _groups(found):
            table.add(
                Cell(_modality(name), strong=True),
                group,
                _estimate(own["inside"][group]),
                _estimate(own["area"][group]),
                _estimate(own["inside_minus_area"][group]),
                _estimate(own["inside_control"][group]),
                _estimate(own["inside_minus_control"][group]),
            )
    regions = {str(f["region"]) for f in found["frames"]}
    kinds = {"outline": "the outline", "box": "the box", "None": "unknown"}
    words = listed([kinds[r] for r in sorted(regions)])
    return table.build(
        "Mean over patients of the mean over their frames. An even map has the share of the area. "
        f"The lesion is {words}. {methods_of(table.estimates)}."
    )


def _curves_table(found: Json) -> Table:
    table = TableBuilder(
        "curves",
        "Deletion and insertion.",
        (
            Column("Modality"),
            Column("Class"),
            Column("Deletion", "number"),
            Column("Random network", "number"),
            Column("Insertion", "number"),
            Column("Random network", "number"),
        ),
        digits=2,
        stacked=True,
    )
    for name, own in found["cohort"]["modalities"].items():
        for group in _groups(found):
            table.add(
                Cell(_modality(name), strong=True),
                group,
                _estimate(own["deletion"][group]),
                _estimate(own["deletion_control"][group]),
                _estimate(own["insertion"][group]),
                _estimate(own["insertion_control"][group]),
            )
    return table.build(
        "Area under the score of the class while this modality is blurred "
        f"({plural(found['steps'], 'step')}), places with the highest map first, and while it is "
        "brought back. A map that names what decides has a lower deletion and a higher insertion "
        "than that of the random network. "
        f"{methods_of(table.estimates)}."
    )


def _evidence_table(found: Json) -> Table:
    table = TableBuilder(
        "evidence",
        "How much each modality speaks for the class, and how alike trained and random maps are.",
        (
            Column("Modality"),
            Column("Class"),
            Column("Share of the evidence", "number"),
            Column("Random network", "number"),
            Column("Rank correlation", "number"),
            Column("Empty maps", "number"),
        ),
        digits=2,
    )
    for name, own in found["cohort"]["modalities"].items():
        for group in _groups(found):
            empty = f"{own['empty']} of {own['n_frames']}" if group == "all" else ""
            table.add(
                Cell(_modality(name), strong=True),
                group,
                _estimate(own["evidence"][group]),
                _estimate(own["evidence_control"][group]),
                _estimate(own["rank_correlation"][group]),
                empty,
            )
    return table.build(
        "Evidence: sum of the map over that of all modalities of the picture. Rank correlation "
        "(Spearman) with the map of the random network: near 0 when the map comes from training. "
        f"{methods_of(table.estimates)}."
    )


def _weights_section(found: Json) -> Section | None:
    weights = found["cohort"]["weights"]
    if not weights:
        return None
    table = TableBuilder(
        "weights",
        "Weights of the fusion.",
        (
            Column("Modality"),
            Column("Class"),
            Column("Weight", "number"),
            Column("Random network", "number"),
        ),
        digits=3,
    )
    for name, own in weights.items():
        for group in _groups(found):
            table.add(
                Cell(_modality(name), strong=True),
                group,
                _estimate(own[group]),
                _estimate(own["control"][group]),
            )
    text = (
        "Mean over patients of alpha and beta: how much each modality's features count in the "
        f"fused ones. {methods_of(table.estimates)}."
    )
    return Section("weights", "Which modality counts?", (table.build(text),))


# ---------------------------------------------------------------- mean maps


def _means_section(found: Json) -> Section | None:
    means = found["mean_maps"]
    if not means:
        return None
    classes = [c for c in found["classes"] if c in means]
    modalities = list(found["modalities"])
    highest = max(
        (float(np.max(means[c][m]["mean"])) for c in classes for m in modalities if m in means[c]),
        default=0.0,
    )

    def fill(canvas: Canvas) -> None:
        axes = canvas.subplots(len(classes), len(modalities), squeeze=False)
        for row, of_class in enumerate(classes):
            for column, name in enumerate(modalities):
                ax = axes[row][column]
                ax.set_xticks([])
                ax.set_yticks([])
                layers = means[of_class]
                if name not in layers:
                    ax.set_axis_off()
                    continue
                ax.imshow(layers[name]["mean"], cmap="viridis", vmin=0, vmax=highest or 1.0)
                if "lesion" in layers and np.ptp(layers["lesion"]["mean"]) > 0:
                    ax.contour(layers["lesion"]["mean"], [0.5], colors="white", linewidths=1.0)
                patients = plural(layers[name]["patients"], "patient")
                ax.set_title(shown(f"{_modality(name)}, {of_class} ({patients})"))

    figure = Figure(
        "mean-maps",
        "Mean map of each class.",
        drawn(3.2 * max(2, len(modalities)), 3.3 * len(classes), fill),
        "Crops without padding, brought to one square. Each frame's maps sum to 1 over its "
        "modalities, each patient counts once; one scale for all. White: where half of the lesions "
        "are.",
        pictures=True,
        description="Mean activation map per class and modality",
    )
    return Section("mean-maps", "Where, on average?", (figure,))


# ---------------------------------------------------------------- examples


def examples_of(found: Json) -> list[Json]:
    """At most so many frames per class: one of each of some patients, evenly spread."""
    chosen: list[Json] = []
    for of_class in (*found["classes"], None):
        first: dict[str, Json] = {}
        for row in found["frames"]:
            if row["class"] == of_class:
                first.setdefault(row["patient"], row)
        rows = [first[p] for p in sorted(first)]
        n = min(EXAMPLES, len(rows))
        chosen += [rows[(2 * k + 1) * len(rows) // (2 * n)] for k in range(n)]
    return chosen


def _examples_section(found: Json, folder: Path) -> Section:
    rows = examples_of(found)
    names = list(found["modalities"])
    blocks = [_example(row, names, folder, place) for place, row in enumerate(rows)]
    words = (
        f"One frame of some patients of each class. All {plural(len(found['frames']), 'picture')} "
        "are in the folders beside this page. White: the lesion. The maps of a frame share one "
        "scale."
    )
    return Section("examples", "Examples", (Paragraph(words), *blocks))


def _example(row: Json, modalities: Sequence[str], folder: Path, place: int) -> Figure:
    data = (folder / str(row["picture"])).read_bytes()
    width, height = (int.from_bytes(data[k : k + 4], "big") for k in (16, 20))  # PNG header
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    truth = "unknown" if row["class"] is None else str(row["class"])
    words = (
        f"Truth {truth}, map of {row['target']}, score {number(row['scores'][row['target']], 2)}"
    )
    markup = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(shown(words), quote=True)}">'
        f'<image href="{uri}" width="{width}" height="{height}"/></svg>'
    )
    missing = [m for m in modalities if m not in row["maps"]]
    gone = f" {listed([_modality(m) for m in missing])} missing." if missing else ""
    return Figure(
        f"example-{place}",
        f"{words}.",
        Svg(markup),
        f"{row['picture']}.{gone}",
        pictures=True,
        description=words,
    )
