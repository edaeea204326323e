"""Exports of a project: one module for each family of formats, and `exporting`, which reads and writes.

Importing this package (the entry point `exports`) registers all exporters.
"""

from labeling.plugins import ExportFailed
from scoring.exports import annotation_tasks, hugging_face, judgments, texts, training_sets
from scoring.exports.scores import TrecRun, ZbenchAnnotatedJsonl, strictly_falling

__all__ = [
    "ExportFailed",
    "TrecRun",
    "ZbenchAnnotatedJsonl",
    "annotation_tasks",
    "hugging_face",
    "judgments",
    "strictly_falling",
    "texts",
    "training_sets",
]
