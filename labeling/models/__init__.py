"""Tables of texts, candidates, pairs, judgments, gold answers and assignments, and of the rights to them.

Database constraints enforce the invariants; querysets answer frequent questions.
"""

from labeling.models.audit import AuditEntry
from labeling.models.gold import GoldAnswer
from labeling.models.imports import DatasetImport
from labeling.models.judgments import (
    ANSWER_KINDS,
    LIVE_JUDGMENTS,
    Annotator,
    AnnotatorQuerySet,
    Judgment,
    JudgmentQuerySet,
    Rationale,
    config_hash,
)
from labeling.models.model_grades import ModelGrade
from labeling.models.pairs import Pair, PairQuerySet
from labeling.models.projects import (
    AccessLink,
    ApiToken,
    GoldFeedback,
    Membership,
    ModelT,
    Project,
    ProjectQuerySet,
    Role,
    Viewer,
    VisibleQuerySet,
    visible_through,
)
from labeling.models.rater_grades import RaterGrade
from labeling.models.screen import BLIND, PastLease, ScreenState, SeenAnswers, Submission
from labeling.models.spot_checks import SpotCheck
from labeling.models.texts import Candidate, Document, ProjectCount, Query, UnmatchedGrade

__all__ = [
    "ANSWER_KINDS",
    "BLIND",
    "LIVE_JUDGMENTS",
    "AccessLink",
    "Annotator",
    "AnnotatorQuerySet",
    "ApiToken",
    "AuditEntry",
    "Candidate",
    "DatasetImport",
    "Document",
    "GoldAnswer",
    "GoldFeedback",
    "Judgment",
    "JudgmentQuerySet",
    "Membership",
    "ModelGrade",
    "ModelT",
    "Pair",
    "PairQuerySet",
    "PastLease",
    "Project",
    "ProjectCount",
    "ProjectQuerySet",
    "Query",
    "RaterGrade",
    "Rationale",
    "Role",
    "ScreenState",
    "SeenAnswers",
    "SpotCheck",
    "Submission",
    "UnmatchedGrade",
    "Viewer",
    "VisibleQuerySet",
    "config_hash",
    "visible_through",
]
