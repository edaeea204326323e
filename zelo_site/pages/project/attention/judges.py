"""Judges in trouble: paused ones, and those of a run whose endpoint does not work."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Annotator, Project
from labeling.records import FailureKind
from labeling.wording import translated
from workers.endpoints.limiter import EndpointView, endpoint_states
from workers.judging.failures import failed_calls
from workers.models import Attempt, EndpointState, Run
from zelo_site.pages.project.attention.causes import Cause, cause_of, not_by_itself, words_of
from zelo_site.pages.project.attention.needs import Audience, Button, Level, Need

MOST_NAMES = 3
LONGEST_MESSAGE = 300
NOT_WORKING = (EndpointState.Mode.OPEN, EndpointState.Mode.HALF_OPEN, EndpointState.Mode.PAUSED)


def judge_needs(project: Project, run: Run | None) -> list[Need]:
    """Return the paused judges, then the endpoints that judges of an active run wait for."""
    judges = Annotator.objects.offered().filter(project=project, paused_at__isnull=False).select_related("trouble")
    found = [_paused(project, judge) for judge in judges.order_by("pk")]
    if run is None or run.state not in Run.ACTIVE or not EndpointState.objects.filter(_is_failing()).exists():
        return found
    waiting = defaultdict(list)
    states = endpoint_states(project)
    for judge in run.judges.filter(paused_at__isnull=True).order_by("pk"):
        endpoint = _endpoint_of(judge, states)
        if endpoint is not None and (endpoint.state in NOT_WORKING or _fails_now(endpoint)):
            waiting[endpoint.identity].append((judge, endpoint))
    return found + [_waiting(project, [judge for judge, __ in each], each[0][1]) for each in waiting.values()]


def _is_failing() -> Q:
    """Endpoints that do not work, or whose latest calls failed."""
    return ~Q(mode=EndpointState.Mode.CLOSED) | Q(down_since__isnull=False)


def _fails_now(endpoint: EndpointView) -> bool:
    """Whether the latest calls failed, but too few yet to stop all calls."""
    error, answer = endpoint.last_error_at, endpoint.last_answer_at
    return error is not None and (answer is None or answer < error)


def _paused(project: Project, judge: Annotator) -> Need:
    """A judge that nobody asks until somebody resumes it."""
    trouble = getattr(judge, "trouble", None)
    test = _test_button(project, judge)
    if trouble is None:
        scorecard = Button(_("Open scorecard"), reverse("scorecard", args=[project.slug]), audience=Audience.READERS)
        return Need(
            f"paused-{judge.pk}", Level.WARNING, _("%(name)s is paused") % {"name": judge.name},
            what=_("It gets no questions; the run’s other judges continue."), again=not_by_itself(),
            todo=_("See its scorecard, then resume it there, or retire it."),
            message=translated(judge.pause_reason), since=judge.paused_at, buttons=(scorecard, test),
        )  # fmt: skip
    cause = cause_of(trouble.reason, trouble.message)
    words = words_of(cause)
    title = _("%(name)s is paused: its answers fail.") % {"name": judge.name}
    if cause is not Cause.OTHER:
        reason = _("Cause: %(cause)s.") % {"cause": words.title}
        title = f"{title} {reason}"
    resume = Button(
        _("Resume and retry"), reverse("scorecard", args=[project.slug]), {"judge": judge.pk, "action": "retry"},
        key=f"resume-judge-{judge.pk}", is_main=True,
    )  # fmt: skip
    return Need(
        f"trouble-{judge.pk}",
        Level.ERROR,
        title,
        what=words.what if cause in (Cause.GPU_MEMORY, Cause.DISK_FULL) else _("It gets no questions, so failing answers cost nothing; runs end without it."),
        again=not_by_itself(),
        todo=words.todo,
        message=translated(judge.pause_reason),
        since=trouble.since,
        buttons=(resume, test),
        explains=trouble.reason,
    )  # fmt: skip


def _waiting(project: Project, judges: list[Annotator], endpoint: EndpointView) -> Need:
    """An endpoint that does not work, with the judges that wait for it. The message is of this project's own calls."""
    latest = failed_calls(project).filter(annotator__in=judges).first()
    cause = _cause(endpoint, latest)
    words = words_of(cause)
    names = ", ".join(judge.name for judge in judges[:MOST_NAMES])
    if len(judges) > MOST_NAMES:
        names = _("%(names)s and %(n)s more") % {"names": names, "n": len(judges) - MOST_NAMES}
    values = {"endpoint": endpoint.name, "trouble": words.title, "names": names}
    title = ngettext(
        "Endpoint %(endpoint)s: %(trouble)s. %(names)s waits for it.",
        "Endpoint %(endpoint)s: %(trouble)s. %(names)s wait for it.",
        len(judges),
    )
    return Need(
        f"trouble-{judges[0].pk}",
        Level.WARNING if cause is Cause.RATE_LIMIT else Level.ERROR,
        title % values,
        what=words.what,
        again=words.again,
        todo=words.todo,
        message=latest.message[:LONGEST_MESSAGE] if latest is not None and cause is not Cause.RATE_LIMIT else "",
        since=endpoint.last_error_at if cause is Cause.RATE_LIMIT or latest is None else latest.finished_at,
        retry_at=_retry_at(endpoint),
        buttons=(
            _test_button(project, judges[0]),
            Button(_("Open endpoint"), reverse("endpoint", args=[endpoint.name]), audience=Audience.SUPERUSERS),
        ),
    )


def _cause(endpoint: EndpointView, latest: Attempt | None) -> Cause:
    if endpoint.state == EndpointState.Mode.PAUSED:
        return Cause.RATE_LIMIT
    if latest is None:
        return cause_of(FailureKind.UNAVAILABLE, "")
    return cause_of(latest.outcome, latest.message)


def _retry_at(endpoint: EndpointView) -> datetime | None:
    """When the next call may be made, to the second, so that an unchanged page stays unchanged."""
    if endpoint.wait_s <= 0.0:
        return None
    return (timezone.now() + timedelta(seconds=endpoint.wait_s + 0.5)).replace(microsecond=0)


def _test_button(project: Project, judge: Annotator) -> Button:
    return Button(_("Test this judge"), reverse("trials", args=[project.slug]), {"judge": judge.pk})


def _endpoint_of(judge: Annotator, states: list[EndpointView]) -> EndpointView | None:
    """The endpoint of a judge, of several states of one name the one that was seen last."""
    mine = [
        each
        for each in states
        if each.name == judge.options.get("endpoint") and each.model in ("", judge.options.get("model"))
    ]
    return max(mine, key=lambda each: each.seen_at, default=None)
