"""Builds the rows that the tests of pages look at; every value has a default, every call is a few inserts."""

from __future__ import annotations

import itertools
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import timezone

from labeling.judgments import record_judgments
from labeling.models import Annotator, Candidate, Document, Membership, Pair, Project, Query, config_hash
from labeling.records import NewJudgment
from scoring.models import QueryFit, Score
from workers.models import Run

_numbers = itertools.count(1)


def make_user(name: str = "", **fields: Any) -> User:
    user: User = get_user_model().objects.create_user(username=name or f"user-{next(_numbers)}", **fields)
    return user


def make_project(owner: User | None = None, *, name: str = "Clinical search", role: str = "owner") -> Project:
    project = Project.objects.create(name=name, slug=f"project-{next(_numbers)}")
    if owner is not None:
        Membership.objects.create(project=project, user=owner, role=role)
    return project


def make_query(
    project: Project, *, size: int = 3, text: str = "troponin rise after marathon", words: str = "document"
) -> Query:
    """A query with `size` candidates named d0, d1, ... in first-stage order."""
    number = next(_numbers)
    query = Query.objects.create(project=project, external_id=f"q{number}", text=text)
    documents = Document.objects.bulk_create(
        Document(project=project, external_id=f"d{at}-{number}", text=f"{words} number {at}", metadata={})
        for at in range(size)
    )
    Candidate.objects.bulk_create(
        Candidate(query=query, document=document, first_stage_rank=at + 1) for at, document in enumerate(documents)
    )
    return query


def candidates_of(query: Query) -> list[Candidate]:
    return list(Candidate.objects.filter(query=query).order_by("id"))


def make_judge(project: Project, *, name: str = "MiniLM", plugin: str = "embedding") -> Annotator:
    return Annotator.objects.create(
        project=project, name=name, plugin=plugin, config_hash=config_hash(name=name, number=next(_numbers))
    )


def make_pair(a: Candidate, b: Candidate) -> Pair:
    first, second = sorted((a, b), key=lambda candidate: candidate.pk)
    same = first.query_id == second.query_id
    return Pair.objects.create(a=first, b=second, query_id=first.query_id if same else None)


def judge(pair: Pair, annotator: Annotator, preference: float, *, swapped: bool = False, rationale: str = "") -> None:
    """Store one answer through the write path of the product."""
    record_judgments([NewJudgment(pair.pk, annotator.pk, swapped, preference, rationale=rationale)])


def score(query: Query, thetas: list[float], *, stderr: float = 0.2, **fields: Any) -> None:
    """Give the candidates of a query these strengths, as a Thurstone fit would store them."""
    query.refresh_from_db()
    for candidate, theta in zip(candidates_of(query), thetas, strict=True):
        values = {
            "theta": theta,
            "stderr": stderr,
            "elo": 1500 + 418.7 * theta,
            "elo_stderr": 418.7 * stderr,
            "relevance": 1 / (1 + 2.718281828 ** (-2.41 * theta)),
            "comparisons": 8,
            "judged_version": query.judged_version,
            **fields,
        }
        Score.objects.update_or_create(candidate=candidate, defaults=values)
    QueryFit.objects.update_or_create(
        query=query,
        defaults={
            "rater": "thurstone",
            "prior_precision": 0.1,
            "logit_scale": 2.41,
            "dispersion": 1.0,
            "gradient_norm": 0.0,
            "iterations": 3,
            "islands": 1,
            "pairs": len(thetas),
            "judgments": len(thetas),
            "judged_version": query.judged_version,
        },
    )


def make_run(project: Project, *, state: str = "judging", planned: int = 10) -> Run:
    return Run.objects.create(project=project, state=state, tasks_planned=planned, started_at=timezone.now())


def page(client: Client, name: str, *args: Any, **data: Any) -> str:
    """The markup of a page that must answer 200."""
    answer = client.get(reverse(name, args=args), data)
    assert answer.status_code == 200, answer.content.decode()[:500]
    return answer.content.decode()


def example_address(pattern: URLPattern, **known: object) -> str:
    """An address of a page, its parameters filled with `known` or with something of the right kind."""
    kinds = pattern.pattern.converters
    values = {"token": "no-token", "slug": "no-project", "action": "pause"} | known
    return reverse(str(pattern.name), kwargs={name: values.get(name, 999_999) for name in kinds})
