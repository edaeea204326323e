"""Running totals of what was spent: equal to the attempts they stand for, whatever happened and whoever did it at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Count, Q, Sum

from labeling.records import Failure, FailureKind, Usage, Verdict
from tests.factories.rows import make_probe, make_tasks
from workers.budgets.spend import JudgeSpend, spend_of_project, spend_of_run, totals_of_project, totals_of_run
from workers.judging import queue
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, Run, Spend

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

ANSWERED = Q(outcome__in=["preference", "both_irrelevant", "cannot_judge"])


def added_up(run_id: int) -> dict[int, tuple[Any, ...]]:
    """The books as the attempts themselves tell them."""
    rows = Attempt.objects.filter(run_id=run_id).order_by().values("annotator_id")
    rows = rows.annotate(
        calls=Count("pk"),
        in_flight=Count("pk", filter=Q(outcome="")),
        lost=Count("pk", filter=Q(outcome="lost")),
        tokens=Sum("input_tokens") + Sum("output_tokens"),
        cost=Sum("cost_micros"),
        answers=Count("pk", filter=ANSWERED),
        answer_cost=Sum("cost_micros", filter=ANSWERED),
    )
    return {
        row["annotator_id"]: (
            row["calls"], row["in_flight"], row["lost"], row["tokens"], row["cost"],
            round(row["answer_cost"] / row["answers"], 6) if row["answers"] else None,
        )
        for row in rows
    }  # fmt: skip


def told(books: dict[int, JudgeSpend]) -> dict[int, tuple[Any, ...]]:
    return {
        judge: (
            each.calls,
            each.in_flight,
            each.lost,
            each.tokens,
            each.cost_micros,
            None if each.cost_a_call is None else round(each.cost_a_call, 6),
        )
        for judge, each in books.items()
        if each.calls
    }


def claim(annotator_id: int, limit: int, *, lease_s: float = 60.0) -> list[ClaimedTask]:
    return queue.claim(annotator_id=annotator_id, worker="w@host:1", limit=limit, lease_s=lease_s)


def bring_to_an_end(claimed: list[ClaimedTask], rng: random.Random) -> None:
    """Answers, failures, releases, and silence, in a random mixture."""
    for task in claimed:
        usage = Usage(rng.randrange(500), rng.randrange(50), rng.randrange(90))
        end = rng.randrange(4)
        if end == 0:
            queue.finish([(task, Verdict(0.6, usage=usage))])
        elif end == 1:
            queue.fail([(task, Failure(FailureKind.UNPARSEABLE, "?", retryable=True, usage=usage))])
        elif end == 2:
            queue.release([task])


@pytest.mark.parametrize("seed", range(3))
def test_books_are_the_sum_of_the_attempts_after_anything(seed: int) -> None:
    rng = random.Random(seed)
    tasks = make_tasks(30, judges=2)
    judges = sorted({task.annotator_id for task in tasks})
    for _ in range(6):
        for judge in judges:
            bring_to_an_end(claim(judge, 5, lease_s=rng.choice([60.0, -1.0])), rng)
        queue.reap()
        assert told(spend_of_run(tasks[0].run_id)) == added_up(tasks[0].run_id)


def test_books_hold_under_workers_that_write_at_the_same_time() -> None:
    tasks = make_tasks(120)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while claimed := claim(tasks[0].annotator_id, 6):
            bring_to_an_end(claimed, rng)
        connection.close()

    with ThreadPoolExecutor(6) as workers:
        list(workers.map(work, range(6)))
    assert told(spend_of_run(tasks[0].run_id)) == added_up(tasks[0].run_id)
    assert Spend.objects.count() > 1, "each connection has rows of its own"


def test_what_is_rolled_back_was_never_spent() -> None:
    (task,) = make_tasks()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        claim(task.annotator_id, 1)
        raise ZeroDivisionError
    assert told(spend_of_run(task.run_id)) == {}


def test_books_go_with_their_run() -> None:
    (task,) = make_tasks()
    claim(task.annotator_id, 1)
    Run.objects.get(pk=task.run_id).delete()
    assert not Spend.objects.exists() and not Attempt.objects.exists()


def test_probes_are_in_the_books_of_the_project() -> None:
    (task,) = make_tasks()
    (claimed,) = claim(task.annotator_id, 1)
    queue.finish([(claimed, Verdict(0.6, usage=Usage(100, 10, 40)))])
    project = task.run.project
    make_probe(task.annotator, calls=7, input_tokens=70, output_tokens=7, cost_micros=5)
    totals = totals_of_project(project.pk)
    assert (totals.calls, totals.input_tokens, totals.output_tokens, totals.cost_micros) == (8, 170, 17, 45)
    assert totals_of_run(task.run_id).calls == 1
    assert spend_of_project(project.pk)[0].calls == 7
