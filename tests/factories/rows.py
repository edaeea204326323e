"""Small builders of rows for the tests: projects, queries with documents, judges, pairs, runs.

Names are made unique by counters, so that tests may call them as often as they like. The judges are
plugins of the tests' own, see `tests.factories.stubs.plugins`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model

from labeling.access.annotators import get_judge, get_person
from labeling.annotation.gold import set_gold
from labeling.judgments import Recorded, record_judgments, supersede_judgments
from labeling.models import Annotator, Candidate, Document, Judgment, Membership, Pair, Project, Query, Role
from labeling.models.screen import SeenAnswers
from labeling.pairs import store_pairs
from labeling.projects import create_project
from labeling.records import NewJudgment
from scoring.annotators.adjudication import adjudicate
from workers.models import InjectionProbe, Job, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

_numbers = itertools.count(1)


def make_user(name: str = "", **fields: Any) -> Any:
    """A user without a password."""
    return get_user_model().objects.create_user(name or f"user-{next(_numbers)}", **fields)


def make_project(*, owner: Any = None, queries: int = 0, documents: int = 4) -> Project:
    """A project, with `queries` queries of `documents` candidates each."""
    project = create_project(f"Project {next(_numbers)}", owner=owner)
    for _ in range(queries):
        make_query_with_documents(project, documents)
    return project


def make_member(project: Project, role: str = Role.VIEWER) -> Any:
    """A new user with a role in the project."""
    user = make_user()
    Membership.objects.create(project=project, user=user, role=role)
    return user


def make_query_with_documents(project: Project, documents: int = 4, *, grades: Sequence[int] = ()) -> Query:
    """A query with candidates in first-stage order; document k has k + 1 words, so that judges can tell them apart."""
    number = next(_numbers)
    query = Query.objects.create(project=project, external_id=f"q{number}", text=f"question {number}")
    for place in range(documents):
        document = Document.objects.create(
            project=project, external_id=f"q{number}-d{place}", text=" ".join(["word"] * (place + 1))
        )
        Candidate.objects.create(
            query=query, document=document, first_stage_rank=place + 1, grade=grades[place] if grades else None
        )
    return query


def candidate_ids(query: Query) -> list[int]:
    """The query's candidates in id order, which is first-stage order."""
    return list(query.candidates.order_by("id").values_list("id", flat=True))


def make_pair(query: Query, a: int = 0, b: int = 1) -> Pair:
    """The pair of the candidates at places `a` < `b` of the query."""
    ids = candidate_ids(query)
    return Pair.objects.get(pk=store_pairs([ids[a]], [ids[b]], [query.pk])[0])


def make_judges(project: Project, count: int = 1, *, plugin: str = "test-longer", **options: Any) -> list[Annotator]:
    """Judges of the project, each a configuration of its own."""
    return [get_judge(project, plugin, {"number": number, **options}) for number in range(count)]


def make_run(project: Project, *, judges: Sequence[Annotator] = (), planned: bool = True, **order: Any) -> Run:
    """A run of the project; planned, unless told otherwise, up to its open tasks."""
    run = start_run(project, judges=list(judges) or make_judges(project), **{"seed": 1, **order})
    if planned:
        advance(run.pk)
        run.refresh_from_db()
    return run


def make_tasks(count: int = 1, *, judges: int = 1) -> list[JudgingTask]:
    """Open tasks of a run that is being judged: `count` pairs of one query for each judge."""
    documents = 2
    while documents * (documents - 1) // 2 < count:
        documents += 1
    project = make_project(queries=1, documents=documents)
    run = make_run(project, judges=make_judges(project, judges), sampler="all", pair_budget=count)
    return list(JudgingTask.objects.filter(run=run).order_by("id"))


def answer_each_way(judge: Annotator, user: Any, pairs: Sequence[Pair]) -> None:
    """Of three pairs on which the judge says 0.9 the user answers one alone, one again after others' answers were seen,
    and decides one: only the first is an opinion, and it is the opposite of the judge's.
    """
    own, told, decided = pairs
    for pair in pairs:
        judge_pair(pair, judge, 0.9)
    person = get_person(own.query.project, user)
    judge_pair(own, person, 0.05)
    judge_pair(told, person, 0.05)
    first = Judgment.objects.get(pair=told, annotator=person)
    SeenAnswers.objects.create(judgment=first)
    supersede_judgments([first.pk])
    judge_pair(told, person, 0.95)
    adjudicate(decided, user, "1")


def judge_pair(pair: Pair, annotator: Annotator, preference: float | None = 0.7, **fields: Any) -> Recorded:
    """Record one answer."""
    answer = {"swapped": False, **fields}
    return record_judgments([NewJudgment(pair_id=pair.pk, annotator_id=annotator.pk, preference=preference, **answer)])


def make_probe(judge: Annotator, *, state: str = Job.State.FINISHED, **fields: Any) -> InjectionProbe:
    """An injection probe of this judge with a job in this state; `fields` are those of the probe."""
    job = Job.objects.create(project=judge.project, stage="probe", state=state)
    return InjectionProbe.objects.create(project=judge.project, annotator=judge, job=job, **fields)


def answer_queries(project: Project, *, queries: int, pairs: int, same_text: bool = False) -> None:
    """Add queries `taught-0`, `taught-1` ... with answered pairs: gold in every other query, otherwise answers of one person,
    who always prefers the shorter document, whichever stands first.
    """
    person = get_person(project, make_user())
    for number in range(queries):
        text = "the one question" if same_text else f"question number {number} about topic {number % 5}"
        query = Query.objects.create(project=project, external_id=f"taught-{number}", text=text)
        ids = []
        for place in range(2 * pairs):
            words = " ".join(f"w{number}x{place}" for _ in range(3 + 9 * ((place + number) % 2)))
            document = Document.objects.create(project=project, external_id=f"taught-{number}-{place}", text=words)
            ids.append(Candidate.objects.create(query=query, document=document, first_stage_rank=place + 1).pk)
        for pair in store_pairs(ids[::2], ids[1::2], [query.pk] * pairs):
            first_is_short = float(number % 2 == 0)
            if number % 2:
                set_gold(pair, first_is_short, explanation="Short is good.")
            else:
                judge_pair(Pair.objects.get(pk=pair), person, first_is_short)
