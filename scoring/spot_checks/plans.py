"""Plans spot checks: draws pairs for a reason and opens slots, or sets gold answers.

A plan draws its pairs with `scoring.spot_checks.draws`, stores new ones and opens slots.
`labeling.annotation.actions` assigns the slots to people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Q
from django.db.models.functions import Now

from labeling import audit
from labeling.annotation.assignments import close_assignments, open_assignments
from labeling.models import GoldAnswer, Pair, Project, SpotCheck
from labeling.pairs import store_pairs
from scoring.models import SpotCheckPlan
from scoring.same_texts import same_texts
from scoring.spot_checks.draws import REMEDIES, DrawnPair, NothingToAsk, draw_pairs

Reason = SpotCheck.Reason

# The assumed time per pair before any measurement.
ASSUMED_SECONDS = 15.0
TIMED = 2_000


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview of a plan. `hours` of people's time at `seconds` per pair; `measured`: timed here, else assumed."""

    pairs: int
    wanted: int
    slots: int
    seconds: float
    measured: bool

    @property
    def total_seconds(self) -> float:
        return self.slots * self.seconds

    @property
    def hours(self) -> float:
        return self.total_seconds / 3600.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A stored plan: `pairs` found of the `wanted` number, with `slots` opened on them."""

    plan: SpotCheckPlan
    pairs: int
    wanted: int
    slots: int


@dataclass(frozen=True, slots=True)
class PlanProgress:
    """The progress of a plan.

    For a gold plan `asked` counts its pairs and `answered` the answers to them. For a withdrawn plan `asked` counts only
    slots that have or may still get an answer. `open` slots are available to anybody.
    """

    plan: SpotCheckPlan
    asked: int
    answered: int
    under_way: int
    open: int

    @property
    def left(self) -> int:
        return max(0, self.asked - self.answered)

    @property
    def can_be_withdrawn(self) -> bool:
        return bool(self.open) or (self.is_gold and self.plan.withdrawn_at is None)

    @property
    def is_gold(self) -> bool:
        return self.plan.reason == Reason.GOLD


def plan_spot_checks(
    project: Project, *, reason: str, pairs: int, overlap: int = 1, seed: int = 0, by: Any = None
) -> Planned:
    """Draw up to `pairs` pairs and open `overlap` slots on each; for gold, set their gold answers instead.

    Raises BadPlan, and NothingToAsk if no pair fits. Concurrent plans never open a slot twice.
    """
    drawn = _of_two_texts(draw_pairs(project, reason=reason, pairs=pairs, overlap=overlap, seed=seed))
    if not drawn:
        raise NothingToAsk(REMEDIES[Reason(reason)])
    return _plan(project, drawn, reason=reason, pairs=pairs, overlap=overlap, seed=seed, by=by)


def open_pairs(
    project: Project, pairs: Sequence[tuple[int, int, int]], *, reason: str, seed: int = 0, by: Any = None
) -> Planned:
    """Open a slot on each of these pairs (candidate a < b, query), for a plan whose pairs something else has chosen.

    Raises NothingToAsk if all of them are planned already.
    """
    drawn = _of_two_texts([DrawnPair(*pair) for pair in pairs])
    return _plan(project, drawn, reason=reason, pairs=len(drawn), overlap=1, seed=seed, by=by)


def ask_person(project: Project, pair: Pair, *, by: Any = None) -> Planned:
    """Open a slot for one more person on the pair. Raises NothingToAsk while a slot of it is open already."""
    slots = SpotCheck.objects.filter(pair=pair, slot__isnull=False)
    if slots.filter(judgment__isnull=True).exists():
        raise NothingToAsk("this pair is already waiting for a person")
    answered = slots.count()
    drawn = [DrawnPair(pair.a_id, pair.b_id, pair.query_id)]
    reason = Reason.DISAGREEMENT if pair.query_id else Reason.CROSS_QUERY
    return _plan(project, drawn, reason=reason, pairs=1, overlap=answered + 1, seed=0, by=by)


def _plan(
    project: Project, drawn: list[DrawnPair], *, reason: str, pairs: int, overlap: int, seed: int, by: Any
) -> Planned:
    with transaction.atomic():
        # Plans of the same project run one after another.
        Project.objects.select_for_update(of=("self",), no_key=True).get(pk=project.pk)
        plan = SpotCheckPlan.objects.create(
            project=project,
            reason=reason,
            wanted=pairs,
            pairs=len(drawn),
            overlap=1 if reason == Reason.GOLD else overlap,
            seed=seed,
            created_by=by if getattr(by, "is_authenticated", False) else None,
        )
        pair_ids = _stored(drawn)
        slots = (
            _open_gold(plan, drawn, pair_ids) if reason == Reason.GOLD else _open_assignments(plan, pair_ids, overlap)
        )
        if not slots:
            raise NothingToAsk("these pairs have just been planned by somebody else; plan again")
        _note("spot_checks.planned", plan, by, pairs=len(drawn), slots=slots)
        if reason == Reason.GOLD:
            _note("pair.gold", plan, by, pairs=slots)
    return Planned(plan, len(drawn), pairs, slots)


def _of_two_texts(drawn: list[DrawnPair]) -> list[DrawnPair]:
    """Leave out pairs of one query whose texts are equal: the fit already counts them as one item, so a tie is known."""
    queries = sorted({each.query for each in drawn if each.query is not None})
    first = {int(candidate): int(same) for _, candidate, same in same_texts(queries)}
    return [each for each in drawn if each.query is None or first.get(each.a, each.a) != first.get(each.b, each.b)]


def preview_spot_checks(project: Project, *, reason: str, pairs: int, overlap: int = 1, seed: int = 0) -> Preview:
    """Return what `plan_spot_checks` would do, with the time that people would need."""
    found = len(_of_two_texts(draw_pairs(project, reason=reason, pairs=pairs, overlap=overlap, seed=seed)))
    seconds = seconds_a_pair(project)
    slots = found if reason == Reason.GOLD else found * overlap
    return Preview(found, pairs, slots, ASSUMED_SECONDS if seconds is None else seconds, seconds is not None)


def withdraw_plan(plan: SpotCheckPlan, *, by: Any = None) -> int:
    """Ask nobody new what the plan asked; of how many slots that holds from now on.

    Answers stay, and people can still answer the pairs that they have leased
    (`labeling.annotation.assignments.close_assignments`). An assignment that somebody is claiming at this moment stays;
    withdrawing again finds it. The gold pairs of the plan stop being gold, and answers to them stay.
    """
    with transaction.atomic():
        gone = close_assignments(list(plan.checks.filter(judgment__isnull=True).values_list("id", flat=True)))
        gone += GoldAnswer.objects.filter(plans=plan).delete()[1].get("labeling.GoldAnswer", 0)
        is_first = SpotCheckPlan.objects.filter(pk=plan.pk, withdrawn_at__isnull=True).update(withdrawn_at=Now()) == 1
        if gone or is_first:
            _note("spot_checks.withdrawn", plan, by, slots=gone)
        if gone and plan.reason == Reason.GOLD:
            _note("pair.gold_removed", plan, by, pairs=gone)
    return gone


def _note(action: str, plan: SpotCheckPlan, by: Any, **details: Any) -> None:
    audit.note(action, project=plan.project, actor=by, subject=plan.reason, plan=plan.pk, **details)


def plan_progress(project: Project) -> list[PlanProgress]:
    """Return every plan of the project, newest first."""
    unanswered = Q(checks__judgment__isnull=True)
    held = unanswered & Q(checks__lease_until__gt=Now())
    open_to_all = unanswered & Q(checks__slot__isnull=False)
    plans = SpotCheckPlan.objects.filter(project=project).annotate(
        slots=Count("checks"),
        done=Count("checks", filter=~unanswered),
        held=Count("checks", filter=held),
        open=Count("checks", filter=open_to_all),
        still=Count("checks", filter=held | open_to_all),
    )
    gold = _gold_counts(project)
    return [
        PlanProgress(plan, *gold.get(plan.pk, (0, 0)), 0, 0)
        if plan.reason == Reason.GOLD
        else PlanProgress(
            plan,
            plan.slots if plan.withdrawn_at is None else plan.done + plan.still,
            plan.done,
            plan.held,
            plan.open,
        )
        for plan in plans
    ]


def seconds_a_pair(project: Project) -> float | None:
    """Return the median time of people's latest answers in the project; None before any measurement."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM (SELECT seconds FROM labeling_spotcheck "
            "WHERE project_id = %s AND seconds IS NOT NULL ORDER BY id DESC LIMIT %s) latest",
            [project.pk, TIMED],
        )
        found = cursor.fetchone()[0]
    return None if found is None else float(found)


# --- storing -----------------------------------------------------------------------------


def _stored(drawn: list[DrawnPair]) -> list[int]:
    return store_pairs([each.a for each in drawn], [each.b for each in drawn], [each.query for each in drawn])


def _open_assignments(plan: SpotCheckPlan, pair_ids: list[int], overlap: int) -> int:
    """As many slots on each pair as people shall judge it; how many are new."""
    before = set(SpotCheck.objects.filter(pair_id__in=pair_ids).values_list("id", flat=True))
    open_assignments(pair_ids, reason=plan.reason, overlap=overlap)
    made = SpotCheck.objects.filter(pair_id__in=pair_ids, slot__isnull=False, reason=plan.reason)
    return _attach(plan, [each for each in made.order_by("id").values_list("id", flat=True) if each not in before])


def _open_gold(plan: SpotCheckPlan, drawn: list[DrawnPair], pair_ids: list[int]) -> int:
    """Set gold answers of the pairs; existing gold answers stay unchanged.

    They get no explanation, since the instruction page shows explained pairs as examples and would reveal the answer.
    """
    known = set(GoldAnswer.objects.filter(pair_id__in=pair_ids).values_list("pair_id", flat=True))
    rows = [
        GoldAnswer(project_id=plan.project_id, pair_id=pair, preference=each.gold)
        for pair, each in zip(pair_ids, drawn, strict=True)
        if pair not in known and each.gold is not None
    ]
    made = GoldAnswer.objects.bulk_create(rows, batch_size=2000)
    plan.gold.add(*made)
    return len(made)


def _attach(plan: SpotCheckPlan, check_ids: list[int]) -> int:
    through = SpotCheckPlan.checks.through
    through.objects.bulk_create(
        [through(spotcheckplan_id=plan.pk, spotcheck_id=each) for each in check_ids], batch_size=2000
    )
    return len(check_ids)


_GOLD = """
SELECT link.spotcheckplan_id, count(DISTINCT gold.id), count(asked.judgment_id) FROM scoring_spotcheckplan_gold link
JOIN labeling_goldanswer gold ON gold.id = link.goldanswer_id
LEFT JOIN labeling_spotcheck asked ON asked.pair_id = gold.pair_id AND asked.reason = 'gold' AND asked.slot IS NULL
WHERE gold.project_id = %s GROUP BY 1
"""


def _gold_counts(project: Project) -> dict[int, tuple[int, int]]:
    """Return (gold pairs, people's answers to them) by plan, for plans with gold."""
    with connection.cursor() as cursor:
        cursor.execute(_GOLD, [project.pk])
        return {plan: (pairs, answers) for plan, pairs, answers in cursor.fetchall()}
