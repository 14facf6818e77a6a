"""What does a run say of its patients and images, in sentences?

For the methods paragraph, the checklists and the model card. Every function gives one or a few
sentences, or "" where the run holds nothing to say. Nothing is assumed.
"""

from __future__ import annotations

from renalkit.writers.flowchart import FlowCounts
from renalkit.writers.source import Json, ReportSource
from renalkit.writers.wording import (
    EN_DASH,
    Estimate,
    count,
    listed,
    number,
    plain,
    plural,
    share,
    spelled,
)

_BURNED_IN = "L07"
_SINGLE = "ICC(2,1)"


def study_flow(source: ReportSource) -> str:
    """Screened, excluded with reasons, included."""
    flow = FlowCounts.of(source.metrics["cohort"]["flow"])
    words = (
        f"{plural(flow.screened_patients, 'patient')} "
        f"({plural(flow.screened_studies, 'study', 'studies')}) "
        f"{_were(flow.screened_patients)} screened and "
        f"{count(flow.included_patients)} ({plural(flow.included_images, 'image')}) included."
    )
    return f"{words} {exclusions(source)}"


def nameless(source: ReportSource) -> str:
    """What counts as a patient where the source names none."""
    if source.patient_known:
        return ""
    return "The source names no patients: a study, or a group of duplicate images, counts as one."


def exclusions(source: ReportSource) -> str:
    """Excluded studies by reason."""
    flow = FlowCounts.of(source.metrics["cohort"]["flow"])
    if not flow.excluded:
        return "No study was excluded."
    reasons = [f"{reason} ({count(n)})" for reason, n in flow.excluded]
    gone = sum(n for _, n in flow.excluded)
    return f"Excluded {_were(gone)} {plural(gone, 'study', 'studies')}: {listed(reasons)}."


def classes(source: ReportSource) -> str:
    """Patients and images of each class."""
    rows = source.metrics["cohort"]["classes"]
    if not rows:
        return ""
    sizes = [
        (plural(int(r["patients"]), "patient"), plural(int(r["images"]), "image")) for r in rows
    ]
    found = [f"{r['label']}: {p}, {i}" for r, (p, i) in zip(rows, sizes, strict=True)]
    words = f"Classes: {'; '.join(found)}."
    return f"{words} Positive class: {source.positive}." if source.positive else words


def places(source: ReportSource) -> str:
    """Sites and scanners, as far as they are recorded."""
    counts = source.metrics["cohort"]
    parts: list[str] = []
    for rows, one in ((counts.get("sites") or (), "site"), (counts["scanners"], "scanner model")):
        names = [str(r["name"]) for r in rows if r["name"] != "unknown"]
        unknown = sum(int(r["patients"]) for r in rows if r["name"] == "unknown")
        if names:
            words = f"{spelled(len(names), one)} ({listed(names)})"
            more = f", not recorded for {plural(unknown, 'patient')}" if unknown else ""
            parts.append(words + more)
    return f"Sources: {'; '.join(parts)}." if parts else ""


def images(source: ReportSource) -> str:
    """Kinds and sizes of the images, and how many have a known scale."""
    found = source.images
    if found is None or not found["images"]:
        return ""
    kinds = [f"{k['kind']} ({count(k['images'])})" for k in found["kinds"]]
    words = f"Type of file of the {plural(int(found['images']), 'image')}: {listed(kinds)}"
    words += f"; {plural(int(found['cines']), 'cine')}" if found["cines"] else "; stills only"
    rows, columns = found["rows"], found["columns"]
    size = f"{_span(columns)} × {_span(rows)} px (columns × rows)"
    scaled, whole = int(found["with_scale"]), int(found["images"])
    known = {0: "none", whole: "all"}.get(scaled, share(scaled, whole))
    return f"{words}. Size {size}; scale in mm known for {known}."


def _span(sizes: Json) -> str:
    least, most = int(sizes["least"]), int(sizes["most"])
    return str(least) if least == most else f"{least}{EN_DASH}{most}"


def ingest(source: ReportSource) -> str:
    """What became of the input files."""
    account = {str(a["outcome"]): int(a["files"]) for a in source.metrics["cohort"]["account"]}
    total = sum(account.values())
    if not total:
        return ""
    parts = [f"{count(n)} {outcome.replace('-', ' ')}" for outcome, n in account.items()]
    return f"Of {plural(total, 'input file')}, {listed(parts)}; each has its reason in account.csv."


def reference_standard(source: ReportSource) -> str:
    """The recorded reference standards, counted in patients."""
    row = _row(source, "reference_standard")
    if row is None:
        return ""
    whole = row["overall"]
    found = [
        f"{level} ({count(n)})" for level, n in zip(row["levels"], whole["counts"], strict=True)
    ]
    words = f"Reference standard as recorded, by patient: {listed(found)}"
    missing = int(whole["missing"])
    return f"{words}; not recorded for {count(missing)}." if missing else f"{words}."


def outlines(source: ReportSource) -> str:
    """How many images have an outline, and where it is from."""
    found = source.images
    if found is None or not found["with_outline"]:
        return ""
    origins = [f"{o['origin']} ({count(o['images'])})" for o in found["outlines_from"]]
    return (
        f"{plural(int(found['with_outline']), 'image')} of {count(found['images'])} have a known "
        f"outline (or are known to hold no lesion); origin: {listed(origins)}."
    )


def reader_agreement(source: ReportSource) -> str:
    """Agreement of outlines and of readings, where they are kept with the run."""
    parts = [_outlines_agree(source), *_readings_agree(source)]
    return " ".join(p for p in parts if p)


def _outlines_agree(source: ReportSource) -> str:
    found = source.reader_ceiling
    if found is None:
        return ""
    mean = Estimate.of(found["mean"])
    return (
        f"{spelled(len(found['readers']), 'reader').capitalize()} outlined lesions "
        f"({found['what']}); mean Dice between them {mean.sentence()}."
    )


def _readings_agree(source: ReportSource) -> list[str]:
    """A sentence per arm and group of several readers."""
    sentences: list[str] = []
    for arm in (source.readers or {"arms": []})["arms"]:
        for group in arm["groups"]:
            found = [f"{_SINGLE} {e.words()}" for e in _icc(group) if e.defined]
            kappa = Estimate.of(group["kappa"])
            found += [f"Fleiss' kappa of votes {kappa.words()}"] if kappa.defined else []
            if found:
                who = f"{group['group']} ({plural(len(group['readers']), 'reader')})"
                where = f", {arm['arm']}" if arm.get("arm") else ""
                sentences.append(f"Agreement of {who}{where}: {listed(found)}.")
    return sentences


def _icc(group: Json) -> list[Estimate]:
    return [Estimate.of(c["estimate"]) for c in group["icc"] if c["form"] == _SINGLE]


def missing_values(source: ReportSource) -> str:
    """Facts about patients that are not known of everyone."""
    if source.characteristics is None:
        return ""
    rows = source.characteristics["tables"][0]["rows"]
    gaps = [
        f"{plain(str(r['variable']))} ({count(r['overall']['missing'])})"
        for r in rows
        if r["overall"]["missing"]
    ]
    if not rows:
        return "No facts about patients are recorded."
    words = (
        f"Facts not known of every patient (number of patients): {listed(gaps)}."
        if gaps
        else f"All {count(len(rows))} recorded facts are known of every patient."
    )
    return f"{words} Nothing was imputed in tables and subgroups."


def facts_stored(source: ReportSource) -> bool:
    """Whether the table of patients is stored with the run."""
    return source.characteristics is not None


def missing_in_models(source: ReportSource) -> str:
    """What the models do about missing values."""
    words = (
        "The networks use images alone; an image without the truth of a task is not used for it."
    )
    if source.clinical_model is None:
        return words
    return (
        f"{words} The clinical model fills an unknown number with the median of the training "
        "patients and has a column that says that it was unknown."
    )


def people(source: ReportSource) -> str:
    """Age and sex as the table of patients has them."""
    parts: list[str] = []
    age = _row(source, "age_years")
    if age is not None:
        whole = age["overall"]
        if age["summary"] == "mean and SD":
            parts.append(f"age {number(whole['mean'], 1)} ± {number(whole['sd'], 1)} years")
        else:
            parts.append(
                f"median age {number(whole['median'], 1)} years "
                f"(IQR {number(whole['q1'], 1)}{EN_DASH}{number(whole['q3'], 1)})"
            )
    sex = _row(source, "sex")
    if sex is not None:
        whole = sex["overall"]
        shares = [
            f"{count(n)} {level}" for level, n in zip(sex["levels"], whole["counts"], strict=True)
        ]
        parts.append(f"sex {listed(shares)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def age_and_sex_known(source: ReportSource) -> bool:
    """Whether age and sex are recorded of any patient."""
    return _row(source, "age_years") is not None and _row(source, "sex") is not None


def facts_known(source: ReportSource) -> str:
    """What the table of patients tells."""
    if source.characteristics is None:
        return ""
    tables = source.characteristics["tables"]
    names = [plain(str(r["variable"])) for r in tables[0]["rows"]]
    if not names:
        return ""
    by = listed([str(t["by"]) for t in tables])
    return f"Table of patients by {by}: {listed(names)}."


def subsets(source: ReportSource) -> str:
    """Which images were used of those that are included."""
    found = source.images
    if found is None or not found["images"]:
        return ""
    included = int(source.metrics["cohort"]["flow"]["included_images"])
    return (
        f"Used were the {plural(int(found['images']), 'image')} with a known class or outline of "
        f"{count(included)} included."
    )


def privacy(source: ReportSource) -> str:
    """What was done to identifiers, and what the check says of burned-in marks."""
    words = (
        "On reading, identifiers and file names were replaced by keyed pseudonyms (HMAC-SHA256), "
        "and of headers and tables only documented facts were kept."
    )
    found = (source.check or {"findings": []})["findings"]
    marked = any(f["guard"] == _BURNED_IN for f in found)
    return f"{words} The check reports burned-in marks ({_BURNED_IN})." if marked else words


def truth_of_test(source: ReportSource) -> str:
    """Whether tested images have a truth of their own kind."""
    if source.split.get("plan") == "external":
        return "Tested images carry the truth that came with the external cohort."
    return "Tested images carry the same truth as those of training; none was annotated anew."


def _row(source: ReportSource, variable: str) -> Json | None:
    tables = (source.characteristics or {"tables": []})["tables"]
    rows = tables[0]["rows"] if tables else ()
    return next((r for r in rows if r["variable"] == variable), None)


def _were(n: int) -> str:
    return "was" if n == 1 else "were"
