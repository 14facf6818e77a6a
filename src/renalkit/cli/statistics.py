"""Statistics of any table: scores of one's own, and tables that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give

Level = Annotated[float, typer.Option(min=0.5, max=0.9999, help="Level of intervals.")]


def _names(text: str | None) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def stats(
    table: Annotated[
        Path, typer.Argument(help="CSV with a line per patient or per image.", exists=True)
    ],
    label: Annotated[str, typer.Option(help="Column of the true label.")],
    scores: Annotated[str, typer.Option(help="Columns of the scores, e.g. A,B; high is positive.")],
    positive: Annotated[
        str | None, typer.Option(help="Label that counts as positive, e.g. malignant.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="Labels that count as negative; all others if there is one.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Several classes in order, e.g. G1,G2,G3: columns A_G1, A_G2, ... for each score "
            "A (macro AUC), or one column A that rises with the class (cumulative AUC)."
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column of the patient, when patients have several rows.")
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="Average the rows of each patient first.")
    ] = False,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired/--unpaired",
            help="All scores on the same patients, or each score on patients of its own.",
        ),
    ] = True,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Operating point: 0.5, or A=0.5,B=0.3, or youden, f1, sensitivity:0.95, "
            "specificity:0.9, cost:10 (a miss as bad as 10 needless calls)."
        ),
    ] = None,
    tune_on: Annotated[
        str | None,
        typer.Option(
            metavar="COL=VALUE", help="Rows that thresholds are chosen on; the others are judged."
        ),
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(help="Share of positives elsewhere, for PPV, NPV and cost.")
    ] = None,
    partial: Annotated[
        list[str] | None,
        typer.Option(help="Part of the ROC curve, e.g. specificity:0.9-1 or sensitivity:0.9-1."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Scores are probabilities: calibration too.")
    ] = False,
    decision: Annotated[
        str | None, typer.Option(help="Thresholds of a decision curve, e.g. 0.1,0.2,0.3.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Is the first AUC at most this much worse?")
    ] = None,
    adjust: Annotated[str, typer.Option(help="p of several pairs: holm or bh.")] = "holm",
    interval: Annotated[
        str, typer.Option(help="Bootstrap interval: percentile or bca.")
    ] = "percentile",
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of patients.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same resamples.")] = 0,
    level: Level = 0.95,
    curves: Annotated[
        bool, typer.Option("--curves", help="Points of the curves in the JSON.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """AUCs, operating points, calibration and differences of the scores in any table."""
    from renalkit.cli.tables import as_text, stats_blocks
    from renalkit.usecases.stats import table_statistics
    from renalkit.usecases.stats_options import Options, column_value, fractions
    from renalkit.usecases.table_scores import Columns

    columns = Columns(
        label=label,
        scores=_names(scores),
        positive=positive,
        negative=_names(negative),
        classes=_names(classes),
        cluster=cluster,
        tune=column_value(tune_on),
        unpaired=not paired,
        average=average,
    )
    options = Options(
        level=level,
        seed=seed,
        resamples=resamples,
        interval=interval,
        adjust=adjust,
        prevalence=prevalence,
        thresholds=tuple(threshold or ()),
        partial=tuple(partial or ()),
        probabilities=probabilities,
        decision=fractions(decision),
        margin=margin,
        curves=curves,
    )
    found = table_statistics(table, columns, options)
    give(found, as_json, lambda: as_text(stats_blocks(found)))


def plan(
    auc: Annotated[float, typer.Option(help="Expected AUC.")],
    width: Annotated[
        float | None, typer.Option(help="Asked: an interval that reaches this far to each side.")
    ] = None,
    null: Annotated[
        float | None, typer.Option(help="Asked: the AUC differs from this value, e.g. 0.5.")
    ] = None,
    against: Annotated[
        float | None, typer.Option(help="Asked: it differs from this AUC of a second system.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="With --against: at most this much worse than it.")
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(help="Of the two AUCs on the same patients; none: two groups of patients."),
    ] = None,
    score_correlation: Annotated[
        float | None, typer.Option(help="Of the two scores within a class; gives the former.")
    ] = None,
    patients: Annotated[
        int | None, typer.Option(min=4, help="Patients at hand: tells the power they give.")
    ] = None,
    positive_share: Annotated[float, typer.Option(help="Share of positive patients.")] = 0.5,
    power: Annotated[float, typer.Option(min=0.01, max=0.999, help="Wanted power.")] = 0.8,
    level: Level = 0.95,
    model: Annotated[
        str, typer.Option(help="Variance of an AUC: empirical, hanley-mcneil or obuchowski.")
    ] = "empirical",
    as_json: AsJson = False,
) -> None:
    """How many patients a study of an AUC needs, or what power those at hand give."""
    from renalkit.usecases.plan import PlanRequest, plan_study, plan_words

    request = PlanRequest(
        auc=auc,
        width=width,
        null=null,
        against=against,
        margin=margin,
        correlation=correlation,
        score_correlation=score_correlation,
        patients=patients,
        positive_share=positive_share,
        power=power,
        level=level,
        model=model,
    )
    found = plan_study(request)
    give(found, as_json, lambda: plan_words(found))


def audit(
    table: Annotated[Path, typer.Argument(help="CSV of a published table.", exists=True)],
    level: Level = 0.95,
    as_json: AsJson = False,
) -> None:
    """Can the numbers of a published table hold together? Shares, counts, AUCs, intervals."""
    from renalkit.usecases.audit import audit_table, audit_words

    found = audit_table(table, level)
    give(found, as_json, lambda: audit_words(found))
