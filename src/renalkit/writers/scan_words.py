"""What does a run with CT scans say to the checklists and the model card, in sentences?

`spoken` takes a sentence of a run with pictures and gives that of the run at hand: `FOR_SCANS`
names those that differ, `SHARED` those that read the same. Where the run holds nothing to say
there is "", and the authors are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from renalkit.writers import authors_words, data_words, figure_words, training_words
from renalkit.writers.flowchart import FlowCounts
from renalkit.writers.source import Json, ReportSource, estimate
from renalkit.writers.wording import (
    EN_DASH,
    Estimate,
    count,
    listed,
    number,
    plural,
    spelled,
)

Say = Callable[[ReportSource], str]

_STAGES = ("kidney", "mass", "lesion")
_FEW = 5
_STAGE_WORDS = {"kidney": "kidneys", "mass": "masses", "lesion": "classes"}


def spoken(source: ReportSource, say: Say) -> str:
    """What a sentence says of this run."""
    return (FOR_SCANS.get(say, say) if source.scans else say)(source)


# ---- systems -------------------------------------------------------------------------------


def _tested(source: ReportSource) -> list[Json]:
    return [s for s in source.systems if s["scans"]]


def _trained(source: ReportSource) -> list[Json]:
    """Systems with a Card: the rule by HU learns nothing and has none."""
    return [s for s in source.systems if s["system"] in source.cards]


def _main(source: ReportSource) -> str:
    return str(source.metrics["statistics"]["main_criterion"])


def _lesions(source: ReportSource, system: Json) -> Json:
    return system["lesions"]["criteria"][_main(source)]


def _stages(source: ReportSource) -> list[str]:
    return [s for s in _STAGES if s in (source.settings.get("stages") or ())]


def _params(source: ReportSource, stage: str) -> Json:
    return (source.settings.get("params") or {}).get(stage) or {}


def goal(source: ReportSource) -> str:
    """What the run did."""
    trained = len(_trained(source))
    words = f"{spelled(trained, 'system').capitalize()} trained and tested on CT scans"
    beside = len(source.systems) - trained
    return f"{words}, beside {spelled(beside, 'other')}." if beside else f"{words}."


def systems(source: ReportSource) -> str:
    """What was trained, stage by stage."""
    parts = [f"{s['label']}: {source.cards[str(s['system'])]['title']}" for s in _trained(source)]
    rest = [str(s["label"]) for s in source.systems if s not in _trained(source)]
    if rest:
        parts.append(f"beside it {listed(rest)}, of which no network of this run is part")
    stages = _stages(source)
    networks = {
        "kidney": "a 3-D U-Net for kidneys",
        "mass": f"{plural(int(_params(source, 'mass').get('members', 1)), '3-D U-Net')} for masses",
        "lesion": "a 3-D ResNet for classes",
    }
    if stages:
        parts.append(f"networks of a fold: {listed([networks[s] for s in stages])}")
    words = "; ".join(parts)
    return f"{words}." if words else ""


def description(source: ReportSource) -> str:
    """Where the networks are described."""
    titles = [f"{c['title']} ({c['reference'].rstrip('.')})" for c in source.cards.values()]
    if not titles:
        return ""
    return (
        f"References: {'; '.join(titles)}. Every choice the paper leaves open is in the section "
        "The paper of the report, every setting in its section on the configuration."
    )


def predictors(source: ReportSource) -> str:
    """What the networks see."""
    return (
        "The networks see the voxels of one CT scan in HU and nothing else: neither the contrast "
        "phase nor facts about the patient."
    )


def output(source: ReportSource) -> str:
    """What is given out."""
    words = (
        "Given out per scan, on its own grid: a label per voxel (kidney, tumour, cyst) and "
        "numbered masses with a confidence"
    )
    named = "lesion" in _stages(source)
    classes = f" and one probability per class ({listed(source.classes)}), summing to 1"
    return f"{words}{classes if named else ''}."


def refusals(source: ReportSource) -> str:
    """What is done with scans that cannot be used."""
    return (
        "Scans that cannot be decoded, are not in HU or do not say how their slices lie are "
        "refused with a reason. Where no kidney is found no mass is looked for; nothing judges "
        "whether a scan is fit for the question."
    )


def technical_detail(source: ReportSource) -> str:
    """What fixes the run: settings, folds."""
    if not source.settings_digest:
        return ""
    return (
        f"All settings are in experiment.json (SHA-256 {source.settings_digest[:12]}…), the folds "
        f"in folds.json (SHA-256 {str(source.metrics['split_digest'])[:12]}…); done.json of each "
        "fold holds the SHA-256 of its networks."
    )


# ---- training ------------------------------------------------------------------------------


def preprocessing(source: ReportSource) -> str:
    """From a stored scan to the input of each network."""
    kidney, mass, lesion = (_params(source, stage) for stage in _STAGES)
    if not kidney:
        return ""
    steps = {
        "kidney": f"kidneys are looked for on the whole scan at {kidney['spacing_mm']:g} mm",
        "mass": f"masses in a box around each kidney ({kidney['margin_mm']:g} mm wider) at "
        f"{' × '.join(f'{v:g}' for v in mass['spacing_mm'])} mm (z, y, x), in patches of "
        f"{' × '.join(str(v) for v in mass['patch'])} voxels",
        "lesion": f"classes in a cube around each mass of {lesion['side']} voxels a side",
    }
    where = "; ".join(steps[stage] for stage in _stages(source))
    return f"HU from -200 to 300 became -1 to 1. Scans were made upright and even: {where}."


def augmentation(source: ReportSource) -> str:
    """What training volumes underwent at random."""
    found = source.settings.get("augment")
    if not found:
        return ""
    if not found["probability"] and not found["flip_probability"]:
        return "Nothing was augmented."
    low, high = found["zoom"]
    parts = [
        f"turned by up to {found['rotation_deg']:g}° about the body's axis and "
        f"{found['tilt_deg']:g}° about the others, enlarged by {low:g} to {high:g} and shifted by "
        f"up to {found['shift_mm']:g} mm",
        f"changed in HU (factor {_to(found['hu_scale'])}, ±{found['hu_shift']:g} HU, noise of SD "
        f"up to {found['noise_hu']:g} HU, gamma {_to(found['gamma'])})",
    ]
    words = (
        f"Training volumes alone were augmented: {'; '.join(parts)}, each with probability "
        f"{found['probability']:g}; sides exchanged with probability {found['flip_probability']:g}"
    )
    return f"{words}."


def _to(pair: list[float]) -> str:
    return f"{pair[0]:g} to {pair[1]:g}"


def initialisation(source: ReportSource) -> str:
    """What the weights started from."""
    if not source.settings.get("train"):
        return ""
    return "All networks started from random weights, drawn by seeds that follow from the settings."


def training(source: ReportSource) -> str:
    """Optimiser and length of each stage, and where the boxes came from."""
    found, batch = source.settings.get("train"), source.settings.get("batch")
    if not found or not batch:
        return ""
    parts: list[str] = []
    for stage in _stages(source):
        one = found[stage]
        parts.append(
            f"{_STAGE_WORDS[stage]}: {one['optimizer']}, learning rate {one['lr']:g} "
            f"({one['schedule']}), {count(one['steps'])} steps with batches of {batch[stage]}"
        )
    words = f"Trained stage by stage: {'; '.join(parts)}. {_boxes(source)} {imbalance(source)}"
    return words.strip()


def _boxes(source: ReportSource) -> str:
    if "mass" not in _stages(source):
        return ""
    params = source.settings["params"]
    if params["boxes"] == "inner":
        return (
            f"Masses were learnt in boxes that {spelled(int(params['inner_folds']), 'network')} of "
            "the first stage found which had never seen the patient."
        )
    return (
        f"Masses were learnt in boxes around the drawn kidneys, shifted at random by up to "
        f"{params['jitter_mm']:g} mm."
    )


def imbalance(source: ReportSource) -> str:
    """What was done about rare tissue."""
    shares = source.settings.get("patches")
    if not shares or "mass" not in _stages(source):
        return ""
    return (
        f"Of the patches for masses {100 * shares['mass_share']:g} % were drawn on a mass and "
        f"{100 * shares['kidney_share']:g} % on a kidney."
    )


def selection(source: ReportSource) -> str:
    """Which weights were kept, by what."""
    if not source.settings.get("train"):
        return ""
    by = {"kidney": "Dice of kidneys", "mass": "Dice of masses", "lesion": "log-likelihood"}
    kept = listed([by[stage] for stage in _stages(source)])
    return (
        f"The weights of the best step by {kept} on the validation part of the fold were kept "
        "(the last where nothing could be validated); test patients had no part in it. A voxel "
        "counts from a probability of 0.5, which was not tuned."
    )


def ensembling(source: ReportSource) -> str:
    """How many networks speak about a patient."""
    if source.split.get("plan") is None:
        return ""
    members = int(_params(source, "mass").get("members", 1))
    words = "Each scan is tested by the networks of a fold that tests its patient"
    if "mass" in _stages(source) and members > 1:
        words += f"; masses by the mean probability of {members} networks from different seeds"
    return f"{words}."


def same_for_all(source: ReportSource) -> str:
    """That preparation knows nothing of classes and groups."""
    return "The same steps for every scan, whatever its class or group."


# ---- data ----------------------------------------------------------------------------------


def study_flow(source: ReportSource) -> str:
    """Screened, excluded with reasons, included, and what was used of it."""
    flow = FlowCounts.of(source.metrics["cohort"]["flow"])
    words = (
        f"Screened: {plural(flow.screened_patients, 'patient')} "
        f"({plural(flow.screened_studies, 'study', 'studies')}); included: "
        f"{count(flow.included_patients)}."
    )
    return f"{words} {data_words.exclusions(source)} {subsets(source)}"


def subsets(source: ReportSource) -> str:
    """Which scans were used of those that are included."""
    found = source.metrics["cohort"]
    words = (
        f"Used: {plural(int(found['scans']), 'scan')} with labels of "
        f"{plural(int(found['patients']), 'patient')}, {count(found['normal'])} of them without a "
        "lesion"
    )
    if found["unlabelled"]:
        words += f"; {plural(int(found['unlabelled']), 'scan')} without labels not used"
    phases = [str(p) for p in source.settings.get("phases") or ()]
    return f"{words}; phases: {listed(phases)} only." if phases else f"{words}."


def classes(source: ReportSource) -> str:
    """Lesions of each class."""
    found = [
        f"{r['label']}: {plural(int(r['lesions']), 'lesion')} of "
        f"{plural(int(r['patients']), 'patient')}"
        for r in source.metrics["cohort"]["classes"]
    ]
    return f"Lesions of the reference: {'; '.join(found)}." if found else ""


def images(source: ReportSource) -> str:
    """Phases and geometry of the scans."""
    found = source.metrics["cohort"]
    phases = [f"{p['name']} ({count(p['scans'])})" for p in found["phases"]]
    parts = [f"contrast phase {listed(phases)}"] if phases else []
    for key, what, digits in (
        ("slice_mm", "distance of slices in mm", 1),
        ("pixel_mm", "pixel spacing in mm", 2),
        ("slices", "slices", 0),
    ):
        one = found[key]
        if one is not None:
            middle, low, high = (number(one[k], digits) for k in ("median", "least", "most"))
            parts.append(f"{what}: median {middle} ({low}{EN_DASH}{high})")
    return f"CT scans: {'; '.join(parts)}." if parts else ""


def outlines(source: ReportSource) -> str:
    """Where the labels are from."""
    return (
        f"All {plural(int(source.metrics['cohort']['scans']), 'scan')} used have label volumes of "
        "kidney, tumour and cyst as they came with the source; who drew them is not recorded."
    )


def truth_of_test(source: ReportSource) -> str:
    """Whether tested scans have a truth of their own kind."""
    return "Tested scans carry labels as those of training do; none was drawn anew."


def missing_in_models(source: ReportSource) -> str:
    """What the models do about missing values."""
    return "The networks use scans alone; a lesion of unknown class is not used to learn classes."


def privacy(source: ReportSource) -> str:
    """What was done to identifiers."""
    return (
        "On reading, identifiers and file names were replaced by keyed pseudonyms (HMAC-SHA256), "
        "and of headers and tables only documented facts were kept. Faces are not removed from "
        "scans that show them."
    )


def ingest(source: ReportSource) -> str:
    """What became of the input files: the run does not hold it."""
    return ""


# ---- figures -------------------------------------------------------------------------------


def scoring(source: ReportSource) -> str:
    """From a scan to figures."""
    rule = source.metrics.get("statistics")
    if not rule or not _tested(source):
        return ""
    words = (
        f"A lesion counts as found by the criterion {_main(source)} unless another is named "
        f"(given for {listed([str(c) for c in rule['criteria']])}); one mark finds one lesion. "
        f"Size: {rule['size']} of the reference."
    )
    if "lesion" in _stages(source):
        words += " A mass is called by its most probable class; no threshold was chosen."
    return words


def measures(source: ReportSource) -> str:
    """Which figures are given, in which unit."""
    if not _tested(source):
        return ""
    return (
        "Measured were, as means over patients, Dice and surface Dice of kidney and mass, of mass "
        "and of tumour (definitions of KiTS); over lesions the share found, over scans the false "
        "marks, by size and with the free-response curve; and of named lesions the share named "
        "rightly, of those found and of all."
    )


def segmentation_intervals(source: ReportSource) -> str:
    """How intervals of Dice were made."""
    found = [Estimate.of(c["dice"]) for s in _tested(source) for c in s["segmentation"]["classes"]]
    used = figure_words.methods_used(found)
    return f"Intervals of Dice: {used}." if used else ""


def classification_intervals(source: ReportSource) -> str:
    """How intervals of shares of lesions were made."""
    names = ("recall", "precision", "false_per_picture")
    found = [estimate(_lesions(source, s), n) for s in _tested(source) for n in names]
    used = figure_words.methods_used(found)
    return f"Intervals of lesions found and of false marks: {used}." if used else ""


def paired_tests(source: ReportSource) -> str:
    """How systems were compared."""
    return figure_words.paired_tests(source).replace("same patients", "same scans and lesions")


def test_size(source: ReportSource) -> str:
    """Scans, patients and lesions that the figures rest on."""
    parts = [
        f"{s['label']}: {plural(int(s['scans']), 'scan')} of "
        f"{plural(int(s['patients']), 'patient')} with "
        f"{plural(int(_lesions(source, s)['lesions']), 'lesion')}"
        for s in _tested(source)
    ]
    return f"Tested: {'; '.join(parts)}." if parts else ""


def performance(source: ReportSource) -> str:
    """The main figures of every system with intervals and n."""
    parts: list[str] = []
    for s in _tested(source):
        kidney, mass = (Estimate.of(c["dice"]) for c in s["segmentation"]["classes"][:2])
        lesions = _lesions(source, s)
        large = lesions["large"]
        found = [
            (f"Dice of kidney and mass {kidney.sentence()}", kidney),
            (f"of masses {mass.sentence()}", mass),
        ]
        for name, words, one in (
            ("recall", "lesions found", lesions),
            ("false_per_picture", "false marks per scan", lesions),
            ("accuracy_all", f"from {number(large['from_mm'], 0)} mm on named rightly", large),
        ):
            e = estimate(one, name)
            found.append((f"{words} {e.sentence()}", e))
        parts.append(f"{s['label']}: {'; '.join(w for w, e in found if e.defined)}")
    return f"{'. '.join(parts)}." if parts else ""


def diagnostic(source: ReportSource) -> str:
    """Share of lesions found, of marks that are lesions, and of lesion-free scans left clean."""
    parts: list[str] = []
    for s in _tested(source):
        lesions = _lesions(source, s)
        found = [
            f"{words} {e.words()}"
            for name, words in (
                ("recall", "sensitivity per lesion"),
                ("precision", "share of marks that are lesions"),
                ("clean", "scans without a lesion left without a mark"),
            )
            if (e := estimate(lesions, name)).defined
        ]
        if found:
            parts.append(f"{s['label']}: {', '.join(found)}")
    return f"{'; '.join(parts)}." if parts else ""


def failures(source: ReportSource) -> str:
    """What went wrong, in counts."""
    parts: list[str] = []
    for s in _tested(source):
        counts = s["confusion"]["counts"][_main(source)]
        k = len(s["confusion"]["classes"])
        right = sum(row[i] for i, row in enumerate(counts))
        called = sum(sum(row[:k]) for row in counts)
        n, missed = sum(map(sum, counts)), sum(row[-1] for row in counts)
        words = f"{s['label']} missed {count(missed)} of {plural(n, 'lesion')} of known class"
        if called:
            words += f" and named {count(called - right)} of {count(called)} found ones wrongly"
        parts.append(words)
    return f"{'; '.join(parts)}." if parts else ""


def cautions(source: ReportSource) -> list[str]:
    """What the run itself knows to speak against its figures."""
    found = figure_words.cautions(source)
    named = source.metrics["cohort"]
    unknown = sum(int(p["scans"]) for p in named["phases"] if p["name"] == "unknown")
    if unknown:
        found.append(f"The contrast phase of {plural(unknown, 'scan')} is not known.")
    evened = max((int(s["segmentation"]["evened"]) for s in _tested(source)), default=0)
    if evened:
        words = plural(evened, "scan")
        found.append(f"{words} with uneven slices: masks were compared on even slices.")
    if len(_stages(source)) < len(_STAGES):
        found.append(f"Only these stages were trained: {listed(_stages(source))}.")
    for s in _tested(source):
        if s["missing"]:
            who = plural(int(s["missing"]), "tested patient")
            found.append(f"{s['label']}: nothing is stored of {who}.")
    few = [str(one["label"]) for one in named["classes"] if 0 < int(one["patients"]) < _FEW]
    if few:
        found.append(f"Classes with lesions of fewer than {_FEW} patients: {listed(few)}.")
    found.append("How readers would use the marks was not tested.")
    return found


def authors_cautions(source: ReportSource) -> str:
    """The same as one text."""
    return " ".join(cautions(source))


FOR_SCANS: Mapping[Say, Say] = {
    authors_words.cautions: authors_cautions,
    data_words.classes: classes,
    data_words.images: images,
    data_words.ingest: ingest,
    data_words.missing_in_models: missing_in_models,
    data_words.outlines: outlines,
    data_words.privacy: privacy,
    data_words.study_flow: study_flow,
    data_words.subsets: subsets,
    data_words.truth_of_test: truth_of_test,
    figure_words.classification_intervals: classification_intervals,
    figure_words.diagnostic: diagnostic,
    figure_words.failures: failures,
    figure_words.measures: measures,
    figure_words.paired_tests: paired_tests,
    figure_words.performance: performance,
    figure_words.scoring: scoring,
    figure_words.segmentation_intervals: segmentation_intervals,
    figure_words.test_size: test_size,
    training_words.augmentation: augmentation,
    training_words.description: description,
    training_words.ensembling: ensembling,
    training_words.goal: goal,
    training_words.imbalance: imbalance,
    training_words.initialisation: initialisation,
    training_words.output: output,
    training_words.predictors: predictors,
    training_words.preprocessing: preprocessing,
    training_words.refusals: refusals,
    training_words.same_for_all: same_for_all,
    training_words.selection: selection,
    training_words.systems: systems,
    training_words.technical_detail: technical_detail,
    training_words.training: training,
}

SHARED: tuple[Say, ...] = (
    authors_words.availability,
    authors_words.intended_use,
    authors_words.limitations,
    data_words.exclusions,
    data_words.facts_known,
    data_words.missing_values,
    data_words.nameless,
    data_words.people,
    data_words.places,
    data_words.reader_agreement,
    data_words.reference_standard,
    figure_words.between_places,
    figure_words.calibration,
    figure_words.explanations,
    figure_words.level,
    figure_words.software,
    figure_words.subgroups,
    training_words.disjointness,
    training_words.external_test,
    training_words.fewer_folds,
    training_words.internal_test,
    training_words.no_update,
    training_words.part_sizes,
    training_words.partition,
    training_words.test_like_training,
)
"""Sentences that say of a run with scans what they say of one with pictures."""
