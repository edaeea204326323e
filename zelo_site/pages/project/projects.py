"""The list of projects, shown after sign-in."""

from __future__ import annotations

from django.db.models import OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from labeling.models import Membership, Project, Role
from labeling.projects import may_create, with_counts
from scoring.models import QueryFit
from workers.models import Run

SHOWN = 200


def project_list(request: HttpRequest) -> HttpResponse:
    """List the user's projects with their size and last run; an annotator goes straight to the comparison screen."""
    last_run = Run.objects.filter(project=OuterRef("pk")).order_by("-id").values("state")[:1]
    mine = Membership.objects.filter(project=OuterRef("pk"), user_id=request.user.pk or 0).values("role")
    fits = QueryFit.objects.filter(query__project=OuterRef("pk")).order_by().values("query__project")
    judged = fits.annotate(total=Sum("judgments"))
    projects = with_counts(Project.objects.visible_to(request.user)).annotate(
        judgment_count=Coalesce(Subquery(judged.values("total")), 0),
        run_state=Subquery(last_run),
        role=Subquery(mine),
    )
    shown = list(projects[:SHOWN])
    creates = any(each.role == Role.OWNER for each in shown) or may_create(request.user)
    return render(request, "zelo/project/projects.html", {"projects": shown, "may_create": creates})
