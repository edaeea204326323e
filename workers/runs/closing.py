"""Says how a run ends that has nothing left to ask: a run without the answers of a judge is not complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count

from labeling.models import Annotator
from labeling.records import FailureKind
from labeling.stored_texts import StoredText, stored_text
from workers.budgets.spend import spend_of_run
from workers.judging.failures import MEANINGS
from workers.judging.pausing import retired_judges
from workers.judging.trouble import troubled_judges
from workers.models import Attempt, JudgeTrouble, JudgingTask, Run

WITHOUT = stored_text("finished without answers of %(judges)s; most frequent failure: %(message)s (%(label)s)")
PARTLY = stored_text("finished without all answers of %(judges)s; most frequent failure: %(message)s (%(label)s)")
LONGEST_MESSAGE = 600


WITHOUT_RETIRED = "it is retired; bring it back, then start another run"


@dataclass(frozen=True, slots=True)
class Closing:
    """The state and the reason with which a run ends; `failed` where no judge answered anything."""

    state: str
    reason: StoredText


@dataclass(frozen=True, slots=True)
class FrequentFailure:
    """The most frequent failure of some calls: its kind, the latest message of that kind, and how often it came."""

    kind: FailureKind
    message: str
    count: int


def closing_of(run: Run) -> Closing | None:
    """The end of a run without the answers of some judges; None if every judge answered."""
    spent = spend_of_run(run.pk)
    in_trouble = sorted({*troubled_judges(run), *retired_judges(run)})
    dead = JudgingTask.objects.filter(run=run, state=JudgingTask.State.DEAD).order_by()
    failed = set(dead.values_list("annotator_id", flat=True).distinct())
    answers = {judge: spend.answers for judge, spend in spent.items()}
    silent = [judge for judge in sorted({*in_trouble, *failed}) if not answers.get(judge)]
    partly = [judge for judge in in_trouble if answers.get(judge)]
    if not silent and not partly:
        return None
    state = Run.State.FINISHED if any(answers.values()) else Run.State.FAILED
    return Closing(state, _reason(run, WITHOUT if silent else PARTLY, silent or partly))


def _reason(run: Run, sentence: StoredText, judges: Sequence[int]) -> StoredText:
    names = Annotator.objects.filter(pk__in=judges).order_by("id").values_list("name", flat=True)
    found = frequent_failure(run, judges)
    meaning = MEANINGS[found.kind]
    return sentence % {
        "judges": ", ".join(names),
        "message": found.message[:LONGEST_MESSAGE] or meaning.label,
        "label": meaning.label,
    }


def frequent_failure(run: Run, judges: Sequence[int] | None = None) -> FrequentFailure:
    """The most frequent failure of the run's calls, to some of its judges or to all."""
    calls = Attempt.objects.filter(run=run, outcome__in=list(FailureKind))
    if judges is not None:
        calls = calls.filter(annotator__in=list(judges))
    row = calls.order_by().values("outcome").annotate(number=Count("pk")).order_by("-number", "outcome").first()
    if row is None:
        return _failure_without_calls(run, judges)
    latest = calls.filter(outcome=row["outcome"]).order_by("-finished_at", "-id").first()
    return FrequentFailure(FailureKind(row["outcome"]), latest.message if latest else "", row["number"])


def _failure_without_calls(run: Run, judges: Sequence[int] | None) -> FrequentFailure:
    """The failure where no call failed: workers crashed on every question, or the judges were in trouble before the run."""
    dead = JudgingTask.objects.filter(run=run, state=JudgingTask.State.DEAD).order_by("id").first()
    found = dead or JudgeTrouble.objects.filter(annotator__in=list(judges or ())).first()
    if found is None:
        message = WITHOUT_RETIRED if judges is not None and retired_judges(run) else ""
        return FrequentFailure(FailureKind.JUDGE_ERROR, message, 0)
    return FrequentFailure(FailureKind(found.reason), found.message, 0)
