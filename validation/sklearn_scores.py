"""ROC, precision-recall, Brier score, log loss, calibration and grades against scikit-learn.

Needs scikit-learn (a development requirement of this project).

    python validation/sklearn_scores.py
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, not_checked

try:
    from sklearn import metrics as sk
    from sklearn.calibration import calibration_curve
    from sklearn.isotonic import IsotonicRegression
except ModuleNotFoundError:
    not_checked("scikit-learn is not installed", "pip install scikit-learn")

from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.calibration import (
    Binning,
    BinRule,
    brier_score,
    log_loss,
    reliability_curve,
)
from renalkit.metrics.calibrators import isotonic
from renalkit.metrics.classification import auc, confusion_at, macro_auc, roc_curve
from renalkit.metrics.curves import (
    RocPart,
    average_precision,
    partial_auc,
    precision_recall_curve,
)
from renalkit.metrics.ordinal import QuadraticKappa, absolute_errors


def main() -> None:
    rng = np.random.default_rng(6)
    table = Table("scikit-learn")
    for name, n, digits in (("400 cases", 400, 15), ("90 cases with many ties", 90, 1)):
        truth = rng.integers(0, 2, n)
        p = np.clip(0.2 + 0.25 * truth + 0.25 * rng.normal(size=n), 0.1, 0.9).round(digits)
        table.add(f"{name}: AUC", sk.roc_auc_score(truth, p), auc(truth, p))
        for top in (0.1, 0.5):
            ours = partial_auc(truth, p, RocPart(1 - top), standardised=True)
            table.add(
                f"{name}: partial AUC to FPR {top}", sk.roc_auc_score(truth, p, max_fpr=top), ours
            )
        fpr, tpr, _ = sk.roc_curve(truth, p, drop_intermediate=False)
        curve = roc_curve(truth, p)
        table.add(f"{name}: ROC, FPR", fpr, curve.false_positive_rate)
        table.add(f"{name}: ROC, TPR", tpr, curve.true_positive_rate)
        table.add(
            f"{name}: average precision",
            sk.average_precision_score(truth, p),
            average_precision(truth, p),
        )
        precision, recall, _ = sk.precision_recall_curve(truth, p)
        ours = precision_recall_curve(truth, p)
        table.add(f"{name}: precision", precision[-2::-1], ours.precision)
        table.add(f"{name}: recall", recall[-2::-1], ours.recall)
        table.add(f"{name}: Brier score", sk.brier_score_loss(truth, p), brier_score(truth, p))
        table.add(f"{name}: log loss", sk.log_loss(truth, p), log_loss(truth, p))
        counts = confusion_at(truth, p, 0.4)
        tn, fp, fn, tp = sk.confusion_matrix(truth, p >= 0.4).ravel()
        table.add(
            f"{name}: counts at 0.4", [tn, fp, fn, tp], [counts.tn, counts.fp, counts.fn, counts.tp]
        )
        table.add(f"{name}: F1 at 0.4", sk.f1_score(truth, p >= 0.4), counts.f1.value)
    truth, p = (rng.random(400) < (x := rng.random(400))).astype(int), x
    for strategy, rule in (("uniform", BinRule.EQUAL_WIDTH), ("quantile", BinRule.EQUAL_MASS)):
        observed, predicted = calibration_curve(truth, p, n_bins=8, strategy=strategy)
        bins = reliability_curve(truth, p, np.arange(400), Binning(8, rule), BootstrapPlan(100))
        table.add(f"calibration curve, {strategy}: observed", observed, [b.observed for b in bins])
        table.add(
            f"calibration curve, {strategy}: predicted", predicted, [b.mean_predicted for b in bins]
        )
    truth, p = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    table.add(
        "macro AUC of three classes",
        sk.roc_auc_score(truth, p, multi_class="ovr"),
        macro_auc(truth, p),
    )
    called = p.argmax(axis=1)
    table.add(
        "quadratic weighted kappa of three grades",
        sk.cohen_kappa_score(truth, called, weights="quadratic"),
        QuadraticKappa(truth, called, 3).prepare(np.arange(200), 200)(np.ones((1, 200)))[0],
    )
    table.add(
        "mean error in grades",
        sk.mean_absolute_error(truth, called),
        absolute_errors(truth, called, 3).mean(),
    )
    truth, p = rng.integers(0, 2, 300), rng.random(300).round(2)
    at, height = isotonic(p, truth)
    known = IsotonicRegression().fit(p, truth)
    table.add("isotonic regression", known.predict(at), height)
    table.finish()


if __name__ == "__main__":
    main()
