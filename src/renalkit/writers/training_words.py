"""What does a run say of its folds, networks and training, in sentences?

For the methods paragraph, the checklists and the model card. Every function gives one or a few
sentences, or "" where the run holds nothing to say. Settings are told as they were resolved.
"""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers.source import CLINICAL, Json, ReportSource
from renalkit.writers.wording import EN_DASH, count, listed, plain, plural, spelled

_PLANS = {
    "kfold": "every patient is tested once",
    "repeated-kfold": "every patient is tested once per repeat",
    "holdout": "one test part, the same in all folds",
    "leave-site-out": "each site is tested by models that never saw it",
    "leave-scanner-out": "each scanner is tested by models that never saw it",
    "external": "the external cohort is the test part of all folds",
}


def partition(source: ReportSource) -> str:
    """How patients were divided."""
    folds = source.split.get("folds", ())
    if not folds:
        return ""
    plan = str(source.split["plan"])
    split = source.settings.get("split") or {}
    words = (
        f"Patients were divided into {spelled(len(folds), 'fold')} (plan {plan}, seed "
        f"{source.split['seed']}"
    )
    if split.get("stratify") and split.get("file") is None and plan != "external":
        words += ", stratified by class"
    words += ")"
    words += f": {_PLANS[plan]}" if plan in _PLANS else ""
    return f"{words}. {part_sizes(source)}"


def _spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)}{EN_DASH}{count(high)}"


def disjointness(source: ReportSource) -> str:
    """Between what the parts are disjoint, and what the leak check says of it."""
    if not source.split.get("folds"):
        return ""
    return f"No patient is in two parts of a fold. {leak_check(source)}".strip()


def leak_check(source: ReportSource) -> str:
    """Findings of the cohort check that block, and waivers."""
    if source.check is None:
        return ""
    blocking = [f for f in source.check["findings"] if f["severity"] == "block"]
    if not blocking:
        return "The check of the cohort for leaks and duplicates found nothing that blocks."
    guards = sorted({str(f["guard"]) for f in blocking if f["waived"]})
    verb = "blocks" if len(blocking) == 1 else "block"
    words = f"The check of the cohort has {spelled(len(blocking), 'finding')} that {verb}"
    return f"{words}, waived by name: {listed(guards)}." if guards else f"{words}."


def fewer_folds(source: ReportSource) -> str:
    """Systems that were not trained and tested in every fold."""
    n = len(source.split.get("folds", ()))
    few: dict[int, list[str]] = {}
    for s in source.systems:
        if n and len(s["folds"]) < n:
            few.setdefault(len(s["folds"]), []).append(str(s["label"]))
    parts = [f"{listed(labels)} in {spelled(k, 'fold')} only" for k, labels in sorted(few.items())]
    return f"Not in every fold: {'; '.join(parts)}." if parts else ""


def part_sizes(source: ReportSource) -> str:
    """Patients in the parts of the folds."""
    folds = source.split.get("folds", ())
    if not folds:
        return ""
    parts = [_spread([int(f[p]) for f in folds]) for p in ("train", "validation", "test")]
    return (
        f"Patients per fold: {parts[0]} in training, {parts[1]} in validation, {parts[2]} in test."
    )


def is_external(source: ReportSource) -> bool:
    """Whether the tested patients come from elsewhere than those of training."""
    return source.split.get("plan") in ("external", "leave-site-out")


def internal_test(source: ReportSource) -> str:
    """The test on patients of the same source."""
    n = len(source.split.get("folds", ()))
    if not n or source.split["plan"] == "external":
        return ""
    return f"{spelled(n, 'fold').capitalize()}: {_PLANS.get(str(source.split['plan']), 'tested')}."


def external_test(source: ReportSource) -> str:
    """The test elsewhere, or that there is none."""
    if not source.split.get("folds"):
        return ""
    if source.split["plan"] == "external":
        return (
            "The networks of every fold, trained elsewhere, were tested on the external cohort; "
            "patients and pictures of the development cohort among it are refused."
        )
    if source.split["plan"] == "leave-site-out":
        return "Each site was tested by networks trained at the others."
    return "No test on data of another source is part of this run."


def test_like_training(source: ReportSource) -> str:
    """How tested patients relate to those of training."""
    if not source.split.get("folds"):
        return ""
    if source.split["plan"] == "external":
        return "The table of patients by part compares development and external patients."
    if source.split["plan"] in ("leave-site-out", "leave-scanner-out"):
        where = str(source.split["plan"]).split("-")[1]
        return f"Tested patients come from another {where} than those of training."
    return "Tested patients are drawn from the same cohort as those of training."


def goal(source: ReportSource) -> str:
    """What the run did: making models, testing them, comparing them."""
    n = len(source.systems)
    if source.split.get("plan") == "external":
        return f"{spelled(n, 'trained system').capitalize()} tested in another cohort."
    same = " on the same folds and compared" if n > 1 else ""
    return f"{spelled(n, 'system').capitalize()} trained and tested{same}."


def systems(source: ReportSource) -> str:
    """What was trained, by label, with sizes and sources."""
    parts: list[str] = []
    for s in source.networks:
        card = source.cards.get(str(s["system"]))
        words = f"{s['label']}: {card['title'] if card else s['system']}, {_task(s)}"
        size = (s.get("complexity") or {}).get("parameters")
        words += f", {count(size)} parameters" if size else ""
        parts.append(words)
    if source.clinical_model is not None:
        parts.append(f"{CLINICAL}: ridge logistic regression on facts about the patient")
    return f"{'; '.join(parts)}." if parts else ""


def _task(system: Json) -> str:
    task = str(system["task"])
    return "segmentation and classification" if task == "both" else task


def description(source: ReportSource) -> str:
    """Where the networks are described."""
    titles = [f"{c['title']} ({c['reference'].rstrip('.')})" for c in source.cards.values()]
    if not titles:
        return ""
    return (
        f"References: {'; '.join(titles)}. Parameters, layers and every choice the papers leave "
        "open are in the sections Complexity and Cards of the report."
    )


def technical_detail(source: ReportSource) -> str:
    """What fixes the run: settings, folds, weights."""
    if not source.settings_digest:
        return ""
    words = (
        f"All settings are in experiment.json (SHA-256 {source.settings_digest[:12]}…), the folds "
        f"in folds.json (SHA-256 {str(source.metrics['split_digest'])[:12]}…)"
    )
    n = len(source.folds_done)
    return (
        f"{words}, the SHA-256 of {plural(n, 'set')} of weights in the report."
        if n
        else f"{words}."
    )


def predictors(source: ReportSource) -> str:
    """What the models see."""
    words = "The networks see the pixels of B-mode images and nothing else."
    if source.clinical_model is None:
        return words
    columns = (source.settings.get("clinical") or {}).get("columns")
    named = f": {listed([plain(str(c)) for c in columns])}" if columns else ""
    return f"{words} The clinical model sees facts about the patient{named}."


def same_for_all(source: ReportSource) -> str:
    """That preparation knows nothing of classes and groups."""
    return "The same steps for every image, whatever its class or group."


def no_update(source: ReportSource) -> str:
    """That tested models were left alone."""
    return "No model was changed or recalibrated after testing."


def output(source: ReportSource) -> str:
    """What the models give out."""
    parts: list[str] = []
    if source.classifying:
        parts.append(f"one probability per class ({listed(source.classes)}), summing to 1")
    if source.segmenting:
        parts.append("an outline in pixels of the source image")
    return f"Given out per image: {listed(parts)}." if parts else ""


def refusals(source: ReportSource) -> str:
    """What prediction does with pictures it cannot use."""
    return (
        "Pictures that cannot be decoded, are constant, not finite or smaller than 16 px are "
        "refused with a reason; nothing judges whether a picture shows a kidney well."
    )


def preprocessing(source: ReportSource) -> str:
    """From a stored picture to the input of a network."""
    found = source.settings.get("input")
    if not found:
        return ""
    sides: dict[int, list[str]] = {}
    for label, job in source.jobs.items():
        sides.setdefault(int(job["input"]["size"]), []).append(label)
    sides = sides or {int(found["size"]): []}
    steps = ["made grey (8 bit)"]
    if found.get("bilateral"):
        steps.append("smoothed by a bilateral filter")
    if found.get("clahe"):
        steps.append("equalised locally (CLAHE)")
    several = len(sides) > 1
    sizes = [
        f"{n} × {n} px" + (f" ({listed(labels)})" if several else "")
        for n, labels in sorted(sides.items())
    ]
    steps.append(f"fitted into {listed(sizes)} with their proportions kept")
    scale = "their own mean and SD" if found["normalise"] == "zscore" else "0 to 1"
    return f"Images were {', '.join(steps)} and scaled to {scale}."


def augmentation(source: ReportSource) -> str:
    """What training pictures underwent at random."""
    found = source.settings.get("augment")
    if not found:
        return ""
    if not found["probability"] and not found["flip_probability"]:
        return "Nothing was augmented."
    parts = [f"mirrored left to right with probability {found['flip_probability']:g}"]
    if found["probability"]:
        low, high = found["scale"]
        parts.append(
            f"turned by up to {found['rotation_deg']:g}°, scaled by {low:g} to {high:g} and "
            f"shifted by up to {found['translate']:g} of the side"
        )
        changed = [
            f"contrast ({_to(found['contrast'])})",
            f"brightness (±{found['brightness']:g})",
            f"gamma ({_to(found['gamma'])})",
        ]
        if list(found["gamma"]) == [1, 1]:
            changed.pop()
        parts.append(f"changed in {listed(changed)}")
        if found["elastic_amplitude_px"]:
            parts.append(f"bent elastically by up to {found['elastic_amplitude_px']:g} px")
        if found["noise_sd"]:
            parts.append(f"given noise of SD up to {found['noise_sd']:g}")
        parts[-1] += f" (each group with probability {found['probability']:g})"
    return f"Training images alone were augmented anew in every epoch: {'; '.join(parts)}."


def _to(pair: Sequence[float]) -> str:
    return f"{pair[0]:g} to {pair[1]:g}"


def initialisation(source: ReportSource) -> str:
    """What the weights of the networks started from."""
    if not source.jobs:
        return ""
    parts = [_earlier(x, j["initial"]) for x, j in source.jobs.items() if "initial" in j]
    fresh = {x: j for x, j in source.jobs.items() if "initial" not in j}
    loaded = [x for x, j in fresh.items() if j["params"].get("init_weights")]
    rest = [x for x in fresh if x not in loaded]
    if loaded:
        hashes = dict.fromkeys(str(source.jobs[x]["params"]["init_sha256"])[:12] for x in loaded)
        parts.append(
            f"The encoders of {listed(loaded)} started from weights in a local file (SHA-256 "
            f"{listed(list(hashes))}…)"
        )
    if rest:
        parts.append(f"{listed(rest)} started from random weights, drawn by the seed of training")
    return f"{'; '.join(parts)}."


def _earlier(label: str, initial: Json) -> str:
    """That weights began with those of an earlier run, and who was seen before."""
    how = ""
    if initial["compared_by"] == "pictures only":
        how = " (patients were compared by their pictures, no pseudonym being in both cohorts)"
    elif initial["compared_by"] == "hashes of pseudonyms":
        how = " (patients were compared by keyed hashes of their pseudonyms)"
    folds = int(initial["folds_validated_again"])
    again = ""
    if folds:
        again = (
            f"; in {plural(folds, 'fold')} patients validated who had validated that model too, so "
            "that the choice of the epoch saw them twice"
        )
    source = "model package" if initial["package"] else "earlier run"
    return (
        f"{label} started in each fold from a model of {initial['label']} of the {source} "
        f"{initial['run']}, class heads drawn anew, that was not trained with any patient the fold "
        f"validates or tests, nor chosen with any it tests{how}{again}"
    )


def training(source: ReportSource) -> str:
    """Optimiser, length and imbalance; what differs for a system is named with it."""
    base = source.settings.get("train")
    if not base:
        return ""
    words = (
        f"Networks were trained with {_optimizer(base)}, learning rate {base['lr']:g} "
        f"({base['schedule']}), batches of {base['batch_size']}, for at most "
        f"{base['epochs']} epochs; training stopped after {base['patience']} epochs without gain. "
        f"{imbalance(source)} Seed {base['seed']}."
    )
    for item in source.settings.get("systems") or ():
        if item.get("train"):
            changed = [f"{plain(k)} {v}" for k, v in item["train"].items()]
            words += f" {item.get('label') or item['name']} differs: {listed(changed)}."
    kept = _epochs(source)
    return f"{words} {kept}".strip()


def _optimizer(base: Json) -> str:
    chosen = str(base["optimizer"])
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}.get(chosen, chosen)
    return f"{name}, momentum {base['momentum']:g}" if chosen == "sgd" else name


def _epochs(source: ReportSource) -> str:
    parts: list[str] = []
    for s in source.networks:
        kept = [int(f["best_epoch"]) for f in s["training"] if f.get("best_epoch")]
        run = [int(f["epochs"]) for f in s["training"] if f.get("epochs")]
        if kept and run:
            parts.append(f"{s['label']} {_spread(kept)} of {_spread(run)}")
    return f"Epoch kept, of epochs trained, over folds: {'; '.join(parts)}." if parts else ""


def imbalance(source: ReportSource) -> str:
    """What was done about unequal classes."""
    base = source.settings.get("train") or {}
    ways = {
        "oversample": "Images of rarer classes were repeated up to the most frequent class",
        "balanced": "Classes were drawn with equal probability",
        "plain": "Every training image was drawn alike",
    }
    if base.get("sampling") not in ways:
        return ""
    words = ways[base["sampling"]]
    if base.get("class_weights") == "inverse":
        words += ", and the loss was weighted by inverse frequency"
    return f"{words}."


def selection(source: ReportSource) -> str:
    """Which epoch was kept, by what."""
    base = source.settings.get("train")
    if not base:
        return ""
    monitor = str(base["monitor"])
    by = {
        "loss+iou": "IoU (lowest loss for a system that outlines nothing)",
        "iou": "IoU",
        "auc": "AUC",
        "loss": "lowest loss",
    }.get(monitor, monitor)
    words = (
        f"The weights of the best epoch by {by} on the validation part of the fold were kept; "
        "test patients had no part in it."
    )
    if source.clinical_model is None:
        return words
    return (
        f"{words} The penalty of the clinical model was chosen by cross-validation inside the "
        "training patients."
    )


def ensembling(source: ReportSource) -> str:
    """How many networks speak about a patient."""
    plan = source.split.get("plan")
    if plan is None:
        return ""
    mirrored = bool((source.settings.get("train") or {}).get("tta"))
    words = (
        "Each patient is tested by the one network of the fold that tests the patient"
        if plan not in ("external", "holdout", "repeated-kfold")
        else "Every fold has its own network; pooled figures use the mean of the networks that "
        "test a patient, figures per fold one network each"
    )
    more = "; each prediction is the mean over the image and its mirror image" if mirrored else ""
    return f"{words}{more}."
