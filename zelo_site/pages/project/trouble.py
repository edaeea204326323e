"""Judges in trouble at the top of a project's page: paused ones, and those whose endpoint does not work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from labeling.models import Annotator, Project
from workers.endpoints.limiter import EndpointView, endpoint_states
from workers.judging.failures import failed_calls
from workers.models import EndpointState, Run


@dataclass(frozen=True, slots=True)
class TroubleView:
    """One judge in trouble. Paused: since when and what to do; `endpoint`: the state of its endpoint, if it has one.

    `message` is that of the judge's own last failed call: the endpoint's may be of another project.
    """

    judge: Annotator
    endpoint: EndpointView | None
    since: datetime | None = None
    message: str = ""

    @property
    def is_paused(self) -> bool:
        return self.since is not None


def paused_judges(project: Project) -> list[Annotator]:
    """Return the paused judges of a project, each with its trouble."""
    judges = Annotator.objects.offered().filter(project=project, paused_at__isnull=False)
    return list(judges.select_related("trouble").order_by("pk"))


def read_troubles(project: Project, run: Run | None, paused: list[Annotator]) -> list[TroubleView]:
    """Return the `paused` judges in trouble, then the judges of a run that wait for their endpoint."""
    troubles = [(judge, judge.trouble) for judge in paused if hasattr(judge, "trouble")]
    is_active = run is not None and run.state in Run.ACTIVE
    are_down = is_active and EndpointState.objects.exclude(mode=EndpointState.Mode.CLOSED).exists()
    states = endpoint_states(project) if troubles or are_down else []
    found = [TroubleView(judge, _endpoint(judge, states), trouble.since) for judge, trouble in troubles]
    if not are_down or run is None:
        return found
    for judge in run.judges.filter(paused_at__isnull=True).order_by("pk"):
        endpoint = _endpoint(judge, states)
        if endpoint is not None and endpoint.state in (EndpointState.Mode.OPEN, EndpointState.Mode.HALF_OPEN):
            latest = failed_calls(project, annotator_id=judge.pk).values_list("message", flat=True).first()
            found.append(TroubleView(judge, endpoint, message=latest or ""))
    return found


def _endpoint(judge: Annotator, states: list[EndpointView]) -> EndpointView | None:
    """The endpoint of a judge, of several states of one name the one that was seen last."""
    mine = [
        each
        for each in states
        if each.name == judge.options.get("endpoint") and each.model in ("", judge.options.get("model"))
    ]
    return max(mine, key=lambda each: each.seen_at, default=None)
