"""The scores that are known: a document that was compared with nothing has a prior but no Elo.

The fit stores a row for every candidate, because samplers need the prior's width. Whatever people read (pages, REST,
exports, commands) takes Elo and relevance from here. "Neither is relevant" compares both documents with the outside option
(`scoring.outside_option`); "cannot judge" is no comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Case, F, When
from django.db.models.expressions import OrderBy
from django.db.models.functions import Collate

# Fields of `scoring.models.Score` that rest on comparisons.
FIELDS = ("theta", "stderr", "elo", "elo_stderr", "relevance")


def best_elo_first() -> tuple[OrderBy, OrderBy]:
    """Order candidates by known Elo, equal ones by descending imported document id as trec_eval does, those without one last.

    Exports and evaluations order them so too, whatever the order of import and the database's collation.
    """
    by_elo, by_id = (
        Case(When(score__comparisons__gt=0, then=value)).desc(nulls_last=True)
        for value in (F("score__elo"), Collate("document__external_id", "C"))
    )
    return by_elo, by_id


def known(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `score__` values with None for the fields that rest on comparisons where `score__comparisons` is 0."""
    if row["score__comparisons"]:
        return dict(row)
    return {name: None if name.removeprefix("score__") in FIELDS else value for name, value in row.items()}
