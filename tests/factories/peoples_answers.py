"""Queries that people answered: they always prefer the shorter document, whichever stands first."""

from __future__ import annotations

from labeling.access.annotators import get_person
from labeling.annotation.gold import set_gold
from labeling.models import Candidate, Document, Pair, Project, Query
from labeling.pairs import store_pairs
from tests.factories.rows import judge_pair, make_user


def answer_queries(project: Project, *, queries: int, pairs: int, same_text: bool = False) -> None:
    """Add queries `taught-0`, `taught-1` ... with answered pairs: gold in every other query, otherwise answers of one person."""
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
