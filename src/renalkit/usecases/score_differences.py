"""Do the scores of a table differ? Every two of them, first minus second, with adjusted p-values.

On the same rows: DeLong or Obuchowski, permutation of patients, McNemar at operating points (whose
place permutation takes where a patient has several rows). Of different patients: Welch on DeLong's
variances, or permutation of patients between the two groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import isfinite

import numpy as np

from renalkit.domain.prediction import Unit
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.auc_inference import (
    AucComparison,
    equal_aucs,
    paired_clustered_auc,
    paired_delong,
    unpaired_delong,
)
from renalkit.metrics.bootstrap import (
    Auc,
    RatioOfSums,
    Statistic,
    paired_cluster_bootstrap,
)
from renalkit.metrics.comparisons import (
    Comparison,
    PermutationPlan,
    auc_non_inferiority,
    auc_permutation_test,
    mcnemar,
    paired_calls,
    permutation_test,
    unpaired_permutation_test,
)
from renalkit.metrics.curves import AveragePrecision, PartialAuc
from renalkit.metrics.multiplicity import benjamini_hochberg, holm
from renalkit.usecases.call_figures import call_rates
from renalkit.usecases.results import Json, estimate_json, undefined_json
from renalkit.usecases.stats_options import Adjust, Asked, Wish
from renalkit.usecases.table_scores import Bools, Floats, Scored

_SHARES = ("accuracy", "sensitivity", "specificity")


def score_differences(scored: Scored, asked: Asked, *, unpaired: bool) -> list[Json]:
    """One entry per pair, figure and test; p adjusted over the pairs of one figure and test."""
    rows: list[Json] = []
    for i, j in combinations(range(len(scored.names)), 2):
        pair = _Pair(scored, asked, (i, j))
        rows += pair.unpaired() if unpaired else pair.paired()
    return adjusted(rows, asked.adjust)


def equality(scored: Scored, asked: Asked) -> Json | None:
    """The test that all AUCs are equal, of three scores or more on the same rows."""
    if len(scored.names) < 3:
        return None
    groups = None if scored.independent else scored.groups
    try:
        found = equal_aucs(scored.truth, scored.scores, groups, asked.plan.level)
    except StatisticUndefined as error:
        return {"p": None, "note": str(error)}
    return {
        "test": f"all {len(scored.names)} AUCs are equal, chi-square",
        "statistic": found.statistic,
        "df": found.df,
        "p": found.p_value,
        "n": found.aucs[0].n,
        "unit": found.aucs[0].unit.word,
    }


class _Pair:
    """Two scores of a table."""

    def __init__(self, scored: Scored, asked: Asked, pair: tuple[int, int]) -> None:
        self.scored, self.asked, self.pair = scored, asked, pair
        self.names = [scored.names[k] for k in pair]
        self.level = asked.plan.level
        self.exchanges = PermutationPlan(seed=asked.plan.seed)

    def row(self, metric: str, kind: str, make: Callable[[], Json]) -> Json:
        """One comparison; null with its reason where there is none."""
        about: Json = {
            "first": self.names[0],
            "second": self.names[1],
            "metric": metric,
            "kind": kind,
        }
        try:
            return about | make()
        except StatisticUndefined as error:
            n = self.scored.n_patients
            why = undefined_json(n, Unit.PATIENT, str(error), self.level)
            return about | {"difference": why, "p": None, "test": ""}

    # ---------------------------------------------------------------- the same rows

    def paired(self) -> list[Json]:
        s, (i, j) = self.scored, self.pair
        a, b, groups = s.scores[i], s.scores[j], s.groups
        rows = [
            self.row("auc", "analytic", lambda: _areas_json(self._areas(a, b))),
            self.row(
                "auc",
                "permutation",
                lambda: _comparison_json(
                    auc_permutation_test(s.truth, a, b, groups, self.exchanges)
                ),
            ),
            self.row(
                "average_precision",
                "bootstrap",
                lambda: self._resampled(AveragePrecision(s.truth, a), AveragePrecision(s.truth, b)),
            ),
        ]
        for part in self.asked.parts:
            words = f"partial_auc, {part.axis.value} {part.low:g} to {part.high:g}, standardised"
            one, two = (PartialAuc(s.truth, x, part, standardised=True) for x in (a, b))
            rows.append(self.row(words, "bootstrap", lambda x=one, y=two: self._resampled(x, y)))
        for wish in self.asked.wishes:
            rows += self._at(wish)
        if self.asked.margin is not None:
            rows.append(self.row("auc", "non-inferiority", lambda: self._not_worse(a, b)))
        return rows

    def _areas(self, a: Floats, b: Floats) -> AucComparison:
        s = self.scored
        if s.independent:
            return paired_delong(s.truth, a, b, level=self.level)
        return paired_clustered_auc(s.truth, (a, b), s.groups, level=self.level)

    def _resampled(self, one: Statistic, two: Statistic) -> Json:
        found = paired_cluster_bootstrap(one, two, self.scored.groups, self.asked.plan)
        return {
            "difference": estimate_json(found.difference),
            "first_value": found.first.value,
            "second_value": found.second.value,
            "test": "paired bootstrap of patients",
            "p": found.p_value,
        }

    def _not_worse(self, a: Floats, b: Floats) -> Json:
        s, margin = self.scored, self.asked.margin
        assert margin is not None
        groups = None if s.independent else s.groups
        found = auc_non_inferiority(s.truth, (a, b), margin, groups, self.level)
        return {
            "difference": estimate_json(found.difference),
            "margin": margin,
            "shown": found.shown,
            "test": f"one-sided, first worse by {margin:g} or more",
            "p": found.p_value,
        }

    def _calls(self, wish: Wish) -> tuple[list[Bools], Json]:
        """Calls of both scores, each on its own rows, and where their thresholds come from."""
        found = [wish.threshold(self.scored, k) for k in self.pair]
        rows = [self.scored.of(k)[1] for k in self.pair]
        calls = [s >= t["value"] for s, t in zip(rows, found, strict=True)]
        return calls, {"thresholds_from": found[0]["from"]}

    def _at(self, wish: Wish) -> list[Json]:
        """Both scores at an operating point: are different shares called rightly?"""
        truth = self.scored.truth == 1

        def compared(name: str) -> Json:
            calls, source = self._calls(wish)
            (top, bottom), (other, _) = (call_rates(truth, c)[name] for c in calls)
            if not bottom.any():
                raise StatisticUndefined("0 of 0: the share does not exist")
            shares = [float(t[bottom].mean()) for t in (top, other)]
            values = source | {"first_value": shares[0], "second_value": shares[1]}
            if self.scored.independent:
                pairs = paired_calls(top[bottom], other[bottom])
                return values | _comparison_json(mcnemar(pairs, level=self.level))
            one, two = (_share(t, bottom) for t in (top, other))
            found = permutation_test(one, two, self.scored.groups, self.exchanges)
            interval = paired_cluster_bootstrap(one, two, self.scored.groups, self.asked.plan)
            return values | _comparison_json(replace(found, difference=interval.difference))

        return [
            self.row(f"{name} at {wish.text}", "calls", lambda name=name: compared(name))
            for name in _SHARES
        ]

    # ---------------------------------------------------------------- different patients

    def unpaired(self) -> list[Json]:
        (t1, a, g1), (t2, b, g2) = (self.scored.of(k) for k in self.pair)
        both = set(g1.tolist()) & set(g2.tolist())
        if both:
            raise ConfigError(
                [
                    f"--unpaired: {len(both)} patients have both {self.names[0]} and "
                    f"{self.names[1]}; leave it out, or compare other patients"
                ]
            )
        groups = np.concatenate([g1, g2])
        in_first = np.concatenate([np.ones(len(g1)), np.zeros(len(g2))])
        truth, scores = np.concatenate([t1, t2]), np.concatenate([a, b])
        # Patients exchange within their class, unless some have rows of both.
        pairs = set(zip(groups.tolist(), truth.tolist(), strict=True))
        strata = truth if len(pairs) == len({g for g, _ in pairs}) else None

        def exchanged(statistic: Statistic) -> Json:
            found = unpaired_permutation_test(statistic, groups, in_first, self.exchanges, strata)
            return _comparison_json(found)

        rows = [self.row("auc", "permutation", lambda: exchanged(Auc(truth, scores)))]
        if self.scored.independent:
            found = self.row(
                "auc",
                "analytic",
                lambda: _areas_json(unpaired_delong((t1, a), (t2, b), level=self.level)),
            )
            rows.insert(0, found)
        for wish in self.asked.wishes:
            for name in _SHARES:

                def shares(name: str = name, wish: Wish = wish) -> Json:
                    calls, source = self._calls(wish)
                    top, bottom = call_rates(truth == 1, np.concatenate(calls))[name]
                    return source | exchanged(_share(top, bottom))

                rows.append(self.row(f"{name} at {wish.text}", "calls", shares))
        return rows


def _share(top: Bools, bottom: Bools) -> RatioOfSums:
    return RatioOfSums(top.astype(np.float64), bottom.astype(np.float64))


def _areas_json(found: AucComparison) -> Json:
    return {
        "difference": estimate_json(found.difference),
        "first_value": found.first.value,
        "second_value": found.second.value,
        "statistic": found.statistic,
        "df": found.df if isfinite(found.df) else None,
        "test": f"{'t' if isfinite(found.df) else 'z'}, {found.difference.method}",
        "p": found.p_value,
    }


def _comparison_json(found: Comparison) -> Json:
    return {
        "difference": estimate_json(found.difference),
        "statistic": found.statistic if isfinite(found.statistic) else None,
        "test": found.test,
        "p": found.p_value,
    }


def adjusted(rows: list[Json], how: Adjust) -> list[Json]:
    """p_adjusted over the pairs of one figure and test; family: how many there are."""
    families: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for row in rows:
        if row["p"] is not None:
            families[row["metric"], row["kind"]].append(row)
    for family in families.values():
        p = np.array([row["p"] for row in family], dtype=np.float64)
        found = holm(p) if how is Adjust.HOLM else benjamini_hochberg(p)
        for row, value in zip(family, found.tolist(), strict=True):
            row |= {"p_adjusted": value, "family": len(family)}
    return rows
