"""Data of a teaching: people's answers, split by query into examples and held-out pairs.

Queries of equal text are on the same side of the split, so that no example answers a held-out question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pydantic

from labeling.models import Annotator, Candidate, Project, Query
from labeling.records import Comparison, TextRecord
from scoring.annotators.known_answers import PeoplesAnswer, peoples_answers
from workers.jobs.teaching.choice import choose_examples
from workers.jobs.teaching.verdict import LEAST_QUERIES
from workers.judges.examples import MOST_CHARACTERS, MOST_EXAMPLES, WorkedExample

# Of this many queries at least one half is enough to measure on.
LEAST_ANSWERED = 2 * LEAST_QUERIES
# The pool from which examples are chosen, and the texts that they are to cover.
MOST_POOL = 500
MOST_OF_QUERY = 5
MOST_COVERED = 300


class TeachingRefused(ValueError):
    """The judge cannot be taught; the message says what to change."""


class TeachingOptions(pydantic.BaseModel):
    """The numbers of examples in the prompt and of held-out pairs on which both judges are measured."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    examples: int = pydantic.Field(default=8, ge=1, le=MOST_EXAMPLES)
    pairs: int = pydantic.Field(default=100, ge=LEAST_QUERIES, le=2000)
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True, slots=True)
class Split:
    """People's answers to teach with, and the held-out ones in the order in which they are asked."""

    teaching: Sequence[PeoplesAnswer]
    held_out: Sequence[PeoplesAnswer]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out pair to ask about, and people's P(a is the more relevant)."""

    query: int
    known: float
    comparison: Comparison


def split_answers(project: Project, options: TeachingOptions) -> Split:
    """Half of the answered queries teach, the other half (rounded up) measures. Raises TeachingRefused.

    Held-out pairs are taken query by query in turn, up to `options.pairs`, so that they spread over the queries.
    """
    known = peoples_answers(project.pk)
    rng = np.random.default_rng([options.seed, 1])
    queries = _by_text({each.query for each in known})
    groups = [queries[place] for place in rng.permutation(len(queries))]
    _check(project, known=len(known), queries=len(groups))
    held = {query for group in groups[: -(-len(groups) // 2)] for query in group}
    shuffled = [known[place] for place in rng.permutation(len(known))]
    return Split(
        [each for each in shuffled if each.query not in held],
        _in_turn([each for each in shuffled if each.query in held])[: options.pairs],
    )


def _by_text(query_ids: Iterable[int]) -> list[list[int]]:
    """The queries, those of equal text (but for case and spaces) together."""
    groups: dict[str, list[int]] = defaultdict(list)
    for query, text in Query.objects.filter(pk__in=query_ids).order_by("id").values_list("id", "text"):
        groups[" ".join(text.split()).casefold()].append(query)
    return list(groups.values())


def _check(project: Project, *, known: int, queries: int) -> None:
    if queries >= LEAST_ANSWERED:
        return
    do = "plan spot checks on the page People, or mark gold answers on the pages of pairs"
    if not known:
        raise TeachingRefused(
            f"people have answered no pair of project {project.slug!r} with a preference; teaching needs answers to "
            f"{LEAST_ANSWERED} different queries; {do}"
        )
    if queries == 1:
        raise TeachingRefused(
            f"all {known} answers of people in project {project.slug!r} are about one query, so none can be held out to "
            f"measure on; teaching needs answers to {LEAST_ANSWERED} different queries; {do}"
        )
    raise TeachingRefused(
        f"people have answered pairs of {queries} different queries of project {project.slug!r}; teaching needs "
        f"{LEAST_ANSWERED}, half to teach and half to measure on; {do}"
    )


def _in_turn(answers: Sequence[PeoplesAnswer]) -> list[PeoplesAnswer]:
    """One answer of each query, then a second one of each, and so on."""
    turn: dict[int, int] = defaultdict(int)
    turns = []
    for each in answers:
        turns.append(turn[each.query])
        turn[each.query] += 1
    return [answers[place] for place in np.argsort(np.array(turns, dtype=np.int64), kind="stable")]


def examples_from(project: Project, split: Split, options: TeachingOptions) -> list[WorkedExample]:
    """The examples that cover the project's queries best, the held-out ones left out."""
    rng = np.random.default_rng([options.seed, 2])
    pool = _pool(split.teaching)
    rows = _candidates(pool)
    held_out = {each.query for each in split.held_out}
    texts = Query.objects.filter(project=project).exclude(pk__in=held_out).order_by("id").values_list("text", flat=True)
    known = [_example(each, rows) for each in pool]
    every = list(texts)
    like = [every[place] for place in rng.permutation(len(every))[:MOST_COVERED]]
    return choose_examples(known, options.examples, like=like, rng=rng)


def _pool(teaching: Sequence[PeoplesAnswer]) -> list[PeoplesAnswer]:
    """Some answers of each query; those with an explanation first."""
    taken: dict[int, int] = defaultdict(int)
    pool = []
    for each in sorted(teaching, key=lambda each: not each.why):
        if taken[each.query] < MOST_OF_QUERY:
            taken[each.query] += 1
            pool.append(each)
    return pool[:MOST_POOL]


def _example(answer: PeoplesAnswer, rows: Mapping[int, Candidate]) -> WorkedExample:
    a, b = rows[answer.a], rows[answer.b]
    return WorkedExample(
        query_id=answer.query,
        query=a.query.text[:MOST_CHARACTERS],
        first=a.document.text[:MOST_CHARACTERS],
        second=b.document.text[:MOST_CHARACTERS],
        preference=answer.preference,
        why=answer.why[:MOST_CHARACTERS],
    )


def held_out_questions(judge: Annotator, answers: Sequence[PeoplesAnswer]) -> list[HeldOut]:
    """The questions about these pairs; every other is swapped."""
    rows = _candidates(answers)
    return [
        HeldOut(each.query, each.preference, _comparison(judge, place, rows[each.a], rows[each.b]))
        for place, each in enumerate(answers)
    ]


def _comparison(judge: Annotator, place: int, a: Candidate, b: Candidate) -> Comparison:
    query = TextRecord(a.query_id, a.query.text)
    return Comparison(
        key=place,
        query_a=query,
        query_b=query,
        a=TextRecord(a.document_id, a.document.text),
        b=TextRecord(b.document_id, b.document.text),
        swapped=place % 2 == 1,
        instruction=judge.project.instruction,
    )


def _candidates(answers: Sequence[PeoplesAnswer]) -> Mapping[int, Candidate]:
    ids = {side for each in answers for side in (each.a, each.b)}
    return Candidate.objects.select_related("query", "document").in_bulk(ids)
