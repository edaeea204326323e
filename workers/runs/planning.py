"""Plans one round of a run: chooses pairs, judges and orders, and stores them as pairs and tasks.

`workers.runs.advancing` calls this inside its transaction, for some queries at a time. The pairs come from
`scoring.sampling.draw`, the judges of each from `scoring.numerics.judges.allocation` or `workers.runs.choices.judges`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import F

from labeling.database import array_cursor
from labeling.pairs import store_drawn_pairs
from labeling.plugins import Sampler
from labeling.records import BoolArray, IntArray
from scoring.annotators.cycles import contradicting_pairs
from scoring.annotators.student_weights import guides_of
from scoring.calibration.cross_query import sample_cross_pairs
from scoring.numerics.judges.allocation import allocate
from scoring.numerics.judges.informative import PanelTerms
from scoring.sampling.draw import sample_pairs
from scoring.sampling.named_pairs import NAMED, by_query, pairs_of
from workers.budgets.spend import set_size_of
from workers.judging.batches import prepared_judge
from workers.judging.recorded_pairs import RecordedPairs, recorded_pairs
from workers.models import Run
from workers.runs.choices import judges as judge_choice
from workers.runs.set_planning import draw_sets, store_sets

PairsOfQueries = dict[int, IntArray]
# Samplers that are no design by themselves but go on from what is known; their runs ask nothing but what they draw.
UNCERTAIN, GUIDED, CONFLICTS = "uncertain", "guided", "conflicts"
GOES_ON = (UNCERTAIN, GUIDED, CONFLICTS, NAMED)
# The sampler that asks only what judges have recorded.
RECORDED = "recorded"
# Allocations that ask one judge about a pair.
ONE_JUDGE_A_PAIR = (Run.Allocation.ROTATE, Run.Allocation.INFORMATIVE)
# Samplers that ask given pairs and no others.
EXACT = (RECORDED, NAMED)


def plan_queries(
    run: Run,
    sampler: Sampler,
    judges: Sequence[int],
    *,
    budgets: Mapping[int, int],
    round_number: int,
    begins: bool,
    panel: PanelTerms | None = None,
) -> None:
    """Store the next pairs and tasks of the queries in `budgets` (the most pairs for each). `panel`: what is known of the
    judges, where the run's allocation goes by it.

    Where the run `begins` with queries, existing pairs of the project that these judges have not judged come first: so another judge
    answers the same design, and the rest of a cancelled run is completed.
    """
    _lock_project(run.project_id)
    is_design = sampler.name not in GOES_ON
    known = _unasked_pairs(run, judges, list(budgets)) if begins and is_design else {}
    if sampler.name == CONFLICTS and begins:
        known = contradicting(run, judges, list(budgets))
    known = {query: pairs[: budgets[query]] for query, pairs in known.items() if budgets[query]}
    if (set_size := set_size_of(judges)) > 2:
        sets = draw_sets(
            known,
            sampler,
            set_size=set_size,
            budgets=budgets,
            seed=run.seed,
            round_number=round_number,
            pending=pending_pairs(list(budgets)),
        )
        _store_set_tasks(run, judges, sets, round_number=round_number, panel=panel)
        return
    recorded = None
    if sampler.name == RECORDED:
        recorded = recorded_pairs([prepared_judge(judge) for judge in judges], list(budgets))
    if recorded is not None:
        known = {query: recorded.only(pairs, query) for query, pairs in known.items()}
    offered = recorded.by_query if recorded is not None else None
    if sampler.name == NAMED:
        offered = named_pairs_left(run, sampler, list(budgets))
    drawn = sample_pairs(
        list(budgets),
        sampler,
        budgets={query: budget - len(known.get(query, ())) for query, budget in budgets.items()},
        seed=run.seed,
        round_number=round_number,
        pending=pending_pairs(list(budgets)),
        guides=guides_of(run.project_id, judges),
        recorded=offered,
    )
    _store_tasks(run, judges, _joined(known, drawn), round_number=round_number, recorded=recorded, panel=panel)


def contradicting(run: Run, judges: Sequence[int], query_ids: list[int]) -> PairsOfQueries:
    """Pairs of the panel's circles on which a judge of this run, stored or not, owes an answer in one of its orders."""
    found = contradicting_pairs(run.project_id, query_ids)
    owed = _unasked_pairs(run, judges, list(found)) if found else {}
    kept = {query: set(map(tuple, pairs.tolist())) for query, pairs in owed.items()}
    return {
        query: np.array(
            [each for each in pairs.tolist() if tuple(each) in kept.get(query, ())], dtype=np.int64
        ).reshape(-1, 2)
        for query, pairs in found.items()
    }


def plan_across(
    run: Run,
    sampler: Sampler,
    judges: Sequence[int],
    *,
    query_ids: list[int],
    budget: int,
    round_number: int,
    panel: PanelTerms | None = None,
) -> None:
    """Store the next pairs across these queries, and their tasks; all at once, since they make one graph.

    As within queries, existing pairs that these judges have not judged come first.
    """
    _lock_project(run.project_id)
    known = _unasked_pairs(run, judges, query_ids, across=True).get(0) if round_number == 1 else None
    known = np.empty((0, 2), dtype=np.int64) if known is None else known[:budget]
    drawn = sample_cross_pairs(
        run.project_id,
        sampler,
        budget=budget - len(known),
        seed=run.seed,
        round_number=round_number,
        query_ids=query_ids,
        pending=pending_pairs(query_ids, across=True),
    )
    pairs = np.concatenate([known, drawn])
    _store_tasks(run, judges, {None: pairs} if len(pairs) else {}, round_number=round_number, panel=panel)


def _lock_project(project_id: int) -> None:
    """Let one planner of a project at a time through until the transaction ends: two would draw the same pairs."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('zelo.plan'), %s)", [project_id])


def _joined(known: PairsOfQueries, drawn: PairsOfQueries) -> PairsOfQueries:
    return {
        query: np.concatenate([pairs[query] for pairs in (known, drawn) if query in pairs])
        for query in sorted(known.keys() | drawn.keys())
    }


# With an offset PostgreSQL looks each of these few pairs up; without, it may scan the tasks or answers of the whole project.
_PENDING = """
SELECT pair.id FROM labeling_pair pair
WHERE {which} AND EXISTS (SELECT 1 FROM workers_judgingtask task WHERE task.pair_id = pair.id OFFSET 0)
"""

# Which pairs are meant: those within queries, or those between two of them.
_WITHIN = "pair.query_id = ANY(%(queries)s)"
_OF_QUERIES = "SELECT candidate.id FROM labeling_candidate candidate WHERE candidate.query_id = ANY(%(queries)s)"
_ACROSS = f"pair.query_id IS NULL AND pair.a_id IN ({_OF_QUERIES}) AND pair.b_id IN ({_OF_QUERIES})"


def pending_pairs(query_ids: list[int], *, across: bool = False) -> list[int]:
    """Pairs of these queries that have a task, for any judge."""
    with connection.cursor() as cursor:
        cursor.execute(_PENDING.format(which=_ACROSS if across else _WITHIN), {"queries": query_ids})
        return [row[0] for row in cursor.fetchall()]


# A task of a run that has ended is nobody's: it counts as not asked, and is taken over.
_UNASKED = """
WITH asked AS (
    SELECT pair_id, annotator_id, swapped FROM labeling_live_judgment
    UNION ALL
    SELECT task.pair_id, task.annotator_id, task.swapped
    FROM workers_judgingtask task JOIN workers_run run ON run.id = task.run_id
    WHERE run.state IN ('planned', 'judging', 'paused')
)
SELECT COALESCE(pair.query_id, 0), pair.a_id, pair.b_id FROM labeling_pair pair
WHERE {which}
  AND (EXISTS (SELECT 1 FROM labeling_live_judgment judgment WHERE judgment.pair_id = pair.id OFFSET 0)
       OR EXISTS (SELECT 1 FROM workers_judgingtask task WHERE task.pair_id = pair.id OFFSET 0))
  AND (SELECT count(*) FROM unnest(%(judges)s::bigint[]) AS judge CROSS JOIN unnest(%(orders)s::boolean[]) AS side
       WHERE NOT EXISTS (SELECT 1 FROM asked WHERE asked.pair_id = pair.id AND asked.annotator_id = judge
                         AND (asked.swapped = side OR NOT %(both)s))) >= %(enough)s
ORDER BY pair.query_id, pair.id
"""


def _unasked_pairs(
    run: Run, judges: Sequence[int], query_ids: list[int], *, across: bool = False
) -> dict[int, IntArray]:
    """Pairs in use of which a judge of this run still owes an answer; with one judge a pair, of which all of them do.

    By query; those across queries under 0.
    """
    both = run.orders == Run.Orders.BOTH
    orders = [False, True] if both else [False]
    enough = len(judges) * len(orders) if run.allocation in ONE_JUDGE_A_PAIR else 1
    with connection.cursor() as cursor:
        cursor.execute(
            _UNASKED.format(which=_ACROSS if across else _WITHIN),
            {"queries": query_ids, "judges": list(judges), "orders": orders, "both": both, "enough": enough},
        )
        rows = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 3)
    return {int(query): rows[rows[:, 0] == query, 1:] for query in np.unique(rows[:, 0])}


_ASKED = """
SELECT pair.a_id, pair.b_id FROM labeling_pair pair WHERE pair.query_id = ANY(%(queries)s) AND (
    EXISTS (SELECT 1 FROM workers_judgingtask task WHERE task.pair_id = pair.id AND task.run_id = %(run)s)
    OR EXISTS (SELECT 1 FROM labeling_live_judgment answer WHERE answer.pair_id = pair.id
               AND answer.annotator_id = ANY(%(judges)s) AND answer.created_at >= %(since)s))
"""


def named_pairs_left(run: Run, sampler: Sampler, query_ids: Sequence[int]) -> dict[int, IntArray]:
    """The named pairs of these queries that the run has not asked yet, candidate ids int64[m, 2] by query."""
    judges = list(run.judges.values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(_ASKED, {"queries": list(query_ids), "run": run.pk, "judges": judges, "since": run.created_at})
        asked = set(cursor.fetchall())
    chosen = set(query_ids)
    known = by_query(run.project, pairs_of(sampler), skip_unknown=True)
    left = {query: [pair for pair in own if pair not in asked] for query, own in known.items() if query in chosen}
    return {query: np.array(own, dtype=np.int64).reshape(-1, 2) for query, own in left.items()}


_WANTED = """
WITH wanted AS (
    SELECT pair_id, annotator_id, swapped, documents::bigint[], position
    FROM unnest(%(pairs)s::bigint[], %(judges)s::bigint[], %(sides)s::boolean[], %(documents)s::text[]) WITH ORDINALITY
        AS task (pair_id, annotator_id, swapped, documents, position)
)
"""

_TAKE_OVER = f"""{_WANTED}, taken AS (
    UPDATE workers_judgingtask task
    SET run_id = %(run)s, reason = '', message = '', next_at = clock_timestamp(),
        state = CASE task.state WHEN 'leased' THEN 'leased' ELSE 'open' END,
        attempts = CASE task.state WHEN 'leased' THEN task.attempts ELSE 0 END,
        documents = CASE task.state WHEN 'leased' THEN task.documents ELSE wanted.documents END
    FROM wanted, workers_run run
    WHERE task.pair_id = wanted.pair_id AND task.annotator_id = wanted.annotator_id
      AND (task.swapped = wanted.swapped OR NOT %(both)s)
      AND run.id = task.run_id AND run.state IN ('finished', 'cancelled', 'failed')
    RETURNING task.pair_id, run.id AS before
), left_behind AS (
    UPDATE workers_run run SET tasks_planned = run.tasks_planned - lost.count
    FROM (SELECT before, count(*) FROM taken GROUP BY before) lost WHERE run.id = lost.before
)
SELECT pair_id FROM taken
"""

_INSERT = f"""{_WANTED}, added AS (
    INSERT INTO workers_judgingtask (run_id, pair_id, annotator_id, swapped, documents, state, fence, leased_by,
                                     attempts, reason, message)
    SELECT %(run)s, pair_id, annotator_id, swapped, documents, 'open', 0, '', 0, '', '' FROM wanted
    WHERE NOT EXISTS (
        SELECT 1 FROM labeling_live_judgment judgment
        WHERE judgment.pair_id = wanted.pair_id AND judgment.annotator_id = wanted.annotator_id
          AND (judgment.swapped = wanted.swapped OR NOT %(both)s)
    ) AND NOT EXISTS (
        SELECT 1 FROM workers_judgingtask task
        WHERE task.pair_id = wanted.pair_id AND task.annotator_id = wanted.annotator_id
          AND (task.swapped = wanted.swapped OR NOT %(both)s)
    )
    ORDER BY position
    ON CONFLICT DO NOTHING
    RETURNING pair_id
)
SELECT pair_id FROM added
"""

_INSERT_NEW = f"""{_WANTED}
INSERT INTO workers_judgingtask (run_id, pair_id, annotator_id, swapped, state, fence, leased_by, attempts, reason, message)
SELECT %(run)s, pair_id, annotator_id, swapped, 'open', 0, '', 0, '', '' FROM wanted ORDER BY position
"""


def _store_tasks(
    run: Run,
    judges: Sequence[int],
    chosen: Mapping[int, IntArray] | Mapping[None, IntArray],
    *,
    round_number: int,
    recorded: RecordedPairs | None = None,
    panel: PanelTerms | None = None,
) -> None:
    """Store the chosen pairs (by query, or under None across queries) and a task for each judge; answered questions get no
    task.
    """
    if not any(map(len, chosen.values())):
        return
    pairs = np.concatenate(list(chosen.values()))
    owners = np.repeat([query or 0 for query in chosen], [len(each) for each in chosen.values()]).astype(np.int64)
    stored = store_drawn_pairs(pairs, owners)
    rng = np.random.default_rng([run.seed, round_number, int(owners[0]), 1])
    which, judge, swapped = _questions(run, pairs, judges, rng, recorded=recorded, panel=panel)
    asked = ask(run, stored.ids[which], np.array(judges)[judge], swapped, are_new=stored.are_new)
    Run.objects.filter(pk=run.pk).update(pairs_planned=F("pairs_planned") + len(np.unique(asked)))


def _store_set_tasks(
    run: Run,
    judges: Sequence[int],
    chosen: Mapping[int, IntArray],
    *,
    round_number: int,
    panel: PanelTerms | None = None,
) -> None:
    """As `_store_tasks`, for sets of documents: one task for each judge that is asked about a set."""
    if not chosen:
        return
    planned = store_sets(dict(chosen))
    rng = np.random.default_rng([run.seed, round_number, next(iter(chosen)), 1])
    which, judge, swapped = _questions(run, planned.ends, judges, rng, panel=panel)
    documents = planned.shown(which, judge, swapped, rng)
    asked = ask(run, planned.leads[which], np.array(judges)[judge], swapped, documents=documents)
    added = int(planned.worth[np.isin(planned.leads, asked)].sum())
    Run.objects.filter(pk=run.pk).update(pairs_planned=F("pairs_planned") + added)


def ask(
    run: Run,
    pairs: IntArray,
    judges: IntArray,
    sides: BoolArray,
    *,
    documents: Sequence[Sequence[int]] | None = None,
    are_new: bool = False,
) -> IntArray:
    """Store a task for each new question (pair int64[t], judge int64[t], whether swapped bool[t]); returns their pairs.

    `documents`: for a question about a set, its candidates in the order in which they are shown; empty for a pair. `are_new`: this
    transaction made the pairs, so that nobody has been asked about them.
    """
    sets = None if documents is None else [f"{{{','.join(map(str, each))}}}" if each else None for each in documents]
    wanted: dict[str, Any] = {"run": run.pk, "pairs": pairs, "judges": judges, "sides": sides, "documents": sets}
    with array_cursor() as cursor:
        if are_new and sets is None:
            cursor.execute(_INSERT_NEW, wanted)
            asked = pairs
        else:
            found: list[int] = []
            for statement in (_TAKE_OVER, _INSERT):
                cursor.execute(statement, wanted | {"both": run.orders == Run.Orders.BOTH}, binary=True)
                found += [row[0] for row in cursor.fetchall()]
            asked = np.array(found, dtype=np.int64)
    Run.objects.filter(pk=run.pk).update(tasks_planned=F("tasks_planned") + len(asked))
    return asked


def _questions(
    run: Run,
    pairs: IntArray,
    judges: Sequence[int],
    rng: np.random.Generator,
    *,
    recorded: RecordedPairs | None = None,
    panel: PanelTerms | None = None,
) -> tuple[IntArray, IntArray, BoolArray]:
    """Row of `pairs`, judge and side of every question: one for each judge asked, or two where both orders are."""
    # A cascade asks its first judge alone about everything; `workers.runs.cascade` asks the others later.
    mode = Run.Allocation.ALL if run.allocation == Run.Allocation.CASCADE else run.allocation
    able = None if recorded is None else recorded.able(pairs)
    if panel is not None:
        which, judge, swapped = judge_choice.choose(pairs, judges, panel, rng, able=able)
    else:
        which, judge, swapped = allocate(
            pairs, judges=len(judges), mode=mode, rng=rng, offset=run.pairs_planned, able=able
        )
    if recorded is not None:
        swapped = recorded.sides(pairs[which], judge, swapped)
    if run.orders == Run.Orders.BOTH:
        sides = np.stack([swapped, ~swapped], axis=1).ravel()
        return np.repeat(which, 2), np.repeat(judge, 2), sides
    return which, judge, swapped
