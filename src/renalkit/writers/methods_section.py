"""How were the figures made? Paragraphs for a paper, from the settings and methods really used."""

from __future__ import annotations

from renalkit.writers import data_words, figure_words, reader_words, training_words
from renalkit.writers.document import Block, Paragraph, Section
from renalkit.writers.source import ReportSource

_PARTS = (
    (
        "Patients and images.",
        (
            data_words.study_flow,
            data_words.nameless,
            data_words.places,
            data_words.images,
            data_words.ingest,
            data_words.reference_standard,
            data_words.missing_values,
        ),
    ),
    (
        "Folds and training.",
        (
            training_words.partition,
            training_words.fewer_folds,
            training_words.disjointness,
            training_words.systems,
            training_words.preprocessing,
            training_words.augmentation,
            training_words.initialisation,
            training_words.training,
            training_words.selection,
            training_words.ensembling,
        ),
    ),
    ("Readers.", (reader_words.readings, reader_words.comparisons)),
    (
        "Statistics.",
        (
            figure_words.scoring,
            figure_words.classification_intervals,
            figure_words.segmentation_intervals,
            figure_words.paired_tests,
            figure_words.patient_tests,
            figure_words.calibration,
            figure_words.subgroups,
            figure_words.level,
            figure_words.software,
        ),
    ),
)


def methods(source: ReportSource) -> Section | None:
    """Methods in running text; None where the run kept no settings of statistics."""
    if not source.metrics.get("statistics"):
        return None
    blocks: list[Block] = []
    for opening, sentences in _PARTS:
        text = " ".join(words for say in sentences if (words := say(source)))
        if text:
            blocks.append(Paragraph(text, opening=opening))
    note = "Written from the settings and methods of this run. Check it, and add what was planned."
    return Section("methods", "Methods", (*blocks, Paragraph(note, "note")))
