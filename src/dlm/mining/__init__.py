"""Mining: a version answers the document's questions, a judge scores the answers, and the best meet the worst as pairs."""

from dlm.mining.job import FINISHED, STARTED, Job, MineResult, MineSettings, MineView, mine, result_of
from dlm.mining.length import LengthBias, length_bias
from dlm.mining.pairs import SKIP_REASONS, Plan, PlannedPair, Rules, Skip, plan_pairs
from dlm.mining.questions import (
    Question,
    content_hash,
    hand_written_answers,
    probes_of,
    questions_of_document,
    questions_of_file,
    seed_of,
)
from dlm.mining.similarity import DUPLICATE, TOO_SIMILAR, same_as_earlier, similarity

__all__ = [
    "DUPLICATE",
    "FINISHED",
    "SKIP_REASONS",
    "STARTED",
    "TOO_SIMILAR",
    "Job",
    "LengthBias",
    "MineResult",
    "MineSettings",
    "MineView",
    "Plan",
    "PlannedPair",
    "Question",
    "Rules",
    "Skip",
    "content_hash",
    "hand_written_answers",
    "length_bias",
    "mine",
    "plan_pairs",
    "probes_of",
    "questions_of_document",
    "questions_of_file",
    "result_of",
    "same_as_earlier",
    "seed_of",
    "similarity",
]
