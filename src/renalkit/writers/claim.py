"""CLAIM, update of 2024: the 44 items in our own words, with what a run answers.

After Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical
Imaging (CLAIM): 2024 update. Radiol Artif Intell 2024;6:e240300. Numbers and order are those of the
publication, the wording is not.
"""

from __future__ import annotations

from renalkit.writers import authors_words as authors
from renalkit.writers import data_words as data
from renalkit.writers import figure_words as figures
from renalkit.writers import training_words as training
from renalkit.writers.checklist import Form, Item, part, when, whole

_TITLE, _INTRODUCTION, _DISCUSSION = "Title and abstract", "Introduction", "Discussion"
_DESIGN, _DATA, _TRUTH = "Methods: design", "Methods: data", "Methods: reference standard"
_PARTS, _SIZE, _MODEL = "Methods: partitions", "Methods: test data", "Methods: model"
_TRAINING, _EVALUATION = "Methods: training", "Methods: evaluation"
_RESULTS_DATA, _RESULTS, _OTHER = "Results: data", "Results: performance", "Other information"

CLAIM = Form(
    name="claim",
    title="CLAIM 2024",
    after="Tejani AS et al. Radiol Artif Intell 2024;6:e240300",
    items=(
        Item(
            "1",
            _TITLE,
            "The study is recognisable as one of AI, and of which kind",
            "name the kind of AI in title or abstract.",
            part(training.systems),
        ),
        Item(
            "2",
            _TITLE,
            "Design, methods, results and conclusions in short",
            "write the abstract; quote figures with their intervals, n and unit.",
            part(figures.performance),
        ),
        Item(
            "3",
            _INTRODUCTION,
            "Background, and the use and role the AI is meant for",
            "the clinical question, what is known, where in the work-up the AI would act.",
            part(authors.intended_use),
        ),
        Item("4", _INTRODUCTION, "Aims and hypotheses", "aims, and hypotheses fixed beforehand."),
        Item(
            "5",
            _DESIGN,
            "Prospective or retrospective",
            "whether images were taken before or after the study was planned.",
        ),
        Item(
            "6",
            _DESIGN,
            "What the study is for: making a model, testing it, showing that it can be done",
            "the goal in a sentence, and what was decided before looking at the data.",
            part(training.goal),
        ),
        Item(
            "7",
            _DATA,
            "Where the data come from",
            "hospitals or public sets, period, ethics; whether used in earlier papers.",
            part(data.places, data.ingest),
        ),
        Item(
            "8",
            _DATA,
            "Criteria of inclusion and exclusion",
            "the criteria in words, and how patients were found.",
            part(data.exclusions),
        ),
        Item(
            "9",
            _DATA,
            "What was done to the images before the model",
            "what was done to the images before they were read here.",
            whole(training.preprocessing),
        ),
        Item(
            "10",
            _DATA,
            "Which part of the data was taken (frames, crops, series)",
            "how frames were picked from longer recordings, by whom, blinded to what.",
            part(data.subsets),
        ),
        Item(
            "11",
            _DATA,
            "How patients were made unrecognisable",
            "that text burned into pictures was looked for and removed.",
            part(data.privacy),
        ),
        Item(
            "12",
            _DATA,
            "What was done about missing data",
            "why values are missing.",
            when(data.facts_stored, data.missing_values, data.missing_in_models),
        ),
        Item(
            "13",
            _DATA,
            "How the images were acquired",
            "transducers, presets, views, patient preparation, experience of the examiners.",
            part(data.places, data.images),
        ),
        Item(
            "14",
            _TRUTH,
            "How the reference standard is defined",
            "definition of each class, time between image and reference standard.",
            part(data.reference_standard),
        ),
        Item("15", _TRUTH, "Why this reference standard", "why it was chosen, and its limits."),
        Item(
            "16",
            _TRUTH,
            "Who annotated, with what training",
            "number, experience and instruction of annotators, and their software.",
            part(data.outlines),
        ),
        Item(
            "17",
            _TRUTH,
            "How the test data were annotated",
            "whether test cases were annotated otherwise (more readers, blinded, adjudicated).",
            part(data.truth_of_test),
        ),
        Item(
            "18",
            _TRUTH,
            "Agreement between and within annotators",
            "agreement of readers; 'renalkit evaluate --outlines' measures that of outlines.",
            whole(data.reader_agreement),
        ),
        Item(
            "19",
            _PARTS,
            "How data were divided into parts",
            "how patients were divided.",
            whole(training.partition, training.fewer_folds),
        ),
        Item(
            "20",
            _PARTS,
            "At which level the parts are disjoint",
            "that no patient is in two parts.",
            whole(training.disjointness, data.nameless),
        ),
        Item(
            "21",
            _SIZE,
            "Size of the test set and why",
            "how the size was decided; 'renalkit plan' computes sizes and power.",
            part(figures.test_size),
        ),
        Item(
            "22",
            _MODEL,
            "The model in enough detail to build it",
            "the model.",
            whole(training.systems, training.description),
        ),
        Item("23", _MODEL, "Software with versions", "software.", whole(figures.software)),
        Item(
            "24",
            _MODEL,
            "What the weights started from",
            "where pretrained weights come from, and on what they were trained.",
            whole(training.initialisation),
        ),
        Item(
            "25",
            _TRAINING,
            "How the model was trained",
            "augmentation, optimiser, length, hyperparameters.",
            whole(training.augmentation, training.training),
        ),
        Item(
            "26",
            _TRAINING,
            "How the final model was chosen",
            "how the model was chosen.",
            whole(training.selection),
        ),
        Item(
            "27",
            _TRAINING,
            "Whether and how models were combined",
            "how models were combined.",
            whole(training.ensembling),
        ),
        Item(
            "28",
            _EVALUATION,
            "Measures of performance",
            "why these measures, and which is the primary one.",
            whole(figures.measures, figures.scoring),
        ),
        Item(
            "29",
            _EVALUATION,
            "Intervals and tests",
            "tests planned beforehand.",
            whole(
                figures.classification_intervals,
                figures.segmentation_intervals,
                figures.paired_tests,
                figures.level,
            ),
        ),
        Item(
            "30",
            _EVALUATION,
            "Robustness",
            "what was varied beyond subgroups (scanner settings, image quality, other readers).",
            part(figures.subgroups),
        ),
        Item(
            "31",
            _EVALUATION,
            "Explanation of what the model looks at",
            "whether and how this was examined, and how the explanation was checked.",
            part(figures.explanations),
        ),
        Item(
            "32",
            _EVALUATION,
            "Evaluation on data of the same source",
            "how the model was tested on data like those of training.",
            whole(training.internal_test),
        ),
        Item(
            "33",
            _EVALUATION,
            "Test on data of another source",
            "a test elsewhere, or why there is none; 'renalkit external' makes it.",
            when(training.is_external, training.external_test),
        ),
        Item("34", _EVALUATION, "Registration", "register and number, or that there is none."),
        Item(
            "35",
            _RESULTS_DATA,
            "Numbers included and excluded",
            "numbers, with a flow chart.",
            whole(data.study_flow),
        ),
        Item(
            "36",
            _RESULTS_DATA,
            "Who the patients were, in each part",
            "age, sex and findings as far as they are not recorded here, per part.",
            when(data.age_and_sex_known, data.people, data.facts_known),
        ),
        Item(
            "37",
            _RESULTS,
            "Performance with its uncertainty",
            "performance.",
            whole(figures.performance),
        ),
        Item(
            "38",
            _RESULTS,
            "Diagnostic accuracy with its precision",
            "sensitivity and specificity with intervals.",
            whole(figures.diagnostic),
        ),
        Item(
            "39",
            _RESULTS,
            "Analysis of failures",
            "what the missed and wrongly called cases have in common.",
            part(figures.failures),
        ),
        Item(
            "40",
            _DISCUSSION,
            "Limitations",
            "bias, uncertainty, and how far the results carry.",
            part(authors.limitations, authors.cautions),
        ),
        Item(
            "41",
            _DISCUSSION,
            "What it means for practice",
            "intended use and role, and what is needed before it.",
            part(authors.intended_use),
        ),
        Item(
            "42",
            _OTHER,
            "Protocol and further technical detail",
            "where the protocol can be read.",
            part(training.technical_detail),
        ),
        Item(
            "43",
            _OTHER,
            "Availability of software, model and data",
            "where code, weights and data can be had, and under which terms.",
            part(authors.availability),
        ),
        Item("44", _OTHER, "Funding", "sources of money and other support, and their part in it."),
    ),
)
