"""Tables of the lowest layer: texts, candidates, pairs, judgments and access rights.

Database constraints enforce the invariants; querysets provide the frequent queries.
"""

from labeling.models.gold import GoldAnswer
from labeling.models.judgments import (
    ANSWER_KINDS,
    Annotator,
    AnnotatorQuerySet,
    Judgment,
    JudgmentQuerySet,
    Rationale,
    config_hash,
)
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
from labeling.models.screen import BLIND, Desk, PastLease, Submission, Told
from labeling.models.spot_checks import SpotCheck
from labeling.models.texts import Candidate, Document, Query

__all__ = [
    "ANSWER_KINDS",
    "BLIND",
    "AccessLink",
    "Annotator",
    "AnnotatorQuerySet",
    "ApiToken",
    "Candidate",
    "Desk",
    "Document",
    "GoldAnswer",
    "GoldFeedback",
    "Judgment",
    "JudgmentQuerySet",
    "Membership",
    "ModelT",
    "Pair",
    "PairQuerySet",
    "PastLease",
    "Project",
    "ProjectQuerySet",
    "Query",
    "Rationale",
    "Role",
    "SpotCheck",
    "Submission",
    "Told",
    "Viewer",
    "VisibleQuerySet",
    "config_hash",
    "visible_through",
]
