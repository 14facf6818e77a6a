"""How well did the systems do? Segmentation, classification, comparisons, training, cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import (
    Curve,
    Interval,
    Matrix,
    Panel,
    confusion,
    intervals,
    learning_curves,
    roc,
    spread,
)
from renalkit.writers.ordinal_tables import ordinal_tables
from renalkit.writers.overlays import gallery
from renalkit.writers.patient_scores import ways_table
from renalkit.writers.source import (
    ESTIMATE_HEAD,
    Json,
    ReportSource,
    estimate,
    estimate_row,
    metric_name,
)
from renalkit.writers.wording import (
    NOT_AVAILABLE,
    PLUS_MINUS,
    Estimate,
    count,
    duration,
    finite,
    listed,
    methods_of,
    number,
    plural,
)

NUMBER = "number"
_LENGTHS = ("hd95", "assd")
_MASKS = ("dice", "iou", "hd95")
_CALLS = ("auc", "accuracy", "sensitivity", "specificity")


def _strong(system: Json) -> Cell:
    return Cell(str(system["label"]), strong=True)


# ---- segmentation --------------------------------------------------------------------------


def segmentation(source: ReportSource) -> Section | None:
    """Overlap and distance per system, pooled and by fold, by class, and on empty references."""
    systems = source.segmenting
    if not systems:
        return None
    blocks: list[Block] = [_dice_figure(source), *_pooled_tables(systems)]
    blocks += [_segmentation_folds(source), _class_table(systems)]
    cases = _case_figure(source)
    if cases:
        blocks.append(cases)
    empty = [s for s in systems if s["segmentation"].get("empty_reference")]
    if empty:
        blocks.append(_empty_table(empty))
    else:
        blocks.append(
            Paragraph(
                "Every tested image has a lesion in its reference; how the systems behave "
                "on images without one was not tested."
            )
        )
    return Section("segmentation", "Segmentation", tuple(blocks))


def _dice_figure(source: ReportSource) -> Figure:
    systems = source.segmenting
    items = [
        Interval(
            str(s["label"]),
            estimate(s["segmentation"]["pooled"], "dice"),
            tuple(
                v
                for v in map(finite, s["segmentation"]["fold_mean"]["dice"]["folds"])
                if v is not None
            ),
            source.place(s["label"]),
        )
        for s in systems
    ]
    rows = [(item.name, "pooled", *estimate_row(item.estimate)) for item in items]
    rows += [
        (
            item.name,
            f"fold {fold}",
            value,
            None,
            None,
            None,
            None,
            "",
            "mean over the fold's images",
            "",
        )
        for item, s in zip(items, systems, strict=True)
        for fold, value in zip(_folds_of(s), item.dots, strict=False)
    ]
    return Figure(
        "segmentation-dice",
        "Dice of each system.",
        intervals(items, "Mean Dice"),
        "Filled mark and line: pooled mean and interval. Open marks: means of single folds, which "
        "show the spread between folds and are no interval.",
        csv=csv_text(("system", "what", *ESTIMATE_HEAD), rows),
        description="Mean Dice per system with intervals and fold means",
    )


def _folds_of(system: Json) -> Sequence[int]:
    """The folds behind the fold means of Dice."""
    return system["segmentation"]["fold_mean"]["dice"].get("of") or system["folds"]


def _pooled_tables(systems: Sequence[Json]) -> list[Table]:
    """One table per way of measuring, so that millimetres and pixels never share a column."""
    ways: dict[tuple[str, str, float], list[Json]] = {}
    for s in systems:
        found = s["segmentation"]
        way = (str(found["length_unit"]), str(found["definition"]), float(found["tolerance"]))
        ways.setdefault(way, []).append(s)
    return [_pooled_table(way, members, i) for i, (way, members) in enumerate(ways.items())]


def _pooled_table(way: tuple[str, str, float], systems: Sequence[Json], place: int) -> Table:
    unit, definition, tolerance = way
    table = TableBuilder(
        f"segmentation{place or ''}",
        "Segmentation, pooled over all tested images with a lesion.",
        (
            Column("System"),
            Column("Images", NUMBER),
            Column("Patients", NUMBER),
            Column("Dice", NUMBER),
            Column("IoU", NUMBER),
            Column(f"HD95 ({unit})", NUMBER),
            Column(f"ASSD ({unit})", NUMBER),
            Column(f"NSD at {tolerance:g} {unit}", NUMBER),
            Column("Missed", NUMBER),
        ),
        stacked=True,
    )
    infinite = 0
    for s in systems:
        found = s["segmentation"]
        infinite = max(infinite, int(found["infinite"]))
        left_out = int(found["infinite"])
        distances = [table.length(estimate(found["pooled"], name)) for name in ("hd95", "assd")]
        if left_out:
            note = (
                f"{plural(left_out, 'image')} without a predicted outline left out: the distance "
                "is infinite"
            )
            distances = [Cell(c.text, c.interval, c.note or note, c.strong) for c in distances]
        table.add(
            _strong(s),
            count(found["n_frames"]),
            count(found["n_patients"]),
            estimate(found["pooled"], "dice"),
            estimate(found["pooled"], "iou"),
            *distances,
            estimate(found["pooled"], "nsd"),
            count(found["missed"]),
        )
    names = {"surfel": "surface elements", "border": "border pixels"}
    caption = (
        "Mean over images. HD95: 95th percentile of the surface distance; ASSD: average symmetric "
        f"surface distance; NSD: surface Dice; surfaces by {names.get(definition, definition)}. "
        "Missed: predictions that do not overlap the reference at all; they count as Dice 0."
    )
    methods = methods_of(table.estimates)
    return table.build(f"{caption} {methods}." if methods else caption)


def _mean_sd(raw: Json, digits: int) -> Cell:
    mean, sd = finite(raw.get("mean")), finite(raw.get("sd"))
    if mean is None:
        return Cell(NOT_AVAILABLE, note="no fold in which this is defined")
    if sd is None:
        return Cell(number(mean, digits), note="one fold: there is no SD")
    return Cell(f"{number(mean, digits)} {PLUS_MINUS} {number(sd, digits)}")


def _per_fold(source: ReportSource, raw: Json, digits: int) -> str:
    """The folds' figures, with what each fold tested where it has a name."""
    values = [number(finite(v), digits) for v in raw.get("folds", ())]
    names = [source.fold_words(f) for f in raw.get("of", ())]
    if any(not name.isdigit() for name in names) and len(names) == len(values):
        return "; ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
    return ", ".join(values) or NOT_AVAILABLE


def _fold_table(
    source: ReportSource,
    about: tuple[str, str],
    rows: Sequence[tuple[Json, str, Json, Json]],
    caption: str,
) -> Table:
    """Figures per system and measure. about: name and title; rows: system, measure, its fold means,
    pooled figures.
    """
    table = TableBuilder(
        *about,
        (
            Column("System"),
            Column("Measure"),
            Column("Pooled", NUMBER),
            Column("Fold mean ± SD", NUMBER),
            Column("Folds", NUMBER),
            Column("Each fold"),
        ),
    )
    for system, measure, means, pooled in rows:
        raw = means.get(measure)
        if raw is None:
            continue
        digits = 2 if measure in _LENGTHS else 3
        unit = f" ({system['segmentation']['length_unit']})" if measure in _LENGTHS else ""
        table.add(
            _strong(system),
            metric_name(measure) + unit,
            table.length(estimate(pooled, measure), digits) if unit else estimate(pooled, measure),
            _mean_sd(raw, digits),
            count(len(raw["folds"])),
            _per_fold(source, raw, digits),
        )
    methods = methods_of(table.estimates)
    return table.build(f"{caption} {methods}." if methods else caption)


def _segmentation_folds(source: ReportSource) -> Table:
    found = [(s, s["segmentation"]) for s in source.segmenting]
    return _fold_table(
        source,
        ("segmentation-folds", "Segmentation: fold means beside pooled figures."),
        [(s, m, f["fold_mean"], f["pooled"]) for s, f in found for m in _MASKS],
        "Pooled: mean over all tested images, with its interval. Fold mean ± SD: mean and "
        "standard deviation of the folds' means; the SD describes the folds and is no interval.",
    )


def _class_table(systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "segmentation-classes",
        "Segmentation by class.",
        (
            Column("System"),
            Column("Class"),
            Column("Images", NUMBER),
            Column("Dice", NUMBER),
            Column("IoU", NUMBER),
        ),
    )
    for s in systems:
        for label, found in s["segmentation"]["by_class"].items():
            table.add(
                _strong(s),
                str(label),
                count(found["n_frames"]),
                estimate(found, "dice"),
                estimate(found, "iou"),
            )
    methods = methods_of(table.estimates)
    return table.build(f"Mean over the images of a class. {methods}." if methods else "")


def _empty_table(systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "segmentation-empty",
        "Images without a lesion in the reference.",
        (Column("System"), Column("Images", NUMBER), Column("Left clean", NUMBER)),
    )
    for s in systems:
        raw = s["segmentation"]["empty_reference"]
        table.add(_strong(s), count(raw["n_frames"]), estimate(raw, "clean"))
    methods = methods_of(table.estimates)
    caption = (
        "Left clean: share of these images on which nothing was outlined. They are "
        "in no other figure of this section."
    )
    return table.build(f"{caption} {methods}." if methods else caption)


def _case_figure(source: ReportSource) -> Figure | None:
    groups: list[tuple[str, list[float], int]] = []
    rows: list[tuple[Any, ...]] = []
    for s in source.segmenting:
        own = sorted((c for c in source.cases if c.label == s["label"]), key=lambda c: c.place)
        known = [c for c in own if c.note not in ("both empty", "reference empty")]
        values = [v for c in known if (v := c.scores.get("dice")) is not None]
        if values:
            groups.append((str(s["label"]), values, source.place(s["label"])))
            rows += [
                (c.label, c.fold, c.patient, c.sample, c.of_class, c.scores.get("dice"))
                for c in known
            ]
    if not groups:
        return None
    totals = sorted({len(v) for _, v, _ in groups})
    n = count(totals[0]) if len(totals) == 1 else f"{count(totals[0])}–{count(totals[-1])}"
    return Figure(
        "segmentation-cases",
        "Dice of every tested image.",
        spread(groups, "Dice"),
        f"One mark per image with a lesion (n = {n} images per system), stacked where "
        "they coincide. "
        "Black: median and quartiles. Images of one patient are not independent.",
        csv=csv_text(("system", "fold", "patient", "image", "class", "dice"), rows),
        description="Distribution of Dice over images per system",
    )


# ---- classification ------------------------------------------------------------------------

_UNIT_METRICS = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")
_UNIT_TITLES = {"patient": "per patient", "frame": "per image"}


def classification(source: ReportSource) -> Section | None:
    """Patient-level and image-level figures apart, thresholds, ROC and confusion."""
    systems = source.classifying
    if not systems:
        return None
    blocks: list[Block] = []
    for unit in ("patient", "frame"):
        own = [s for s in systems if int(s["classification"][unit]["n"]) > 0]
        if not own:
            continue
        blocks.append(Heading("Per patient" if unit == "patient" else "Per image"))
        if unit == "frame":
            blocks.append(
                Paragraph(
                    "Images of one patient resemble one another: these figures count images and "
                    "are not comparable with the patient-level ones above."
                )
            )
        blocks.append(_unit_table(source, own, unit))
        recall = _recall_table(own, unit)
        if recall:
            blocks.append(recall)
        blocks += ordinal_tables(own, unit)
        drawing = _roc_figure(source, own, unit)
        if drawing:
            blocks.append(drawing)
        blocks.append(_confusion_figure(source, own, unit))
    blocks.append(Heading("Folds and thresholds"))
    blocks.append(_classification_folds(source))
    ways = ways_table(source, systems)
    if ways:
        blocks.append(ways)
    thresholds = _threshold_table(source, systems)
    blocks.append(
        thresholds
        or Paragraph(
            "Several classes: the class with the highest score is called, no threshold is chosen."
        )
    )
    return Section("classification", "Classification", tuple(blocks))


def _unit_table(source: ReportSource, systems: Sequence[Json], unit: str) -> Table:
    noun = "Patients" if unit == "patient" else "Images"
    several = bool(systems[0]["classification"][unit].get("macro"))
    metrics = ("auc", "accuracy", "f1") if several else _UNIT_METRICS
    table = TableBuilder(
        f"classification-{unit}",
        f"Classification {_UNIT_TITLES[unit]}.",
        (
            Column("System"),
            Column(noun, NUMBER),
            *(
                Column(metric_name(m) + (" (macro)" if several and m != "accuracy" else ""), NUMBER)
                for m in metrics
            ),
        ),
        stacked=len(metrics) > 4,
    )
    for s in systems:
        found = s["classification"][unit]
        excluded = int(found.get("excluded") or 0)
        why = found.get("note") or "no truth"
        left_out = f"{plural(excluded, noun.lower()[:-1])} left out: {why}" if excluded else ""
        n = Cell(count(found["n"]), note=left_out)
        table.add(_strong(s), n, *(estimate(found, m) for m in metrics))
    caption = ""
    if source.positive:
        caption = f"Positive class: {source.positive}. Counts at the thresholds of the folds. "
    elif several:
        caption = "Macro: the mean over classes, one against the rest. "
    methods = methods_of(table.estimates)
    return table.build(f"{caption}{methods}." if methods else caption)


def _recall_table(systems: Sequence[Json], unit: str) -> Table | None:
    rows = [(s, s["classification"][unit].get("recall")) for s in systems]
    if not any(raw for _, raw in rows):
        return None
    table = TableBuilder(
        f"recall-{unit}",
        f"Share of each class that was called right, {_UNIT_TITLES[unit]}.",
        (Column("System"), Column("Class"), Column("Recall", NUMBER)),
    )
    for s, raw in rows:
        for label, found in (raw or {}).items():
            table.add(_strong(s), str(label), Estimate.of(found))
    methods = methods_of(table.estimates)
    return table.build(f"{methods}." if methods else "")


def _curve(name: str, raw: Json, place: int, line: int | None = None) -> Curve:
    return Curve(name, tuple(map(float, raw["fpr"])), tuple(map(float, raw["tpr"])), place, line)


def _roc_figure(source: ReportSource, systems: Sequence[Json], unit: str) -> Figure | None:
    single = [(s, s["classification"][unit].get("roc")) for s in systems]
    if any(raw for _, raw in single):
        drawn = [_curve(str(s["label"]), raw, source.place(s["label"])) for s, raw in single if raw]
        panels = [Panel("", tuple(drawn))]
        what = f"Sensitivity against 1 − specificity for {source.positive}, pooled over folds."
    else:
        panels: list[Panel] = []
        for s in systems:
            curves = s["classification"][unit].get("rocs") or {}
            place = source.place(s["label"])
            drawn = [_curve(str(c), raw, place, i) for i, (c, raw) in enumerate(curves.items())]
            if drawn:
                panels.append(Panel(str(s["label"]), tuple(drawn)))
        what = "Each class against the rest, pooled over folds."
    if not panels:
        return None
    beside = TableBuilder(
        f"roc-{unit}-auc", "", (Column("System"), Column("AUC", NUMBER), Column("n", NUMBER))
    )
    for s in systems:
        e = estimate(s["classification"][unit], "auc")
        beside.add(_strong(s), e, count(s["classification"][unit]["n"]))
    rows = [
        (panel.title or curve.name, curve.name, x, y)
        for panel in panels
        for curve in panel.curves
        for x, y in zip(curve.fpr, curve.tpr, strict=True)
    ]
    numbers = beside.build(
        f"n: {'patients' if unit == 'patient' else 'images'}. {methods_of(beside.estimates)}"
    )
    return Figure(
        f"roc-{unit}",
        f"ROC curves {_UNIT_TITLES[unit]}.",
        roc(panels),
        f"{what} Scores of different folds come from different models. The diagonal marks chance.",
        csv=csv_text(("system", "curve", "false_positive_rate", "true_positive_rate"), rows),
        # Several panels take the whole width; their AUCs stand in the table above.
        beside=numbers if len(panels) == 1 else None,
        description=f"ROC curves {_UNIT_TITLES[unit]}",
    )


def _confusion_figure(source: ReportSource, systems: Sequence[Json], unit: str) -> Figure:
    matrices = [
        Matrix(
            str(s["label"]),
            source.classes,
            tuple(tuple(int(n) for n in row) for row in s["classification"][unit]["confusion"]),
        )
        for s in systems
    ]
    rows = [
        (m.title, truth, called, m.counts[i][j])
        for m in matrices
        for i, truth in enumerate(m.classes)
        for j, called in enumerate(m.classes)
    ]
    return Figure(
        f"confusion-{unit}",
        f"Confusion matrices {_UNIT_TITLES[unit]}.",
        confusion(matrices),
        f"Counts of {'patients' if unit == 'patient' else 'images'}; per cent and shade: "
        "share of the row.",
        csv=csv_text(("system", "truth", "called", unit + "s"), rows),
        description=f"Confusion matrices {_UNIT_TITLES[unit]}",
    )


def _classification_folds(source: ReportSource) -> Table:
    found = [(s, s["classification"]) for s in source.classifying]
    return _fold_table(
        source,
        ("classification-folds", "Classification per patient: fold means beside pooled figures."),
        [(s, m, f["fold_mean"], f["patient"]) for s, f in found for m in _CALLS],
        "Pooled AUC ranks patients of different folds, hence of different models, against one "
        "another; the fold mean does not. The SD describes the folds and is no interval.",
    )


def _threshold_table(source: ReportSource, systems: Sequence[Json]) -> Table | None:
    table = TableBuilder(
        "thresholds",
        "Thresholds.",
        (
            Column("System"),
            Column("Fold"),
            Column("Threshold", NUMBER),
            Column("Rule"),
            Column("Chosen on", NUMBER),
        ),
    )
    for s in systems:
        for t in s["classification"]["thresholds"]:
            table.add(
                _strong(s),
                source.fold_words(int(t["fold"])),
                number(finite(t["value"])),
                _rule_words(str(t["rule"])),
                "fixed" if t["rule"] == "half" else plural(int(t["n"]), "validation patient"),
            )
    if not table.rows:
        return None
    rules = {t["rule"] for s in systems for t in s["classification"]["thresholds"]}
    how = "chosen in each fold on its validation part alone, before the test part was looked at"
    how = "fixed beforehand" if rules == {"half"} else how
    return table.build(f"Score of '{source.positive}' from which it is called; {how}.")


def _rule_words(rule: str) -> str:
    """A rule as `OperatingPoint` words it, typeset."""
    known = {"half": "0.5", "youden": "Youden", "f1": "largest F1"}
    return known.get(rule, rule.replace(">=", "\N{GREATER-THAN OR EQUAL TO}"))


# ---- training ------------------------------------------------------------------------------


def training(source: ReportSource) -> Section | None:
    """Learning curves and what each fold took."""
    blocks: list[Block] = []
    for s in source.systems:
        label = str(s["label"])
        courses = source.courses.get(label, ())
        if not courses:
            continue
        names = sorted({name for c in courses for name in c.values})
        rows = [
            (
                label,
                c.fold,
                epoch,
                *(c.values[name][i] if name in c.values else None for name in names),
            )
            for c in courses
            for i, epoch in enumerate(c.epochs)
        ]
        blocks.append(
            Figure(
                f"curves-{_file_word(label)}",
                f"Training of {label}.",
                learning_curves(courses, source.place(label)),
                f"{plural(len(courses), 'fold')}, one shade each, the first the darkest; a mark "
                "stands at the epoch that was kept, chosen on the validation part."
                + (
                    " Dice: mean over validation images, on the network's grid."
                    if s.get("segmentation")
                    else ""
                ),
                csv=csv_text(("system", "fold", "epoch", *names), rows),
                description=f"Learning curves of {label}",
            )
        )
    table = TableBuilder(
        "training",
        "Training of each fold.",
        (
            Column("System"),
            Column("Fold"),
            Column("Epochs", NUMBER),
            Column("Kept", NUMBER),
            Column("Time", NUMBER),
            Column("Patients (train / validation / test)", NUMBER),
            Column("Images", NUMBER),
        ),
    )
    for s in source.networks:
        for t in s["training"]:
            table.add(
                _strong(s),
                source.fold_words(int(t["fold"])),
                count(t["epochs"]),
                count(t["best_epoch"]),
                duration(t["train_seconds"]),
                _parts(t.get("patients")),
                _parts(t.get("images")),
            )
    if table.rows:
        blocks.append(table.build("Kept: the epoch whose weights were tested."))
    return Section("training", "Learning curves", tuple(blocks)) if blocks else None


def _parts(raw: Json | None) -> str:
    if not raw:
        return NOT_AVAILABLE
    return " / ".join(count(raw.get(part)) for part in ("train", "validation", "test"))


def _file_word(label: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in label)


# ---- cases ---------------------------------------------------------------------------------


def cases(source: ReportSource) -> Section | None:
    """Best, median and worst images of each segmenting system, with both outlines."""
    if not source.segmenting:
        return None
    blocks: list[Block] = []
    if source.without_pictures:
        blocks.append(Paragraph(source.without_pictures, "warning"))
    for s in source.segmenting:
        label = str(s["label"])
        chosen = source.pictures.get(label, ())
        if not chosen:
            continue
        ranks = listed([c.rank for c in chosen])
        total = sum(
            c.label == label and c.note not in ("both empty", "reference empty")
            for c in source.cases
        )
        rows = [
            (
                c.rank,
                c.case.label,
                c.case.fold,
                c.case.patient,
                c.case.sample,
                c.case.of_class,
                *(c.case.scores.get(m) for m in ("dice", "iou", "hd95", "assd")),
                c.case.unit,
            )
            for c in chosen
        ]
        maps = any(c.tile.attention is not None for c in chosen)
        blocks.append(
            Figure(
                f"cases-{_file_word(label)}",
                f"{label}: {ranks} case by Dice.",
                gallery([c.tile for c in chosen], f"Cases of {label} with outlines"),
                f"Out of {plural(total, 'tested image')} with a lesion. Solid light "
                "blue: reference outline; dashed orange: predicted outline."
                + (
                    " Lower row: the network's spatial attention, dark low and yellow high, on "
                    "its own grid."
                    if maps
                    else ""
                ),
                csv=csv_text(
                    (
                        "rank",
                        "system",
                        "fold",
                        "patient",
                        "image",
                        "class",
                        "dice",
                        "iou",
                        "hd95",
                        "assd",
                        "length_unit",
                    ),
                    rows,
                ),
                pictures=True,
                description=f"Best, median and worst case of {label}",
            )
        )
    if not blocks:
        return None
    return Section("cases", "Cases", tuple(blocks))
