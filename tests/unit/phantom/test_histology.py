"""Histology: shares as stated, typical looks, and no word about the class beyond the features."""

from collections import Counter

import numpy as np
import pytest

from renalkit.phantom.histology import (
    BENIGN,
    MALIGNANT,
    PREVALENCE,
    Histology,
    choose_histology,
)
from renalkit.phantom.levels import LEVELS, draw_latents

N = 2500


@pytest.fixture(scope="module", params=[True, False], ids=["malignant", "benign"])
def drawn(request):
    rng = np.random.default_rng(3)
    level = LEVELS["default"]
    latents = [draw_latents(level, positive=request.param, rng=rng) for _ in range(N)]
    return request.param, [
        (choose_histology(level, one, positive=request.param, rng=rng), one) for one in latents
    ]


def test_every_kind_belongs_to_one_class():
    assert set(MALIGNANT) | set(BENIGN) == set(Histology) == set(PREVALENCE)
    assert not set(MALIGNANT) & set(BENIGN)
    for kinds in (MALIGNANT, BENIGN):
        assert sum(PREVALENCE[kind] for kind in kinds) == pytest.approx(1)


def test_shares_are_the_stated_ones(drawn):
    positive, pairs = drawn
    found = Counter(kind for kind, _ in pairs)
    assert set(found) == set(MALIGNANT if positive else BENIGN)
    for kind, count in found.items():
        share = PREVALENCE[kind]
        # Four standard errors, and what the correlation of the modalities shifts.
        assert count / N == pytest.approx(share, abs=4 * (share * (1 - share) / N) ** 0.5 + 0.02)


def test_looks_are_typical(drawn):
    positive, pairs = drawn
    by_kind = {
        kind: np.mean([np.concatenate([one.bmode, one.ceus]) for k, one in pairs if k == kind], 0)
        for kind in {kind for kind, _ in pairs}
    }
    echo, texture, peak, arrival = 0, 1, 3, 4
    if positive:
        assert by_kind[Histology.PRCC][echo] > by_kind[Histology.CCRCC][echo] + 0.5
        assert by_kind[Histology.PRCC][peak] < by_kind[Histology.CCRCC][peak] - 0.8
        assert by_kind[Histology.PRCC][arrival] < by_kind[Histology.CCRCC][arrival] - 0.5
    else:
        assert by_kind[Histology.AML][echo] < by_kind[Histology.ONCOCYTOMA][echo] - 0.8
        assert by_kind[Histology.AML][texture] < by_kind[Histology.ONCOCYTOMA][texture] - 0.2
        assert by_kind[Histology.CYST][peak] < by_kind[Histology.ONCOCYTOMA][peak] - 0.8


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_shares_hold_at_every_level(level):
    rng = np.random.default_rng(5)
    found = Counter(
        choose_histology(level, draw_latents(level, positive=True, rng=rng), positive=True, rng=rng)
        for _ in range(N)
    )
    assert found[Histology.CCRCC] / N == pytest.approx(PREVALENCE[Histology.CCRCC], abs=0.05)


def test_same_generator_same_choice():
    level = LEVELS["hard"]
    latents = draw_latents(level, positive=False, rng=np.random.default_rng(1))
    chosen = [
        [
            choose_histology(level, latents, positive=False, rng=rng)
            for rng in [np.random.default_rng(2)]
            for _ in range(5)
        ]
        for _ in range(2)
    ]
    assert chosen[0] == chosen[1]
