"""GET /find/: what the palette shows: pages and actions, projects, documentation, and texts of queries and documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from labeling.access.members import role_of
from labeling.models import Candidate, Document, Project, Query, Role
from labeling.projects import may_create
from zelo_site.pages.forms import one_of, text_of
from zelo_site.pages.shell.documentation import document_titles
from zelo_site.pages.shell.navigation import groups_for

MODES = ("pages", "texts", "projects")
SHOWN = 8
FEWEST_LETTERS = 2
# A text that is in no document makes the database read all of them.
SEARCH_MS = 1500


@dataclass(frozen=True, slots=True)
class Hit:
    """A line of the palette: a label, what it is, and where it leads."""

    label: str
    hint: str
    address: str


@dataclass(slots=True)
class Found:
    """The lines of the palette; `note` says what was not found, or not searched."""

    hits: list[Hit] = field(default_factory=list)
    note: str = ""


@never_cache
@require_safe
def find(request: HttpRequest) -> HttpResponse:
    """Show what fits `q`: in `mode` pages (and actions), texts or projects; `p` is the open project."""
    words = text_of(request.GET, "q", 200)
    mode = one_of(request.GET, "mode", MODES) or "pages"
    slug = text_of(request.GET, "p", 80)
    project = Project.objects.visible_to(request.user).filter(slug=slug).first() if slug else None
    if mode == "texts":
        found = _texts(request, words, project)
    elif mode == "projects":
        found = Found(_projects(request, words))
    else:
        found = Found(_fitting(words, _pages(request, project)) + (_projects(request, words) if words else []))
    if not found.hits and not found.note:
        found.note = _("Nothing fits “%(words)s”.") % {"words": words} if words else _("There is nothing here yet.")
    return render(request, "zelo/parts/found.html", {"found": found})


def _pages(request: HttpRequest, project: Project | None) -> Iterable[Hit]:
    """Pages and actions of the open project, of the server, and the documentation."""
    role = str(role_of(request.user, project) or "") if project else ""
    for group in groups_for(role):
        for page in group.pages:
            yield Hit(str(page.label), str(group.label), reverse(page.name, args=[project.slug]))  # type: ignore[union-attr]
    if role == Role.ANNOTATOR and project is not None:
        yield Hit(_("Compare"), project.name, reverse("compare", args=[project.slug]))
        yield Hit(_("My answers"), project.name, reverse("my-answers", args=[project.slug]))
    server = _("Server")
    yield Hit(_("Projects"), server, reverse("projects"))
    yield Hit(_("Jobs"), server, reverse("jobs"))
    yield Hit(_("Profile, password and API keys"), server, reverse("profile"))
    if may_create(request.user):
        yield Hit(_("New project"), server, reverse("new-project"))
    if getattr(request.user, "is_superuser", False):
        yield Hit(_("Admin"), server, reverse("admin:index"))
        yield Hit(_("Endpoints"), server, reverse("endpoints"))
        yield Hit(_("Operator’s limits"), server, reverse("limits"))
    if getattr(request.user, "is_staff", False):
        yield Hit(_("Doctor"), server, reverse("doctor"))
        yield Hit(_("Plugins"), server, reverse("plugins"))
    for name, title in document_titles().items():
        yield Hit(title, _("Documentation"), reverse("doc", args=[name]))


def _fitting(words: str, hits: Iterable[Hit]) -> list[Hit]:
    """The lines that hold every word; those whose label begins with the words come first."""
    wanted = words.lower().split()
    found = [hit for hit in hits if all(word in f"{hit.label} {hit.hint}".lower() for word in wanted)]
    return sorted(found, key=lambda hit: not hit.label.lower().startswith(words.lower())) if wanted else found


def _projects(request: HttpRequest, words: str) -> list[Hit]:
    found = Project.objects.visible_to(request.user)
    found = found.filter(name__icontains=words) if words else found
    return [Hit(each.name, _("Project"), reverse("project", args=[each.slug])) for each in found[: 3 * SHOWN]]


def _texts(request: HttpRequest, words: str, project: Project | None) -> Found:
    """Queries and documents that hold the words, of the open project or of all that the user may read."""
    if len(words) < FEWEST_LETTERS:
        return Found(note=_("Type two letters or more to search queries and documents."))
    queries = Query.objects.visible_to(request.user).filter(text__icontains=words).select_related("project")
    documents = Document.objects.visible_to(request.user).filter(text__icontains=words, project__archived_at=None)
    if project is not None:
        queries, documents = queries.filter(project=project), documents.filter(project=project)
    found = Found()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = %s", [SEARCH_MS])
            found.hits += [_query_hit(each) for each in queries.order_by("id")[:SHOWN]]
            found.hits += _document_hits(list(documents.order_by("id").values_list("id", "text")[:SHOWN]), words)
    except OperationalError:
        found.note = _("The search of all documents took too long; type a longer or a more frequent text.")
    return found


def _query_hit(query: Query) -> Hit:
    address = reverse("query", args=[query.project.slug, query.pk])
    return Hit(query.text[:160], f"{_('Query')} · {query.project.name}", address)


def _document_hits(rows: list[tuple[int, str]], words: str) -> list[Hit]:
    """Documents are opened where they are ranked: below their first query."""
    candidates = (
        Candidate.objects.filter(document__in=[row[0] for row in rows])
        .order_by("document_id", "id")
        .distinct("document_id")
        .select_related("query__project")
    )
    texts, hits = dict(rows), []
    for each in candidates:
        project = each.query.project
        address = f"{reverse('query', args=[project.slug, each.query_id])}?document={each.pk}#d{each.pk}"
        hits.append(Hit(_excerpt(texts[each.document_id], words), f"{_('Document')} · {project.name}", address))
    return hits


def _excerpt(text: str, words: str) -> str:
    """The text around the first place where the words are."""
    at = max(0, text.lower().find(words.lower()) - 40)
    cut = " ".join(text[at : at + 160].split())
    return f"…{cut}" if at else cut
