"""The scorecard of each judge: accuracy, consistency, biases, speed and cost, each with its interval.

Over a judge's latest answers (`scoring.annotators.known_answers`), so that a page stays quick however much was judged. Read by the page
and the REST interface.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from django.db import connection

from labeling.models import Annotator, Project
from labeling.records import FailureKind
from scoring.annotators.known_answers import RECENT_ANSWERS, JudgeAnswers, judge_answers
from scoring.models import JudgeFit
from scoring.numerics.judges.judge_checks import (
    Z95,
    Estimate,
    intransitive_triples,
    length_bias,
    logit,
    mean,
    order_flips,
    ratio,
    same_side,
    share,
)
from scoring.numerics.measures.sides import side
from workers.judging.drift import known_drift
from workers.monitoring.query_figures import spend_per_answer

RECENT_CALLS = 5_000
# The batch of the oldest of them is looked for among so many calls: the planner reads the index to a limit, else the whole table.
BATCH_CALLS = 50_000


@dataclass(frozen=True, slots=True)
class Calls:
    """Latency and cost of the calls to a judge. Latency in seconds over the latest calls; cost in millionths of a dollar.

    `failed` is the share of the latest calls that brought no answer; `cost_each_micros` is the cost of one of all answers.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    latency_p50: float | None
    latency_p95: float | None
    failed: Estimate | None
    cost_each_micros: float | None = None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """One judge. Shares in [0, 1]; None where there is nothing to measure on. `answers` are its latest, of every kind.

    `gold`, `people`, `agreement`: share of pairs on which it takes the side of the gold answers, of the people, of
    the other judges' mean. `flips`: pairs asked in both orders whose winner changed. `position`: mean preference for
    what was shown first, less one half. `length`: logits for each factor e in length, beyond what gold (or, without
    it, the other judges) says. `cycles`: of the triples, those in which each beats the next. `call_correlation`: how strongly
    the errors of one call are correlated, for judges whose calls give several preferences; it decides their weight.
    """

    annotator_id: int
    name: str
    plugin: str
    paused_at: datetime | None
    retired_at: datetime | None
    pause_reason: str
    answers: int
    gold: Estimate | None
    people: Estimate | None
    agreement: Estimate | None
    flips: Estimate | None
    position: Estimate | None
    length: Estimate | None
    cycles: Estimate | None
    call_correlation: Estimate | None
    drift: float | None
    calls: Calls

    @property
    def cost_each_micros(self) -> int | None:
        """Cost of an answer, in millionths of a dollar."""
        return round(self.calls.cost_each_micros) if self.calls.cost_each_micros else None

    def with_state(self, judge: Annotator) -> Scorecard:
        """The card with the state that its judge has now."""
        return replace(self, paused_at=judge.paused_at, retired_at=judge.retired_at, pause_reason=judge.pause_reason)


def scorecards(project: Project) -> list[Scorecard]:
    """The scorecard of every judge that was asked anything, in the order of their ids."""
    judges = Annotator.objects.judges().filter(project=project).order_by("id")
    cards = (scorecard(judge) for judge in judges)
    return [card for card in cards if card.answers or card.calls.calls]


def scorecard(judge: Annotator) -> Scorecard:
    """The card of one judge, read now."""
    answers = judge_answers(judge)
    preference, first_row = _by_pair(answers)
    shown_first = np.where(answers.swapped, 1.0 - answers.preference, answers.preference)
    watched = known_drift(judge)
    return Scorecard(
        annotator_id=judge.pk,
        name=judge.name,
        plugin=judge.plugin,
        paused_at=judge.paused_at,
        retired_at=judge.retired_at,
        pause_reason=judge.pause_reason,
        answers=_answered(judge),
        gold=same_side(preference, _sides_known(answers)[first_row]),
        people=same_side(preference, answers.people[first_row]),
        agreement=same_side(preference, answers.others[first_row]),
        flips=order_flips(answers.pair, answers.swapped, answers.preference),
        position=mean(shown_first - 0.5),
        length=length_bias(
            answers.preference, _deserved(answers), answers.longer, np.where(answers.swapped, -1.0, 1.0)
        ),
        cycles=_cycles(answers, preference, first_row),
        call_correlation=_call_correlation(judge),
        drift=None if watched is None else float(watched.statistic.max()) / watched.threshold,
        calls=_calls(judge),
    )


def _call_correlation(judge: Annotator) -> Estimate | None:
    """The correlation that the latest fit of the project measured; None before it did, and for judges of pairs."""
    fit = JudgeFit.objects.filter(annotator=judge, call_correlation__isnull=False).first()
    if fit is None or fit.call_correlation is None:
        return None
    half = Z95 * (fit.call_correlation_stderr or 0.0)
    return Estimate(fit.call_correlation, fit.call_correlation - half, fit.call_correlation + half, fit.calls)


def _by_pair(answers: JudgeAnswers) -> tuple[np.ndarray, np.ndarray]:
    """(mean preference over both orders, a row) of each distinct pair."""
    pair, first_row, of_pair = np.unique(answers.pair, return_index=True, return_inverse=True)
    counts = np.maximum(np.bincount(of_pair, minlength=len(pair)), 1)
    return np.bincount(of_pair, weights=answers.preference, minlength=len(pair)) / counts, first_row


def _sides_known(answers: JudgeAnswers) -> np.ndarray:
    """The known answers that take a side, else NaN: equal grades say nothing about a judge that prefers one of the two."""
    return np.where(side(answers.gold) != 0.0, answers.gold, np.nan)


def _deserved(answers: JudgeAnswers) -> np.ndarray:
    """The target of each answer: the side of the gold answer where there are enough, else the others' logit."""
    if np.isfinite(answers.gold).sum() >= 100:
        return side(answers.gold)
    return np.where(np.isfinite(answers.others), logit(np.nan_to_num(answers.others, nan=0.5)), np.nan)


def _cycles(answers: JudgeAnswers, preference: np.ndarray, first_row: np.ndarray) -> Estimate | None:
    queries = answers.query[first_row]
    found = []
    for query in np.unique(queries[queries > 0]):
        mine = queries == query
        ends = np.stack([answers.a[first_row][mine], answers.b[first_row][mine]])
        known, local = np.unique(ends, return_inverse=True)
        a, b = local.reshape(ends.shape)
        found.append(intransitive_triples(a, b, preference[mine], len(known)))
    if not found:
        return None
    counts = np.array(found, dtype=np.int64)
    return ratio(counts[:, 0], counts[:, 1], np.random.default_rng(0))


_ANSWERED = """
SELECT count(*) FROM (SELECT 1 FROM labeling_live_judgment WHERE annotator_id = %s ORDER BY id DESC LIMIT %s) latest
"""


def _answered(judge: Annotator) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERED, [judge.pk, RECENT_ANSWERS])
        return int(cursor.fetchone()[0])


_SPENT = """
SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(input_tokens), 0)::bigint, COALESCE(sum(output_tokens), 0)::bigint,
       COALESCE(sum(cost_micros), 0)::bigint
FROM workers_spend WHERE annotator_id = %s
"""

# The latest calls of some judges. A judge that measures no calls answers a whole batch at once: its calls start together and
# share the batch's time, also those of them that are not among the latest.
RECENT_CALLS_OF = """
WITH latest AS (
    SELECT judge.id AS judge, called.* FROM unnest(%s::bigint[]) AS judge (id) CROSS JOIN LATERAL (
        SELECT outcome, latency_ms, started_at FROM workers_attempt
        WHERE annotator_id = judge.id AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT %s
    ) called
), oldest AS (
    SELECT judge, min(started_at) AS start FROM latest WHERE latency_ms IS NULL GROUP BY judge
), batch AS (
    SELECT judge, started_at, count(*) AS calls, max(finished_at) AS ended FROM oldest CROSS JOIN LATERAL (
        SELECT started_at, finished_at, latency_ms FROM workers_attempt
        WHERE annotator_id = judge AND finished_at >= start ORDER BY finished_at DESC LIMIT %s
    ) called WHERE latency_ms IS NULL GROUP BY judge, started_at
), recent AS (
    SELECT judge, outcome, COALESCE(latency_ms / 1000.0, EXTRACT(EPOCH FROM ended - started_at) / calls) AS seconds
    FROM latest LEFT JOIN batch USING (judge, started_at)
)
"""
_RECENT = (
    RECENT_CALLS_OF
    + """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds),
       count(*) FILTER (WHERE outcome = ANY(%s)), count(*)
FROM recent
"""
)


def _calls(judge: Annotator) -> Calls:
    failures = [*(kind.value for kind in FailureKind), "lost"]
    with connection.cursor() as cursor:
        cursor.execute(_SPENT, [judge.pk])
        calls, input_tokens, output_tokens, cost = cursor.fetchone()
        cursor.execute(_RECENT, [[judge.pk], RECENT_CALLS, BATCH_CALLS, failures])
        median, late, failed, recent = cursor.fetchone()
    return Calls(
        calls=calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_micros=cost,
        latency_p50=None if median is None else float(median),
        latency_p95=None if late is None else float(late),
        failed=share(failed, recent),
        cost_each_micros=spend_per_answer(judge.project_id, judge=judge.pk).get(judge.pk),
    )
