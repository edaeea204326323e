"""The list of projects, shown after sign-in."""

from __future__ import annotations

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from labeling.models import Candidate, Membership, Project, Query, Role
from labeling.projects import may_create
from scoring.models import QueryFit
from workers.models import Run

SHOWN = 200


def _total(rows: QuerySet, path: str, total: Count | Sum) -> Coalesce:
    """Return a count per project as a subquery, because joins would multiply rows."""
    counted = rows.filter(**{path: OuterRef("pk")}).order_by().values(path).annotate(total=total).values("total")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def project_list(request: HttpRequest) -> HttpResponse:
    """List the user's projects with their size and last run; an annotator goes straight to the comparison screen."""
    last_run = Run.objects.filter(project=OuterRef("pk")).order_by("-id").values("state")[:1]
    mine = Membership.objects.filter(project=OuterRef("pk"), user_id=request.user.pk or 0).values("role")
    projects = Project.objects.visible_to(request.user).annotate(
        query_count=_total(Query.objects.all(), "project", Count("pk")),
        candidate_count=_total(Candidate.objects.all(), "query__project", Count("pk")),
        judgment_count=_total(QueryFit.objects.all(), "query__project", Sum("judgments")),
        run_state=Subquery(last_run),
        role=Subquery(mine),
    )
    shown = list(projects[:SHOWN])
    creates = any(each.role == Role.OWNER for each in shown) or may_create(request.user)
    return render(request, "zelo/project/projects.html", {"projects": shown, "may_create": creates})
