"""The frame's navigation: the pages of a project in four groups, which of them is open, and the documentation of each.

A new page that belongs in the navigation gets a line in GROUPS; one that opens below another gets a line in BELOW.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from labeling.models import Role


@dataclass(frozen=True, slots=True)
class PageLink:
    """A page of a project: its label, its address's name, and whether only owners may open it."""

    label: Promise
    name: str
    owners: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the navigation. `key` never changes with the language."""

    key: str
    label: Promise
    pages: tuple[PageLink, ...]


GROUPS = (
    Group("data", _("Data"), (
        PageLink(_("Overview"), "project"),
        PageLink(_("Queries"), "queries"),
        PageLink(_("Charts"), "charts"),
        PageLink(_("Import"), "import", owners=True),
        PageLink(_("Past imports"), "imports"),
        PageLink(_("Export"), "exports"),
        PageLink(_("Report"), "report"),
        PageLink(_("Settings"), "settings", owners=True),
        PageLink(_("Webhooks"), "webhooks", owners=True),
        PageLink(_("Audit log"), "audit", owners=True),
    )),
    Group("judging", _("Judging"), (
        PageLink(_("New run"), "new-run", owners=True),
        PageLink(_("Recipe"), "recipe"),
        PageLink(_("Judges"), "scorecard"),
        PageLink(_("Scale"), "scale"),
        PageLink(_("Unanswered"), "failures"),
        PageLink(_("Test a judge"), "trials"),
        PageLink(_("Teach a judge"), "teachings"),
        PageLink(_("Injection probe"), "probes"),
        PageLink(_("Distilled run"), "distill"),
        PageLink(_("Recorded answers"), "recordings"),
    )),
    Group("people", _("People"), (
        PageLink(_("People and spot checks"), "people"),
        PageLink(_("Agreement"), "people-agreement"),
        PageLink(_("Disagreements"), "disagreements"),
        PageLink(_("Compare"), "compare", owners=True),
    )),
    Group("model", _("Model"), (
        PageLink(_("Snapshots"), "snapshots"),
        PageLink(_("Training"), "training"),
        PageLink(_("Proof"), "proof"),
        PageLink(_("Rerankers"), "rerankers"),
        PageLink(_("Deployments"), "deployments"),
    )),
)  # fmt: skip

# Pages that open below another one.
BELOW = {
    "query": "queries", "matrix": "queries", "graph": "queries", "where-next": "queries", "queue-next": "queries",
    "pair": "queries", "mark-gold": "queries", "bulk-queries": "queries", "ask-pair": "queries", "chart": "charts", "chart-file": "charts", "candidates": "queries", "left-out": "imports", "estimate": "new-run",
    "budget": "project", "delete-project": "settings", "delete": "project", "new-trial": "trials",
    "adjudicate": "disagreements", "training-run": "training", "moved": "proof", "try-reranker": "rerankers",
    "tokens": "profile", "preview-import": "new-project", "endpoint": "endpoints", "new-endpoint": "endpoints",
    "test-endpoint": "endpoints", "move-distillation": "distill", "move-training": "training",
    "webhook": "webhooks", "agreement": "scorecard", "refine": "rerankers", "trial": "trials",
    "teaching": "teachings", "deployment": "deployments", "limits": "endpoints",
}  # fmt: skip

# The documentation of each page: a file of docs/ and, where one fits, a heading's anchor.
HELP = {
    "project": "tour#the-project", "queries": "scoring", "query": "scoring", "matrix": "tour", "graph": "designs",
    "where-next": "designs", "pair": "tour", "bulk-queries": "tour", "charts": "tour", "chart": "tour", "import": "imports", "imports": "imports", "left-out": "imports",
    "new-project": "imports", "exports": "exports", "report": "evaluation", "settings": "scoring", "audit": "operations",
    "new-run": "tour#starting-a-run", "budget": "budgets", "scorecard": "judges", "scale": "scoring", "failures": "judges#a-judge-in-trouble",
    "trials": "judges", "teachings": "judges#teaching-a-judge", "probes": "judges", "distill": "judges#distilled-runs",
    "recordings": "judges", "people": "people", "people-agreement": "people#agreement", "disagreements": "people",
    "adjudicate": "people", "compare": "people", "snapshots": "training", "training": "training", "training-run": "training",
    "proof": "evaluation", "moved": "evaluation", "rerankers": "serving", "try-reranker": "serving", "jobs": "operations",
    "doctor": "operations#health", "plugins": "plugins", "endpoints": "judges", "endpoint": "judges",
    "server-audit": "operations", "archived": "deletion", "delete": "deletion", "delete-project": "deletion",
    "purge-project": "deletion", "delete-account": "deletion", "import-archive": "deletion", "profile": "people#roles",
    "candidates": "imports", "webhooks": "webhooks", "webhook": "webhooks", "recipe": "recipe", "refine": "recipe",
    "deployments": "serving#deployments", "deployment": "serving#deployments",
    "limits": "budgets#limits-of-the-operator",
}  # fmt: skip


def shown_name(url_name: str) -> str:
    """The name of the page of the navigation that an address belongs to."""
    return BELOW.get(url_name, url_name)


def groups_for(role: str) -> list[Group]:
    """The groups with the pages that this role may open; nothing for annotators, who judge blind."""
    if role not in (Role.OWNER, Role.VIEWER):
        return []
    is_owner = role == Role.OWNER
    return [Group(each.key, each.label, tuple(p for p in each.pages if is_owner or not p.owners)) for each in GROUPS]


def help_of(url_name: str) -> tuple[str, str]:
    """The documentation of a page as (file, anchor); the tour for a page without its own."""
    doc, __, anchor = HELP.get(url_name, HELP.get(shown_name(url_name), "tour")).partition("#")
    return doc, anchor
