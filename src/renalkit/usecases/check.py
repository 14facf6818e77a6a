"""Can this cohort be trained on? Runs every guard and probe and says what stands in the way."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from renalkit.cohort_checks.findings import Finding, Severity
from renalkit.cohort_checks.guards import GUARD_IDS, examine
from renalkit.cohort_checks.probes import ProbeResult
from renalkit.cohort_checks.scan import scan_cohort
from renalkit.domain.cohort import Cohort
from renalkit.errors import CheckFailed, ConfigError


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Findings in the order of the guards, probes, and patient -> group for the splits."""

    findings: tuple[Finding, ...]
    probes: tuple[ProbeResult, ...]
    groups: dict[str, str]
    waivers: frozenset[str] = frozenset()

    def waived(self, finding: Finding) -> bool:
        """Whether a finding that would block was waived by the name of its guard."""
        return finding.severity is Severity.BLOCK and finding.guard in self.waivers

    @property
    def blocking(self) -> bool:
        """Whether something blocks training and was not waived."""
        return any(f.severity is Severity.BLOCK and not self.waived(f) for f in self.findings)

    def require_clear(self) -> None:
        """Raise CheckFailed when something blocks; training calls this first."""
        standing = [f for f in self.findings if f.severity is Severity.BLOCK and not self.waived(f)]
        if standing:
            ids = ", ".join(sorted({f.guard for f in standing}))
            raise CheckFailed(
                f"{len(standing)} findings block training ({ids}), first: {standing[0].words}",
                where="cohort check",
                expected="no leak and no contradicting label",
                remedy="exclude the studies named by the check, or waive the guard by its id",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; waived findings stay, marked."""
        return {
            "blocking": self.blocking,
            "waivers": sorted(self.waivers),
            "findings": [
                {
                    "guard": f.guard,
                    "severity": f.severity.value,
                    "waived": self.waived(f),
                    "words": f.words,
                    "studies": list(f.studies),
                    "patients": list(f.patients),
                    "detail": dict(f.detail),
                }
                for f in self.findings
            ],
            "probes": [
                {
                    "name": p.name,
                    "auc": p.auc,
                    "low": p.low,
                    "high": p.high,
                    "n": p.n,
                    "unit": p.unit,
                    "method": p.method,
                    "alarming": p.alarming,
                }
                for p in self.probes
            ],
            "groups": dict(sorted(self.groups.items())),
        }

    def to_table(self) -> str:
        """Findings and probes as lines of text, most severe first, equal words on one line."""
        order = list(Severity)
        lines = [f"{'guard':<6}{'severity':<9}{'studies':>8}  finding"]
        alike: dict[tuple[Severity, str, str], list[Finding]] = defaultdict(list)
        for f in self.findings:
            alike[f.severity, f.guard, f.words].append(f)
        for _, same in sorted(alike.items(), key=lambda a: (order.index(a[0][0]), a[0][1:])):
            severity = "waived" if self.waived(same[0]) else same[0].severity.value
            studies = len({key for f in same for key in f.studies})
            times = f" ({len(same)} times)" if len(same) > 1 else ""
            lines.append(
                f"{same[0].guard:<6}{severity:<9}{studies or '':>8}  {same[0].words}{times}"
            )
        if not self.findings:
            lines.append("nothing found")
        for p in self.probes:
            lines.append(
                f"probe {p.name}: AUC {p.auc:.3f} ({p.low:.3f} to {p.high:.3f}), "
                f"{p.n} {p.unit}s, {p.method}"
            )
        lines.append("blocks training" if self.blocking else "does not block training")
        return "\n".join(lines)


def check(
    cohort: Cohort,
    waivers: frozenset[str] = frozenset(),
    links: tuple[tuple[str, str], ...] = (),
) -> CheckReport:
    """Run every guard and probe on a cohort.

    waivers name guard ids (L02 ...): their findings no longer block, and stay visible as waived.
    links: pairs of patients known to belong together.

    Raises ConfigError for a waiver that is no guard, ValueError for links to strangers.
    """
    unknown = sorted(waivers - set(GUARD_IDS))
    if unknown:
        raise ConfigError(
            [f"'{w}' is no guard; known: {', '.join(GUARD_IDS)}" for w in unknown],
            where="waivers",
        )
    found = examine(scan_cohort(cohort, links=links))
    return CheckReport(found.findings, found.probes, found.groups, waivers)
