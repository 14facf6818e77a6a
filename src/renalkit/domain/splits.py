"""Which patients train, validate and test in each fold, so that no patient is in two parts.

`make_split` goes one step further: patients of one group (a duplicate cluster, an explicit link)
are never separated either. Every choice comes from a hash keyed by the seed, so a split depends
on the set of patients and the seed alone, not on the order of files, dicts or threads.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from renalkit.domain.cohort import Cohort
from renalkit.errors import ConfigError


class Plan(StrEnum):
    """How patients are divided."""

    KFOLD = "kfold"
    REPEATED_KFOLD = "repeated-kfold"
    HOLDOUT = "holdout"
    LEAVE_SITE_OUT = "leave-site-out"
    LEAVE_SCANNER_OUT = "leave-scanner-out"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Fold:
    """One division of the patients. The three parts are disjoint."""

    index: int
    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]
    name: str = ""

    def __post_init__(self) -> None:
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            both = getattr(self, a) & getattr(self, b)
            if both:
                raise ValueError(f"fold {self.index}: {len(both)} patients in {a} and in {b}")
        if not self.train:
            raise ValueError(f"fold {self.index} has no training patients")

    def part_of(self, patient: str) -> str | None:
        """'train', 'validation', 'test', or None when the fold does not use the patient."""
        for part in ("train", "validation", "test"):
            if patient in getattr(self, part):
                return part
        return None


@dataclass(frozen=True, slots=True)
class Split:
    """The folds of an experiment.

    Tested parts are pairwise disjoint within one repeat; a hold-out is tested by every inner
    fold (shared_test), its models being scored singly and as their mean.
    """

    plan: Plan
    seed: int
    folds: tuple[Fold, ...]
    repeats: int = 1
    shared_test: bool = False

    def __post_init__(self) -> None:
        if not self.folds:
            raise ValueError("a split needs at least one fold")
        if [f.index for f in self.folds] != list(range(len(self.folds))):
            raise ValueError("folds must be numbered 0, 1, 2, ...")
        if self.shared_test:
            if len({f.test for f in self.folds}) != 1:
                raise ValueError("folds of a hold-out must share one test part")
            return
        per_repeat = len(self.folds) // self.repeats
        for start in range(0, len(self.folds), per_repeat):
            seen: set[str] = set()
            for fold in self.folds[start : start + per_repeat]:
                if seen & fold.test:
                    raise ValueError(f"fold {fold.index} tests patients already tested")
                seen |= fold.test

    @property
    def digest(self) -> str:
        """Hash of plan, seed and every part of every fold."""
        parts = [f"{self.plan.value} {self.seed} {self.repeats} {self.shared_test}"]
        for fold in self.folds:
            for part in (fold.train, fold.validation, fold.test):
                parts.append(",".join(sorted(part)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


UNLABELLED = ""
"""Stratum of patients without a class: balanced like a class, but never too small for a plan."""


@dataclass(frozen=True, slots=True)
class PatientFacts:
    """What a plan needs to know of one patient. Patients with the same group stay together."""

    patient: str
    group: str
    stratum: str
    site: str | None = None
    scanner: str | None = None


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Sizes of a plan. The defaults give 64 / 16 / 20 per cent train / validation / test.

    folds: parts of a k-fold, or inner folds of a hold-out (1: one model). test_share: hold-out
    only. validation_share: share of what is not tested; inner folds of a hold-out validate on
    their own left-out part instead. external: patients tested under the external plan.
    """

    folds: int = 5
    repeats: int = 1
    test_share: float = 0.2
    validation_share: float = 0.2
    stratify: bool = True
    external: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Group:
    """Patients that stay together. name is the smallest patient key, whatever the caller's name."""

    name: str
    patients: tuple[str, ...]
    counts: Mapping[str, int]
    stratum: str


@dataclass(frozen=True, slots=True)
class _Dice:
    """The source of every random choice: a hash of seed, purpose and item."""

    seed: int
    purpose: str

    def throw(self, item: str) -> bytes:
        return hashlib.sha256(f"{self.seed}|{self.purpose}|{item}".encode()).digest()

    def to(self, purpose: str) -> _Dice:
        return _Dice(self.seed, f"{self.purpose}/{purpose}")


def make_split(
    facts: Sequence[PatientFacts],
    plan: Plan,
    seed: int,
    options: SplitOptions | None = None,
) -> Split:
    """Divide patients by a plan, stratified by class and balanced in patient count.

    A group is never in two parts of one fold. When a plan tests one site (scanner, external set)
    and a group reaches across it, the group's other patients are left out of that fold.
    The split does not depend on the order of `facts` nor on how groups are named.

    Raises ConfigError (every problem at once) when the plan cannot be carried out: fewer groups
    than folds, a class with fewer groups than parts, one site only, patients without site,
    unknown external patients, shares outside (0, 1).

    >>> facts = [PatientFacts(f"p{i}", f"p{i}", "ab"[i % 2]) for i in range(20)]
    >>> split = make_split(facts, Plan.KFOLD, seed=1)
    >>> [(len(f.train), len(f.validation), len(f.test)) for f in split.folds][0]
    (12, 4, 4)
    """
    options = options or SplitOptions()
    _refuse(_option_problems(plan, options))
    groups = _grouped(facts, options)
    dice = _Dice(seed, plan.value)
    if plan in (Plan.KFOLD, Plan.REPEATED_KFOLD):
        _refuse(_class_problems(groups, max(options.folds, 3), "the plan"))
        folds = [
            fold
            for repeat in range(options.repeats)
            for fold in _kfold(groups, options, dice.to(f"repeat {repeat}"))
        ]
    elif plan is Plan.HOLDOUT:
        _refuse(_class_problems(groups, 1 + max(options.folds, 2), "the plan"))
        folds = _holdout(groups, options, dice)
    else:
        tests = _named_tests(facts, plan, options)
        folds = [_leave_out(groups, name, test, options, dice) for name, test in tests]
    numbered = tuple(
        Fold(index, fold.train, fold.validation, fold.test, fold.name)
        for index, fold in enumerate(folds)
    )
    return Split(plan, seed, numbered, options.repeats, shared_test=plan is Plan.HOLDOUT)


def follow_split(
    facts: Sequence[PatientFacts],
    source: Split,
    seed: int,
    options: SplitOptions | None = None,
) -> Split:
    """The folds of `source` for another cohort, so that fold k can start from its model k.

    Fold k tests the patients that fold k of the source tests, validates those it validates, and
    trains on the others. Patients the source does not know are spread over the tested parts, and
    in every fold over training and validation, so that shares and classes come near their due.
    Patients of one group stay together: a group of whom the source trains some trains.

    Args:
        facts: patients to divide; only their groups and strata are used.
        source: a k-fold split.
        seed: of the spreading.
        options: only `stratify` and `validation_share` are used.

    Raises:
        ConfigError: the source is no k-fold; a group of patients that belong together lies in
            several tested parts of it, or partly outside of them; a part of a fold lacks a class
            or everybody; nobody is shared.
    """
    if source.plan is not Plan.KFOLD:
        raise ConfigError(
            [f"follow: the run has plan {source.plan.value}; only plan kfold can be followed"],
            where="split",
        )
    options = options or SplitOptions()
    known = {p for f in source.folds for part in (f.train, f.validation, f.test) for p in part}
    tested = {p: f.index for f in source.folds for p in f.test}
    groups = _grouped(facts, options)
    blocks: list[list[_Group]] = [[] for _ in source.folds]
    strangers: list[_Group] = []
    torn = 0
    for group in groups:
        homes = {tested.get(p) for p in group.patients if p in known}
        if not homes:
            strangers.append(group)
        elif len(homes) > 1:
            torn += 1
        elif (home := homes.pop()) is not None:
            blocks[home].append(group)
    problems = [
        f"follow: {torn} groups of patients that belong together lie in several tested parts of "
        "the run; divide anew and start without its weights"
    ] * bool(torn)
    if not any(blocks):
        problems.append("follow: the run tests no patient of this cohort; use another plan")
    _refuse(problems)
    dice = _Dice(seed, "follow")
    tests = _divide(strangers, [1 / len(blocks)] * len(blocks), dice, held=blocks)
    shares = (1 - options.validation_share, options.validation_share)
    parts: list[list[tuple[_Group, ...]]] = []
    for fold, test in zip(source.folds, tests, strict=True):
        kept: dict[str | None, list[_Group]] = {"train": [], "validation": [], None: []}
        taken = {g.name for g in test}
        for group in groups:
            if group.name not in taken:
                before = {fold.part_of(p) for p in group.patients}
                part = next((x for x in ("train", "validation") if x in before), None)
                kept[part].append(group)
        held = (kept["train"], kept["validation"])
        divided = _divide(kept[None], shares, dice.to(f"fold {fold.index}"), held=held)
        parts.append([*divided, test])
    _refuse(_lacking(groups, parts))
    folds = [
        Fold(k, _patients(train), _patients(validation), _patients(test))
        for k, (train, validation, test) in enumerate(parts)
    ]
    return Split(Plan.KFOLD, seed, tuple(folds))


def _lacking(groups: Sequence[_Group], folds: Sequence[Sequence[tuple[_Group, ...]]]) -> list[str]:
    """Words for every part of a followed fold without anybody, or without one of the classes."""
    classes = {s for g in groups for s in g.counts} - {UNLABELLED}
    problems: list[str] = []
    for k, parts in enumerate(folds):
        for name, part in zip(("training", "validation", "tested"), parts, strict=True):
            where = f"the {name} part of fold {k}; this cohort shares too few patients with the run"
            if not part:
                problems.append(f"follow: nobody is in {where}")
            missing = classes - {s for g in part for s in g.counts} if part else set[str]()
            problems += [f"follow: class '{s}' is missing from {where}" for s in sorted(missing)]
    return problems


def draw_validation(
    facts: Sequence[PatientFacts], fold: Fold, seed: int, options: SplitOptions | None = None
) -> Fold:
    """A fold from outside (train and test only) with its validation part drawn inside train.

    Groups stay together and classes keep their shares, as in `make_split`; the tested part is
    unchanged. Raises ConfigError when the training part is too small to be divided, ValueError
    when it names a patient without facts.
    """
    options = options or SplitOptions()
    chosen = [f for f in facts if f.patient in fold.train]
    if len(chosen) != len(fold.train):
        raise ValueError(f"{len(fold.train) - len(chosen)} training patients have no facts")
    groups = _grouped(chosen, options)
    _refuse(_class_problems(groups, 2, f"the training part of fold {fold.index}"))
    purpose = f"given fold {fold.index}"
    drawn = _fitted(groups, fold.test, options.validation_share, _Dice(seed, purpose))
    return Fold(fold.index, drawn.train, drawn.validation, fold.test, fold.name)


def patient_facts(cohort: Cohort, groups: Mapping[str, str]) -> tuple[PatientFacts, ...]:
    """The facts of every patient of a cohort, sorted; groups as `cohort_checks.groups` gives them.

    A patient with lesions of several classes counts as the positive class when that is among
    them, else as the rarest. Site or scanner is None when not recorded or not one.
    """
    labels: dict[str, set[str]] = {p: set() for p in cohort.patients}
    sites: dict[str, set[str | None]] = defaultdict(set)
    scanners: dict[str, set[str | None]] = defaultdict(set)
    for study in cohort.studies:
        known = [lesion.label for lesion in study.lesions] or [study.label]
        labels[study.patient] |= {label for label in known if label is not None}
        sites[study.patient].add(study.site)
        scanners[study.patient].add(
            study.scanner.name if study.scanner.manufacturer or study.scanner.model else None
        )
    frequency = Counter(label for found in labels.values() for label in found)

    def stratum(found: set[str]) -> str:
        if cohort.task.positive in found:
            return str(cohort.task.positive)
        return min(found, key=lambda x: (frequency[x], x), default=UNLABELLED)

    def single(values: set[str | None]) -> str | None:
        return next(iter(values)) if len(values) == 1 else None

    return tuple(
        PatientFacts(p, groups.get(p, p), stratum(labels[p]), single(sites[p]), single(scanners[p]))
        for p in cohort.patients
    )


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError(problems, where="split")


def _option_problems(plan: Plan, options: SplitOptions) -> list[str]:
    problems: list[str] = []
    least = 1 if plan is Plan.HOLDOUT else 2
    if plan in (Plan.KFOLD, Plan.REPEATED_KFOLD, Plan.HOLDOUT) and options.folds < least:
        problems.append(f"folds is {options.folds}; plan {plan.value} needs at least {least}")
    if plan is Plan.REPEATED_KFOLD and options.repeats < 2:
        problems.append(f"repeats is {options.repeats}; plan {plan.value} needs at least 2")
    if plan is not Plan.REPEATED_KFOLD and options.repeats != 1:
        problems.append(
            f"repeats is {options.repeats}; only plan {Plan.REPEATED_KFOLD.value} repeats, use it"
        )
    if not isfinite(options.validation_share) or not 0 < options.validation_share < 1:
        problems.append(
            f"validation_share is {options.validation_share}; expected between 0 and 1: thresholds "
            "and early stopping need patients of their own"
        )
    if plan is Plan.HOLDOUT and not 0 < options.test_share < 1:
        problems.append(f"test_share is {options.test_share}; expected between 0 and 1")
    if plan is Plan.EXTERNAL and not options.external:
        problems.append("external is empty; name the patients of the external set")
    return problems


def _grouped(facts: Sequence[PatientFacts], options: SplitOptions) -> tuple[_Group, ...]:
    """Groups sorted by name; the stratum of a mixed group is its most frequent class.

    Among equally frequent classes the one with fewer patients wins, since it is harder to spread.
    """
    double = sorted(p for p, n in Counter(f.patient for f in facts).items() if n > 1)
    if double:
        raise ValueError(f"{len(double)} patients are listed twice, first {double[0]}")
    if not facts:
        raise ConfigError(["there are no patients to divide"], where="split")
    overall = Counter(f.stratum for f in facts)
    members: dict[str, list[PatientFacts]] = defaultdict(list)
    for fact in facts:
        members[fact.group].append(fact)
    groups: list[_Group] = []
    for found in members.values():
        names = tuple(sorted(f.patient for f in found))
        counts = Counter(f.stratum if options.stratify else UNLABELLED for f in found)
        stratum = min(counts, key=lambda s: (-counts[s], overall[s], s))
        groups.append(_Group(names[0], names, counts, stratum))
    return tuple(sorted(groups, key=lambda g: g.name))


def _class_problems(groups: Sequence[_Group], parts: int, where: str) -> list[str]:
    """Words for every class (and the whole) that has fewer groups than there are parts."""
    problems: list[str] = []
    if len(groups) < parts:
        problems.append(
            f"{len(groups)} groups of patients, {where} needs at least {parts}: "
            "use fewer folds or more patients"
        )
    for stratum, n in sorted(Counter(g.stratum for g in groups).items()):
        if n < parts and stratum != UNLABELLED:
            problems.append(
                f"class '{stratum}' has {n} groups of patients, {where} needs at least {parts} "
                "to have it in every part: use fewer folds, merge classes or set stratify = false"
            )
    return problems


def _divide(
    groups: Sequence[_Group],
    shares: Sequence[float],
    dice: _Dice,
    *,
    least_first: int = 1,
    held: Sequence[Sequence[_Group]] = (),
) -> list[tuple[_Group, ...]]:
    """Deal groups to parts so that every class, then the patient count, comes near its share.

    Classes are dealt rarest first, large groups before small ones, each to the part that lacks
    most of it. The last groups of a class are kept for parts that are short of it, so that a class
    with enough groups is in every part (`least_first` times in the first). held: what is in each
    part beforehand, and stays.
    """
    dealt: list[list[_Group]] = [list(part) for part in held or [()] * len(shares)]
    totals: Counter[str] = Counter()
    for group in (*groups, *(g for part in dealt for g in part)):
        totals.update(group.counts)
    lack = [{s: share * n for s, n in totals.items()} for share in shares]
    for part, short_of in zip(dealt, lack, strict=True):
        for s, v in (item for g in part for item in g.counts.items()):
            short_of[s] -= v
    for stratum in sorted({g.stratum for g in groups}, key=lambda s: (totals[s], s)):
        queue = [g for g in groups if g.stratum == stratum]
        queue.sort(key=lambda g: (-len(g.patients), dice.throw(g.name)))
        for at, group in enumerate(queue):
            short = [
                j
                for j, part in enumerate(dealt)
                for _ in range((1 if j else least_first) - sum(g.stratum == stratum for g in part))
            ]
            open_parts = short if len(queue) - at <= len(short) else range(len(shares))
            best = min(
                open_parts,
                key=lambda j: (
                    # Increase of the squared deviation, each class in units of its own size.
                    round(
                        sum(v * (v - 2 * lack[j][s]) / totals[s] for s, v in group.counts.items()),
                        9,
                    ),
                    -round(sum(lack[j].values()), 9),
                    dice.throw(f"{group.name} to {j}"),
                ),
            )
            dealt[best].append(group)
            for s, v in group.counts.items():
                lack[best][s] -= v
    return [tuple(part) for part in dealt]


def _patients(groups: Sequence[_Group]) -> frozenset[str]:
    return frozenset(p for g in groups for p in g.patients)


def _fitted(rest: Sequence[_Group], test: frozenset[str], share: float, dice: _Dice) -> Fold:
    """A fold whose training and validation parts come from `rest`."""
    train, validation = _divide(rest, (1 - share, share), dice.to("validation"))
    return Fold(0, _patients(train), _patients(validation), test)


def _kfold(groups: Sequence[_Group], options: SplitOptions, dice: _Dice) -> list[Fold]:
    parts = _divide(groups, [1 / options.folds] * options.folds, dice)
    return [
        _fitted(
            [g for j, other in enumerate(parts) if j != i for g in other],
            _patients(part),
            options.validation_share,
            dice.to(f"fold {i}"),
        )
        for i, part in enumerate(parts)
    ]


def _holdout(groups: Sequence[_Group], options: SplitOptions, dice: _Dice) -> list[Fold]:
    shares = (1 - options.test_share, options.test_share)
    rest, held = _divide(groups, shares, dice, least_first=max(options.folds, 2))
    test = _patients(held)
    if options.folds == 1:
        return [_fitted(rest, test, options.validation_share, dice)]
    inner = _divide(rest, [1 / options.folds] * options.folds, dice.to("inner"))
    return [
        Fold(
            0, _patients([g for j, p in enumerate(inner) if j != i for g in p]), _patients(v), test
        )
        for i, v in enumerate(inner)
    ]


def _named_tests(
    facts: Sequence[PatientFacts], plan: Plan, options: SplitOptions
) -> list[tuple[str, frozenset[str]]]:
    """Name and tested patients of each fold of a plan that tests named patients."""
    if plan is Plan.EXTERNAL:
        unknown = options.external - {f.patient for f in facts}
        if unknown:
            first = min(unknown)
            raise ConfigError(
                [f"external names {len(unknown)} patients that are not in the cohort: {first} ..."],
                where="split",
            )
        return [("external", options.external)]
    what = "site" if plan is Plan.LEAVE_SITE_OUT else "scanner"
    places: dict[str, set[str]] = defaultdict(set)
    unplaced = 0
    for fact in facts:
        place = fact.site if what == "site" else fact.scanner
        if place is None:
            unplaced += 1
        else:
            places[place].add(fact.patient)
    problems: list[str] = []
    if unplaced:
        problems.append(f"{unplaced} patients have no {what} (or several); every patient needs one")
    if len(places) < 2:
        problems.append(f"{len(places)} {what} in the cohort; plan {plan.value} needs at least 2")
    _refuse(problems)
    return [(name, frozenset(places[name])) for name in sorted(places)]


def _leave_out(
    groups: Sequence[_Group], name: str, test: frozenset[str], options: SplitOptions, dice: _Dice
) -> Fold:
    rest = [g for g in groups if not test.intersection(g.patients)]
    fold_of = f"fold '{name}' after taking out its tested patients"
    problems = _class_problems(rest, 2, fold_of)
    gone = {s for g in groups for s in g.counts} - {s for g in rest for s in g.counts}
    problems += [
        f"class '{s}' occurs only among the tested patients of fold '{name}'"
        for s in sorted(gone - {UNLABELLED})
    ]
    _refuse(problems)
    fold = _fitted(rest, test, options.validation_share, dice.to(name))
    return Fold(0, fold.train, fold.validation, fold.test, name)
