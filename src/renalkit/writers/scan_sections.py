"""What does the report of a run with CT scans say? Masks, lesions, classes, published beside
measured, pictures, training."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers import (
    checklists_section,
    comparisons_section,
    patients_sections,
    reproduction_section,
    study_sections,
    systems_sections,
)
from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import (
    FrocLine,
    Interval,
    Matrix,
    confusion,
    free_response,
    intervals,
    learning_curves,
)
from renalkit.writers.lesions_section import lower_edge
from renalkit.writers.overlays import gallery
from renalkit.writers.source import ESTIMATE_HEAD, Json, ReportSource, estimate, estimate_row
from renalkit.writers.wording import (
    EN_DASH,
    NOT_AVAILABLE,
    Estimate,
    count,
    duration,
    finite,
    listed,
    methods_of,
    number,
    plural,
    share,
    spelled,
)

NUMBER = "number"
_TILES_IN_A_ROW = 3
_MOST_NAMED = 40


def sections(source: ReportSource) -> list[Section]:
    """All sections of such a run, in the order of a paper."""
    made = (
        _summary(source),
        reproduction_section.reproduction(source),
        _published(source),
        _cohort(source),
        patients_sections.patients(source),
        study_sections.checks(source),
        _masks(source),
        _lesions(source),
        _classes(source),
        _pictures(source),
        comparisons_section.comparisons(source),
        _training(source),
        checklists_section.checklists(source),
        systems_sections.configuration(source),
    )
    return [section for section in made if section is not None]


def _tested(source: ReportSource) -> list[Json]:
    return [s for s in source.systems if s["scans"]]


def _main(source: ReportSource) -> str:
    return str(source.metrics["statistics"]["main_criterion"])


def _size(source: ReportSource) -> str:
    return str(source.metrics["statistics"]["size"])


def _by_main(source: ReportSource, system: Json) -> Json:
    return system["lesions"]["criteria"][_main(source)]


def _strong(system: Json) -> Cell:
    return Cell(str(system["label"]), strong=True)


def _closed(words: str, table: TableBuilder) -> Table:
    methods = methods_of(table.estimates)
    return table.build(f"{words} {methods}.".strip() if methods else words)


# ---- summary -------------------------------------------------------------------------------


def _summary(source: ReportSource) -> Section:
    systems = _tested(source)
    if not systems:
        words = "No fold of any system is finished: there are no figures yet."
        return Section("summary", "Summary", (Paragraph(words, "lead"),))
    blocks: list[Block] = [Paragraph(_lead(source, systems), "lead")]
    blocks += [Paragraph(_in_words(source, s), opening=f"{s['label']}.") for s in systems]
    blocks.append(Paragraph(_cautions(source), "note"))
    blocks.append(_key_table(source, systems))
    return Section("summary", "Summary", tuple(blocks))


def _lead(source: ReportSource, systems: Sequence[Json]) -> str:
    labels = [str(s["label"]) for s in systems]
    scans = max(int(s["scans"]) for s in systems)
    patients = max(int(s["patients"]) for s in systems)
    folds = len(source.split.get("folds", ()))
    lesions = max(int(_by_main(source, s)["lesions"]) for s in systems)
    words = (
        f"{spelled(len(labels), 'system').capitalize()} ({listed(labels)}) "
        f"{'was' if len(labels) == 1 else 'were'} tested on {plural(scans, 'CT scan')} of "
        f"{plural(patients, 'patient')} with {plural(lesions, 'lesion')}"
    )
    if source.split.get("plan") == "external":
        trained = int(source.split["folds"][0]["train"])
        words += (
            ", a cohort that no network was trained on: all folds spoke together, trained on "
            f"{plural(trained, 'patient')} of another"
        )
    elif folds:
        words += (
            f", in {spelled(folds, 'patient-disjoint fold')}: no scan of a tested patient was seen "
            "in training or in the choice of weights"
        )
    return words + "."


def _in_words(source: ReportSource, system: Json) -> str:
    kidney, mass = system["segmentation"]["classes"][:2]
    found = _by_main(source, system)
    large = found["large"]
    return (
        f"Mean Dice {Estimate.of(kidney['dice']).words()} for kidney and mass and "
        f"{Estimate.of(mass['dice']).words()} for masses. Of {plural(found['lesions'], 'lesion')} "
        f"it found {estimate(found, 'recall').words()}, from {number(large['from_mm'], 0)} mm on "
        f"{estimate(large, 'recall').words()}, with "
        f"{estimate(found, 'false_per_picture').words(2)} false marks per scan. It named "
        f"{estimate(large, 'accuracy_found').words()} of the found lesions of that size rightly, "
        f"and {estimate(large, 'accuracy_all').words()} of all of that size (missed counts as "
        "wrong)."
    )


def _cautions(source: ReportSource) -> str:
    words = [
        f"Found: {_by_main(source, _tested(source)[0])['rule']}, unless another criterion is named."
        f" Size: {_size(source)} of the reference.",
    ]
    incomplete = [str(s["label"]) for s in source.systems if not s["complete"]]
    if incomplete:
        words.append(
            f"Not every fold or scan is finished for {listed(incomplete)}; figures are of those "
            "that are."
        )
    evened = max(int(s["segmentation"]["evened"]) for s in _tested(source))
    if evened:
        words.append(f"{plural(evened, 'scan')} with uneven slices: masks compared on even slices.")
    if not source.patient_known:
        words.append("The source names no patients: a study counts as one.")
    return " ".join(words)


def _key_table(source: ReportSource, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "key",
        "Main figures.",
        (
            Column("System"),
            Column("Dice, kidney and mass", NUMBER),
            Column("Dice, mass", NUMBER),
            Column("Lesions found", NUMBER),
            Column("Found, from 10 mm", NUMBER),
            Column("False marks per scan", NUMBER),
            Column("Named rightly, of found from 10 mm", NUMBER),
            Column("Named rightly, of all from 10 mm", NUMBER),
        ),
        stacked=True,
    )
    for s in systems:
        kidney, mass = s["segmentation"]["classes"][:2]
        found = _by_main(source, s)
        large = found["large"]
        table.add(
            _strong(s),
            Estimate.of(kidney["dice"]),
            Estimate.of(mass["dice"]),
            estimate(found, "recall"),
            estimate(large, "recall"),
            estimate(found, "false_per_picture"),
            estimate(large, "accuracy_found"),
            estimate(large, "accuracy_all"),
        )
    return _closed("Masks: mean over patients; shares are of lesions.", table)


# ---- published beside measured -------------------------------------------------------------


def measured_claim(source: ReportSource, system: Json, claim: Json) -> Estimate | None:
    """The figure of a system that answers a claim of its Card; None where there is none."""
    if not system["scans"]:
        return None
    metric, task = str(claim["metric"]), str(claim["task"])
    masks = {c["name"]: c for c in system["segmentation"]["classes"]}
    found = _by_main(source, system)
    if metric == "dice":
        name = {"kidney": "kidney and mass", "mass": "mass"}.get(task)
        return None if name is None else Estimate.of(masks[name]["dice"])
    if metric == "recall":
        return estimate(found, "recall")
    if metric == "accuracy":
        wanted = "under 5 mm" if "below" in str(claim["where"]) else "5 mm and over"
        sizes = found["classes"][0]["sizes"]
        part = next((p for p in sizes if p["size"] == wanted), None)
        none = Estimate(None, None, None, 0.95, 0, "", "", "no tested lesion of this size")
        return none if part is None else estimate(part, "accuracy_found")
    return None


_WHAT = {
    ("dice", "kidney"): "Dice, kidney",
    ("dice", "mass"): "Dice, mass",
    ("recall", "detection"): "Lesions found",
    ("accuracy", "class"): "Named rightly, of found",
}


def _published(source: ReportSource) -> Section | None:
    """What the paper prints beside what was measured, and what it leaves open."""
    blocks: list[Block] = []
    for name, card in source.cards.items():
        own = [s for s in source.systems if s["system"] == name]
        rest = [s for s in _tested(source) if s["system"] != name]
        table = TableBuilder(
            f"published-{name}",
            "Published and measured.",
            (
                Column("Measure"),
                Column("Where"),
                Column("Published", NUMBER),
                *(Column(str(s["label"]), NUMBER) for s in (*own, *rest)),
            ),
            stacked=True,
        )
        for claim in card["claims"]:
            figures = [measured_claim(source, s, claim) for s in (*own, *rest)]
            table.add(
                _WHAT.get((str(claim["metric"]), str(claim["task"])), str(claim["metric"])),
                str(claim["where"]),
                number(finite(claim["value"])),
                *(Cell(NOT_AVAILABLE) if e is None else e for e in figures),
            )
        blocks.append(Paragraph(str(card["summary"])))
        blocks.append(Paragraph(f"Reference: {card['reference']}"))
        blocks.append(
            _closed(
                "Published: as printed; the paper gives neither intervals, nor its hit criterion, "
                f"nor how 5 mm was measured. Measured: kidney together with its masses; found by "
                f"{_main(source)}; size by {_size(source)}. They rest on different scans, so a "
                "difference between them is no test of either.",
                table,
            )
        )
        if card["open_choices"]:
            words = f"{plural(len(card['open_choices']), 'choice')} the paper leaves open"
            blocks.append(Folded(words, (systems_sections.choices_table(name, card),)))
        blocks.append(Paragraph(f"Intended use: {card['intended_use']}"))
    return Section("published", "The paper", tuple(blocks)) if blocks else None


# ---- the cohort ----------------------------------------------------------------------------


def _cohort(source: ReportSource) -> Section:
    found = source.metrics["cohort"]
    facts = TableBuilder("scans", "The scans.", (Column("What"), Column("Value", NUMBER)))
    rows: list[tuple[str, str]] = [
        ("Patients with a labelled scan", count(found["patients"])),
        ("of them without a lesion", count(found["normal"])),
        ("Labelled scans", count(found["scans"])),
        *((f"Phase {p['name']}", count(p["scans"])) for p in found["phases"]),
        ("Slice distance (mm)", _range_words(found["slice_mm"], 1)),
        ("Pixel spacing (mm)", _range_words(found["pixel_mm"], 2)),
        ("Slices", _range_words(found["slices"], 0)),
        *((f"Scanner {s['name']}", plural(s["patients"], "patient")) for s in found["scanners"]),
        *(
            (f"Site {s['name']}", plural(s["patients"], "patient"))
            for s in found["sites"]
            if s["name"] != "unknown"
        ),
    ]
    if found["unlabelled"]:
        rows.append(("Scans without labels, not used", count(found["unlabelled"])))
    for name, value in rows:
        facts.add(Cell(name, strong=True), value)
    table = TableBuilder(
        "lesion-classes",
        "Lesions of the reference.",
        (
            Column("Class"),
            Column("Lesions", NUMBER),
            Column("Patients", NUMBER),
            Column("Axial diameter (mm)", NUMBER),
        ),
    )
    for one in found["classes"]:
        table.add(
            Cell(str(one["label"]), strong=True),
            count(one["lesions"]),
            count(one["patients"]),
            _range_words(one["axial_mm"], 0),
        )
    note = "Median (least to most)."
    return Section("cohort", "The cohort", (facts.build(note), table.build(note)))


def _range_words(found: Json | None, digits: int) -> str:
    if found is None:
        return NOT_AVAILABLE
    least, middle, most = (number(float(found[n]), digits) for n in ("least", "median", "most"))
    return f"{middle} ({least} to {most})" if least != most else middle


# ---- masks ---------------------------------------------------------------------------------


def _masks(source: ReportSource) -> Section | None:
    systems = _tested(source)
    if not systems:
        return None
    names = [str(c["name"]) for c in systems[0]["segmentation"]["classes"]]
    items: list[Interval] = []
    rows: list[tuple[object, ...]] = []
    for k, name in enumerate(names):
        for s in systems:
            one = s["segmentation"]["classes"][k]
            folds = tuple(v for v in map(finite, one["fold_mean"]["folds"]) if v is not None)
            e = Estimate.of(one["dice"])
            items.append(Interval(f"{name}: {s['label']}", e, folds, source.place(s["label"])))
            rows.append((s["label"], name, *estimate_row(e)))
    blocks: list[Block] = [
        Figure(
            "scan-dice",
            "Dice by class.",
            intervals(items, "Mean Dice"),
            "Filled mark and line: mean over patients and its interval. Open marks: means of "
            "single folds, which are no interval.",
            csv=csv_text(("system", "class", *ESTIMATE_HEAD), rows),
            description="Dice of each system by class, with intervals and fold means",
        ),
        _dice_table(systems),
    ]
    covered = [s for s in systems if s["coverage"]]
    if covered:
        blocks += [Heading("Where masses were looked for"), _coverage(covered)]
    return Section("masks", "Kidneys and masses drawn", tuple(blocks))


def _dice_table(systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "scan-dice",
        "Dice and surface Dice by the classes of KiTS.",
        (
            Column("System"),
            Column("Class"),
            Column("Dice", NUMBER),
            Column("Surface Dice", NUMBER),
            Column("Dice where there is one", NUMBER),
            Column("Median", NUMBER),
            Column("Least", NUMBER),
            Column("Scans without", NUMBER),
        ),
        stacked=True,
    )
    for s in systems:
        for one in s["segmentation"]["classes"]:
            table.add(
                _strong(s),
                str(one["name"]),
                *(estimate(one, n) for n in ("dice", "surface_dice", "dice_where_there")),
                number(finite(one["median_dice"])),
                number(finite(one["least_dice"])),
                count(one["without"]),
            )
    tolerances = ", ".join(
        f"{number(one['tolerance_mm'], 2)} mm for {one['name']}"
        for one in systems[0]["segmentation"]["classes"]
    )
    return _closed(
        "On the scan's own grid; mean over a patient's scans, then over patients. A scan on which "
        "neither reference nor system has the class scores 1, one of them only 0. Surface Dice of "
        f"surfels within {tolerances}. Median and least are over scans.",
        table,
    )


def _coverage(systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "coverage",
        "Share of the reference inside the boxes of the first stage.",
        (
            Column("System"),
            Column("Kidney and mass", NUMBER),
            Column("Masses", NUMBER),
            Column("Least of a scan, kidney and mass", NUMBER),
            Column("Least of a scan, masses", NUMBER),
            Column("Lesions wholly inside", NUMBER),
            Column("Share of the scan searched", NUMBER),
        ),
        digits=4,
        ci_digits=4,
        stacked=True,
    )
    for s in systems:
        found = s["coverage"]
        table.add(
            _strong(s),
            estimate(found, "kidney"),
            estimate(found, "mass"),
            number(finite(found["least_kidney"]), 4),
            number(finite(found["least_mass"]), 4),
            estimate(found, "lesions"),
            number(finite(found["searched"])),
        )
    return _closed("Of voxels of all scans; the share searched is the median over scans.", table)


# ---- lesions -------------------------------------------------------------------------------


def _lesions(source: ReportSource) -> Section | None:
    systems = _tested(source)
    if not any(_by_main(source, s)["lesions"] or _by_main(source, s)["marks"] for s in systems):
        return None
    blocks: list[Block] = [_by_criterion(source, systems), _normal(source, systems)]
    figure = _recall_figure(source, systems)
    blocks += [*([figure] if figure else []), _by_size(source, systems)]
    blocks += _froc(source, systems)
    for s in systems:
        missed = _by_main(source, s)["missed"]
        if missed:
            total = int(_by_main(source, s)["lesions"])
            words = f"Missed by {s['label']}: {plural(len(missed), 'lesion')}"
            blocks.append(Folded(f"{words} ({share(len(missed), total)})", (_missed(s, missed),)))
    return Section("lesions", "Lesions found", tuple(blocks))


def _criteria(source: ReportSource) -> list[str]:
    """In the order of the use case; JSON keeps none."""
    return [str(n) for n in source.metrics["statistics"]["criteria"]]


def _by_criterion(source: ReportSource, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "scan-lesions",
        "Lesions found and marks made, by hit criterion.",
        (
            Column("System"),
            Column("Criterion"),
            Column("Lesions", NUMBER),
            Column("Marks", NUMBER),
            Column("Found", NUMBER),
            Column("Found, from 10 mm", NUMBER),
            Column("Precision", NUMBER),
            Column("F1", NUMBER),
            Column("False marks per scan", NUMBER),
        ),
        stacked=True,
    )
    for s in systems:
        for name in _criteria(source):
            found = s["lesions"]["criteria"][name]
            table.add(
                _strong(s),
                name,
                count(found["lesions"]),
                count(found["marks"]),
                estimate(found, "recall"),
                estimate(found["large"], "recall"),
                *(estimate(found, n) for n in ("precision", "f1", "false_per_picture")),
            )
    return _closed(
        "Under each criterion one mark finds one lesion at most. Shares are of lesions and marks.",
        table,
    )


def _normal(source: ReportSource, systems: Sequence[Json]) -> Table:
    """What is marked where the reference has nothing; the same under every criterion."""
    table = TableBuilder(
        "scan-normal",
        "Scans without a lesion in the reference.",
        (
            Column("System"),
            Column("False marks per scan", NUMBER),
            Column("Left clean", NUMBER),
            Column("Patients", NUMBER),
        ),
    )
    for s in systems:
        found = _by_main(source, s)
        clean = Estimate.of(found["clean"], "every tested scan has a lesion")
        per_scan = Estimate.of(found["false_per_normal"], "every tested scan has a lesion")
        table.add(_strong(s), per_scan, clean, count(clean.n))
    return _closed("", table)


def _recall_figure(source: ReportSource, systems: Sequence[Json]) -> Figure | None:
    parts = [(s, b) for s in systems for b in _by_main(source, s)["by_size"] if b["lesions"]]
    sizes = sorted({str(b["size"]) for _, b in parts}, key=lower_edge)
    items: list[Interval] = []
    rows: list[tuple[object, ...]] = []
    for size in sizes:
        for s, b in parts:
            if b["size"] == size:
                e, n = estimate(b, "recall"), int(b["lesions"])
                words = f"{size} (n = {count(n)}): {s['label']}"
                items.append(Interval(words, e, place=source.place(s["label"])))
                rows.append((s["label"], size, n, *estimate_row(e)))
    if not any(item.estimate.defined for item in items):
        return None
    return Figure(
        "scan-size",
        "Share of lesions found, by their size.",
        intervals(items, f"Lesions found ({_main(source)})"),
        f"Size: {_size(source)} of the reference. n: lesions; n/a: too few patients.",
        csv=csv_text(("system", "size", "lesions", *ESTIMATE_HEAD), rows),
        description="Share of lesions found by size with intervals",
    )


def _by_size(source: ReportSource, systems: Sequence[Json]) -> Table:
    """Recall by every criterion; precision by the main one."""
    names = _criteria(source)
    table = TableBuilder(
        "scan-size",
        "Lesions found, by size and criterion.",
        (
            Column("System"),
            Column("Size"),
            Column("Lesions", NUMBER),
            *(Column(f"Found, {n}", NUMBER) for n in names),
            Column("Marks", NUMBER),
            Column(f"Precision, {_main(source)}", NUMBER),
        ),
        stacked=True,
    )
    for s in systems:
        criteria = s["lesions"]["criteria"]
        sizes = sorted({str(b["size"]) for b in criteria[names[0]]["by_size"]}, key=lower_edge)
        for size in sizes:
            parts = {n: next(b for b in criteria[n]["by_size"] if b["size"] == size) for n in names}
            main = parts[_main(source)]
            table.add(
                _strong(s),
                size,
                count(main["lesions"]),
                *(_few(parts[n], "recall") if main["lesions"] else EN_DASH for n in names),
                count(main["marks"]),
                _few(main, "precision") if main["marks"] else EN_DASH,
            )
    return _closed(
        f"Lesions by their own {_size(source)}, marks by theirs; an edge belongs to the larger "
        "size.",
        table,
    )


def _few(part: Json, name: str) -> Estimate:
    """The same reason for all sizes of too few patients, so that a table has one note for them."""
    e = estimate(part, name)
    why = "fewer patients than needed for a figure"
    return e if e.defined else Estimate(None, None, None, e.level, e.n, e.unit, "", why)


def _froc(source: ReportSource, systems: Sequence[Json]) -> list[Block]:
    drawn = [(s, _by_main(source, s)["froc"]) for s in systems if _by_main(source, s)["froc"]]
    if not drawn:
        return [Paragraph("No free-response curve: no lesion, no mark, or marks without a score.")]
    curves: list[FrocLine] = []
    rows: list[tuple[object, ...]] = []
    for s, found in drawn:
        points = found["points"]
        vain = tuple(float(p["false_per_picture"]) for p in points)
        hits = tuple(float(p["sensitivity"]) for p in points)
        curves.append(FrocLine(str(s["label"]), vain, hits, source.place(s["label"])))
        rows += [
            (s["label"], p["threshold"], p["sensitivity"], p["false_per_picture"]) for p in points
        ]
    table = TableBuilder(
        "scan-froc",
        "Lesions found at given rates of false marks.",
        (
            Column("System"),
            Column("False marks per scan, at most", NUMBER),
            Column("Threshold", NUMBER),
            Column("Found", NUMBER),
        ),
    )
    for s, found in drawn:
        most = max(float(p["false_per_picture"]) for p in found["points"])
        for at in found["at"]:
            table.add(
                _strong(s),
                number(float(at["rate"]), 3),
                number(finite(at["threshold"])),
                estimate(at, "sensitivity"),
            )
            if float(at["rate"]) >= most:
                break
    return [
        Heading("Free-response curves"),
        Figure(
            "scan-froc",
            "Free-response curves.",
            free_response(curves, "scan"),
            f"Share of lesions found ({_main(source)}) against false marks per scan as the "
            "threshold on a mark's confidence falls. Confidence: mean probability of mass over the "
            "mark; of a system without probabilities, what it gives in its place. A curve ends "
            "where the system makes no weaker marks.",
            csv=csv_text(("system", "threshold", "sensitivity", "false_per_scan"), rows),
            description="Free-response curves of the systems",
        ),
        _closed(
            "Threshold: lowest confidence that counts. It was read off the tested scans "
            "themselves, so these figures describe the curve and are optimistic as an operating "
            "point. Higher rates than a system's last one change nothing.",
            table,
        ),
    ]


def _missed(system: Json, missed: Sequence[Json]) -> Table:
    table = TableBuilder(
        f"scan-missed-{system['label']}",
        f"Lesions that {system['label']} missed.",
        (
            Column("Patient", code=True),
            Column("Study", code=True),
            Column("Series", NUMBER),
            Column("Size (mm)", NUMBER),
        ),
    )
    for m in missed[:_MOST_NAMED]:
        table.add(
            str(m["patient"]), str(m["study"]), count(m["clip"]), number(finite(m["size_mm"]), 1)
        )
    words = "The largest first; pseudonyms."
    if len(missed) > _MOST_NAMED:
        words += f" The first {count(_MOST_NAMED)} of {count(len(missed))}."
    return table.build(f"{words} scan_lesions.csv names all lesions and the marks that found them.")


# ---- classes -------------------------------------------------------------------------------


def _classes(source: ReportSource) -> Section | None:
    systems = [s for s in _tested(source) if _by_main(source, s)["classes"][0]["sizes"]]
    if not systems:
        return None
    blocks = (
        _paper_table(source, systems),
        _other_sizes(source, systems),
        _fine_table(source, systems),
        _confusion(source, systems),
    )
    return Section("classes", "Lesions named", blocks)


def _accuracy_columns() -> tuple[Column, ...]:
    return (
        Column("Lesions", NUMBER),
        Column("Found", NUMBER),
        Column("Right, of found", NUMBER),
        Column("Right, of all", NUMBER),
    )


def _accuracy_cells(part: Json) -> tuple[str | Estimate, ...]:
    found, whole = estimate(part, "accuracy_found"), estimate(part, "accuracy_all")
    return count(part["lesions"]), count(part["found"]), found, whole


def _paper_table(source: ReportSource, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "class-5mm",
        "Lesions named rightly below 5 mm and from 5 mm on.",
        (Column("System"), Column("Criterion"), Column("Size"), *_accuracy_columns()),
    )
    for s in systems:
        for name in _criteria(source):
            for part in s["lesions"]["criteria"][name]["classes"][0]["sizes"][1:]:
                table.add(_strong(s), name, str(part["size"]), *_accuracy_cells(part))
    return _closed(
        "The division of the paper, by every hit criterion. Right, of found: the class of the mark "
        "is that of the lesion it found. Right, of all: missed counts as wrong.",
        table,
    )


def _fine_table(source: ReportSource, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "class-size",
        "Lesions named rightly, by size.",
        (Column("System"), Column("Size"), *_accuracy_columns()),
    )
    for s in systems:
        found = _by_main(source, s)
        for part in found["classes"][1]["sizes"]:
            table.add(_strong(s), str(part["size"]), *_accuracy_cells(part))
        table.add(_strong(s), "10 mm and over", *_accuracy_cells(found["large"]))
    return _closed(f"Found by {_main(source)}.", table)


def _confusion(source: ReportSource, systems: Sequence[Json]) -> Figure:
    matrices: list[Matrix] = []
    rows: list[tuple[object, ...]] = []
    largest = 0.0
    for s in systems:
        found = s["confusion"]
        counts = found["counts"][_main(source)]
        columns = [str(c) for c in found["columns"]]
        classes = [str(c) for c in found["classes"]]
        keep = [k for k, c in enumerate(columns) if c in classes or any(r[k] for r in counts)]
        matrices.append(
            Matrix(
                str(s["label"]),
                tuple(classes),
                tuple(tuple(int(row[k]) for k in keep) for row in counts),
                tuple(columns[k] for k in keep),
            )
        )
        rows += [
            (s["label"], truth, called, row[k])
            for truth, row in zip(classes, counts, strict=True)
            for k, called in enumerate(columns)
        ]
        total = sum(map(sum, counts))
        largest = max(largest, *(sum(row) / total for row in counts)) if total else largest
    return Figure(
        "scan-confusion",
        "What lesions were called.",
        confusion(matrices),
        f"Lesions of known class, found by {_main(source)}; 'missed' were not found. Per cent of "
        f"the row. The most frequent class is {number(100 * largest, 0)} per cent of the lesions: "
        "so much a system would have right that found all and always said this class.",
        csv=csv_text(("system", "truth", "called", "lesions"), rows),
        description="Confusion matrices of lesion classes",
    )


def _other_sizes(source: ReportSource, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "class-ways",
        "The same division with 5 mm measured in other ways.",
        (Column("System"), Column("5 mm of"), Column("Size"), *_accuracy_columns()),
    )
    for s in systems:
        for way in map(str, source.metrics["statistics"]["sizes"]):
            other = s["sizes"].get(way)
            found = _by_main(source, s) if other is None else other[_main(source)]
            for part in found["classes"][0]["sizes"][1:]:
                table.add(_strong(s), way, str(part["size"]), *_accuracy_cells(part))
    return _closed(f"Found by {_main(source)}.", table)


# ---- pictures and training -----------------------------------------------------------------


def _pictures(source: ReportSource) -> Section | None:
    blocks: list[Block] = []
    for label, tiles in source.tiles.items():
        for k in range(0, len(tiles), _TILES_IN_A_ROW):
            blocks.append(
                Figure(
                    f"scans-{label}{f'-{k // _TILES_IN_A_ROW + 1}' if k else ''}",
                    f"What {label} drew.",
                    gallery(tiles[k : k + _TILES_IN_A_ROW], f"CT slices with outlines of {label}"),
                    "Blue: masses of the reference; orange, dashed: masses found. Axial slice "
                    "through the lesion, front up, the patient's right on the left, "
                    f"{EN_DASH}200 to 300 HU.".replace(f"{EN_DASH}200", "\N{MINUS SIGN}200"),
                    pictures=True,
                )
            )
    if not blocks and source.without_pictures:
        blocks.append(Paragraph(source.without_pictures, "note"))
    return Section("pictures", "Pictures", tuple(blocks)) if blocks else None


def _training(source: ReportSource) -> Section | None:
    blocks: list[Block] = []
    for name, courses in source.courses.items():
        label, _, stage = name.partition("/")
        names = sorted({n for c in courses for n in c.values})
        rows = [
            (
                label,
                stage,
                c.fold,
                step,
                *(c.values[n][i] if n in c.values else None for n in names),
            )
            for c in courses
            for i, step in enumerate(c.epochs)
        ]
        blocks.append(
            Figure(
                f"curves-{label}-{stage}",
                f"Training of {label}: {stage}.",
                learning_curves(courses, source.place(label), "Step"),
                f"{plural(len(courses), 'fold')}, one shade each, the first the darkest; a mark "
                "stands at the step that was kept, chosen on the validation part.",
                csv=csv_text(("system", "stage", "fold", "step", *names), rows),
                description=f"Learning curves of {label}, {stage}",
            )
        )
    table = TableBuilder(
        "training",
        "Time of each fold.",
        (
            Column("System"),
            Column("Fold"),
            Column("Training", NUMBER),
            Column("Seconds per tested scan", NUMBER),
        ),
    )
    for s in source.systems:
        for t in s["training"]:
            if t["train_seconds"] is None:
                continue
            table.add(
                _strong(s),
                source.fold_words(int(t["fold"])),
                duration(t["train_seconds"]),
                number(finite(t["seconds_per_scan"]), 1),
            )
    if table.rows:
        blocks.append(table.build("On the machine named under configuration."))
    return Section("training", "Training", tuple(blocks)) if blocks else None
