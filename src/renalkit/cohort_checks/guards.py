"""Which guards are there, in which order, and what do they say of a cohort?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from renalkit.cohort_checks import duplicates, labels
from renalkit.cohort_checks.duplicates import Likeness, find_likenesses, groups
from renalkit.cohort_checks.findings import Finding
from renalkit.cohort_checks.probes import ProbeResult, run_probes
from renalkit.cohort_checks.scan import Scan

GuardFunction = Callable[[Scan, Sequence[Likeness]], tuple[Finding, ...]]


def _alone(function: Callable[[Scan], tuple[Finding, ...]]) -> GuardFunction:
    """A guard that needs no likenesses in the shape of one that does."""

    def run(scan: Scan, likenesses: Sequence[Likeness]) -> tuple[Finding, ...]:
        del likenesses
        return function(scan)

    return run


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard: id, what it asks, and the function that answers."""

    id: str
    title: str
    run: GuardFunction


GUARDS: tuple[Guard, ...] = (
    Guard("L01", "groups that must stay together", duplicates.guard_groups),
    Guard("L02", "identical pictures across patients", duplicates.guard_exact),
    Guard("L03", "near-duplicates across patients", duplicates.guard_near),
    Guard("L04", "mirrored or rotated copies", duplicates.guard_augmented),
    Guard("L07", "burned-in marks", _alone(labels.guard_marks)),
    Guard("L09", "class and machine or site", _alone(labels.guard_confounding)),
    Guard("L10", "pictures per patient", _alone(labels.guard_frames_per_patient)),
    Guard("L11", "lesions per patient", _alone(labels.guard_lesions_per_patient)),
    Guard("L15", "exclusions by class", _alone(labels.guard_exclusions)),
    Guard("Q01", "one patient in two classes", _alone(labels.guard_patient_labels)),
    Guard("Q02", "one frame with two classes", _alone(labels.guard_frame_labels)),
    Guard("Q03", "outlines", _alone(labels.guard_masks)),
    Guard("Q04", "unknown scale", _alone(labels.guard_scale)),
)
"""Every guard in the order of the report. The probes (L07 margin, L08 metadata) follow them."""

GUARD_IDS = tuple(dict.fromkeys([*(g.id for g in GUARDS), "L07", "L08"]))
"""Ids that a waiver may name."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What all guards and probes found, and patient -> group for the splits."""

    findings: tuple[Finding, ...]
    probes: tuple[ProbeResult, ...]
    groups: dict[str, str]


def examine(scan: Scan) -> Examination:
    """Run every guard and probe on one scan."""
    likenesses = find_likenesses(scan)
    group_of = groups(scan, likenesses)
    findings = [f for guard in GUARDS for f in guard.run(scan, likenesses)]
    probes, alarms = run_probes(scan, group_of)
    return Examination((*findings, *alarms), probes, group_of)
