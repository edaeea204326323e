"""The demo's story on the project's page: its steps in plain sentences, the table so far, the student's curve, a box to ask it.

The command `demo` tells the story (`zelo_site.demo.announcing`); projects without one show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from labeling.models import Project
from trainer.models import TrainingRun
from zelo_site.demo.announcing import Story, StoryRow, story_of
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.rerankers.training import curve
from zelo_site.pages.scope import visible_project

PART = "zelo/project/parts/story.html"


@dataclass(frozen=True, slots=True)
class StoryLine:
    """A row of the table; `low_x`, `value_x`, `high_x` place its interval in percent of the scale from 0 to 1."""

    row: StoryRow
    low_x: float
    value_x: float
    high_x: float


def story_context(project: Project) -> dict[str, object] | None:
    """Return the fragment's context, None without a story."""
    story = story_of(project.pk)
    if story is None:
        return None
    return {
        "project": project,
        "story": story,
        "lines": [StoryLine(row, 100 * row.low, 100 * row.value, 100 * row.high) for row in story.rows],
        **_learning(story, project),
    }


def _learning(story: Story, project: Project) -> dict[str, object]:
    """The curve of the training's loss, and NDCG@10 on the dev questions before and after."""
    run = TrainingRun.objects.filter(project=project, pk=story.training).first()
    if run is None:
        return {}
    progress = run.progress
    found: dict[str, object] = {"curve": curve(progress.get("loss") or [], steps=progress.get("steps", 0))}
    dev = [value for _, value in progress.get("ndcg") or []]
    return found | ({"dev_before": dev[0], "dev_best": max(dev)} if len(dev) > 1 else {})


def story_part(request: HttpRequest, project: Project) -> str:
    """Return the fragment, or "" without a story."""
    context = story_context(project)
    return rendered_fragment(request, PART, context)[0] if context is not None else ""


def project_story(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the fragment, or 204 if it is unchanged or has ended."""
    project = visible_project(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("project", slug=slug)  # a fragment is not a page
    context = story_context(project)
    return HttpResponse(status=204) if context is None else live_fragment(request, PART, context)
