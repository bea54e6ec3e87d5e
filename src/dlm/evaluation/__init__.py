"""Evaluation: prove a version."""

from dlm.evaluation.probes import ProbeAnswer, Question, answer_all

__all__ = ["ProbeAnswer", "Question", "answer_all"]
