"""The searchable list of a project's queries, with problems marked."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy

from labeling.models import Candidate, Project, Query
from zelo_site.pages.forms import one_of, text_of
from zelo_site.pages.importing.candidates import filling_part
from zelo_site.pages.queries.certainty import mark_certainty
from zelo_site.pages.scope import may_change, visible_project

PAGE_SIZE = 50
FILTERS = {
    "islands": gettext_lazy("disconnected"),
    "unrated": gettext_lazy("not scored"),
    "stale": gettext_lazy("fit pending"),
    "failed": gettext_lazy("fit failed"),
}


def _filtered(queries: QuerySet[Query], chosen: str) -> QuerySet[Query]:
    if chosen == "islands":
        return queries.filter(fit__islands__gt=1)
    if chosen == "unrated":
        return queries.filter(fit__isnull=True)
    if chosen == "stale":
        return queries.filter(fit__judged_version__lt=F("judged_version"))
    if chosen == "failed":
        return queries.filter(fit__error__gt="")
    return queries


def queries_of(request: HttpRequest, project: Project) -> QuerySet[Query]:
    """Return a project's queries with their candidate counts and fits."""
    sizes = (
        Candidate.objects.filter(query=OuterRef("pk")).order_by().values("query").annotate(n=Count("pk")).values("n")
    )
    return (
        Query.objects.visible_to(request.user)
        .filter(project=project)
        .select_related("fit")
        .annotate(size=Coalesce(Subquery(sizes, output_field=IntegerField()), 0))
    )


def query_list(request: HttpRequest, slug: str) -> HttpResponse:
    """List 50 queries per page; `q` searches their texts, `show` filters by state."""
    project = visible_project(request, slug)
    search = text_of(request.GET, "q", 200)
    chosen = one_of(request.GET, "show", FILTERS)
    queries = _filtered(queries_of(request, project), chosen).order_by("id")
    if search:
        queries = queries.filter(text__icontains=search)
    page = Paginator(queries, PAGE_SIZE).get_page(request.GET.get("page"))
    mark_certainty(page.object_list)
    context = {
        "project": project,
        "page": page,
        "search": search,
        "chosen": chosen,
        "filters": FILTERS,
        "may_change": may_change(request, project),
        "filling": filling_part(request, project) if any(not getattr(query, "size", 0) for query in page) else "",
        "here": "queries",
    }
    return render(request, "zelo/queries/queries.html", context)
