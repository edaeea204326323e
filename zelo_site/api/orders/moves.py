"""Shared parts of the REST of distilled runs, recipes and refinements: refusals, finding a job, cancelling and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar

import pydantic
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja.errors import HttpError

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.models import Project
from labeling.plugins import UnknownPlugin
from workers.models import Job

Move = Literal["cancel", "resume"]


class _Work(Protocol):
    """A job, or a recipe."""

    pk: int
    project: Project


Work = TypeVar("Work", bound=_Work)


@contextmanager
def refusals(refused: type[Exception]) -> Iterator[None]:
    """Turn `refused`, an unknown plugin and options that are not valid into 422."""
    try:
        yield
    except (refused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error


def job_or_404(request: HttpRequest, stage: str, job_id: int) -> Job:
    """The job of this stage, if the user may see it and its project."""
    job = get_object_or_404(
        Job.objects.visible_to(request.user).filter(stage=stage).select_related("project"), pk=job_id
    )
    project_or_404(request, job.project.slug)
    return job


def moved(
    request: HttpRequest,
    work: Work,
    move: Move,
    *,
    name: str,
    job: Job,
    cancel: Callable[..., bool],
    resume: Callable[..., Work],
    refused: type[Exception],
) -> Work:
    """Cancel or resume `work` of `job`, and return it, or the new one that continues it. 409 if its state does not allow it."""
    owned_project_or_404(request, work.project.slug)
    if move == "resume":
        try:
            return resume(work, by=request.user)
        except refused as error:
            raise HttpError(409, str(error)) from error
    if not cancel(work, by=request.user):
        raise HttpError(409, f"{name} {work.pk} is {job.get_state_display()} already")
    return work
