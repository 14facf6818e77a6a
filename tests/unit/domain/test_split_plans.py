"""Every plan keeps groups together, tests what it promises and depends on content and seed only."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.splits import (
    Fold,
    PatientFacts,
    Plan,
    Split,
    SplitOptions,
    follow_split,
    make_split,
)
from renalkit.errors import ConfigError

PATIENT_PLANS = (Plan.KFOLD, Plan.REPEATED_KFOLD, Plan.HOLDOUT)


@st.composite
def cohorts(draw: st.DrawFn) -> list[PatientFacts]:
    """Groups of 1-4 patients, mostly of one class, enough of every class, two sites."""
    classes = draw(st.integers(1, 3))
    facts: list[PatientFacts] = []
    for c in range(classes):
        for g in range(draw(st.integers(6, 25))):
            for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
                n = len(facts)
                facts.append(
                    PatientFacts(
                        f"p{n:04d}",
                        f"g{c}-{g}",
                        # A few groups contradict themselves, as duplicate clusters do.
                        f"c{c}" if draw(st.integers(0, 19)) else "c0",
                        site=f"s{draw(st.integers(0, 1))}",
                        scanner="one" if n % 3 else "two",
                    )
                )
    return facts


def options_for(plan: Plan, facts: list[PatientFacts]) -> SplitOptions:
    external = frozenset(f.patient for f in facts[::5]) if plan is Plan.EXTERNAL else frozenset()
    return SplitOptions(folds=4, repeats=3 if plan is Plan.REPEATED_KFOLD else 1, external=external)


def split_or_none(facts: list[PatientFacts], plan: Plan, seed: int) -> Split | None:
    try:
        return make_split(facts, plan, seed, options_for(plan, facts))
    except ConfigError:
        assert plan not in PATIENT_PLANS or classes_too_small(facts)
        return None


def classes_too_small(facts: list[PatientFacts]) -> bool:
    """Contradicting groups may leave a class with fewer groups than folds: a refusal is right."""
    majority: dict[str, Counter[str]] = {}
    for f in facts:
        majority.setdefault(f.group, Counter())[f.stratum] += 1
    pure = Counter(next(iter(c)) for c in majority.values() if len(c) == 1)
    return min([pure.get(f.stratum, 0) for f in facts]) < 5


@settings(deadline=None, max_examples=150)
@given(facts=cohorts(), plan=st.sampled_from(list(Plan)), seed=st.integers(0, 9))
def test_l01_no_group_is_in_two_parts_of_a_fold(
    facts: list[PatientFacts], plan: Plan, seed: int
) -> None:
    split = split_or_none(facts, plan, seed)
    if split is None:
        return
    group = {f.patient: f.group for f in facts}
    for fold in split.folds:
        parts = [{group[p] for p in part} for part in (fold.train, fold.validation, fold.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert all(parts)


@settings(deadline=None, max_examples=40)
@given(facts=cohorts(), seed=st.integers(0, 9))
def test_kfold_tests_every_patient_once_per_repeat(facts: list[PatientFacts], seed: int) -> None:
    everyone = {f.patient for f in facts}
    for plan, repeats in ((Plan.KFOLD, 1), (Plan.REPEATED_KFOLD, 3)):
        split = split_or_none(facts, plan, seed)
        if split is None:
            return
        assert len(split.folds) == 4 * repeats
        tested = Counter(p for fold in split.folds for p in fold.test)
        assert tested == dict.fromkeys(everyone, repeats)
        for fold in split.folds:
            assert fold.train | fold.validation | fold.test == everyone


@settings(deadline=None, max_examples=40)
@given(
    facts=cohorts(),
    plan=st.sampled_from(list(Plan)),
    seed=st.integers(0, 9),
    shuffle=st.randoms(use_true_random=False),
)
def test_split_depends_on_content_and_seed_only(
    facts: list[PatientFacts], plan: Plan, seed: int, shuffle: random.Random
) -> None:
    split = split_or_none(facts, plan, seed)
    if split is None:
        return
    renamed = [
        PatientFacts(f.patient, f"other {f.group[::-1]}", f.stratum, f.site, f.scanner)
        for f in facts
    ]
    shuffle.shuffle(renamed)
    options = options_for(plan, facts)
    assert make_split(renamed, plan, seed, options) == split
    assert make_split(renamed, plan, seed + 1, options).digest != split.digest


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(5, 60), min_size=1, max_size=4),
    folds=st.integers(3, 5),
    seed=st.integers(0, 99),
)
def test_single_patients_are_spread_to_within_one(sizes: list[int], folds: int, seed: int) -> None:
    facts = [
        PatientFacts(f"p{c}-{i}", f"g{c}-{i}", f"c{c}")
        for c, n in enumerate(sizes)
        for i in range(n)
    ]
    split = make_split(facts, Plan.KFOLD, seed, SplitOptions(folds=folds))
    stratum = {f.patient: f.stratum for f in facts}
    for c, size in enumerate(sizes):
        tested = [sum(stratum[p] == f"c{c}" for p in fold.test) for fold in split.folds]
        assert max(tested) - min(tested) <= 1
        for fold in split.folds:
            rest = sum(stratum[p] == f"c{c}" for p in fold.train | fold.validation)
            validated = sum(stratum[p] == f"c{c}" for p in fold.validation)
            assert abs(validated - 0.2 * rest) <= 1
            assert rest + sum(stratum[p] == f"c{c}" for p in fold.test) == size
    totals = [len(fold.test) for fold in split.folds]
    assert max(totals) - min(totals) <= 1


def simple(n: int = 40, **more: str) -> list[PatientFacts]:
    return [PatientFacts(f"p{i:03d}", f"p{i:03d}", "ab"[i % 2], **more) for i in range(n)]


def test_default_fold_is_64_16_20() -> None:
    split = make_split(simple(100), Plan.KFOLD, 0)
    for fold in split.folds:
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (64, 16, 20)


def test_split_is_the_same_on_every_machine() -> None:
    # L17: the digest of a fixed input, so that a change of the algorithm is a visible decision.
    split = make_split(simple(), Plan.KFOLD, 7)
    again = make_split(simple(), Plan.KFOLD, 7)
    assert split.digest == again.digest
    assert sorted(split.folds[0].test) == GOLDEN_TEST


GOLDEN_TEST = ["p005", "p007", "p018", "p024", "p026", "p028", "p033", "p037"]


def test_holdout_shares_one_test_part_and_inner_folds_validate_the_rest() -> None:
    split = make_split(simple(), Plan.HOLDOUT, 3, SplitOptions(folds=4))
    assert split.shared_test
    assert len(split.folds[0].test) == 8
    rest = {f.patient for f in simple()} - split.folds[0].test
    validated = Counter(p for fold in split.folds for p in fold.validation)
    assert validated == dict.fromkeys(rest, 1)


def test_holdout_with_one_fold_is_a_plain_holdout() -> None:
    (fold,) = make_split(simple(100), Plan.HOLDOUT, 3, SplitOptions(folds=1)).folds
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (64, 16, 20)


@pytest.mark.parametrize(
    ("plan", "what"), [(Plan.LEAVE_SITE_OUT, "site"), (Plan.LEAVE_SCANNER_OUT, "scanner")]
)
def test_leave_out_tests_one_place_and_drops_groups_that_reach_into_it(
    plan: Plan, what: str
) -> None:
    facts = [
        PatientFacts(f"p{i:02d}", f"g{i}", "ab"[i % 2], **{what: "XYZ"[i % 3]}) for i in range(60)
    ]
    facts.append(PatientFacts("linked", "g0", "a", **{what: "Y"}))
    split = make_split(facts, plan, 0)
    assert [f.name for f in split.folds] == ["X", "Y", "Z"]
    x, y, z = split.folds
    assert "p00" in x.test
    assert x.part_of("linked") is None
    assert y.part_of("linked") == "test"
    assert y.part_of("p00") is None
    assert z.part_of("linked") == z.part_of("p00") != "test"


def test_external_patients_are_tested_and_never_trained_on() -> None:
    outside = frozenset({"p000", "p001", "p002"})
    facts = [*simple(), PatientFacts("copy", "p001", "b")]
    (fold,) = make_split(facts, Plan.EXTERNAL, 0, SplitOptions(external=outside)).folds
    assert fold.test == outside
    assert fold.part_of("copy") is None
    assert len(fold.train | fold.validation) == 37


@pytest.mark.parametrize(
    ("facts", "plan", "options", "words"),
    [
        (simple(6), Plan.KFOLD, SplitOptions(), "class 'a' has 3 groups .* at least 5"),
        (simple(3), Plan.KFOLD, SplitOptions(stratify=False), "3 groups of patients"),
        (simple(), Plan.KFOLD, SplitOptions(folds=1), "folds is 1"),
        (simple(), Plan.KFOLD, SplitOptions(repeats=2), "repeated-kfold"),
        (simple(), Plan.REPEATED_KFOLD, SplitOptions(), "repeats is 1"),
        (simple(), Plan.KFOLD, SplitOptions(validation_share=0), "validation_share is 0"),
        (simple(), Plan.KFOLD, SplitOptions(validation_share=float("nan")), "validation_share"),
        (simple(), Plan.HOLDOUT, SplitOptions(test_share=1.0), "test_share is 1.0"),
        (simple(), Plan.EXTERNAL, SplitOptions(), "external is empty"),
        (simple(), Plan.EXTERNAL, SplitOptions(external=frozenset({"x"})), "not in the cohort"),
        (simple(), Plan.LEAVE_SITE_OUT, SplitOptions(), "40 patients have no site"),
        (simple(site="A"), Plan.LEAVE_SITE_OUT, SplitOptions(), "1 site in the cohort"),
        ([], Plan.KFOLD, SplitOptions(), "no patients"),
        (
            [
                PatientFacts(f"p{i}", f"p{i}", "ab"[i >= 10], scanner="XY"[i >= 10])
                for i in range(20)
            ],
            Plan.LEAVE_SCANNER_OUT,
            SplitOptions(),
            "class 'a' occurs only among the tested patients of fold 'X'",
        ),
    ],
)
def test_impossible_plans_are_refused_with_words(
    facts: list[PatientFacts], plan: Plan, options: SplitOptions, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make_split(facts, plan, 0, options)


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_split(simple(), Plan.KFOLD, 0, SplitOptions(folds=1, repeats=2, validation_share=2))
    assert len(caught.value.problems) == 3


def test_a_patient_listed_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        make_split([*simple(), *simple(1)], Plan.KFOLD, 0)


def test_unlabelled_patients_do_not_block_a_plan() -> None:
    facts = [*simple(), PatientFacts("x", "x", "")]
    split = make_split(facts, Plan.KFOLD, 0)
    assert sum("x" in fold.test for fold in split.folds) == 1


def test_fold_knows_the_part_of_a_patient() -> None:
    fold = Fold(0, frozenset("a"), frozenset("b"), frozenset("c"))
    assert [fold.part_of(p) for p in "abcd"] == ["train", "validation", "test", None]


@given(st.integers(0, 99), st.integers(0, 12), st.integers(40, 60))
@settings(max_examples=25, deadline=None)
def test_a_followed_split_keeps_everyones_part(seed: int, more: int, kept: int) -> None:
    earlier = [PatientFacts(f"p{i:02d}", f"p{i:02d}", "ab"[i % 2]) for i in range(60)]
    source = make_split(earlier, Plan.KFOLD, 3)
    new = [PatientFacts(f"q{i:02d}", f"q{i:02d}", "ab"[i % 2]) for i in range(more)]
    facts = [f for f in earlier if int(f.patient[1:]) * 7 % 60 < kept] + new
    found = follow_split(facts, source, seed)
    everyone = {f.patient for f in facts}
    assert found.plan is Plan.KFOLD
    assert len(found.folds) == 5
    assert Counter(p for f in found.folds for p in f.test) == Counter(everyone)
    for fold, model in zip(found.folds, source.folds, strict=True):
        # Everyone's part is kept.
        assert fold.train & model.train == model.train & everyone
        assert fold.validation & model.validation == model.validation & everyone
        assert fold.test & model.test == model.test & everyone
        assert not (fold.validation | fold.test) & model.train
        assert not fold.test & model.validation
        assert fold.train | fold.validation | fold.test == everyone
        for part in (fold.train, fold.validation, fold.test):
            assert {f.stratum for f in facts if f.patient in part} == {"a", "b"}
    assert follow_split(facts[::-1], source, seed).digest == found.digest


def test_patients_the_run_does_not_know_are_spread_so_that_shares_hold() -> None:
    facts = simple(100)
    source = make_split(facts[:60], Plan.KFOLD, 3)
    # Two tested parts have lost patients, and strangers fill them up.
    gone = {p for f in source.folds[:2] for p in sorted(f.test)[:4]}
    left = [f for f in facts if f.patient not in gone]
    found = follow_split(left, source, 0)
    tested = [len(f.test) for f in found.folds]
    assert sum(tested) == len(left) == 92
    assert max(tested) - min(tested) <= 1
    for fold in found.folds:
        rest = len(fold.train | fold.validation)
        assert abs(len(fold.validation) - 0.2 * rest) <= 1
        for part in (fold.train, fold.validation, fold.test):
            positive = sum(f.stratum == "b" for f in left if f.patient in part)
            assert abs(positive - len(part) / 2) <= 1.5


def test_a_group_of_whom_the_followed_fold_trains_some_trains() -> None:
    facts = simple()
    source = make_split(facts, Plan.KFOLD, 3)
    known = source.folds[0]
    one, other = next(
        (p, q)
        for f in source.folds[1:]
        for p in sorted(f.test & known.train)
        for q in sorted(f.test & known.validation)
    )
    joined = [
        PatientFacts(f.patient, one, f.stratum) if f.patient in (one, other) else f for f in facts
    ]
    for fold, model in zip(follow_split(joined, source, 0).folds, source.folds, strict=True):
        assert fold.part_of(one) == fold.part_of(other)
        assert not fold.validation & model.train
    assert follow_split(joined, source, 0).folds[0].part_of(other) == "train"
    # A stranger goes wherever those go with whom he belongs.
    friend = [*facts, PatientFacts("x", one, "a")]
    assert all(f.part_of("x") == f.part_of(one) for f in follow_split(friend, source, 0).folds)


def test_what_cannot_be_followed() -> None:
    facts = [PatientFacts(f"p{i:02d}", f"p{i:02d}", "ab"[i % 2]) for i in range(40)]
    source = make_split(facts, Plan.KFOLD, 3)
    with pytest.raises(ConfigError, match="plan holdout; only plan kfold"):
        follow_split(facts, make_split(facts, Plan.HOLDOUT, 3), 0)
    with pytest.raises(ConfigError, match="tests no patient of this cohort"):
        follow_split([PatientFacts(f"q{i}", f"q{i}", "ab"[i % 2]) for i in range(30)], source, 0)
    one, other = (min(f.test) for f in source.folds[:2])
    torn = [PatientFacts(f.patient, one, f.stratum) if f.patient == other else f for f in facts]
    with pytest.raises(
        ConfigError, match="1 groups of patients that belong together lie in several"
    ):
        follow_split(torn, source, 0)
    for name in ("tested", "validation"):
        part = getattr(source.folds[0], "test" if name == "tested" else name)
        gone = {p for p in part if int(p[1:]) % 2 == 0}
        words = f"class 'a' is missing from the {name} part of fold 0; this cohort shares too few"
        with pytest.raises(ConfigError, match=words):
            follow_split([f for f in facts if f.patient not in gone], source, 0)
        with pytest.raises(ConfigError, match=f"nobody is in the {name} part of fold 0"):
            follow_split([f for f in facts if f.patient not in part], source, 0)
    # Patients the run knows and never tests keep their part too.
    part = Split(Plan.KFOLD, 3, source.folds[:3])
    found = follow_split(facts, part, 0)
    assert found.folds == part.folds
