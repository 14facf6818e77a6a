"""How does an nnU-Net raw data set lie in a folder, and what do its labels mean?

    Dataset123_Name/dataset.json
    Dataset123_Name/imagesTr/CASE_0000.nii.gz   _0001 ... are further channels: contrast phases
    Dataset123_Name/labelsTr/CASE.nii.gz
    Dataset123_Name/imagesTs, labelsTs          the same; covariate split is "test"

dataset.json names the labels (both the first version's {"1": "kidney"} and the second's
{"kidney": 1}); kidney, tumour (also tumor, mass) and cyst are known, regions of several values and
other names are refused. A case is taken for a patient of its own.

Source: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from renalkit.domain.study import Defect
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Limits, Outcome, ReadContext, ReadResult
from renalkit.readers.ct_cases import CtCase, read_case
from renalkit.readers.stills import read_whole
from renalkit.store.files import parse_json

DATASET = "dataset.json"
PARTS = {"Tr": "train", "Ts": "test"}
_IMAGE = re.compile(r"(.+)_(\d{4})\.nii(\.gz)?")
_VALUES = {
    **{"background": 0, "kidney": KIDNEY, "kidneys": KIDNEY},
    **dict.fromkeys(("tumour", "tumor", "mass"), TUMOUR),
    **dict.fromkeys(("cyst", "cysts"), CYST),
}


def is_nnunet(files: Sequence[Path]) -> bool:
    """Whether there is a dataset.json with a folder imagesTr beside it."""
    folders = {p.parent for p in files if p.name == DATASET}
    return any(p.parent.name == "imagesTr" and p.parent.parent in folders for p in files)


def read_nnunet(files: Sequence[Path], context: ReadContext) -> Iterator[ReadResult]:
    """A study per case; every other file skipped with its reason.

    Raises:
        InputRefused: BAD_JSON, a dataset.json that does not say what the labels are.
    """
    heads = {p.parent: p for p in files if p.name == DATASET}
    meanings = {root: label_values(_head(path)) for root, path in sorted(heads.items())}
    for path in heads.values():
        yield ReadResult(None, (FileReport(path, Outcome.USED),))
    images: dict[tuple[Path, str, str], dict[int, Path]] = {}
    rest = {p for p in files if p.name != DATASET}
    for path in sorted(rest):
        match = _IMAGE.fullmatch(path.name)
        part = path.parent.name.removeprefix("images")
        placed = path.parent.name == f"images{part}" and path.parent.parent in heads
        if match and placed and part in PARTS:
            images.setdefault((path.parent.parent, part, match[1]), {})[int(match[2])] = path
    for (root, part, name), channels in sorted(images.items()):
        labels = next(
            (
                p
                for s in (".nii.gz", ".nii")
                if (p := root / f"labels{part}" / f"{name}{s}") in rest
            ),
            None,
        )
        case = CtCase(
            name=f"{root.name}/{name}",
            patient=name,
            images=tuple(channels[n] for n in sorted(channels)),
            labels=labels,
            values=meanings[root],
            person={"split": PARTS[part]},
        )
        rest -= set(case.files)
        yield read_case(case, context)
    for path in sorted(rest):
        why = (Defect(Reason.NOT_RECOGNISED, "no part of an nnU-Net case"),)
        yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, why),))


def _head(path: Path) -> Mapping[str, Any]:
    head = parse_json(read_whole(path, Limits()), where=path.name)
    if not isinstance(head, dict) or not isinstance(head.get("labels"), dict):
        raise _bad("no 'labels'")
    return head


def label_values(head: Mapping[str, Any]) -> dict[int, int]:
    """What each value of the label files is here.

    >>> label_values({"labels": {"background": 0, "cyst": 2, "kidney": 1}})
    {0: 0, 2: 3, 1: 1}

    Raises:
        InputRefused: BAD_JSON, an unknown name, or a value that is no number from 0 to 254.
    """
    found: dict[int, int] = {}
    for one, other in head["labels"].items():
        name, value = (other, one) if str(one).isdigit() else (one, other)
        meaning = _VALUES.get(str(name).strip().casefold())
        if meaning is None:
            raise _bad(f"a label called {str(name)[:40]!r}")
        if not str(value).isdigit() or int(value) > 254:
            raise _bad(f"the label {str(name)[:40]!r} without one value")
        found[int(value)] = meaning
    return found


def _bad(found: str) -> InputRefused:
    return InputRefused(
        Reason.BAD_JSON,
        found,
        where=DATASET,
        expected="labels called background, kidney, tumour and cyst, a number each",
        remedy="rename the labels in dataset.json, or leave the ones out that are not known here",
    )
