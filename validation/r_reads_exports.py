"""Do the exports for RJafroc and iMRMC hold what was exported? R reads them and computes the AUCs.

The workbook is read by readxl with the column ranges and types RJafroc asks for. Needs R with the
package readxl (Debian: r-cran-readxl).

    python validation/r_reads_exports.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from side_by_side import Table, run_r

from renalkit.domain.readings import Reader, Reading, ReadingTable, ReadingValue
from renalkit.metrics.mrmc import MrmcPlan, figures_of_merit
from renalkit.writers.readings import write_imrmc, write_rjafroc

SCRIPT = """
area <- function(p, n) mean(outer(p, n, ">") + 0.5 * outer(p, n, "=="))
truth <- data.frame(read_xlsx(book, "Truth", range = cell_cols(1:6)))
tp <- data.frame(read_xlsx(book, "TP", range = cell_cols(1:5)))
fp <- data.frame(read_xlsx(book, "FP", range = cell_cols(1:4)))
stopifnot(is.numeric(truth$CaseID), is.numeric(tp$TP_Rating), is.character(truth$ReaderID),
          is.character(tp$ReaderID), is.character(fp$ModalityID))
readers <- strsplit(truth$ReaderID[1], ",|\\\\s")[[1]]; readers <- readers[readers != ""]
arms <- strsplit(truth$ModalityID[1], ",|\\\\s")[[1]]; arms <- arms[arms != ""]
out("paradigm", truth$Paradigm[1:2] == c("ROC", "FCTRL"))
out("cases", c(sum(truth$LesionID == 0), sum(truth$LesionID == 1)))
out("rjafroc", unlist(lapply(arms, function(a) sapply(readers, function(r) area(
  tp$TP_Rating[tp$ReaderID == r & tp$ModalityID == a],
  fp$FP_Rating[fp$ReaderID == r & fp$ModalityID == a])))))
text <- readLines(imrmc)
rows <- read.csv(text = text[-seq_len(which(text == "BEGIN DATA:"))], header = FALSE,
                 colClasses = "character", col.names = c("reader", "case", "arm", "score"))
rows$score <- as.numeric(rows$score)
gold <- rows[rows$reader == "-1", ]
positive <- gold$case[gold$score == 1]
out("imrmc", unlist(lapply(arms, function(a) sapply(readers, function(r) {
  x <- rows[rows$reader == r & rows$arm == a, ]
  area(x$score[x$case %in% positive], x$score[!x$case %in% positive])
}))))
"""


def main() -> None:
    rng = np.random.default_rng(29)
    names, arms = ("junior-1", "senior-1", "7"), ("without-AI", "with-AI")
    cases = [f"P{i:04d}" for i in range(40)]
    truth = {case: bool(rng.random() < 0.5) for case in cases}
    table = ReadingTable(
        tuple(Reader(n) for n in names),
        tuple(cases),
        tuple(
            Reading(c, r, a, float(np.round(40 + 20 * truth[c] + 15 * rng.normal())))
            for a in arms
            for r in names
            for c in cases
        ),
        truth,
    )
    with tempfile.TemporaryDirectory() as folder:
        book, text = Path(folder) / "study.xlsx", Path(folder) / "study.imrmc"
        write_rjafroc(table, book)
        write_imrmc(table, text)
        head = f'book <- "{book}"; imrmc <- "{text}"\n'
        found = run_r(head + SCRIPT, ("readxl",), "apt install r-cran-readxl")
    aucs, _, _ = figures_of_merit(table.truths(), table.values(ReadingValue.SCORE), MrmcPlan())
    positive = sum(truth.values())
    shown = Table("R readxl and read.csv")
    shown.add("paradigm ROC, FCTRL", found["paradigm"], (1, 1))
    shown.add("cases without and with disease", found["cases"], (40 - positive, positive))
    shown.add("AUCs of the RJafroc workbook", found["rjafroc"], aucs.ravel())
    shown.add("AUCs of the iMRMC file", found["imrmc"], aucs.ravel())
    shown.finish()


if __name__ == "__main__":
    main()
