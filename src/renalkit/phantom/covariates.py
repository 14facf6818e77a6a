"""Which age, sex, laboratory values and findings does a simulated patient have?

Distributions follow the patient tables of the papers: age and sex by benign/malignant (P2, section
3.1), laboratory values by low/high grade (P3, table 1). They differ little between the classes, as
there; whoever sees only them does little better than chance. Where a paper gives a median and
quartiles the value is drawn log-normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Target = Literal["malignancy", "grade"]


@dataclass(frozen=True, slots=True)
class _Quantity:
    """One measured value: (mean, SD) of the negative and the positive class."""

    name: str
    negative: tuple[float, float]
    positive: tuple[float, float]
    digits: int
    lognormal: bool = False

    def draw(self, *, positive: bool, rng: np.random.Generator) -> float:
        mean, sd = self.positive if positive else self.negative
        z = float(np.clip(rng.standard_normal(), -3.0, 3.0))
        value = mean * math.exp(sd / mean * z) if self.lognormal else mean + sd * z
        return round(value, self.digits)


_AGE = {"malignancy": ((53.3, 14.0), (58.4, 14.1)), "grade": ((58.0, 13.0), (54.0, 15.0))}
_MALE_SHARE = {"malignancy": (0.45, 0.70), "grade": (0.770, 0.654)}
_SYMPTOM_SHARE = {"malignancy": (0.45, 0.45), "grade": (0.486, 0.346)}

_BODY = _Quantity("bmi", (23.3, 1.7), (23.0, 2.0), 1)
_LABORATORY = (
    _Quantity("haemoglobin_g_l", (132.9, 16.2), (140.0, 15.3), 0),
    _Quantity("albumin_g_l", (42.0, 4.5), (45.3, 5.4), 1, lognormal=True),
    _Quantity("alkaline_phosphatase_u_l", (78.8, 23.3), (85.8, 26.9), 0),
    _Quantity("lactate_dehydrogenase_u_l", (185.6, 38.1), (182.2, 36.3), 0),
    _Quantity("calcium_mmol_l", (2.26, 0.14), (2.29, 0.11), 2),
    _Quantity("white_cells_g_l", (6.3, 2.2), (7.1, 2.6), 1, lognormal=True),
    _Quantity("red_cells_t_l", (4.32, 0.51), (4.48, 0.45), 2),
    _Quantity("platelets_g_l", (187.1, 60.0), (175.5, 49.3), 0),
)


@dataclass(frozen=True, slots=True)
class Covariates:
    """What the patient's file says beside the pictures.

    age_years; sex: F or M; symptoms: lumbar discomfort or haematuria. laboratory: value by name,
    the unit is in the name (g_l: g/L or 10^9/L for cells, t_l: 10^12/L, u_l: U/L).
    """

    age_years: int
    sex: Literal["F", "M"]
    bmi: float
    symptoms: bool
    laboratory: dict[str, float]

    def row(self) -> dict[str, str | int | float]:
        """As columns of a label table."""
        return {
            "age": self.age_years,
            "sex": self.sex,
            "bmi": self.bmi,
            "symptoms": "yes" if self.symptoms else "no",
            **self.laboratory,
        }


def draw_covariates(target: Target, *, positive: bool, rng: np.random.Generator) -> Covariates:
    """Draw a patient's file; positive: malignant, or high grade."""
    mean, sd = _AGE[target][positive]
    by_grade = positive and target == "grade"  # the laboratory table is by grade
    return Covariates(
        age_years=int(np.clip(round(mean + sd * rng.standard_normal()), 18, 90)),
        sex="M" if rng.random() < _MALE_SHARE[target][positive] else "F",
        bmi=_BODY.draw(positive=by_grade, rng=rng),
        symptoms=bool(rng.random() < _SYMPTOM_SHARE[target][positive]),
        laboratory={q.name: q.draw(positive=by_grade, rng=rng) for q in _LABORATORY},
    )
