"""TRIPOD+AI: its 27 items (52 with their parts) in our own words, with what a run answers.

After Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting
clinical prediction models that use regression or machine learning methods. BMJ 2024;385:e078378.
Numbers and order are those of the publication, the wording is not.
"""

from __future__ import annotations

from renalkit.writers import authors_words as authors
from renalkit.writers import data_words as data
from renalkit.writers import figure_words as figures
from renalkit.writers import training_words as training
from renalkit.writers.checklist import Form, Item, part, when, whole

_TITLE, _BACKGROUND, _OBJECTIVES = "Title and abstract", "Background", "Objectives"
_DATA, _PARTICIPANTS, _OUTCOME = "Methods: data", "Methods: participants", "Methods: outcome"
_PREDICTORS, _ANALYSIS = "Methods: predictors", "Methods: analysis"
_OPEN, _RESULTS, _DISCUSSION = "Open science", "Results", "Discussion"

TRIPOD_AI = Form(
    name="tripod-ai",
    title="TRIPOD+AI",
    after="Collins GS et al. BMJ 2024;385:e078378",
    items=(
        Item(
            "1",
            _TITLE,
            "Making or testing a prediction model, for whom, of what outcome",
            "say it in the title.",
            part(training.goal),
        ),
        Item(
            "2",
            _TITLE,
            "Abstract by the list for abstracts",
            "write the abstract; quote figures with their intervals, n and unit.",
            part(figures.performance),
        ),
        Item(
            "3a",
            _BACKGROUND,
            "The clinical question, why a model, and which models exist",
            "the question, the reason for a model, earlier models.",
        ),
        Item(
            "3b",
            _BACKGROUND,
            "For which patients, at which point of care, for which users",
            "target patients, place in the work-up, users.",
            part(authors.intended_use),
        ),
        Item(
            "3c",
            _BACKGROUND,
            "Known inequalities of health between groups",
            "what is known for this disease between groups of patients.",
        ),
        Item(
            "4",
            _OBJECTIVES,
            "Aims: making a model, testing it, or both",
            "the aims in words.",
            part(training.goal),
        ),
        Item(
            "5a",
            _DATA,
            "Sources of the data for making and for testing, and whom they stand for",
            "why these data, and how well they stand for the target patients.",
            part(data.places, data.ingest),
        ),
        Item(
            "5b",
            _DATA,
            "Dates of the data",
            "first and last date of inclusion; dates are not kept here, to protect patients.",
        ),
        Item(
            "6a",
            _PARTICIPANTS,
            "Setting, number and place of the centres",
            "level of care, country, kind of centres.",
            part(data.places),
        ),
        Item(
            "6b",
            _PARTICIPANTS,
            "Who could take part",
            "the criteria in words.",
            part(data.exclusions),
        ),
        Item(
            "6c",
            _PARTICIPANTS,
            "Treatments, where they matter",
            "treatment before the images, or that there was none.",
        ),
        Item(
            "7",
            "Methods: preparation",
            "Cleaning and preparation, alike for all groups of patients",
            "what was done to the images before they were read here.",
            whole(training.preprocessing, training.same_for_all),
        ),
        Item(
            "8a",
            _OUTCOME,
            "The outcome, when and how it was found, alike for all",
            "definition of each class, time between image and reference standard.",
            part(data.classes, data.reference_standard),
        ),
        Item(
            "8b",
            _OUTCOME,
            "Who judged the outcome, where judgement is needed",
            "training and experience of pathologists and annotators.",
        ),
        Item(
            "8c",
            _OUTCOME,
            "Whether those who judged it were blinded",
            "what they knew of the images and of the model.",
        ),
        Item(
            "9a",
            _PREDICTORS,
            "Which predictors were considered and why",
            "why these, and whether any were dropped beforehand.",
            part(training.predictors),
        ),
        Item(
            "9b",
            _PREDICTORS,
            "Every predictor, when and how it was measured, blinded to what",
            "how and when images were taken and facts measured.",
            part(data.images),
        ),
        Item(
            "9c",
            _PREDICTORS,
            "Who judged predictors, where judgement is needed",
            "who noted findings and outlines, with what experience.",
        ),
        Item(
            "10",
            "Methods: sample size",
            "How the size was decided, for making and for testing",
            "the reason for the size; 'renalkit plan' computes sizes and power.",
            part(figures.test_size),
        ),
        Item(
            "11",
            "Methods: missing data",
            "What was done about missing data",
            "why values are missing.",
            when(data.facts_stored, data.missing_values, data.missing_in_models),
        ),
        Item(
            "12a",
            _ANALYSIS,
            "How the data were used and divided",
            "how patients were divided.",
            whole(training.partition, training.fewer_folds, training.disjointness, data.nameless),
        ),
        Item(
            "12b",
            _ANALYSIS,
            "How predictors went into the model",
            "how predictors were transformed.",
            whole(training.preprocessing, training.augmentation),
        ),
        Item(
            "12c",
            _ANALYSIS,
            "Kind of model, every step of making it, tuning, internal validation",
            "the steps of making the model.",
            whole(training.systems, training.training, training.selection, training.ensembling),
        ),
        Item(
            "12d",
            _ANALYSIS,
            "Differences between places, how examined",
            "how differences between hospitals were examined, or that there is one only.",
            whole(figures.between_places),
        ),
        Item(
            "12e",
            _ANALYSIS,
            "Measures and plots of performance and comparison",
            "the measures.",
            whole(
                figures.measures,
                figures.classification_intervals,
                figures.segmentation_intervals,
                figures.calibration,
                figures.paired_tests,
            ),
        ),
        Item(
            "12f",
            _ANALYSIS,
            "Changes to the model after testing",
            "changes after testing.",
            whole(training.no_update),
        ),
        Item(
            "12g",
            _ANALYSIS,
            "How predictions were computed for testing",
            "how predictions were computed.",
            whole(training.ensembling, figures.scoring),
        ),
        Item(
            "13",
            "Methods: class imbalance",
            "What was done about unequal classes, and about calibration after it",
            "why.",
            whole(training.imbalance, figures.calibration),
        ),
        Item(
            "14",
            "Methods: fairness",
            "What was done for fairness between groups, and why",
            "which groups matter here and what was done for them.",
            part(figures.subgroups),
        ),
        Item(
            "15",
            "Methods: output",
            "What the model gives out, and how thresholds were chosen",
            "why such thresholds.",
            whole(training.output, figures.scoring),
        ),
        Item(
            "16",
            "Methods: training and test",
            "Differences between the data for making and for testing",
            "differences in setting, criteria, outcome and predictors.",
            whole(training.test_like_training),
        ),
        Item("17", "Methods: ethics", "Ethics and consent", "committee, number, consent."),
        Item("18a", _OPEN, "Funding", "sources of money, and their part in it."),
        Item("18b", _OPEN, "Conflicts of interest", "of every author."),
        Item("18c", _OPEN, "Protocol", "where it can be read, or that there is none."),
        Item("18d", _OPEN, "Registration", "register and number, or that there is none."),
        Item("18e", _OPEN, "Data sharing", "where data can be had, and under which terms."),
        Item(
            "18f",
            _OPEN,
            "Code sharing",
            "where the code can be had, and under which terms.",
            part(authors.availability, figures.software),
        ),
        Item(
            "19",
            "Patients and public",
            "What part patients and the public had in the study",
            "their part, or that there was none.",
        ),
        Item(
            "20a",
            _RESULTS,
            "Flow of patients, with and without the outcome",
            "the flow, with a chart.",
            whole(data.study_flow, data.classes),
        ),
        Item(
            "20b",
            _RESULTS,
            "Who the patients were, overall and by source",
            "age, sex, dates and findings as far as they are not recorded here.",
            when(data.age_and_sex_known, data.people, data.facts_known),
        ),
        Item(
            "20c",
            _RESULTS,
            "The tested beside those the model was made with",
            "how the tested patients differ.",
            whole(training.test_like_training),
        ),
        Item(
            "21",
            _RESULTS,
            "Patients and events in each analysis",
            "numbers in each analysis.",
            whole(figures.test_size, training.part_sizes),
        ),
        Item(
            "22",
            _RESULTS,
            "The model itself, so that it can predict",
            "where weights and code can be had, with an example of their use.",
            part(training.technical_detail),
        ),
        Item(
            "23a",
            _RESULTS,
            "Performance with intervals, in groups too",
            "performance.",
            whole(figures.performance, figures.subgroups),
        ),
        Item(
            "23b",
            _RESULTS,
            "Differences of performance between places",
            "results by hospital, or that there is one only.",
            whole(figures.between_places),
        ),
        Item("24", _RESULTS, "Results of updating", "results of it.", whole(training.no_update)),
        Item(
            "25",
            _DISCUSSION,
            "Interpretation, fairness included, beside earlier studies",
            "what the results mean.",
        ),
        Item(
            "26",
            _DISCUSSION,
            "Limitations, and what they do to the results",
            "bias, uncertainty, and how far the results carry.",
            part(authors.limitations, authors.cautions),
        ),
        Item(
            "27a",
            _DISCUSSION,
            "What happens to poor or missing input in use",
            "how poor images would be noticed in use.",
            part(training.refusals),
        ),
        Item(
            "27b",
            _DISCUSSION,
            "What users must do and know",
            "who outlines, picks frames or reads the result, and with what training.",
        ),
        Item("27c", _DISCUSSION, "Next steps", "what is needed before use and to generalise."),
    ),
)
