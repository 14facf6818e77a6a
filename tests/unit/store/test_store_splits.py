"""A split survives the disk unchanged; nnU-Net's files go out and come in without a leak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renalkit.domain.splits import PatientFacts, Plan, Split, SplitOptions, make_split
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.splits import load_split, read_nnunet, save_split, write_nnunet

FACTS = [
    PatientFacts(f"p{i:02d}", f"g{i // 2}", "ab"[i // 2 % 2], site="XY"[i % 2]) for i in range(60)
]
CASES = {f"case_{f.patient}_{j}": f.patient for f in FACTS for j in range(2)}


def divided(plan: Plan = Plan.KFOLD) -> Split:
    return make_split(FACTS, plan, 5, SplitOptions(folds=3))


@pytest.mark.parametrize("plan", [Plan.KFOLD, Plan.HOLDOUT])
def test_split_survives_the_disk(tmp_path: Path, plan: Plan) -> None:
    save_split(tmp_path / "folds.json", divided(plan))
    assert load_split(tmp_path / "folds.json") == divided(plan)


def test_same_split_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_split(tmp_path / name, divided())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def swap(content: dict) -> None:  # type: ignore[type-arg]
    fold = content["folds"][0]
    fold["train"][0], fold["validation"][0] = fold["validation"][0], fold["train"][0]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (swap, "digest"),
        (lambda c: c.update(seed=6), "digest"),
        (lambda c: c.pop("digest"), "digest"),
        (lambda c: c.update(format="other"), "not a folds file"),
        (lambda c: c.update(repeats=0), "cannot be read"),
        (lambda c: c["folds"][0].update(train="p01"), "list of names"),
        (lambda c: c["folds"][0].update(train=c["folds"][0]["test"]), "in train and in test"),
        (lambda c: c.update(plan="guess"), "cannot be read"),
        (lambda c: c["folds"][0].pop("test"), "cannot be read"),
    ],
)
def test_l17_a_changed_file_is_refused(tmp_path: Path, harm, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "folds.json"
    save_split(path, divided())
    content = json.loads(path.read_text())
    harm(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=words):
        load_split(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_not_a_folds_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"folds\.json"):
        load_split(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        load_split(tmp_path / "folds.json")


@pytest.mark.parametrize("plan", [Plan.KFOLD, Plan.HOLDOUT])
def test_nnunet_round_trip_keeps_every_part(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "splits_final.json"
    write_nnunet(path, divided(plan), CASES)
    assert read_nnunet(path, CASES, FACTS, 5) == divided(plan)


def test_nnunet_file_has_nnunets_form_and_no_tested_case(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    write_nnunet(path, divided(), CASES)
    folds = json.loads(path.read_text())
    assert [set(f) for f in folds] == [{"train", "val"}] * 3
    for fold, ours in zip(folds, divided().folds, strict=True):
        assert len(fold["train"]) == 2 * len(ours.train)
        assert not {CASES[c] for c in fold["train"] + fold["val"]} & ours.test


def two_parts(path: Path, folds: int = 3) -> list[dict[str, list[str]]]:
    """A foreign file: patients by turns (groups together), no tested part."""
    names = {j: [c for c, p in CASES.items() if int(p[1:]) // 2 % folds == j] for j in range(folds)}
    content = [
        {"train": [c for k in names if k != j for c in names[k]], "val": names[j]}
        for j in range(folds)
    ]
    path.write_text(json.dumps(content))
    return content


def test_a_two_part_file_is_tested_on_its_val_and_validated_inside_train(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    content = two_parts(path)
    split = read_nnunet(path, CASES, FACTS, 5)
    group = {f.patient: f.group for f in FACTS}
    for fold, given in zip(split.folds, content, strict=True):
        assert fold.test == {CASES[c] for c in given["val"]}
        assert fold.train | fold.validation == {CASES[c] for c in given["train"]}
        assert len(fold.validation) == 8
        assert not {group[p] for p in fold.train} & {group[p] for p in fold.validation}
    assert read_nnunet(path, CASES, FACTS[::-1], 5) == split


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c[0]["train"].append("stranger"), Reason.NOT_IN_TABLE),
        (lambda c: c[0]["train"].append(c[0]["val"].pop()), Reason.SPLIT_OVERLAP),
        (lambda c: c[0].pop("val"), Reason.BAD_JSON),
        (lambda c: c[0].update(val=[]), Reason.BAD_JSON),
        (lambda c: c[0].update(val=[1]), Reason.BAD_JSON),
        (lambda c: c.clear(), Reason.BAD_JSON),
        (lambda c: c[0]["val"].append(c[0]["val"][0]), Reason.BAD_JSON),
        (lambda c: c.append(c[0]), Reason.SPLIT_OVERLAP),
    ],
)
def test_a_leaking_or_foreign_file_is_refused(tmp_path: Path, change, reason: Reason) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "splits_final.json"
    content = two_parts(path)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputRefused) as caught:
        read_nnunet(path, CASES, FACTS, 5)
    assert caught.value.reason is reason


def test_duplicates_on_both_sides_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    two_parts(path)
    linked = [PatientFacts(f.patient, "one", f.stratum) for f in FACTS]
    with pytest.raises(InputRefused, match="1 duplicate groups are in two parts"):
        read_nnunet(path, CASES, linked, 5)


def test_a_tests_file_of_another_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    write_nnunet(path, divided(), CASES)
    two_parts(path, folds=2)
    with pytest.raises(InputRefused, match="3 tested parts for 2 folds"):
        read_nnunet(path, CASES, FACTS, 5)


def test_a_patient_without_cases_cannot_be_exported(tmp_path: Path) -> None:
    cases = {c: p for c, p in CASES.items() if p != "p07"}
    with pytest.raises(InputRefused, match="1 patients of the split have no case"):
        write_nnunet(tmp_path / "splits_final.json", divided(), cases)
