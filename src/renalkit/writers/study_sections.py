"""What was studied, and can it be trusted? Summary, cohort and checks of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import Interval, intervals
from renalkit.writers.flowchart import FlowCounts, flow_chart
from renalkit.writers.source import Json, ReportSource, estimate, metric_name, why_none
from renalkit.writers.wording import (
    EN_DASH,
    NOT_AVAILABLE,
    Estimate,
    count,
    finite,
    listed,
    methods_of,
    number,
    plural,
    share,
    spelled,
)

NUMBER = "number"


# ---- summary -------------------------------------------------------------------------------


def summary(source: ReportSource) -> Section:
    """The first page: what was done, what came out, what to beware of, and the key figures."""
    blocks: list[Block] = [Paragraph(_lead(source), "lead")]
    told = (
        ("Segmentation.", _masks_in_words(source)),
        ("Classification.", _classes_in_words(source)),
        ("Comparison.", _comparison_in_words(source)),
    )
    blocks += [Paragraph(text, opening=opening) for opening, text in told if text]
    blocks.append(Paragraph(_cautions(source), "note"))
    blocks.append(_key_table(source))
    return Section("summary", "Summary", tuple(blocks))


def _lead(source: ReportSource) -> str:
    flow = FlowCounts.of(source.metrics["cohort"]["flow"])
    split = source.split
    n_folds = len(split.get("folds", ()))
    plan = str(split.get("plan", "")).replace("kfold", "k-fold").replace("repeated-", "repeated ")
    labels = [str(s["label"]) for s in source.systems if s["folds"]]
    patients = plural(flow.included_patients, "patient")
    if not source.patient_known:
        patients += " (the source names none: a study or a group of duplicates counts as one)"
    by_class = [f"{count(c['patients'])} {c['label']}" for c in source.metrics["cohort"]["classes"]]
    if not labels:
        return "No fold of any system is finished: there are no figures yet."
    systems = (
        f"{spelled(len(labels), 'system').capitalize()} ({listed(labels)}) "
        f"{'was' if len(labels) == 1 else 'were'}"
    )
    elsewhere = source.metrics["cohort"].get("external") or {"patients": 0}
    if elsewhere["patients"]:
        at_home = flow.included_patients - elsewhere["patients"]
        of_all = f", of all {listed(by_class)}" if by_class else ""
        return (
            f"{systems} trained on {plural(at_home, 'patient')} and tested on "
            f"{plural(elsewhere['patients'], 'patient')} of another cohort "
            f"({plural(elsewhere['images'], 'image')}){of_all}. Scores are means over the models "
            f"of {spelled(n_folds, 'fold')}: no image of a tested patient was seen in training, in "
            "model selection or in the choice of a threshold."
        )
    sentence = (
        f"{systems} trained and tested on a cohort of "
        f"{plural(flow.included_images, 'image')} of {patients}"
    )
    if by_class:
        sentence += f": {listed(by_class)}"
    if n_folds:
        same = "the same " if len(labels) > 1 else ""
        folds = f"{same}{spelled(n_folds, 'patient-disjoint fold')}"
        whole = all(s["complete"] for s in source.systems)
        begun = "All figures come from" if whole else "Figures come from the finished ones of"
        sentence += f". {begun} {folds}"
        sentence += f" ({plan})" if plan else ""
        sentence += (
            ": no image of a tested patient was seen in training, in model selection or "
            "in the choice of a threshold"
        )
    return sentence + "."


def _best(systems: Sequence[Json], of: Any) -> tuple[Json, Estimate] | None:
    """The system with the highest defined figure; the first one of equals."""
    found = [(s, of(s)) for s in systems]
    found = [(s, e) for s, e in found if e.defined]
    return max(found, key=lambda pair: pair[1].value) if found else None


def _dice(system: Json) -> Estimate:
    return estimate(system["segmentation"]["pooled"], "dice")


def _auc(system: Json) -> Estimate:
    return estimate(system["classification"]["patient"], "auc")


def _masks_in_words(source: ReportSource) -> str:
    best = _best(source.segmenting, _dice)
    if best is None:
        return ""
    system, dice = best
    found = system["segmentation"]
    words = (
        f"{system['label']} reached "
        f"{'the highest' if len(source.segmenting) > 1 else 'a'} mean Dice of {dice.sentence()}, "
        f"over {plural(found['n_frames'], 'image')} with a lesion"
    )
    hd95 = estimate(found["pooled"], "hd95")
    if hd95.defined:
        words += (
            f"; the 95th percentile of the surface distance was on average "
            f"{hd95.words(1, 1)} {found['length_unit']}"
        )
    words += ". "
    missed = int(found["missed"])
    words += (
        f"In {plural(missed, 'image')} ({share(missed, found['n_frames'])}) its outline "
        "did not touch the lesion."
        if missed
        else "Its outline touched the lesion in every image."
    )
    return words


def _classes_in_words(source: ReportSource) -> str:
    best = _best(source.classifying, _auc)
    if best is None:
        best_accuracy = _best(
            source.classifying, lambda s: estimate(s["classification"]["patient"], "accuracy")
        )
        if best_accuracy is None:
            return ""
        system, accuracy = best_accuracy
        return f"{system['label']} was right in {accuracy.sentence()} of patients."
    system, auc = best
    patient = system["classification"]["patient"]
    what = (
        f"told {source.positive} from {next(c for c in source.classes if c != source.positive)}"
        if source.positive
        else f"told {plural(len(source.classes), 'class', 'classes')} apart"
    )
    words = (
        f"Per patient, {system['label']} {what} with "
        f"{'the highest' if len(source.classifying) > 1 else 'an'} AUC of {auc.sentence()}"
    )
    parts = [
        f"{metric_name(name).lower()} {e.words()}"
        for name in ("accuracy", "sensitivity", "specificity")
        if (e := estimate(patient, name)).defined
    ]
    return words + (f"; {listed(parts)}." if parts else ".")


def _comparison_in_words(source: ReportSource) -> str:
    if not source.comparisons or not source.comparisons["rows"]:
        return ""
    reference = source.comparisons["reference"]
    parts: list[str] = []
    for metric in ("dice", "auc"):
        for row in source.comparisons["rows"]:
            e = Estimate.of(row["difference"])
            if row["metric"] != metric or e.low is None or e.high is None:
                continue
            verdict = "includes 0" if e.low <= 0 <= e.high else "excludes 0"
            parts.append(
                f"{metric_name(metric)} against {row['label']} {e.words(3, 3, signed=True)}, "
                f"which {verdict}"
            )
    if not parts:
        return ""
    return f"Paired differences of {reference}: {'; '.join(parts)}."


def _cautions(source: ReportSource) -> str:
    words: list[str] = []
    incomplete = [str(s["label"]) for s in source.systems if not s["complete"]]
    if incomplete:
        words.append(
            f"Not every fold is finished for {listed(incomplete)}; figures are of the finished "
            "folds."
        )
    if source.check is None:
        words.append("The cohort's checks were not stored with this run.")
    else:
        waived = sorted({f["guard"] for f in source.check["findings"] if f["waived"]})
        blocking = [f for f in source.check["findings"] if f["severity"] == "block"]
        review = sum(f["severity"] == "review" for f in source.check["findings"])
        if waived:
            words.append(f"Findings that block training were waived by name: {listed(waived)}.")
        elif not blocking:
            words.append("The cohort's checks found no leak between patients.")
        if review:
            verb = "asks" if review == 1 else "ask"
            words.append(
                f"{spelled(review, 'finding').capitalize()} of the checks {verb} for a look."
            )
        loud = [str(p["name"]) for p in source.check["probes"] if p["alarming"]]
        if loud:
            words.append(
                "Shortcut: the classes can be told apart without looking at the tissue "
                f"({listed(loud)})."
            )
    words.append(
        "Figures per image and per patient are never mixed; intervals take the patient "
        "as the unit that was sampled."
    )
    return " ".join(words)


def _key_table(source: ReportSource) -> Table:
    masks = ("dice", "iou") if source.segmenting else ()
    classes = ("auc", "accuracy") if source.classifying else ()
    columns = [
        Column("System"),
        Column("Folds", NUMBER),
        *(Column(f"{metric_name(name)} (image)", NUMBER) for name in masks),
        *(Column(f"{metric_name(name)} (patient)", NUMBER) for name in classes),
        Column("Parameters", NUMBER),
    ]
    table = TableBuilder("key", "Key figures of each system.", columns)
    for s in source.systems:
        segmentation, classification = s.get("segmentation"), s.get("classification")
        pooled = segmentation["pooled"] if segmentation else None
        patient = classification["patient"] if classification else None
        no_masks, no_classes = why_none(s, "segmentation"), why_none(s, "classification")
        table.add(
            Cell(str(s["label"]), strong=True),
            count(len(s["folds"])),
            *(estimate(pooled, name, no_masks) for name in masks),
            *(estimate(patient, name, no_classes) for name in classes),
            count((s.get("complexity") or {}).get("parameters")),
        )
    counted = sorted({int(s["segmentation"]["n_frames"]) for s in source.segmenting})
    caption = "Pooled over the tested parts of all finished folds."
    if counted:
        caption += f" Dice and IoU: mean over {_range(counted)} images with a lesion."
    people = sorted({int(s["classification"]["patient"]["n"]) for s in source.classifying})
    if people:
        caption += f" AUC and accuracy: n = {_range(people)} patients."
    methods = methods_of(table.estimates)
    return table.build(f"{caption} {methods}." if methods else caption)


def _range(values: Sequence[int]) -> str:
    return (
        count(values[0]) if values[0] == values[-1] else f"{count(values[0])}–{count(values[-1])}"
    )


# ---- cohort --------------------------------------------------------------------------------


def cohort(source: ReportSource) -> Section:
    """Flow chart, classes, scanners and what became of every file."""
    counts = source.metrics["cohort"]
    flow = FlowCounts.of(counts["flow"])
    classes = [(str(c["label"]), int(c["patients"]), int(c["images"])) for c in counts["classes"]]
    blocks: list[Block] = [
        Figure(
            "flow",
            "Study flow.",
            flow_chart(flow, classes),
            "Screened = included + excluded, counted in studies; patients with an included and "
            "an excluded study count as screened once. Class boxes count images with a "
            "usable truth.",
            csv=_flow_csv(flow, classes),
            description="Flow chart: screened, excluded with reasons, included, classes",
        )
    ]
    if not source.patient_known:
        blocks.append(
            Paragraph(
                "The source names no patients. A study, or a group of duplicate images, is "
                "taken as a patient; figures 'per patient' count these.",
                "warning",
            )
        )
    table = TableBuilder(
        "classes",
        "Classes.",
        (
            Column("Class"),
            Column("Patients", NUMBER),
            Column("Images", NUMBER),
            Column("Images per patient", NUMBER),
        ),
    )
    for label, patients, images in classes:
        table.add(
            Cell(label, strong=True),
            count(patients),
            count(images),
            number(images / patients, 1) if patients else NOT_AVAILABLE,
        )
    caption = (
        "Patients and images with a usable truth. A patient with several lesions may "
        "count in several classes."
    )
    if source.positive:
        caption += f" Positive class: {source.positive}."
    blocks.append(table.build(caption))
    scanners = TableBuilder(
        "scanners",
        "Scanners.",
        (Column("Scanner"), Column("Patients", NUMBER), Column("Images", NUMBER)),
    )
    for row in counts["scanners"]:
        scanners.add(
            Cell(str(row["name"]), strong=True), count(row["patients"]), count(row["images"])
        )
    blocks.append(scanners.build("Machines as the files name them; 'unknown' where they do not."))
    sites = counts.get("sites") or []
    if sites:
        per_site = TableBuilder(
            "sites",
            "Sites.",
            (Column("Site"), Column("Patients", NUMBER), Column("Images", NUMBER)),
        )
        for row in sites:
            per_site.add(
                Cell(str(row["name"]), strong=True), count(row["patients"]), count(row["images"])
            )
        blocks.append(per_site.build())
    account = [(str(a["outcome"]), int(a["files"])) for a in counts["account"]]
    if account:
        total = sum(n for _, n in account)
        files = TableBuilder(
            "account",
            "Account of input files.",
            (Column("Outcome"), Column("Files", NUMBER), Column("Share", NUMBER)),
        )
        for outcome, n in account:
            files.add(Cell(outcome.replace("-", " "), strong=True), count(n), share(n, total))
        blocks.append(
            files.build(
                f"Every one of {plural(total, 'file')} of the source has exactly one outcome; "
                "the cohort's account.csv gives the reasons."
            )
        )
    else:
        blocks.append(Paragraph("The cohort holds no account of input files."))
    return Section("cohort", "Cohort", tuple(blocks))


def _flow_csv(flow: FlowCounts, classes: Sequence[tuple[str, int, int]]) -> str:
    rows: list[tuple[Any, ...]] = [
        ("screened", flow.screened_patients, flow.screened_studies, None),
        *((f"excluded: {reason}", None, n, None) for reason, n in flow.excluded),
        ("included", flow.included_patients, flow.included_studies, flow.included_images),
        *((f"class: {label}", patients, None, images) for label, patients, images in classes),
    ]
    return csv_text(("box", "patients", "studies", "images"), rows)


# ---- checks --------------------------------------------------------------------------------

_PROBE = "linear model"
_SEVERITY = {"block": "blocks", "review": "review", "note": "note"}


def checks(source: ReportSource) -> Section:
    """Leak findings with waivers; probes beside the systems."""
    if source.check is None:
        return Section(
            "checks",
            "Checks",
            (Paragraph("No check of the cohort was stored with this run.", "warning"),),
        )
    findings, probes = list(source.check["findings"]), list(source.check["probes"])
    blocks: list[Block] = []
    waivers = [str(w) for w in source.check.get("waivers", ())]
    if waivers:
        blocks.append(
            Paragraph(
                f"Waived by name when this run was started: {listed(waivers)}. "
                "A waived finding is still a finding; it is printed below.",
                "warning",
            )
        )
    if findings:
        order = list(_SEVERITY)
        table = TableBuilder(
            "findings",
            "Findings of the leak and label guards.",
            (
                Column("Guard"),
                Column("Severity"),
                Column("Finding"),
                Column("Patients", NUMBER),
                Column("Studies", NUMBER),
            ),
        )
        for alike in _alike(findings, order):
            first = alike[0]
            severity = _SEVERITY[first["severity"]] + (", waived" if first["waived"] else "")
            times = f" ({len(alike)} times)" if len(alike) > 1 else ""
            table.add(
                Cell(str(first["guard"]), strong=True),
                Cell(severity, strong=first["severity"] == "block"),
                f"{first['words']}{times}",
                *(_how_many(alike, whom) for whom in ("patients", "studies")),
            )
        blocks.append(table.build(_finding_counts(findings)))
    else:
        blocks.append(Paragraph("No guard found anything."))
    blocks += _probe_blocks(source, probes)
    return Section("checks", "Checks", tuple(blocks))


def _alike(findings: Sequence[Json], order: Sequence[str]) -> list[list[Json]]:
    """Findings of the same words together, the most severe first."""
    groups: dict[tuple[int, str, str, bool], list[Json]] = {}
    for f in findings:
        place = (order.index(f["severity"]), str(f["guard"]), str(f["words"]), bool(f["waived"]))
        groups.setdefault(place, []).append(f)
    return [group for _, group in sorted(groups.items(), key=lambda item: item[0])]


def _how_many(findings: Sequence[Json], whom: str) -> str:
    keys = {str(key) for f in findings for key in f[whom]}
    return count(len(keys)) if keys else EN_DASH


def _finding_counts(findings: Sequence[Json]) -> str:
    seen = Counter(str(f["severity"]) for f in findings)
    parts = [f"{count(seen[s])} of severity '{words}'" for s, words in _SEVERITY.items() if seen[s]]
    return (
        f"{plural(len(findings), 'finding')}: {listed(parts)}. 'blocks' stops training unless "
        "waived by name, 'review' asks for a look, 'note' is for the record."
    )


def _probe_blocks(source: ReportSource, probes: Sequence[Json]) -> list[Block]:
    rows: list[tuple[str, str, Estimate, bool, int | None]] = []
    for p in probes:
        e = Estimate(
            finite(p["auc"]),
            finite(p["low"]),
            finite(p["high"]),
            0.95,
            int(p["n"]),
            str(p["unit"]),
            str(p["method"]),
        )
        rows.append((f"{p['name']} alone", _PROBE, e, bool(p["alarming"]), None))
    if not rows:
        return [Paragraph("No shortcut probe could be computed for this cohort.")]
    facts = (source.clinical_model or {}).get("label")
    for s in source.classifying:
        label = str(s["label"])
        model = "facts, logistic regression" if label == facts else "network"
        rows.append((label, model, _auc(s), False, source.place(label)))
    table = TableBuilder(
        "probes",
        "What can be told without the tissue, beside what the systems tell.",
        (
            Column("Input"),
            Column("Model"),
            Column("AUC", NUMBER),
            Column("n", NUMBER),
            Column("Unit"),
            Column("Verdict"),
        ),
    )
    for name, model, e, loud, _ in rows:
        verdict = "shortcut" if loud else ("no shortcut seen" if model == _PROBE else "")
        table.add(Cell(name, strong=True), model, e, count(e.n), e.unit, Cell(verdict, strong=loud))
    methods = methods_of(table.estimates)
    caption = (
        "A probe sees only the image margin, or only technical metadata, and is scored "
        "out of fold with patients kept together. "
        "It is called a shortcut when its AUC exceeds 0.6 and its interval lies above "
        "0.5; a network's AUC is then no proof that it looked at the lesion."
    )
    drawing = intervals(
        [Interval(name, e, (), place) for name, _, e, _, place in rows],
        "AUC",
        reference=0.5,
    )
    csv_rows = [
        (n, m, e.value, e.low, e.high, e.level, e.n, e.unit, e.method) for n, m, e, _, _ in rows
    ]
    return [
        Figure(
            "probes",
            "Shortcut probes (grey) beside the systems.",
            drawing,
            "AUC with interval; the line marks chance. The numbers are in the next table.",
            csv=csv_text(
                ("input", "model", "auc", "low", "high", "level", "n", "unit", "method"), csv_rows
            ),
            description="AUC of shortcut probes and systems with intervals",
        ),
        table.build(f"{caption} {methods}." if methods else caption),
    ]
